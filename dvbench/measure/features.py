"""Features of a split of real images: worked out once, then kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvbench.api import Detector
from dvbench.errors import DvbenchError
from dvbench.files import cache_directory, write_whole
from dvbench.record import digest

logger = logging.getLogger(__name__)


def known(
    detector: Detector, options: Mapping[str, Any], images: npt.NDArray[np.uint8]
) -> tuple[str, npt.NDArray[Any]]:
    """Return the SHA-256 of the pixels of ``images`` and their features, from the cache if it has them.

    A changed pixel, weight, version, resize or option of the detector is another entry. A damaged entry is made again;
    a cache that cannot be written is done without.
    """
    sha256 = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    key = {
        "images": sha256,
        "shape": list(images.shape),
        "detector": [detector.name, detector.version, detector.weights_hash, detector.resize],
        "options": dict(options),
    }
    path = cache_directory() / "features" / f"{detector.name}-{digest(key)[:20]}.npz"
    features = _read(path, len(images))
    if features is None:
        features = detector(images)
        _write(path, features)
    return sha256, features


def _read(path: Path, count: int) -> npt.NDArray[Any] | None:
    """Read an entry, or return None where it is missing or damaged in any byte: a zip checks its sums."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            features: npt.NDArray[Any] = held["features"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return features if features.ndim == 2 and len(features) == count else None


def _write(path: Path, features: npt.NDArray[Any]) -> None:
    try:
        write_whole(path, lambda file: np.savez(file, features=features))
    except DvbenchError as error:
        logger.warning("going on without a cache of features (set DVBENCH_CACHE to a writable directory): %s", error)
