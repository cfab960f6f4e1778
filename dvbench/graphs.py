"""A network's work on a GPU recorded once and then asked for as one: a CUDA graph for each shape.

A network is hundreds of kernels. A GPU runs those of a low level faster than a program can ask for them, so that what
dropping dimensions saves would not be seen on the clock. What cannot be recorded is called as it is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias
from weakref import WeakMethod

import torch
from torch import nn

from dvbench.backbone import Backbone
from dvbench.memory import ran_out

logger = logging.getLogger(__name__)

Given: TypeAlias = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
Autocast: TypeAlias = Callable[[], AbstractContextManager[Any]]

# Calls before what a call does is recorded: libraries choose kernels and take memory in the first.
CALLS_BEFORE = 3


def can_record(device: torch.device, network: Backbone) -> bool:
    """Tell whether ``device`` can record and ``network`` be recorded."""
    return device.type == "cuda" and network.recordable


def recorded(network: Backbone) -> None:
    """Let ``network``, which no longer learns, be recorded at its first call with each level and shape.

    What it returns is overwritten by its next call.
    """
    held = vars(network)  # of this object alone; hooks stay outside
    compiled = held.get("forward")
    # With its own method the network would hold itself, and so the memory of its graphs.
    held["forward"] = Recorded(WeakMethod(network.forward) if compiled is None else lambda: compiled)


class Recorder:
    """Keeps what to call in place of what was recorded. All share their memory: one is done before another runs."""

    def __init__(self) -> None:
        self.replays: dict[Any, Callable[..., Any]] = {}
        self.refused = False
        self.pool: Any = None

    def _memory(self) -> Any:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        return self.pool

    def _refuse(self, error: RuntimeError) -> None:
        """Record nothing more."""
        self.refused = True
        said = " ".join(str(error).split())
        logger.warning(
            "the GPU cannot record the network and is asked for each of its kernels, which takes longer (%s)",
            said[:200],
        )


class Recorded(Recorder):
    """The graphs of what ``forward`` returns, one for each level and shape."""

    def __init__(self, forward: Callable[[], Any]) -> None:
        super().__init__()
        self.forward = forward

    def __call__(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Do what ``forward`` does."""
        key = (level, x.shape)
        if key not in self.replays and not self.refused:
            try:
                self.replays[key] = self._record(x, t, level)
            except RuntimeError as error:
                if ran_out(error):  # fewer images may be recorded yet
                    self.replays.clear()
                    raise
                self._refuse(error)
        said: torch.Tensor = self.replays[key](x, t) if key in self.replays else self.forward()(x, t, level)
        return said

    def _record(self, x: torch.Tensor, t: torch.Tensor, level: int) -> Callable[..., torch.Tensor]:
        given, graph = (x.clone(), t.clone()), torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(CALLS_BEFORE):
                self.forward()(*given, level)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph, pool=self._memory()):
            said: torch.Tensor = self.forward()(*given, level)

        def replay(*values: torch.Tensor) -> torch.Tensor:
            for place, value in zip(given, values, strict=True):
                place.copy_(value)
            graph.replay()
            return said

        return replay


class Passes(Recorder):
    """``network.at_levels`` in training, there and back: recorded for each division of ``whole`` images among levels.

    ``autocast``: a factory of the context in which the network runs, there and not back. A recording has one place for
    its gradient: that of a batch in parts, added up, would be overwritten meanwhile.
    """

    def __init__(self, network: Backbone, autocast: Autocast) -> None:
        super().__init__()
        self.network, self.autocast = network, autocast
        self.whole = 0

    def __call__(self, given: Given) -> dict[int, torch.Tensor]:
        """Do what ``at_levels`` does."""
        sizes = tuple((level, len(x)) for level, (x, _) in given.items())
        whole = sum(images for _, images in sizes) == self.whole
        if whole and sizes not in self.replays and not self.refused:
            try:
                self.replays[sizes] = self._record(given)
            except RuntimeError as error:
                self.replays.clear()  # and their memory let go: without them there is enough, or batches are split
                self._refuse(error)
        if sizes not in self.replays:
            with self.autocast():
                return self.network.at_levels(given)
        return dict(zip(given, self.replays[sizes](*_flat(given)), strict=True))

    def _record(self, given: Given) -> Callable[..., Any]:
        values = tuple(value.clone() for value in _flat(given))
        with warnings.catch_warnings():
            # Said of the calls before the recording, which are made on a stream of their own.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            function = AtLevels(self.network, tuple(given), self.autocast)
            made: Callable[..., Any] = torch.cuda.make_graphed_callables(
                function, values, CALLS_BEFORE, allow_unused_input=True, pool=self._memory()
            )
        return made


class AtLevels(nn.Module):
    """``network.at_levels`` under ``autocast``, a function of tensors alone: x and t of each of ``levels`` in turn."""

    def __init__(self, network: Backbone, levels: tuple[int, ...], autocast: Autocast) -> None:
        super().__init__()
        self.network, self.levels, self.autocast = network, levels, autocast

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what the network says at each level."""
        given = dict(zip(self.levels, zip(values[::2], values[1::2], strict=True), strict=True))
        with self.autocast():
            said = self.network.at_levels(given)
        return tuple(said[level] for level in self.levels)


def _flat(given: Given) -> tuple[torch.Tensor, ...]:
    return tuple(value for pair in given.values() for value in pair)
