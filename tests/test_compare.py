import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from records import DDPM, raw, save

import dvbench
from dvbench.cli.compare import compare as command
from dvbench.errors import UsageError
from dvbench.record import Record
from dvbench.report.compare import NO_BASELINE, compare
from dvbench.report.labels import label
from dvbench.report.table import sections

KEYS = ["run_id", "benchmark", "method", "cost", "metrics", "ratios", "baseline", "comparable", "why_not"]
RATIOS = ["sample_flops", "train_flops_per_image", "sample_seconds", "train_seconds"]
SLOW = {"cost.sample_flops": 250_000_000, "cost.train_flops_per_image": 10_000_000, "cost.train_seconds": 150.0}


@pytest.fixture
def results(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM, **SLOW, **{"cost.sample_seconds": 40.0, "cost.samples": 200})
    return tmp_path


def rows(*paths, results):
    return {row["run_id"]: row for row in compare(paths, results).to_json()}


def test_ratios_are_baseline_over_run_and_seconds_count_per_image(results):
    found = rows(results=results)
    assert found["dct"]["ratios"] == {
        "sample_flops": 2.5,
        "train_flops_per_image": 2.0,
        "sample_seconds": 2.0,
        "train_seconds": 1.5,
        "intervals": {},
    }
    assert found["ddpm"]["ratios"] == dict.fromkeys(found["dct"]["ratios"], 1.0) | {"intervals": {}}
    assert [found["dct"][key] for key in ("baseline", "comparable", "why_not")] == [False, True, None]
    assert [found["ddpm"][key] for key in ("baseline", "comparable", "why_not")] == [True, True, None]


def test_json_has_the_contract_s_keys_and_raw_values(results):
    (row,) = (row for row in compare(None, results).to_json() if row["run_id"] == "dct")
    assert list(row) == KEYS
    assert {key: row[key] for key in ("method", "cost")} == {key: raw()[key] for key in ("method", "cost")}
    (metric,), (told,) = raw()["metrics"], row["metrics"]
    assert metric == {key: told[key] for key in metric}
    assert set(told) - set(metric) == {"group", "against"}
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
        "intervals": {},
    }


def test_without_ddpm_nothing_is_compared(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM, benchmark="faces")  # another benchmark's does not count
    found = rows(results=tmp_path)["dct"]
    assert (found["comparable"], found["why_not"]) == (False, NO_BASELINE)
    assert found["ratios"] == dict.fromkeys(RATIOS) | {"intervals": {}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metrics.0.n": 5000}, "n of FD (lite0) is 5000, not 100"),
        ({"metrics.0.detector_hash": "f" * 64}, "detector_hash of FD (lite0) is ffffffff, not dddddddd"),
        ({"metrics.0.detector": "lite0 9"}, "detector of FD (lite0) is lite0 9, not lite0 0.1.0"),
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


def test_runs_by_different_code_are_not_comparable_and_what_a_record_does_not_tell_is_no_reason(tmp_path):
    save(tmp_path, **DDPM, **{"environment.code": "a" * 64})
    save(tmp_path, run_id="other", **{"environment.code": "b" * 64})
    save(tmp_path, run_id="older", **{"method.basis": "haar"})
    found = rows(results=tmp_path)
    assert found["other"]["why_not"] == "not comparable with ddpm: dvbench's own code is bbbbbbbb, not aaaaaaaa"
    assert found["older"]["comparable"] is True


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


def test_a_baseline_of_the_same_training_goes_before_one_that_draws_alike(tmp_path):
    save(tmp_path, run_id="dct", config={"training": {"seconds": 150}})
    alike = DDPM | {"run_id": "trained-alike", "method.sampler": "ddim", "method.sample_steps": 10}
    save(tmp_path, **alike, config={"training": {"seconds": 150}})
    later = DDPM | {"run_id": "drawn-alike", "finished": "2026-02-01T00:00:00+00:00"}
    save(tmp_path, **later, config={"training": {"seconds": 15}})
    assert rows(results=tmp_path)["dct"]["metrics"][0]["against"]["run_ids"] == ["trained-alike"]


def test_what_differs_beside_the_process_is_told(tmp_path):
    """Not what makes another process, what a row tells, what changes no figure, or what only one of them says."""
    ours = {"training": {"seconds": 150, "microbatch": None}, "dataset": {"train_images": 500}, "start": "matched"}
    save(tmp_path, run_id="dct", config=ours)
    theirs = {"training": {"seconds": 15, "microbatch": 1, "ema": 0.9}, "dataset": {"train_images": 50}}
    save(tmp_path, **DDPM | {"method.sampler": "ddim"}, config=theirs | {"start": "noise"})
    comparison = compare(None, tmp_path)
    assert comparison.frame.set_index("run_ids").loc["dct", "unlike"] == "training.seconds dataset.train_images"
    (table,) = sections(comparison)
    assert table.notes[0] == "(1) differs from ddpm in more than the process: training.seconds, dataset.train_images"
    assert table.rows["Run"].str.contains("(1)", regex=False).sum() == 1


def test_a_comparable_baseline_goes_before_a_like_one(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM | {"run_id": "elsewhere", "environment.device_name": "a GPU"})
    save(tmp_path, **DDPM | {"run_id": "here", "seed": 5, "method.sampler": "ddim"})
    comparison = compare(None, tmp_path)
    assert comparison.frame.set_index("run_ids").loc["dct", "against"] == "here"


def test_where_none_draws_in_as_many_steps_the_baseline_costs_the_most_nearly_as_much(tmp_path):
    save(tmp_path, run_id="dct", **{"method.sample_steps": 40})
    for steps, flops in ((10, 50), (20, 130), (80, 400), (100, None)):
        cost = None if flops is None else flops * 1_000_000
        save(tmp_path, **DDPM | {"run_id": f"in{steps}", "method.sample_steps": steps, "cost.sample_flops": cost})
    assert rows(results=tmp_path)["dct"]["metrics"][0]["against"]["run_ids"] == ["in20"]
    save(tmp_path, **DDPM | {"run_id": "in40", "method.sample_steps": 40, "cost.sample_flops": 900_000_000})
    assert rows(results=tmp_path)["dct"]["metrics"][0]["against"]["run_ids"] == ["in40"]


def test_every_ddpm_run_is_its_own_baseline(tmp_path):
    for seed in range(3):
        save(tmp_path, **DDPM | {"run_id": f"ddpm{seed}", "seed": seed, "cost.train_seconds": None})
    for row in compare(None, tmp_path).to_json():
        assert row["baseline"] is True
        assert row["ratios"] == dict.fromkeys(RATIOS, 1.0) | {"intervals": {}}


def test_what_was_trained_with_the_same_seeds_is_likest(tmp_path):
    save(tmp_path, run_id="dct", seed=3)
    save(tmp_path, **DDPM | {"run_id": "same", "seed": 3, "config": {"more": 1}})
    save(tmp_path, **DDPM | {"run_id": "other", "seed": 4, "config": {"more": 2}})
    assert rows(results=tmp_path)["dct"]["metrics"][0]["against"]["run_ids"] == ["same"]


# A run of one's own choice to hold all against.


def test_all_is_held_against_the_run_that_is_asked_for(results):
    save(results, run_id="haar", **{"method.basis": "haar", "cost.sample_flops": 50_000_000})
    for against in ("haar", results / "cats" / "haar"):
        found = {row["run_id"]: row for row in compare("cats", results, against=against).to_json()}
        assert [found[name]["baseline"] for name in ("haar", "dct", "ddpm")] == [True, False, False]
        assert [found[name]["ratios"]["sample_flops"] for name in ("haar", "dct", "ddpm")] == [1.0, 0.5, 0.2]
        assert found["ddpm"]["metrics"][0]["against"]["run_ids"] == ["haar"]


def test_the_run_to_hold_against_need_not_be_among_those_asked_for(results):
    found = {row["run_id"] for row in compare("dct", results, against="ddpm").to_json()}
    assert found == {"dct", "ddpm"}


def test_a_run_to_hold_against_brings_its_other_seeds_where_they_are_among_the_runs(results):
    save(results, run_id="ddpm-1", seed=1, **{key: DDPM[key] for key in DDPM if key != "run_id"}, **SLOW)
    (dct,) = (row for row in compare(None, results, against="ddpm").to_json() if row["run_id"] == "dct")
    assert dct["metrics"][0]["against"]["run_ids"] == ["ddpm", "ddpm-1"]


def test_runs_of_other_benchmarks_are_named_as_such(results):
    save(results, run_id="face", benchmark="faces")
    (face,) = (row for row in compare(None, results, against="ddpm").to_json() if row["run_id"] == "face")
    assert face["why_not"] == "not comparable with ddpm: benchmark is faces, not cats"


def test_a_run_to_hold_against_is_one_and_finished(results):
    save(results, run_id="half", status="failed", finished=None)
    for against, told in (("cats", "runs of 2 configurations"), ("half", "a run that is failed")):
        with pytest.raises(UsageError, match=f"--against {against} is {told}: give the id or the directory of one"):
            compare(None, results, against=against)
    with pytest.raises(UsageError, match="no run matches 'nowhere'"):
        compare(None, results, against="nowhere")


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


def test_an_empty_argument_is_not_the_directory_that_one_is_in(results, monkeypatch):
    monkeypatch.chdir(results)
    with pytest.raises(UsageError, match="an empty argument names no run"):
        compare("", results)


@pytest.mark.parametrize("wanted", ["dogs", "*", "..", "nowhere/at/all", "dogs.yaml"])
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
    assert comparison.frame.empty


def test_a_damaged_record_is_refused_by_name(results):
    (results / "cats" / "dct" / "record.json").write_text("{")
    with pytest.raises(UsageError, match=r"cats/dct/record\.json is no valid record|cats/dct/record\.json is damaged"):
        compare(None, results)


def test_fid_is_the_name_of_one_detector_s_distance():
    def metric(name, detector):
        return Record.model_validate(raw(**{"metrics.0.name": name, "metrics.0.detector": detector})).metrics[0]

    pairs = [("fid", "inception 0.1"), ("fid", "lite0 1"), ("fd", "lite0"), ("kid", "inception"), ("count", None)]
    assert [label(metric(*pair)) for pair in pairs] == ["FID", "FD (lite0)", "FD (lite0)", "KID (inception)", "count"]
    pairs = [("fid_inf", "inception 0.1"), ("fd_inf", "lite0 1"), ("precision", "lite0 1"), ("lsd", None)]
    assert [label(metric(*pair)) for pair in pairs] == ["FID∞", "FD∞ (lite0)", "precision (lite0)", "LSD (dB)"]
    assert label(metric("fid", "inception 1").model_copy(update={"split": "train"})) == "FID (inception, train)"
    assert label(metric("lsd", None).model_copy(update={"split": "train"})) == "LSD (dB, train)"


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
    for wrong in (
        ("--against", "nowhere"),
        ("--at", "miles"),
        ("--out", results),
        ("--metrics", "fdd"),
        ("--metrics", "fd", "--format", "csv"),
        ("--literature", "--format", "json"),
    ):
        error = run("--results", results, *wrong).exception
        assert isinstance(error, UsageError), wrong
        assert "\n" not in str(error)


def test_python_has_the_same(results):
    assert dvbench.compare([results]).to_json() == compare(None, results).to_json()
    asked = {"against": "dct", "at": "images"}
    assert dvbench.compare([results], results=results, **asked).to_json() == compare(None, results, **asked).to_json()


# Regressions.


def test_a_run_that_is_no_worse_passes(results):
    assert run("--results", results, "--fail-on-regression").exit_code == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cost.sample_flops": 300_000_000}, "needs more FLOPs a sample than DDPM (ddpm-0): 1.200 times as many"),
        ({"metrics.0.value": 20.0}, "is worse in FD (lite0) than DDPM (ddpm-0): by 7.654 (7.654 to 7.654, over seeds)"),
        ({"cost.sample_seconds": 20.0}, "samples more slowly than DDPM (ddpm-0): 2.000 times as long"),
    ],
)
def test_each_thing_that_got_worse_is_a_line_and_the_exit_code_is_3(tmp_path, change, told):
    """Two seeds on either side, of which the second is larger in all by as good as nothing."""
    for seed, factor in enumerate((1.0, 1 + 1e-6)):
        each = {"cost.sample_seconds": 10.0, "metrics.0.value": 12.3456789}
        mine, its = ({key: type(x)(factor * x) for key, x in side.items()} for side in (each | change, each))
        save(tmp_path, **DDPM | {"run_id": f"ddpm-{seed}", "cost.sample_flops": 250_000_000}, seed=seed, **its)
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **mine)
    done = run("--results", tmp_path, "--fail-on-regression")
    assert (done.exit_code, done.stderr) == (3, f"cats: dct 32-16-8 (dct-0, dct-1) {told}\n")
    assert run("--results", tmp_path).exit_code == 0


def test_noise_is_no_regression(tmp_path):
    for seed, value in enumerate((12.0, 13.0)):
        save(tmp_path, **DDPM | SLOW | {"run_id": f"ddpm-{seed}", "seed": seed, "metrics.0.value": value})
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **{"metrics.0.value": value + 1})
    done = run("--results", tmp_path, "--fail-on-regression")
    assert (done.exit_code, done.stderr) == (0, "")


def test_one_training_each_is_no_regression_however_far_apart_and_that_is_said(tmp_path):
    save(tmp_path, **DDPM, **SLOW, **{"metrics.0.low": 11.0, "metrics.0.high": 14.0})
    save(tmp_path, run_id="dct", **{"metrics.0.value": 99.0, "metrics.0.low": 98.0, "metrics.0.high": 100.0})
    done = run("--results", tmp_path, "--fail-on-regression")
    assert done.exit_code == 0
    assert done.stderr.startswith("cats: dct 32-16-8 (dct) is not judged in quality: one seed each: another training")


def test_what_cannot_be_compared_is_named_and_no_regression(results):
    save(results, run_id="dct", **{"environment.threads": 9, "cost.sample_flops": 10**9})
    done = run("--results", results, "--fail-on-regression")
    told = "cats: dct 32-16-8 (dct) is not compared: not comparable with ddpm: threads is 9, not 2\n"
    assert (done.exit_code, done.stderr) == (0, told)


def test_reporting_imports_no_torch_and_the_command_nothing_heavy():
    code = "import sys, {}; print({{'torch', 'pandas', 'rich', 'pydantic'}} & set(sys.modules))"
    for name, heavy in (("dvbench.report.formats", {"pandas", "rich", "pydantic"}), ("dvbench.cli.compare", set())):
        done = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True)
        assert eval(done.stdout) == heavy
