"""Finds plugins, keeps a broken one from harming the others, and creates what they offer."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from dvbench import hookspecs
from dvbench.api import KINDS, Plugin
from dvbench.errors import UsageError, unknown
from dvbench.options import Option, check, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import click

GROUP = "dvbench"

_HOOKS = {
    "basis": "dvbench_bases",
    "schedule": "dvbench_schedules",
    "backbone": "dvbench_backbones",
    "sampler": "dvbench_samplers",
    "dataset": "dvbench_datasets",
    "detector": "dvbench_detectors",
}
_ABSTRACT = {kind: f"dvbench.api:{kind.capitalize()}" for kind in _HOOKS} | {"backbone": "dvbench.backbone:Backbone"}

# What the bench supplies to a constructor; every other parameter is an option, the user's to set.
CONTEXT: dict[str, tuple[str, ...]] = {
    "basis": ("ladder", "channels"),
    "schedule": ("ladder", "steps"),
    "backbone": ("ladder", "channels"),
    "sampler": (),
    "dataset": ("size",),
    "detector": (),
}


@dataclass(frozen=True)
class Offer:
    """A plugin and the distribution that it came with."""

    kind: str
    plugin: Plugin
    distribution: str
    version: str


@dataclass(frozen=True)
class Problem:
    """Something of a plugin that was skipped, and why."""

    distribution: str
    entry_point: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.entry_point!r} of {self.distribution} is broken and was skipped: {self.reason}"


@dataclass(frozen=True)
class _Source:
    distribution: str
    version: str
    entry_point: str


class Registry:
    """All plugins of the installed distributions, or those given.

    ``plugins`` maps a distribution's name to a further module or object with hooks; ``entry_points`` replaces the
    installed ones. What could not be used stands in ``problems``.
    """

    def __init__(
        self,
        plugins: Mapping[str, object] | None = None,
        entry_points: Iterable[metadata.EntryPoint] | None = None,
    ) -> None:
        self.problems: list[Problem] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._sources: dict[str, _Source] = {}
        self._offers: dict[str, list[Offer]] = {}
        builtin = importlib.import_module("dvbench.builtin")
        self._register(builtin, _Source(GROUP, version(GROUP), "builtin"))
        for distribution, plugin in (plugins or {}).items():
            self._register(plugin, _Source(distribution, version(distribution), distribution))
        for entry_point in self._installed() if entry_points is None else entry_points:
            dist = entry_point.dist
            name, installed = (dist.name, dist.version) if dist else (entry_point.module, "unknown")
            source = _Source(name, installed, entry_point.name)
            with self._isolated(source, "loading it"):
                self._register(entry_point.load(), source)

    def _installed(self) -> Iterator[metadata.EntryPoint]:
        seen = set()
        for dist in metadata.distributions():
            with self._isolated(_Source(str(getattr(dist, "_path", dist)), "", GROUP), "reading its entry points"):
                # Parsing each distribution's metadata would cost more than all the rest of `dvbench --help`.
                if GROUP not in (dist.read_text("entry_points.txt") or ""):
                    continue
                found = dist.entry_points.select(group=GROUP)
                if found and _canonical(dist.name) not in seen:  # an earlier place on the path hides a later one
                    seen.add(_canonical(dist.name))
                    yield from found

    def _register(self, plugin: object, source: _Source) -> None:
        name = f"{source.distribution}:{source.entry_point}"
        with self._isolated(source, "registering it"):
            self._manager.register(plugin, name)
            self._sources[name] = source
            callers = self._manager.get_hookcallers(plugin) or []
            if not callers:
                self._report(source, "it implements no hook: mark its functions with dvbench.hookimpl")
            for caller in callers:
                if not caller.has_spec():
                    hooks = [*_HOOKS.values(), "dvbench_commands"]
                    self._report(source, str(unknown("hook", caller.name, hooks)))

    def _report(self, source: _Source, reason: str) -> None:
        self.problems.append(Problem(source.distribution, source.entry_point, reason))

    @contextmanager
    def _isolated(self, source: _Source, doing: str) -> Iterator[None]:
        """Record what foreign code raises, SystemExit included, and go on."""
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's code may raise anything
            self._report(source, f"{doing} raised {_reason(error)}")

    def _collect(self, kind: str) -> list[Offer]:
        if kind not in _HOOKS:
            raise unknown("kind of plugin", kind, KINDS)
        if kind not in self._offers:
            offers: dict[tuple[str, str], Offer] = {}
            # Each implementation is called by itself: in one joint call, the first to fail would lose the others.
            for impl in getattr(self._manager.hook, _HOOKS[kind]).get_hookimpls():
                source = self._sources[impl.plugin_name]
                with self._isolated(source, _HOOKS[kind]):
                    for plugin in _sound(impl.function()):
                        offer = Offer(kind, plugin, source.distribution, source.version)
                        if offers.setdefault((source.distribution, plugin.name), offer) is not offer:
                            self._report(source, f"{_HOOKS[kind]} offers {plugin.name!r} twice")
            self._offers[kind] = list(offers.values())
        return self._offers[kind]

    def available(self, kind: str) -> dict[str, Offer]:
        """Return what is offered, by the name to ask for: "distribution:name" where two offer the same name."""
        offers = self._collect(kind)
        names = [offer.plugin.name for offer in offers]
        return {
            f"{offer.distribution}:{name}" if names.count(name) > 1 else name: offer
            for offer, name in zip(offers, names, strict=True)
        }

    def find(self, kind: str, name: str) -> Offer:
        """Return the one offer that is meant by ``name`` or "distribution:name"."""
        distribution, _, bare = name.rpartition(":")
        found = [
            offer
            for offer in self._collect(kind)
            if offer.plugin.name == bare and _canonical(distribution) in {"", _canonical(offer.distribution)}
        ]
        if not found:
            raise unknown(kind, name, self.available(kind))
        if len(found) > 1:
            owners = " and ".join(offer.distribution for offer in found)
            choices = " or ".join(f"{offer.distribution}:{bare}" for offer in found)
            raise UsageError(f"{kind} {name!r} is offered by {owners}: ask for {choices}")
        return found[0]

    def load(self, kind: str, name: str) -> type[Any]:
        """Import the class behind ``name``."""
        offer = self.find(kind, name)
        target = offer.plugin.target
        what = f"{kind} {name} of {offer.distribution} {offer.version}"
        try:
            cls = pkgutil.resolve_name(target) if isinstance(target, str) else target
        except (Exception, SystemExit) as error:
            mend = f"mend or remove {offer.distribution}"
            raise UsageError(f"{what} cannot be imported from {target!r} ({_reason(error)}): {mend}") from error
        abstract = pkgutil.resolve_name(_ABSTRACT[kind])
        if not (isinstance(cls, type) and issubclass(cls, abstract)):
            raise UsageError(f"{what} is unusable: {target!r} is not a subclass of dvbench.{abstract.__name__}")
        if lacks := ", ".join(sorted(getattr(cls, "__abstractmethods__", ()))):
            raise UsageError(f"{what} is unusable: {cls.__name__} does not define {lacks}")
        return cls

    def options(self, kind: str, name: str) -> dict[str, Option]:
        """Read the options of ``name`` from its constructor."""
        return read(self.load(kind, name), CONTEXT[kind])

    def _checked(self, kind: str, name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        return check(f"{kind} {name}", self.options(kind, name), options)

    def validate(self, kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options, checked, defaults filled in, as JSON holds them (a tuple becomes a list)."""
        return {key: plain for key, _, plain in self._checked(kind, name, options)}

    def create(self, kind: str, name: str, context: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Construct what ``name`` means, from what the bench supplies and what the user chose."""
        cls = self.load(kind, name)
        if lacking := [key for key in CONTEXT[kind] if key not in context]:
            raise UsageError(f"{kind} {name} needs {' and '.join(lacking)}: pass them by name")
        typed = {key: value for key, value, _ in self._checked(kind, name, options)}
        try:
            return cls(**{key: context[key] for key in CONTEXT[kind]}, **typed)
        except ValueError as error:
            raise UsageError(f"{kind} {name}: {error}") from error

    def versions(self, names: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the version of each distribution that the (kind, name) pairs come from."""
        offers = [self.find(kind, name) for kind, name in names]
        return {offer.distribution: offer.version for offer in offers}

    def add_commands(self, cli: click.Group) -> None:
        """Let every plugin add its commands; one that fails, or replaces what was there, adds none."""
        for impl in self._manager.hook.dvbench_commands.get_hookimpls():
            before = dict(cli.commands)
            count = len(self.problems)
            source = self._sources[impl.plugin_name]
            with self._isolated(source, "dvbench_commands"):
                impl.function(*(cli for _ in impl.argnames))
            if taken := [name for name, command in before.items() if cli.commands.get(name) is not command]:
                self._report(source, f"it replaces the command {', '.join(taken)}")
            if len(self.problems) > count:
                cli.commands.clear()
                cli.commands.update(before)


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def version(distribution: str) -> str:
    """Return the installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a checkout that is not installed


def _reason(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _sound(plugins: Any) -> list[Plugin]:
    """Return what a hook returned, if each of it is a Plugin whose name can be asked for."""
    found = list(plugins)
    for plugin in found:
        if not isinstance(plugin, Plugin):
            raise TypeError(f"{plugin!r} is not a dvbench.Plugin")
        if not isinstance(plugin.name, str) or not re.fullmatch(r"[^\s:]+", plugin.name):
            raise ValueError(f"{plugin.name!r} is no name: use letters, digits and hyphens")
    return found


@functools.cache
def registry() -> Registry:
    """Return the registry of what is installed, made once in a process."""
    return Registry()


def available(kind: str) -> dict[str, Offer]:
    """Return what is installed of a kind, by name."""
    return registry().available(kind)


def create(kind: str, name: str, /, **options: Any) -> Any:
    """Create a basis, schedule, backbone, sampler, dataset or detector by its name and constructor's parameters."""
    context = {key: options.pop(key) for key in CONTEXT.get(kind, ()) if key in options}
    return registry().create(kind, name, context, options)
