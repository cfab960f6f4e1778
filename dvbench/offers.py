"""What plugins offer, where it comes from, and what is wrong with it."""

from __future__ import annotations

import functools
import hashlib
import re
import textwrap
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dvbench.api import Plugin
from dvbench.errors import WorkError

LONGEST = 300  # characters of a stranger's error that are told: some list all of a network's weights


@dataclass(frozen=True)
class Offer:
    """A plugin and the distribution that it came with."""

    kind: str
    plugin: Plugin
    distribution: str
    version: str


@dataclass(frozen=True)
class Source:
    """An entry point and the distribution that it came with."""

    distribution: str
    version: str
    entry_point: str


@dataclass(frozen=True)
class Problem:
    """What is wrong with a plugin. ``skipped``: so wrong that what it concerns is left out."""

    source: Source
    reason: str
    skipped: bool = True

    @property
    def distribution(self) -> str:
        """The distribution's name."""
        return self.source.distribution

    def __str__(self) -> str:
        what = f"plugin {self.source.entry_point!r} of {self.source.distribution}"
        return f"{what} is broken and was skipped: {self.reason}" if self.skipped else f"{what} {self.reason}"


def package(target: type | str) -> str:
    """Return the top-level package of a target."""
    module = target if isinstance(target, str) else target.__module__
    return re.split(r"[.:]", module, maxsplit=1)[0]


@functools.cache  # what runs is what was loaded, whatever the file has become
def source_digest(package: str, without: tuple[str, ...] = ()) -> str:
    """Return the SHA-256 of all Python source of a top-level package or module, of nothing where there is no file.

    What lies at the package's top under a name of ``without`` is left out.
    """
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # made in the running program
        spec = None
    found = hashlib.sha256()
    if spec is not None:
        roots = [Path(root) for root in spec.submodule_search_locations or []]
        files = [(root, file) for root in roots for file in sorted(root.rglob("*.py"))]
        if not roots and spec.has_location and spec.origin:
            files = [(Path(spec.origin).parent, Path(spec.origin))]
        for root, file in files:
            if file.relative_to(root).parts[0] in without:
                continue
            found.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def canonical(distribution: str) -> str:
    """Return a distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def reason(error: BaseException) -> str:
    """Return an error's kind and what it says, in one line."""
    said = textwrap.shorten(str(error), LONGEST, placeholder=" ...")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def failure(label: str, complaint: str) -> WorkError:
    """Return the error of a plugin that did not do what it must; ``label`` says whose it is, as Registry.label does."""
    kind, name = label.split()[:2]
    return WorkError(
        f"{label} {complaint}: mend it (`dvbench plugins check {name}` shows what holds and what does not), or choose "
        f"another {kind}"
    )


def raised(label: str, asked: str, error: BaseException) -> WorkError:
    """Return the error of a plugin that raised ``error`` when it was ``asked`` for something."""
    return failure(label, f"raised {reason(error)} when {asked} (--debug shows where)")


def sound(plugins: Any) -> list[Plugin]:
    """Return what a hook returned, if each of it is a Plugin whose name can be asked for."""
    found = list(plugins)
    for plugin in found:
        if not isinstance(plugin, Plugin):
            raise TypeError(f"{plugin!r} is not a dvbench.Plugin")
        if not isinstance(plugin.name, str) or not re.fullmatch(r"[^\s:]+", plugin.name):
            raise ValueError(f"{plugin.name!r} is no name: use letters, digits and hyphens")
    return found
