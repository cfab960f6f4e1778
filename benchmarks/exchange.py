"""Which network makes the difference between two samplers: each draws in the other's place at the outermost level.

    python benchmarks/exchange.py DDPM DVDP --out FILE.json    measure two finished runs, write FILE, print its table
    python benchmarks/exchange.py --show FILE.json             print the table of a record that is there

Without attenuation DVDP's outermost level is DDPM's own process, cut off at the first turning point. So below it either
network can go on from what the other drew, and DDPM's network can take the last steps of DVDP's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import CPU, command, record, trained

from dvbench.api import Denoise
from dvbench.errors import UsageError
from dvbench.evaluation import Judge
from dvbench.prediction import to_uint8
from dvbench.process import Process
from dvbench.randomness import SampleNoise
from dvbench.sampling import Denoiser
from dvbench.setup import Parts


@torch.inference_mode()
def drawn(denoise: Denoise, process: Process, parts: Parts) -> np.ndarray:
    """Draw as many samples as the run of ``parts`` did, N x H x W x C, uint8."""
    sampling = parts.config.sampling
    batches = []
    for start in range(0, sampling.samples, sampling.batch):
        indices = range(start, min(start + sampling.batch, sampling.samples))
        noise = SampleNoise(parts.config.seed, indices, process.ladder, parts.network.channels, CPU)
        batches.append(to_uint8(parts.sampler.sample(denoise, process, noise, sampling.steps)))
    return np.concatenate(batches)


def ways(ddpm: Denoiser, dvdp: Denoiser) -> list[tuple[str, str, str, Denoise, Process]]:
    """Return who draws above the first turning point, below it and at the end, what does so, and on which process."""
    turn, last = dvdp.process.turns[0], dvdp.process.T // 50  # the last of 50 steps, the last few of more

    def ddpm_finishing(upto: int) -> Denoise:
        return lambda x, t, level: (ddpm if level == 0 and t <= upto else dvdp)(x, t, level)

    def dvdp_finishing(x: torch.Tensor, t: int, level: int) -> torch.Tensor:
        return (dvdp if t <= turn else ddpm)(x, t, level)

    return [
        ("DDPM", "DDPM", "DDPM", ddpm, ddpm.process),
        ("DVDP", "DDPM", "DDPM", ddpm_finishing(turn), dvdp.process),
        ("DVDP", "DVDP", "DDPM", ddpm_finishing(last), dvdp.process),
        ("DDPM", "DVDP", "DVDP", dvdp_finishing, ddpm.process),
        ("DVDP", "DVDP", "DVDP", dvdp, dvdp.process),
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
    for above, below, last, denoise, on in ways(ddpm, dvdp):
        metrics = {metric["name"]: metric for metric in judge(drawn(denoise, on, parts))}
        rows.append({"above": above, "below": below, "last": last, "metrics": metrics})
    return record(first, second, (one, other), {"rows": rows})


def table(found: dict[str, Any]) -> str:
    """Return a row for each exchange, with the 95 % intervals of sampling anew."""
    turn = found["configs"]["dvdp"]["schedule"]["turns"][0]
    rows = [
        [f"above {turn:g} T", f"up to {turn:g} T", "up to 0.02 T", "FD", "KID", "LSD"],
        ["--", "--", "--", "--:", "--:", "--:"],
    ]
    for row in found["rows"]:
        told = [figure(row["metrics"].get(name)) for name in ("fd", "kid", "lsd")]
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
