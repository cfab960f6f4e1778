"""What a dataset must be: two splits of real pictures that share none, the same each time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from dvbench.api import Dataset
from dvbench.testing.findings import Finding, without

Make = Callable[[int], Dataset]


def examine(make: Make, size: int) -> Iterator[Finding]:
    """Examine the dataset that ``make(size)`` makes."""
    made: list[Dataset] = []

    def creation() -> Iterator[str]:
        made.append(make(size))
        yield from ()

    finding = without(f"can be made at {size} px", creation)
    yield finding
    if not finding.holds:
        return
    dataset = made[0]
    for split in ("train", "held_out"):
        yield without(f"{split} is uint8 N x {size} x {size} x C", partial(shape, dataset, split, size))
    yield without("no picture is in both splits", lambda: shared(dataset))
    yield without("splits are read-only", lambda: writable(dataset))
    yield without("fingerprint is a SHA-256", lambda: fingerprint(dataset))
    yield without("deterministic", lambda: deterministic(dataset, make(size)))


def shape(dataset: Dataset, split: str, size: int) -> Iterator[str]:
    """Complain of a split that is no array of square pictures, or empty."""
    images = getattr(dataset, split)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        yield f"it is {type(images).__name__} of {getattr(images, 'dtype', 'no dtype')}"
    elif images.ndim != 4 or images.shape[1:3] != (size, size) or images.shape[3] not in {1, 3}:
        yield f"its shape is {images.shape}"
    elif len(images) < 2:
        yield f"it has {len(images)} pictures"
    elif images.shape[3] != dataset.train.shape[3]:
        yield "the splits differ in their channels"
    elif images.shape[3] != dataset.channels:
        yield f"it has {images.shape[3]} channels, and `channels` says {dataset.channels}"


def shared(dataset: Dataset) -> Iterator[str]:
    """Complain of pictures that are in both splits."""
    held_out = set(map(digest, dataset.held_out))
    if count := sum(digest(picture) in held_out for picture in dataset.train):
        yield f"{count} training pictures are in the held-out split too"


def writable(dataset: Dataset) -> Iterator[str]:
    """Complain of splits that a careless reader could change."""
    for split in ("train", "held_out"):
        if getattr(dataset, split).flags.writeable:
            yield f"{split} can be written to: call its setflags(write=False)"


def fingerprint(dataset: Dataset) -> Iterator[str]:
    """Complain of what is no SHA-256 in hexadecimal."""
    if not re.fullmatch(r"[0-9a-f]{64}", str(dataset.fingerprint)):
        yield f"it is {dataset.fingerprint!r}"


def deterministic(dataset: Dataset, other: Dataset) -> Iterator[str]:
    """Complain where a second instance differs, or where pixels and fingerprint tell different stories."""
    for split in ("train", "held_out"):
        if not np.array_equal(getattr(dataset, split), getattr(other, split)):
            yield f"{split} differs from instance to instance"
    if dataset.fingerprint != other.fingerprint:
        yield "the fingerprint differs from instance to instance"


def digest(picture: np.ndarray) -> bytes:
    """Return the SHA-256 of one picture's pixels."""
    return hashlib.sha256(np.ascontiguousarray(picture).data).digest()
