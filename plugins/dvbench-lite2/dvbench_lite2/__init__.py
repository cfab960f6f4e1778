"""EfficientNet-Lite2 for dvbench: a detector, and a command. Importing this module imports neither torch nor numpy."""

from __future__ import annotations

import click

from dvbench import Plugin, hookimpl


@hookimpl
def dvbench_detectors() -> list[Plugin]:
    """Offer the detector."""
    return [Plugin("lite2", "dvbench_lite2.detector:Lite2", "EfficientNet-Lite2's features, weights from a package")]


@hookimpl
def dvbench_commands(cli: click.Group) -> None:
    """Add ``dvbench memorised``."""
    from dvbench_lite2.command import memorised

    cli.add_command(memorised)
