"""Where two trained networks differ: how far each is from held-out images at the same step, component by component.

    python benchmarks/denoising.py DDPM DVDP --out FILE.json    measure two finished runs, write FILE, print its table
    python benchmarks/denoising.py --show FILE.json             print the table of a record that is there

A distance of samples tells which method is better in the end; this, at which steps and in which part of the picture.
Both networks see the same images under the same noise, and both errors are split among the components of DVDP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from dvbench import checkpoint
from dvbench.config import Config
from dvbench.drawing import Drawing
from dvbench.environment import describe
from dvbench.errors import UsageError
from dvbench.files import write_json
from dvbench.prediction import DataRange, to_float
from dvbench.process import Process
from dvbench.registry import registry, version
from dvbench.rundir import RunDirectory
from dvbench.sampling import Denoiser
from dvbench.setup import assemble

CPU = torch.device("cpu")
IMAGES, BATCH = 512, 64
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # of T; the first is step 1


def trained(path: Path) -> tuple[Denoiser, Config, np.ndarray]:
    """Return the network of a finished run with its averaged weights, its configuration and its held-out images."""
    run = RunDirectory(path)
    record = run.read()
    if record is None or not run.weights.exists():
        raise UsageError(f"{path} has no record or no weights: name the directory of a finished run")
    config = Config(**record.config)
    parts = assemble(config, registry())
    tensors, state = checkpoint.read(run.weights)
    parts.network.load_state_dict(checkpoint.under("network", tensors))
    drawing = Drawing(parts, parts.network, DataRange.from_json(state["limits"]))
    return drawing.denoiser, config, parts.dataset.held_out[:IMAGES]


@torch.inference_mode()
def errors(denoiser: Denoiser, images: torch.Tensor, t: int, split: Process) -> list[torch.Tensor | None]:
    """Return the squared error of x_0 in each component of ``split`` at step ``t``, [N]: None where it is dropped.

    ``images``: N x C x n_0 x n_0. Each error is summed over its component and divided by the picture's C n_0^2
    numbers, so that those of all components add up to the mean squared error of the whole picture.
    """
    process = denoiser.process
    level = int(process.level(t))  # and so the number of components dropped
    found: list[list[torch.Tensor]] = [[] for _ in range(split.K + 1 - level)]
    generator = torch.Generator().manual_seed(t)
    for some in torch.split(images, BATCH):
        noise = torch.randn(some.shape, generator=generator)
        x = process.diffuse(process.lower(some, level), t, process.lower(noise, level), level)
        missed = denoiser(x, t, level) - process.lower(some, level)
        for held, part in zip(found, split.components(missed, level), strict=True):
            held.append(part.square().sum(dim=(1, 2, 3)) / some[0].numel())
    return [None] * level + [torch.cat(held) for held in found]


def measure(ddpm: Path, dvdp: Path) -> dict[str, Any]:
    """Return the record of the comparison of two runs."""
    (one, first, images), (other, second, held_out) = trained(ddpm), trained(dvdp)
    if not np.array_equal(images, held_out) or one.process.T != other.process.T or one.process.K:
        raise UsageError("compare a run of DDPM with a run of DVDP on the same images and steps, in that order")
    seen = to_float(images, CPU)
    rows = []
    for t in sorted({max(1, round(fraction * one.process.T)) for fraction in FRACTIONS}):
        pairs = zip(errors(one, seen, t, other.process), errors(other, seen, t, other.process), strict=True)
        rows.append(
            {"t": t, "noise": float(other.process.sigma[t]) ** 2, "components": [compared(*pair) for pair in pairs]}
        )
    environment = describe(CPU, second.precision, {"dvbench": version("dvbench")}, {})
    runs = {"ddpm": ddpm.name, "dvdp": dvdp.name}
    configs = {"ddpm": first.to_json(), "dvdp": second.to_json()}
    return {"runs": runs, "configs": configs, "images": len(seen), "rows": rows, "environment": environment}


def compared(ddpm: torch.Tensor | None, dvdp: torch.Tensor | None) -> dict[str, float | None]:
    """Return the mean errors of one component, and their ratio with its standard error over the images."""
    assert ddpm is not None
    base = float(ddpm.mean())
    if dvdp is None:
        return {"ddpm": base, "dvdp": None, "ratio": None, "ratio_error": None}
    ratio = float(dvdp.mean()) / base
    # The delta method, for two means over the same images.
    spread = float((dvdp - ratio * ddpm).std()) / len(ddpm) ** 0.5 / base
    return {"ddpm": base, "dvdp": float(dvdp.mean()), "ratio": ratio, "ratio_error": spread}


def table(record: dict[str, Any]) -> str:
    """Return a row for each step: its noise's variance, for each component DDPM's error and DVDP's as its multiple."""
    config = record["configs"]["dvdp"]
    sides = config["ladder"]
    names = [*(f"{finer} to {coarser} px" for finer, coarser in pairwise(sides)), f"{sides[-1]} px"]
    head = ["t / T", "noise", *(cell for name in names for cell in (f"{name}: DDPM", "DVDP x"))]
    rows = [
        [
            f"{row['t'] / config['steps']:.3g}",
            f"{row['noise']:.4f}",
            *(cell for found in row["components"] for cell in cells(found)),
        ]
        for row in record["rows"]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["--:"] * len(head), *rows])


def cells(found: dict[str, float | None]) -> tuple[str, str]:
    """Return DDPM's error and DVDP's multiple with its 95 % interval."""
    base, ratio, error = found["ddpm"], found["ratio"], found["ratio_error"]
    return f"{base:.5f}", "dropped" if ratio is None or error is None else f"{ratio:.2f} ±{1.96 * error:.2f}"


@click.command(help=__doc__.partition("\n")[0] if __doc__ else None)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="where the record goes")
@click.option("--show", type=click.Path(exists=True, path_type=Path), help="a record to print")
def main(runs: Sequence[Path], out: Path | None, show: Path | None) -> None:
    """Measure or show."""
    if show is not None:
        click.echo(table(json.loads(show.read_text())))
        return
    if len(runs) != 2 or out is None:
        raise click.UsageError("name two runs and --out, or --show")
    try:
        record = measure(*runs)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    write_json(out, record)
    click.echo(table(record))


if __name__ == "__main__":
    main()
