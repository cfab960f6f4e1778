"""What a schedule must be: a diffusion that starts at the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dvbench.api import Schedule
from dvbench.testing.findings import Finding, within, without

LADDERS = ((32,), (32, 16), (32, 16, 8))
STEPS = (50, 250, 1000)

Make = Callable[[Sequence[int], int], Schedule]


def examine(make: Make, ladders: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Examine the schedules that ``make(ladder, steps)`` makes on ``ladders``."""
    made: list[Schedule] = []

    def creation() -> Iterator[str]:
        for ladder in ladders:
            made.extend(make(ladder, steps) for steps in STEPS)
        yield from ()

    finding = without(f"can be made for T = {', '.join(map(str, STEPS))}", creation)
    yield finding
    if not finding.holds:
        return
    yield without("shapes and dtype", lambda: (complaint for schedule in made for complaint in shapes(schedule)))
    yield within("starts at the data: gains 1 and sigma 0 at t = 0", 1e-12, lambda: max(map(start, made)))
    yield without("gains and noise levels are finite and positive", lambda: filter(None, map(positive, made)))
    yield within("no step needs a negative noise variance", 1e-12, lambda: max(map(negative, made)))
    yield without("turning points rise from above 0 to at most T", lambda: filter(None, map(turning, made)))
    yield without("deterministic", lambda: deterministic(make, made))


def shapes(schedule: Schedule) -> Iterator[str]:
    """Complain of arrays that are not float64 of the right shape."""
    drops, steps = len(schedule.ladder) - 1, schedule.steps
    for name, wanted in (("gains", (drops + 1, steps + 1)), ("sigma", (steps + 1,))):
        array = getattr(schedule, name)
        if not (isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == wanted):
            yield f"{name} must be float64 {wanted}, not {getattr(array, 'dtype', type(array))} {np.shape(array)}"
    if len(schedule.turns) != drops or not all(type(turn) is int for turn in schedule.turns):
        yield f"turns must be {drops} whole numbers, not {schedule.turns!r}"


def start(schedule: Schedule) -> float:
    """Return how far the schedule is from the data at t = 0."""
    return float(max(np.abs(schedule.gains[:, 0] - 1).max(), abs(schedule.sigma[0])))


def positive(schedule: Schedule) -> str | None:
    """Complain of gains, or of noise levels after t = 0, that are not above 0."""
    values = np.concatenate([schedule.gains.ravel(), schedule.sigma[1:]])
    if np.isfinite(values).all() and (values > 0).all():
        return None
    return f"the ladder {schedule.ladder} with T = {schedule.steps} has {values.min():g}"


def negative(schedule: Schedule) -> float:
    """Return the largest negative variance of a step, as a positive number."""
    ratio = schedule.gains[:, 1:] / schedule.gains[:, :-1]
    variance = schedule.sigma[1:] ** 2 - ratio**2 * schedule.sigma[:-1] ** 2
    return float(max(0.0, -variance.min()))


def turning(schedule: Schedule) -> str | None:
    """Complain of turning points that do not rise, but for those at T."""
    earlier = (0, *schedule.turns)
    T = schedule.steps
    if all(a < b <= T or a == b == T for a, b in zip(earlier, schedule.turns, strict=False)):
        return None
    return f"the ladder {schedule.ladder} with T = {T} has {list(schedule.turns)}"


def deterministic(make: Make, made: Sequence[Schedule]) -> Iterator[str]:
    """Complain where a second instance differs."""
    for schedule in made:
        other = make(schedule.ladder, schedule.steps)
        alike = np.array_equal(schedule.gains, other.gains) and np.array_equal(schedule.sigma, other.sigma)
        if not alike or schedule.turns != other.turns:
            yield f"two instances for {schedule.ladder} with T = {schedule.steps} differ"
