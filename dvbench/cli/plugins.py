"""``dvbench plugins``: list, check and begin plugin packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dvbench.api import KINDS, Kind
from dvbench.cli.options import console, settings_option
from dvbench.errors import UsageError, unknown


@click.group()
def plugins() -> None:
    """List, check and begin plugin packages.

    \b
    dvbench plugins list                             what is installed, and what is wrong with it
    dvbench plugins check db2                        what holds of a plugin and what does not
    dvbench plugins new dvbench-mine --kind basis    a package of your own, ready to install
    """  # noqa: D301 - \b keeps click from wrapping


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_obj
def list_(state: dict[str, bool], as_json: bool) -> None:
    """Show every plugin: kind, name, distribution, version, and whether it is active, disabled or broken."""
    from dataclasses import asdict

    from dvbench.listing import entries
    from dvbench.registry import registry

    rows = [asdict(entry) for entry in entries(registry())]
    state["problems_told"] = True
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kind", "name", "distribution", "version", "state", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name != "reason")
    for row in rows:
        table.add_row(*(Text(value or "") for value in row.values()))  # not markup: what is in brackets stays
    console().print(table)


@plugins.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Which of several plugins called NAME.")
@settings_option("An option of the plugin to check it with, such as patch=4.")
@click.pass_context
def check(context: click.Context, name: str, kind: Kind | None, settings: dict[str, Any]) -> None:
    """Check the plugin NAME and print what holds and what does not; exit 1 where something does not.

    NAME may be "distribution:name". dvbench.testing does the same in a package's own tests.
    """
    from dvbench.registry import registry
    from dvbench.testing import examine

    found = kind or _kind_of(name)
    report = examine(found, name, settings)
    click.echo(registry().label(found, name))
    for option in registry().options(found, name).values():
        click.echo(f"  option {option}")
    for line in report.lines:
        click.echo(line)
    if report.failed:
        click.echo(f"{len(report.failed)} of {len(report.findings)} do not hold", err=True)
        context.exit(1)


def _kind_of(name: str) -> Kind:
    """Return the kind of plugin that ``name`` is."""
    from dvbench.registry import registry

    bare = name.rpartition(":")[2]
    names = {kind: {offer.plugin.name for offer in registry().offers(kind)} for kind in KINDS}
    kinds = [kind for kind in KINDS if bare in names[kind]]
    if len(kinds) > 1:
        raise UsageError(f"{name!r} is the name of a {' and of a '.join(kinds)}: say which with --kind")
    if not kinds:
        raise unknown("plugin", bare, set().union(*names.values()))
    return kinds[0]


@plugins.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the package offers.")
@click.option("--name", help="The plugin's name; without it, the directory's, less a leading dvbench-.")
def new(directory: Path, kind: Kind, name: str | None) -> None:
    """Write a package with a plugin into DIRECTORY: it installs, passes its own tests and runs as it is."""
    from dvbench.scaffold import create

    for path in create(directory, kind, name):
        click.echo(path)
    click.echo(f"Install it with `pip install -e {directory}`, then test it with `pytest {directory}`.", err=True)
