"""Finds plugins, keeps a broken one from harming the others, and creates what they offer."""

from __future__ import annotations

import functools
import importlib
import io
import os
import pkgutil
import re
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click
import pluggy

from dvbench import hookspecs
from dvbench.api import KINDS
from dvbench.errors import DvbenchError, UsageError, unknown
from dvbench.known import bringer
from dvbench.offers import Offer, Problem, Source, canonical, package, raised, reason, sound, source_digest
from dvbench.options import Option, check, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

GROUP = "dvbench"
# Groups that nobody reads, and that were meant to be this one.
MISTAKEN = re.compile(rf"{GROUP}(\..+|[-_]?plugins?)")
# Distributions that are not to be loaded, separated by commas; "all" leaves the built-in plugins alone.
DISABLE = "DVBENCH_DISABLE_PLUGINS"

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


class Registry:
    """All plugins of the installed distributions, or those given.

    ``plugins`` maps a distribution's name to a further module or object with hooks; ``entry_points`` replaces the
    installed ones; ``disable`` names distributions that are not loaded, "all" for all. What could not be used stands
    in ``problems``, what was not to be used in ``disabled``; ``commands`` maps each source to the commands it added.
    """

    def __init__(
        self,
        plugins: Mapping[str, object] | None = None,
        entry_points: Iterable[metadata.EntryPoint] | None = None,
        disable: Iterable[str] = (),
    ) -> None:
        self.problems: list[Problem] = []
        self.disabled: list[Source] = []
        self.commands: dict[Source, list[str]] = {}
        unwanted = {canonical(name) for name in disable}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._sources: dict[str, Source] = {}
        self._modules: dict[str, Source] = {}
        self._collected: dict[str, list[Offer]] = {}
        builtin = importlib.import_module("dvbench.builtin")
        self._register(builtin, Source(GROUP, version(GROUP), "builtin"))
        for distribution, plugin in (plugins or {}).items():
            self._register(plugin, Source(distribution, version(distribution), distribution))
        for entry_point in self._installed() if entry_points is None else entry_points:
            dist = entry_point.dist
            name, installed = (dist.name, dist.version) if dist else (entry_point.module, "unknown")
            source = Source(name, installed, entry_point.name)
            if unwanted & {"all", canonical(name)}:
                self.disabled.append(source)
                continue
            with self._isolated(source, "loading it"):
                self._register(entry_point.load(), source)

    def _installed(self) -> Iterator[metadata.EntryPoint]:
        seen = set()
        for dist in metadata.distributions():
            with self._isolated(Source(str(getattr(dist, "_path", dist)), "", GROUP), "reading its entry points"):
                # Parsing each distribution's metadata would cost more than all the rest of `dvbench --help`.
                if GROUP not in (dist.read_text("entry_points.txt") or ""):
                    continue
                found = dist.entry_points.select(group=GROUP)
                mistaken = [point for point in dist.entry_points if MISTAKEN.fullmatch(point.group)]
                if (not found and not mistaken) or canonical(dist.name) in seen:
                    continue  # an earlier place on the path hides a later one
                seen.add(canonical(dist.name))
                for point in mistaken:
                    source = Source(dist.name, dist.version, point.name)
                    self._report(source, f"it is in the group {point.group!r}, which is not read: use {GROUP!r}")
                yield from found

    def _register(self, plugin: object, source: Source) -> None:
        name = f"{source.distribution}:{source.entry_point}"
        with self._isolated(source, "registering it"):
            self._manager.register(plugin, name)
            self._sources[name] = source
            self._modules[package(getattr(plugin, "__name__", type(plugin).__module__))] = source
            callers = self._manager.get_hookcallers(plugin) or []
            if not callers:
                self._report(source, "it implements no hook: mark its functions with dvbench.hookimpl")
            for caller in callers:
                # As pluggy's check_pending, which would stop at the first and name neither plugin nor remedy.
                if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
                    hooks = [*_HOOKS.values(), "dvbench_commands"]
                    self._report(source, str(unknown("hook", caller.name, hooks)))

    def _report(self, source: Source, reason: str, *, skipped: bool = True) -> None:
        self.problems.append(Problem(source, reason, skipped))

    @contextmanager
    def _isolated(self, source: Source, doing: str) -> Iterator[None]:
        """Record what foreign code raises, SystemExit included, and go on; what it prints would spoil our output."""
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                yield
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's code may raise anything
            self._report(source, f"{doing} raised {reason(error)}")
        if text := printed.getvalue().strip():
            self._report(source, f"prints {text.splitlines()[0][:60]!r} when dvbench is {doing}", skipped=False)

    def offers(self, kind: str) -> list[Offer]:
        """Return all that is offered of a kind, two of one name included."""
        if kind not in _HOOKS:
            raise unknown("kind of plugin", kind, KINDS)
        if kind not in self._collected:
            offers: dict[tuple[str, str], Offer] = {}
            # Each implementation is called by itself: in one joint call, the first to fail would lose the others.
            for impl in getattr(self._manager.hook, _HOOKS[kind]).get_hookimpls():
                source = self._sources[impl.plugin_name]
                with self._isolated(source, f"calling {_HOOKS[kind]}"):
                    for plugin in sound(impl.function()):
                        offer = Offer(kind, plugin, source.distribution, source.version)
                        if offers.setdefault((source.distribution, plugin.name), offer) is not offer:
                            self._report(source, f"{_HOOKS[kind]} offers {plugin.name!r} twice")
            self._collected[kind] = list(offers.values())
        return self._collected[kind]

    def available(self, kind: str) -> dict[str, Offer]:
        """Return what is offered, by the name to ask for: "distribution:name" where two offer the same name."""
        offers = self.offers(kind)
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
            for offer in self.offers(kind)
            if offer.plugin.name == bare and canonical(distribution) in {"", canonical(offer.distribution)}
        ]
        if not found:
            raise self._missing(kind, name)
        if len(found) > 1:
            owners = " and ".join(offer.distribution for offer in found)
            choices = " or ".join(f"{offer.distribution}:{bare}" for offer in found)
            raise UsageError(f"{kind} {name!r} is offered by {owners}: ask for {choices}")
        return found[0]

    def _missing(self, kind: str, name: str) -> UsageError:
        """Say which package would bring ``name``, and why it does not if it is there; else the nearest name."""
        bringing = bringer(kind, name)
        if bringing is None or any(canonical(offer.distribution) == bringing for offer in self.offers(kind)):
            return unknown(kind, name, self.available(kind))
        why = f"install {bringing}, which brings it (pip install plugins/{bringing} in a checkout of dvbench)"
        if any(canonical(source.distribution) == bringing for source in self.disabled):
            why = f"{bringing} brings it, and is disabled (by {DISABLE} or --no-plugins)"
        for problem in self.problems:
            if canonical(problem.distribution) == bringing and problem.skipped:
                why = f"{bringing} brings it, and is broken ({problem.reason}): mend or reinstall it"
        return UsageError(f"there is no {kind} called {name!r}: {why}")

    def label(self, kind: str, name: str) -> str:
        """Say what ``name`` is and whose: "basis corner of dvbench-corner 0.1.0"."""
        offer = self.find(kind, name)
        return f"{kind} {name} of {offer.distribution} {offer.version}"

    def blame(self, error: BaseException) -> str | None:
        """Name the distribution in whose code ``error`` was raised, None where it was nobody's plugin."""
        owners: dict[str, Source | Offer] = dict(self._modules)
        owners |= {package(offer.plugin.target): offer for offers in self._collected.values() for offer in offers}
        owners.pop(GROUP, None)  # what a plugin calls wrongly is not at fault
        owner = None
        trace = error.__traceback__
        while trace is not None:
            running = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
            owner = owners.get(running, owner)
            trace = trace.tb_next
        return None if owner is None else f"{owner.distribution} {owner.version}"

    def load(self, kind: str, name: str) -> type[Any]:
        """Import the class behind ``name``."""
        offer = self.find(kind, name)
        target = offer.plugin.target
        what = self.label(kind, name)
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                cls = pkgutil.resolve_name(target) if isinstance(target, str) else target
        except (Exception, SystemExit) as error:
            mend = f"mend or remove {offer.distribution}"
            raise UsageError(f"{what} cannot be imported from {target!r} ({reason(error)}): {mend}") from error
        if text := printed.getvalue().strip():
            source = Source(offer.distribution, offer.version, name)
            self._report(source, f"prints {text.splitlines()[0][:60]!r} when it is imported", skipped=False)
        abstract = pkgutil.resolve_name(_ABSTRACT[kind])
        if not (isinstance(cls, type) and issubclass(cls, abstract)):
            raise UsageError(f"{what} is unusable: {target!r} is not a subclass of dvbench.{abstract.__name__}")
        if lacks := ", ".join(sorted(getattr(cls, "__abstractmethods__", ()))):
            raise UsageError(f"{what} is unusable: {cls.__name__} does not define {lacks}")
        return cls

    def options(self, kind: str, name: str) -> dict[str, Option]:
        """Read the options of ``name`` from its constructor."""
        cls = self.load(kind, name)
        try:
            return read(cls, CONTEXT[kind])
        except UsageError as error:
            raise UsageError(f"{self.label(kind, name)} is unusable: {error}") from error

    def usable(self, name: str, ladder: Sequence[int]) -> tuple[int, ...]:
        """Return the part of ``ladder`` that the basis ``name`` descends. WorkError: it is no such part."""
        cls = self.load("basis", name)
        with self._blamed("basis", name, f"asked which part of the ladder {','.join(map(str, ladder))} it descends"):
            part = tuple(cls.usable(ladder))
            if not part or part != tuple(ladder[: len(part)]):
                raise TypeError(f"{part!r} is no beginning of the ladder")
        return part

    @contextmanager
    def _blamed(self, kind: str, name: str, asked: str) -> Iterator[None]:
        """Raise what a stranger's plugin raises, SystemExit included, anew with its name.

        Errors for the user pass, and those of full memory, which others know how to tell.
        """
        try:
            yield
        except DvbenchError:
            raise
        except (Exception, SystemExit) as error:
            from dvbench.memory import ran_out

            if self.find(kind, name).distribution == GROUP or ran_out(error):
                raise
            raise raised(self.label(kind, name), asked, error) from error

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
        with self._blamed(kind, name, "it was made"):
            try:
                return cls(**{key: context[key] for key in CONTEXT[kind]}, **typed)
            except ValueError as error:
                raise UsageError(f"{kind} {name}: {error}") from error

    def versions(self, names: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the version of each distribution that the (kind, name) pairs come from."""
        offers = [self.find(kind, name) for kind, name in names]
        return {offer.distribution: offer.version for offer in offers}

    def code(self, names: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the SHA-256 of the source of each distribution but dvbench's own that the (kind, name) pairs are of.

        Who works on a plugin changes it without another version.
        """
        offers = [self.find(kind, name) for kind, name in names]
        return {o.distribution: source_digest(package(o.plugin.target)) for o in offers if o.distribution != GROUP}

    def add_commands(self, cli: click.Group) -> None:
        """Let every plugin add its commands; one that fails, replaces what was there or adds no command, adds none."""
        for impl in self._manager.hook.dvbench_commands.get_hookimpls():
            before = [(group, dict(group.commands)) for _, group in _below(cli) if isinstance(group, click.Group)]
            count = len(self.problems)
            source = self._sources[impl.plugin_name]
            with self._isolated(source, "calling dvbench_commands"):
                impl.function(*(cli for _ in impl.argnames))
            for group, held in before:
                if taken := [name for name, command in held.items() if group.commands.get(name) is not command]:
                    self._report(source, f"it replaces the command {', '.join(taken)}")
            for name, command in _below(cli):
                if not isinstance(command, click.Command):
                    kind = type(command).__name__
                    self._report(source, f"it adds {name!r}, a {kind} and no command: put @click.command() before it")
            if any(problem.skipped for problem in self.problems[count:]):
                for group, held in before:
                    group.commands.clear()
                    group.commands.update(held)
            elif added := sorted(cli.commands.keys() - before[0][1].keys()):
                self.commands[source] = added


def _below(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a command and all below it, each with its name."""
    yield name, command
    if isinstance(command, click.Group):
        for key, each in command.commands.items():
            yield from _below(each, key)


def version(distribution: str) -> str:
    """Return the installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a checkout that is not installed


@functools.cache
def registry() -> Registry:
    """Return the registry of what is installed and not disabled, made once in a process."""
    return Registry(disable=filter(None, os.environ.get(DISABLE, "").replace(" ", "").split(",")))


def available(kind: str) -> dict[str, Offer]:
    """Return what is installed of a kind, by name."""
    return registry().available(kind)


def create(kind: str, name: str, /, **options: Any) -> Any:
    """Create a basis, schedule, backbone, sampler, dataset or detector by its name and constructor's parameters."""
    context = {key: options.pop(key) for key in CONTEXT.get(kind, ()) if key in options}
    return registry().create(kind, name, context, options)
