"""Runs that differ only in their seed are one row, and a winner is named outside the noise only."""

import math
from dataclasses import replace

import numpy as np
import pytest
from records import DDPM, raw, save
from scipy.stats import ttest_ind

from dvbench.estimate import mean
from dvbench.report.compare import compare
from dvbench.report.costs import COSTS, ratios
from dvbench.report.groups import NO_INTERVAL
from dvbench.report.verdicts import verdicts

LABEL = "FD (lite0)"
UNTRAINED = {"cost.train_images": 0, "cost.train_seconds": 0.0, "cost.train_flops_per_image": None}


def seeds(results, values, *, half=None, **others):
    """Save a run for each value of the distance, with intervals of that half width."""
    for seed, value in enumerate(values):
        ends = {} if half is None else {"metrics.0.low": value - half, "metrics.0.high": value + half}
        run_id = f"{others.get('run_id', 'dct')}-{seed}"
        save(results, **others | {"run_id": run_id, "seed": seed, "metrics.0.value": value} | ends)


def group(results, name="dct 32-16-8"):
    (found,) = (group for group in compare(None, results).groups if group.name == name)
    return found


def verdict(results):
    return group(results).verdicts[LABEL]


def test_runs_that_differ_in_their_seed_are_one_row_with_student_s_interval(tmp_path):
    values = [10.0, 12.0, 17.0]
    seeds(tmp_path, values, half=0.1)
    found = group(tmp_path)
    assert found.run_ids == ["dct-0", "dct-1", "dct-2"]
    assert found.metrics[LABEL] == mean(values)
    # Student's two-sided 95 % point for 2 degrees of freedom is 4.302653 (Fisher and Yates 1963, table III).
    assert found.metrics[LABEL].half == pytest.approx(4.302653 * math.sqrt(13 / 3), rel=1e-6)
    assert found.floors == {LABEL: 1.25}


def test_a_single_run_has_its_record_s_own_interval(tmp_path):
    save(tmp_path, run_id="dct", **{"metrics.0.low": 11.0, "metrics.0.high": 15.0})
    found = group(tmp_path).metrics[LABEL]
    assert (found.value, found.low, found.high) == (raw()["metrics"][0]["value"], 11.0, 15.0)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"training": {"images": 7}}},
        {"method.sample_steps": 10},
        {"environment.device_name": "a GPU"},
        {"environment.threads": 9},
        {"environment.precision": "bf16"},
        {"environment.plugins": {"dvbench": "0.2.0"}},
        {"environment.plugin_code": {"dvbench": "a" * 64}},
        {"environment.code": "a" * 64},
        {"metrics.0.reference_hash": "a" * 64},
        {"benchmark": "faces"},
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_two_rows(tmp_path, change):
    save(tmp_path, run_id="a", seed=0)
    save(tmp_path, run_id="b", seed=1)
    save(tmp_path, run_id="c", seed=2, **change)
    assert sorted(found.run_ids for found in compare(None, tmp_path).groups) == [["a", "b"], ["c"]]


def test_of_runs_with_equal_seeds_the_newest_counts_and_the_others_are_named(tmp_path):
    save(tmp_path, run_id="dct", finished="2026-01-01T00:00:00+00:00")
    save(tmp_path, run_id="dct-3", finished="2026-01-03T00:00:00+00:00")
    save(tmp_path, run_id="dct-2", finished="2026-01-02T00:00:00+00:00")
    comparison = compare(None, tmp_path)
    assert [record.run_id for record in comparison.records] == ["dct-3"]
    place = tmp_path / "cats"
    assert comparison.notes == [
        f"{place}/dct is left out: {place}/dct-2 is a newer run of the same configuration and seed",
        f"{place}/dct-2 is left out: {place}/dct-3 is a newer run of the same configuration and seed",
    ]
    assert [record.run_id for record in compare("dct", tmp_path).records] == ["dct"]  # where it is asked for


def test_with_seeds_on_both_sides_the_difference_has_welch_s_interval(tmp_path):
    ours, theirs = [1.0, 2.0, 6.0], [10.0, 12.0]
    seeds(tmp_path, ours, half=0.1)
    seeds(tmp_path, theirs, half=0.1, **DDPM)
    found = verdict(tmp_path)
    expected = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert found.difference.value == -8.0
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert (found.says, found.over) == ("better", "seeds")


def test_with_one_seed_on_a_side_the_records_half_widths_add_as_squares(tmp_path):
    seeds(tmp_path, [10.0], half=3.0)
    seeds(tmp_path, [20.0], half=4.0, **DDPM)
    found = verdict(tmp_path)
    assert found.over == "samples"
    assert (found.difference.low, found.difference.value, found.difference.high) == (-15.0, -10.0, -5.0)


def test_the_mean_over_seeds_of_one_side_is_known_better_by_their_number(tmp_path):
    seeds(tmp_path, [10.0], half=3.0)
    seeds(tmp_path, [20.0, 22.0], half=4.0, **DDPM)
    found = verdict(tmp_path)
    assert (found.over, found.difference.value) == ("samples", -11.0)
    assert found.difference.half == pytest.approx(math.hypot(3.0, math.hypot(4.0, 4.0) / 2))


@pytest.mark.parametrize(
    ("value", "higher", "says"),
    [
        (10.0, False, "better"),
        (30.0, False, "worse"),
        (10.0, True, "worse"),
        (30.0, True, "better"),
        (24.9, False, "no difference shown"),
        (25.0, False, "no difference shown"),
        (25.1, False, "worse"),
    ],
)
def test_a_winner_lies_outside_the_noise_and_on_its_metric_s_better_side(tmp_path, value, higher, says):
    change = UNTRAINED | {"metrics.0.higher_is_better": higher}
    seeds(tmp_path, [value], half=3.0, **change)
    seeds(tmp_path, [20.0], half=4.0, **DDPM | change)
    assert verdict(tmp_path).says == says


def test_an_interval_over_seeds_is_none_narrower_than_that_of_sampling_alone(tmp_path):
    values, others = [0.500, 0.501], [0.510, 0.511]
    seeds(tmp_path, values, half=0.06)
    seeds(tmp_path, others, half=0.08, **DDPM)
    found = group(tmp_path)
    assert found.metrics[LABEL].half == pytest.approx(math.hypot(0.06, 0.06) / 2)
    assert found.verdicts[LABEL].difference.half == pytest.approx(math.hypot(0.06, 0.06, 0.08, 0.08) / 2)
    assert found.verdicts[LABEL].says == "no difference shown"
    assert mean(values).half < 0.01


def test_seeds_that_agree_are_as_sure_as_sampling_lets_them_be(tmp_path):
    seeds(tmp_path, [0.0, 0.0], half=0.02)
    seeds(tmp_path, [0.01, 0.01], **DDPM)  # of which no interval is known
    found = group(tmp_path)
    assert found.metrics[LABEL].half == pytest.approx(0.02 / math.sqrt(2))
    assert (found.verdicts[LABEL].says, found.caution(LABEL)) == ("no difference shown", NO_INTERVAL)


def test_without_intervals_no_difference_is_shown(tmp_path):
    seeds(tmp_path, [10.0], half=3.0)
    seeds(tmp_path, [20.0], **DDPM)
    found = group(tmp_path)
    assert (found.verdicts[LABEL].says, found.verdicts[LABEL].over) == ("no difference shown", None)
    assert found.verdicts[LABEL].difference.half is None
    assert found.caution(LABEL) == NO_INTERVAL


@pytest.mark.parametrize(
    ("mine", "its", "change", "says", "caution"),
    [
        (1, 1, {}, "no difference shown", "one seed each: another training may differ by more than sampling does"),
        (1, 2, {}, "no difference shown", "one seed on one side: another training may differ by more than sampling"),
        (2, 2, {}, "better", None),
        (1, 1, UNTRAINED, "better", None),
    ],
)
def test_a_winner_is_named_only_where_training_s_luck_is_covered_or_had_no_part(
    tmp_path, mine, its, change, says, caution
):
    seeds(tmp_path, [10.0, 10.1][:mine], half=1.0, **change)
    seeds(tmp_path, [20.0, 20.1][:its], half=1.0, **DDPM | change)
    found = group(tmp_path)
    assert found.verdicts[LABEL].difference.high < 0  # whatever covers it
    assert found.verdicts[LABEL].says == says
    told = found.caution(LABEL)
    assert told is caution is None or told.startswith(caution)


def test_chance_names_a_winner_in_one_comparison_of_twenty_at_most(tmp_path):
    """Both sides are drawn alike, 3 seeds each: of N comparisons 5 % name a winner, within 4 standard errors."""
    rng = np.random.default_rng(0)
    count = 400
    save(tmp_path, run_id="dct")
    held = group(tmp_path)

    def drawn(shift):
        metrics = [held.measured[LABEL][0].model_copy(update={"value": value}) for value in rng.normal(shift, 5, 3)]
        return replace(held, measured={LABEL: metrics})

    said = [verdicts(drawn(100), drawn(100))[LABEL].says for _ in range(count)]
    assert 1 - said.count("no difference shown") / count <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / count)
    # A difference of 20 deviations, where half the interval is 3.5 of the measured ones at the most (4.3 sqrt(2 / 3)).
    assert {verdicts(drawn(0), drawn(100))[LABEL].says for _ in range(20)} == {"better"}


# Ratios.


def test_the_costs_of_one_run_have_no_interval(tmp_path):
    """Batches of one process do not tell how fast the machine is in the next."""
    batches = {"cost.sample_batches": [{"samples": 50, "seconds": 4.9}, {"samples": 50, "seconds": 5.1}]}
    save(tmp_path, run_id="dct", **batches)
    save(tmp_path, **DDPM, **batches)
    found = group(tmp_path).ratios
    assert {name: ratio.half for name, ratio in found.items()} == dict.fromkeys(COSTS)


def test_over_seeds_seconds_have_an_interval_of_runs_and_flops_have_none(tmp_path):
    for seed, factor in enumerate((0.9, 1.0, 1.1)):
        cost = {"cost.sample_seconds": 10 * factor, "cost.train_seconds": 100 * factor}
        save(tmp_path, run_id=f"dct-{seed}", seed=seed, **cost)
        cost = {name: 3 * value for name, value in cost.items()}
        save(tmp_path, **DDPM | {"run_id": f"ddpm-{seed}", "seed": seed}, **cost)
    told = group(tmp_path).ratios
    spread = np.var(np.log([0.9, 1.0, 1.1]), ddof=1)
    factor = math.exp(2.776445 * math.sqrt(2 * spread / 3))
    for name in ("sample_seconds", "train_seconds"):
        found = told[name]
        assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0 / factor, 3.0 * factor), rel=1e-6)
    assert told["sample_flops"].half is None


def test_the_clock_s_interval_holds_the_true_ratio_nineteen_times_in_twenty(tmp_path):
    """Runs whose seconds scatter by a factor: of N intervals 95 % hold the truth, within 4 standard errors."""
    rng = np.random.default_rng(1)
    count, truth = 400, 1.7
    save(tmp_path, run_id="dct")
    held = group(tmp_path)

    def drawn(scale):
        cost = held.record.cost
        costs = [cost.model_copy(update={"sample_seconds": scale * rng.lognormal(0.0, 0.1)}) for _ in range(3)]
        runs = [replace(held.runs[0], record=held.record.model_copy(update={"cost": each})) for each in costs]
        return replace(held, runs=runs)

    found = [ratios(drawn(1.0), drawn(truth))["sample_seconds"] for _ in range(count)]
    share = sum(ratio.low <= truth <= ratio.high for ratio in found) / count
    assert share == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / count))


def test_json_tells_intervals_groups_and_how_each_metric_stands_to_the_baseline_s(tmp_path):
    for seed in (0, 1):
        seconds = {"cost.sample_seconds": 10.0 + seed, "cost.train_seconds": 100.0 + seed, "seed": seed}
        save(tmp_path, **seconds, run_id=f"dct-{seed}", **{"metrics.0.value": 10.0 + seed})
        save(tmp_path, **DDPM | seconds | {"run_id": f"ddpm-{seed}", "metrics.0.value": 20.0 + seed})
    rows = {row["run_id"]: row for row in compare(None, tmp_path).to_json()}
    dct, ddpm = rows["dct-1"], rows["ddpm-1"]
    (metric,) = dct["metrics"]
    assert metric["value"] == 11.0  # the run's own
    estimate = mean([10.0, 11.0])
    assert metric["group"] == {
        "run_ids": ["dct-0", "dct-1"],
        "value": 10.5,
        "low": estimate.low,
        "high": estimate.high,
    }
    assert {key: metric["against"][key] for key in ("run_ids", "difference", "says", "over")} == {
        "run_ids": ["ddpm-0", "ddpm-1"],
        "difference": -10.0,
        "says": "better",
        "over": "seeds",
    }
    assert metric["against"]["low"] < -10.0 < metric["against"]["high"] < 0
    assert set(dct["ratios"]["intervals"]) == {"sample_seconds", "train_seconds"}
    low, high = dct["ratios"]["intervals"]["sample_seconds"]
    assert low <= dct["ratios"]["sample_seconds"] <= high
    assert ddpm["ratios"]["intervals"] == {}
    assert ddpm["metrics"][0]["against"] is None


def test_the_frame_has_a_row_for_each_group_with_raw_values(tmp_path):
    seeds(tmp_path, [10.0, 11.0], half=1.0)
    seeds(tmp_path, [20.0], half=1.0, **DDPM)
    frame = compare(None, tmp_path).frame.set_index("run")
    assert list(frame.index) == ["DDPM", "dct 32-16-8"]
    row = frame.loc["dct 32-16-8"]
    assert (row["run_ids"], row["seeds"], row["against"]) == ("dct-0 dct-1", "0 1", "ddpm-0")
    assert row[LABEL] == 10.5
    assert row[f"{LABEL} low"] == mean([10.0, 11.0]).low
    assert row[f"{LABEL} difference"] == -9.5
    assert row["ratio sample_flops"] == 1.0
    assert row["sample_seconds_per_image"] == 0.1
