"""Valid records for tests, with what a test wants otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvbench import record as records
from dvbench.record import Record

if TYPE_CHECKING:
    from pathlib import Path


def _said(value: dict[str, Any]) -> dict[str, Any]:
    """Return what the configuration of a record says again."""
    method = value["method"]
    named = {kind: {"name": method[kind]} for kind in ("basis", "schedule", "backbone", "sampler")}
    plain = {key: method[key] for key in ("ladder", "prediction")}
    return {"benchmark": value["benchmark"], "seed": value["seed"], "sampling": {"steps": method["sample_steps"]}} | (
        named | plain
    )


RAW: dict[str, Any] = {
    "schema_version": 1,
    "run_id": "run",
    "benchmark": "cats",
    "status": "finished",
    "seed": 0,
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T01:00:00+00:00",
    "resumed": [],
    "config": {"training": {"images": 50000}},
    "config_hash": "c" * 64,
    "method": {
        "basis": "dct",
        "schedule": "linear",
        "backbone": "unet",
        "sampler": "ancestral",
        "ladder": [32, 16, 8],
        "turns": [0.3, 0.6],
        "attenuation": 0.3,
        "prediction": "eps",
        "sample_steps": 100,
        "train_hash": "a" * 64,
        "trained_by": None,
    },
    "environment": {
        "dvbench": "0.1.0",
        "python": "3.11.7",
        "torch": "2.6.0",
        "plugins": {"dvbench": "0.1.0"},
        "git_commit": None,
        "git_dirty": None,
        "device": "cpu",
        "device_name": "a processor",
        "threads": 2,
        "precision": "fp32",
        "platform": "Linux",
    },
    "cost": {
        "params": 1000,
        "flops_per_mac": 2,
        "uncounted_ops": [],
        "forward_flops": [3_000_000, 1_000_000, 300_000],
        "steps_per_level": [30, 30, 40],
        "sample_flops": 100_000_000,
        "train_flops_per_image": 5_000_000,
        "train_seconds": 100.0,
        "train_images": 50000,
        "sample_seconds": 10.0,
        "samples": 100,
        "peak_memory_bytes": None,
        "seconds_per_level": [6.0, 3.0, 1.0],
    },
    "metrics": [
        {
            "name": "fd",
            "value": 12.3456789,
            "low": None,
            "high": None,
            "n": 100,
            "detector": "lite0 0.1.0",
            "detector_hash": "d" * 64,
            "reference": "held-out split, 100 images",
            "reference_hash": "e" * 64,
            "resize": "bicubic to 96",
            "higher_is_better": False,
            "floor": 1.25,
        }
    ],
}
RAW["config"] |= _said(RAW)
DDPM = {"run_id": "ddpm", "method.basis": "identity", "method.ladder": [32], "method.turns": []}


def raw(**overrides: Any) -> dict[str, Any]:
    """Return a record as JSON holds it; ``**{"cost.samples": 5, "metrics.0.n": 7}`` reaches inside."""
    value = Record.model_validate(RAW).model_dump(mode="json")
    for key, new in overrides.items():
        *outer, last = key.split(".")
        place: Any = value
        for step in outer:
            place = place[int(step)] if step.isdigit() else place[step]
        place[last] = new
    if isinstance(value["config"], dict):  # a test may want it wrong
        value["config"] |= _said(value)
    return value


def curve(*points: tuple[int, float], n: int = 100, half: float = 1.0) -> list[dict[str, Any]]:
    """Return a metric's curve: (training images, value), an image having taken 2 ms and 5 MFLOPs."""
    return [
        {
            "train_images": images,
            "train_seconds": 0.002 * images,
            "train_flops": 5e6 * images,
            "value": value,
            "low": value - half,
            "high": value + half,
            "n": n,
        }
        for images, value in points
    ]


def save(results: Path, **overrides: Any) -> Path:
    """Write a record where a run would, and return its path."""
    record = Record.model_validate(raw(**overrides))
    path = results / record.benchmark / record.run_id / "record.json"
    records.write(path, record)
    return path
