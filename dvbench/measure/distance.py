"""Distances between two sets of features [N, D]: Frechet (FID's) and kernel (KID)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Doubles: TypeAlias = npt.NDArray[np.float64]

BLOCK = 2048  # rows and columns of the kernel matrix held at once: 32 MiB


def moments(features: Floats) -> tuple[Doubles, Doubles]:
    """Return the mean [D] and the unbiased covariance [D, D] of ``features`` [N, D], as clean-fid takes them.

    ValueError: not a matrix, fewer than two rows, or not finite.
    """
    x = _checked(features, "features")
    return x.mean(axis=0), np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def frechet_distance(mu1: Floats, sigma1: Floats, mu2: Floats, sigma2: Floats) -> float:
    """Return |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), the squared distance of two Gaussians.

    Dowson and Landau (1982); for features of images Heusel et al. (2017). With S1 = A A^T and S2 = B B^T the last trace
    is the sum of the singular values of A^T B, which needs no root of a matrix that is not symmetric and stays exact
    for singular covariances. ValueError: shapes that do not agree, or values that are not finite.
    """
    mean1, mean2, cov1, cov2 = (np.asarray(a, dtype=np.float64) for a in (mu1, mu2, sigma1, sigma2))
    if mean1.ndim != 1 or mean1.shape != mean2.shape or not cov1.shape == cov2.shape == mean1.shape * 2:
        raise ValueError(
            "a Frechet distance takes two means [D] and two covariances [D, D], "
            f"not {mean1.shape}, {cov1.shape}, {mean2.shape}, {cov2.shape}"
        )
    if not all(np.isfinite(a).all() for a in (mean1, mean2, cov1, cov2)):
        raise ValueError("a Frechet distance of values that are not finite does not exist")
    overlap = np.linalg.svd(_root(cov1).T @ _root(cov2), compute_uv=False).sum()
    distance = np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    return max(0.0, float(distance))  # rounding may leave a distance of zero slightly below it


def kernel_distance(x: Floats, y: Floats) -> float:
    """Return KID, the unbiased squared MMD of ``x`` [N, D] and ``y`` [M, D] over all pairs, with (x.y / D + 1)^3.

    Binkowski et al. (2018); unbiased, so it may be negative. ValueError: as for ``moments``, or differing D.
    """
    a, b = _checked(x, "the first features"), _checked(y, "the second features")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a kernel distance takes features of one length, not {a.shape[1]} and {b.shape[1]}")
    n, m = len(a), len(b)
    return _within(a) / (n * (n - 1)) + _within(b) / (m * (m - 1)) - 2 * _sum(a, b) / (n * m)


def _checked(features: Floats, what: str) -> Doubles:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(f"{what} must be a matrix [N, D] of at least two rows, not of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{what} hold values that are not finite")
    return x


def _root(sigma: Doubles) -> Doubles:
    """Return A [D, rank] with A A^T = ``sigma``.

    Eigenvalues within rounding of zero, which may be negative, are dropped: their roots would not be small.
    """
    values, vectors = np.linalg.eigh(sigma)
    keep = values > len(values) * np.finfo(np.float64).eps * values[-1]
    root: Doubles = vectors[:, keep] * np.sqrt(values[keep])
    return root


def _kernel(dots: Doubles, dimension: int) -> Doubles:
    k: Doubles = dots / dimension + 1
    return k * k * k


def _sum(a: Doubles, b: Doubles) -> float:
    """Sum the kernel over all pairs of rows, a block at a time."""
    total = 0.0
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            total += float(_kernel(a[i : i + BLOCK] @ b[j : j + BLOCK].T, a.shape[1]).sum())
    return total


def _within(a: Doubles) -> float:
    """Sum the kernel over all pairs of two different rows."""
    return _sum(a, a) - float(_kernel(np.einsum("nd,nd->n", a, a), a.shape[1]).sum())
