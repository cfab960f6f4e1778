"""The kernel distance (KID) between sets of features [N, D] and [M, D], and its interval."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dvbench.estimate import Estimate
from dvbench.measure.distance import checked
from dvbench.measure.resampling import Groups, jackknife

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Doubles: TypeAlias = npt.NDArray[np.float64]

BLOCK = 2048  # rows and columns of the kernel matrix held at once: 32 MiB


def kernel_distance(x: Floats, y: Floats) -> float:
    """Return KID, the unbiased squared MMD of ``x`` [N, D] and ``y`` [M, D] over all pairs, with (x.y / D + 1)^3.

    Binkowski et al. (2018); unbiased, so it may be negative. ValueError: not two matrices of one length, fewer than two
    rows, or values that are not finite.
    """
    return _Pairs(x, y).distance(())


def kernel(x: Floats, y: Floats) -> Estimate:
    """Return ``kernel_distance`` with the interval for its expectation over sets of N samples ``x``, ``y`` held fixed.

    The interval is that of ``resampling``; a group leaves with the pairs that its rows are in. ValueError: as above.
    """
    pairs = _Pairs(x, y)
    return jackknife(lambda out: [pairs.distance(out)], pairs.groups)[0]


class _Pairs:
    """The kernel's sums over all pairs, row by row: what is left of them without some rows follows from these."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.x, other = checked(x, "the first features"), checked(y, "the second features")
        if self.x.shape[1] != other.shape[1]:
            raise ValueError(
                f"a kernel distance takes features of one length, not {self.x.shape[1]} and {other.shape[1]}"
            )
        self.groups = Groups(len(self.x))
        self.within, self.between = _within(self.x), _sums(self.x, other) / len(other)
        self.constant = float(_within(other).sum()) / (len(other) * (len(other) - 1))

    def distance(self, out: tuple[int, ...]) -> float:
        """Return the distance without the rows of the groups ``out``."""
        rows = self.groups.rows_of(out)
        n = len(self.x) - len(rows)
        # A pair inside the groups is in the sums of two of their rows.
        within = self.within.sum() - 2 * self.within[rows].sum() + _within(self.x[rows]).sum()
        between = self.between.sum() - self.between[rows].sum()
        return float(within / (n * (n - 1)) + self.constant - 2 * between / n)


def _kernel(dots: Doubles, dimension: int) -> Doubles:
    k: Doubles = dots / dimension + 1
    return k * k * k


def _sums(a: Floats, b: Floats) -> Doubles:
    """Sum the kernel over all rows of ``b``, for each row of ``a``, a block at a time in double precision."""
    sums = np.zeros(len(a))
    for i in range(0, len(a), BLOCK):
        rows = a[i : i + BLOCK].astype(np.float64)
        for j in range(0, len(b), BLOCK):
            columns = b[j : j + BLOCK].astype(np.float64)
            sums[i : i + BLOCK] += _kernel(rows @ columns.T, a.shape[1]).sum(axis=1)
    return sums


def _within(a: Floats) -> Doubles:
    """Sum the kernel over all other rows, for each row."""
    return _sums(a, a) - _kernel(np.einsum("nd,nd->n", a, a, dtype=np.float64), a.shape[1])
