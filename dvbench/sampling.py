"""Draws images: a Sampler drives a network, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dvbench.api import Sampler
from dvbench.backbone import Backbone
from dvbench.environment import tf32
from dvbench.measure.clock import LevelClock
from dvbench.prediction import DataRange, Prediction, clipped, estimate, scaled_input, to_uint8
from dvbench.process import Process
from dvbench.randomness import SampleNoise


class Denoiser:
    """The network as a sampler sees it: x_t in, a clipped estimate of x_0 out. It times each level.

    ``least``: the least step that the network is told, or its level's last where that comes before. What is drawn has
    the network's own errors beside the noise; told of a later step, with more noise, it takes more of them away (Li et
    al. 2024, "Alleviating exposure bias in diffusion models through sampling with shifted time steps").
    """

    def __init__(
        self,
        network: Backbone,
        process: Process,
        prediction: Prediction,
        limits: DataRange,
        autocast: Callable[[], AbstractContextManager[Any]],
        clock: LevelClock,
        least: int = 0,
    ) -> None:
        self.network, self.process, self.prediction, self.limits = network, process, prediction, limits
        self.autocast, self.clock, self.least = autocast, clock, least
        self.before_call: Callable[[], object] = lambda: None

    def __call__(self, x: torch.Tensor, t: int, level: int) -> torch.Tensor:
        """Estimate x_0 on the grid of ``level`` from x [B, C, n_l, n_l] at step ``t``."""
        self.before_call()
        self.clock.enter(level)
        t = self.told(t, level)
        with tf32(x.device), self.autocast(), self.clock.network.running():
            said = self.network(*self._asked(x, t, level))
        x0 = estimate(self.prediction, self.process, said.to(x.dtype), x, t, level)
        return x0 if self.network.exact else clipped(self.process, x0, level, self.limits)

    def uncertainty(self, x: torch.Tensor, t: int, level: int) -> list[torch.Tensor]:
        """Return the variance of a coordinate of each component ``level``..K of x_0 given x_t, [B, 1, 1, 1] each."""
        self.clock.enter(level)
        t = self.told(t, level)
        with self.clock.network.running():
            # Only a sampler of a network that has it asks; a module's attributes have no better type.
            variances: torch.Tensor = self.network.uncertainty(*self._asked(x, t, level))  # type: ignore[operator]
        return [variance.to(x.dtype).view(-1, 1, 1, 1) for variance in variances.unbind(dim=1)]

    def told(self, t: int, level: int) -> int:
        """Return the step that the network is told at step ``t``: one it was trained for at this level."""
        return max(t, min(self.least, (*self.process.turns, self.process.T)[level]))

    def _asked(self, x: torch.Tensor, t: int, level: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return what the network is called with."""
        times = torch.full((len(x),), t / self.process.T, device=x.device)
        return scaled_input(self.process, x, t, level, self.limits.std), times, level


@torch.inference_mode()
def draw(
    sampler: Sampler, denoiser: Denoiser, steps: int, seed: int, indices: Sequence[int], device: torch.device
) -> npt.NDArray[np.uint8]:
    """Draw the samples with these ``indices``: uint8, N x H x W x C."""
    process = denoiser.process
    noise = SampleNoise(seed, indices, process.ladder, denoiser.network.channels, device)
    images = to_uint8(sampler.sample(denoiser, process, noise, steps))
    denoiser.clock.stop()
    return images
