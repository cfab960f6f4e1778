"""Quality at equal training: read off between neighbouring points of a curve, and never beyond its ends."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import DDPM, curve, raw, save

from dvbench.errors import UsageError
from dvbench.estimate import mean
from dvbench.record import Record
from dvbench.report.compare import compare
from dvbench.report.table import sections
from dvbench.report.views import View, view

LABEL = "FD (lite0)"
END = {"cost.train_images": 100, "cost.train_seconds": 0.2, "metrics.0.value": 10.0}  # 2 ms and 5 MFLOPs an image


def record(*points, n=100, **changes):
    ends = {"metrics.0.low": 8.0, "metrics.0.high": 12.0, "metrics.0.curve": curve(*points, n=n)}
    return Record.model_validate(raw(**END | ends | changes))


def looked(held, amount, axis="images"):
    return View(axis, {"cats": amount}).look(held).get(LABEL)


def test_between_two_points_value_and_interval_lie_on_straight_lines():
    held = record((20, 50.0), (60, 30.0))
    found = looked(held, 30)
    assert (found.value, found.low, found.high) == (45.0, 44.0, 46.0)
    found = looked(held, 80)  # between the last point and the end, whose interval is wider
    assert (found.value, found.low, found.high) == (20.0, 18.5, 21.5)


def test_points_and_the_end_are_themselves():
    held = record((20, 50.0), (60, 30.0))
    assert [looked(held, amount).value for amount in (20, 60, 100)] == [50.0, 30.0, 10.0]


@pytest.mark.parametrize(("axis", "each"), [("images", 1), ("seconds", 0.002), ("flops", 5e6)])
def test_each_unit_reads_the_same_curve(axis, each):
    held = record((20, 50.0), (60, 30.0))
    assert looked(held, 30 * each, axis).value == pytest.approx(45.0)
    assert looked(held, 80 * each, axis).value == pytest.approx(20.0)


@given(st.floats(-10, 10), st.floats(-1, 1), st.floats(10, 100))
def test_a_metric_that_falls_in_a_line_is_read_exactly(start, slope, amount):
    def line(images):
        return start + slope * images

    held = record(*((images, line(images)) for images in (10, 20, 50, 90)), **{"metrics.0.value": line(100)})
    assert looked(held, amount).value == pytest.approx(line(amount), abs=1e-9)


@given(st.floats(0, 1000, exclude_min=True).filter(lambda amount: not 20 <= amount <= 100))
def test_nothing_is_read_beyond_the_ends(amount):
    assert looked(record((20, 50.0), (60, 30.0)), amount) is None


def test_without_intervals_there_are_none_between():
    held = record((20, 50.0), **{"metrics.0.low": None, "metrics.0.high": None})
    assert looked(held, 20).low == 49.0
    found = looked(held, 60)
    assert (found.value, found.low, found.high) == (30.0, None, None)


def test_points_of_other_numbers_of_samples_are_never_joined():
    held = record((20, 50.0), (60, 30.0), n=50)
    assert looked(held, 40).n == 50
    assert looked(held, 40).floor is None  # which was measured on as many real images as the end
    assert looked(held, 80) is None
    assert "other numbers of samples" in View("images", {"cats": 80}).missing(held)
    assert (looked(held, 100).n, looked(held, 100).floor) == (100, 1.25)


@pytest.mark.parametrize(
    ("held", "amount", "told"),
    [
        (record((20, 50.0)), 101, "its training ended at 100 training images: train longer, or choose less with --at"),
        (record((20, 50.0)), 10, "it was first measured at 20 training images: run it with a smaller --eval-every"),
        (record(), 50, "it was measured only at its end, 100 training images: run it with --eval-every"),
        (record(**{"cost.train_images": 0}), 50, "nothing was trained, or nothing measured"),
        (record(metrics=[]), 50, "nothing was trained, or nothing measured"),
        (record((20, 50.0)), 50, None),
    ],
)
def test_what_is_missing_is_said_with_its_mend(held, amount, told):
    seen = View("images", {"cats": amount})
    assert seen.missing(held) == told
    assert (LABEL in seen.look(held)) is (told is None)


def test_without_a_value_the_most_that_all_trained_runs_of_a_benchmark_reached_is_taken():
    runs = [
        record((20, 50.0)),
        record((20, 50.0), **{"cost.train_images": 70}),
        record(**{"cost.train_images": 0}),
        record((30, 50.0), benchmark="faces", **{"cost.train_images": 40}),
        record(benchmark="none", metrics=[]),
    ]
    assert view("images", runs).amounts == {"cats": 70, "faces": 40}
    assert view("images=60", runs).amounts == {"cats": 60.0, "faces": 60.0}
    assert view("flops", runs).amounts == {"cats": 70 * 5e6, "faces": 40 * 5e6}


def test_where_the_end_was_measured_on_other_samples_the_curve_s_last_point_counts():
    assert view("images", [record((20, 50.0), (60, 30.0), n=50)]).amounts == {"cats": 60}


@pytest.mark.parametrize(
    "text", ["miles", "", "images=", "images=0", "images=-1", "seconds=nan", "flops=inf", "images=ten", "Images", "=5"]
)
def test_a_bad_view_is_refused_in_one_sentence(text):
    with pytest.raises(UsageError, match=r"--at takes images, seconds or flops, alone or with a number as in seconds="):
        view(text, [record()])


@pytest.fixture
def results(tmp_path):
    ends = {"metrics.0.low": 9.0, "metrics.0.high": 11.0}
    save(tmp_path, run_id="dct", **END | ends | {"metrics.0.curve": curve((20, 50.0), (60, 30.0))})
    longer = {"cost.train_images": 200, "cost.train_seconds": 0.4}
    save(tmp_path, **DDPM | END | ends | longer | {"metrics.0.curve": curve((50, 60.0), (150, 40.0))})
    return tmp_path


def test_runs_are_compared_where_both_have_been(results):
    dct, ddpm = (row["metrics"][0] for row in reversed(compare(None, results, at="images").to_json()))
    assert (dct["value"], ddpm["value"]) == (10.0, 10.0)  # of the record: the end
    assert dct["at"] == {"images": 100, "value": 10.0, "low": 9.0, "high": 11.0, "n": 100}
    assert ddpm["at"] == {"images": 100, "value": 50.0, "low": 49.0, "high": 51.0, "n": 100}
    assert dct["against"]["difference"] == -40.0
    assert dct["against"]["high"] == pytest.approx(-40.0 + math.sqrt(2))


def test_a_run_that_was_not_there_has_no_value_and_the_reason(results):
    save(results, run_id="haar", **{"method.basis": "haar", "cost.train_images": 150})
    comparison = compare(None, results, at="images")
    rows = {row["run_id"]: row for row in comparison.to_json()}
    told = "not comparable: it was measured only at its end, 150 training images: run it with --eval-every"
    assert (rows["haar"]["comparable"], rows["haar"]["why_not"]) == (False, told)
    assert rows["haar"]["metrics"][0]["at"] == {"images": 100, "value": None, "low": None, "high": None, "n": None}
    assert rows["dct"]["comparable"] is True
    (section,) = sections(comparison)
    (row,) = (row for row in section.rows.to_dict("records") if row["Run"].startswith("haar"))
    assert row["FD ↓\n(lite0)"] == "–"  # noqa: RUF001
    assert f"(2) {told}" in section.notes


def test_where_the_baseline_was_not_there_nothing_is_compared(results):
    rows = {row["run_id"]: row for row in compare(None, results, at="images=30").to_json()}
    assert rows["ddpm"]["why_not"].startswith("not comparable: it was first measured at 50 training images")
    assert rows["dct"]["why_not"].startswith("not comparable with ddpm: it was first measured at 50 training images")
    assert rows["dct"]["metrics"][0]["against"] is None
    assert rows["dct"]["metrics"][0]["at"]["value"] == 45.0


def test_over_seeds_each_run_is_read_and_then_their_mean_is_taken(tmp_path):
    for seed, height in enumerate((0.0, 4.0)):
        points = curve((20, 50.0 + height), (60, 30.0 + height))
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **END | {"metrics.0.curve": points})
    (group,) = compare(None, tmp_path, at="images=40").groups
    assert group.metrics[LABEL] == mean([40.0, 44.0])


def test_a_group_is_read_where_all_of_its_seeds_have_been(tmp_path):
    for seed, images in enumerate((100, 80)):
        ended = END | {"cost.train_images": images, "metrics.0.curve": curve((20, 50.0), (60, 30.0))}
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **ended)
    (group,) = compare(None, tmp_path, at="images=90").groups
    assert group.metrics == {}
    assert "its training ended at 80 training images: train longer, or choose less with --at (dct-1)" in group.why_not


def test_the_table_says_where_it_looks_and_leaves_out_what_all_of_training_cost(results):
    (section,) = sections(compare(None, results, at="images"))
    assert section.title == "cats, at 100 training images"
    assert not [head for head in section.rows.columns if head.startswith("train")]
    (section,) = sections(compare(None, results, at="flops=1.5e8"))
    assert section.title == "cats, at 1.5e+08 training FLOPs"
    (section,) = sections(compare(None, results))
    assert [head for head in section.rows.columns if head.startswith("train")] == ["training\n(images)", "train\nx"]
