"""Conformance: what a plugin of each kind must do, checked, with the figure it was judged by.

In a package's tests::

    from dvbench.testing import check_basis


    def test_corner():
        check_basis("corner")  # a name, or the class itself; keyword arguments are its options

or, with the pytest plugin that dvbench brings, one line in pyproject.toml::

    [tool.pytest.ini_options]
    dvbench_plugins = ["basis corner", "basis corner patch=4"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from dvbench.offers import reason
from dvbench.options import check, read
from dvbench.registry import CONTEXT, registry
from dvbench.testing.findings import Finding, NonConformance, Report

if TYPE_CHECKING:
    from dvbench.process import Process

__all__ = [
    "Finding",
    "NonConformance",
    "Report",
    "check_backbone",
    "check_basis",
    "check_dataset",
    "check_detector",
    "check_sampler",
    "check_schedule",
    "examine",
]

Target: TypeAlias = str | type[Any]
Ladders: TypeAlias = Sequence[Sequence[int]] | None


def check_basis(target: Target, *, ladders: Ladders = None, **options: Any) -> Report:
    """Check a basis, on those of ``ladders`` that it takes. Raises NonConformance, an AssertionError."""
    return _required(examine("basis", target, options, ladders=ladders))


def check_schedule(target: Target, *, ladders: Ladders = None, **options: Any) -> Report:
    """Check a schedule on ``ladders``. One with an option ``turns`` gets turning points that suit each ladder."""
    return _required(examine("schedule", target, options, ladders=ladders))


def check_backbone(target: Target, *, ladders: Ladders = None, **options: Any) -> Report:
    """Check a network, on those of ``ladders`` that it takes."""
    return _required(examine("backbone", target, options, ladders=ladders))


def check_sampler(target: Target, **options: Any) -> Report:
    """Check a sampler."""
    return _required(examine("sampler", target, options))


def check_dataset(target: Target, *, size: int = 32, **options: Any) -> Report:
    """Check a dataset at ``size`` px."""
    return _required(examine("dataset", target, options, size=size))


def check_detector(target: Target, **options: Any) -> Report:
    """Check a detector."""
    return _required(examine("detector", target, options))


def examine(
    kind: str, target: Target, options: Mapping[str, Any] | None = None, *, ladders: Ladders = None, size: int = 32
) -> Report:
    """Return all that is found of a plugin; nothing is raised but UsageError for a name or an option unknown.

    ``target``: its name or its class; ``options``: its own.
    """
    name = target if isinstance(target, str) else target.__name__
    cls = registry().load(kind, target) if isinstance(target, str) else target
    what = f"{kind} {name}"
    typed = {key: value for key, value, _ in check(what, read(cls, CONTEXT[kind]), options or {})}

    def make(*context: Any, **more: Any) -> Any:
        return cls(**dict(zip(CONTEXT[kind], context, strict=True)), **{**typed, **more})

    found: list[Finding] = []
    try:
        found.extend(_examiner(kind, cls, make, read(cls, CONTEXT[kind]), options or {}, ladders, size))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
        found.append(Finding("can be examined", holds=False, figure=f"raised {reason(error)}"))
    return Report(kind, name, tuple(found))


def _examiner(
    kind: str,
    cls: type[Any],
    make: Callable[..., Any],
    known: Mapping[str, Any],
    given: Mapping[str, Any],
    ladders: Ladders,
    size: int,
) -> Iterator[Finding]:
    """Return the findings of the examiner of ``kind``, which imports torch where it needs it."""
    if kind == "basis":
        from dvbench.testing import bases

        suited = dict.fromkeys(cls.usable(ladder) for ladder in ladders or bases.LADDERS)
        return bases.examine(make, list(suited))
    if kind == "schedule":
        from dvbench.testing import schedules

        def scheduled(ladder: Sequence[int], steps: int) -> Any:
            suited = {"turns": _turns(ladder)} if "turns" in known and "turns" not in given else {}
            return make(ladder, steps, **suited)

        return schedules.examine(scheduled, ladders or schedules.LADDERS)
    if kind == "backbone":
        from dvbench.testing import backbones

        return backbones.examine(make, _process, ladders or backbones.LADDERS)
    if kind == "sampler":
        from dvbench.testing import samplers

        return samplers.examine(make, [_process(ladder, 2) for ladder in ((8,), (8, 4), (16, 8, 4))])
    if kind == "dataset":
        from dvbench.testing import datasets

        return datasets.examine(make, size)
    from dvbench.testing import detectors

    return detectors.examine(make)


def _turns(ladder: Sequence[int]) -> tuple[float, ...]:
    """Return turning points for ``ladder``, evenly spread."""
    return tuple((k + 1) / len(ladder) for k, _ in enumerate(pairwise(ladder)))


def _process(ladder: Sequence[int], channels: int) -> Process:
    """Return a process to try networks and samplers on."""
    from dvbench.process import Process

    context = {"ladder": tuple(ladder), "channels": channels, "steps": 50}
    basis = registry().create("basis", "dvbench:dct", context, {})
    schedule = registry().create("schedule", "dvbench:linear", context, {"turns": _turns(ladder)})
    return Process(basis, schedule)


def _required(report: Report) -> Report:
    if report.failed:
        raise NonConformance(report)
    return report
