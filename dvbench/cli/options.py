"""What several commands share: options, and the console."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    F = TypeVar("F", bound=Callable[..., Any])

WIDTH = 120
NO_PLUGINS = "--no-plugins"


def _debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().ensure_object(dict)["debug"] = True


def everywhere(command: click.Command) -> click.Command:
    """Give a command, and all below it, the options that every command takes."""
    taken = {flag for parameter in command.params for flag in parameter.opts}  # a plugin's command may have its own
    options = [
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_debug,
            help="Show a traceback on errors.",
        ),
        # Plugins add commands before any option is parsed, so that the program itself looks for this one first.
        click.Option([NO_PLUGINS], is_flag=True, expose_value=False, help="Use the built-in plugins only."),
    ]
    command.params += [option for option in options if not taken & set(option.opts)]
    for below in getattr(command, "commands", {}).values():
        everywhere(below)
    return command


def settings_option(told: str) -> Callable[[F], F]:
    """Return the option --set KEY=VALUE, of which there may be many, with the help ``told``; values are YAML."""
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", callback=_settings, help=told)


def _settings(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    settings = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, such as backbone.width=64")
        try:
            settings[key] = yaml.safe_load(value)
        except Exception as error:  # for a value such as 2020-13-45 the library lets through whatever is raised
            raise click.BadParameter(f"the value in {text!r} is no valid YAML") from error
    return settings


def console() -> Console:
    """Return the console to print tables on: into a file or a pipe there is no edge to wrap at."""
    from rich.console import Console

    held = Console()
    if not held.is_terminal and "COLUMNS" not in os.environ:
        held.width = WIDTH
    return held
