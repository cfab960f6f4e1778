"""Files that are written whole or not at all: a temporary file, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from dvbench.errors import UsageError, WorkError

PART = ".part"  # how the name of a temporary file ends


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the operating system's word about writing ``path`` into one sentence.

    A full disk is a failure of the work (exit 1); a place that cannot be written is bad input (exit 2).
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise WorkError(
                f"no space is left to write {path}: free some, or choose another place (--results, --out); "
                "an unfinished run goes on from its last checkpoint"
            ) from error
        raise UsageError(
            f"{path} cannot be written ({error.strerror or error}): make it writable, or choose another place "
            "(--results, --out; for the cache, DVBENCH_CACHE)"
        ) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk and rename it over ``path``.

    A link stays one, to the new file; what is no file, such as a pipe, is written to as it is.
    """
    with told(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                write(file)
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def cache_directory() -> Path:
    """Return the directory for what can be made or fetched again: $DVBENCH_CACHE, or the user's own cache."""
    return Path(os.environ.get("DVBENCH_CACHE") or platformdirs.user_cache_dir("dvbench"))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
