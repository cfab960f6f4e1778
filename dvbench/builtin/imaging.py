"""What the built-in datasets share: squaring pictures, dropping duplicates, keeping arrays on disk, splitting."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from dvbench.api import Dataset
from dvbench.errors import DvbenchError, UsageError
from dvbench.files import cache_directory, write_json, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dvbench.api import Images

logger = logging.getLogger(__name__)


class DataError(UsageError):
    """The pictures themselves are at fault, not the place where they would be kept."""


@dataclass(frozen=True)
class Splits:
    """Both splits, uint8 N x H x W x C, and the SHA-256 of their bytes, training split first."""

    train: Images
    held_out: Images
    sha256: str

    @classmethod
    def of(cls, train: Images, held_out: Images) -> Splits:
        """Make two arrays in memory read-only, after dropping from ``train`` what ``held_out`` shows too."""
        shown = set(map(digest, held_out))
        train = np.ascontiguousarray(train[[digest(picture) not in shown for picture in train]])
        held_out = np.ascontiguousarray(held_out)
        for split in (train, held_out):
            split.setflags(write=False)
        sha256 = hashlib.sha256(train.reshape(-1).data)
        sha256.update(held_out.reshape(-1).data)
        return cls(train, held_out, sha256.hexdigest())


class SplitDataset(Dataset):
    """A dataset whose splits are made together, once, when first asked for.

    Raises ValueError for a ``size`` outside ``sides``.
    """

    sides = range(8, 1025)

    def __init__(self, size: int) -> None:
        if size not in self.sides:
            low, high = self.sides[0], self.sides[-1]
            raise ValueError(f"size must be from {low} to {high} pixels, not {size}: choose another first side")
        super().__init__(size)

    @abstractmethod
    def load(self) -> Splits:
        """Make both splits."""

    @cached_property
    def _splits(self) -> Splits:
        return self.load()

    @cached_property
    def train(self) -> Images:
        """The training split, uint8, N x H x W x C; read-only."""
        return self._splits.train

    @cached_property
    def held_out(self) -> Images:
        """The held-out split, uint8, N x H x W x C; read-only."""
        return self._splits.held_out

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 over both splits' bytes and shapes."""
        return key_hash([self.train.shape, self.held_out.shape, self._splits.sha256])


def key_hash(value: Any) -> str:
    """Return the SHA-256 of ``value`` written as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest(picture: Images) -> bytes:
    """Return the SHA-256 of one picture's pixels."""
    return hashlib.sha256(np.ascontiguousarray(picture).reshape(-1).data).digest()


def package_directory(package: str) -> Path:
    """Find where ``package`` is installed without importing it, since only its files are wanted."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(f"the package {package}, whose pictures are needed, is not installed: pip install {package}")
    return Path(spec.origin).parent


def square(image: Image.Image, size: int, channels: int) -> Images:
    """Cut the centre square out of ``image`` and resize it to uint8 size x size x channels.

    Lanczos both ways: Pillow widens it by the shrink's ratio, so it is antialiased, and it weighs every pixel smoothly
    where BOX would round its window to whole pixels (92 -> 32 would count some rows double).
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":  # its transparency, dropped below, is read without a warning only this way
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    image = image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=None)
    return np.asarray(image).reshape(size, size, channels)


def distinct(chunks: Iterable[Images], limit: int | None = None) -> Iterator[Images]:
    """Yield the pictures of ``chunks`` without those already yielded, pixel for pixel, and at most ``limit``."""
    seen: set[bytes] = set()
    for chunk in chunks:
        fresh = []
        for index, picture in enumerate(chunk):
            if len(seen) == limit:
                break
            mark = digest(picture)
            if mark not in seen:
                seen.add(mark)
                fresh.append(index)
        yield chunk[fresh]
        if len(seen) == limit:
            return


@dataclass(frozen=True)
class Kept:
    """Pictures that lie in one array, uint8 N x H x W x C, memory-mapped where they could be kept on disk."""

    pictures: Images
    sha256: str

    def split(self, train: int) -> Splits:
        """Cut after the first ``train`` pictures."""
        return Splits(self.pictures[:train], self.pictures[train:], self.sha256)


def keep(name: str, key: Mapping[str, Any], shape: tuple[int, ...], make: Callable[[], Iterator[Images]]) -> Kept:
    """Return the pictures that ``make`` yields in chunks, at most ``shape[0]`` of them, from the cache if it has them.

    A damaged entry is made again; a cache that cannot be written is done without. DataError passes through.
    """
    path = cache_directory() / f"{name}-{key_hash(key)[:20]}.npy"
    kept = _read(path)
    if kept is None:
        try:
            _write(path, key, shape, make())
            kept = _read(path)
        except DataError:
            raise
        except DvbenchError as error:
            logger.warning(
                "going on without a cache of %s (set DVBENCH_CACHE to a writable directory): %s", name, error
            )
    return kept or _in_memory(shape, make())


def _read(path: Path) -> Kept | None:
    """Open a cache entry, or return None where it is missing or damaged in any byte."""
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        pictures = np.load(path, mmap_mode="r", allow_pickle=False)
        sound = pictures.dtype == np.uint8 and list(pictures.shape) == note["shape"] and pictures.flags.c_contiguous
        if sound and hashlib.sha256(pictures.reshape(-1).data).hexdigest() == note["sha256"]:
            return Kept(pictures, note["sha256"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError):
        pass
    return None


def _write(path: Path, key: Mapping[str, Any], shape: tuple[int, ...], chunks: Iterator[Images]) -> None:
    """Stream ``chunks`` into a .npy file, so that memory stays bounded, and note its SHA-256 beside it."""
    sha256 = hashlib.sha256()
    count = 0

    def header(file: BinaryIO, count: int) -> None:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape[1:])}
        )

    def stream(file: BinaryIO) -> None:
        nonlocal count
        header(file, shape[0])
        for chunk in chunks:
            data = np.ascontiguousarray(chunk).reshape(-1).data
            file.write(data)
            sha256.update(data)
            count += len(chunk)
        file.seek(0)
        header(file, count)  # as long as the first: numpy leaves room for the count to grow or shrink

    write_whole(path, stream)
    note = {"key": dict(key), "shape": [count, *shape[1:]], "sha256": sha256.hexdigest()}
    write_json(path.with_suffix(".json"), note)


def _in_memory(shape: tuple[int, ...], chunks: Iterator[Images]) -> Kept:
    """Gather ``chunks`` into one array; pages beyond the last picture are never touched."""
    pictures = np.empty(shape, np.uint8)
    count = 0
    for chunk in chunks:
        pictures[count : count + len(chunk)] = chunk
        count += len(chunk)
    pictures = pictures[:count]
    pictures.setflags(write=False)
    return Kept(pictures, hashlib.sha256(pictures.reshape(-1).data).hexdigest())


def chunk_length(size: int) -> int:
    """Return how many pictures of side ``size`` to work on at once: 512 at 32 px, fewer where they are larger."""
    return max(1, math.ceil(512 * 32 * 32 / size**2))
