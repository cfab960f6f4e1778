"""Seconds, told apart by level, and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dvbench.memory import release


def reset_peak_memory(device: torch.device) -> bool:
    """Let ``peak_memory`` count from here; tell whether that was possible (on CUDA, and on Linux for the process)."""
    release(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes held since the reset: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), None)


class LevelClock:
    """Wall seconds, one account per level, of work that goes from level to level.

    ``seconds`` holds the accounts; the running one is booked by the next ``enter`` of another level or by ``stop``. The
    device is waited for only then: waiting at each step would slow what is measured. ``network`` counts those of the
    network alone. ``now`` is the source of time.
    """

    def __init__(self, device: torch.device | None = None, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[int, float] = {}
        self.network = NetworkClock(device, now)
        self._device = device
        self._now = now
        self._level: int | None = None
        self._since = 0.0

    def enter(self, level: int) -> None:
        """Let time run on the account of ``level`` from here on."""
        if level != self._level:
            self._book()
            self._level = level

    def stop(self) -> None:
        """Book the running account; time after this is nobody's."""
        if self._level is not None:
            self._book()
            self._level = None

    def _book(self) -> None:
        wait(self._device)
        now = self._now()
        if self._level is not None:
            self.seconds[self._level] = self.seconds.get(self._level, 0.0) + now - self._since
        self._since = now


class NetworkClock:
    """The seconds that a device spends in the network, without waiting for it: a GPU is asked to mark the times."""

    def __init__(self, device: torch.device | None = None, now: Callable[[], float] = time.perf_counter) -> None:
        kinds: dict[str, Callable[..., Any]] = {"cuda": torch.cuda.Event, "mps": torch.mps.Event}
        self._event = kinds.get(device.type) if device is not None else None
        self._now = now
        self._marks: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is asked of the device meanwhile."""
        begin = self._mark()
        yield
        self._marks.append((begin, self._mark()))

    def _mark(self) -> Any:
        if self._event is None:
            return self._now()
        event = self._event(enable_timing=True)
        event.record()
        return event

    def take(self) -> float:
        """Return the seconds since the last call of this; the device must have done what it was given."""
        if self._event is None:
            seconds = sum(end - begin for begin, end in self._marks)
        else:
            seconds = sum(begin.elapsed_time(end) for begin, end in self._marks) / 1000
        self._marks.clear()
        return float(seconds)


def wait(device: torch.device | None) -> None:
    """Wait until ``device`` has done what it was given; the CPU always has."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()
