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
    """The steps first..T, equally often, or each level with a share of its own and within it each step equally often.

    ``ends``: the last step of each level, rising to T. ``shares``: for each level a weight, not all zero, that stands
    to their sum as the level's images to all; None: as its steps to all. Raises ValueError for a first step that leaves
    the first level none, for a number of shares that is not that of the levels, and for a level that has steps and no
    share, or a share and no steps.
    """

    ends: tuple[int, ...]
    shares: tuple[float, ...] | None = None
    first: int = 1

    def __post_init__(self) -> None:
        if self.first > self.ends[0]:
            raise ValueError(
                "training.least_t: no step of the first level would be trained: lower it to at most "
                f"{self.ends[0] / self.ends[-1]:g}, where that level ends"
            )
        if self.shares is None:
            return
        if len(self.shares) != len(self.ends):
            raise ValueError(
                f"training.shares: {len(self.shares)} shares were given for {len(self.ends)} levels: give one for each"
            )
        lengths = [end - start for start, end in pairwise(self._edges)]
        if any((share > 0) != (steps > 0) for share, steps in zip(self.shares, lengths, strict=True)):
            raise ValueError(
                "training.shares: a level's share must be above 0 where it has steps and 0 where it has none, "
                f"and the levels have {', '.join(map(str, lengths))}"
            )

    @classmethod
    def of(cls, process: Process, shares: Sequence[float] | None, least_t: float) -> TrainingTimes:
        """Return the times of ``process`` from ``least_t`` T."""
        ends = (*process.turns, process.T)
        return cls(ends, None if shares is None else tuple(shares), max(1, round(least_t * process.T)))

    @property
    def _edges(self) -> tuple[int, ...]:
        """The step before each level's first, and T."""
        return (self.first - 1, *self.ends)

    def share(self, level: int) -> float:
        """Return the share of the images that ``level`` gets."""
        if self.shares is not None:
            return self.shares[level] / sum(self.shares)
        return (self.ends[level] - self._edges[level]) / (self.ends[-1] - self._edges[0])

    def groups(self, batch: int) -> set[tuple[int, ...]]:
        """Return the numbers of images at each level that ``draw`` can give a batch."""
        upto = np.round(batch * np.cumsum([self.share(level) for level in range(len(self.ends))]), 9)
        # Those up to a level change where u passes the fraction of what they are on average.
        changes = np.unique([0.0, *upto % 1, 1.0])
        return {
            tuple(np.diff(np.ceil(upto - u), prepend=0).astype(int).tolist()) for u in (changes[:-1] + changes[1:]) / 2
        }

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Draw the steps [batch] of a batch, evenly spread: quantiles (i + u) / batch, with one draw u.

        Images come in random order, and must, so that which of them meets which step is random too. Even steps estimate
        the loss with less variance than independent ones (Kingma et al. 2021, appendix I.1), and each level gets the
        same number of images in every batch, to within one (exactly, where batch x share is whole): libraries build
        their kernels for a shape once.
        """
        before, T = self._edges[0], self.ends[-1]
        u = torch.rand((), generator=generator, dtype=torch.float64)
        positions = (torch.arange(batch, dtype=torch.float64) + u) * ((T - before) / batch) + before
        if self.shares is not None:
            upto = np.cumsum((0.0, *self.shares)) / sum(self.shares)
            positions = torch.from_numpy(np.interp((positions.numpy() - before) / (T - before), upto, self._edges))
        return positions.long().clamp(max=T - 1) + 1
