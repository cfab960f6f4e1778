"""Whether two groups may be compared, and what their comparison says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from dvbench.estimate import Estimate, difference
from dvbench.record import Metric
from dvbench.report.groups import CONDITIONS, ENVIRONMENT, Group, Verdict, plugins, sampled

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
    learned = group.trained or base.trained
    return {label: _verdict(mine, its, learned=learned) for label, (mine, its) in _shared(group, base).items()}


def _shared(group: Group, base: Group) -> dict[str, tuple[list[Metric], list[Metric]]]:
    return {label: (mine, base.measured[label]) for label, mine in group.measured.items() if label in base.measured}


def _short(value: Any) -> str:
    """Show a value; of a hash, as much as tells it from another."""
    return "unknown" if value is None else value[:8] if isinstance(value, str) and len(value) == 64 else str(value)


def _verdict(mine: Sequence[Metric], its: Sequence[Metric], *, learned: bool) -> Verdict:
    """Hold a metric of each of some runs against that of others; ``learned``: some were trained."""
    values, others = ([metric.value for metric in side] for side in (mine, its))
    found = difference(values, others).widened(_sampled_difference(sampled(mine), sampled(its)))
    over: Literal["seeds", "samples"] = "seeds" if min(len(values), len(others)) > 1 else "samples"
    if found.low is None or found.high is None:
        return Verdict(found, "no difference shown", None)
    if found.low <= 0 <= found.high or (learned and over == "samples"):
        return Verdict(found, "no difference shown", over)
    return Verdict(found, "better" if (found.value > 0) == mine[0].higher_is_better else "worse", over)


def _sampled_difference(mine: Estimate, its: Estimate) -> Estimate:
    """Return the difference of two means with the interval that sampling alone gives it."""
    value = mine.value - its.value
    if mine.low is None or mine.high is None or its.low is None or its.high is None:
        return Estimate(value)
    below = math.hypot(mine.value - mine.low, its.high - its.value)
    return Estimate(value, value - below, value + math.hypot(mine.high - mine.value, its.value - its.low))
