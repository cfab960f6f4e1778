"""A user's own pictures: a directory, searched recursively, or a zip."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from dvbench.builtin.imaging import DataError, SplitDataset, Splits, chunk_length, distinct, keep, key_hash, square

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvbench.api import Images

FORMAT = 1  # part of the cache's key: raise it when the same files shall give other pixels
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Entry:
    """One picture file: its path from the top, ``stamp`` (size and date or checksum), and how to read it."""

    name: str
    stamp: tuple[int, ...]
    read: Callable[[], bytes]


class Folder(SplitDataset):
    """Pictures in ``data``, a directory or zip, as uint8 N x size x size x ``channels``: cropped to the centre square.

    Of pictures that are the same pixel for pixel one is kept; then ``held_out_fraction`` of them, drawn with ``seed``,
    are held out, at least two, since a covariance needs two. ``hint`` says where to get the pictures, for the error
    when ``data`` is not given.
    ``data`` is only read; the decoded pictures lie in the cache. Raises ValueError for options out of range, UsageError
    for data that cannot be used.
    """

    def __init__(
        self,
        size: int,
        data: str | None = None,
        channels: Literal[1, 3] = 3,
        held_out_fraction: float = 0.1,
        seed: int = 0,
        hint: str = "",
    ) -> None:
        super().__init__(size)
        if channels not in {1, 3} or not 0 < held_out_fraction < 1 or seed < 0:
            raise ValueError("channels must be 1 or 3, held_out_fraction between 0 and 1, and seed at least 0")
        self.data = data
        self.channels = channels
        self.held_out_fraction = held_out_fraction
        self.seed = seed
        self.hint = hint

    def load(self) -> Splits:
        """Decode the pictures into the cache, or take them from there."""
        if self.data is None:
            hint = f" ({self.hint})" if self.hint else ""
            raise DataError(f"this dataset reads your own pictures: give --data a directory or a zip of images{hint}")
        path = Path(self.data).expanduser()
        with _entries(path) as entries:
            key = {
                "format": FORMAT,
                "data": str(path.resolve()),
                "size": self.size,
                "channels": self.channels,
                "seed": self.seed,
                "files": key_hash([(entry.name, *entry.stamp) for entry in entries]),
            }
            shape = (len(entries), self.size, self.size, self.channels)
            kept = keep(f"folder-{self.size}", key, shape, lambda: distinct(self._decode(path, entries)))
        count = len(kept.pictures)
        if count < 3:
            raise DataError(f"{path} holds {count} distinct pictures, which cannot be split: add others, to 3 at least")
        held_out = min(max(round(count * self.held_out_fraction), 2), count - 1)
        return kept.split(count - held_out)

    def _decode(self, path: Path, entries: Sequence[Entry]) -> Iterator[Images]:
        """Yield all pictures, shuffled by ``seed`` so that both splits are runs of one array, in chunks."""
        order = np.random.Generator(np.random.PCG64(self.seed)).permutation(len(entries))
        step = chunk_length(self.size)
        with ThreadPoolExecutor() as pool:  # decoders let go of the interpreter's lock
            for start in range(0, len(order), step):
                chunk = [entries[index] for index in order[start : start + step]]
                yield np.stack(list(pool.map(partial(self._picture, path), chunk)))

    def _picture(self, path: Path, entry: Entry) -> Images:
        try:
            with Image.open(BytesIO(entry.read())) as image:
                return square(image, self.size, self.channels)
        except Exception as error:  # decoders raise nearly anything on broken files
            raise DataError(
                f"{entry.name} in {path} is not a picture that can be read ({_brief(error)}): replace or remove it"
            ) from error


@contextmanager
def _entries(path: Path) -> Iterator[list[Entry]]:
    """List the pictures in ``path``, sorted by name, and keep a zip open while they are read."""
    if not path.exists():
        raise DataError(f"{path} does not exist: give --data the directory or zip that holds the pictures")
    if path.is_dir():
        yield _sorted(_walk(path), path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is neither a directory nor a zip that can be read ({_brief(error)}): give --data one of these"
        ) from error
    with archive:
        yield _sorted(
            (
                Entry(info.filename, (info.file_size, info.CRC), partial(archive.read, info))
                for info in archive.infolist()
                if not info.is_dir()
            ),
            path,
        )


def _walk(top: Path) -> Iterator[Entry]:
    """Yield the files under ``top``."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}): make it readable") from error

    for directory, _, names in os.walk(top, onerror=refuse):
        for name in names:
            file = Path(directory, name)
            if file.suffix.lower() in SUFFIXES and file.is_file():
                status = file.stat()
                stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)  # the last cannot be set back
                yield Entry(file.relative_to(top).as_posix(), stamp, file.read_bytes)


def _sorted(entries: Iterator[Entry], path: Path) -> list[Entry]:
    """Choose the pictures among ``entries``: no hidden files, and not the copies that macOS puts into its zips."""
    chosen = []
    for entry in entries:
        name = PurePosixPath(entry.name)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
        if name.suffix.lower() in SUFFIXES and not hidden:
            chosen.append(entry)
    if not chosen:
        raise DataError(f"{path} holds no pictures (png, jpg, jpeg, webp or bmp): give --data a place that does")
    return sorted(chosen, key=lambda entry: entry.name)


def _brief(error: Exception) -> str:
    """Return what ``error`` says in one line without a full stop."""
    if isinstance(error, UnidentifiedImageError):  # its own words show an address in memory
        return "no known format"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
