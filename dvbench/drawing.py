"""Draws the samples of a network, batch by batch, each timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dvbench.backbone import Backbone
from dvbench.compilation import compiled, copied
from dvbench.environment import DTYPES, autocast
from dvbench.graphs import can_record, recorded
from dvbench.guard import NotFiniteError
from dvbench.measure.clock import LevelClock
from dvbench.memory import halved, release
from dvbench.prediction import DataRange, data_moments
from dvbench.process import Process
from dvbench.sampling import Denoiser, draw
from dvbench.setup import Parts

Images: TypeAlias = npt.NDArray[np.uint8]


class Drawing:
    """Draws what ``network`` makes of the process of ``parts``; ``denoiser.before_call`` precedes each network call.

    ``compiles``: the network is compiled. ``say`` is told where the device's memory makes batches smaller.
    """

    def __init__(
        self,
        parts: Parts,
        network: Backbone,
        limits: DataRange,
        say: Callable[[str], object] = lambda _said: None,
        *,
        compiles: bool = False,
    ) -> None:
        self.parts, self.say = parts, say
        config = parts.config
        self.batch = config.sampling.batch
        # What is not trained, the perfect network, knows every step.
        trained_from = 0.0 if next(network.parameters(), None) is None else config.training.least_t
        network = for_drawing(network, config.precision, compiles=compiles)
        self.denoiser = Denoiser(
            network,
            matched(parts),
            config.prediction,
            limits,
            autocast(parts.device, config.precision),
            LevelClock(parts.device),
            round(max(config.sampling.least_t, trained_from) * parts.process.T),
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
        denoiser.clock.network.take()

    def batches(
        self, count: int, done: int = 0, before: Callable[[range], object] = lambda _indices: None
    ) -> Iterator[tuple[Images, dict[str, Any]]]:
        """Draw the samples ``done``..``count`` - 1 and yield each batch as ``draw`` returns it.

        Each batch is announced to ``before``. Where the device runs out of memory, the batch is halved: a sample does
        not depend on which others it is drawn with. Raises WorkError where there is too little for one image.
        """
        warm = 0  # images that the last warm-up had
        while done < count:
            indices = range(done, min(done + self.batch, count))
            try:
                if len(indices) != warm:  # the last batch may be smaller
                    self.warm_up(len(indices))
                before(indices)
                drawn = self.draw(indices)
            except (RuntimeError, MemoryError) as error:
                self.batch = halved(len(indices), error)
            else:
                warm, done = len(indices), indices.stop
                yield drawn
                continue
            # Only here, where the error no longer holds what filled the memory, is there any to try again with.
            warm = 0
            release(self.parts.device)
            self.say(f"out of memory drawing {len(indices)} images at a time: going on with {self.batch}")

    def draw(self, indices: Sequence[int]) -> tuple[Images, dict[str, Any]]:
        """Draw the samples with these indices, N x H x W x C.

        What they cost comes with them: the ``seconds`` in all, those at each of the ``levels``, and the part of them
        that the ``network`` took.
        """
        started = time.perf_counter()
        images = self._drawn(indices)
        seconds = time.perf_counter() - started
        clock = self.denoiser.clock
        levels = [clock.seconds.get(level, 0.0) for level in range(self.parts.process.K + 1)]
        clock.seconds.clear()
        return images, {"seconds": seconds, "levels": levels, "network": clock.network.take()}

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


def for_drawing(network: Backbone, precision: str, *, compiles: bool = False) -> Backbone:
    """Return a copy of ``network`` that only draws: weights channels last, and what each call would cast cast once.

    What is cast is a castable network's. On a GPU what a recordable one does is recorded. A network without parameters
    has nothing to gain: it is returned itself.
    """
    first = next(network.parameters(), None)
    if first is None:
        return network.eval()
    network = copied(network).eval().requires_grad_(requires_grad=False)
    network.to(memory_format=torch.channels_last)
    for module in network.modules() if network.castable and precision != "fp32" else ():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            module.to(DTYPES[precision])
    if compiles:
        compiled(network)
    if can_record(first.device, network):
        recorded(network)
    return network


def matched(parts: Parts) -> Process:
    """Return the process with its start and jumps as the configuration asks."""
    start, jump = parts.config.start == "matched", parts.config.jump == "matched"
    if not (start or jump):
        return parts.process
    return parts.process.matching(data_moments(parts.process, parts.dataset.train), start=start, jump=jump)
