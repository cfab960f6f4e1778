"""At which steps of the process a network is trained, and how often at each level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from dvbench.process import Process

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class TrainingTimes:
    """The steps 1..T, each equally often, or each level with a share of its own and within it each step equally often.

    ``ends``: the last step of each level, rising to T. ``shares``: for each level a weight, not all zero, that stands
    to their sum as the level's images to all; None: as its steps to T. ``in_turn``: each batch is of one level, which
    then has its share of the batches, and not every batch of all levels.

    Raises ValueError for a number of shares that is not that of the levels, and for a level that has steps and no
    share, or a share and no steps.
    """

    ends: tuple[int, ...]
    shares: tuple[float, ...] | None = None
    in_turn: bool = False

    def __post_init__(self) -> None:
        if self.shares is None:
            return
        if len(self.shares) != len(self.ends):
            raise ValueError(f"{len(self.shares)} shares were given for {len(self.ends)} levels")
        lengths = [end - start for start, end in pairwise((0, *self.ends))]
        if any((share > 0) != (steps > 0) for share, steps in zip(self.shares, lengths, strict=True)):
            raise ValueError(
                "a level's share must be above 0 where it has steps and 0 where it has none, and the levels have "
                f"{', '.join(map(str, lengths))}"
            )

    @classmethod
    def of(cls, process: Process, shares: Sequence[float] | None, *, in_turn: bool = False) -> TrainingTimes:
        """Return the times of ``process``."""
        return cls((*process.turns, process.T), None if shares is None else tuple(shares), in_turn)

    def share(self, level: int) -> float:
        """Return the share of the images that ``level`` gets."""
        if self.shares is not None:
            return self.shares[level] / sum(self.shares)
        return (self.ends[level] - (0, *self.ends)[level]) / self.ends[-1]

    def counts(self, level: int, batch: int) -> set[int]:
        """Return how many images of ``level`` a batch may hold, where any."""
        if self.in_turn:
            return {batch} if self.share(level) else set()
        return {math.floor(batch * self.share(level)), math.ceil(batch * self.share(level))} - {0}

    def draw(self, batch: int, index: int, generator: torch.Generator) -> torch.Tensor:
        """Draw the steps [batch] of batch ``index``, evenly spread: quantiles (i + u) / batch, with one draw u.

        Images come in random order, and must, so that which of them meets which step is random too. Even steps estimate
        the loss with less variance than independent ones (Kingma et al. 2021, appendix I.1), and each level gets the
        same number of images in every batch, to within one (exactly, where batch x share is whole): libraries build
        their kernels for a shape once. In turn, the levels follow the golden ratio's multiples, as even as can be.
        """
        T = self.ends[-1]
        u = torch.rand((), generator=generator, dtype=torch.float64)
        even = torch.arange(batch, dtype=torch.float64) + u
        if self.in_turn:
            level = int(self._level(torch.tensor(index * GOLDEN % 1, dtype=torch.float64)))
            start = (0, *self.ends)[level]
            positions = start + even * ((self.ends[level] - start) / batch)
            return positions.long().clamp(max=self.ends[level] - 1) + 1
        positions = even * (T / batch) if self.shares is None else self._warped(even / batch)
        return positions.long().clamp(max=T - 1) + 1

    def _cumulative(self) -> torch.Tensor:
        """Return the shares of the levels up to and with each [K + 1]."""
        return torch.tensor([self.share(level) for level in range(len(self.ends))], dtype=torch.float64).cumsum(0)

    def _level(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Return the levels at ``quantiles`` in [0, 1)."""
        return torch.searchsorted(self._cumulative(), quantiles, right=True).clamp(max=len(self.ends) - 1)

    def _warped(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Return the positions in [0, T) at ``quantiles`` in [0, 1)."""
        starts = torch.tensor((0, *self.ends[:-1]), dtype=torch.float64)
        widths = torch.tensor(self.ends, dtype=torch.float64) - starts
        shares = self._cumulative().diff(prepend=torch.zeros(1, dtype=torch.float64))
        level = self._level(quantiles)
        inside = ((quantiles - (self._cumulative() - shares)[level]) / shares[level]).clamp(0, 1 - 1e-12)
        return starts[level] + widths[level] * inside
