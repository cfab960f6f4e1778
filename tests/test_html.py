"""The page of a comparison: whole in one file, true to the records, and safe from what these say."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import pytest
from pages import CLAIM, fill, group, metrics, parse, words
from PIL import Image
from records import DDPM, raw, save

from dvbench.estimate import mean
from dvbench.report.compare import Comparison, compare
from dvbench.report.html import page
from dvbench.report.plots import COLOURS


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def comparison(results):
    return compare(results=results)


@pytest.fixture(scope="module")
def text(comparison):
    return page(comparison, [CLAIM])


@pytest.fixture(scope="module")
def tree(text):
    return parse(text)


def rows(tree, section):
    """Return each row of a section's table by its name: the cells by their heads, a metric's arrow left out."""
    table = section.find(".//table")
    _, lower = table.findall("thead/tr")
    upper = [head for head in table.find("thead/tr") if head.get("rowspan")]
    heads = [words(head).rstrip(" ↓↑") for head in (*upper[:2], *lower, *upper[2:])]
    return {words(row[0]): dict(zip(heads, row, strict=True)) for row in table.find("tbody[@class='rows']")}


def sections(tree):
    return [section for section in tree.iter("section") if section.get("id", "").startswith("benchmark")]


def test_the_page_asks_no_network_for_anything(text, tree):
    for element in tree.iter():
        for name, value in element.items():
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                link = element.tag == "a" and value.startswith("https://arxiv.org/abs/")
                assert link or value.startswith(("data:", "#")), (element.tag, value)
    assert set(re.findall(r"https?://[^\"'<)\s]+", text)) == {"https://arxiv.org/abs/2006.11239"}
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert "@import" not in text


def test_the_page_forbids_itself_the_network_and_any_script_but_its_own(tree):
    (policy,) = [meta.get("content") for meta in tree.iter("meta") if meta.get("http-equiv")]
    (script,) = tree.iter("script")
    digest = base64.b64encode(hashlib.sha256("".join(script.itertext()).encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "script-src": f"'sha256-{digest}'"}


def test_cells_hold_raw_values_and_whole_intervals(comparison, tree):
    found = rows(tree, sections(tree)[0])
    for name, run in (("DDPM", "ddpm0"), ("dct 32-16-8", "dct0"), ("haar 32-16-8", "haar")):
        held = group(comparison, run)
        (cells,) = [cells for row, cells in found.items() if row.startswith(name)]
        for label, estimate in (*held.metrics.items(), *held.ratios.items()):
            told = {"sample_flops": "sampling FLOPs", "train_flops_per_image": "training FLOPs per image",
                    "sample_seconds": "sampling seconds", "train_seconds": "training seconds"}  # fmt: skip
            cell = cells[told.get(label, label)]
            assert estimate.value == float(cell.get("data-value")), label
            if estimate.half is not None:
                assert cell.get("title") == f"95 % interval: {estimate.low:.6g} to {estimate.high:.6g}", label
                assert "±" in words(cell) or estimate.half == 0, label
    cells = next(cells for row, cells in found.items() if row.startswith("DDPM"))
    assert float(cells["GFLOPs per image"].get("data-value")) == 250_000_000
    assert words(cells["GFLOPs per image"]) == "0.250"
    assert words(cells["training images"]) == "50,000"
    assert (cells["seeds"].get("data-value"), cells["seeds"].get("title")) == ("2", "0: ddpm0, 1: ddpm1")


def test_a_row_says_how_it_stands_to_the_baseline_and_why_not(comparison, tree):
    found = rows(tree, sections(tree)[0])
    ddpm, dct, haar = (next(cells for row, cells in found.items() if row.startswith(n)) for n in ("DD", "dct", "haar"))
    assert words(ddpm["held against"]) == "the baseline"
    assert words(dct["held against"]) == "DDPM"
    assert words(dct["FD (lite0)"].find("small")) == "better"
    assert words(dct["recall (lite0)"].find("small")) == "no difference shown"
    verdict = group(comparison, "dct0").verdicts["FD (lite0)"].difference
    told = f"difference: -20; 95 % interval: {verdict.low:.6g} to {verdict.high:.6g}"
    assert dct["FD (lite0)"].find("small").get("title") == told
    assert haar["FD (lite0)"].find("small") is None
    assert "threads is 9, not 2" in words(haar["held against"])
    assert words(sections(tree)[0].find(".//tbody[@class='floor']")) == "real against real 1.250"


def test_one_seed_names_no_winner_and_the_page_says_why(tmp_path):
    save(tmp_path, **DDPM | {"metrics": metrics(40.0)})
    save(tmp_path, run_id="dct", metrics=metrics(20.0))
    found = compare(results=tmp_path)
    tree = parse(page(found, []))
    (row,) = [row for name, row in rows(tree, sections(tree)[0]).items() if name.startswith("dct")]
    assert words(row["FD (lite0)"].find("small")) == "no difference shown"
    assert words(row["held against"]) == "DDPM (1)"
    (note,) = [words(item) for item in tree.find(".//ol[@class='below']")]
    assert note == group(found, "dct").caution("FD (lite0)")


def test_every_plot_is_there_and_the_main_metric_s_are_shown_first(tree):
    cats, faces = sections(tree)
    costs = ["sampling FLOPs per image", "sampling seconds per image"]
    budgets = ["training images", "seconds of training", "training FLOPs"]
    chosen = {element.get("data-metric"): element for element in cats.iter("div") if element.get("data-metric")}
    assert list(chosen) == [option.text for option in cats.iter("option")]
    assert list(chosen) == ["FD (lite0)", "recall (lite0)", "LSD (dB)"]
    for label, element in chosen.items():
        wanted = [f"{label} against {what}" for what in (costs + budgets if label == "FD (lite0)" else costs)]
        assert wanted == [svg.get("aria-label") for svg in element.iter("svg") if svg.get("class") == "plot"]
        assert ("hidden" in element.keys()) == (label != "FD (lite0)")  # noqa: SIM118 - an element is no mapping
        assert [f"{title}." for title in wanted] == [words(strong) for strong in element.iter("strong")]
    alone = [svg.get("aria-label") for svg in faces.iter("svg") if svg.get("class") == "plot"]
    assert alone == [f"FD (lite0) against {what}" for what in costs]
    last = [svg.get("aria-label") for svg in cats.iter("svg") if svg.get("class") == "plot"][-1]
    assert last == "Radial power spectrum of the samples against the data's"


def test_a_legend_names_what_is_drawn_with_the_group_s_own_mark(tree):
    cats, _ = sections(tree)
    (watched,) = [f for f in cats.iter("figure") if "FD (lite0) against training images." in words(f)]
    names = [words(item) for item in watched.iter("li")]
    assert names == ["DDPM", "dct 32-16-8", "real against real"]  # haar was not watched
    (point,) = [f for f in cats.iter("figure") if "FD (lite0) against sampling FLOPs per image." in words(f)]
    assert [words(item) for item in point.iter("li")] == ["DDPM", "dct 32-16-8", "haar 32-16-8", "real against real"]
    assert "Hollow: not to be compared" in words(point)
    *drawn, _ = point.iter("li")  # the last is the dashed line
    looks = {words(item): item.find(".//polygon").attrib for item in drawn}
    assert looks["DDPM"]["stroke"] == looks["DDPM"]["fill"] == "currentColor"
    assert (looks["haar 32-16-8"]["fill"], looks["haar 32-16-8"]["stroke"]) == ("none", COLOURS[2])
    assert looks["dct 32-16-8"] == watched.findall(".//polygon")[1].attrib


def test_plots_take_ink_and_font_from_the_page_and_keep_text_as_text(tree):
    plots = [svg for svg in tree.iter("svg") if svg.get("class") == "plot"]
    for svg in plots:
        texts = {words(element) for element in svg.iter("text")}
        assert len(texts) > 5
        assert not any("#000000" in value for element in svg.iter() for value in element.attrib.values())
        assert set(svg.keys()) == {"class", "viewbox", "role", "aria-label"}
    assert len(list(tree.iter("style"))) == 1  # a plot's own would hold for the whole page
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(set(ids)) == len(ids) > len(plots)


def test_samples_are_inlined_and_what_is_missing_is_said(results, tree):
    cats, _ = sections(tree)
    sheets = [figure for figure in cats.iter("figure") if "seed" in words(figure)]
    assert [words(figure.find("figcaption")) for figure in sheets] == ["dct 32-16-8, seed 0"]
    (image,) = cats.iter("img")
    data = base64.b64decode(image.get("src").removeprefix("data:image/png;base64,"))
    assert data == (results / "cats" / "dct0" / "samples.png").read_bytes()
    assert (int(image.get("width")), int(image.get("height"))) == Image.open(io.BytesIO(data)).size
    assert image.get("alt") == "The first samples of dct 32-16-8, seed 0"
    assert sheets[0].find(".//polygon").get("fill") == COLOURS[1]
    missing = [words(element) for element in tree.iter("p") if element.get("class") == "missing"]
    assert missing == [  # what lies beside haar's record is no picture
        "There is no samples.png beside the record of DDPM; haar 32-16-8.",
        "There is no samples.png beside the record of any run.",
    ]


def test_claims_stand_apart_and_are_left_out_where_there_are_none(comparison, tree):
    (claimed,) = [section for section in tree.iter("section") if section.get("class") == "claimed"]
    assert words(claimed.find("h2")) == "Claimed, not measured here"
    (row,) = claimed.find(".//tbody")
    expected = ["DDPM claimed", "CIFAR-10", "32", "FID", "3.17", "Ho et al. 2020, arXiv:2006.11239", "table 1"]
    assert expected == [words(cell) for cell in row]
    assert not [cell for section in sections(tree) for cell in section.iter("td") if "3.17" in words(cell)]
    assert "claimed" not in words(parse(page(Comparison(comparison.groups[-1:], []), [])).find("body/main")).lower()


def test_the_page_says_how_to_read_it_and_what_was_measured_where(tree):
    reading = next(words(section) for section in tree.iter("section") if section.get("class") == "reading")
    for word in ("95 % interval", "ratio", "above 1", "no difference shown", "real against real"):
        assert word in reading
    measures = [words(element) for element in sections(tree)[0].find(".//dl")]
    assert measures[0].startswith("FD (lite0) ↓, recall (lite0) ↑: 100 samples; against held-out split, 100 images; ")
    assert measures[0].endswith("detector lite0 0.1.0; images resized bicubic to 96; interval of one run: jackknife.")
    table = list(tree.iter("table"))[-1]
    heads = [words(head) for head in table.find("thead/tr")]
    found = [dict(zip(heads, map(words, row), strict=True)) for row in table.find("tbody")]
    assert [row["runs"] for row in found] == ["cats: 4, faces: 1", "cats: 1"]
    expected = {"device": "cpu a processor", "threads": "9", "precision": "fp32", "dvbench": "0.1.0"}
    assert (expected | {"commit": "ab" * 6}).items() <= found[1].items()


def test_the_page_can_be_read_by_machines(tree):
    assert (tree.tag, tree.get("lang")) == ("html", "en")
    assert words(tree.find("head/title")) == "cats, faces: a dvbench comparison"
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert viewport in [meta.attrib for meta in tree.iter("meta")]
    levels = [int(element.tag[1]) for element in tree.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert levels.count(1) == 1
    assert {head.get("scope") for head in tree.iter("th")} == {"col", "row", "colgroup"}
    assert all(image.get("alt") for image in tree.iter("img"))
    for head in tree.iter("th"):
        assert (head.find("button") is not None) == ("aria-sort" in head.keys())  # noqa: SIM118


def test_markup_in_names_is_text(tmp_path):
    evil = "<script>alert(1)<"
    metric = raw()["metrics"][0] | {"name": evil, "reference": evil, "resize": '"><i>', "detector": "<b>$x$&amp; 1"}
    change = {"environment.device_name": evil, "method.sampler": evil, "method.basis": evil, "run_id": '" onload="x'}
    save(tmp_path, benchmark=evil, metrics=[metric], **change)
    claim = CLAIM.model_copy(update={"method": evil, "paper": evil, "where": evil, "metric": evil, "dataset": evil})
    tree = parse(page(compare(results=tmp_path), [claim]))
    assert len(list(tree.iter("script"))) == 1
    assert not [element for element in tree.iter() if element.tag in {"b", "i"} or "onload" in element.keys()]  # noqa: SIM118
    assert words(tree.find("body/header/h1")) == evil
    titles = [svg.get("aria-label") for svg in tree.iter("svg")]
    assert f"{evil} (<b>$x$&amp;) against sampling FLOPs per image" in titles


def test_equal_records_make_an_equal_page_whatever_the_user_s_matplotlib_looks_like(comparison, text):
    with mpl.rc_context({"axes.edgecolor": "red", "font.size": 30, "svg.fonttype": "path", "text.usetex": True}):
        assert page(comparison, [CLAIM]) == text


def test_at_equal_training_the_page_says_so_and_leaves_the_costs_of_all_training_out(results, comparison):
    seen = compare("cats", results, at="images=20000")
    tree = parse(page(seen, []))
    (section,) = sections(tree)
    assert "The metrics are those at 20,000 training images." in words(section)
    cells = next(cells for row, cells in rows(tree, section).items() if row.startswith("dct"))
    assert float(cells["FD (lite0)"].get("data-value")) == pytest.approx((mean([50.0, 52.5])).value)
    assert not {"training images", "training seconds"} & cells.keys()
    curves = "FD (lite0) against training images"
    assert [s.get("aria-label") for s in section.iter("svg")].count(curves) == 1  # the whole curves still


def test_nothing_to_compare_makes_a_page_that_says_so():
    tree = parse(page(Comparison([], ["results/half is left out: the run is failed"]), []))
    assert "There are no finished runs to show." in words(tree)
    assert "results/half is left out: the run is failed" in words(tree)


def test_the_page_is_made_without_torch_and_matplotlib_is_imported_only_to_draw(results):
    code = f"""if True:
        import sys
        from dvbench.report.compare import compare
        from dvbench.report.html import page
        assert "matplotlib" not in sys.modules
        page(compare("faces", {str(results)!r}), [])
        assert "matplotlib" in sys.modules
        assert "torch" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)
