"""Intervals for statistics of independent samples, at their number: the delete-group jackknife.

A percentile bootstrap will not do: the duplicates in its draws raise a distance between sets of features by more than
the interval is wide. Leaving samples out keeps those that stay distinct.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dvbench.estimate import LEVEL, Estimate, student

Doubles: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]
Statistics: TypeAlias = Callable[[tuple[int, ...]], Sequence[float]]

# More groups cost more and gain little: Student's t is 2.07 at 23 degrees of freedom, 1.96 at any number of them. Fewer
# cover skewed statistics slightly better.
GROUPS = 24
FEWEST = 2 * GROUPS  # samples for an interval: with fewer, those of skewed statistics hold too little
INTERVAL = f"delete-group jackknife, {GROUPS} groups"


@dataclass(frozen=True)
class Groups:
    """``GROUPS`` disjoint groups of equal size among ``count`` samples.

    What is left over is never left out: a distance falls with the number of samples, so that groups of two sizes would
    spread it.
    """

    count: int

    @property
    def size(self) -> int:
        """How many samples are in each."""
        return self.count // GROUPS

    def rows(self, group: int) -> Indices:
        """Return the samples in ``group``, strided; group ``GROUPS`` holds those left over."""
        end = GROUPS * self.size
        return np.arange(end, self.count) if group == GROUPS else np.arange(group, end, GROUPS)

    def rows_of(self, groups: Sequence[int]) -> Indices:
        """Return the samples in any of ``groups``."""
        return np.concatenate([self.rows(group) for group in groups]) if groups else np.arange(0)


def jackknife(statistics: Statistics, groups: Groups) -> list[Estimate]:
    """Return each statistic with the interval for its expectation over sets of as many samples.

    ``statistics`` takes the groups to leave out. The variance is that of the statistics without one group (Shao and Wu
    1989), with Student's t. Where a statistic is nearly stationary in the samples, as a distance is near its floor,
    that variance may vanish by chance; it is not let below its second-order part, which pairs of groups show (Efron and
    Stein 1981, section 5). That part it holds twice on average, so that it errs on the wide side there, by up to 2^0.5
    (``tests/test_intervals.py`` measures both coverage and width). Fewer than ``FEWEST`` samples have no
    interval.
    """
    values = np.asarray(statistics(()), dtype=np.float64)
    if groups.count < FEWEST:
        return [Estimate(float(value)) for value in values]
    n, m = groups.count, groups.size
    share = n / m
    singles, seconds = [], []
    for group in range(0, GROUPS, 2):
        one, other, both = (np.asarray(statistics(out)) for out in ((group,), (group + 1,), (group, group + 1)))
        singles += [one, other]
        # Nothing is left here of what is linear in the samples.
        seconds.append(share * values - (share - 1) * (one + other) + (share - 2) * both)
    plain = np.var(singles, axis=0, ddof=1) * (n - m) ** 2 / (n * m)
    second = np.var(seconds, axis=0, ddof=1) * (share - 2) ** 2 / (2 * share**2)
    errors = np.sqrt(np.maximum(plain, second))
    return [student(float(v), float(e), GROUPS - 1) for v, e in zip(values, errors, strict=True)]


def proportion(share: float, variance: float, count: int, freedom: float = math.inf) -> Estimate:
    """Return a share with the interval of as many independent draws as have its variance, known to ``freedom`` degrees.

    For ``count`` independent draws that is Clopper and Pearson's interval (1934), which never covers less than it says;
    for others Korn and Graubard's (1998), in which a share stands for ``count`` draws at most: near 0 and 1 its own
    variance says little.
    """
    from scipy.stats import beta, t  # here, since they take long to import

    tail = (1 - LEVEL) / 2
    spread = share * (1 - share)
    draws = min(count, spread / variance) if spread > 0 and variance > 0 else count
    draws *= float(t.ppf(tail, math.inf) / t.ppf(tail, freedom)) ** 2
    hits = share * draws
    low = float(beta.ppf(tail, hits, draws - hits + 1)) if share > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, draws - hits)) if share < 1 else 1.0
    return Estimate(share, low, high)


def clipped(estimate: Estimate, low: float = 0, high: float = math.inf) -> Estimate:
    """Return ``estimate`` with its interval cut to the values that can be."""
    if estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.value, max(estimate.low, low), min(estimate.high, high))
