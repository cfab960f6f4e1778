"""What a detector must do: the same finite features for an image, whatever stands beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dvbench.api import Detector
from dvbench.testing.findings import CHANNELS, Finding, within, without

SIZES = (32, 64)
COUNT = 6

Make = Callable[[], Detector]


def examine(make: Make) -> Iterator[Finding]:
    """Examine the detector that ``make()`` makes."""
    made: list[Detector] = []

    def creation() -> Iterator[str]:
        made.append(make())
        yield from ()

    finding = without("can be made", creation)
    yield finding
    if not finding.holds:
        return
    detector = made[0]
    yield without("name, version, resize and the SHA-256 of its weights", lambda: labels(detector))
    yield without("features are finite floats [N, D] for 1 and 3 channels", lambda: features(detector))
    yield without("different images have different features", lambda: distinct(detector))
    yield within("each image by itself", 1e-4, lambda: alone(detector))
    yield within("a grey image is the same with one and with three channels", 1e-4, lambda: grey(detector))
    yield within("deterministic", 0.0, lambda: apart(detector(pictures()), make()(pictures())))
    yield without("images are left as they were", lambda: unchanged(detector))


def pictures(size: int = 32, channels: int = 3, count: int = COUNT) -> np.ndarray:
    """Return smooth random images, uint8 N x H x W x C."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
    return coarse.repeat(size // 4, 1).repeat(size // 4, 2)


def labels(detector: Detector) -> Iterator[str]:
    """Complain of what a record could not tell."""
    for name in ("name", "version", "resize"):
        if not (isinstance(getattr(detector, name, None), str) and getattr(detector, name)):
            yield f"{name} must be a text, not {getattr(detector, name, None)!r}"
    if not re.fullmatch(r"[0-9a-f]{64}", str(getattr(detector, "weights_hash", ""))):
        yield f"weights_hash must be a SHA-256 in hexadecimal, not {getattr(detector, 'weights_hash', None)!r}"


def features(detector: Detector) -> Iterator[str]:
    """Complain of features that are no finite matrix of one width."""
    widths = set()
    for size in SIZES:
        for channels in CHANNELS:
            found: Any = detector(pictures(size, channels))
            where = f"{size} px, {channels} channels"
            if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != COUNT:
                yield f"{where}: {type(found).__name__} of shape {np.shape(found)}"
            elif found.dtype.kind != "f" or not np.isfinite(found).all():
                yield f"{where}: {found.dtype}, finite: {bool(np.isfinite(found).all())}"
            else:
                widths.add(found.shape[1])
    if len(widths) > 1:
        yield f"D is {' and '.join(map(str, sorted(widths)))}"


def distinct(detector: Detector) -> Iterator[str]:
    """Complain of features that tell no images apart."""
    found = np.asarray(detector(pictures()))
    if len(np.unique(found, axis=0)) < len(found):
        yield "two different images have the same"


def apart(one: Any, other: Any) -> float:
    """Return the largest difference, relative to the largest feature."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


def alone(detector: Detector) -> float:
    """Return the difference that the rest of the batch makes to an image's features."""
    return apart(np.asarray(detector(pictures()))[2:3], detector(pictures()[2:3]))


def grey(detector: Detector) -> float:
    """Return the difference between one channel and the same three times."""
    one = pictures(channels=1)
    return apart(detector(one), detector(np.repeat(one, 3, axis=3)))


def unchanged(detector: Detector) -> Iterator[str]:
    """Complain of a detector that writes into the images it is given."""
    given = pictures()
    given.setflags(write=False)
    detector(given)
    given = pictures()
    detector(given)
    if not np.array_equal(given, pictures()):
        yield "it writes into the array that it is given"
