"""Where two trained networks differ: how far each is from held-out images at the same step, component by component.

    python benchmarks/denoising.py DDPM DVDP --out FILE.json    measure two finished runs, write FILE, print its table
    python benchmarks/denoising.py --show FILE.json             print the table of a record that is there

A distance of samples tells which method is better in the end; this, at which steps and in which part of the picture.
Both networks see the same images under the same noise, and both errors are split among the components of DVDP.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import CPU, command, record, trained

from dvbench.errors import UsageError
from dvbench.prediction import to_float
from dvbench.process import Process
from dvbench.sampling import Denoiser

IMAGES, BATCH = 512, 64
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # of T; the first is step 1


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
    (one, first, parts), (other, second, others) = trained(ddpm), trained(dvdp)
    one.least = other.least = 0  # each step by itself, whatever the runs tell their networks when they draw
    images, held_out = (some.dataset.held_out[:IMAGES] for some in (parts, others))
    if not np.array_equal(images, held_out) or one.process.T != other.process.T or one.process.K:
        raise UsageError("compare a run of DDPM with a run of DVDP on the same images and steps, in that order")
    seen = to_float(images, CPU)
    rows = []
    for t in sorted({max(1, round(fraction * one.process.T)) for fraction in FRACTIONS}):
        pairs = zip(errors(one, seen, t, other.process), errors(other, seen, t, other.process), strict=True)
        rows.append(
            {"t": t, "noise": float(other.process.sigma[t]) ** 2, "components": [compared(*pair) for pair in pairs]}
        )
    return record(ddpm, dvdp, (first, second), {"images": len(seen), "rows": rows})


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


def table(found: dict[str, Any]) -> str:
    """Return a row for each step: its noise's variance, for each component DDPM's error and DVDP's as its multiple."""
    config = found["configs"]["dvdp"]
    sides = config["ladder"]
    names = [*(f"{finer} to {coarser} px" for finer, coarser in pairwise(sides)), f"{sides[-1]} px"]
    head = ["t / T", "noise", *(cell for name in names for cell in (f"{name}: DDPM", "DVDP x"))]
    rows = [
        [
            f"{row['t'] / config['steps']:.3g}",
            f"{row['noise']:.4f}",
            *(cell for part in row["components"] for cell in cells(part)),
        ]
        for row in found["rows"]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["--:"] * len(head), *rows])


def cells(found: dict[str, float | None]) -> tuple[str, str]:
    """Return DDPM's error and DVDP's multiple with its 95 % interval."""
    base, ratio, error = found["ddpm"], found["ratio"], found["ratio_error"]
    return f"{base:.5f}", "dropped" if ratio is None or error is None else f"{ratio:.2f} ±{1.96 * error:.2f}"


main = command(__doc__, measure, table)

if __name__ == "__main__":
    main()
