"""The U-Net of Hugging Face's diffusers as a backbone of dvbench."""

from __future__ import annotations

from dvbench import Plugin, hookimpl


@hookimpl
def dvbench_backbones() -> list[Plugin]:
    """Offer the backbone ``diffusers-unet``; its module, and with it diffusers, is imported when it is asked for."""
    return [Plugin("diffusers-unet", "dvbench_diffusers.unet:DiffusersUNet", "diffusers' UNet2DModel at every level")]
