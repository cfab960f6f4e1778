"""What a run's samples and network are worth: distances to real images, and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dvbench.api import Dataset, Detector
from dvbench.backbone import Backbone
from dvbench.measure import distance, flops
from dvbench.measure.features import known
from dvbench.process import Process
from dvbench.randomness import seed_of

Images: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[Any]
Json: TypeAlias = dict[str, Any]

# The gradient with respect to the weights and that with respect to the activations each cost one forward pass.
TRAINING_PASSES = 3


@dataclass(frozen=True)
class Reference:
    """A split to hold samples against.

    ``real`` are features of as many real images as there are samples: what a perfect sampler would draw; None where
    there are too few.
    """

    split: str
    name: str
    sha256: str
    features: Floats
    real: Floats | None

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """The mean and the covariance of the features."""
        return distance.moments(self.features)

    def frechet(self, features: Floats) -> float:
        """Return the Frechet distance of ``features`` to those of the split."""
        return distance.frechet_distance(*distance.moments(features), *self.moments)

    def kernel(self, features: Floats) -> float:
        """Return the kernel distance of ``features`` to those of the split."""
        return distance.kernel_distance(features, self.features)


def held_out(detector: Detector, options: Json, dataset: Dataset, count: int, seed: int) -> Reference:
    """Return the held-out split; its real images are ``count`` of the training split, drawn by ``seed``."""
    images = dataset.held_out
    sha256, wanted = known(detector, options, images)
    real = None
    if len(dataset.train) >= count:
        chosen = np.random.default_rng(seed_of(seed, "floor")).choice(len(dataset.train), count, replace=False)
        real = known(detector, options, dataset.train[np.sort(chosen)])[1]
    return Reference("held-out", f"held-out split, {len(images)} images", sha256, wanted, real)


def training(detector: Detector, options: Json, dataset: Dataset, count: int, seed: int) -> Reference:
    """Return the training split, which an exact network redraws; its real images are ``count`` draws from itself."""
    images = dataset.train
    sha256, wanted = known(detector, options, images)
    chosen = np.random.default_rng(seed_of(seed, "redrawn")).choice(len(images), count)
    return Reference("train", f"training split, {len(images)} images", sha256, wanted, wanted[chosen])


def distances(detector: Detector, samples: Images, references: Sequence[Reference]) -> list[Json]:
    """Measure FD and KID between samples and each of ``references``, each with its floor.

    The floor is the same distance of the reference's real images, null without any. FD from clean-fid's InceptionV3
    is called fid (Heusel et al. 2017; Parmar et al. 2022), from any other detector fd.
    """
    said = detector(samples)
    frechet = "fid" if detector.name == "inception" else "fd"
    return [
        {
            "name": name,
            "value": measured(said),
            "low": None,
            "high": None,
            "n": len(samples),
            "detector": f"{detector.name} {detector.version}",
            "detector_hash": detector.weights_hash,
            "reference": reference.name,
            "reference_hash": reference.sha256,
            "resize": detector.resize,
            "higher_is_better": False,
            "split": reference.split,
            "floor": None if reference.real is None else measured(reference.real),
        }
        for reference in references
        for name, measured in ((frechet, reference.frechet), ("kid", reference.kernel))
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
