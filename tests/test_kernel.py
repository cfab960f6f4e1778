"""The kernel distance: the double loop, its bias, samples left out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvbench.measure import kernel as module
from dvbench.measure.kernel import kernel, kernel_distance
from dvbench.measure.resampling import FEWEST, Groups, jackknife

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 3)), np.zeros((3, 0)), np.array([[1.0], [np.nan]])])
def test_bad_features_are_refused(bad):
    for measure in (kernel_distance, kernel):
        with pytest.raises(ValueError, match="features"):
            measure(np.zeros((3, 1)), bad)
        with pytest.raises(ValueError, match="features"):
            measure(bad, np.zeros((3, 1)))


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
        patch.setattr(module, "BLOCK", block)
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


@pytest.mark.parametrize("count", [48, 71, 96])
def test_the_interval_is_that_of_distances_computed_anew(count):
    rng = np.random.default_rng([5, count])
    x, y, groups = rng.normal(0.5, size=(count, 6)), rng.normal(size=(30, 6)), Groups(count)
    anew = jackknife(lambda out: [kernel_distance(np.delete(x, groups.rows_of(out), axis=0), y)], groups)[0]
    found = kernel(x, y)
    assert found.value == kernel_distance(x, y)
    assert found.low == pytest.approx(anew.low, rel=1e-10)
    assert found.high == pytest.approx(anew.high, rel=1e-10)


def test_few_samples_have_no_interval():
    x, y = np.random.default_rng(6).normal(size=(2, FEWEST - 1, 3))
    found = kernel(x, y)
    assert (found.value, found.low, found.high) == (kernel_distance(x, y), None, None)
