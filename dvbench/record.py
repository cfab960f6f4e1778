"""The record of a run on the disk: checked against its schema, written whole, read strictly."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from dvbench.errors import UsageError, WorkError
from dvbench.files import write_json
from dvbench.migrations import NewerSchemaError, migrated
from dvbench.schema import Cost, Environment, Method, Metric, Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["NAME", "Cost", "Environment", "Method", "Metric", "Record", "canonical", "digest", "read", "write"]

NAME = "record.json"


def write(path: Path, record: Record) -> None:
    """Write ``record`` to ``path``, whole or not at all. WorkError: what was put into it is no valid record."""
    try:
        checked = Record.model_validate(record.model_dump(warnings=False), strict=True)
    except ValidationError as error:
        raise WorkError(
            f"{path} is not written, since the record would not be valid ({_place(error)}): this is a fault of dvbench "
            "or of a plugin, to be reported"
        ) from error
    write_json(path, checked.model_dump(mode="json"))


def read(path: Path) -> Record:
    """Read the record at ``path``, of this schema or an older one; one that is newer or damaged is bad input."""
    mend = f"restore it, or delete its directory {path.parent}" if path.name == NAME else "restore it"
    try:
        raw = json.loads(path.read_bytes(), parse_constant=_refuse)
        json.dumps(raw, allow_nan=False, ensure_ascii=False).encode()  # 1e999 or half of a surrogate pair may be in it
        return Record.model_validate(migrated(raw) if isinstance(raw, dict) else raw, strict=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): {mend}") from error
    except NewerSchemaError as error:
        raise UsageError(f"{path} {error}: install a newer dvbench") from error
    except ValidationError as error:
        raise UsageError(f"{path} is no valid record ({_place(error)}): {mend}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error}): {mend}") from error


def canonical(config: Mapping[str, Any]) -> str:
    """Return the one JSON text of ``config``: keys sorted, no spaces."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of the canonical form of ``config``."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()


def _place(error: ValidationError) -> str:
    """Say where a record is wrong, and how."""
    last = error.errors()[-1]  # of a number that is neither int nor float, the last speaks of numbers
    return f"{'.'.join(map(str, last['loc'])) or 'the whole'}: {last['msg'].lower()}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
