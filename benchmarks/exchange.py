"""Which network makes the difference between two samplers: each draws in the other's place at the outermost level.

    python benchmarks/exchange.py DDPM DVDP --out FILE.json    measure two finished runs, write FILE, print its table
    python benchmarks/exchange.py --show FILE.json             print the table of a record that is there

Without attenuation DVDP's outermost level is DDPM's own process, cut off at the first turning point. So below it either
network can go on from what the other drew, and DDPM's network can take the last steps of DVDP's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import CPU, command, record, trained

from dvbench.errors import UsageError
from dvbench.evaluation import Judge
from dvbench.sampling import Denoiser, draw
from dvbench.setup import Parts


class Relay(Denoiser):
    """Two networks in turn on the process of ``first``: from step ``upto`` down it is ``second`` that is asked."""

    def __init__(self, first: Denoiser, second: Denoiser, upto: int) -> None:
        super().__init__(first.network, first.process, first.prediction, first.limits, first.autocast, first.clock)
        self.first, self.second, self.upto = first, second, upto

    def __call__(self, x: torch.Tensor, t: int, level: int) -> torch.Tensor:
        """Estimate x_0 on the grid of ``level`` from x [B, C, n_l, n_l] at step ``t``."""
        return (self.second if t <= self.upto else self.first)(x, t, level)


def drawn(denoiser: Denoiser, parts: Parts) -> np.ndarray:
    """Draw as many samples as the run of ``parts`` did, N x H x W x C, uint8."""
    seed, sampling = parts.config.seed, parts.config.sampling
    batches = np.array_split(np.arange(sampling.samples), math.ceil(sampling.samples / sampling.batch))
    return np.concatenate(
        [draw(parts.sampler, denoiser, sampling.steps, seed, indices.tolist(), CPU) for indices in batches]
    )


def ways(ddpm: Denoiser, dvdp: Denoiser) -> list[tuple[str, str, str, Denoiser]]:
    """Return who draws above the first turning point, below it and at the end, and what does so."""
    turn = dvdp.process.turns[0]
    last = min(turn, dvdp.process.T // 50)  # the last of 50 steps, the last few of more
    return [
        ("DDPM", "DDPM", "DDPM", ddpm),
        ("DVDP", "DDPM", "DDPM", Relay(dvdp, ddpm, turn)),
        ("DVDP", "DVDP", "DDPM", Relay(dvdp, ddpm, last)),
        ("DDPM", "DVDP", "DVDP", Relay(ddpm, dvdp, turn)),
        ("DVDP", "DVDP", "DVDP", dvdp),
    ]


def measure(first: Path, second: Path) -> dict[str, Any]:
    """Return the record of the exchange between two runs."""
    (ddpm, one, parts), (dvdp, other, others) = trained(first), trained(second)
    process, lower = ddpm.process, dvdp.process
    turn = lower.turns[0] if lower.K else 0
    if parts.dataset.fingerprint != others.dataset.fingerprint or process.K or not lower.K:
        raise UsageError("exchange the networks of a run of DDPM and one of DVDP on the same images, in that order")
    if process.T != lower.T or not np.allclose(process.gains[:, : turn + 1], lower.gains[:, : turn + 1]):
        raise UsageError("DVDP's outermost level must be DDPM's process: train it with --attenuation 1")
    judge = Judge(parts.detector, one.detector, parts.dataset, one.seed, redraws=False)
    rows = []
    for above, below, last, denoiser in ways(ddpm, dvdp):
        metrics = {metric["name"]: metric for metric in judge(drawn(denoiser, parts))}
        rows.append({"above": above, "below": below, "last": last, "metrics": metrics})
    return record(first, second, (one, other), {"rows": rows})


def table(found: dict[str, Any]) -> str:
    """Return a row for each exchange, with the 95 % intervals of sampling anew."""
    turn = found["configs"]["dvdp"]["schedule"]["turns"][0]
    distance = "fid" if "fid" in found["rows"][0]["metrics"] else "fd"
    rows = [
        [f"above {turn:g} T", f"up to {turn:g} T", "up to 0.02 T", distance.upper(), "KID", "LSD"],
        ["--", "--", "--", "--:", "--:", "--:"],
    ]
    for row in found["rows"]:
        told = [figure(row["metrics"].get(name)) for name in (distance, "kid", "lsd")]
        rows.append([row["above"], row["below"], row["last"], *told])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def figure(metric: dict[str, Any] | None) -> str:
    """Return a metric with half its interval."""
    if metric is None or metric["value"] is None:
        return "not measured"
    half = "" if metric["low"] is None else f" ±{(metric['high'] - metric['low']) / 2:.2g}"
    return f"{metric['value']:.4g}{half}"


main = command(__doc__, measure, table)

if __name__ == "__main__":
    main()
