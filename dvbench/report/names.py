"""Names that tell groups of one method apart, by the settings in which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dvbench.report.groups import Group

ENVIRONMENT = ("dvbench", "device", "device_name", "threads", "precision")


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
    own = _settings(group)
    alike = [_settings(other) for other in groups if (other.benchmark, other.name) == (group.benchmark, group.name)]
    return "".join(f", {key}={value}" for key, value in own.items() if any(other.get(key) != value for other in alike))


def _settings(group: Group) -> dict[str, str]:
    """Return all that was chosen for ``group``, and where it ran."""
    record = group.record
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
