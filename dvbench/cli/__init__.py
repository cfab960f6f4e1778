"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dvbench.cli.compare import compare
from dvbench.cli.run import run
from dvbench.errors import DvbenchError

F = TypeVar("F", bound=Callable[..., Any])


def _debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().ensure_object(dict)["debug"] = True


def debug_option(command: click.Command) -> click.Command:
    """Give a command --debug."""
    option = click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_debug,
        help="Show a traceback on errors.",
    )
    command.params.append(option)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dvbench")
def cli() -> None:
    r"""Train, sample, measure and compare dimensionality-varying diffusion against DDPM.

    \b
    dvbench run cats --basis dct --baseline    train and sample DVDP, and DDPM beside it
    dvbench compare cats                       set the runs side by side
    """


for _command in (run, compare):
    cli.add_command(_command)
    debug_option(_command)


def main() -> None:
    """Run the program and exit: 0 done, 1 the work failed, 2 wrong usage or bad input, 130 interrupted."""
    from dvbench.registry import registry

    plugins = registry()
    plugins.add_commands(cli)
    state: dict[str, bool] = {}
    code = _guarded(lambda: cli.main(standalone_mode=False, obj=state), state)
    for problem in plugins.problems:  # last, since some hooks are called only when their kind is asked for
        click.echo(f"Warning: {problem}", err=True)
    sys.exit(code)


def _guarded(command: Callable[[], Any], state: dict[str, bool]) -> int:
    """Call ``command`` and return the exit code; an error is one sentence, with a traceback only where asked for."""
    try:
        code = command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return 130
    except DvbenchError as error:
        _trace(state)
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a sentence
        _trace(state)
        told = " ".join(str(error).split())
        click.echo(f"Error: {type(error).__name__}: {told} (--debug shows where)", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _trace(state: dict[str, bool]) -> None:
    if state.get("debug"):
        traceback.print_exc()
