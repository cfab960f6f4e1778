"""A diffusion transformer as a backbone of dvbench."""

from __future__ import annotations

from dvbench import Plugin, hookimpl


@hookimpl
def dvbench_backbones() -> list[Plugin]:
    """Offer the backbone ``dit``; its module, and with it torch, is imported when it is asked for."""
    return [Plugin("dit", "dvbench_dit.dit:DiT", "diffusion transformer, fewer tokens at lower levels")]
