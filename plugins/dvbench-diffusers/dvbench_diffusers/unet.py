"""diffusers' UNet2DModel at the resolution of every level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d import UNet2DModel  # `diffusers` itself hides its types

from dvbench import Backbone

TIMESTEPS = 1000  # diffusers' networks are made for timesteps up to this


class DiffusersUNet(Backbone):
    """The U-Net of DDPM (Ho et al. 2020) as diffusers builds it, ``UNet2DModel``, one network for all levels.

    Unlike dvbench's ``unet``, whose lower levels run the inner stages only, all of it runs at every level: stage j
    works at side n_l / 2^j. It has ``width`` x ``multipliers``[j] channels, ``blocks`` residual blocks on the way down
    and one more on the way up, and attention where its side at level 0 is in ``attention``; the middle always has it.
    An attention head has ``head_width`` channels (None: there is one head). Every group norm has ``groups`` groups
    (None: as many, up to 32, as leave four or more of the first stage's channels in each).

    diffusers sees t in (0, 1] as the timestep 1000 t, and the level as its class label, whose embedding it adds to
    that of the time; a ladder of one side has no classes. Weights start as diffusers starts them.

    Raises ValueError for a ladder with a side that cannot be halved once between every two stages, and for sizes that
    do not fit together.
    """

    def __init__(
        self,
        ladder: Sequence[int],
        channels: int,
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attention: tuple[int, ...] = (8,),
        head_width: int | None = None,
        groups: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(ladder, channels)
        if min(width, blocks, *multipliers) < 1 or not multipliers or not 0 <= dropout < 1:
            raise ValueError("width, multipliers and blocks must be at least 1, and dropout from 0 to below 1")
        if groups is None:
            groups = max(n for n in range(1, 33) if n == 1 or (width % n == 0 and width >= 4 * n))
        if groups < 1 or width % groups:
            raise ValueError(f"{width} channels do not split into {groups} groups: choose another groups or width")
        widths = [width * multiplier for multiplier in multipliers]
        attends = [self.ladder[0] / 2**stage in attention for stage in range(len(widths))]
        for size in [size for size, attend in zip(widths, attends, strict=True) if attend] + widths[-1:]:
            if head_width is not None and (head_width < 1 or size % head_width):
                raise ValueError(f"{size} channels do not split into heads of {head_width}: choose another head_width")
        halved = 2 ** (len(widths) - 1)
        for side in self.ladder:
            if side % halved:
                raise ValueError(
                    f"its {len(widths)} stages halve side {side} {len(widths) - 1} times, and {side} is no multiple of "
                    f"{halved}: choose other sides for --ladder or fewer --set backbone.multipliers"
                )
        self.unet = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
            block_out_channels=tuple(widths),
            layers_per_block=blocks,
            attention_head_dim=head_width,
            norm_num_groups=groups,
            dropout=dropout,
            num_class_embeds=len(self.ladder) if len(self.ladder) > 1 else None,
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Map x [B, C, n_l, n_l] and t [B] in (0, 1] to a tensor of x's shape."""
        labels = torch.full((len(x),), level, device=x.device) if len(self.ladder) > 1 else None
        said: torch.Tensor = self.unet(x, TIMESTEPS * t, class_labels=labels, return_dict=False)[0]
        return said
