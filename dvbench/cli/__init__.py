"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from dvbench.cli.compare import compare
from dvbench.cli.options import NO_PLUGINS, everywhere
from dvbench.cli.plugins import plugins
from dvbench.cli.run import run
from dvbench.errors import DvbenchError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dvbench")
def cli() -> None:
    """Train, sample, measure and compare dimensionality-varying diffusion against DDPM.

    \b
    dvbench run cats --basis dct --baseline    train and sample DVDP, and DDPM beside it
    dvbench compare cats                       set the runs side by side
    dvbench plugins list                       see what is installed
    """  # noqa: D301 - \b keeps click from wrapping


for _command in (run, compare, plugins):
    cli.add_command(_command)
everywhere(cli)


def main() -> None:
    """Run the program and exit: 0 done, 1 the work failed, 2 wrong usage or bad input, 130 interrupted."""
    from dvbench.registry import DISABLE, registry

    if NO_PLUGINS in sys.argv:
        os.environ[DISABLE] = "all"
    held = registry()
    held.add_commands(cli)
    for name in (name for names in held.commands.values() for name in names):
        everywhere(cli.commands[name])
    state: dict[str, bool] = {}
    code = _guarded(lambda: cli.main(standalone_mode=False, obj=state), state)
    if not state.get("problems_told"):
        for problem in held.problems:  # last, since some hooks are called only when their kind is asked for
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
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the user gets a sentence
        from dvbench.offers import reason
        from dvbench.registry import registry

        _trace(state)
        owner = registry().blame(error)
        whose = f"{owner} raised " if owner else ""
        click.echo(f"Error: {whose}{reason(error)} (--debug shows where)", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _trace(state: dict[str, bool]) -> None:
    if state.get("debug"):
        traceback.print_exc()
