"""What there is of plugins, for people who look: active, disabled, or broken and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dvbench.api import KINDS
from dvbench.errors import UsageError
from dvbench.registry import DISABLE, GROUP, Registry

ENTRY_POINT = "entry point"
State: TypeAlias = Literal["active", "disabled", "broken"]


@dataclass(frozen=True)
class Entry:
    """One line: a plugin or command by its name, or a whole entry point that is disabled or wrong."""

    kind: str
    name: str
    distribution: str
    version: str
    state: State
    reason: str | None = None


def entries(registry: Registry) -> list[Entry]:
    """List all plugins of ``registry``, then commands, then what is disabled or broken as a whole.

    The classes of installed packages are imported, to see whether they can be; those of dvbench itself are known.
    """
    found = [*_plugins(registry), *_commands(registry)]
    found += [Entry(ENTRY_POINT, s.entry_point, s.distribution, s.version, "disabled", _BY) for s in registry.disabled]
    for problem in registry.problems:  # last, since importing classes may add to them
        source = problem.source
        state: State = "broken" if problem.skipped else "active"
        found.append(Entry(ENTRY_POINT, source.entry_point, source.distribution, source.version, state, problem.reason))
    return found


_BY = f"by {DISABLE} or --no-plugins"


def _plugins(registry: Registry) -> Iterator[Entry]:
    for kind in KINDS:
        offers = registry.offers(kind)
        owners = Counter(offer.plugin.name for offer in offers)
        for offer in offers:
            name, full = offer.plugin.name, f"{offer.distribution}:{offer.plugin.name}"
            reason = f"offered by {owners[name]} distributions: ask for {full}" if owners[name] > 1 else None
            entry = Entry(kind, name, offer.distribution, offer.version, "active", reason)
            if offer.distribution != GROUP:
                try:
                    registry.options(kind, full)
                except UsageError as error:
                    entry = Entry(kind, name, offer.distribution, offer.version, "broken", str(error))
            yield entry


def _commands(registry: Registry) -> Iterator[Entry]:
    for source, names in registry.commands.items():
        for name in names:
            yield Entry("command", name, source.distribution, source.version, "active")
