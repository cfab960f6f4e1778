"""A basis learned from the training split: patch-wise principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dvbench.api import Basis
from dvbench.builtin.bases import lowpass

CPU = torch.device("cpu")


class Pca(Basis):
    """Keeps, of every ``patch`` x ``patch`` x channels block, its leading principal components (the KLT).

    A drop from n to n' keeps q = patch n' / n of ``patch`` on each side: channels q^2 components a block, the leading
    eigenvectors of the blocks' second moments, which is what loses the least energy (Karhunen-Loeve). They are turned
    within the space they span to lie as near as can be to low frequencies (orthogonal Procrustes; Schoenemann 1966), so
    that the coarse grid looks like the picture and depends on that space alone, not on signs or order of eigenvectors.
    Before ``fit`` they are those low frequencies.
    """

    def __init__(self, ladder: Sequence[int], channels: int, patch: int = 4) -> None:
        super().__init__(ladder, channels)
        self.patch = patch
        self.rows: list[torch.Tensor] = []
        for finer, coarser in zip(self.ladder, self.ladder[1:], strict=False):
            if patch < 2 or finer % patch or patch * coarser % finer:
                raise ValueError(
                    f"patches of {patch} px do not suit a drop from {finer} to {coarser}: the finer side must be a "
                    "multiple of the patch and the patch must shrink to a whole number of pixels (--set basis.patch=N)"
                )
            self.rows.append(self._low(patch * coarser // finer))

    def _low(self, kept: int) -> torch.Tensor:
        """Return the low frequencies of a block, [channels kept^2, channels patch^2], float64."""
        axis = lowpass(self.patch, kept, torch.float64, CPU)
        return torch.kron(torch.eye(self.channels, dtype=torch.float64), torch.kron(axis, axis))

    def fit(self, images: torch.Tensor) -> None:
        """Learn from images [N, C, n_0, n_0], float in [-1, 1], level by level."""
        x = images
        for level, low in enumerate(self.rows):
            blocks = self._blocks(x, self.patch).reshape(-1, low.shape[1]).double()
            _, vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks))
            leading = vectors[:, -len(low) :]
            left, _, right = torch.linalg.svd(leading.T @ low.T, full_matrices=False)
            self.rows[level] = (leading @ left @ right).T.contiguous()
            x = self.project(x, level)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what was learned."""
        return {f"rows.{level}": rows for level, rows in enumerate(self.rows)}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what another instance of the same ladder has learned."""
        self.rows = [state[f"rows.{level}"] for level in range(len(self.rows))]

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n, n] to [B, C, n', n'], block by block."""
        rows = self.rows[level].to(x.dtype).to(x.device)
        return self._grid(self._blocks(x, self.patch) @ rows.T)

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n', n'] to [B, C, n, n], block by block."""
        rows = self.rows[level].to(y.dtype).to(y.device)
        kept = self.patch * self.ladder[level + 1] // self.ladder[level]
        return self._grid(self._blocks(y, kept) @ rows)

    def _blocks(self, x: torch.Tensor, side: int) -> torch.Tensor:
        """Cut [B, C, n, n] into blocks [B, n / side, n / side, C side side]."""
        batch, channels, n, _ = x.shape
        cut = x.reshape(batch, channels, n // side, side, n // side, side)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, n // side, n // side, -1)

    def _grid(self, blocks: torch.Tensor) -> torch.Tensor:
        """Put blocks [B, m, m, C side side] together again: [B, C, m side, m side]."""
        batch, m, _, size = blocks.shape
        side = round((size // self.channels) ** 0.5)
        cut = blocks.reshape(batch, m, m, self.channels, side, side)
        return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, self.channels, m * side, m * side)
