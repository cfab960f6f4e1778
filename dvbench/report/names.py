"""The settings in which groups differ, and names that tell those of one method apart by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dvbench.record import Record
from dvbench.report.groups import Group

ENVIRONMENT = ("dvbench", "device", "device_name", "threads", "precision")
# What makes one process another, what a row tells anyway, and what changes no figure or makes it not comparable.
PROCESS = ("benchmark", "ladder", "basis.", "schedule.", "start", "jump")
TOLD = ("sampler.name", "sampling.steps")
APART = (*ENVIRONMENT, "detector.", "training.microbatch", "training.checkpoint_seconds", "sampling.batch")


def unlike(record: Record, other: Record) -> list[str]:
    """Return the settings beside the process, by their dotted keys, in which two runs differ and which both tell."""
    ours, theirs = _settings(record), _settings(other)
    return [key for key in ours if ours[key] != theirs.get(key, ours[key]) and not key.startswith((*PROCESS, *APART))]


def distinct(groups: Sequence[Group]) -> list[Group]:
    """Return ``groups`` under names that differ within a benchmark: settings are added as ``--set`` takes them."""
    told = [f"{group.name}{_apart(group, groups)}" for group in groups]
    count = Counter((group.benchmark, name) for group, name in zip(groups, told, strict=True))
    named = {
        id(group): replace(group, name=name if count[group.benchmark, name] == 1 else f"{name} ({group.run_ids[0]})")
        for group, name in zip(groups, told, strict=True)
    }
    return [
        replace(named[id(group)], against=named.get(id(group.against), group.against)) for group in groups
    ]  # the group that one is held against is told by its new name, too


def _apart(group: Group, groups: Sequence[Group]) -> str:
    """Return the settings of ``group`` in which those of its name and benchmark differ."""
    own = _settings(group.record)
    alike = [
        _settings(other.record) for other in groups if (other.benchmark, other.name) == (group.benchmark, group.name)
    ]
    return "".join(f", {key}={value}" for key, value in own.items() if any(other.get(key) != value for other in alike))


def _settings(record: Record) -> dict[str, str]:
    """Return all that was chosen for a run, and where it ran."""
    config = {key: value for key, value in record.config.items() if key != "seed"}
    return dict(_flat(config | {key: getattr(record.environment, key) for key in ENVIRONMENT}))


def _flat(settings: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting by its dotted key."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", ",".join(map(_word, value if isinstance(value, list) else [value]))


def _word(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
