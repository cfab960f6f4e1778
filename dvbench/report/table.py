"""What a reader sees of a comparison, whatever it is set in: numbers are rounded here, and nowhere before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from dvbench.errors import UsageError
from dvbench.report.costs import COSTS, spent
from dvbench.report.groups import metrics_of
from dvbench.report.labels import MAIN
from dvbench.report.names import TOLD, distinct

if TYPE_CHECKING:
    from dvbench.estimate import Estimate
    from dvbench.record import Metric
    from dvbench.report.compare import Comparison
    from dvbench.report.groups import Group

NONE = "–"  # noqa: RUF001  # a dash as wide as a digit
RATIOS = {"FLOPs\nx": "sample_flops", "clock\nx": "sample_seconds", "train\nx": "train_seconds"}
RUN, TRAINING = "Run", "training\n(images)"


@dataclass(frozen=True)
class Section:
    """A table for the eye.

    ``rows`` hold text, the lines of a cell and of a head apart by a newline; the first ``texts`` columns are words, the
    others figures; a rule stands below the first ``ruled`` rows. ``notes`` are said below the table.
    """

    title: str
    rows: pd.DataFrame
    texts: int = 1
    ruled: int = 0
    notes: list[str] = field(default_factory=list)


def sections(comparison: Comparison, metrics: str | None = None) -> list[Section]:
    """Return a section for each benchmark with ``metrics``: names, comma between; "all"; None is FID or FD, and KID."""
    known = {metric.name for metric in metrics_of(comparison.groups).values()}
    names = None if metrics is None else sorted(known) if metrics == "all" else metrics.split(",")
    strange = [name for name in names or () if name not in known]
    if strange:
        choices = ", ".join([*sorted(known), "all"])
        raise UsageError(f"--metrics: {strange[0]!r} was measured of none of the runs; choose from {choices}")
    benchmarks = dict.fromkeys(group.benchmark for group in comparison.groups)
    return [_section(comparison, benchmark, names) for benchmark in benchmarks]


def unshown(comparison: Comparison) -> list[str]:
    """Return the labels of the metrics that tables leave out where nobody asks for them."""
    known = metrics_of(comparison.groups)
    shown = _chosen(known, None)
    return [label for label in known if label not in shown]


def significant(value: float | None, digits: int = 3) -> str:
    """Round to ``digits`` significant digits for the eye, and never inside the digits before the point."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    size = int(rounded.partition("e")[2])  # of the rounded value: 9.999 becomes 10.0, not 10.00
    return rounded if size < -4 else f"{value:,.{max(0, digits - 1 - size)}f}"


def floor(groups: Sequence[Group], label: str, digits: int) -> str:
    """Show what real images reach: from the least to the most, should groups differ; nothing where unknown."""
    floors = [group.floors[label] for group in groups if label in group.floors]
    ends = dict.fromkeys(significant(end, digits) for end in (min(floors), max(floors))) if floors else {}
    return "–".join(ends)  # noqa: RUF001 - a range's dash


def duration(seconds: float | None) -> str:
    """Show seconds in the unit that people would use."""
    if seconds is None:
        return NONE
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{significant(seconds / size)} {unit}"


def count(number: float | None) -> str:
    """Show a count in thousands or millions."""
    if number is None:
        return NONE
    size, unit = (1.0, "") if number < 1e4 else (1e3, "k") if number < 1e6 else (1e6, "M")
    return f"{number / size:.4g}{unit}"


def _chosen(known: Mapping[str, Metric], names: Sequence[str] | None) -> dict[str, Metric]:
    """Return the metrics of those names, in their order; without names the main ones, or all if there are none."""
    found = {label: metric for label, metric in known.items() if metric.name in (MAIN if names is None else names)}
    return dict(known) if names is None and not found else found


def _section(comparison: Comparison, benchmark: str, names: Sequence[str] | None) -> Section:
    groups = distinct([group for group in comparison.groups if group.benchmark == benchmark])
    view = comparison.view
    metrics = _chosen(metrics_of(groups), names)
    notes: dict[str, int] = {}
    rows = [_row(group, metrics, notes) for group in groups]
    reached = {_head(label, metric): floor(groups, label, _digits(label)) for label, metric in metrics.items()}
    floors = any(reached.values())
    if floors:
        rows.insert(0, dict.fromkeys(rows[0], "") | {RUN: "real against real"} | reached)
    whole = {TRAINING, "train\nx"}  # of all the training, which is not what a view looks at
    frame = pd.DataFrame(rows).drop(columns=[] if view is None else list(whole))
    title = benchmark if view is None else f"{benchmark}, at {view.said(benchmark)}"
    told = [f"({number}) {note}" for note, number in notes.items()]
    return Section(title, frame, ruled=1 if floors else 0, notes=told)


def _row(group: Group, metrics: Mapping[str, Metric], notes: dict[str, int]) -> dict[str, str]:
    """Return a group's cells by their column's head; what needs a note adds it to ``notes``, {note: its number}."""
    flops, seconds = (spent(group, COSTS[name]) for name in ("sample_flops", "sample_seconds"))
    trained, images = spent(group, COSTS["train_seconds"]), spent(group, lambda cost: cost.train_images)
    return {
        RUN: _name(group, notes),
        **{_head(label, metric): _value(group, label, notes) for label, metric in metrics.items()},
        "GFLOPs\n/image": significant(None if flops is None else flops / 1e9),
        TRAINING: f"{duration(trained)}\n{count(images)}",
        "seconds\n/image": significant(seconds),
        **{head: _times(group.ratios.get(name)) for head, name in RATIOS.items()},
    }


def _head(label: str, metric: Metric) -> str:
    name, space, about = label.partition(" ")
    return f"{name} {'↑' if metric.higher_is_better else '↓'}" + (f"\n{about}" if space else "")


def _name(group: Group, notes: dict[str, int]) -> str:
    record, seeds = group.record, len(group.runs)
    many = f", {seeds} seeds" if seeds > 1 else ""
    mark = _mark(group.remark, notes)
    run = record.run_id if len(record.run_id) <= 20 else f"…{record.run_id[-12:]}"
    name, *parts = group.name.split(", ")
    apart = [part for part in parts if part.partition("=")[0] not in TOLD]
    how = f"{record.method.sampler}, {record.method.sample_steps} steps"
    return "\n".join([f"{name}{many}{mark}", *apart, how, run])


def _value(group: Group, label: str, notes: dict[str, int]) -> str:
    """Return a value with its interval, and below it how it stands to the baseline's."""
    if label not in group.metrics:
        return NONE
    shown = _within(significant(group.metrics[label].value, _digits(label)), " ", group.metrics[label])
    if label not in group.verdicts:
        return shown
    said = group.verdicts[label].says.replace("difference ", "difference\n")
    return f"{shown}\n{said}{_mark(group.caution(label), notes)}"


def _times(ratio: Estimate | None) -> str:
    if ratio is None:
        return NONE
    value = f"{ratio.value:,.2f}x" if ratio.value >= 0.1 else f"{significant(ratio.value, 2)}x"
    return _within(value, "\n", ratio)


def _within(shown: str, space: str, found: Estimate) -> str:
    return shown if found.half is None else f"{shown}{space}±{significant(found.half, 2)}"


def _mark(note: str | None, notes: dict[str, int]) -> str:
    """Return the number of ``note``, which is told once however often it is needed."""
    return "" if note is None else f" ({notes.setdefault(note, len(notes) + 1)})"


def _digits(label: str) -> int:
    return 4 if label.startswith(("FID", "FD")) else 3
