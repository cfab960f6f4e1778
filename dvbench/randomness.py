"""Random generators, each from the seed and a name of its own, so that no draw depends on another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from dvbench.memory import sent

# Values for which a thread is worth its start.
WORTH_A_THREAD = 2**17


def seed_of(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for what ``names`` say, independent for different names."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, name: str, device: torch.device | None = None) -> torch.Generator:
    """Return a seeded generator on ``device`` (the CPU where none is given)."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(seed_of(seed, name))


def order_of_epoch(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Return the order [count] in which an epoch shows the training images."""
    return np.random.default_rng(seed_of(seed, "order", epoch)).permutation(count)


def default_generators(device: torch.device) -> dict[str, torch.Generator]:
    """Return those from which a network on ``device`` draws by itself: dropout, and whatever a plugin draws."""
    held = {"torch": torch.default_generator}
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        held["cuda"] = torch.cuda.default_generators[number]
    elif device.type == "mps":
        held["mps"] = torch.mps._get_default_mps_generator()  # noqa: SLF001 - only its state has a public name
    return held


class SampleNoise:
    """White noise for a batch of samples, each image of which draws from a generator of its own.

    So a sample's noise depends on the seed and its index alone: not on the batch it is drawn in, nor on where a run
    was interrupted. Calling it with a level returns [B, C, n_l, n_l], float32.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], ladder: Sequence[int], channels: int, device: torch.device
    ) -> None:
        # Always on the CPU: the same noise on every device.
        self.generators = [torch.Generator().manual_seed(seed_of(seed, "sample", index)) for index in indices]
        self.ladder, self.channels, self.device = ladder, channels, device
        # One core alone would take longer over the noise of pictures than a GPU over the pictures.
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __call__(self, level: int) -> torch.Tensor:
        """Draw the next noise on the grid of ``level``."""
        side = self.ladder[level]
        with torch.inference_mode(mode=False):  # which other threads are not in
            noise = torch.empty(len(self.generators), self.channels, side, side)
        images = list(zip(noise, self.generators, strict=True))
        parts = min(torch.get_num_threads(), noise.numel() // WORTH_A_THREAD)
        if parts < 2:
            _fill(images)
        else:
            list(self._threads.map(_fill, [images[first::parts] for first in range(parts)]))
        return sent(noise, self.device)


def _fill(images: Sequence[tuple[torch.Tensor, torch.Generator]]) -> None:
    """Fill each image with white noise of its generator."""
    for image, generator in images:
        image.normal_(generator=generator)
