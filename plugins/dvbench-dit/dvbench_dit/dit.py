"""A transformer over patches that sees fewer of them at lower levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from dvbench import Backbone


class DiT(Backbone):
    """The diffusion transformer DiT with adaLN-Zero (Peebles and Xie 2023), with one set of weights for all levels.

    A picture of side n_l is cut into (n_l / p)^2 patches of side p = ``patch``, whatever the level, so that a level of
    half the side has a quarter of the tokens. ``depth`` blocks follow, each of attention with ``heads`` heads and an
    MLP with ``mlp_ratio`` x ``hidden_size`` units; then each token is mapped back to the pixels of its patch.

    What tells tokens apart is their place in the picture, in the same coordinates at all levels (``centres``), as sines
    and cosines, half of the features for the row and half for the column. What tells levels apart, since a patch of a
    lower level covers more of the picture, is a learned embedding, added to that of the time; with one level there is
    none. The sum sets shift, scale and gate of every block. Gates and the last layer start at zero, so a new network
    says 0.

    Raises ValueError for a ladder with a side that is no multiple of ``patch``, and for sizes that do not fit together.
    """

    def __init__(
        self,
        ladder: Sequence[int],
        channels: int,
        patch: int = 4,
        hidden_size: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__(ladder, channels)
        width = hidden_size
        if min(patch, width, depth, heads) < 1 or mlp_ratio * width < 1:
            raise ValueError("patch, hidden_size, depth, heads and mlp_ratio x hidden_size must be at least 1")
        if width % heads or width % 4:
            raise ValueError(f"a hidden_size of {width} does not split into {heads} heads, or not into 4 waves")
        for side in self.ladder:
            if side % patch:
                raise ValueError(
                    f"patches of side {patch} do not tile side {side}: choose multiples of {patch} for --ladder or "
                    "another --set backbone.patch"
                )
        self.patch = patch
        self.width = width
        self.cut = nn.Conv2d(channels, width, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.level = nn.Embedding(len(self.ladder), width) if len(self.ladder) > 1 else None
        self.blocks = nn.ModuleList(Block(width, heads, int(mlp_ratio * width)) for _ in range(depth))
        self.leave = Modulated(width, 2)
        self.paint = nn.Linear(width, channels * patch**2)
        for level, side in enumerate(self.ladder):
            # They follow from the options: no need to keep them with the weights.
            self.register_buffer(f"places{level}", places(self.ladder[0], side, patch, width), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Set the weights as the paper's authors did; all that shifts, scales, gates or paints starts at zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith(("time", "level")):
                nn.init.normal_(parameter, std=0.02)
            elif name.startswith("paint") or ".map." in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter.flatten(1))  # a view: the cut is a linear map of a patch too

    def forward(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Map x [B, C, n_l, n_l] and t [B] in (0, 1] to a tensor of x's shape."""
        h = self.cut(x).flatten(2).transpose(1, 2) + self.get_buffer(f"places{level}")
        features = self.time(waves(1000 * t.float(), self.width))
        if self.level is not None:
            features = features + self.level.weight[level]
        features = F.silu(features)
        for block in self.blocks:
            h = block(h, features)
        shift, scale = self.leave(features)
        pixels = self.paint(modulate(h, shift, scale))
        # [B, rows x columns, C x p x p] to [B, C, rows x p, columns x p]
        (batch, channels, side, _), p = x.shape, self.patch
        grid = pixels.reshape(batch, side // p, side // p, channels, p, p)
        said: torch.Tensor = grid.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        return said


def centres(finest: int, side: int, patch: int) -> torch.Tensor:
    """Return the centres [n_l / p] along one axis of the patches of a level of side ``side``.

    The unit is a patch of level 0, whose side is ``finest``, and the origin the centre of the first of them: level 0
    has 0, 1, 2, ..., as the paper's positions are, and a level of half the side 0.5, 2.5, 4.5, ..., each in the middle
    of the patches of level 0 that its own covers.
    """
    return (torch.arange(side // patch) + 0.5) * (finest / side) - 0.5


def waves(x: torch.Tensor, width: int) -> torch.Tensor:
    """Map x [...] to its sines and cosines [..., width] at rates that fall from 1 to 1/10,000 (``width`` is even)."""
    half = width // 2
    angles = x[..., None] * 10_000 ** (-torch.arange(half, device=x.device) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def places(finest: int, side: int, patch: int, width: int) -> torch.Tensor:
    """Return the embedded places [(n_l / p)^2, width] of a level's patches, row by row."""
    along = waves(centres(finest, side, patch), width // 2)
    rows, columns = along[:, None].expand(-1, len(along), -1), along.expand(len(along), -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def modulate(h: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Normalise each token of h [B, N, W], then scale and shift it by [B, 1, W]."""
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Modulated(nn.Module):
    """What the features of time and level say to a block's tokens: ``parts`` vectors, all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.map = nn.Linear(width, parts * width)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map features [B, W] to ``parts`` tensors [B, 1, W]."""
        return tuple(self.map(features)[:, None].chunk(self.parts, dim=-1))


class Block(nn.Module):
    """Attention and an MLP, each added through a gate."""

    def __init__(self, width: int, heads: int, units: int) -> None:
        super().__init__()
        self.modulated = Modulated(width, 6)
        self.attend = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, units), nn.GELU(approximate="tanh"), nn.Linear(units, width))

    def forward(self, h: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Map tokens [B, N, W] and features [B, W] to tokens [B, N, W]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulated(features)
        h = h + gate_a * self.attend(modulate(h, shift_a, scale_a))
        mixed: torch.Tensor = h + gate_m * self.mlp(modulate(h, shift_m, scale_m))
        return mixed


class Attention(nn.Module):
    """Self-attention over tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map tokens [B, N, W] to the same shape."""
        batch, tokens, width = h.shape
        query, key, value = (
            part.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(h).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out
