"""The Frechet distance: identities, clean-fid, samples left out, the limit, speed."""

import math
import time

import numpy as np
import pytest
from cleanfid.fid import frechet_distance as clean_frechet_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from dvbench.measure.distance import BLOCK, Gaussian, Moments, frechet, frechet_distance, moments
from dvbench.measure.resampling import FEWEST, Groups, jackknife

SEEDS = st.integers(0, 2**32 - 1)


def covariance(rng, side):
    root = rng.normal(size=(side, side))
    return root @ root.T / side + 0.1 * np.eye(side)


def test_moments_are_the_unbiased_ones():
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    mu, sigma = moments(x)
    wide = x.astype(np.float64)
    assert mu.dtype == sigma.dtype == np.float64
    np.testing.assert_allclose(mu, wide.sum(0) / 9, rtol=1e-14)
    np.testing.assert_allclose(sigma, sum(np.outer(r, r) for r in wide - mu) / 8, rtol=1e-12, atol=1e-15)


def test_moments_of_one_feature_keep_their_axes():
    mu, sigma = moments(np.array([[1.0], [3.0]]))
    assert (mu.shape, sigma.shape, sigma[0, 0]) == ((1,), (1, 1), 2.0)


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 9), st.floats(0, 9))
def test_in_one_dimension_it_is_the_distance_of_means_and_deviations(m1, m2, s1, s2):
    found = frechet_distance(np.array([m1]), np.array([[s1**2]]), np.array([m2]), np.array([[s2**2]]))
    assert found == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, rel=1e-9, abs=1e-12)


@given(SEEDS, st.integers(1, 12))
def test_commuting_covariances_have_a_closed_form(seed, side):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(side, side)))[0]
    a, b = rng.uniform(0.1, 3, (2, side))
    mu1, mu2 = rng.normal(size=(2, side))
    expected = np.square(mu1 - mu2).sum() + np.square(a - b).sum()
    found = frechet_distance(mu1, axes * a**2 @ axes.T, mu2, axes * b**2 @ axes.T)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-11)


@given(SEEDS, st.integers(1, 12))
def test_it_is_symmetric_and_zero_only_on_itself(seed, side):
    rng = np.random.default_rng(seed)
    one, two = ((rng.normal(size=side), covariance(rng, side)) for _ in range(2))
    assert frechet_distance(*one, *two) == pytest.approx(frechet_distance(*two, *one), rel=1e-10)
    assert frechet_distance(*one, *two) > 1e-6
    assert 0 <= frechet_distance(*one, *one) < 1e-11 * np.trace(one[1])


@given(SEEDS, st.integers(1, 8), st.floats(0.01, 100))
def test_it_scales_as_a_squared_length_and_ignores_rotation(seed, side, scale):
    rng = np.random.default_rng(seed)
    mu1, mu2, cov1, cov2 = *rng.normal(size=(2, side)), covariance(rng, side), covariance(rng, side)
    turn = np.linalg.qr(rng.normal(size=(side, side)))[0] * scale
    turned = frechet_distance(turn @ mu1, turn @ cov1 @ turn.T, turn @ mu2, turn @ cov2 @ turn.T)
    assert turned == pytest.approx(scale**2 * frechet_distance(mu1, cov1, mu2, cov2), rel=1e-8)


def test_equals_clean_fid_on_features_that_its_matrix_root_can_take():
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(40, 40))
    x, y = rng.gamma(2.0, size=(500, 40)) @ mix, rng.gamma(2.5, size=(700, 40)) @ mix
    one, two = moments(x), moments(y)
    assert frechet_distance(*one, *two) == pytest.approx(clean_frechet_distance(*one, *two), rel=1e-6)


def low_rank(x, y):
    """Tr((S1 S2)^(1/2)) is the nuclear norm of the product of the centred features, whatever their rank."""
    a, b = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (x, y))
    overlap = np.linalg.norm(a @ b.T, "nuc")
    return np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * overlap


@settings(deadline=None)
@given(SEEDS, st.integers(2, 9), st.integers(2, 9), st.integers(1, 14), st.floats(1e-3, 1e3))
def test_covariances_of_fewer_images_than_features_agree_with_the_singular_values(seed, n, m, side, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, side)), scale * (rng.normal(size=(m, side)) + 0.5)
    traces = [np.trace(moments(z)[1]) for z in (x, y)]
    # An eigenvalue is known to side * eps of the largest, so its root to the root of that, and there are `side` roots.
    slack = side * math.sqrt(side * np.finfo(float).eps) * math.sqrt(traces[0] * traces[1]) + 1e-13 * sum(traces)
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(low_rank(x, y), rel=1e-12, abs=slack)


def test_a_rank_far_below_the_dimension_costs_no_digits():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 300)), rng.normal(size=(30, 300)) * 1.1
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(low_rank(x, y), rel=1e-11)
    assert frechet_distance(*moments(x), *moments(x)) < 1e-10


def test_a_point_mass_is_as_far_as_its_mean_and_the_spread_of_the_other():
    assert frechet_distance(np.zeros(3), np.zeros((3, 3)), np.ones(3), 2 * np.eye(3)) == pytest.approx(9, rel=1e-14)


@pytest.mark.parametrize(
    "change",
    [
        {"mu2": np.zeros(4)},
        {"sigma1": np.eye(4)},
        {"sigma2": np.ones(3)},
        {"mu1": np.zeros((3, 1))},
        {"mu1": np.array([0, np.nan, 0])},
        {"sigma2": np.full((3, 3), np.inf)},
        {"sigma1": np.diag([1.0, 1.0, -1.0])},
        {"sigma2": np.array([[1.0, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])},
    ],
)
def test_bad_moments_are_refused_in_one_sentence(change):
    good = {"mu1": np.zeros(3), "sigma1": np.eye(3), "mu2": np.zeros(3), "sigma2": np.eye(3)}
    with pytest.raises(ValueError, match="Frechet distance") as refusal:
        frechet_distance(**(good | change))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 3)), np.zeros((3, 0)), np.array([[1.0], [np.nan]])])
def test_bad_features_are_refused(bad):
    with pytest.raises(ValueError, match="features"):
        moments(bad)
    with pytest.raises(ValueError, match="features"):
        frechet(bad, Gaussian(np.zeros(1), np.eye(1)))


def test_moments_are_the_same_whatever_the_blocks():
    x = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
    held = Moments(3)
    for start, end in ((0, 1), (1, 1), (1, 30), (30, 40)):
        held.add(x[start:end])
    mu, sigma = moments(x)
    assert held.count == 40
    np.testing.assert_allclose(held.mean, mu, rtol=1e-13)
    np.testing.assert_allclose(held.covariance, sigma, rtol=1e-12)


def test_a_large_mean_costs_the_covariance_no_digits():
    # Whole numbers: the sums of the features as they are would need 2 * 27 bits and some, more than a double has.
    x = np.random.default_rng(6).integers(-8, 9, size=(2 * BLOCK + 5, 3)).astype(np.float64)
    near, far = moments(x)[1], moments(x + 2.0**27)[1]
    np.testing.assert_allclose(far, near, rtol=1e-7)  # the mean itself is known to 2^27 eps = 3e-8
    assert np.abs((x + 2.0**27).T @ (x + 2.0**27) / len(x) - np.outer(*[(x + 2.0**27).mean(0)] * 2) - near).max() > 0.1


def test_a_covariance_of_one_row_is_refused():
    held = Moments(2)
    held.add(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="at least two rows, not 1"):
        _ = held.covariance


def features(rng, count, side):
    return np.maximum(rng.normal(size=(count, side)) @ rng.normal(size=(side, side)) + 0.3, 0).astype(np.float32)


def held_against(rng, count, side):
    return Gaussian(*moments(features(rng, count, side)))


def halves(count):
    rows = np.arange(count)
    odd = (rows // 24 + rows % 24) % 2 == 1
    return rows[~odd], rows[odd]


def straight_line(x, rows, reference):
    """The distance of these rows, and where the line through it and the mean of its halves meets 1 / N = 0."""

    def at(chosen):
        return frechet_distance(*moments(x[chosen]), reference.mean, reference.covariance)

    parts = [np.intersect1d(half, rows) for half in halves(len(x))]
    whole, split = at(rows), np.mean([at(half) for half in parts])
    line = np.polyfit([1 / len(rows), np.mean([1 / len(half) for half in parts])], [whole, split], 1)
    return whole, line[1]


@pytest.mark.parametrize(
    ("count", "known", "side"), [(48, 40, 6), (77, 9, 6), (49, 200, 60), (60, 30, 80), (96, 200, 1)]
)
def test_the_interval_is_that_of_distances_computed_anew(count, known, side):
    rng = np.random.default_rng([7, count, known])
    x, reference, groups = features(rng, count, side), held_against(rng, known, side), Groups(count)
    rows = np.arange(count)
    anew = jackknife(lambda out: straight_line(x, np.setdiff1d(rows, groups.rows_of(out)), reference), groups)
    distance, limit = frechet(x, reference)
    slack = {"rel": 1e-7, "abs": 1e-7 * np.trace(reference.covariance)}
    assert distance.value == pytest.approx(anew[0].value, **slack)
    assert distance.low == pytest.approx(max(anew[0].low, 0), **slack)
    assert distance.high == pytest.approx(anew[0].high, **slack)
    assert (limit is not None) == (count >= 2 * (min(side, known - 1) + 1))
    if limit is not None:
        for found, wanted in ((limit.value, anew[1].value), (limit.low, anew[1].low), (limit.high, anew[1].high)):
            assert found == pytest.approx(wanted, **slack)


@pytest.mark.parametrize("count", [2, 3, 4, 23, 30, FEWEST - 1])
def test_few_samples_have_a_distance_and_no_interval(count):
    rng = np.random.default_rng(8)
    x, reference = features(rng, count, 5), held_against(rng, 50, 5)
    distance, limit = frechet(x, reference)
    expected = frechet_distance(*moments(x), reference.mean, reference.covariance)
    assert (distance.low, distance.high) == (None, None)
    assert distance.value == pytest.approx(expected, rel=1e-8)
    assert (limit is None) == (count < 12)


def test_the_same_features_give_the_same_interval():
    rng = np.random.default_rng(9)
    x, reference = features(rng, 100, 20), held_against(rng, 300, 20)
    assert frechet(x, reference) == frechet(x.copy(), Gaussian(reference.mean, reference.covariance))


def test_a_large_mean_costs_the_distance_no_digits():
    rng = np.random.default_rng(10)
    x, reference = features(rng, 60, 4).astype(np.float64), held_against(rng, 90, 4)
    far = frechet(x + 2.0**20, Gaussian(reference.mean + 2.0**20, reference.covariance))
    for found, wanted in zip(far, frechet(x, reference), strict=True):
        # Differences of means are known to 2^20 eps = 2e-10.
        assert found.value == pytest.approx(wanted.value, rel=1e-7)
        assert found.high == pytest.approx(wanted.high, rel=1e-7)


def test_the_limit_takes_away_most_of_what_few_samples_add():
    # Between a Gaussian and itself all of the distance is what few samples add: about (D^2 / 4 + D) / N.
    rng = np.random.default_rng(11)
    reference = Gaussian(np.zeros(16), np.eye(16))
    found = [frechet(rng.normal(size=(128, 16)), reference) for _ in range(100)]
    distance, limit = (np.array([pair[part].value for pair in found]) for part in (0, 1))
    error = limit.std(ddof=1) / math.sqrt(len(limit))
    assert distance.mean() == pytest.approx(80 / 128, rel=0.15)  # to first order in D / N = 1 / 8
    # What is left is of second order: (D / N) times the first, and a Monte Carlo error.
    assert abs(limit.mean()) < 80 / 128 / 8 + 4 * error
    assert 4 * error < 80 / 128 / 8


def test_features_of_another_length_than_the_reference_are_refused():
    with pytest.raises(ValueError, match="one length, not 3 and 4"):
        frechet(np.zeros((5, 3)), Gaussian(np.zeros(4), np.eye(4)))


@pytest.mark.slow
def test_at_2048_dimensions_it_is_five_times_as_fast_as_clean_fid_and_equal_to_6_digits():
    rng = np.random.default_rng(12)
    mix = rng.normal(size=(2048, 2048)) / math.sqrt(2048)
    one, two = (moments(np.maximum(rng.normal(size=(5000, 2048)) @ mix + shift, 0)) for shift in (0.0, 0.1))

    def timed(measure, times):
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            value = measure(*one, *two)
            seconds.append(time.perf_counter() - start)
        return value, min(seconds)

    wanted, theirs = timed(clean_frechet_distance, 1)
    found, ours = timed(frechet_distance, 3)
    assert found == pytest.approx(wanted, rel=5e-7)
    assert theirs > 5 * ours, f"clean-fid {theirs:.2f} s, dvbench {ours:.2f} s"
