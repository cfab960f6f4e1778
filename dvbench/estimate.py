"""A measured value with its 95 % interval, and the intervals that follow from a few like values (Student 1908)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that holds its expectation with probability ``LEVEL``; None where none is known."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Half the interval's width; where the value does not lie in the middle, the longer side."""
        return None if self.low is None or self.high is None else max(self.value - self.low, self.high - self.value)

    def widened(self, other: Estimate) -> Estimate:
        """Return this value with an interval that holds that of ``other`` too; what has none changes nothing."""
        ends = [end for end in (self.low, self.high, other.low, other.high) if end is not None]
        return Estimate(self.value, min(ends), max(ends)) if ends else self


def student(value: float, error: float, freedom: float) -> Estimate:
    """Return ``value`` with the interval that its standard ``error``, known to ``freedom`` degrees, gives it."""
    from scipy.stats import t  # here, since it takes long to import

    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Estimate(value, value - half, value + half)


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of ``values`` drawn alike and independently.

    A single one has no interval, nor have equal ones: that they agree does not tell by how much others would not.
    """
    if len(set(values)) < 2:
        return Estimate(fmean(values))
    return student(fmean(values), math.sqrt(variance(values) / len(values)), len(values) - 1)


def difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Return mean(``values``) - mean(``others``) with Welch's interval (1947).

    There is none where a side has one value, or where all of either side are equal.
    """
    value = fmean(values) - fmean(others)
    if min(len(values), len(others)) < 2:
        return Estimate(value)
    parts = [(variance(side) / len(side), len(side) - 1) for side in (values, others)]
    total = sum(part for part, _ in parts)
    if total == 0:
        return Estimate(value)
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
    return student(value, math.sqrt(total), freedom)
