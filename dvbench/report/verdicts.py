"""Whether two groups may be compared, and what their comparison says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from dvbench.estimate import Estimate, difference
from dvbench.record import Metric
from dvbench.report.groups import CONDITIONS, ENVIRONMENT, Group, Says, Verdict, plugins

CODE = "dvbench's own code"


def differences(group: Group, base: Group) -> list[str]:
    """Say what makes the numbers of two groups speak of different things; what a record does not tell is no reason."""
    ours, theirs = group.record, base.record
    pairs: list[tuple[str, Any, Any]] = [("benchmark", ours.benchmark, theirs.benchmark)]
    pairs += [(name, getattr(ours.environment, name), getattr(theirs.environment, name)) for name in ENVIRONMENT]
    if ours.environment.code and theirs.environment.code:  # older records have none
        pairs.append((CODE, ours.environment.code, theirs.environment.code))
    own, others = plugins(ours), plugins(theirs)
    pairs += [(plugin, own[plugin], others[plugin]) for plugin in sorted(own.keys() & others.keys())]
    shared = _shared(group, base)
    pairs += [
        (f"{condition} of {label}", getattr(mine[0], condition), getattr(its[0], condition))
        for label, (mine, its) in shared.items()
        for condition in CONDITIONS
    ]
    said = [f"{what} is {_short(mine)}, not {_short(its)}" for what, mine, its in pairs if mine != its]
    return [*said, "they share no metric"] if group.measured and base.measured and not shared else said


def verdicts(group: Group, base: Group) -> dict[str, Verdict]:
    """Return how each metric that both groups have stands to that of ``base``."""
    return {label: _verdict(mine, its) for label, (mine, its) in _shared(group, base).items()}


def _shared(group: Group, base: Group) -> dict[str, tuple[list[Metric], list[Metric]]]:
    return {label: (mine, base.measured[label]) for label, mine in group.measured.items() if label in base.measured}


def _short(value: Any) -> str:
    """Show a value; of a hash, as much as tells it from another."""
    return "unknown" if value is None else value[:8] if isinstance(value, str) and len(value) == 64 else str(value)


def _verdict(mine: Sequence[Metric], its: Sequence[Metric]) -> Verdict:
    """Hold a metric of each of some runs against that of others."""
    values, others = ([metric.value for metric in side] for side in (mine, its))
    higher = mine[0].higher_is_better
    if min(len(values), len(others)) > 1:
        found = difference(values, others)
        return Verdict(found, _says(found, higher=higher), "seeds")
    value = fmean(values) - fmean(others)
    halves = _half(mine), _half(its)
    if halves[0] is None or halves[1] is None:
        return Verdict(Estimate(value), "no difference shown", None)
    half = math.hypot(halves[0], halves[1])
    found = Estimate(value, value - half, value + half)
    return Verdict(found, _says(found, higher=higher), "samples")


def _half(metrics: Sequence[Metric]) -> float | None:
    """Return half the interval that sampling alone gives the mean of independent runs."""
    halves = [Estimate(metric.value, metric.low, metric.high).half for metric in metrics]
    known = [half for half in halves if half is not None]
    return math.hypot(*known) / len(known) if len(known) == len(halves) else None


def _says(found: Estimate, *, higher: bool) -> Says:
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "no difference shown"
    return "better" if (found.value > 0) == higher else "worse"
