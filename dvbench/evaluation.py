"""What a run's samples and network are worth: distances to the held-out split, and FLOPs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dvbench.api import Detector
from dvbench.backbone import Backbone
from dvbench.measure import distance, flops
from dvbench.process import Process
from dvbench.randomness import seed_of

Images = npt.NDArray[np.uint8]

# The gradient with respect to the weights and that with respect to the activations each cost one forward pass.
TRAINING_PASSES = 3


def distances(detector: Detector, samples: Images, train: Images, held_out: Images, seed: int) -> list[dict[str, Any]]:
    """Measure FD and KID between samples and the held-out split, each with its floor.

    The floor is the same distance of as many training images, drawn by ``seed``: what a perfect sampler would reach at
    this count, null where there are too few. FD from clean-fid's InceptionV3 is called fid (Heusel et al. 2017; Parmar
    et al. 2022), from any other detector fd.
    """
    count = len(samples)
    wanted, said = detector(held_out), detector(samples)
    real = None
    if len(train) >= count:
        chosen = np.random.default_rng(seed_of(seed, "floor")).choice(len(train), count, replace=False)
        real = detector(train[np.sort(chosen)])
    reference = distance.moments(wanted)
    shared = {
        "low": None,
        "high": None,
        "n": count,
        "detector": f"{detector.name} {detector.version}",
        "detector_hash": detector.weights_hash,
        "reference": f"held-out split, {len(held_out)} images",
        "reference_hash": hashlib.sha256(np.ascontiguousarray(held_out).data).hexdigest(),
        "resize": detector.resize,
        "higher_is_better": False,
    }

    def frechet(features: npt.NDArray[Any]) -> float:
        return distance.frechet_distance(*distance.moments(features), *reference)

    def kernel(features: npt.NDArray[Any]) -> float:
        return distance.kernel_distance(features, wanted)

    measured = {"fid" if detector.name == "inception" else "fd": frechet, "kid": kernel}
    return [
        {"name": name, "value": of(said), **shared, "floor": None if real is None else of(real)}
        for name, of in measured.items()
    ]


def network_cost(network: Backbone, process: Process, steps: int, device: torch.device) -> dict[str, Any]:
    """Count the FLOPs of one image: a forward pass at each level, and a sample of ``steps`` network calls."""
    passes = []
    for level, side in enumerate(process.ladder):
        x = torch.zeros(1, network.channels, side, side, device=device)
        passes.append(flops.count(network, x, torch.ones(1, device=device), level=level))
    forward = [cost.flops for cost in passes]
    calls = process.steps_per_level(steps)
    return {
        "params": flops.params(network),
        "flops_per_mac": flops.FLOPS_PER_MAC,
        "uncounted_ops": sorted({name for cost in passes for name in cost.uncounted_ops}),
        "forward_flops": forward,
        "steps_per_level": calls,
        "sample_flops": sum(each * count for each, count in zip(forward, calls, strict=True)),
    }


def training_flops(forward: list[float], images_per_level: list[int]) -> float | None:
    """Return the FLOPs of one training image, over the levels at which images were really seen; None without any."""
    seen = sum(images_per_level)
    if not seen:
        return None
    return TRAINING_PASSES * sum(each * count for each, count in zip(forward, images_per_level, strict=True)) / seen
