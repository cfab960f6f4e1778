"""U-Nets of three libraries, built to the same stages and widths, and one pass of each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode

from dvbench.drawing import for_drawing
from dvbench.environment import autocast, memory_order, tf32
from dvbench.registry import registry

BATCH = 64
WIDTHS = {"cpu": 32, "cuda": 128}  # of the first of three stages; the others are twice as wide
OURS = "dvbench unet"
COMPARED = ("diffusers", "denoising-diffusion-pytorch")
Call: TypeAlias = Callable[[], Any]


def forward(call: Call, device: torch.device, precision: str) -> None:
    """Call a network as one draws with it."""
    with torch.inference_mode(), tf32(device), autocast(device, precision)():
        call()


def step(network: torch.nn.Module, call: Call, device: torch.device, precision: str) -> None:
    """Call a network as one trains it, and take its gradient."""
    with tf32(device):
        with autocast(device, precision)():
            said: torch.Tensor = call()
        said.float().square().mean().backward()
    network.zero_grad()


def one_pass(mode: str, network: torch.nn.Module, call: Call, device: torch.device, precision: str) -> Call:
    """Return what is timed: one ``forward`` or one ``step`` of a network."""
    if mode == "forward":
        return partial(forward, call, device, precision)
    return partial(step, network, call, device, precision)


def inputs(side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images [64, 3, side, side] and times [64]."""
    return torch.randn(BATCH, 3, side, side, device=device), torch.rand(BATCH, device=device)


def unets(side: int, device: torch.device, precision: str, *, drawing: bool) -> dict[str, tuple[torch.nn.Module, Call]]:
    """Return each network with a call of it."""
    ladder, width = (side, side // 2, side // 4), WIDTHS[device.type]
    ours = registry().load("backbone", "unet")(ladder, 3, width=width).to(device)
    ours = for_drawing(ours, precision) if drawing else ours.to(memory_format=memory_order(device))
    theirs, phil = _diffusers(side, width).to(device), _phil(width).to(device)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    images, times = inputs(side, device)
    lower = {f"{OURS}, level {level}": (ours, partial(ours, *inputs(ladder[level], device), level)) for level in (1, 2)}
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


def _diffusers(side: int, width: int) -> torch.nn.Module:
    from diffusers import UNet2DModel

    attend = side // 4 == 8
    network: torch.nn.Module = UNet2DModel(
        sample_size=side,
        layers_per_block=1,
        block_out_channels=(width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D" if attend else "DownBlock2D"),
        up_block_types=("AttnUpBlock2D" if attend else "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=width // 4,
        attention_head_dim=2 * width,
    )
    return network


def _phil(width: int) -> torch.nn.Module:
    from denoising_diffusion_pytorch import Unet

    network: torch.nn.Module = Unet(dim=width, dim_mults=(1, 2, 2), full_attn=(False, False, True))
    return network
