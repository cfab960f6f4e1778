"""Quality at equal cost of training: what runs had reached at the same images, seconds or FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dvbench.errors import UsageError
from dvbench.record import Cost, Metric, Record
from dvbench.report.costs import train_flops
from dvbench.report.labels import labelled
from dvbench.schema import Point


@dataclass(frozen=True)
class Axis:
    """What training spends: how much it had spent at a point of a curve, and in all, and the unit in words."""

    by: Callable[[Point], float | None]
    end: Callable[[Cost], float | None]
    unit: str


AXES = {
    "images": Axis(lambda point: point["train_images"], lambda cost: cost.train_images, "training images"),
    "seconds": Axis(lambda point: point["train_seconds"], lambda cost: cost.train_seconds, "seconds of training"),
    "flops": Axis(lambda point: point["train_flops"], train_flops, "training FLOPs"),
}


@dataclass(frozen=True)
class Moment:
    """A metric when training had spent ``amount``."""

    amount: float
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class View:
    """What to look at: the axis, and how far along it, {benchmark: amount}."""

    name: str
    amounts: Mapping[str, float]

    def look(self, record: Record) -> dict[str, Metric]:
        """Return the metrics of ``record`` at the amount, by label, those that are known there."""
        found = {}
        for label, metric in labelled(record).items():
            moment = _at(_moments(record, metric, AXES[self.name]), self._amount(record))
            if moment is not None:
                told = {"value": moment.value, "low": moment.low, "high": moment.high, "n": moment.n}
                floor = metric.floor if moment.n == metric.n else None  # of as many real images
                found[label] = metric.model_copy(update=told | {"floor": floor})
        return found

    def missing(self, record: Record) -> str | None:
        """Say why nothing is known of ``record`` at the amount, and the mend; None where something is."""
        moments, amount = _longest(record, AXES[self.name]), self._amount(record)
        if not moments:
            return "nothing was trained, or nothing measured"
        if _at(moments, amount) is not None:
            return None
        first, last = (self._said(moments[place].amount) for place in (0, -1))
        if moments[-1].amount < amount:
            return f"its training ended at {last}: train longer, or choose less with --at"
        if len(moments) == 1:
            return f"it was measured only at its end, {last}: run it with --eval-every"
        if amount < moments[0].amount:
            return f"it was first measured at {first}: run it with a smaller --eval-every"
        return "it was measured on other numbers of samples before and after: leave evaluation.samples out"

    def said(self, benchmark: str) -> str:
        """Return the amount in words."""
        return self._said(self.amounts[benchmark]) if benchmark in self.amounts else f"no {AXES[self.name].unit}"

    def _amount(self, record: Record) -> float:
        return self.amounts.get(record.benchmark, math.nan)  # nothing lies there

    def _said(self, amount: float) -> str:
        figure = f"{amount:.4g}" if self.name == "flops" or amount < 100 else f"{amount:,.0f}"
        return f"{figure} {AXES[self.name].unit}"


def view(text: str, records: Iterable[Record]) -> View:
    """Read ``text``, UNIT or UNIT=VALUE; without a value, the largest that every trained run of a benchmark reached."""
    name, equals, given = text.partition("=")
    try:
        amount = float(given) if equals else None
    except ValueError:
        amount = math.nan
    if name not in AXES or (amount is not None and not 0 < amount < math.inf):
        raise UsageError(f"--at takes images, seconds or flops, alone or with a number as in seconds=100, not {text!r}")
    reached: dict[str, list[float]] = {}
    for record in records:
        moments = _longest(record, AXES[name])
        if moments:
            alike = [moment.amount for moment in moments if moment.n == moments[0].n]
            reached.setdefault(record.benchmark, []).append(alike[-1])
    return View(name, {benchmark: amount or min(amounts) for benchmark, amounts in reached.items()})


def _moments(record: Record, metric: Metric, axis: Axis) -> list[Moment]:
    """Return where ``metric`` was measured, in order: on its curve, and at the end of training."""
    end = axis.end(record.cost)
    if not end:
        return []
    points = [
        Moment(amount, point["value"], point["low"], point["high"], point["n"])
        for point in metric.curve
        if (amount := axis.by(point)) is not None
    ]
    return [*points, Moment(end, metric.value, metric.low, metric.high, metric.n)]


def _longest(record: Record, axis: Axis) -> list[Moment]:
    """Return the moments of the metric that was measured most often."""
    return max((_moments(record, metric, axis) for metric in record.metrics), key=len, default=[])


def _at(moments: Sequence[Moment], amount: float) -> Moment | None:
    """Return what lies at ``amount``, on the straight line between two neighbours of as many samples; else None."""
    for moment in moments:
        if moment.amount == amount:
            return moment
    for before, after in pairwise(moments):
        if before.amount < amount < after.amount and before.n == after.n:
            share = (amount - before.amount) / (after.amount - before.amount)
            return Moment(
                amount,
                before.value + share * (after.value - before.value),
                _between(before.low, after.low, share),
                _between(before.high, after.high, share),
                before.n,
            )
    return None


def _between(start: float | None, end: float | None, share: float) -> float | None:
    return None if start is None or end is None else start + share * (end - start)
