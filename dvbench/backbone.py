"""The abstract network. It is an ``nn.Module``, so importing this module imports torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import nn


class Backbone(nn.Module, ABC):
    """One network for all levels.

    A subclass may add ``prepare(process, images, prediction)``, called once before training with the training split
    (uint8, N x H x W x C). A network without parameters is not trained. Raise ValueError, in one sentence, for a
    ladder that the network cannot take.

    ``exact`` says that the network's estimates are those of the data's own distribution, so that clipping them would
    only spoil them. Such a network may add ``uncertainty(x, t, level)``, called as ``forward`` is: the variance of a
    coordinate of each component ``level``..K of x_0 given x_t, [B, K + 1 - level].

    ``recordable`` says that at one level and for one number of images it asks a device for the same work whatever the
    values of x and t, and does nothing else: on a GPU that is then recorded once and replayed.

    ``castable`` says that its convolutions and linear layers all run under the autocast that is about the network, and
    that nothing else uses their weights: for drawing in bf16 or fp16 these are then cast once, and not by each call.
    """

    exact = False
    recordable = False
    castable = False

    def __init__(self, ladder: Sequence[int], channels: int) -> None:
        super().__init__()
        self.ladder = tuple(ladder)
        self.channels = channels

    @abstractmethod
    def forward(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Map x [B, C, n_l, n_l] and t [B] in (0, 1] on the grid of ``level`` to a tensor of x's shape."""

    def at_levels(self, inputs: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> dict[int, torch.Tensor]:
        """Map x [B, C, n_l, n_l] and t [B] of each of several levels, in rising order, to tensors of each x's shape.

        Training asks so for all levels of a batch. A network that shares layers between levels may run these once, on
        the images of all; here each level is a call of its own.
        """
        return {level: self(x, t, level) for level, (x, t) in inputs.items()}
