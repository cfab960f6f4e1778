"""At which steps of the process a network is trained, and how often at each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from dvbench.process import Process


@dataclass(frozen=True)
class TrainingTimes:
    """The steps 1..T, each equally often, or each level with a share of its own and within it each step equally often.

    ``ends``: the last step of each level, rising to T. ``shares``: for each level a weight, not all zero, that stands
    to their sum as the level's images to all; None: as its steps to T. Raises ValueError for a number of shares that is
    not that of the levels, and for a level that has steps and no share, or a share and no steps.
    """

    ends: tuple[int, ...]
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.shares is None:
            return
        if len(self.shares) != len(self.ends):
            raise ValueError(f"{len(self.shares)} shares were given for {len(self.ends)} levels: give one for each")
        lengths = [end - start for start, end in pairwise((0, *self.ends))]
        if any((share > 0) != (steps > 0) for share, steps in zip(self.shares, lengths, strict=True)):
            raise ValueError(
                "a level's share must be above 0 where it has steps and 0 where it has none, and the levels have "
                f"{', '.join(map(str, lengths))}"
            )

    @classmethod
    def of(cls, process: Process, shares: Sequence[float] | None) -> TrainingTimes:
        """Return the times of ``process``."""
        return cls((*process.turns, process.T), None if shares is None else tuple(shares))

    def share(self, level: int) -> float:
        """Return the share of the images that ``level`` gets."""
        if self.shares is not None:
            return self.shares[level] / sum(self.shares)
        return (self.ends[level] - (0, *self.ends)[level]) / self.ends[-1]

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Draw the steps [batch] of a batch, evenly spread: quantiles (i + u) / batch, with one draw u.

        Images come in random order, and must, so that which of them meets which step is random too. Even steps estimate
        the loss with less variance than independent ones (Kingma et al. 2021, appendix I.1), and each level gets the
        same number of images in every batch, to within one (exactly, where batch x share is whole): libraries build
        their kernels for a shape once.
        """
        T = self.ends[-1]
        u = torch.rand((), generator=generator, dtype=torch.float64)
        positions = (torch.arange(batch, dtype=torch.float64) + u) * (T / batch)
        if self.shares is not None:
            upto = np.cumsum((0.0, *self.shares)) / sum(self.shares)
            positions = torch.from_numpy(np.interp(positions.numpy() / T, upto, (0, *self.ends)))
        return positions.long().clamp(max=T - 1) + 1
