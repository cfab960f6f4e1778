"""Energy, where the device tells it: of a GPU through NVML, of the processor through Linux's powercap."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """A counter that only rises, in steps of ``joules``; one with a ``range`` begins anew once it has come so far."""

    read: Callable[[], int]
    joules: float
    range: int | None = None

    def between(self, before: int, after: int) -> float:
        """Return the joules from one reading to the next, which must come before the counter has begun anew twice."""
        risen = after - before
        return self.joules * (risen if self.range is None else risen % self.range)


class EnergyMeter:
    """Joules drawn by the device of a computation: those of a whole GPU, or of all packages of the processor.

    Counters are shared: whatever else runs there counts too, and what the rest of the machine draws does not. They move
    some ten times a second or more, so that spans much shorter than a second tell little. Work that was given to a GPU
    must be done before a reading. ``powercap`` is where Linux shows the processor's counters.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self._counters: list[Counter] = []
        if device.type == "cuda":
            self._counters = _told(lambda: [_gpu(device)]) or []
        elif device.type == "cpu":
            self._counters = _told(lambda: _packages(powercap)) or []
        self._sum: float | None = None
        self._last: list[int] | None = None

    def start(self) -> None:
        """Begin at 0."""
        self._last = self._read()
        self._sum = None if self._last is None else 0.0

    def joules(self) -> float | None:
        """Return the joules since ``start``, None where a counter is missing or cannot be read. Never an error.

        A package's counter begins anew after 65 kJ or more, minutes at full power: ask once a minute, for the sum to
        lose nothing.
        """
        now = self._read()
        if self._sum is None or self._last is None or now is None:
            self._sum = None
        else:
            self._sum += sum(
                counter.between(*readings) for counter, *readings in zip(self._counters, self._last, now, strict=True)
            )
        self._last = now
        return self._sum

    def _read(self) -> list[int] | None:
        return _told(lambda: [counter.read() for counter in self._counters]) or None


def total(parts: Sequence[float | None]) -> float | None:
    """Return the sum of ``parts``, None where one of them is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _told(ask: Callable[[], Any]) -> Any:
    """Return what ``ask`` returns, None where it fails."""
    try:
        return ask()
    except Exception:  # noqa: BLE001 - drivers raise errors of their own, and no run is to fail for its energy
        return None


def _gpu(device: torch.device) -> Counter:
    """Return the counter of a GPU, Volta or newer: millijoules since its driver was loaded.

    It is found by its UUID: NVML counts all GPUs, CUDA those that CUDA_VISIBLE_DEVICES names, in that order.
    """
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    return Counter(partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle), joules=1e-3)


def _packages(powercap: Path) -> list[Counter]:
    """Return the counters of the processor's packages: microjoules (RAPL; Linux, power/powercap).

    intel-rapl:0 is a zone, a package or the whole board (psys), and intel-rapl:0:0 a part of it, which it contains.
    """
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    return [
        Counter(partial(_number, zone / "energy_uj"), joules=1e-6, range=_number(zone / "max_energy_range_uj"))
        for zone in zones
        if (zone / "name").read_text(encoding="ascii").startswith("package")
    ]


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
