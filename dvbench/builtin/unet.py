"""A residual U-Net that each level enters and leaves at the stage of its own resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from dvbench.backbone import Backbone
from dvbench.builtin.norm import GroupNorm, as_it_is

Module = TypeVar("Module", bound=nn.Module)


class UNet(Backbone):
    """DDPM's U-Net (Ho et al. 2020, appendix B), with one set of weights for all levels.

    Stage j works at side n_0 / 2^j with ``width`` x ``multipliers``[j] channels, ``blocks`` residual blocks on the way
    down and one more on the way up, and attention in the stages whose sides are in ``attention`` as well as in the
    middle. Level l enters through a convolution of its own and leaves through a head of its own: at the innermost stage
    whose side is at least n_l (``entry`` "own"), and so runs only the inner stages; or at the outermost ("outer"), so
    that the whole network runs at every level, stage j then at side n_l / 2^j. With more than one level an embedding of
    the level is added to that of the time. ``dropout`` is the share of features that training drops in each block.
    With ``skip`` the input is added to what the network says, both weighed by learned functions of the time and the
    level (Karras et al. 2022, table 1, whose weights are fixed): at low noise x_0 is nearly the input, which the stages
    would have to copy.

    With ``nested`` the ways in and out belong to the stages at which levels enter. Each of them that runs also takes in
    the input reduced to its side, and what its head says is added, enlarged, to what the next outer one says: a finer
    level so begins from what the coarser ones have learned of the coarse picture (as in Gu et al. 2023, "Matryoshka
    Diffusion Models", section 3, where each stage predicts the clean picture of its side). Reducing keeps the variance
    of the noise, as projecting on an orthonormal basis does. With one level there is nothing to nest.
    """

    recordable = True
    castable = True

    def __init__(
        self,
        ladder: Sequence[int],
        channels: int,
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attention: tuple[int, ...] = (8,),
        dropout: float = 0.0,
        entry: Literal["own", "outer"] = "own",
        skip: bool = False,
        nested: bool = False,
    ) -> None:
        super().__init__(ladder, channels)
        if width < 1 or blocks < 1 or not multipliers or min(multipliers) < 1 or not 0 <= dropout < 1:
            raise ValueError("width, multipliers and blocks must be at least 1, and dropout from 0 to below 1")
        self.width = width
        self.entry = entries(self.ladder, len(multipliers), entry)
        widths = [width * multiplier for multiplier in multipliers]
        sides = [self.ladder[0] / 2**stage for stage in range(len(widths))]
        features = 4 * width
        self.time = nn.Sequential(nn.Linear(width, features), nn.SiLU(), nn.Linear(features, features))
        self.level = nn.Embedding(len(self.ladder), features) if len(self.ladder) > 1 else None
        if self.level is not None:
            nn.init.zeros_(self.level.weight)  # at first all levels are one
        # What enters stage j has the channels that stage j - 1 hands down.
        entering = [widths[0], *widths[:-1]]
        # The stage of each way in and out, the way of each level, and, nested, the way of each stage that has one.
        ways = sorted(set(self.entry)) if nested else self.entry
        self.way = [ways.index(stage) if nested else level for level, stage in enumerate(self.entry)]
        self.nested = {stage: way for way, stage in enumerate(ways)} if nested else {}
        self.enter = nn.ModuleList(nn.Conv2d(channels, entering[stage], 3, padding=1) for stage in ways)
        self.leave = nn.ModuleList(Head(widths[stage], channels) for stage in ways)
        self.past = nn.ModuleList(silent(nn.Linear(features, 2)) for _ in self.entry) if skip else None
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for stage, out in enumerate(widths):
            attend = sides[stage] in attention
            into = [entering[stage], *[out] * (blocks - 1)]
            self.down.append(nn.ModuleList(Block(size, out, features, dropout, attend) for size in into))
            inner = widths[min(stage + 1, len(widths) - 1)]
            into = [
                size + skip
                for size, skip in zip([inner, *[out] * blocks], [*[out] * blocks, entering[stage]], strict=True)
            ]
            self.up.append(nn.ModuleList(Block(size, out, features, dropout, attend) for size in into))
        self.shrink = nn.ModuleList(nn.Conv2d(size, size, 3, stride=2, padding=1) for size in widths[:-1])
        self.grow = nn.ModuleList(nn.Conv2d(size, size, 3, padding=1) for size in widths[1:])
        self.middle = nn.ModuleList(
            [Block(widths[-1], widths[-1], features, dropout, attend) for attend in (True, False)]
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Map x [B, C, n_l, n_l] and t [B] in (0, 1] to a tensor of x's shape."""
        return self._run({level: (x, t)})[level]

    def at_levels(self, inputs: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> dict[int, torch.Tensor]:
        """Map x and t of each level as ``forward`` does, each stage run once on the images of all that have its side.

        One level's share of a batch is few images, on which a call of a layer costs more than its arithmetic.
        """
        # The side that a level's images would have in the outermost stage.
        outermost = {level: self.ladder[level] << self.entry[level] for level in inputs}
        said: dict[int, torch.Tensor] = {}
        for side in set(outermost.values()):
            said |= self._run({level: given for level, given in inputs.items() if outermost[level] == side})
        return said

    def _run(self, inputs: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> dict[int, torch.Tensor]:
        """Run levels that all have the same side in a stage; images stay in the order of their levels, finest first."""
        levels = {self.entry[level]: level for level in sorted(inputs)}
        images = {stage: inputs[level][0] for stage, level in levels.items()}
        ways = {stage: self.way[level] for stage, level in levels.items()}
        features = self._features({level: inputs[level][1] for level in levels.values()})
        h, skips = self._inwards(images, ways, features)
        for block in self.middle:
            h = block(h, features)
        said = self._outwards(h, skips, {stage: len(x) for stage, x in images.items()}, ways, features)
        if self.past is not None:
            counts = [len(x) for x in images.values()]
            for (stage, x), of_level in zip(images.items(), features.split(counts), strict=True):
                weights = self.past[levels[stage]](of_level)
                of_input, of_said = weights[:, :, None, None, None].unbind(dim=1)
                said[stage] = of_input * x + (1 + of_said) * said[stage]
        return {levels[stage]: told for stage, told in said.items()}

    def _features(self, times: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return what the blocks are told [images, F] of t and the level, for t [B] of each level."""
        features: torch.Tensor = self.time(sinusoids(torch.cat(list(times.values())), self.width))
        if self.level is not None:
            of_level = [self.level.weight[level].expand(len(t), -1) for level, t in times.items()]
            features = features + torch.cat(of_level)
        return F.silu(features)

    def _inwards(
        self, images: Mapping[int, torch.Tensor], ways: Mapping[int, int], features: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return what the innermost stage hands on, and what each stage keeps for the way back.

        ``images`` and ``ways``: of each stage at which some enter.
        """
        first, skips = min(images), []
        x = images[first]
        h = self.enter[ways[first]](x)
        for stage in range(first, len(self.down)):
            if stage > first:
                h = self.shrink[stage - 1](h)
                if self.nested:
                    x = 2 * F.avg_pool2d(x, 2)
                if stage in self.nested:
                    h = h + self.enter[self.nested[stage]](x)
                if stage in images:
                    h = torch.cat([h, self.enter[ways[stage]](images[stage])])
                    x = torch.cat([x, images[stage]]) if self.nested else x
            skips.append(h)
            for block in self.down[stage].children():
                h = block(h, features[: len(h)])
                skips.append(h)
        return h, skips

    def _outwards(
        self,
        h: torch.Tensor,
        skips: list[torch.Tensor],
        counts: Mapping[int, int],
        ways: Mapping[int, int],
        features: torch.Tensor,
    ) -> dict[int, torch.Tensor]:
        """Return what the heads say to those that entered at each stage; ``skips`` are used up."""
        said: dict[int, torch.Tensor] = {}
        inner: torch.Tensor | None = None  # what the stages within say
        for stage in range(len(self.up) - 1, min(counts) - 1, -1):
            for block in self.up[stage].children():
                h = block(torch.cat([h, skips.pop()], dim=1), features[: len(h)])
            staying = len(h) - counts.get(stage, 0)
            if stage in counts:
                told = self.leave[ways[stage]](h[staying:])
                said[stage] = told if inner is None else told + inner[staying:]
            if staying:
                h, inner = h[:staying], None if inner is None else inner[:staying]
                if stage in self.nested:
                    inner = added(self.leave[self.nested[stage]](h), inner)
                inner = None if inner is None else enlarged(inner) / 2
                h = self.grow[stage - 1](enlarged(h))
        return said


def enlarged(x: torch.Tensor) -> torch.Tensor:
    """Return [B, C, n, n] at twice the side."""
    with as_it_is(x):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def added(x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
    """Return the sum, or ``x`` where there is nothing to add."""
    return x if y is None else x + y


def entries(ladder: Sequence[int], stages: int, entry: str) -> list[int]:
    """Return the stage at which each level enters: the innermost whose side is at least the level's, or the outermost.

    Raises ValueError for a side that the stages from there on cannot halve.
    """
    chosen = []
    for side in ladder:
        own = max(stage for stage in range(stages) if ladder[0] / 2**stage >= side)
        stage = own if entry == "own" else 0
        halvings = stages - 1 - stage
        if side % 2**halvings:
            raise ValueError(
                f"its {stages} stages halve side {side} {halvings} times, and {side} is no multiple of "
                f"{2**halvings}: choose other sides for --ladder or fewer --set backbone.multipliers"
            )
        chosen.append(stage)
    return chosen


def sinusoids(t: torch.Tensor, width: int) -> torch.Tensor:
    """Embed t [B] in (0, 1] as sines and cosines of 1000 t [B, width] (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = 1000 * t.float()[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width - 2 * half))


def normal(channels: int) -> GroupNorm:
    """Return group norm with the largest number of groups up to 32 that leaves four channels or more in each."""
    groups = max(g for g in range(1, 33) if channels % g == 0 and (channels // g >= 4 or g == 1))
    return GroupNorm(groups, channels, eps=1e-6)


def silent(module: Module) -> Module:
    """Let a convolution or a linear map start at zero, so that at first it adds nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Head(nn.Module):
    """Norm, SiLU and a convolution that starts at zero: what the network says at one level."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = normal(width)
        self.conv = silent(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map [B, width, n, n] to [B, C, n, n]."""
        said: torch.Tensor = self.conv(F.silu(self.norm(h)))
        return said


class Block(nn.Module):
    """Two convolutions about the time's features, a way past them, and attention where asked."""

    def __init__(self, into: int, out: int, features: int, dropout: float, attend: bool) -> None:
        super().__init__()
        self.norm_in, self.norm_out = normal(into), normal(out)
        self.conv_in = nn.Conv2d(into, out, 3, padding=1)
        self.conv_out = silent(nn.Conv2d(out, out, 3, padding=1))
        self.features = nn.Linear(features, out)
        self.dropout = dropout
        self.past = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        self.attend = Attention(out) if attend else nn.Identity()

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Map [B, into, n, n] and the time's features [B, F] to [B, out, n, n]."""
        h = self.conv_in(F.silu(self.norm_in(x))) + self.features(features)[:, :, None, None]
        h = F.dropout(F.silu(self.norm_out(h)), self.dropout, self.training)
        mixed: torch.Tensor = self.attend(self.past(x) + self.conv_out(h))
        return mixed


class Attention(nn.Module):
    """Self-attention over positions with one head, as a residual that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = normal(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = silent(nn.Conv2d(width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, width, n, n] to the same shape."""
        batch, width, height, side = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, 1, width, height * side).transpose(-1, -2)
        mixed = attended(qkv)
        out: torch.Tensor = self.out(mixed.transpose(-1, -2).reshape(batch, width, height, side))
        return x + out


def attended(qkv: torch.Tensor) -> torch.Tensor:
    """Return what every position takes from all others [B, 1, L, E], for queries, keys and values [B, 3, 1, L, E].

    On a CPU the way back takes several times as long in bf16 as in fp32, which it therefore is computed in.
    """
    slow = qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu" and torch.is_grad_enabled()
    with torch.autocast("cpu", enabled=False) if slow else nullcontext():
        query, key, value = (qkv.float() if slow else qkv).unbind(dim=1)
        return F.scaled_dot_product_attention(query, key, value)
