"""Metrics while the network trains."""

from __future__ import annotations

import pytest

from dvbench.config import Evaluation, Training
from dvbench.curve import Curve, of_metric
from dvbench.training import Progress

METRICS = [
    {"name": "fd", "split": "held-out", "value": 3.0, "low": 2.0, "high": 4.0, "n": 8, "detector": "lite0 1"},
    {"name": "fd", "split": "train", "value": 1.0, "low": None, "high": None, "n": 8, "detector": "lite0 1"},
]


def due_at(curve, steps):
    """Return the steps at which a point is due, adding each."""
    found = []
    for images, seconds in steps:
        progress = Progress(images=images, seconds=seconds, images_per_level=[images, 0])
        if curve.due(progress):
            curve.add(progress, METRICS)
            found.append((images, seconds))
    return found


STEPS = [(30 * step, 2.5 * step) for step in range(1, 11)]


@pytest.mark.parametrize(
    ("training", "every", "expected"),
    [
        (Training(images=300), 100, [120, 210, 300]),
        (Training(images=300), 30, [30 * step for step in range(1, 11)]),
        (Training(images=300), 10, [30 * step for step in range(1, 11)]),  # a step is never measured twice
        (Training(images=300), 1000, []),
        (Training(seconds=25), 10, [120, 240]),
    ],
)
def test_a_point_is_due_each_time_another_part_of_the_budget_is_used(training, every, expected):
    curve = Curve(Evaluation(every=every, samples=8), training)
    assert [images for images, _ in due_at(curve, STEPS)] == expected


def test_an_interrupted_curve_goes_on_where_it_was():
    training, options = Training(images=300), Evaluation(every=100, samples=8)
    whole = Curve(options, training)
    due_at(whole, STEPS)
    begun = Curve(options, training)
    due_at(begun, STEPS[:5])
    resumed = Curve(options, training, begun.points)
    due_at(resumed, STEPS[5:])
    assert resumed.points == whole.points


def test_nothing_is_due_where_it_was_not_asked_for():
    assert due_at(Curve(None, Training(images=300)), STEPS) == []


def test_the_points_of_a_metric_are_its_own_split_s_with_the_flops_of_the_levels_seen():
    curve = Curve(Evaluation(every=100, samples=8), Training(images=300))
    curve.add(Progress(images=120, seconds=5.0, images_per_level=[20, 100]), METRICS)
    expected = {"train_images": 120, "train_seconds": 5.0, "train_flops": 120 * 7.0, "n": 8}
    seen = []

    def flops(levels):
        seen.append(levels)
        return 7.0

    assert of_metric(METRICS[0], curve.points, flops) == [{**expected, "value": 3.0, "low": 2.0, "high": 4.0}]
    assert of_metric(METRICS[1], curve.points, flops) == [{**expected, "value": 1.0, "low": None, "high": None}]
    assert seen == [[20, 100]] * 2
    assert of_metric({"name": "kid", "split": "train"}, curve.points, flops) == []
