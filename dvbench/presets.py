"""Published methods as overrides of any benchmark, each with its paper and with what differs from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dvbench.errors import unknown

BANDS = 8


@dataclass(frozen=True)
class Preset:
    """``overrides`` maps a benchmark's ladder to dotted keys; ``differs`` says what the paper does otherwise."""

    paper: str
    differs: str
    overrides: Callable[[Sequence[int]], dict[str, Any]]


def bands(side: int, count: int = BANDS) -> list[int]:
    """Return up to ``count`` falling sides from ``side`` down, evenly spaced."""
    return sorted({max(1, round(side * step / count)) for step in range(1, count + 1)}, reverse=True)


def _blurring(ladder: Sequence[int]) -> dict[str, Any]:
    sides = bands(ladder[0])
    return {
        "basis.name": "dct",
        "schedule.name": "heat",
        "ladder": sides,
        "schedule.turns": [1.0] * (len(sides) - 1),
        "jump": "sigma",
    }


PRESETS: Mapping[str, Preset] = {
    "ddpm": Preset(
        "Ho, Jain and Abbeel 2020, Denoising Diffusion Probabilistic Models",
        "nothing in the process; network, budget and prediction are the benchmark's",
        lambda _: {"basis.name": "identity"},
    ),
    "dvdp": Preset(
        "Zhang et al. 2023, Dimensionality-Varying Diffusion Process",
        "reconstructed: the paper leaves turning points, attenuation and its path open; the turning points are the "
        "benchmark's, the attenuation is 0.3",
        lambda _: {"basis.name": "dct", "schedule.attenuation": 0.3, "jump": "sigma"},
    ),
    "subspace": Preset(
        "Jing et al. 2022, Subspace Diffusion Generative Models",
        "one network for all levels instead of one each, discrete time, and no Langevin steps after a jump",
        lambda _: {"basis.name": "haar", "schedule.attenuation": 1.0, "jump": "matched"},
    ),
    "blurring": Preset(
        "Hoogeboom and Salimans 2022, Blurring Diffusion Models",
        "a band-wise approximation: the gains of eight dct bands follow the heat path, not those of every frequency",
        _blurring,
    ),
}


def preset_overrides(name: str, ladder: Sequence[int]) -> dict[str, Any]:
    """Return the dotted keys of a preset on a benchmark's ``ladder``. Raises UsageError for an unknown one."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name].overrides(ladder)
