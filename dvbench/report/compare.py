"""Compares runs with DDPM, or with a run of your choice, and says which may be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvbench.errors import UsageError
from dvbench.estimate import Estimate
from dvbench.report.costs import COSTS, ratios, spent
from dvbench.report.find import find
from dvbench.report.frame import frame
from dvbench.report.groups import Group, Run, gather, key, plugins
from dvbench.report.labels import is_ddpm, label, labelled, rank
from dvbench.report.names import TOLD, unlike
from dvbench.report.verdicts import differences, verdicts
from dvbench.report.views import View, view

if TYPE_CHECKING:
    import pandas as pd

    from dvbench.record import Metric, Record

__all__ = ["NO_BASELINE", "Comparison", "compare", "is_ddpm", "label", "labelled"]

NO_BASELINE = "no DDPM baseline among the runs: add --baseline to dvbench run"


@dataclass(frozen=True)
class Comparison:
    """Finished runs in groups, each beside the group that it is held against.

    ``groups`` stand as a table shows them: benchmark by benchmark, baselines first, then by distance. ``notes`` say
    what was left out. ``view`` is where on the way of training the metrics are looked at, None at its end.
    """

    groups: list[Group]
    notes: list[str]
    view: View | None = None

    @property
    def records(self) -> list[Record]:
        """The record of each run."""
        return [run.record for group in self.groups for run in group.runs]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row of raw values for each group: what ``compare --format csv`` prints."""
        return frame(self)

    def to_json(self) -> list[dict[str, Any]]:
        """Return what ``compare --format json`` prints: an object for each run; ratios are those of its group."""
        return [self._run(group, number) for group in self.groups for number in range(len(group.runs))]

    def _run(self, group: Group, number: int) -> dict[str, Any]:
        record = group.runs[number].record
        raw = record.model_dump(mode="json", include={"method", "cost", "metrics"})
        raw["metrics"] = [
            told | self._facts(group, number, metric)
            for told, metric in zip(raw["metrics"], record.metrics, strict=True)
        ]
        known = {name: ratio for name, ratio in group.ratios.items() if ratio is not None}
        intervals = {name: [ratio.low, ratio.high] for name, ratio in known.items() if ratio.half is not None}
        values = {name: known[name].value if name in known else None for name in COSTS}
        return {
            "run_id": record.run_id,
            "benchmark": record.benchmark,
            **raw,
            "ratios": values | {"intervals": intervals},
            "baseline": group.baseline,
            "comparable": group.why_not is None,
            "why_not": group.why_not,
        }

    def _facts(self, group: Group, number: int, metric: Metric) -> dict[str, Any]:
        """Return what is known of a run's metric beside its record: at the view, over seeds, against the baseline."""
        name = label(metric)
        found = group.measured.get(name) if labelled(group.runs[number].record)[name] is metric else None
        facts: dict[str, Any] = {"group": None, "against": None}
        if self.view is not None:
            here = None if found is None else found[number]
            facts["at"] = {
                self.view.name: self.view.amounts.get(group.benchmark),
                **{end: None if here is None else getattr(here, end) for end in ("value", "low", "high", "n")},
            }
        if found is not None:
            facts["group"] = {"run_ids": group.run_ids, **_ends(group.metrics[name])}
            if group.against is not None and name in group.verdicts:
                verdict = group.verdicts[name]
                _, low, high = _ends(verdict.difference).values()
                facts["against"] = {
                    "run_ids": group.against.run_ids,
                    "difference": verdict.difference.value,
                    "low": low,
                    "high": high,
                    "says": verdict.says,
                    "over": verdict.over,
                }
        return facts


def compare(
    paths: Sequence[str | Path] | str | Path | None = None,
    results: str | Path = "results",
    *,
    against: str | Path | None = None,
    at: str | None = None,
) -> Comparison:
    """Compare runs with the DDPM runs of their benchmark, or with the run ``against`` and its other seeds.

    Each of ``paths`` is a benchmark's name, a run's id, directory or record, or a directory to search; none means all
    of ``results``. ``at`` looks at equal training: "images", "seconds" or "flops", at the largest amount that all
    have reached, or at that of "seconds=100".
    """
    wanted = [paths] if isinstance(paths, str | Path) else list(paths or [])
    found = find(wanted, Path(results))
    chosen = [] if against is None else find([against], Path(results))
    notes = [f"{r.directory} is left out: the run is {r.record.status}" for r in found if r.record.status != "finished"]
    runs = list({r.directory.resolve(): r for r in (*found, *chosen) if r.record.status == "finished"}.values())
    seen = None if at is None else view(at, [run.record for run in runs])
    groups, older = gather(runs, labelled if seen is None else seen.look)
    if against is None:
        bases = [group for group in groups if is_ddpm(group.record)]
    else:
        bases = [_chosen(groups, chosen, str(against))]
    held = [_baseline(group, seen) for group in bases]
    others = [group for group in groups if all(group is not base for base in bases)]
    held += [_held(group, _base(group, held, against), seen) for group in others]
    return Comparison(_ordered(held), [*notes, *older, *_versions([run.record for run in runs])], seen)


def _chosen(groups: Sequence[Group], chosen: Sequence[Run], name: str) -> Group:
    """Return the one group that --against means."""
    keys = {key(run.record) for run in chosen if run.record.status == "finished"}
    found = [group for group in groups if key(group.record) in keys]
    if len(found) == 1:
        return found[0]
    told = f"runs of {len(found)} configurations" if found else f"a run that is {chosen[0].record.status}"
    raise UsageError(f"--against {name} is {told}: give the id or the directory of one finished run")


def _base(group: Group, bases: Sequence[Group], against: str | Path | None) -> Group | None:
    """Find the group to hold ``group`` against: the one asked for; else a comparable one, the likest, the newest.

    The likest differs in the fewest settings of network, data and training, then of sampling. Where none draws in as
    many steps, it is of the likest the one whose samples cost the most nearly as much.
    """
    if against is not None:
        return bases[0]

    def suits(base: Group) -> tuple[bool, int, int, bool, float, str]:
        apart = unlike(group.record, base.record)
        drawn = [key for key in apart if key.startswith(("sampler.", "sampling."))]
        seeds = {run.record.seed for run in group.runs} & {run.record.seed for run in base.runs}
        return (
            not differences(group, base),
            len(drawn) - len(apart),
            -len(drawn),
            bool(seeds),
            -_apart(group, base),
            base.record.finished or "",
        )

    return max((base for base in bases if base.benchmark == group.benchmark), key=suits, default=None)


def _apart(group: Group, base: Group) -> float:
    """Return how far apart two groups with different numbers of steps are in sampling FLOPs, as a logarithm."""
    if group.record.method.sample_steps == base.record.method.sample_steps:
        return 0.0
    mine, its = (spent(side, COSTS["sample_flops"]) for side in (group, base))
    return abs(math.log(mine / its)) if mine and its else math.inf


def _baseline(group: Group, seen: View | None) -> Group:
    one: dict[str, Estimate | None] = dict.fromkeys(COSTS, Estimate(1.0))
    unseen = _unseen(group, seen)
    return replace(group, baseline=True, ratios=one, why_not=unseen and f"not comparable: {unseen}")


def _held(group: Group, base: Group | None, seen: View | None) -> Group:
    """Hold ``group`` against ``base``; its costs are told beside the other's even where it cannot be compared."""
    unseen = _unseen(group, seen)
    if base is None:
        told = f"not comparable: {unseen}" if unseen else NO_BASELINE
        return replace(group, ratios=dict.fromkeys(COSTS), why_not=told)
    theirs = _unseen(base, seen)
    said = [theirs] if theirs else differences(group, base)
    apart = f"not comparable with {base.run_ids[0]}: {'; '.join(said)}" if said else None
    why_not = f"not comparable: {unseen}" if unseen else apart
    return replace(
        group,
        ratios=ratios(group, base),
        against=base,
        verdicts={} if why_not else verdicts(group, base),
        why_not=why_not,
        unlike=[key for key in unlike(group.record, base.record) if key not in TOLD],
    )


def _unseen(group: Group, seen: View | None) -> str | None:
    """Say why nothing of ``group`` is known where it is looked at."""
    if seen is None or group.measured:
        return None
    told = {run.record.run_id: seen.missing(run.record) for run in group.runs}
    reasons = [f"{reason} ({run})" if len(told) > 1 else reason for run, reason in told.items() if reason]
    return reasons[0] if reasons else "its seeds were measured on different numbers of samples"


def _ordered(groups: Sequence[Group]) -> list[Group]:
    """Return ``groups`` as a table shows them: by benchmark, baselines first, then from the best on."""
    leading: dict[str, tuple[tuple[int, str], bool]] = {}  # for each benchmark its first metric, and its better side
    for group in groups:
        for metrics in group.measured.values():
            found = rank(metrics[0]), metrics[0].higher_is_better
            leading[group.benchmark] = min(leading.get(group.benchmark, found), found)

    def place(group: Group) -> tuple[str, bool, float, str]:
        (_, name), higher = leading.get(group.benchmark, ((0, ""), False))
        value = group.metrics[name].value if name in group.metrics else -math.inf if higher else math.inf
        return group.benchmark, not group.baseline, -value if higher else value, group.run_ids[0]

    return sorted(groups, key=place)


def _versions(runs: Sequence[Record]) -> list[str]:
    """Say which plugins differ in their version between runs of one benchmark."""
    found: dict[tuple[str, str], dict[str, str]] = {}  # for each benchmark and plugin, a run of each version
    for run in runs:
        for plugin, version in plugins(run).items():
            found.setdefault((run.benchmark, plugin), {}).setdefault(version, run.run_id)
    return [
        f"{benchmark}: runs were made with different versions of {plugin}: "
        + ", ".join(f"{version} (such as {run})" for version, run in sorted(versions.items()))
        for (benchmark, plugin), versions in found.items()
        if len(versions) > 1
    ]


def _ends(found: Estimate) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low, "high": found.high}
