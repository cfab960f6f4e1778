"""Draws the samples of a network, batch by batch, each timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dvbench.backbone import Backbone
from dvbench.environment import autocast
from dvbench.guard import NotFiniteError
from dvbench.measure.clock import LevelClock
from dvbench.prediction import DataRange, data_moments
from dvbench.process import Process
from dvbench.sampling import Denoiser, draw
from dvbench.setup import Parts

Images: TypeAlias = npt.NDArray[np.uint8]


class Drawing:
    """Draws what ``network`` makes of the process of ``parts``; ``denoiser.before_call`` precedes each network call."""

    def __init__(self, parts: Parts, network: Backbone, limits: DataRange) -> None:
        self.parts = parts
        config = parts.config
        self.denoiser = Denoiser(
            network.eval(),
            matched(parts),
            config.prediction,
            limits,
            autocast(parts.device, config.precision),
            LevelClock(parts.device),
        )

    def warm_up(self, batch: int) -> None:
        """Call the network once a level before the clock runs: libraries choose and build their kernels then."""
        denoiser, process = self.denoiser, self.parts.process
        with torch.inference_mode():
            for level, side in enumerate(process.ladder):
                x = torch.zeros(batch, denoiser.network.channels, side, side, device=self.parts.device)
                denoiser(x, process.T, level)
        denoiser.clock.stop()
        denoiser.clock.seconds.clear()

    def draw(self, indices: Sequence[int]) -> tuple[Images, dict[str, Any]]:
        """Draw the samples with these indices, N x H x W x C, and tell the ``seconds``, in all and of each level."""
        started = time.perf_counter()
        images = self._drawn(indices)
        seconds = time.perf_counter() - started
        clock = self.denoiser.clock
        levels = [clock.seconds.get(level, 0.0) for level in range(self.parts.process.K + 1)]
        clock.seconds.clear()
        return images, {"seconds": seconds, "levels": levels}

    def _drawn(self, indices: Sequence[int]) -> Images:
        """Draw; if some values are not finite, once more, to see where that begins."""
        parts = self.parts
        asked = (parts.sampler, self.denoiser, parts.config.sampling.steps, parts.config.seed, indices, parts.device)
        try:
            return draw(*asked)
        except NotFiniteError:
            with parts.guard.search():
                draw(*asked)
            raise


def batches(count: int, batch: int, done: int = 0) -> list[range]:
    """Cut the indices ``done``..``count`` - 1 into batches."""
    return [range(first, min(first + batch, count)) for first in range(done, count, batch)]


def matched(parts: Parts) -> Process:
    """Return the process with its start and jumps as the configuration asks."""
    start, jump = parts.config.start == "matched", parts.config.jump == "matched"
    if not (start or jump):
        return parts.process
    return parts.process.matching(data_moments(parts.process, parts.dataset.train), start=start, jump=jump)
