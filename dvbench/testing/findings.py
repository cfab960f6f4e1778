"""What a check found: one line for each property, with the figure that it was judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from dvbench.offers import reason


@dataclass(frozen=True)
class Finding:
    """A property, whether it holds, and the figure or the complaint."""

    what: str
    holds: bool
    figure: str


@dataclass(frozen=True)
class Report:
    """All that was found of one plugin."""

    kind: str
    name: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What does not hold."""
        return tuple(finding for finding in self.findings if not finding.holds)

    @property
    def lines(self) -> list[str]:
        """A line for each finding."""
        return [f"  {'holds' if f.holds else 'FAILS'}  {f.what}: {f.figure}" for f in self.findings]

    def __str__(self) -> str:
        return "\n".join([f"{self.kind} {self.name}", *self.lines])


class NonConformance(AssertionError):  # noqa: N818 - what it is, not how it is told
    """A plugin does not do what its kind must; ``report`` has all findings."""

    def __init__(self, report: Report) -> None:
        self.report = report
        complaints = "; ".join(f"{finding.what}: {finding.figure}" for finding in report.failed)
        super().__init__(f"{report.kind} {report.name} does not conform: {complaints}")


CHANNELS = (1, 3)
T = TypeVar("T")


def taken(make: Callable[[Sequence[int], int], T], ladders: Iterable[Sequence[int]]) -> Iterator[T]:
    """Yield what ``make(ladder, channels)`` makes; a ladder that does not suit it refuses with a ValueError."""
    for ladder, channels in product(ladders, CHANNELS):
        with suppress(ValueError):
            yield make(ladder, channels)


def none_taken(ladders: Iterable[Sequence[int]]) -> str:
    """Complain that every ladder was refused."""
    tried = " or ".join(",".join(map(str, ladder)) for ladder in ladders)
    return f"it takes none of the ladders {tried}: name one that it takes"


def within(what: str, most: float, measure: Callable[[], float]) -> Finding:
    """Judge a figure by the most that it may be; what the plugin raises meanwhile is a failure too."""
    try:
        value = float(measure())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
        return Finding(what, holds=False, figure=f"raised {reason(error)}")
    return Finding(what, math.isfinite(value) and value <= most, f"{value:.2g} (at most {most:g})")


def without(what: str, complaints: Callable[[], Iterable[str]]) -> Finding:
    """Judge a property by the complaints about it: it holds without any."""
    try:
        first = next(iter(complaints()), None)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
        return Finding(what, holds=False, figure=f"raised {reason(error)}")
    return Finding(what, first is None, "yes" if first is None else first)
