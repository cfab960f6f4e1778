"""What the page's figures show of the records, and where it is drawn."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from pages import DATA, FREQUENCIES, fill, group, metrics, words
from records import DDPM, curve, raw, save

from dvbench.estimate import Estimate, mean
from dvbench.report import figures
from dvbench.report.columns import shown
from dvbench.report.compare import compare
from dvbench.report.names import distinct
from dvbench.report.plots import COLOURS, MARKS, Series, Spectrum, quality, spectra, style
from dvbench.report.table import NONE, sections


@pytest.fixture
def comparison(tmp_path):
    return compare(results=fill(tmp_path))


def captured(monkeypatch, groups, draw):
    """Return what ``draw`` would have plotted: the arguments of each plot."""
    seen = []
    for name in ("quality", "spectra"):
        monkeypatch.setattr(figures, name, lambda lines, *more, **told: seen.append((lines, *more, told)) or "<svg/>")
    return draw(groups), seen


def test_curves_are_means_over_seeds_and_end_where_the_training_ended(comparison, monkeypatch):
    groups = [group(comparison, "ddpm0"), group(comparison, "dct0"), group(comparison, "haar")]
    _, seen = captured(monkeypatch, groups, lambda some: figures.during_training(some, "FD (lite0)", "x"))
    images, seconds, flops = seen
    (ddpm, dct), floors, told = images
    assert (told["across"], told["up"], list(floors)) == ("training images", "FD (lite0) ↓", [1.25])
    expected = [(10000, mean([60.0, 63.0])), (30000, mean([40.0, 42.0])), (50000, mean([20.0, 21.0]))]
    assert expected == list(dct.points)
    assert [value for _, value in expected] == [value for _, value in flops[0][1].points]
    assert [point for point, _ in ddpm.points] == [10000, 30000, 50000]
    assert [point for point, _ in seconds[0][0].points] == [20.0, 60.0, 150.5]
    assert [point for point, _ in flops[0][0].points] == pytest.approx([5e10, 1.5e11, 2.5e11])


def test_one_seed_s_curve_has_its_own_intervals(tmp_path, monkeypatch):
    save(tmp_path, run_id="dct", metrics=metrics(20.0))
    _, seen = captured(
        monkeypatch, compare(results=tmp_path).groups, lambda some: figures.during_training(some, "FD (lite0)", "x")
    )
    (series,), *_ = seen[0]
    assert [y for _, y in series.points] == [Estimate(60, 59, 61), Estimate(40, 39, 41), Estimate(20, 18, 23)]


def test_an_end_measured_on_other_samples_is_no_part_of_the_curve(tmp_path, monkeypatch):
    (metric, *_) = metrics(20.0)
    save(tmp_path, run_id="dct", metrics=[metric | {"curve": curve((10000, 60), (30000, 40), n=50)}])
    made, seen = captured(
        monkeypatch, compare(results=tmp_path).groups, lambda some: figures.during_training(some, "FD (lite0)", "x")
    )
    (series,), floors, _ = seen[0]
    assert [x for x, _ in series.points] == [10000, 30000]
    assert list(floors) == []  # what as many real images reach is not known
    assert made[0].dashed == ""
    assert "The end is left out, being measured on another number of samples: dct 32-16-8." in made[0].notes


def test_a_group_without_a_cost_is_named_below_the_plot(tmp_path, monkeypatch):
    save(tmp_path, **DDPM)
    save(tmp_path, run_id="dct", **{"cost.sample_flops": None})
    made, seen = captured(
        monkeypatch, compare(results=tmp_path).groups, lambda some: figures.at_cost(some, "FD (lite0)", "x")
    )
    assert [len(series) for series, *_ in seen] == [1, 2]
    assert made[0].notes == ["Not drawn, for want of a value: dct 32-16-8."]
    assert made[1].notes == []


def test_spectra_are_means_over_seeds(comparison, monkeypatch):
    groups = [group(comparison, "ddpm0"), group(comparison, "dct0"), group(comparison, "face")]
    _, seen = captured(monkeypatch, groups, lambda some: figures.spectrum(some, "x"))
    ((lines, _),) = seen
    expected = [
        Spectrum(0, FREQUENCIES, DATA, DATA),
        Spectrum(1, FREQUENCIES, [1.5 * data for data in DATA], DATA),
    ]
    assert expected == lines
    assert figures.spectrum(groups[2:], "x") is None


@pytest.mark.parametrize("change", [{"power": None}, {"power": [1.0]}, {"reference_power": []}, {"frequencies": None}])
def test_a_spectrum_that_is_not_whole_is_not_drawn(tmp_path, change):
    whole = {"frequencies": FREQUENCIES, "power": DATA, "reference_power": DATA}
    for run_id, spectrum in (("whole", whole), ("part", whole | change)):
        save(tmp_path, run_id=run_id, metrics=[raw()["metrics"][0] | {"name": "lsd"} | spectrum])
        found = figures.spectrum(compare(run_id, tmp_path).groups, "x")
        assert (found is None) == (run_id == "part")


def marks(svg, colour):
    """Return where the marks of one colour are in a plot, in its own units, from left to right."""
    found = [use for use in svg.iter("use") if f"stroke: {colour}" in use.get("style", "")]
    ids = {path.get("id") for path in svg.iter("path") if path.get("d").count("L") == 31}  # discs alone
    return [(float(use.get("x")), float(use.get("y"))) for use in found if use.get("href").lstrip("#") in ids]


def lines(svg, wanted):
    """Return the ends (x, y) of the straight lines that ``wanted`` picks by their style."""
    ends = re.compile(r"M (\S+) (\S+)\s+L (\S+) (\S+)\s*$")
    found = [ends.match(path.get("d")) for path in svg.iter("path") if wanted(path.get("style", ""))]
    return [tuple(map(float, match.groups())) for match in found if match]


def test_points_intervals_and_floor_are_drawn_where_they_belong():
    points = [(1.0, Estimate(10, 5, 20)), (2.0, Estimate(30)), (4.0, Estimate(50, 45, 60))]
    svg = ET.fromstring(quality([Series(0, points)], [7.0], across="x", up="y", title="t", key="k"))
    (x1, y1), (x2, y2), (x4, y4) = marks(svg, "currentColor")
    assert x4 - x1 == pytest.approx(3 * (x2 - x1), abs=1e-4)
    assert y4 - y1 == pytest.approx(2 * (y2 - y1), abs=1e-4)
    unit = (y2 - y1) / 20
    bars = lines(svg, lambda look: "stroke-width: 1.3" in look)
    expected = [(x1, y1 - 5 * unit, x1, y1 + 10 * unit), (x4, y4 - 5 * unit, x4, y4 + 10 * unit)]
    assert bars == [pytest.approx(bar, abs=1e-3) for bar in expected]
    ((_, floor, _, same),) = lines(svg, lambda look: "stroke-dasharray: 5,3" in look)
    assert floor == same == pytest.approx(y1 - 3 * unit, abs=1e-3)


def test_costs_far_apart_are_drawn_on_a_logarithmic_axis():
    def places(*costs):
        series = [Series(0, [(cost, Estimate(1.0))]) for cost in costs]
        svg = ET.fromstring(quality(series, [], across="x", up="y", title="t", key="k"))
        return [x for x, _ in marks(svg, "currentColor")]

    first, second, third = places(1, 10, 100)
    assert third - second == pytest.approx(second - first, abs=1e-3)
    first, second, third = places(1, 10, 19)
    assert third - second == pytest.approx(second - first, abs=1e-3)


def test_the_spectrum_is_double_logarithmic_with_its_error_in_decibels_below():
    power = [data * 10 ** (decibels / 10) for decibels, data in enumerate(DATA)]
    drawn = ET.fromstring(spectra([Spectrum(0, FREQUENCIES, power, DATA)], title="t", key="k"))
    found = marks(drawn, "currentColor")
    for points in found[:4], found[4:]:
        steps = np.diff(points, axis=0)  # frequencies double, powers fall 10 ** 0.9 times, errors rise by a decibel
        assert steps == pytest.approx(np.broadcast_to(steps[0], steps.shape), abs=1e-3)
    ticks = {words(text): float(text.get("y")) for text in drawn.iter("text") if "anchor: end" in text.get("style")}
    assert ticks["2"] - ticks["0"] == pytest.approx(found[6][1] - found[4][1], abs=1e-3)
    assert {"10⁻¹", "10²"} <= ticks.keys()
    labels = [words(element) for element in drawn.iter("text")]
    assert {"cycles per image", "power", "samples / data, dB"} <= set(labels)


def test_power_that_has_no_logarithm_is_left_out_of_the_plot():
    spectra([Spectrum(0, FREQUENCIES, [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])], title="t", key="k")


@pytest.mark.parametrize("name", ["a $\\frac$ <b>", "猫 ↓", "#000000"])
def test_a_name_is_shown_as_it_is(name):
    svg = quality([Series(0, [(1.0, Estimate(2.0))])], [], across="x", up=name, title="t", key="k")
    assert name in [words(element) for element in ET.fromstring(svg).iter("text")]


def test_56_groups_look_different_and_8_do_without_colour():
    looks = [style(number) for number in range(len(COLOURS) * len(MARKS))]
    assert len(set(looks)) == 56
    assert len({look.corners for look in looks[:8]}) == 8
    for look in looks[:8]:
        assert max(abs(part) for corner in look.corners for part in corner) == pytest.approx(1)
        assert math.fsum(x for x, _ in look.corners) == pytest.approx(0, abs=1e-9)


def test_groups_of_one_method_are_named_by_what_tells_them_apart(tmp_path):
    for steps, images in ((10, 500), (10, 900), (50, 500)):
        config = {"training": {"images": images, "lr": 0.1}}
        save(tmp_path, run_id=f"{steps}, {images}", seed=images, config=config, **{"method.sample_steps": steps})
    save(tmp_path, **DDPM)
    groups = distinct(compare(results=tmp_path).groups)
    assert groups[0].name == "DDPM"
    assert {group.against.name for group in groups[1:]} == {"DDPM"}
    assert {group.run_ids[0]: group.name for group in groups[1:]} == {
        f"{steps}, {images}": f"dct 32-16-8, training.images={images}, sampling.steps={steps}"
        for steps, images in ((10, 500), (10, 900), (50, 500))
    }
    (section,) = sections(compare(results=tmp_path))
    told = "\n".join(section.rows["Run"])
    assert "training.images=900\n" in told
    assert "sampling.steps" not in told  # the line about the sampler says it
    assert told.count("50 steps") == 1


def test_groups_that_settings_do_not_tell_apart_are_named_by_their_runs(tmp_path):
    save(tmp_path, run_id="one")
    save(tmp_path, run_id="other", metrics=[])
    assert [group.name for group in distinct(compare(results=tmp_path).groups)] == [
        "dct 32-16-8 (one)",
        "dct 32-16-8 (other)",
    ]


def test_a_baseline_of_the_same_name_is_told_by_its_new_name(tmp_path):
    save(tmp_path, **DDPM)
    save(tmp_path, **DDPM | {"run_id": "other", "environment.threads": 9})
    save(tmp_path, run_id="dct")
    names = {group.run_ids[0]: group for group in distinct(compare(results=tmp_path).groups)}
    assert (names["ddpm"].name, names["other"].name) == ("DDPM, threads=2", "DDPM, threads=9")
    assert names["dct"].against.name == "DDPM, threads=2"


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (None, NONE),
        (Estimate(577.692), "578"),
        (Estimate(577.692, 565.4, 590.0), "578 ± 12"),
        (Estimate(0.00101, 0.00071, 0.00131), "0.00101 ± 0.00030"),
        (Estimate(2.0, 2.0, 2.0), "2.00"),
        (Estimate(12345.6, 11111.1, 13580.1), "12,346 ± 1,234"),
        (Estimate(1.0, 0.004, 1.996), "1.00 ± 1.00"),
    ],
)
def test_a_value_is_shown_no_finer_than_its_interval(estimate, expected):
    assert expected == shown(estimate)
