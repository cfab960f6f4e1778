import math

import numpy as np
import pytest
from cleanfid.fid import frechet_distance as clean_frechet_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from dvbench.measure import distance
from dvbench.measure.distance import frechet_distance, kernel_distance, moments

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
        kernel_distance(np.zeros((3, 1)), bad)


def test_features_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="one length, not 3 and 4"):
        kernel_distance(np.zeros((5, 3)), np.zeros((5, 4)))


def brute(x, y):
    def k(a, b):
        return (sum(p * q for p, q in zip(a.tolist(), b.tolist(), strict=True)) / len(a) + 1) ** 3

    def mean(pairs):
        values = [k(a, b) for a, b in pairs]
        return math.fsum(values) / len(values)

    within = [mean((z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j) for z in (x, y)]
    return sum(within) - 2 * mean((a, b) for a in x for b in y)


@settings(deadline=None)
@given(SEEDS, st.integers(2, 9), st.integers(2, 9), st.integers(1, 5), st.integers(1, 10))
def test_kernel_distance_is_the_double_loop_for_any_block(seed, n, m, side, block):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, side)), rng.normal(1, 2, size=(m, side))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance, "BLOCK", block)
        found = kernel_distance(x, y)
    largest = (max(np.square(z).sum(1).max() for z in (x, y)) / side + 1) ** 3
    assert found == pytest.approx(brute(x, y), rel=1e-11, abs=1e-13 * largest)


def test_kernel_distance_takes_single_precision_to_double():
    x, y = np.random.default_rng(3).normal(size=(2, 50, 8)).astype(np.float32)
    assert kernel_distance(x, y) == kernel_distance(x.astype(np.float64), y.astype(np.float64))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_kernel_distance_is_unbiased(shift):
    # In one dimension (xy + 1)^3 compares the first three moments, with the weights 3, 3 and 1.
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    rng = np.random.default_rng(4)
    found = np.array([kernel_distance(rng.normal(size=(12, 1)), rng.normal(shift, size=(8, 1))) for _ in range(4000)])
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert abs(found.mean() - expected) < 4 * error
    # With the diagonals left in, it would be high by at least (E k(x, x) - E k(x, x')) (1/12 + 1/8) = (28 - 4) 5/24.
    assert 4 * error < 5
