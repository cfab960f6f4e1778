"""Two finished runs, DDPM's and DVDP's, that a script holds against each other: their networks and its command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from dvbench import checkpoint
from dvbench.config import Config
from dvbench.drawing import Drawing
from dvbench.environment import describe
from dvbench.errors import UsageError
from dvbench.files import write_json
from dvbench.prediction import DataRange
from dvbench.registry import registry, version
from dvbench.rundir import RunDirectory
from dvbench.sampling import Denoiser
from dvbench.setup import Parts, assemble

CPU = torch.device("cpu")


def trained(path: Path) -> tuple[Denoiser, Config, Parts]:
    """Return the network of a finished run with its averaged weights, its configuration and what it is made of."""
    run = RunDirectory(path)
    record = run.read()
    if record is None or not run.weights.exists():
        raise UsageError(f"{path} has no record or no weights: name the directory of a finished run")
    config = Config(**record.config)
    parts = assemble(config, registry())
    tensors, state = checkpoint.read(run.weights)
    parts.network.load_state_dict(checkpoint.under("network", tensors))
    drawing = Drawing(parts, parts.network, DataRange.from_json(state["limits"]))
    return drawing.denoiser, config, parts


def command(
    told: str | None, measure: Callable[[Path, Path], dict[str, Any]], table: Callable[[dict[str, Any]], str]
) -> click.Command:
    """Return the command of a script with the docstring ``told``.

    ``measure`` makes of the directories of DDPM's and DVDP's runs what the record holds beside the runs' names, their
    configurations and the machine's description; ``table`` prints a record.
    """

    @click.command(help=(told or "").partition("\n")[0])
    @click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--out", type=click.Path(path_type=Path), help="where the record goes")
    @click.option("--show", type=click.Path(exists=True, path_type=Path), help="a record to print")
    def main(runs: Sequence[Path], out: Path | None, show: Path | None) -> None:
        if show is not None:
            click.echo(table(json.loads(show.read_text())))
            return
        if len(runs) != 2 or out is None:
            raise click.UsageError("name two runs and --out, or --show")
        try:
            found = measure(*runs)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        write_json(out, found)
        click.echo(table(found))

    return main


def record(ddpm: Path, dvdp: Path, configs: Sequence[Config], found: dict[str, Any]) -> dict[str, Any]:
    """Return what was ``found`` between two runs of these configurations with where it comes from."""
    runs = {"ddpm": ddpm.name, "dvdp": dvdp.name}
    told = dict(zip(runs, (config.to_json() for config in configs), strict=True))
    environment = describe(CPU, configs[1].precision, {"dvbench": version("dvbench")}, {})
    return {"runs": runs, "configs": told, **found, "environment": environment}
