"""The delete-group jackknife: exact for means, wide enough where it would vanish; intervals of shares."""

import math

import numpy as np
import pytest
from scipy import stats

from dvbench.estimate import Estimate
from dvbench.measure.resampling import FEWEST, GROUPS, Groups, clipped, jackknife, proportion


@pytest.mark.parametrize("count", [0, 5, 23, 24, 48, 50, 95, 1000])
def test_groups_are_disjoint_equal_and_hold_all_with_what_is_left_over(count):
    groups = Groups(count)
    sizes = {len(groups.rows(group)) for group in range(GROUPS)}
    assert sizes == {count // GROUPS}
    assert len(groups.rows(GROUPS)) < GROUPS
    rows = groups.rows_of(range(GROUPS + 1))
    assert sorted(rows) == list(range(count))


def test_no_groups_have_no_rows():
    assert len(Groups(50).rows_of(())) == 0


def means(x):
    groups = Groups(len(x))
    return jackknife(lambda out: np.delete(x, groups.rows_of(out), axis=0).mean(axis=0), groups)


def test_a_mean_has_students_interval_of_the_means_of_groups():
    x = np.random.default_rng(0).normal(size=(240, 2))
    for column, found in zip(x.T, means(x), strict=True):
        groups = column.reshape(-1, GROUPS).mean(axis=0)
        wanted = stats.ttest_1samp(groups, 0).confidence_interval(0.95)
        assert found.value == pytest.approx(column.mean(), rel=1e-12)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-10)


def test_what_is_left_over_does_not_bias_the_variance_of_a_mean():
    # 71 samples: 24 groups of two, and 23 that stay in.
    rng = np.random.default_rng(1)
    found = [means(rng.normal(size=(71, 1)))[0].half for _ in range(1000)]
    squares = np.square(np.array(found) / stats.t.ppf(0.975, GROUPS - 1))
    error = squares.std(ddof=1) / math.sqrt(len(squares))
    assert abs(squares.mean() - 1 / 71) < 4 * error
    assert 4 * error < 0.05 / 71


def test_where_the_plain_variance_vanishes_the_second_order_holds():
    # The square of a mean that happens to be zero: left out groups barely move it, and yet it varies, by 2 / n^2.
    rng = np.random.default_rng(2)
    squares = []
    for _ in range(1000):
        x = rng.normal(size=240)
        x -= x.mean()
        groups = Groups(240)
        found = jackknife(lambda out, x=x, groups=groups: [np.delete(x, groups.rows_of(out)).mean() ** 2], groups)[0]
        squares.append((found.half / stats.t.ppf(0.975, GROUPS - 1)) ** 2)
    error = np.std(squares, ddof=1) / math.sqrt(len(squares))
    # Deviations from the mean itself are smaller by (1 - 1 / 24)^(1/2) each, and four of them are multiplied.
    assert abs(np.mean(squares) - (1 - 1 / GROUPS) ** 2 * 2 / 240**2) < 4 * error
    assert 4 * error < 0.2 * 2 / 240**2


def test_a_statistic_that_does_not_vary_has_an_interval_of_no_width():
    assert jackknife(lambda _: [3.0], Groups(48)) == [Estimate(3, 3, 3)]


def test_few_samples_have_no_interval():
    assert jackknife(lambda _: [1.0, 2.0], Groups(FEWEST - 1)) == [Estimate(1), Estimate(2)]


@pytest.mark.parametrize(("hits", "count"), [(0, 30), (3, 30), (4, 7), (9, 9)])
def test_a_share_of_independent_draws_has_clopper_and_pearsons_interval(hits, count):
    wanted = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    p = hits / count
    found = proportion(p, p * (1 - p) / count, count)
    assert (found.value, found.low, found.high) == pytest.approx((p, wanted.low, wanted.high), rel=1e-9)


def test_a_share_that_varies_more_stands_for_fewer_draws_but_never_for_more():
    assert proportion(0.3, 0.21 / 20, 50) == proportion(0.3, 0.21 / 20, 20)
    assert proportion(0.3, 0.21 / 80, 50) == proportion(0.3, 0.21 / 50, 50)
    assert proportion(0.3, 0, 50) == proportion(0.3, 0.21 / 50, 50)
    assert proportion(1, 1 / 80, 50) == proportion(1, 0, 50)


def test_a_share_of_many_draws_has_students_interval():
    found = proportion(0.3, 1e-8, 10**9, freedom=47)
    half = stats.t.ppf(0.975, 47) * 1e-4
    # The distribution's steps and skewness shift it by about 1 / draws = 5e-8 each.
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=5e-7)


def test_intervals_are_cut_to_what_can_be():
    assert clipped(Estimate(1, -1, 3)) == Estimate(1, 0, 3)
    assert clipped(Estimate(0.5, -1, 3), 0, 1) == Estimate(0.5, 0, 1)
    assert clipped(Estimate(1)) == Estimate(1)
