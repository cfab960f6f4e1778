"""What detectors that are torch networks share: checks, batches, the device."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from dvbench.api import Detector
from dvbench.errors import UsageError

if TYPE_CHECKING:
    from dvbench.api import Features, Images


class NetworkDetector(Detector):
    """Maps images through a ``network``, ``batch`` at a time on ``device``, to ``dimensions`` features each.

    ``weights`` is the file whose SHA-256 names them. UsageError: a batch or a device that cannot be used.
    """

    dimensions: int

    def __init__(self, network: nn.Module, weights: Path, batch: int, device: str) -> None:
        if batch < 1:
            raise UsageError(f"detector.batch must be at least 1, not {batch}")
        try:
            self.network = network.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"detector.device {device!r} cannot be used here: leave it at 'cpu'") from error
        with weights.open("rb") as file:
            self.weights_hash = hashlib.file_digest(file, "sha256").hexdigest()
        self.batch, self.device = batch, device

    def __call__(self, images: Images) -> Features:
        """Map uint8 images [N, H, W, 1 or 3] to float32 features [N, dimensions]. ValueError: other images."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3}:
            raise ValueError(f"{self.name} takes uint8 images N x H x W x 1 or 3, not {images.dtype} {images.shape}")
        features = np.empty((len(images), self.dimensions), np.float32)
        with torch.no_grad():
            for start in range(0, len(images), self.batch):
                part = slice(start, start + self.batch)
                features[part] = self.features(images[part]).cpu().numpy()
        return features

    @abstractmethod
    def features(self, images: Images) -> torch.Tensor:
        """Map one batch to its features [B, dimensions]."""
