"""Radially averaged power spectra of images, and how far apart two are in decibels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from dvbench.estimate import Estimate
from dvbench.measure.resampling import Groups, clipped, jackknife

Doubles: TypeAlias = npt.NDArray[np.float64]
Images: TypeAlias = npt.NDArray[np.uint8]

BLOCK = 2**22  # values held in double precision at once: 32 MiB
# The variance of rounding to whole levels (Widrow 1956): below it, an 8-bit image tells nothing of a frequency.
ROUNDING = 1 / 12


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The power of images at radial frequencies.

    ``frequencies`` [F] in cycles per image (along its longer side), rising. ``images`` [N, F]: each image's mean square
    of an orthonormal DCT coefficient at that frequency, over channels and directions, in squared levels of 0..255.
    """

    frequencies: Doubles
    images: Doubles

    @property
    def power(self) -> Doubles:
        """The mean over images [F]."""
        power: Doubles = self.images.mean(axis=0)
        return power


def spectrum(images: Images) -> Spectrum:
    """Return the spectrum of ``images`` (uint8, N x H x W x C).

    By the two-dimensional DCT-II: it continues an image by its mirror image, so that opposite borders make no edge, as
    they do for a Fourier transform. Coefficient (u, v) oscillates u / 2 and v / 2 times; rings are half a cycle wide,
    and those beyond the side's highest frequency hold the corners, where a checkerboard lies. The constant is left out.
    The mean image is left in: it is a part of what samples must match. ValueError: not such images, none, or of one
    pixel.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size or images.shape[1:3] == (1, 1):
        raise ValueError(
            "a spectrum takes images of more than one pixel, uint8, N x H x W x C, "
            f"not {images.dtype} of shape {images.shape}"
        )
    height, width = images.shape[1:3]
    down, across = np.ogrid[:height, :width]
    ring = np.rint(np.hypot(down / height, across / width) * max(height, width)).astype(np.intp).ravel()
    order = np.argsort(ring, kind="stable")[1:]  # the first is the constant
    rings, starts, sizes = np.unique(ring[order], return_index=True, return_counts=True)
    each = np.empty((len(images), len(rings)))
    step = max(1, BLOCK // images[0].size)
    for start in range(0, len(images), step):
        block = images[start : start + step].astype(np.float64)
        power = np.square(dctn(block, axes=(1, 2), norm="ortho")).mean(axis=3).reshape(len(block), -1)
        each[start : start + step] = np.add.reduceat(power[:, order], starts, axis=1) / sizes
    return Spectrum(rings / 2, each)


def log_spectral_distance(samples: Spectrum, reference: Spectrum) -> Estimate:
    """Return the root mean square over frequencies of 10 log10 of the ratio of mean powers, in dB.

    Gray and Markel (1976), with radial frequencies in place of those of speech. Powers below that of 8-bit rounding
    count as that. The interval (``resampling``) is for the expectation over sets of as many samples, the reference held
    fixed. ValueError: images of two sizes.
    """
    if not np.array_equal(samples.frequencies, reference.frequencies):
        raise ValueError(
            "a log-spectral distance takes images of one size, "
            f"not of {len(samples.frequencies)} and {len(reference.frequencies)} frequencies"
        )
    groups, total, level = Groups(len(samples.images)), samples.images.sum(axis=0), _decibels(reference.power)

    def distance(out: tuple[int, ...]) -> list[float]:
        rows = groups.rows_of(out)
        left = (total - samples.images[rows].sum(axis=0)) / (groups.count - len(rows))
        return [float(np.sqrt(np.square(_decibels(left) - level).mean()))]

    return clipped(jackknife(distance, groups)[0])


def _decibels(power: Doubles) -> Doubles:
    decibels: Doubles = 10 * np.log10(np.maximum(power, ROUNDING))
    return decibels
