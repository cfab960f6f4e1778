"""The record of a run: its schema, written whole, read strictly."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dvbench.errors import UsageError
from dvbench.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA_VERSION = 1
NAME = "record.json"

# int first: a count stays a count, where plain float would turn 3 into 3.0.
Number = int | float


class _Part(BaseModel):
    """An object inside the record: its keys are required, and more may be added beside them."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class Method(_Part):
    """What was run. ``trained_by`` names the run whose weights were reused, found by ``train_hash``."""

    basis: str
    schedule: str
    backbone: str
    sampler: str
    ladder: list[int]
    turns: list[Number]
    attenuation: Number | None
    prediction: str
    sample_steps: int
    train_hash: str | None = None
    trained_by: str | None = None


class Environment(_Part):
    """Where it ran."""

    dvbench: str
    python: str
    torch: str
    plugins: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    device: str
    device_name: str | None
    threads: int | None
    precision: str
    platform: str


class Cost(_Part):
    """What it cost."""

    params: int | None
    flops_per_mac: Literal[2]
    uncounted_ops: list[str] | None
    forward_flops: list[Number] | None
    steps_per_level: list[int] | None
    sample_flops: Number | None
    train_flops_per_image: Number | None
    train_seconds: Number | None
    train_images: int | None
    sample_seconds: Number | None
    samples: int | None
    peak_memory_bytes: int | None
    seconds_per_level: list[Number] | None


class Metric(_Part):
    """One thing that was measured of the samples."""

    name: str
    value: Number
    low: Number | None
    high: Number | None
    n: int
    detector: str | None
    detector_hash: str | None
    reference: str | None
    reference_hash: str | None
    resize: str | None
    higher_is_better: bool


class Record(BaseModel):
    """A run's record: exactly these keys. Times are ISO 8601 in UTC; values are raw, null where not measured."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    run_id: str
    benchmark: str
    status: Literal["finished", "interrupted", "failed"]
    seed: int
    started: str
    finished: str | None
    resumed: list[str]
    config: dict[str, Any]
    config_hash: str
    method: Method
    environment: Environment
    cost: Cost
    metrics: list[Metric]


def write(path: Path, record: Record) -> None:
    """Write ``record`` to ``path``, whole or not at all."""
    write_json(path, record.model_dump(mode="json"))


def read(path: Path) -> Record:
    """Read the record at ``path``; one that is damaged is bad input."""
    mend = f"restore it, or delete its directory {path.parent}" if path.name == NAME else "restore it"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): {mend}") from error
    try:
        raw = json.loads(text)
        version = raw.get("schema_version", SCHEMA_VERSION) if isinstance(raw, dict) else SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path} follows schema {version!r}, and this dvbench reads schema {SCHEMA_VERSION}: {mend}"
            )
        return Record.model_validate_json(text, strict=True)
    except ValidationError as error:
        last = error.errors()[-1]  # of a number that is neither int nor float, the last speaks of numbers
        place = ".".join(map(str, last["loc"])) or "the whole"
        raise UsageError(f"{path} is no valid record ({place}: {last['msg'].lower()}): {mend}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error}): {mend}") from error


def canonical(config: Mapping[str, Any]) -> str:
    """Return the one JSON text of ``config``: keys sorted, no spaces."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of the canonical form of ``config``."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()
