"""A benchmark so small that a whole run takes seconds."""

from __future__ import annotations

import numpy as np
import yaml
from PIL import Image

TINY = {
    "ladder": [16, 8],
    "steps": 40,
    "prediction": "x0",
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "basis": {"name": "dct"},
    "schedule": {"name": "linear", "turns": [0.5], "attenuation": 0.3},
    "backbone": {"name": "unet", "width": 8, "multipliers": [1, 2], "attention": [8]},
    "sampler": {"name": "ancestral"},
    "dataset": {"name": "folder"},
    "detector": {"name": "lite0", "size": 32},
    "training": {"images": 64, "batch": 16, "lr": 0.001, "warmup": 32, "ema": 0.9},
    "sampling": {"steps": 4, "samples": 6, "batch": 4},
}


def write_benchmark(directory, name="tiny", **changes):
    """Write a YAML benchmark file with a folder of pictures beside it; ``changes`` are dotted keys with _ for a dot."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    content["dataset"]["data"] = str(write_pictures(directory / "pictures"))
    for key, value in changes.items():
        section, _, option = key.partition("__")
        if option:
            content[section][option] = value
        else:
            content[section] = value
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def write_pictures(directory, count=24, side=20):
    """Write small pictures: coloured squares on coloured grounds."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        picture = np.empty((side, side, 3), dtype=np.uint8)
        picture[:] = random.integers(0, 256, 3)
        top, left = random.integers(0, side // 2, 2)
        picture[top : top + side // 2, left : left + side // 2] = random.integers(0, 256, 3)
        Image.fromarray(picture).save(directory / f"{index:03}.png")
    return directory
