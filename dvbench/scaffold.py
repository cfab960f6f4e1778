"""A whole package with a plugin in it, from templates: what ``dvbench plugins new`` writes."""

from __future__ import annotations

import ast
import errno
import keyword
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvbench.api import KINDS, Kind
from dvbench.errors import UsageError, WorkError, unknown
from dvbench.registry import GROUP, registry

PREFIX = f"{GROUP}-"
WORD = "[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*"


@dataclass(frozen=True)
class Example:
    """What a kind's template makes: its line in listings, and an option with another value than the default."""

    summary: str
    option: str


EXAMPLES: Mapping[Kind, Example] = {
    "basis": Example("periodic Daubechies wavelets", "taps=2"),
    "schedule": Example("the signal falls along a sigmoid", "steepness=3"),
    "backbone": Example("residual convolutions, the same at every level", "width=16"),
    "sampler": Example("DDIM with a temperature", "temperature=0.9"),
    "dataset": Example("discs before plain grounds, drawn in any size", "seed=1"),
    "detector": Example("random convolutions, for colour and texture only", "features=32"),
}


@dataclass(frozen=True)
class Names:
    """What a plugin and its package are called, all from the name that users type."""

    name: str
    distribution: str
    module: str
    class_name: str


def create(directory: Path, kind: Kind, name: str | None = None) -> list[Path]:
    """Write a package with a working plugin of ``kind`` into ``directory``, whole or not at all; return its files.

    ``name`` is what users will type, by default the directory's; a leading "dvbench-" is dropped from either. Raises
    UsageError for a name that will not do and for a directory that holds something, WorkError for a full disk.
    """
    if kind not in KINDS:
        raise unknown("kind of plugin", kind, KINDS)
    place = directory.resolve()  # "." has a name too
    with _told(directory):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{directory} is a file: name a new directory")
        if place.exists() and any(place.iterdir()):
            raise UsageError(f"{directory} is not empty: name a new directory, or an empty one")
    files = _render(kind, _names(place.name, kind, name))
    with _told(directory):
        _write(place, files)
    return [directory / file for file in files]


def _names(directory: str, kind: Kind, given: str | None) -> Names:
    """Derive all names; refuse one that is no word, or no class's name, or taken."""
    name = (directory if given is None else given).removeprefix(PREFIX)
    if not re.fullmatch(WORD, name):
        raise UsageError(
            f"a plugin cannot be called {name!r}: use letters, digits and single hyphens, a letter first (--name)"
        )
    if any(offer.plugin.name == name and offer.distribution == GROUP for offer in registry().available(kind).values()):
        raise UsageError(f"dvbench itself has a {kind} called {name!r}: choose another name (--name)")
    distribution = directory if re.fullmatch(PREFIX + WORD, directory) else PREFIX + name
    class_name = "".join(part[0].upper() + part[1:] for part in name.split("-"))
    if keyword.iskeyword(class_name):
        raise _another_class(name, class_name)
    return Names(name, distribution, distribution.lower().replace("-", "_"), class_name)


def _another_class(name: str, class_name: str) -> UsageError:
    return UsageError(
        f"a plugin called {name!r} would be a class {class_name}, and its module means something else by that: choose "
        "another name (--name)"
    )


def _render(kind: Kind, names: Names) -> dict[str, str]:
    """Return each file's text by its path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dvbench"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - this writes Python and TOML, not HTML
    )
    context = {
        **vars(names),
        **vars(EXAMPLES[kind]),
        "kind": kind,
        "hook": "dvbench_bases" if kind == "basis" else f"dvbench_{kind}s",
        # `dvbench run` has an option of its own for every kind but this one.
        "choose": f"--set dataset.name={names.name}" if kind == "dataset" else f"--{kind} {names.name}",
    }
    module = f"{names.module}/{kind}.py"
    templates = {
        "README.md": "README.md",
        f"{names.module}/__init__.py": "__init__.py",
        module: f"{kind}.py",
        f"tests/test_{names.name.lower().replace('-', '_')}.py": f"test_{kind}.py",
        "pyproject.toml": "pyproject.toml",
    }
    files = {
        file: environment.get_template(f"{template}.jinja").render(context) for file, template in templates.items()
    }
    # A basis called "sequence" must not hide the Sequence that its constructor takes.
    if names.class_name in {node.id for node in ast.walk(ast.parse(files[module])) if isinstance(node, ast.Name)}:
        raise _another_class(names.name, names.class_name)
    return files


def _write(place: Path, files: Mapping[str, str]) -> None:
    """Write ``files`` into a directory beside ``place`` and move it there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        whole = Path(temporary) / place.name
        for file, text in files.items():
            path = whole / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        if place.exists():
            _fill(place, whole)
        else:
            whole.rename(place)


def _fill(place: Path, whole: Path) -> None:
    """Move what ``whole`` holds into an empty directory, which is not replaced, since somebody may stand in it."""
    parts = sorted(whole.iterdir())
    try:
        for part in parts:
            part.rename(place / part.name)
    except BaseException:
        for part in parts:
            if not part.exists():
                (place / part.name).rename(part)
        raise


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    """Turn the operating system's word about ``directory`` into one sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise (WorkError if full else UsageError)(
            f"{directory} cannot be written ({error.strerror or error}): choose another place"
        ) from error
