"""What the network sees and says: scaled input, the target of each prediction, and the way back to x_0.

A kept pixel of level l is n_0 / n_l times larger than in the picture, since projections keep its energy. ``shrink`` is
the inverse, n_l / n_0: the x0 and v targets use shrink * x_0, so that they span [-1, 1] at every level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dvbench.memory import sent
from dvbench.process import Coefficient, Moments, Process, Step

Prediction: TypeAlias = Literal["eps", "v", "x0"]


@dataclass(frozen=True)
class DataRange:
    """What clipping and scaling need to know of the training split.

    ``std``: standard deviation of its values in [-1, 1]; ``low`` and ``high``: the range of component K on its own
    grid; ``faded``: the largest magnitude of each component i < K.
    """

    std: float
    low: float
    high: float
    faded: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> DataRange:
        """Return what ``to_json`` was called on."""
        return cls(**{**held, "faded": tuple(held["faded"])})


def to_float(images: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Map uint8 N x H x W x C to float32 [N, C, H, W] in [-1, 1]."""
    pixels = sent(torch.from_numpy(np.array(images)), device)  # a copy: datasets are read-only
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Map float [N, C, H, W] to the nearest uint8 N x H x W x C, values outside [-1, 1] clipped."""
    pixels = images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    result: npt.NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return result


def data_range(process: Process, images: npt.NDArray[np.uint8], chunk: int | None = None) -> DataRange:
    """Measure the training split N x H x W x C, in one pass of ``chunk`` images at a time."""
    chunk = chunk or chunk_length(images)
    total = squares = 0.0
    low, high, faded = np.inf, -np.inf, [0.0] * process.K
    for start in range(0, len(images), chunk):
        x = to_float(images[start : start + chunk], torch.device("cpu"))
        total += float(x.sum(dtype=torch.float64))
        squares += float(x.square().sum(dtype=torch.float64))
        *details, kept = process.components(x, 0)
        faded = [max(most, float(detail.abs().max())) for most, detail in zip(faded, details, strict=True)]
        low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    mean = total / images.size
    std = max(squares / images.size - mean**2, 1e-6) ** 0.5
    if process.K == 0:
        low, high = -1.0, 1.0
    return DataRange(std, low, high, tuple(faded))


def data_moments(process: Process, images: npt.NDArray[np.uint8]) -> Moments:
    """Measure what moment matching needs of the training split N x H x W x C, in one pass."""
    count, chunk = len(images), chunk_length(images)
    mean = torch.zeros((), dtype=torch.float64)
    squares = [0.0] * (process.K + 1)
    for start in range(0, count, chunk):
        parts = process.components(to_float(images[start : start + chunk], torch.device("cpu")), 0)
        squares = [sum_ + float(part.double().square().sum()) for sum_, part in zip(squares, parts, strict=True)]
        mean = mean + parts[-1].double().sum(0) / count
    sides = [*process.ladder, 0]
    channels = images.shape[-1]
    coordinates = [channels * (finer**2 - coarser**2) for finer, coarser in pairwise(sides)]
    power = [total / count / size for total, size in zip(squares, coordinates, strict=True)]
    power[-1] -= float(mean.square().mean())
    return Moments(mean, tuple(max(value, 0.0) for value in power))


def chunk_length(images: npt.NDArray[np.uint8]) -> int:
    """Return how many images hold about 4 million values."""
    return max(1, 2**22 // int(images[0].size))


def shrink(process: Process, level: int) -> float:
    """Return n_l / n_0."""
    return process.ladder[level] / process.ladder[0]


def input_scale(process: Process, like: torch.Tensor, t: Step, level: int, std: float) -> Coefficient:
    """Return about the standard deviation of a kept pixel of x_t: sqrt((lambda[K, t] std n_0 / n_l)^2 + sigma[t]^2)."""
    signal = process.gain(t, level, like)[-1] * (std / shrink(process, level))
    scale: Coefficient = (signal**2 + process.noise_level(t, like) ** 2) ** 0.5
    return scale


def scaled_input(process: Process, x: torch.Tensor, t: Step, level: int, std: float) -> torch.Tensor:
    """Return what the network sees of x_t: scaled to about unit variance."""
    return x / input_scale(process, x, t, level, std)


def target(
    prediction: Prediction, process: Process, x0: torch.Tensor, noise: torch.Tensor, t: Step, level: int
) -> torch.Tensor:
    """Return what the network should say, all tensors on the grid of ``level``.

    eps: the noise; x0: shrink x_0; v: lambda_i noise - sigma shrink x_0 in each component i (Salimans and Ho 2022,
    section 4, with a gain of its own for each component).
    """
    if prediction == "eps":
        return noise
    small = x0 * shrink(process, level)
    if prediction == "x0":
        return small
    return process.combine([(noise, process.gain(t, level, noise))], level) - process.noise_level(t, small) * small


def estimate(
    prediction: Prediction, process: Process, said: torch.Tensor, x: torch.Tensor, t: Step, level: int
) -> torch.Tensor:
    """Return the estimate of x_0 on the grid of ``level`` from what the network said of x_t: ``target`` inverted."""
    small = shrink(process, level)
    if prediction == "x0":
        return said / small
    gains, sigma = process.gain(t, level, x), process.noise_level(t, x)
    if prediction == "eps":
        return process.combine([(x - sigma * said, [1 / gain for gain in gains])], level)
    power = [gain**2 + small * sigma**2 for gain in gains]
    from_state = [gain / p for gain, p in zip(gains, power, strict=True)]
    from_network = [-sigma / p for p in power]
    return process.combine([(x, from_state), (said, from_network)], level)


def clipped(process: Process, x0: torch.Tensor, level: int, limits: DataRange) -> torch.Tensor:
    """Clip an estimate of x_0 to the training data's range, each component by itself, on the grid of its own.

    Clipped as one picture, the noisy estimate of a component that has almost faded would spoil the kept one. So would
    what clipping a component's pixels puts into coarser ones, which is taken away again.
    """
    *details, kept = process.components(x0, level)
    x = kept.clamp(limits.low, limits.high)
    for step in range(process.K - 1, level - 1, -1):
        most = limits.faded[step]
        detail = details[step - level].clamp(-most, most)
        x = detail + process.basis.embed(x - process.basis.project(detail, step), step)
    return x


def loss_weight(
    prediction: Prediction,
    process: Process,
    t: torch.Tensor,
    level: int,
    min_snr: float | None,
    of: Literal["kept", "picture"],
    like: torch.Tensor,
) -> torch.Tensor:
    """Return each image's weight [B, 1, 1, 1] in the loss: min-SNR-gamma (Hang et al. 2023, section 3.4), or 1.

    ``of``: whose signal-to-noise ratio. "kept" is a kept pixel of the level, (lambda[K, t] / (shrink sigma[t]))^2;
    "picture" a pixel of the picture, (lambda[K, t] / sigma[t])^2. Since ``shrink`` makes the mean squared error of what
    a level keeps what it is in the picture, the latter weighs it as level 0, and so DDPM, would at the same step (at
    equal gains, whatever is predicted).
    """
    sigma = process.noise_level(t, like)
    if min_snr is None:
        return torch.ones_like(torch.as_tensor(sigma))
    small = shrink(process, level)
    snr = (process.gain(t, level, like)[-1] / (small * sigma)) ** 2
    of_pixel = snr * small**2 if of == "picture" else snr
    capped = torch.as_tensor(of_pixel).clamp(max=min_snr)
    # By what an error of shrink x_0 is squared and multiplied in the target, x_t being given.
    return capped / {"x0": 1.0, "eps": snr, "v": (sigma * (small * snr + 1.0)) ** 2}[prediction]
