"""What a comparison looks like, in a terminal, Markdown, LaTeX and CSV."""

import csv
import io
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from records import DDPM, curve, raw, save
from rich.console import Console

from dvbench.cli.compare import compare as command
from dvbench.errors import UsageError
from dvbench.report import formats
from dvbench.report.compare import compare
from dvbench.report.literature import Claim
from dvbench.report.table import NONE, Section, count, duration, sections, significant, unshown

SLOW = {"cost.sample_flops": 250_000_000, "cost.train_flops_per_image": 10_000_000, "cost.train_seconds": 150.0}
ODD = r"a_b & 50% {x} #1 $y$ ^ ~ \z <t> |p| [q] *r* `s`"
CLAIM = Claim(
    dataset="FFHQ", resolution=1024, method="DVDP", metric="FID", value=10.46, paper="A & B 2023", arxiv="2211.16032",
    where="abstract",
)  # fmt: skip


@pytest.fixture
def results(tmp_path):
    save(tmp_path, run_id="dct")
    save(tmp_path, **DDPM, **SLOW, **{"cost.sample_seconds": 40.0, "cost.samples": 200})
    return tmp_path


def measured(**others):
    """Return the distance of the records, and more metrics by name, each with an interval."""
    (fd,) = raw()["metrics"]
    ends = {"low": fd["value"] - 2.1, "high": fd["value"] + 2.1}
    higher = {"precision", "recall"}
    return [fd | ends] + [
        fd | {"name": name, "value": value, "low": value - 0.1, "high": value + 0.1, "higher_is_better": name in higher}
        for name, value in others.items()
    ]


def drawn(comparison, width=100, metrics=None):
    console = Console(file=io.StringIO(), width=width)
    console.print(formats.terminal(sections(comparison, metrics), width))
    return console.file.getvalue()


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


# The table.


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
    assert "recall" not in text
    assert "dct 32-16-8 (2)" in text
    assert "(2) not comparable with ddpm: threads is 9, not 2" in text
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


def test_of_several_seeds_a_row_shows_their_mean_their_number_and_a_run_of_them(tmp_path):
    for seed, value in enumerate((10.0, 12.0, 17.0)):
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **{"metrics.0.value": value})
    text = drawn(compare(None, tmp_path))
    assert "dct 32-16-8, 3 seeds" in text
    assert "dct-0" in text
    assert "13.00 ±9.0" in text


def test_each_distance_shows_its_interval_and_how_it_stands_to_the_baseline_s(tmp_path):
    for seed in range(2):
        ends = {"metrics.0.low": 700.0, "metrics.0.high": 742.0}
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **{"metrics.0.value": 721.0 + seed} | ends)
        save(tmp_path, **DDPM | {"run_id": f"ddpm-{seed}", "seed": seed, "metrics.0.value": 821.0 + seed} | ends)
    worse = {"metrics.0.value": 775.9, "metrics.0.low": 754.9, "metrics.0.high": 796.9}
    save(tmp_path, run_id="haar", **{"method.basis": "haar"} | worse)
    text = drawn(compare(None, tmp_path))
    assert "775.9 ±21" in text
    assert text.count("better") == 1
    assert re.search(r"no difference.*\n.*shown \(1\)", text)
    assert "(1) one seed on one side: another training may differ by more than sampling does; --seeds 3 tells" in text
    save(tmp_path, run_id="pca", **{"method.basis": "pca"})
    assert "(1) no interval: the records do not tell by how much sampling" in drawn(
        compare(["pca", "ddpm-0"], tmp_path)
    )


def test_the_clock_shows_its_interval(tmp_path):
    for seed in (0, 1):
        each = {"seed": seed, "cost.sample_seconds": 10 + 0.1 * seed}
        save(tmp_path, run_id=f"dct-{seed}", **each)
        save(tmp_path, **DDPM | {"run_id": f"ddpm-{seed}"}, **each)
    (section,) = sections(compare(None, tmp_path))
    assert section.rows["clock\nx"].str.fullmatch(r"1\.00x\n±0\.0\d+").sum() == 1


def test_a_table_shows_the_main_metrics_and_others_where_they_are_asked_for(tmp_path):
    save(tmp_path, run_id="dct", metrics=measured(kid=0.5, recall=0.4, lsd=1.5, fd_inf=11.0))
    comparison = compare(None, tmp_path)

    def heads(metrics):
        (section,) = sections(comparison, metrics)
        return [head.replace("\n", " ") for head in section.rows.columns if "lite0" in head or "LSD" in head]

    assert heads(None) == ["FD ↓ (lite0)", "KID ↓ (lite0)"]
    assert heads("recall,fd") == ["FD ↓ (lite0)", "recall ↑ (lite0)"]
    every = ["FD ↓ (lite0)", "FD∞ ↓ (lite0)", "KID ↓ (lite0)", "recall ↑ (lite0)", "LSD ↓ (dB, lite0)"]
    assert heads("all") == every
    assert unshown(comparison) == ["FD∞ (lite0)", "recall (lite0)", "LSD (dB, lite0)"]
    with pytest.raises(UsageError, match="'fdd' was measured of none of the runs; choose from fd, fd_inf, kid, lsd, r"):
        sections(comparison, "fd,fdd")


def test_where_no_main_metric_was_measured_all_are_shown(tmp_path):
    save(tmp_path, run_id="dct", metrics=measured(recall=0.4)[1:])
    comparison = compare(None, tmp_path)
    assert "recall ↑" in drawn(comparison)
    assert unshown(comparison) == []


def test_metrics_of_which_more_is_better_put_the_largest_first(tmp_path):
    for name, value in (("low", 0.2), ("high", 0.9)):
        save(tmp_path, run_id=name, metrics=measured(recall=value)[1:], **{"method.sampler": name})
    assert [group.run_ids for group in compare(None, tmp_path).groups] == [["high"], ["low"]]


@pytest.mark.parametrize("width", [80, 120])
def test_a_usual_table_fits(tmp_path, width):
    batches = [{"samples": 50, "seconds": 5.0}, {"samples": 50, "seconds": 5.1}]
    large = {"cost.train_images": 123_456, "cost.train_seconds": 9000.0, "cost.sample_batches": batches}
    metrics = measured(kid=1.63)
    metrics[0] |= {"value": 775.9, "low": 754.9, "high": 796.9}
    save(tmp_path, run_id="dct-0123456789", metrics=metrics, **large)
    save(tmp_path, **DDPM | {"run_id": "identity-0123456789"}, metrics=metrics, **large)
    text = drawn(compare(None, tmp_path), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("775.9 ±21", "1.63 ±0.10", "2.50 h", "123.5k", "no difference", "shown (1)", "1.00x"):
        assert word in text, word
    parts = text.count("identity-0123456789")
    assert parts == text.count("dct 32-16-8") == (2 if width == 80 else 1)  # what does not fit goes on below
    assert text.count("real against real") == 1  # which has no ratios


def test_where_real_images_reach_different_values_the_floor_is_a_range(tmp_path):
    save(tmp_path, run_id="dct")
    other = raw()["metrics"][0] | {"floor": 5.5, "n": 50}
    save(tmp_path, **DDPM, metrics=[other])
    (table,) = sections(compare(None, tmp_path))
    assert table.rows["FD ↓\n(lite0)"][0] == "1.250–5.500"  # noqa: RUF001 - a range's dash


# The other formats, from the same cells.


def section(*rows, ruled=0, notes=(), title="cats"):
    return Section(title, pd.DataFrame(rows), ruled=ruled, notes=list(notes))


def test_markdown_is_a_table_with_escaped_cells_and_notes():
    text = formats.markdown([section({"Run": "a|b\nc_d &lt; $x$", "FD ↓\n(x)": "1 ±2"}, notes=["(1) why"])])
    assert text.splitlines() == [
        "**cats**",
        "",
        "| Run | FD ↓ (x) |",
        "| :-- | --: |",
        r"| a\|b<br>c\_d \&lt; \$x\$ | 1 ±2 |",
        "",
        "(1) why",
    ]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])), min_size=2, max_size=2))
def test_whatever_a_cell_holds_markdown_keeps_its_columns(cells):
    text = formats.markdown([section({"Run": cells[0], "FD": cells[1]})])
    (line,) = text.splitlines()[4:]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3


def test_latex_stacks_lines_rules_the_floor_off_and_escapes():
    rows = [{"Run": "real", "FD ↓\n(x)": "1"}, {"Run": "a\nb_c", "FD ↓\n(x)": "2 ±1"}]
    text = formats.latex([section(*rows, ruled=1, notes=["(1) 5 % --- x"], title="c_d")])
    assert text.splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{c\_d}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"Run & \begin{tabular}[t]{@{}r@{}}FD $\downarrow$ \\ (x)\end{tabular} \\",
        r"\midrule",
        r"real & 1 \\",
        r"\midrule",
        r"\begin{tabular}[t]{@{}l@{}}a \\ b\_c\end{tabular} & 2 $\pm$1 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip\footnotesize (1) 5 \% -{}-{}- x",
        r"\end{table}",
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed here")
def test_latex_compiles_whatever_names_hold(tmp_path):
    metrics = [*measured(kid=0.5, recall=0.4, fd_inf=11.0), measured()[0] | {"name": ODD, "detector": ODD}]
    for run_id, benchmark in (("[red]x", "[bold]"), ("*", "*"), ("a-b", ODD)):
        odd = {"benchmark": benchmark, "method.sampler": ODD, "environment.device_name": ODD}
        save(tmp_path, run_id=run_id, metrics=metrics, **odd)
        save(tmp_path, **DDPM | {"benchmark": benchmark}, metrics=metrics)
    comparison = compare(None, tmp_path)
    text = formats.latex([*formats.everything(comparison, [CLAIM], "all"), *sections(comparison, "fd")])
    paper = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "paper.tex").write_text(paper)
    told = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()
    assert "Missing character" not in (tmp_path / "paper.log").read_text(errors="replace")


def test_csv_has_raw_values_with_both_ends_and_the_claims_in_columns_of_their_own(results):
    save(results, run_id="haar", **{"method.basis": "haar", "metrics.0.low": 11.0, "metrics.0.high": 0.1 + 13})
    rows = list(csv.DictReader(io.StringIO(formats.csv(compare(None, results), [CLAIM]))))
    assert [row["source"] for row in rows] == ["measured"] * 3 + ["claimed"]
    (haar,) = (row for row in rows if row["run_ids"] == "haar")
    assert [haar[f"FD (lite0){end}"] for end in ("", " low", " high")] == ["12.3456789", "11.0", "13.1"]
    assert haar["ratio sample_flops"] == "2.5"
    assert haar["sample_steps"] == "100"
    assert haar["claimed value"] == ""
    assert (rows[-1]["claimed value"], rows[-1]["claimed resolution"], rows[-1]["FD (lite0)"]) == ("10.46", "1024", "")


def test_csv_and_json_of_nothing_are_empty(tmp_path):
    save(tmp_path, status="interrupted")
    comparison = compare(None, tmp_path)
    assert list(csv.DictReader(io.StringIO(formats.csv(comparison, [])))) == []
    assert json.loads(formats.render("json", comparison, [], None)) == []
    assert drawn(comparison).strip() == formats.render("markdown", comparison, [], None).strip() == ""


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "csv", "json"])
def test_each_format_is_printed_or_written_whole_to_a_file(results, style):
    printed = run("--results", results, "--format", style)
    assert printed.exit_code == 0, printed.exception
    out = results / "made" / "here"
    written = run("--results", results, "--format", style, "--out", out)
    assert (written.exit_code, written.stdout) == (0, "")
    assert out.read_text() == printed.stdout
    assert [path.name for path in out.parent.iterdir()] == ["here"]


def test_what_a_table_leaves_out_is_said_beside_it(tmp_path):
    save(tmp_path, run_id="dct", metrics=measured(recall=0.4))
    assert "also measured: recall (lite0) (--metrics all shows them)" in run("--results", tmp_path).stderr
    assert run("--results", tmp_path, "--metrics", "all").stderr == ""
    assert run("--results", tmp_path, "--format", "csv").stderr == ""


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "csv"])
def test_every_format_takes_every_view(tmp_path, style):
    points = {"metrics.0.curve": curve((10_000, 50.0), (30_000, 30.0))}
    save(tmp_path, run_id="dct", **points)
    save(tmp_path, **DDPM, **points, **{"cost.train_images": 60_000})
    done = run("--results", tmp_path, "--format", style, "--at", "images=20000")
    assert done.exit_code == 0
    assert "40.0" in done.stdout
