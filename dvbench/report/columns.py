"""The columns of the page's table: what is read in each cell, and the raw value that it is sorted by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dvbench.estimate import Estimate
from dvbench.record import Cost
from dvbench.report.costs import COSTS, spent
from dvbench.report.figures import arrow
from dvbench.report.groups import Group, metrics_of
from dvbench.report.table import NONE, floor, significant

RATIOS = {
    "sample_flops": "sampling FLOPs",
    "train_flops_per_image": "training FLOPs per image",
    "sample_seconds": "sampling seconds",
    "train_seconds": "training seconds",
}
# The heading of each cost, where it is found, and how many of the record's units are one here.
SPENT: dict[str, tuple[Callable[[Cost], float | None], float]] = {
    "GFLOPs per image": (COSTS["sample_flops"], 1e9),
    "GFLOPs per training image": (COSTS["train_flops_per_image"], 1e9),
    "training images": (lambda cost: cost.train_images, 1),
    "training seconds": (COSTS["train_seconds"], 1),
    "seconds per image": (COSTS["sample_seconds"], 1),
}
WHOLE = {"training images", "training seconds"}


@dataclass(frozen=True)
class Cell:
    """What is read, the estimate behind it in the record's own unit, and in a word and a sentence how that stands."""

    text: str
    estimate: Estimate | None = None
    word: str = ""
    told: str = ""


@dataclass(frozen=True)
class Column:
    """A column of numbers, under a heading ``over`` that it shares with others; ``floor`` is what real images reach."""

    head: str
    over: str
    cell: Callable[[Group], Cell]
    floor: str = ""


def columns(groups: Sequence[Group], *, whole: bool) -> list[Column]:
    """Return the columns for ``groups``: metrics, costs, ratios; those of all training only where that is ``whole``."""
    quality = [
        Column(f"{label} {arrow(groups, label)}", "quality", partial(_metric, label), floor(groups, label, 4))
        for label in metrics_of(groups)
    ]
    costs = [
        Column(head, "cost", partial(_cost, of, unit))
        for head, (of, unit) in SPENT.items()
        if whole or head not in WHOLE
    ]
    ratios = [
        Column(head, "ratio: baseline / run", partial(_ratio, name))
        for name, head in RATIOS.items()
        if whole or head not in WHOLE
    ]
    return [*quality, *costs, *ratios]


def shown(estimate: Estimate | None, digits: int = 3) -> str:
    """Show a value; where it has an interval, with half of that to two digits, and itself no finer than that."""
    if estimate is None:
        return NONE
    half = estimate.half or 0
    if half <= 0:
        return significant(estimate.value, digits)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{estimate.value:,.{decimals}f} ± {half:,.{decimals}f}"


def interval(estimate: Estimate) -> str:
    """Say where an interval begins and ends; nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"95 % interval: {estimate.low:.6g} to {estimate.high:.6g}"


def _metric(label: str, group: Group) -> Cell:
    if label not in group.metrics:
        return Cell(NONE)
    estimate = group.metrics[label]
    if label not in group.verdicts:
        return Cell(shown(estimate, 4), estimate)
    difference = group.verdicts[label].difference
    told = (f"difference: {difference.value:+.6g}", interval(difference), group.caution(label))
    return Cell(shown(estimate, 4), estimate, group.verdicts[label].says, "; ".join(part for part in told if part))


def _cost(of: Callable[[Cost], float | None], unit: float, group: Group) -> Cell:
    value = spent(group, of)
    return Cell(NONE) if value is None else Cell(significant(value / unit), Estimate(value))


def _ratio(name: str, group: Group) -> Cell:
    estimate = group.ratios.get(name)
    return Cell(shown(estimate), estimate)
