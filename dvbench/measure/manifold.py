"""Improved precision and recall of sets of features (Kynkaanniemi et al. 2019), and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dvbench.estimate import Estimate
from dvbench.measure.distance import checked
from dvbench.measure.resampling import FEWEST, GROUPS, Groups, Indices, proportion

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Doubles: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

NEIGHBOURS = 3  # as in the paper's experiments
BLOCK = 1024  # rows whose distances to all others are held at once
SUBSETS = 48
PRECISION_INTERVAL = "Clopper-Pearson"
RECALL_INTERVAL = f"Korn-Graubard, {SUBSETS} halves of the samples"


def precision_recall(features: Floats, reference: Floats, k: int = NEIGHBOURS) -> tuple[Estimate, Estimate]:
    """Return the precision and the recall of ``features`` [N, D] against ``reference`` [M, D].

    A set's manifold is the union of balls about its rows that reach to the ``k``-th nearest other row. Precision is the
    share of samples on the reference's manifold, recall that of the reference's rows on the samples' manifold. Both
    depend on the number of rows, so that the first min(N, M) of each are taken.

    The intervals are for the expectation over sets of as many samples, the reference held fixed. Precision is a share
    of independent draws: Clopper and Pearson's interval. Recall is none; its variance is that over random subsets of b
    of the n samples, without replacement, times b / (n - b) (Politis and Romano 1994, with the finite population's
    factor), and its interval is that of a share with that variance (``resampling.proportion``). About half are
    kept: leaving out fewer, most of all as few as a delete-group jackknife does, gives what depends on nearest
    neighbours too wide an interval.
    Recall has no interval for fewer than ``FEWEST`` samples, or subsets of not more than ``k``. ValueError: as for
    ``moments``, differing D, or not more rows than ``k``.
    """
    x, y = _pair(features, reference, k)
    n, groups = len(x), Groups(len(x))
    parts = [rows for group in range(GROUPS + 1) if len(rows := groups.rows(group))]
    out = GROUPS // 2
    subsets = SUBSETS if n >= FEWEST and n - out * groups.size > k else 0
    kept = np.ones((1 + subsets, len(parts)), dtype=np.bool_)
    chance = np.random.default_rng(0)
    for subset in kept[1:]:
        subset[chance.choice(GROUPS, out, replace=False)] = False
    precise, recalls = _shares(x, y, _balls(x, k, parts, kept), _balls(y, k, [np.arange(n)], kept[:1, :1])[0])
    precision = proportion(precise, precise * (1 - precise) / n, n)
    if not subsets:
        return precision, Estimate(float(recalls[0]))
    variance = float(np.var(recalls[1:], ddof=1)) * (n / (out * groups.size) - 1)
    return precision, proportion(float(recalls[0]), variance, n, freedom=subsets - 1)


def _pair(features: Floats, reference: Floats, k: int) -> tuple[Doubles, Doubles]:
    """Return as many rows of each, in double precision about the reference's mean: lengths cost digits."""
    one, other = checked(features, "the first features"), checked(reference, "the second features")
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"precision and recall take features of one length, not {one.shape[1]} and {other.shape[1]}")
    n = min(len(one), len(other))
    if not 1 <= k < n:
        raise ValueError(f"precision and recall take a neighbour or more and more samples of each, not {k} and {n}")
    y = other[:n].astype(np.float64)
    centre = y.mean(axis=0)
    return one[:n] - centre, y - centre


def _squares(a: Doubles, b: Doubles) -> Doubles:
    """Return |a_i - b_j|^2; what is within rounding of zero is zero, so that equal rows are no distance apart."""
    one, other = (np.einsum("nd,nd->n", z, z) for z in (a, b))
    lengths = one[:, None] + other
    squares: Doubles = lengths - 2 * (a @ b.T)
    squares[squares <= 4 * a.shape[1] * np.finfo(np.float64).eps * lengths] = 0
    return squares


def _balls(x: Doubles, k: int, parts: Sequence[Indices], kept: Flags) -> Doubles:
    """Return each row's squared distance to its ``k``-th nearest other one, among the rows kept [subsets, rows].

    ``kept`` [subsets, parts] says which of the ``parts`` a subset keeps; rows that it does not keep have -1. The ``k``
    nearest in each part hold the ``k`` nearest in any of the subsets.
    """
    near = np.full((len(x), len(parts), k), np.inf)
    for start in range(0, len(x), BLOCK):
        squares = _squares(x[start : start + BLOCK], x)
        own = np.arange(len(squares))
        squares[own, start + own] = np.inf
        for part, rows in enumerate(parts):
            few = min(k, len(rows))
            near[start : start + BLOCK, part, :few] = np.partition(squares[:, rows], few - 1, axis=1)[:, :few]
    balls = np.full((len(kept), len(x)), -1.0)
    for subset, keeps in zip(balls, kept, strict=True):
        rows = np.concatenate([part for part, keep in zip(parts, keeps, strict=True) if keep])
        subset[rows] = np.partition(near[rows][:, keeps].reshape(len(rows), -1), k - 1, axis=1)[:, k - 1]
    return balls


def _shares(x: Doubles, y: Doubles, balls: Doubles, others: Doubles) -> tuple[float, Doubles]:
    """Return the share of ``x`` in the balls ``others`` about ``y``, and that of ``y`` in each set of ``balls``."""
    inside, covered = 0, np.zeros((len(balls), len(y)), dtype=np.bool_)
    widest = balls.max(axis=0)
    for start in range(0, len(x), BLOCK):
        squares, mine = _squares(x[start : start + BLOCK], y), slice(start, start + BLOCK)
        inside += int((squares <= others).any(axis=1).sum())
        rows, columns = np.nonzero(squares <= widest[mine, None])
        reach = squares[rows, columns]
        for flags, radii in zip(covered, balls[:, mine], strict=True):
            flags[columns[reach <= radii[rows]]] = True
    return inside / len(x), covered.mean(axis=1)
