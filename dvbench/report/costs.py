"""What runs cost, and how many times less than the baseline's."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

from dvbench.estimate import Estimate, difference
from dvbench.record import Cost
from dvbench.report.groups import Group


def seconds_per_image(cost: Cost) -> float | None:
    """Return the wall seconds of drawing one image: runs may differ in how many they drew."""
    return cost.sample_seconds / cost.samples if cost.sample_seconds is not None and cost.samples else None


def train_flops(cost: Cost) -> float | None:
    """Return the FLOPs of the whole training."""
    each, images = cost.train_flops_per_image, cost.train_images
    return None if each is None or images is None else each * images


COSTS: dict[str, Callable[[Cost], float | None]] = {
    "sample_flops": lambda cost: cost.sample_flops,
    "train_flops_per_image": lambda cost: cost.train_flops_per_image,
    "sample_seconds": seconds_per_image,
    "train_seconds": lambda cost: cost.train_seconds,
}


def spent(group: Group, cost: Callable[[Cost], float | None]) -> float | None:
    """Return the mean of ``cost`` over the runs, None where one does not tell it."""
    told = [value for run in group.runs if (value := cost(run.record.cost)) is not None]
    return fmean(told) if len(told) == len(group.runs) else None


def ratios(group: Group, base: Group) -> dict[str, Estimate | None]:
    """Return the cost of ``base`` over that of ``group``, so that above 1 is better; None where one is unknown or 0.

    FLOPs are counted and have no interval. Seconds have Welch's on the logarithm, since clocks err by factors, where
    there are several runs on both sides: batches within a run share the machine's mood, which the next run does not.
    """
    found: dict[str, Estimate | None] = {}
    for name, cost in COSTS.items():
        mine, its = spent(group, cost), spent(base, cost)
        value = its / mine if mine and its else None
        half = _half(cost, group, base) if name.endswith("_seconds") else None
        if value is None or half is None:
            found[name] = None if value is None else Estimate(value)
        else:
            found[name] = Estimate(value, value * math.exp(-half), value * math.exp(half))
    return found


def _half(cost: Callable[[Cost], float | None], group: Group, base: Group) -> float | None:
    """Return half the interval of the logarithm of a ratio of seconds."""
    ours, theirs = (
        [math.log(value) for run in side.runs if (value := cost(run.record.cost))] for side in (base, group)
    )
    return difference(ours, theirs).half if ours and theirs else None
