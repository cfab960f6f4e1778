"""The Frechet distance between sets of features [N, D]: FID's, its interval, and its limit for ever more samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpstrf

from dvbench.estimate import Estimate
from dvbench.measure.resampling import GROUPS, Groups, Indices, clipped, jackknife

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Doubles: TypeAlias = npt.NDArray[np.float64]

BLOCK = 2048  # rows held in double precision at once


class Moments:
    """The mean [D] and the unbiased covariance [D, D] of rows that come block by block, in double precision.

    Blocks are centred on their own mean before they are squared and are then merged as Chan, Golub and LeVeque (1983,
    equations 2.1) do, so that a mean far from zero costs no digits.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean: Doubles = np.zeros(dimension)
        self._scatter: Doubles = np.zeros((dimension, dimension))

    def add(self, block: Floats) -> None:
        """Take in the rows of ``block`` [n, D]."""
        if not len(block):
            return
        x = np.asarray(block, dtype=np.float64)
        mean = x.mean(axis=0)
        x = x - mean
        count, shift = self.count + len(x), mean - self.mean
        self._scatter += x.T @ x + np.outer(shift, shift) * (self.count * len(x) / count)
        self.mean = self.mean + shift * (len(x) / count)
        self.count = count

    @property
    def covariance(self) -> Doubles:
        """The unbiased covariance. ValueError: fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance takes at least two rows, not {self.count}")
        covariance: Doubles = self._scatter / (self.count - 1)
        return covariance


def moments(features: Floats) -> tuple[Doubles, Doubles]:
    """Return the mean [D] and the unbiased covariance [D, D] of ``features`` [N, D], as clean-fid takes them.

    ValueError: not a matrix, fewer than two rows, or not finite.
    """
    x = checked(features, "features")
    held = Moments(x.shape[1])
    for start in range(0, len(x), BLOCK):
        held.add(x[start : start + BLOCK])
    return held.mean, held.covariance


@dataclass(frozen=True, eq=False)
class Gaussian:
    """What features are held against: their ``mean`` [D] and ``covariance`` [D, D]. ValueError: as ``moments`` says."""

    mean: Doubles
    covariance: Doubles

    @cached_property
    def root(self) -> Doubles:
        """A [D, rank] with A A^T = ``covariance``."""
        return _root(self.covariance)


def frechet_distance(mu1: Floats, sigma1: Floats, mu2: Floats, sigma2: Floats) -> float:
    """Return |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), the squared distance of two Gaussians.

    Dowson and Landau (1982); for features of images Heusel et al. (2017). With S1 = A A^T and S2 = B B^T the last trace
    is the sum of the singular values of A^T B, which needs no root of a matrix that is not symmetric and stays exact
    for singular covariances. ValueError: shapes that do not agree, values that are not finite, or a matrix that is no
    covariance.
    """
    mean1, mean2, cov1, cov2 = (np.asarray(a, dtype=np.float64) for a in (mu1, mu2, sigma1, sigma2))
    if mean1.ndim != 1 or mean1.shape != mean2.shape or not cov1.shape == cov2.shape == mean1.shape * 2:
        raise ValueError(
            "a Frechet distance takes two means [D] and two covariances [D, D], "
            f"not {mean1.shape}, {cov1.shape}, {mean2.shape}, {cov2.shape}"
        )
    if not all(np.isfinite(a).all() for a in (mean1, mean2, cov1, cov2)):
        raise ValueError("a Frechet distance of values that are not finite does not exist")
    roots = _root(cov1), _root(cov2)
    if not all(_is_square(root, cov) for root, cov in zip(roots, (cov1, cov2), strict=True)):
        raise ValueError("a Frechet distance takes covariances: symmetric matrices without a negative eigenvalue")
    product = roots[0].T @ roots[1]
    narrow = product if product.shape[0] >= product.shape[1] else product.T
    overlap = _root_sum(narrow.T @ narrow, narrow.shape[1])
    distance = np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    return max(0.0, float(distance))  # rounding may leave a distance of zero slightly below it


def frechet(features: Floats, reference: Gaussian) -> tuple[Estimate, Estimate | None]:
    """Return the Frechet distance of ``features`` [N, D] to ``reference``, and its limit for infinitely many samples.

    Both intervals are for the expectation over sets of N samples, the reference held fixed (``resampling``). The
    distance of few samples is too large by about a / N. The limit (Chong and Forsyth 2020) is where a line through the
    distances of all samples and of halves of them, over 1 / N, meets 0. Two disjoint halves do by themselves what many
    random subsets do on average, and in simulation that line strays less from the curve than those from N / 3 or N / 4:
    at N = 2 D it overshoots by an eighth to a fifth of the distance's own excess, at 8 D by a few hundredths. With
    fewer than two samples for each direction in which the reference varies, a half's covariance is singular, the
    distance is no line in 1 / N, and the limit is None. ValueError: as for ``moments``, or features of another length
    than the reference's.
    """
    x = checked(features, "features")
    if reference.mean.shape != x.shape[1:]:
        raise ValueError(f"a Frechet distance takes features of one length, not {x.shape[1]} and {len(reference.mean)}")
    samples, groups, rank = _Samples(x, reference), Groups(len(x)), reference.root.shape[1]
    straight = len(x) >= 2 * (max(rank, 1) + 1)
    sums = lru_cache(maxsize=2)(lambda group: samples.halves(groups.rows(group)))
    whole = _total(samples.halves(groups.rows(group)) for group in range(GROUPS + 1))

    def distances(out: tuple[int, ...]) -> list[float]:
        left = _without(whole, _total(sums(group) for group in out)) if out else whole
        near, distance = 1 / sum(half.count for half in left), samples.distance(left[0] + left[1])
        if not straight:
            return [distance]
        far, apart = fmean(1 / half.count for half in left), fmean(samples.distance(half) for half in left)
        return [distance, distance - near * (apart - distance) / (far - near)]

    found = jackknife(distances, groups)
    return clipped(found[0]), found[1] if straight else None


def checked(features: Floats, what: str) -> Floats:
    """Return ``features`` as an array [N, D]. ValueError: not a matrix, fewer than two rows, or not finite."""
    x = np.asarray(features)
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(f"{what} must be a matrix [N, D] of at least two rows, not of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{what} hold values that are not finite")
    return x


@dataclass(frozen=True)
class _Sums:
    """Sums over rows that are centred on a common point: additive, so that rows may be taken away again.

    ``first`` [D] of the rows, ``square`` of their squared lengths, ``second`` [w, w] of their products along ``axes``.
    """

    count: int
    first: Doubles
    square: float
    second: Doubles

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count + other.count, self.first + other.first, self.square + other.square, self.second + other.second
        )

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count - other.count, self.first - other.first, self.square - other.square, self.second - other.second
        )


_Halves: TypeAlias = tuple[_Sums, _Sums]


def _total(parts: Iterable[_Halves]) -> _Halves:
    return reduce(lambda one, other: (one[0] + other[0], one[1] + other[1]), parts)


def _without(whole: _Halves, part: _Halves) -> _Halves:
    return whole[0] - part[0], whole[1] - part[1]


class _Samples:
    """Features seen from a reference with covariance B B^T.

    Tr (S B B^T)^(1/2) is the sum of the roots of the eigenvalues of B^T S B, for the covariance S of any of the rows.
    Where there are fewer rows than B has columns, the rows times B span N directions only; turned into those, nothing
    is wider than N.
    """

    def __init__(self, features: Floats, reference: Gaussian) -> None:
        self.features, self.reference = features, reference
        # Any point near the mean will do; sums of squares about it may be taken from each other without loss.
        self.centre: Doubles = features.mean(axis=0, dtype=np.float64)
        self.axes = reference.root
        if len(features) < self.axes.shape[1]:
            self.axes = self.axes @ np.linalg.qr(((features - self.centre) @ self.axes).T)[0]

    def halves(self, rows: Indices) -> _Halves:
        """Return the sums over either half of ``rows``: each group of ``resampling`` is itself halved."""
        odd = (rows // GROUPS + rows % GROUPS) % 2 == 1
        return self._sums(rows[~odd]), self._sums(rows[odd])

    def distance(self, sums: _Sums) -> float:
        """Return the Frechet distance of the rows that ``sums`` are of to the reference."""
        n, mean = sums.count, sums.first / sums.count
        along = mean @ self.axes
        spread = (sums.square - n * (mean @ mean)) / (n - 1) + np.trace(self.reference.covariance)
        overlap = _root_sum((sums.second - n * np.outer(along, along)) / (n - 1), n - 1)
        distance = np.square(mean + self.centre - self.reference.mean).sum() + spread - 2 * overlap
        return max(0.0, float(distance))

    def _sums(self, rows: Indices) -> _Sums:
        x = self.features[rows] - self.centre
        y = x @ self.axes
        return _Sums(len(x), x.sum(axis=0), float(np.square(x).sum()), y.T @ y)


def _root(sigma: Doubles) -> Doubles:
    """Return A [D, rank] with A A^T = ``sigma``, by Cholesky's decomposition with pivots (Higham 1990).

    It stops where what is left is within rounding of zero: roots of that would not be small.
    """
    lower, pivots, rank, _ = dpstrf(sigma, lower=1)
    root = np.empty((len(sigma), rank))
    root[pivots - 1] = np.tril(lower)[:, :rank]
    return root


def _is_square(root: Doubles, sigma: Doubles) -> bool:
    """Tell whether ``sigma`` is A A^T for A = ``root``, which its trace tells where it is symmetric."""
    return np.allclose(sigma, sigma.T) and bool(np.isclose(np.square(root).sum(), np.trace(sigma), rtol=1e-6))


def _root_sum(symmetric: Doubles, rank: int) -> float:
    """Return the sum of the roots of the eigenvalues of a matrix without negative ones, of which ``rank`` are not zero.

    The others are not zero to rounding, and their roots would be far larger.
    """
    values = np.linalg.eigvalsh(symmetric)
    return float(np.sqrt(np.maximum(values[max(0, len(values) - rank) :], 0)).sum())
