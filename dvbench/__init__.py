"""dvbench: a plugin-based benchmark for dimensionality-varying diffusion.

The public names resolve lazily, so that ``import dvbench`` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dvbench.api import Basis, Dataset, Detector, Plugin, Sampler, Schedule, hookimpl

if TYPE_CHECKING:
    from dvbench.backbone import Backbone
    from dvbench.entry import compare, run
    from dvbench.measure.distance import frechet_distance
    from dvbench.process import Process
    from dvbench.registry import available, create

_LAZY = {
    "Backbone": "dvbench.backbone",
    "Process": "dvbench.process",
    "available": "dvbench.registry",
    "compare": "dvbench.entry",
    "create": "dvbench.registry",
    "frechet_distance": "dvbench.measure.distance",
    "run": "dvbench.entry",
}

__all__ = [
    "Backbone",
    "Basis",
    "Dataset",
    "Detector",
    "Plugin",
    "Process",
    "Sampler",
    "Schedule",
    "available",
    "compare",
    "create",
    "frechet_distance",
    "hookimpl",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'dvbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
