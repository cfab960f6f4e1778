"""Bases whose maps are fixed: identity, haar, dct."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from dvbench.api import Basis


class Identity(Basis):
    """No levels: the process is DDPM (Ho et al. 2020). It keeps the ladder's first side."""

    @classmethod
    def usable(cls, ladder: Sequence[int]) -> tuple[int, ...]:
        """Keep the first side only."""
        return (ladder[0],)

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Refuse: there is no level below."""
        raise ValueError(f"the identity basis has no level below {level}")

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Refuse: there is no level below."""
        raise ValueError(f"the identity basis has no level below {level}")


class Haar(Basis):
    """Block averages times the block's side, the low-pass of the Haar wavelet: the kept images are block-constant."""

    def __init__(self, ladder: Sequence[int], channels: int) -> None:
        super().__init__(ladder, channels)
        self.factors = [finer // coarser for finer, coarser in zip(self.ladder, self.ladder[1:], strict=False)]
        for finer, coarser, factor in zip(self.ladder, self.ladder[1:], self.factors, strict=False):
            if coarser * factor != finer or factor & (factor - 1):
                raise ValueError(
                    f"each side must halve, once or more, and {finer} to {coarser} does not: dct takes any"
                )

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n, n] to [B, C, n / f, n / f]."""
        return F.avg_pool2d(x, self.factors[level]) * self.factors[level]

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n / f, n / f] to [B, C, n, n]."""
        factor = self.factors[level]
        return (y / factor).repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)


class Dct(Basis):
    """The low n' of n orthonormal DCT-II coefficients on each axis, as pixels of an n' x n' grid: any n' < n works.

    With D_n the DCT-II matrix (Ahmed et al. 1974), one axis is mapped by P = D_n'^T [I 0] D_n, whose rows are
    orthonormal since those of D_n are.
    """

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n, n] to [B, C, n', n'] by P x P^T."""
        p = lowpass(self.ladder[level], self.ladder[level + 1], x.dtype, x.device)
        return p @ (x @ p.T)

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n', n'] to [B, C, n, n] by P^T y P."""
        p = lowpass(self.ladder[level], self.ladder[level + 1], y.dtype, y.device)
        return p.T @ (y @ p)


@functools.cache
def lowpass(n: int, kept: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return P [kept, n], computed in float64."""
    with torch.inference_mode(mode=False):  # what sampling puts into the cache serves training too
        matrix: torch.Tensor = dct_matrix(kept).T @ dct_matrix(n)[:kept]
        return matrix.to(dtype).to(device)


def dct_matrix(n: int) -> torch.Tensor:
    """Return the orthonormal DCT-II matrix [n, n], float64: row k is sqrt(2 / n) cos(pi (j + 1/2) k / n)."""
    position = torch.arange(n, dtype=torch.float64) + 0.5
    frequency = torch.arange(n, dtype=torch.float64)[:, None]
    matrix: torch.Tensor = (2 / n) ** 0.5 * torch.cos(torch.pi / n * frequency * position)
    matrix[0] /= 2**0.5
    return matrix
