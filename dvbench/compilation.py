"""Compiles a network with torch.compile: one graph for each level and number of images, with static shapes."""

from __future__ import annotations

import copy

import torch

from dvbench.backbone import Backbone
from dvbench.errors import UsageError

# Graphs of a level, at most: full, smaller and remaining batches, of training and drawing, of several runs.
GRAPHS = 16


def check(device: torch.device) -> None:
    """Raise UsageError where torch cannot compile for ``device``, before anything depends on it."""
    try:
        torch.compile(_double)(torch.ones(1, device=device))
    except Exception as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"--compile does not work here ({said[:200]}): install what torch.compile needs, on a CPU a C++ compiler "
            "such as g++, or leave --compile out"
        ) from error


def _double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def compiled(network: Backbone) -> None:
    """Let ``network`` be compiled at its first call with each level and number of images."""
    limit = GRAPHS * len(network.ladder)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)  # noqa: SLF001 - it has no public name
    # A level is a plain number, for which a graph of its own is made. Hooks, which watch plugins, stay outside.
    quick = torch.compile(type(network).forward.__get__(network), dynamic=False)
    # Both of this object alone. A graph is of one level: levels are called one by one.
    vars(network).update(forward=quick, at_levels=Backbone.at_levels.__get__(network))


def copied(network: Backbone) -> Backbone:
    """Return a copy of ``network`` that is not compiled."""
    held = vars(network)
    # They would run the original.
    aside: dict[str, object] = {name: held.pop(name) for name in ("forward", "at_levels") if name in held}
    made = copy.deepcopy(network)
    held.update(aside)
    return made
