"""What a run costs, as far as that is known before an image is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from dvbench.api import KINDS
from dvbench.config import Config
from dvbench.costs import network_cost, training_flops
from dvbench.design import Design, create, design
from dvbench.errors import UsageError
from dvbench.guard import Guard
from dvbench.measure.flops import META
from dvbench.measure.operators import FLOPS_PER_MAC
from dvbench.record import Cost
from dvbench.registry import Registry
from dvbench.report.table import NONE, count, significant
from dvbench.times import TrainingTimes

PER_LEVEL = {
    "FLOPs forward": "forward_flops",
    "FLOPs backward": "backward_flops",
    "network calls": "steps_per_level",
    "training images": "train_share_per_level",
}
TOGETHER = {
    "parameters": "params",
    "FLOPs per sample": "sample_flops",
    "FLOPs per training image": "train_flops_per_image",
    "FLOPs of training": "train_flops",
}


@dataclass(frozen=True)
class Forecast:
    """The ``cost`` of a run as its record will tell it, null where only running it can tell.

    Beside the record's keys, "train_share_per_level" is the share of training images at each level, as steps are drawn,
    and "train_flops" are those of the whole training where its budget is in images. All that concerns the network is
    null where ``countable`` is false: one that is made from the images has no cost without them.
    """

    config: Config
    cost: dict[str, Any]
    countable: bool

    @classmethod
    def of(cls, config: Config, registry: Registry) -> Forecast:
        """Build a run's process and network without data, and count. Raises UsageError as the run would."""
        try:
            return cls._on(META, config, registry)
        except UsageError:
            raise
        except Exception:  # noqa: BLE001 - whatever a network does that needs the values of its tensors
            return cls._on(torch.device("cpu"), config, registry)

    @classmethod
    def _on(cls, device: torch.device, config: Config, registry: Registry) -> Forecast:
        guard = Guard({kind: registry.label(kind, config.plugin(kind)[0]) for kind in KINDS})
        channels = create(config, registry, "dataset", size=config.ladder[0]).channels
        made = design(config, registry, guard, channels, device)
        countable = not hasattr(made.network, "prepare")
        return cls(config, _cost(config, made, device, countable=countable), countable)

    def at(self, key: str, side: int) -> float | None:
        """Return what ``cost`` says at the level of ``side``, None where there is no such level or nothing is said."""
        values = self.cost[key]
        return values[self.config.ladder.index(side)] if values is not None and side in self.config.ladder else None


def _cost(config: Config, made: Design, device: torch.device, *, countable: bool) -> dict[str, Any]:
    process, steps, budget = made.process, config.sampling.steps, config.training.images
    times = TrainingTimes.of(process, config.training.shares, config.training.least_t)
    cost: dict[str, Any] = {
        **dict.fromkeys(Cost.model_fields),
        "flops_per_mac": FLOPS_PER_MAC,
        "steps_per_level": process.steps_per_level(steps),
        "samples": config.sampling.samples,
        "train_share_per_level": [times.share(level) for level in range(process.K + 1)],
        "train_flops": None,
    }
    if countable:
        cost |= network_cost(made.network, process, steps, device)
        each = training_flops(cost["forward_flops"], cost["backward_flops"], cost["train_share_per_level"])
        cost["train_flops_per_image"] = each
        if each is not None and budget is not None:
            cost |= {"train_images": budget, "train_flops": each * budget}
    return cost


def table(names: Sequence[str], forecasts: Sequence[Forecast]) -> Table:
    """Return a column for each forecast, under its name; where there are two, the ratio of the first to the second."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    made.add_column("Known before the run", overflow="fold")
    for name in (*names, *([f"{names[0]} ÷\n{names[1]}"] if len(names) == 2 else [])):
        made.add_column(name, justify="right", no_wrap=True)
    sides = sorted({side for forecast in forecasts for side in forecast.config.ladder}, reverse=True)
    for label, key in PER_LEVEL.items():
        for side in sides:
            values = [forecast.at(key, side) for forecast in forecasts]
            made.add_row(f"{label}, {side} px", *(_cell(key, value) for value in values))
        made.add_section()
    for label, key in TOGETHER.items():
        values = [forecast.cost[key] for forecast in forecasts]
        made.add_row(label, *(_cell(key, value) for value in values), *_ratio(values))
    made.add_row("seconds, memory, energy (not measured)", *(NONE for _ in forecasts))
    uncounted = sorted({name for forecast in forecasts for name in forecast.cost["uncounted_ops"] or ()})
    made.caption = Text(f"not counted: {', '.join(name.removeprefix('aten::') for name in uncounted) or 'nothing'}")
    return made


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return NONE
    if key == "train_share_per_level":
        return f"{significant(100 * value)} %"
    if "flops" not in key:
        return count(value)
    power = min(int(math.log10(value)) // 3, 6) if value >= 1 else 0
    return f"{significant(value / 1000**power)} {' kMGTPE'[power]}".rstrip()


def _ratio(values: Sequence[float | None]) -> list[str]:
    if len(values) != 2:
        return []
    first, second = values
    return [f"{first / second:,.2f}x" if first is not None and second else NONE]
