"""A comparison as one table of raw values, a row for each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from dvbench.record import Cost
from dvbench.report.costs import COSTS, seconds_per_image, spent
from dvbench.report.groups import Group, metrics_of

if TYPE_CHECKING:
    from dvbench.estimate import Estimate
    from dvbench.report.compare import Comparison

MEANS: dict[str, Callable[[Cost], float | None]] = {
    "params": lambda cost: cost.params,
    "samples": lambda cost: cost.samples,
    "train_images": lambda cost: cost.train_images,
    "train_seconds": lambda cost: cost.train_seconds,
    "train_flops_per_image": lambda cost: cost.train_flops_per_image,
    "sample_flops": lambda cost: cost.sample_flops,
    "sample_seconds_per_image": seconds_per_image,
    "peak_memory_bytes": lambda cost: cost.peak_memory_bytes,
}


def frame(comparison: Comparison) -> pd.DataFrame:
    """Return what is known of each group: method, mean costs, ratios, and each metric under its label."""
    labels = list(metrics_of(comparison.groups))
    rows = [_row(comparison, group, labels) for group in comparison.groups]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["benchmark", "run", "run_ids"])


def _row(comparison: Comparison, group: Group, labels: list[str]) -> dict[str, Any]:
    record, view = group.record, comparison.view
    return {
        "benchmark": group.benchmark,
        "run": group.name,
        "run_ids": " ".join(group.run_ids),
        "seeds": " ".join(str(run.record.seed) for run in group.runs),
        "baseline": group.baseline,
        "against": " ".join(group.against.run_ids) if group.against else None,
        "comparable": group.why_not is None,
        "why_not": group.why_not,
        "unlike": " ".join(group.unlike),
        **record.method.model_dump(include={"basis", "schedule", "backbone", "sampler"}),
        "ladder": "-".join(map(str, record.method.ladder)),
        "turns": " ".join(map(str, record.method.turns)),
        **record.method.model_dump(include={"attenuation", "prediction", "sample_steps"}),
        **record.environment.model_dump(include={"device", "device_name", "threads", "precision"}),
        **{name: spent(group, cost) for name, cost in MEANS.items()},
        **{name: value for cost in COSTS for name, value in _ends(f"ratio {cost}", group.ratios.get(cost)).items()},
        **({} if view is None else {f"at {view.name}": view.amounts.get(group.benchmark)}),
        **{name: value for label in labels for name, value in _metric(group, label).items()},
    }


def _metric(group: Group, label: str) -> dict[str, Any]:
    verdict = group.verdicts.get(label)
    return {
        **_ends(label, group.metrics.get(label)),
        f"{label} floor": group.floors.get(label),
        **_ends(f"{label} difference", verdict.difference if verdict else None),
        f"{label} says": verdict.says if verdict else None,
        f"{label} over": verdict.over if verdict else None,
    }


def _ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    return {
        name: found.value if found else None,
        f"{name} low": found.low if found else None,
        f"{name} high": found.high if found else None,
    }
