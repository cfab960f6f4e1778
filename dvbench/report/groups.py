"""Runs that differ only in their seed, taken together: what a table has a row for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias

from dvbench.estimate import Estimate, mean
from dvbench.record import Metric, Record, canonical
from dvbench.report.labels import labelled, method, rank

Says: TypeAlias = Literal["better", "worse", "no difference shown"]
Look: TypeAlias = Callable[[Record], Mapping[str, Metric]]  # what is seen of a record: its metrics by label

ENVIRONMENT = ("device", "device_name", "threads", "precision")
CONDITIONS = (
    "n",
    "detector",
    "detector_hash",
    "reference_hash",
    "resize",
)  # what a metric's value depends on beside the samples
NO_INTERVAL = "no interval: the records do not tell by how much sampling anew would change the figure"
ONE_SEED = "one seed {}: another training may differ by more than sampling does; --seeds 3 tells"


@dataclass(frozen=True)
class Run:
    """A finished run's record and the directory that it lies in, where its samples lie too."""

    record: Record
    directory: Path


@dataclass(frozen=True)
class Verdict:
    """How a metric of a group stands to that of the group it is held against.

    ``difference`` is the group's value minus the other's. ``over`` tells what its interval covers: the luck of training
    ("seeds"), or of sampling alone ("samples"), which says nothing of what another training would give; None where no
    interval is known. ``says`` names a winner only where the interval leaves out zero, and covers training's luck
    unless nothing was trained.
    """

    difference: Estimate
    says: Says
    over: Literal["seeds", "samples"] | None


@dataclass(frozen=True)
class Group:
    """Runs of one configuration but for their seeds, one for each seed.

    ``metrics`` {label: value with its interval}: of one run the record's own interval, of several the mean over seeds
    with Student's, but none narrower than sampling alone has it; ``floors`` {label: value} what real images reach.
    ``ratios`` {cost: baseline / group}, with an interval where the cost was measured more than once. ``against`` is the
    group it is held against (None: it is the baseline, or there is none), ``verdicts`` {label: ...} how it stands to
    it. ``why_not`` says why it cannot be compared, ``unlike`` names the settings beside the process in which it differs
    from ``against``. ``measured`` {label: the metric of each run} is what ``metrics`` are made of.
    """

    name: str
    runs: list[Run]
    baseline: bool
    metrics: dict[str, Estimate]
    floors: dict[str, float]
    ratios: dict[str, Estimate | None]
    against: Group | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    why_not: str | None = None
    unlike: list[str] = field(default_factory=list)
    measured: dict[str, list[Metric]] = field(default_factory=dict)

    @property
    def record(self) -> Record:
        """The first run's record, which tells what all have in common."""
        return self.runs[0].record

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return self.record.benchmark

    @property
    def run_ids(self) -> list[str]:
        """Each run's id, by seed."""
        return [run.record.run_id for run in self.runs]

    @property
    def remark(self) -> str | None:
        """What a reader of its figures has to know beside them, None where they speak of the process alone."""
        if self.why_not is not None or self.against is None or not self.unlike:
            return self.why_not
        return f"differs from {self.against.run_ids[0]} in more than the process: {', '.join(self.unlike)}"

    @property
    def trained(self) -> bool:
        """Whether another seed would have trained another network."""
        return any(run.record.cost.train_images != 0 for run in self.runs)

    def caution(self, label: str) -> str | None:
        """Return why no winner is named whatever the difference, None where that is not so."""
        over, base = self.verdicts[label].over, self.against
        if over is None:
            return NO_INTERVAL
        if over == "seeds" or base is None or not (self.trained or base.trained):
            return None
        return ONE_SEED.format("each" if len(self.runs) == len(base.runs) == 1 else "on one side")


def metrics_of(groups: Iterable[Group]) -> dict[str, Metric]:
    """Return an example of each metric that was measured of any of ``groups``, by label, in a table's order."""
    found = {label: each[0] for group in groups for label, each in group.measured.items()}
    return dict(sorted(found.items(), key=lambda item: rank(item[1])))


def key(record: Record) -> str:
    """Return what runs of one group have in common: all but their seed, their times and what came out."""
    common = {
        "benchmark": record.benchmark,
        "config": {name: value for name, value in record.config.items() if name != "seed"},
        "environment": [getattr(record.environment, name) for name in (*ENVIRONMENT, "code")],
        "plugins": plugins(record),
        "metrics": {label: [getattr(metric, of) for of in CONDITIONS] for label, metric in labelled(record).items()},
    }
    return canonical(common)


def plugins(record: Record) -> dict[str, str]:
    """Return the version of each plugin of a run, with a sign of its source where it is not dvbench's own."""
    code = record.environment.plugin_code or {}
    return {
        name: f"{version} (source {code[name][:8]})" if name in code else version
        for name, version in record.environment.plugins.items()
    }


def gather(runs: Sequence[Run], look: Look) -> tuple[list[Group], list[str]]:
    """Take together the runs that differ only in their seed, and say which are left out for newer ones."""
    found: dict[str, dict[int, Run]] = {}
    older: list[tuple[Run, Run]] = []
    for run in sorted(runs, key=_age):
        seeds = found.setdefault(key(run.record), {})
        if run.record.seed in seeds:
            older.append((seeds[run.record.seed], run))
        seeds[run.record.seed] = run
    notes = [
        f"{old.directory} is left out: {new.directory} is a newer run of the same configuration and seed"
        for old, new in older
    ]
    return [_group([seeds[seed] for seed in sorted(seeds)], look) for seeds in found.values()], notes


def _age(run: Run) -> tuple[str, str, str]:
    return run.record.finished or "", run.record.started, run.directory.name


def _group(runs: list[Run], look: Look) -> Group:
    measured = _measured([look(run.record) for run in runs])
    metrics = {label: _estimate(each) for label, each in measured.items()}
    floors = {label: [metric.floor for metric in each if metric.floor is not None] for label, each in measured.items()}
    means = {label: fmean(values) for label, values in floors.items() if values}
    name = method(runs[0].record)
    return Group(name, runs, baseline=False, metrics=metrics, floors=means, ratios={}, measured=measured)


def _measured(seen: Sequence[Mapping[str, Metric]]) -> dict[str, list[Metric]]:
    """Return each metric that every run has, on as many samples."""
    found = {label: [each[label] for each in seen] for label in seen[0] if all(label in each for each in seen)}
    return {label: each for label, each in found.items() if len({metric.n for metric in each}) == 1}


def _estimate(metrics: Sequence[Metric]) -> Estimate:
    return mean([metric.value for metric in metrics]).widened(sampled(metrics))


def sampled(metrics: Sequence[Metric]) -> Estimate:
    """Return the mean of a metric over independent runs with the interval that sampling alone gives it.

    Runs hold the luck of sampling as well: an interval over few of them that is narrower than this one is so by chance.
    """
    count, value = len(metrics), fmean(metric.value for metric in metrics)
    below = [metric.value - metric.low for metric in metrics if metric.low is not None]
    above = [metric.high - metric.value for metric in metrics if metric.high is not None]
    if min(len(below), len(above)) < count:
        return Estimate(value)
    return Estimate(value, value - math.hypot(*below) / count, value + math.hypot(*above) / count)
