"""Intervals from a few like values, held against scipy's tests."""

import numpy as np
import pytest
from scipy import stats

from dvbench.estimate import Estimate, difference, mean, student


def test_the_mean_of_values_has_students_interval():
    values = np.random.default_rng(0).normal(size=7).tolist()
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean(values)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), wanted.low, wanted.high), rel=1e-12)
    assert found.half == pytest.approx((wanted.high - wanted.low) / 2, rel=1e-12)


def test_the_difference_of_means_has_welchs_interval():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=5).tolist(), rng.normal(1, 3, size=9).tolist()
    wanted = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    found = difference(one, other)
    assert found.value == pytest.approx(np.mean(one) - np.mean(other), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-10)


def test_a_single_value_has_no_interval():
    assert mean([3.0]) == Estimate(3.0)
    assert difference([3.0], [1.0, 2.0]) == Estimate(1.5)
    assert Estimate(3.0).half is None


def test_equal_values_do_not_tell_how_sure_they_are():
    assert mean([2.0, 2.0]) == Estimate(2.0)
    assert difference([2.0, 2.0], [1.0, 1.0]) == Estimate(1.0)


def test_half_an_interval_that_is_lopsided_is_its_longer_side():
    assert Estimate(1.0, 0.94, 1.0).half == pytest.approx(0.06)
    assert Estimate(0.0, -0.01, 0.3).half == 0.3


def test_an_interval_widens_to_hold_another_and_none_changes_nothing():
    found = Estimate(2.0, 1.0, 3.0)
    assert found.widened(Estimate(2.0, 1.5, 4.0)) == Estimate(2.0, 1.0, 4.0)
    assert found.widened(Estimate(2.0)) == found
    assert Estimate(2.0).widened(found) == found
    assert Estimate(2.0).widened(Estimate(2.0)) == Estimate(2.0)


def test_an_interval_is_centred_on_its_value():
    found = student(5.0, 2.0, 10)
    assert found.half == pytest.approx(2 * stats.t.ppf(0.975, 10))
    assert (found.low + found.high) / 2 == pytest.approx(5)
