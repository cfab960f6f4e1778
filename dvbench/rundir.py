"""Where a run's files lie: results/BENCHMARK/RUN_ID/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvbench import record as records
from dvbench.config import Config
from dvbench.errors import DvbenchError, UsageError
from dvbench.files import PART, told, write_text
from dvbench.record import Record


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run. Its name is the RUN_ID."""

    path: Path

    @property
    def run_id(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def record(self) -> Path:
        """The record."""
        return self.path / records.NAME

    @property
    def weights(self) -> Path:
        """The trained network's averaged weights and what clipping needs, written when training is done."""
        return self.path / "checkpoints" / "weights.safetensors"

    @property
    def training(self) -> Path:
        """The whole state of a training under way."""
        return self.path / "checkpoints" / "training.safetensors"

    @property
    def drawn(self) -> list[Path]:
        """The batches of samples drawn so far, each with what it cost."""
        return sorted((self.path / "checkpoints").glob("samples-*.safetensors"))

    def batch(self, first: int) -> Path:
        """Where the batch goes whose first sample has this index."""
        return self.path / "checkpoints" / f"samples-{first:09}.safetensors"

    @property
    def unfinished(self) -> list[Path]:
        """The temporary files of a process that was killed while it wrote."""
        return sorted(self.path.rglob(f".*{PART}"))

    @property
    def samples(self) -> Path:
        """All samples, uint8 N x H x W x C under the key "samples"."""
        return self.path / "samples.npz"

    @property
    def picture(self) -> Path:
        """The first samples as a picture."""
        return self.path / "samples.png"

    def read(self) -> Record | None:
        """Return the record, None where there is none yet."""
        with told(self.record):
            return records.read(self.record) if self.record.exists() else None


class Log:
    """log.jsonl: what happened, one JSON object a line; rewritten whole with each checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            self.lines = []
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}): move it away to go on without it") from error

    def add(self, **event: Any) -> None:
        """Add an event; it reaches the file with the next ``write``."""
        self.lines.append(json.dumps(event))

    def write(self) -> None:
        """Write all events."""
        write_text(self.path, "".join(f"{line}\n" for line in self.lines))


def place(results: Path, config: Config, run_hash: str, *, fresh: bool) -> RunDirectory:
    """Return the directory for a run of ``config``: that of its last attempt, or a new one where asked for."""
    parent = results / config.benchmark
    stem = f"{config.plugin('basis')[0].rpartition(':')[2]}-{run_hash[:10]}"
    attempts = [parent / stem]
    with told(parent):
        while (following := parent / f"{stem}-{len(attempts) + 1}").exists():
            attempts.append(following)
        if fresh and attempts[-1].exists():
            return RunDirectory(following)
    return RunDirectory(attempts[-1])


def trained(results: Path, train_hash: str) -> Iterator[RunDirectory]:
    """Yield the finished runs whose networks were trained from the same inputs and whose weights are still there."""
    for path in sorted(results.glob(f"*/*/{records.NAME}")):
        run = RunDirectory(path.parent)
        try:
            held = records.read(path)
        except DvbenchError:
            continue  # somebody else's damage is not this run's
        alike = held.status == "finished" and held.method.train_hash == train_hash and held.method.trained_by is None
        if alike and run.weights.exists():
            yield run
