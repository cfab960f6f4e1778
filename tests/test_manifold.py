"""Improved precision and recall: the definition word by word, exact cases, bad input."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from dvbench.measure import manifold
from dvbench.measure.manifold import SUBSETS, precision_recall
from dvbench.measure.resampling import FEWEST, Groups, proportion


def by_definition(x, y, k, rows=None):
    """Shares of rows within the k-th nearest neighbour's distance of any of the other set's rows."""

    def apart(a, b):
        return float(np.sqrt(((a - b) ** 2).sum()))

    def balls(z):
        return [sorted(apart(a, b) for j, b in enumerate(z) if j != i)[k - 1] for i, a in enumerate(z)]

    def share(points, centres):
        reach = balls(centres)
        return np.mean([any(apart(p, c) <= r for c, r in zip(centres, reach, strict=True)) for p in points])

    return share(x, y), share(y, x if rows is None else x[rows])


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize(("seed", "k", "side"), list(itertools.product((0, 1), (1, 3, 4), (1, 3))))
def test_they_are_the_shares_that_the_definition_gives(monkeypatch, seed, k, side, block):
    monkeypatch.setattr(manifold, "BLOCK", block)
    rng = np.random.default_rng([seed, k, side])
    x, y = rng.normal(0.8, 1, size=(26, side)), rng.normal(size=(26, side))
    assert tuple(found.value for found in precision_recall(x, y, k)) == by_definition(x, y, k)


def test_recall_of_subsets_is_recall_of_the_rows_that_they_keep():
    rng = np.random.default_rng(2)
    x, y, groups = rng.normal(0.5, size=(50, 2)), rng.normal(size=(50, 2)), Groups(50)
    chance, recalls = np.random.default_rng(0), []
    for _ in range(SUBSETS):
        left_out = groups.rows_of(list(chance.choice(24, 12, replace=False)))
        recalls.append(by_definition(x, y, 3, np.setdiff1d(np.arange(50), left_out))[1])
    # Two rows of 50 are in no group, so that a subset keeps 26: the factor is 26 / 24.
    wanted = proportion(by_definition(x, y, 3)[1], np.var(recalls, ddof=1) * 26 / 24, 50, SUBSETS - 1)
    found = precision_recall(x, y)[1]
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-12)


def test_precision_has_the_interval_of_a_share_of_independent_draws():
    rng = np.random.default_rng(3)
    found = precision_recall(rng.normal(0.5, size=(64, 2)), rng.normal(size=(64, 2)))[0]
    wanted = binomtest(round(64 * found.value), 64).proportion_ci(0.95, "exact")
    assert 0 < found.value < 1
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)


def test_a_set_is_on_its_own_manifold_and_far_sets_are_not_on_each_others():
    x = np.random.default_rng(4).normal(size=(60, 5)).astype(np.float32)
    assert [found.value for found in precision_recall(x, x)] == [1, 1]
    assert [found.high for found in precision_recall(x, x)] == [1, 1]
    far = precision_recall(x + 100, x)
    assert [found.value for found in far] == [0, 0]
    assert [found.low for found in far] == [0, 0]
    assert all(0 < found.high < 0.1 for found in far)


def test_one_image_over_and_over_is_precise_and_recalls_only_itself():
    y = np.random.default_rng(5).normal(1e3, 1, size=(60, 5))
    precision, recall = precision_recall(np.repeat(y[7:8], 60, axis=0), y)
    assert (precision.value, recall.value) == (1, 1 / 60)


def test_as_many_rows_of_each_are_taken():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(70, 2)), rng.normal(size=(90, 2))
    assert precision_recall(x, y) == precision_recall(x, y[:70])
    assert precision_recall(y, x) == precision_recall(y[:70], x)


@pytest.mark.parametrize("count", [4, 23, FEWEST - 1])
def test_few_samples_have_a_recall_without_an_interval(count):
    x, y = np.random.default_rng(7).normal(size=(2, count, 3))
    precision, recall = precision_recall(x, y)
    assert (precision.value, recall.value) == by_definition(x, y, 3)
    assert (recall.low, recall.high) == (None, None)
    assert precision.low < precision.high


def test_many_neighbours_leave_subsets_too_small_for_an_interval():
    x, y = np.random.default_rng(8).normal(size=(2, 48, 3))
    assert precision_recall(x, y, 24)[1].low is None
    assert precision_recall(x, y, 23)[1].low is not None


@pytest.mark.parametrize("k", [0, 5, 9])
def test_more_rows_than_neighbours_are_needed(k):
    with pytest.raises(ValueError, match=f"more samples of each, not {k} and 5"):
        precision_recall(np.zeros((5, 2)), np.zeros((8, 2)), k)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 3)), np.zeros((3, 0)), np.array([[1.0], [np.nan]])])
def test_bad_features_are_refused(bad):
    with pytest.raises(ValueError, match="features"):
        precision_recall(np.zeros((9, 1)), bad)
    with pytest.raises(ValueError, match="features"):
        precision_recall(bad, np.zeros((9, 1)))


def test_features_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="one length, not 3 and 4"):
        precision_recall(np.zeros((5, 3)), np.zeros((5, 4)))
