"""The figures of one benchmark's groups: which plots there are, of what, and what has to be said below them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dvbench.estimate import Estimate, mean
from dvbench.record import Metric, Record
from dvbench.report.costs import COSTS, spent
from dvbench.report.groups import Group
from dvbench.report.labels import labelled
from dvbench.report.plots import Series, Spectrum, quality, spectra
from dvbench.report.views import AXES, Axis

SAMPLING = {"sampling FLOPs per image": COSTS["sample_flops"], "sampling seconds per image": COSTS["sample_seconds"]}


@dataclass(frozen=True)
class Figure:
    """An SVG element, its title, the groups drawn in it, what a dashed line is, and sentences to stand below it."""

    title: str
    svg: str
    drawn: list[int]
    dashed: str
    notes: list[str]


def arrow(groups: Iterable[Group], label: str) -> str:
    """Return an arrow that shows which way a metric gets better."""
    return "↑" if any(group.measured[label][0].higher_is_better for group in groups if label in group.measured) else "↓"


def hollow(group: Group) -> bool:
    """Whether a group's points are drawn hollow, since its figures may not be set beside the baseline's."""
    return group.why_not is not None


def at_cost(groups: Sequence[Group], label: str, key: str) -> list[Figure]:
    """Return what ``label`` came to against what sampling cost: a point for each group."""
    floors = {group.floors[label] for group in groups if label in group.floors}
    made = []
    for across, cost in SAMPLING.items():
        points = {
            number: (x, group.metrics[label])
            for number, group in enumerate(groups)
            if label in group.metrics and (x := spent(group, cost)) is not None
        }
        series = [Series(number, [point], hollow(groups[number])) for number, point in points.items()]
        absent = [group.name for number, group in enumerate(groups) if number not in points]
        notes = [f"Not drawn, for want of a value: {', '.join(absent)}."] if absent else []
        made += _quality(groups, series, floors, across, label, key, notes)
    return made


def during_training(groups: Sequence[Group], label: str, key: str) -> list[Figure]:
    """Return how ``label`` changed with what training had cost: a curve for each group that was watched."""
    made = []
    for axis in AXES.values():
        series, floors, cut = [], set(), []
        for number, group in enumerate(groups):
            runs = _watched(group, label)
            points = _curve(runs, axis)
            if points and any(point["n"] != run.n for run in runs for point in run.curve):
                cut.append(group.name)
            elif points:
                floors |= {run.floor for run in runs if run.floor is not None}
                if (x := spent(group, axis.end)) is not None:
                    points.append((x, _mean([Estimate(run.value, run.low, run.high) for run in runs])))
            series += [Series(number, points, hollow(group))] if points else []
        notes = [f"The end is left out, being measured on another number of samples: {', '.join(cut)}."] if cut else []
        made += _quality(groups, series, floors, axis.unit, label, key, notes)
    return made


def spectrum(groups: Sequence[Group], key: str) -> Figure | None:
    """Return the radial power spectra of samples and data, means over seeds; None where none was measured."""
    lines = []
    for number, group in enumerate(groups):
        found = [metric for run in group.runs if (metric := _lsd(run.record)) is not None]
        if found:
            power = [fmean(values) for values in zip(*(metric.power or [] for metric in found), strict=True)]
            frequencies, data = found[0].frequencies or [], found[0].reference_power or []
            lines.append(Spectrum(number, frequencies, power, data, hollow(group)))
    if not lines:
        return None
    title = "Radial power spectrum of the samples against the data's"
    svg = spectra(lines, title=title, key=f"{key}/spectrum")
    notes = ["Below: the samples' power over the data's, in decibels; the nearer to 0 the better."]
    return Figure(title, svg, [line.style for line in lines], "the data", notes)


def _lsd(record: Record) -> Metric | None:
    """Return the first metric of ``record`` that tells spectra."""
    return next((metric for metric in record.metrics if metric.name == "lsd" and _whole(metric)), None)


def _whole(metric: Metric) -> bool:
    """Tell whether ``metric`` has both powers at every frequency."""
    lists = metric.frequencies, metric.power, metric.reference_power
    return all(lists) and len({len(values) for values in lists if values is not None}) == 1


def _quality(
    groups: Sequence[Group],
    series: Sequence[Series],
    floors: Collection[float],
    across: str,
    label: str,
    key: str,
    notes: list[str],
) -> list[Figure]:
    """Return the figure of ``series``, or none where they hold nothing."""
    if not series:
        return []
    if any(one.hollow for one in series):
        notes = [*notes, "Hollow: not to be compared with the baseline, for the reason in the table."]
    title = f"{label} against {across}"
    up = f"{label} {arrow(groups, label)}"
    svg = quality(series, sorted(floors), across=across, up=up, title=title, key=f"{key}/{label}/{across}")
    return [Figure(title, svg, [one.style for one in series], "real against real" if floors else "", notes)]


def _watched(group: Group, label: str) -> list[Metric]:
    """Return the metric of each run that was measured during training, as its record has it."""
    found = [labelled(run.record).get(label) for run in group.runs]
    return [metric for metric in found if metric is not None and metric.curve]


def _curve(metrics: Sequence[Metric], axis: Axis) -> list[tuple[float, Estimate]]:
    """Return the points at which every run was measured, each a mean over seeds."""
    found = []
    for points in zip(*(metric.curve for metric in metrics), strict=False):
        at = [x for point in points if (x := axis.by(point)) is not None]
        if at:
            found.append((fmean(at), _mean([Estimate(p["value"], p["low"], p["high"]) for p in points])))
    return found


def _mean(values: Sequence[Estimate]) -> Estimate:
    """Return the mean over seeds; of one seed, its own interval."""
    return values[0] if len(values) == 1 else mean([value.value for value in values])
