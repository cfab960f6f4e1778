"""What a network costs before a clock runs: the FLOPs of its passes, of a sample and of a training image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dvbench.backbone import Backbone
from dvbench.measure import flops
from dvbench.measure.operators import FLOPS_PER_MAC
from dvbench.process import Process


def network_cost(network: Backbone, process: Process, steps: int, device: torch.device) -> dict[str, Any]:
    """Count the FLOPs of one image: forward and backward at each level, and a sample of ``steps`` network calls.

    ``network`` is on ``device``, which may be the meta device. Without trainable parameters there is no way back: None.
    """
    passes, backward = [], []
    for level, side in enumerate(process.ladder):
        x, t = torch.zeros(1, network.channels, side, side, device=device), torch.ones(1, device=device)
        passes.append(flops.count(network, x, t, level=level))
        backward.append(flops.backward(network, x, t, level=level))
    forward = [cost.flops for cost in passes]
    calls = process.steps_per_level(steps)
    return {
        "params": flops.params(network),
        "flops_per_mac": FLOPS_PER_MAC,
        "uncounted_ops": sorted({name for cost in passes for name in cost.uncounted_ops}),
        "forward_flops": forward,
        "backward_flops": None if None in backward else backward,
        "steps_per_level": calls,
        "sample_flops": sum(each * count for each, count in zip(forward, calls, strict=True)),
    }


def training_flops(
    forward: Sequence[float], backward: Sequence[float] | None, images_per_level: Sequence[float]
) -> float | None:
    """Return the FLOPs of one training image, over the levels at which images are seen; None without any training."""
    seen = sum(images_per_level)
    if backward is None or not seen:
        return None
    return sum((there + back) * n for there, back, n in zip(forward, backward, images_per_level, strict=True)) / seen
