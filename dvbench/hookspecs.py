"""The hooks that a plugin package may implement, in the entry-point group ``dvbench``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from dvbench.api import Plugin

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("dvbench")


@hookspec
def dvbench_bases() -> Iterable[Plugin]:
    """Offer bases: ``return [Plugin("walsh", "my_package.walsh:Walsh", "Walsh-Hadamard, low sequencies kept")]``."""
    return ()


@hookspec
def dvbench_schedules() -> Iterable[Plugin]:
    """Offer schedules: ``return [Plugin("sigmoid", "my_package.schedules:Sigmoid", "sigmoid log-SNR")]``."""
    return ()


@hookspec
def dvbench_backbones() -> Iterable[Plugin]:
    """Offer networks: ``return [Plugin("dit", "my_package.dit:DiT", "a transformer over patches")]``."""
    return ()


@hookspec
def dvbench_samplers() -> Iterable[Plugin]:
    """Offer samplers: ``return [Plugin("heun", "my_package.samplers:Heun", "second order, two calls a step")]``."""
    return ()


@hookspec
def dvbench_datasets() -> Iterable[Plugin]:
    """Offer datasets: ``return [Plugin("digits", "my_package.digits:Digits", "handwritten digits")]``."""
    return ()


@hookspec
def dvbench_detectors() -> Iterable[Plugin]:
    """Offer detectors: ``return [Plugin("dinov2", "my_package.dino:DinoV2", "features of DINOv2")]``."""
    return ()


@hookspec
def dvbench_commands(cli: click.Group) -> None:
    """Add Click commands to the program: ``@cli.command() def mine(): ...``.

    A command ends with another exit code by ``click.get_current_context().exit(3)``; sys.exit is a failure.
    """
