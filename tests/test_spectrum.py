"""Power spectra: waves of known frequency, Parseval, decibels, samples left out."""

import math

import numpy as np
import pytest

from dvbench.measure import spectrum as module
from dvbench.measure.resampling import FEWEST, Groups, jackknife
from dvbench.measure.spectrum import Spectrum, log_spectral_distance, spectrum


def pictures(rng, count, side=8, contrast=30.0):
    return np.clip(rng.normal(128, contrast, size=(count, side, side, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("u", "v"), [(1, 0), (0, 3), (3, 4), (7, 7)])
def test_a_wave_has_its_power_at_its_own_frequency(u, v):
    down, across = (np.cos(np.pi * (np.arange(16) + 0.5) * times / 16) for times in (u, v))
    wave = np.rint(128 + 100 * np.outer(down, across)).astype(np.uint8)
    found = spectrum(wave[None, :, :, None])
    assert found.frequencies[found.power.argmax()] == round(math.hypot(u, v)) / 2


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 6, 1), (1, 5, 2)])
def test_powers_add_up_to_the_variance_over_pixels(shape):
    x = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    found = spectrum(x)
    u, v = np.meshgrid(np.arange(shape[0]) / shape[0], np.arange(shape[1]) / shape[1], indexing="ij")
    ring = np.rint(np.hypot(u, v) * max(shape[:2]))
    counts = np.array([(ring == 2 * frequency).sum() for frequency in found.frequencies])
    assert counts.sum() == shape[0] * shape[1] - 1
    total = x.astype(np.float64).var(axis=(1, 2)).mean(axis=1) * shape[0] * shape[1]
    np.testing.assert_allclose(found.images @ counts, total, rtol=1e-12)


def test_the_spectrum_is_the_same_whatever_the_blocks(monkeypatch):
    x = pictures(np.random.default_rng(1), 7)
    whole = spectrum(x)
    monkeypatch.setattr(module, "BLOCK", 2 * x[0].size)
    np.testing.assert_allclose(spectrum(x).images, whole.images, rtol=1e-13)


def test_white_noise_has_its_variance_at_every_frequency():
    x = np.random.default_rng(2).integers(0, 256, (2000, 8, 8, 1)).astype(np.uint8)
    found = spectrum(x)
    error = found.images.std(axis=0, ddof=1) / math.sqrt(len(x))
    assert (np.abs(found.power - (256**2 - 1) / 12) < 4 * error).all()
    assert (error < 0.03 * found.power).all()


def test_a_power_ten_times_as_large_at_every_frequency_is_ten_decibels_away():
    frequencies, power = np.arange(1, 4) / 2, np.random.default_rng(3).gamma(2, 100, size=(60, 3)) + 1
    reference = Spectrum(frequencies, power)
    for scale in (10, 1 / 10):
        assert log_spectral_distance(Spectrum(frequencies, scale * power), reference).value == pytest.approx(10)
    assert log_spectral_distance(reference, reference).value == 0


def test_it_is_the_root_mean_square_over_frequencies():
    one, other = Spectrum(np.arange(2), np.array([[100.0, 100.0]])), Spectrum(np.arange(2), np.array([[10.0, 1000.0]]))
    assert log_spectral_distance(one, other).value == pytest.approx(10)
    half = Spectrum(np.arange(2), np.array([[100.0, 1000.0]]))
    assert log_spectral_distance(one, half).value == pytest.approx(math.sqrt((0**2 + 10**2) / 2))


def test_power_below_the_rounding_of_8_bits_tells_nothing():
    flat = spectrum(np.full((2, 4, 4, 1), 7, dtype=np.uint8))
    assert (flat.power < 1e-20).all()
    assert log_spectral_distance(flat, flat).value == 0
    loud = Spectrum(flat.frequencies, np.full((1, len(flat.frequencies)), 100 / 12))
    assert log_spectral_distance(flat, loud).value == pytest.approx(20)


@pytest.mark.parametrize("count", [48, 61, 96])
def test_the_interval_is_that_of_distances_computed_anew(count):
    rng = np.random.default_rng([4, count])
    x, reference, groups = pictures(rng, count), spectrum(pictures(rng, 200, contrast=33)), Groups(count)

    def left(out):
        kept = spectrum(np.delete(x, groups.rows_of(out), axis=0)).power
        return [np.sqrt(np.mean((10 * np.log10(kept / reference.power)) ** 2))]

    anew, found = jackknife(left, groups)[0], log_spectral_distance(spectrum(x), reference)
    assert found.value == pytest.approx(anew.value, rel=1e-11)
    assert found.low == pytest.approx(max(anew.low, 0), rel=1e-9)
    assert found.high == pytest.approx(anew.high, rel=1e-9)


def test_few_images_have_a_distance_and_no_interval():
    rng = np.random.default_rng(5)
    reference = spectrum(pictures(rng, 60))
    for count in (1, FEWEST - 1):
        found = log_spectral_distance(spectrum(pictures(rng, count)), reference)
        assert found.value > 0
        assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 4, 4, 3)),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 1, 1, 3), np.uint8),
    ],
)
def test_what_are_no_images_is_refused(bad):
    with pytest.raises(ValueError, match="N x H x W x C, not"):
        spectrum(bad)


def test_images_of_two_sizes_are_refused():
    small, large = (spectrum(pictures(np.random.default_rng(6), 2, side)) for side in (4, 8))
    with pytest.raises(ValueError, match="one size, not of 4 and 10 frequencies"):
        log_spectral_distance(small, large)
