"""Features of real images with their mean and covariance: worked out once, then kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvbench.api import Detector
from dvbench.errors import DvbenchError
from dvbench.files import cache_directory, write_whole
from dvbench.measure.distance import moments
from dvbench.record import digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Statistics:
    """Features [N, D] of images, their mean [D] and unbiased covariance [D, D], and the SHA-256 of the pixels."""

    features: npt.NDArray[Any]
    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    sha256: str


def statistics(
    detector: Detector,
    options: Mapping[str, Any],
    images: npt.NDArray[np.uint8],
    *,
    fingerprint: str,
    split: str,
    indices: npt.NDArray[np.integer[Any]] | None = None,
) -> Statistics:
    """Return the statistics of ``images``, or of those with ``indices`` in their order, from the cache if it has them.

    They are the split called ``split`` of the dataset with this ``fingerprint``. Another fingerprint, split or choice,
    another version, weights, resize or option of the detector is another entry. An entry that is damaged or of other
    pixels is made again; a cache that cannot be written is done without. ValueError: fewer than two images.
    """
    chosen = images if indices is None else images[indices]
    sha256 = hashlib.sha256(np.ascontiguousarray(chosen).data).hexdigest()
    key = {
        "dataset": fingerprint,
        "split": split,
        "indices": None if indices is None else hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        "detector": [detector.name, detector.version, detector.weights_hash, detector.resize],
        "options": dict(options),
    }
    path = cache_directory() / "statistics" / f"{detector.name}-{digest(key)[:20]}.npz"
    held = _held(path)
    if held is None or held.sha256 != sha256:
        features = detector(chosen)
        held = Statistics(features, *moments(features), sha256)
        _keep(path, held)
    return held


def _held(path: Path) -> Statistics | None:
    """Read an entry, or return None where it is missing or damaged: a zip knows the sum of each of its members."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            if entry.zip.testzip() is None:
                return Statistics(entry["features"], entry["mean"], entry["covariance"], str(entry["sha256"]))
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile):
        pass  # RuntimeError: damage may look like a password
    return None


def _keep(path: Path, held: Statistics) -> None:
    try:
        write_whole(path, lambda file: np.savez(file, **vars(held)))
    except DvbenchError as error:
        logger.warning("going on without a cache of features (set DVBENCH_CACHE to a writable directory): %s", error)
