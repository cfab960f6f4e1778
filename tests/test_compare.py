import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from records import DDPM, raw, save
from rich.console import Console

import dvbench
from dvbench.cli.compare import compare as command
from dvbench.errors import UsageError
from dvbench.record import Record
from dvbench.report.compare import NO_BASELINE, compare, label
from dvbench.report.table import NONE, count, duration, significant, tables

KEYS = ["run_id", "benchmark", "method", "cost", "metrics", "ratios", "baseline", "comparable", "why_not"]
SLOW = {"cost.sample_flops": 250_000_000, "cost.train_flops_per_image": 10_000_000, "cost.train_seconds": 150.0}


@pytest.fixture
def results(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM, **SLOW, **{"cost.sample_seconds": 40.0, "cost.samples": 200})
    return tmp_path


def rows(*paths, results):
    return {row["run_id"]: row for row in compare(paths, results).to_json()}


def drawn(comparison, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(tables(comparison))
    return console.file.getvalue()


def test_ratios_are_baseline_over_run_and_seconds_count_per_image(results):
    found = rows(results=results)
    assert found["dct"]["ratios"] == {
        "sample_flops": 2.5,
        "train_flops_per_image": 2.0,
        "sample_seconds": 2.0,
        "train_seconds": 1.5,
    }
    assert found["ddpm"]["ratios"] == dict.fromkeys(found["dct"]["ratios"], 1.0)
    assert [found["dct"][key] for key in ("baseline", "comparable", "why_not")] == [False, True, None]
    assert [found["ddpm"][key] for key in ("baseline", "comparable", "why_not")] == [True, True, None]


def test_json_has_the_contract_s_keys_and_raw_values(results):
    (row,) = (row for row in compare(None, results).to_json() if row["run_id"] == "dct")
    assert list(row) == KEYS
    assert {key: row[key] for key in ("method", "cost", "metrics")} == {
        key: raw()[key] for key in ("method", "cost", "metrics")
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row


@pytest.mark.parametrize("value", [None, 0])
@pytest.mark.parametrize("run", ["dct", "ddpm"])
def test_a_ratio_without_both_costs_is_null(tmp_path, run, value):
    lost = {"cost.sample_flops": value, "cost.samples": value, "cost.train_seconds": value}
    save(tmp_path, **{"run_id": "dct"} | (lost if run == "dct" else {}))
    save(tmp_path, **DDPM | (lost if run == "ddpm" else {}))
    assert rows(results=tmp_path)["dct"]["ratios"] == {
        "sample_flops": None,
        "train_flops_per_image": 1.0,
        "sample_seconds": None,
        "train_seconds": None,
    }


def test_without_ddpm_nothing_is_compared(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM, benchmark="faces")  # another benchmark's does not count
    found = rows(results=tmp_path)["dct"]
    assert (found["comparable"], found["why_not"]) == (False, NO_BASELINE)
    assert set(found["ratios"].values()) == {None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metrics.0.n": 5000}, "n of FD (lite0) is 5000, not 100"),
        ({"metrics.0.detector_hash": "f" * 64}, "detector_hash of FD (lite0) is ffffffff, not dddddddd"),
        ({"metrics.0.reference_hash": None}, "reference_hash of FD (lite0) is unknown, not eeeeeeee"),
        ({"metrics.0.resize": "area"}, "resize of FD (lite0) is area, not bicubic to 96"),
        ({"environment.device_name": "a GPU"}, "device_name is a GPU, not a processor"),
        ({"environment.threads": 8}, "threads is 8, not 2"),
        ({"metrics.0.detector": "dinov2 1"}, "they share no metric"),
    ],
)
def test_what_differs_is_said(tmp_path, change, told):
    save(tmp_path, run_id="dct", **change)
    save(tmp_path, **DDPM)
    found = rows(results=tmp_path)["dct"]
    assert found["comparable"] is False
    assert found["why_not"] == f"not comparable with ddpm: {told}"
    assert found["ratios"]["sample_flops"] == 1.0  # still told


def test_all_that_differs_is_said_in_one_sentence(tmp_path):
    save(tmp_path, run_id="dct", **{"environment.threads": 8, "metrics.0.n": 7})
    save(tmp_path, **DDPM)
    told = rows(results=tmp_path)["dct"]["why_not"]
    assert told == "not comparable with ddpm: threads is 8, not 2; n of FD (lite0) is 7, not 100"


def test_runs_with_different_versions_of_a_plugin_are_told_of(tmp_path):
    save(tmp_path, **DDPM)
    for run_id, version, code in (("old", "1", {}), ("new", "2", {}), ("edited", "2", {"waves": "ab" * 32})):
        plugins = {"dvbench": "0.1.0", "waves": version}
        change = {"environment.plugins": plugins, "environment.plugin_code": code, "method.basis": "db2"}
        save(tmp_path, run_id=run_id, **change)
    found = compare(results=tmp_path)
    (note,) = found.notes
    assert note.startswith("cats: runs were made with different versions of waves: ")
    for told in ("1 (such as old)", "2 (such as new)", "2 (source abababab) (such as edited)"):
        assert told in note
    assert found.frame["comparable"].all()  # each with DDPM, which has no part in that plugin

    save(tmp_path, run_id="later", **{"environment.plugins": {"dvbench": "0.2.0"}})
    assert rows(results=tmp_path)["later"]["why_not"] == "not comparable with ddpm: dvbench is 0.2.0, not 0.1.0"


def test_a_metric_that_only_one_run_has_hinders_nothing(tmp_path):
    metrics = raw()["metrics"]
    save(tmp_path, run_id="dct", metrics=[*metrics, metrics[0] | {"name": "kid", "n": 3}])
    save(tmp_path, **DDPM)
    assert rows(results=tmp_path)["dct"]["comparable"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"method.backbone": "dit"},
        {"method.sampler": "ddim"},
        {"method.sample_steps": 10},
        {"method.prediction": "v"},
        {"seed": 1},
        {"config": {"training": {"images": 7}}},
        {"finished": "2025-01-01T00:00:00+00:00"},
        {"environment.threads": 8},
    ],
)
def test_the_likest_baseline_is_taken(tmp_path, change):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM | {"run_id": "a", "cost.sample_flops": 1} | change)
    save(tmp_path, **DDPM | {"run_id": "b", "cost.sample_flops": 700_000_000})
    save(tmp_path, **DDPM | {"run_id": "c", "cost.sample_flops": 1} | change)
    assert rows(results=tmp_path)["dct"]["ratios"]["sample_flops"] == 7.0


def test_a_comparable_baseline_goes_before_a_like_one(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM | {"run_id": "elsewhere", "environment.device_name": "a GPU"})
    save(tmp_path, **DDPM | {"run_id": "here", "seed": 5, "method.sampler": "ddim"})
    comparison = compare(None, tmp_path)
    assert comparison.frame.set_index("run_id").loc["dct", "against"] == "here"


def test_every_ddpm_run_is_its_own_baseline(tmp_path):
    for seed in range(3):
        save(tmp_path, **DDPM | {"run_id": f"ddpm{seed}", "seed": seed, "cost.train_seconds": None})
    for row in compare(None, tmp_path).to_json():
        assert row["baseline"] is True
        assert set(row["ratios"].values()) == {1.0}


@pytest.mark.parametrize(
    "wanted",
    ["cats", "dct", "{}", "{}/cats", "{}/cats/dct", "{}/cats/dct/record.json", ("dct", "{}/cats/dct"), Path("cats")],
)
def test_runs_are_meant_by_benchmark_id_directory_or_file(results, wanted):
    save(results, benchmark="faces", run_id="other")
    texts = [wanted] if isinstance(wanted, str | Path) else wanted
    texts = [text.format(results) if isinstance(text, str) else text for text in texts]
    found = [row["run_id"] for row in compare(texts, results).to_json()]
    assert len(found) == len(set(found))
    whole = {"{}": {"dct", "ddpm", "other"}, "cats": {"dct", "ddpm"}, "{}/cats": {"dct", "ddpm"}}
    assert set(found) == whole.get(str(wanted), {"dct"})


def test_one_path_need_not_be_a_list(results):
    assert len(compare("cats", results).records) == len(compare(results / "cats").records) == 2


def test_runs_lying_deeper_are_found_by_name(results):
    save(results / "reference", run_id="deep", benchmark="cats")
    assert set(rows("deep", results=results)) == {"deep"}
    assert set(rows("reference", results=results)) == {"deep"}


@pytest.mark.parametrize("wanted", ["dogs", "*", "..", "", "nowhere/at/all", "dogs.yaml"])
def test_what_matches_nothing_is_refused(results, wanted, monkeypatch):
    (results / "cwd" / "in").mkdir(parents=True)
    monkeypatch.chdir(results / "cwd" / "in")
    with pytest.raises(UsageError, match=r"no run matches .*make one with `dvbench run"):
        compare(["cats", wanted], results)


def test_no_runs_at_all_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no runs under .*nowhere: make one with `dvbench run NAME`"):
        compare(None, tmp_path / "nowhere")


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_unfinished_runs_are_left_out_and_named(results, status):
    save(results, run_id="half", status=status, finished=None)
    comparison = compare(None, results)
    assert {record.run_id for record in comparison.records} == {"dct", "ddpm"}
    (note,) = comparison.notes
    assert "half" in note
    assert status in note


def test_nothing_finished_leaves_an_empty_comparison(tmp_path):
    save(tmp_path, status="interrupted")
    comparison = compare(None, tmp_path)
    assert comparison.to_json() == []
    assert drawn(comparison).strip() == ""


def test_a_damaged_record_is_refused_by_name(results):
    (results / "cats" / "dct" / "record.json").write_text("{")
    with pytest.raises(UsageError, match=r"cats/dct/record\.json is no valid record|cats/dct/record\.json is damaged"):
        compare(None, results)


def test_fid_is_the_name_of_one_detector_s_distance():
    def metric(name, detector):
        return Record.model_validate(raw(**{"metrics.0.name": name, "metrics.0.detector": detector})).metrics[0]

    pairs = [("fid", "inception 0.1"), ("fid", "lite0 1"), ("fd", "lite0"), ("kid", "inception"), ("count", None)]
    assert [label(metric(*pair)) for pair in pairs] == ["FID", "FD (lite0)", "FD (lite0)", "KID (inception)", "COUNT"]


def test_the_table_has_ddpm_first_and_the_others_by_distance(results):
    save(results, run_id="haar", **{"method.basis": "haar", "metrics.0.value": 3.0})
    save(results, run_id="bare", metrics=[])
    text = drawn(compare(None, results))
    places = [text.index(word) for word in ("real against real", "DDPM", "haar 32-16-8", "dct 32-16-8", "bare")]
    assert places == sorted(places)


def test_the_table_tells_what_there_is_to_tell(results):
    metrics = raw()["metrics"]
    kid = metrics[0] | {"name": "kid", "value": 0.0012345, "floor": None}
    better = metrics[0] | {"name": "recall", "higher_is_better": True}
    save(results, run_id="full", metrics=[kid, *metrics, better], **{"environment.threads": 9})
    text = drawn(compare(None, results))
    for word in (
        "cats",
        "FD ↓",
        "(lite0)",
        "KID",
        "12.35",
        "0.00123",
        "1.250",
        "2.50x",
        "2.00x",
        "1.50x",
        "50k",
        "100 s",
        NONE,
    ):
        assert word in text, word
    assert "RECALL" not in text
    assert "dct 32-16-8 (1)" in text
    assert "(1) not comparable with ddpm: threads is 9, not 2" in text
    assert text.index("FD") < text.index("KID")


def test_no_number_is_broken_or_lost_at_100_columns(results):
    fid = raw()["metrics"][0] | {"name": "fid", "detector": "inception 0.1.35", "value": 234.5678}
    kids = [fid | {"name": "kid", "value": 0.0123456}, fid | {"name": "kid", "detector": "lite0", "value": 0.045678}]
    metrics = [fid, *raw()["metrics"], *kids]
    large = {"cost.sample_flops": 98_765_432_100_000, "cost.train_seconds": 360_000, "cost.train_images": 123_456_789}
    save(results, run_id="20260101-000000-0123456789abcdef", metrics=metrics, **large)
    text = drawn(compare(None, results))
    assert max(map(len, text.splitlines())) <= 100
    for word in ("234.6", "12.35", "0.0123", "0.0457", "98,765", "100 h", "123.5M"):
        assert word in text, word


def test_words_in_brackets_are_shown_as_they_are(results):
    save(results, run_id="[red]x", benchmark="[bold]", **{"environment.threads": 9})
    text = drawn(compare(None, results))
    assert "[red]x" in text
    assert "[bold]" in text


def test_the_same_reason_is_told_once(results):
    for name in ("a", "b"):
        save(results, run_id=name, **{"environment.threads": 9})
    assert drawn(compare(None, results)).count("threads is 9") == 1


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (significant(12.3456, 4), "12.35"),
        (significant(123456.7), "123,457"),
        (significant(0.0012345), "0.00123"),
        (significant(-0.5), "-0.500"),
        (significant(9.999), "10.0"),
        (significant(0.000012345), "1.23e-05"),
        (significant(0), "0"),
        (significant(None), NONE),
        (duration(0.1234), "0.123 s"),
        (duration(119), "119 s"),
        (duration(120), "2.00 min"),
        (duration(7200), "2.00 h"),
        (duration(None), NONE),
        (count(9999), "9999"),
        (count(50000), "50k"),
        (count(1_234_567), "1.235M"),
        (count(None), NONE),
    ],
)
def test_numbers_are_rounded_for_the_eye(shown, wanted):
    assert shown == wanted


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 6))
def test_rounding_keeps_the_digits_asked_for(value, digits):
    back = float(significant(value, digits).replace(",", ""))
    assert back == pytest.approx(value, rel=10.0 ** (1 - digits), abs=0)


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_prints_a_table_and_json(results):
    save(results, run_id="half", status="failed", finished=None)
    done = run("cats", "--results", results)
    assert done.exit_code == 0
    assert "DDPM" in done.stdout
    assert "half is left out: the run is failed" in done.stderr
    done = run("--results", results, "--format", "json")
    assert json.loads(done.stdout) == compare(None, results).to_json()
    assert "half" in done.stderr


def test_the_command_leaves_errors_to_the_program(results):
    assert isinstance(run("dogs", "--results", results).exception, UsageError)
    assert run("--format", "pdf").exit_code == 2


def test_python_has_the_same(results):
    assert dvbench.compare([results]).to_json() == compare(None, results).to_json()


def test_reporting_imports_no_torch_and_the_command_nothing_heavy():
    code = "import sys, {}; print({{'torch', 'pandas', 'rich', 'pydantic'}} & set(sys.modules))"
    for name, heavy in (("dvbench.report.table", {"pandas", "rich", "pydantic"}), ("dvbench.cli.compare", set())):
        done = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True)
        assert eval(done.stdout) == heavy
