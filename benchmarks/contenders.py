"""U-Nets of three libraries, built to the same stages and widths, and one pass of each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode

from dvbench.drawing import for_drawing
from dvbench.environment import autocast, memory_order
from dvbench.registry import registry

CPU = torch.device("cpu")
BATCH = 64
OURS = "dvbench unet"
COMPARED = ("diffusers", "denoising-diffusion-pytorch")
Call: TypeAlias = Callable[[], Any]


def forward(call: Call, precision: str = "fp32") -> None:
    """Call a network as one draws with it."""
    with torch.inference_mode(), autocast(CPU, precision)():
        call()


def step(network: torch.nn.Module, call: Call, precision: str = "fp32") -> None:
    """Call a network as one trains it, and take its gradient."""
    with autocast(CPU, precision)():
        said: torch.Tensor = call()
    said.float().square().mean().backward()
    network.zero_grad()


def inputs(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images [64, 3, side, side] and times [64]."""
    return torch.randn(BATCH, 3, side, side), torch.rand(BATCH)


def unets(side: int, precision: str, *, drawing: bool) -> dict[str, tuple[torch.nn.Module, Call]]:
    """Return each network with a call of it."""
    ladder = (side, side // 2, side // 4)
    ours = registry().load("backbone", "unet")(ladder, 3)
    ours = for_drawing(ours, precision) if drawing else ours.to(memory_format=memory_order(CPU))
    theirs, phil = _diffusers(side), _phil()
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    images, times = inputs(side)
    lower = {f"{OURS}, level {level}": (ours, partial(ours, *inputs(ladder[level]), level)) for level in (1, 2)}
    return {
        OURS: (ours, partial(ours, images, times, 0)),
        "diffusers UNet2DModel": (theirs, lambda: theirs(images, 1000 * times).sample),
        "diffusers UNet2DModel, channels last": (last, lambda: last(images, 1000 * times).sample),
        "denoising-diffusion-pytorch Unet": (phil, partial(phil, images, 1000 * times)),
        **lower,
    }


def flops(call: Call) -> int:
    """Return the FLOPs of a forward pass."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _diffusers(side: int) -> torch.nn.Module:
    from diffusers import UNet2DModel

    attend = side // 4 == 8
    network: torch.nn.Module = UNet2DModel(
        sample_size=side,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D" if attend else "DownBlock2D"),
        up_block_types=("AttnUpBlock2D" if attend else "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=64,
    )
    return network


def _phil() -> torch.nn.Module:
    from denoising_diffusion_pytorch import Unet

    network: torch.nn.Module = Unet(dim=32, dim_mults=(1, 2, 2), full_attn=(False, False, True))
    return network
