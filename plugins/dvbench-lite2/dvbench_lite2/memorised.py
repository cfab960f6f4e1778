"""Whether samples are nearer to the training images than images are that were never trained on."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

import dvbench
from dvbench.errors import UsageError
from dvbench.rundir import RunDirectory

if TYPE_CHECKING:
    from dvbench.api import Dataset, Detector, Features, Images
    from dvbench.record import Record

Floats: TypeAlias = npt.NDArray[np.float64]
Told: TypeAlias = Callable[[str, int, int], None]

ONE_IN = 20  # held-out images counts as near: 5%
LEAST = ONE_IN - 1  # held-out images, so that one is
REPEAT = "run it again with --fresh"


@dataclass(frozen=True)
class Memorised:
    """How near samples are to their nearest training image, and held-out images to theirs.

    Distances are Euclidean, between features. ``threshold`` is the k-th smallest of the n held-out images' distances,
    k = floor((n + 1) / 20): an image drawn as the held-out ones are is nearer with probability k / (n + 1), at most
    5%, whatever the distribution, and ``near`` is the share of samples that are. ``z`` is the three-sample test of
    Meehan et al. 2020, not by cells but over the whole space: the Mann-Whitney U of the two sets of distances,
    standardised. It is about normal where they are alike, and below -3 says that samples are nearer than chance brings
    them. ``nearest`` is the pair to look at: the index of a sample, the index of a training image, their distance.

    The test sees what its features see, and only copies: a model that draws badly lies far from everything, so it
    passes. Single copies among many samples, as Carlini et al. 2023 extract, are for ``nearest`` and ``near`` to show.
    """

    samples: int
    held_out: int
    train: int
    median: float
    median_held_out: float
    threshold: float
    near: float
    z: float
    nearest: tuple[int, int, float]

    @classmethod
    def of(cls, samples: Features, held_out: Features, train: Features) -> Memorised:
        """Compare features [N, D] of the three. UsageError: fewer than 19 held-out images."""
        enough(len(held_out))
        ours, partners = nearest(samples, train)
        theirs, _ = nearest(held_out, train)
        threshold = float(np.sort(theirs)[(len(theirs) + 1) // ONE_IN - 1])
        closest = int(ours.argmin())
        return cls(
            samples=len(samples),
            held_out=len(held_out),
            train=len(train),
            median=float(np.median(ours)),
            median_held_out=float(np.median(theirs)),
            threshold=threshold,
            near=float(np.mean(ours < threshold)),
            z=mann_whitney(ours, theirs),
            nearest=(closest, int(partners[closest]), float(ours[closest])),
        )


def enough(held_out: int) -> None:
    """Raise UsageError for too few held-out images to say what the nearest 5% of them are."""
    if held_out < LEAST:
        raise UsageError(f"{held_out} held-out images do not show what the nearest 5% are: {LEAST} or more are needed")


def nearest(features: Features, among: Features) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return how far the nearest of ``among`` [M, D] is from each of ``features`` [N, D], Euclidean, and its index."""
    ours, others = (torch.from_numpy(np.asarray(each, np.float64)) for each in (features, among))
    found = [torch.cdist(block, others).min(dim=1) for block in torch.split(ours, 256)]  # of 256 M distances each
    return torch.cat([block.values for block in found]).numpy(), torch.cat([block.indices for block in found]).numpy()


def mann_whitney(ours: Floats, theirs: Floats) -> float:
    """Return the standardised U of Mann and Whitney (1947): below 0 where ``ours`` [m] tend to be smaller.

    U counts the pairs in which ours is larger, ties half; without ties its mean is m n / 2 and its variance
    m n (m + n + 1) / 12.
    """
    m, n = len(ours), len(theirs)
    ranked = np.sort(theirs)
    larger = (np.searchsorted(ranked, ours, "left") + np.searchsorted(ranked, ours, "right")).sum() / 2
    return float((larger - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12))


@dataclass(frozen=True)
class Finished:
    """A finished run: its samples, uint8 [N, H, W, C], and the dataset that it was trained on."""

    run_id: str
    samples: Images
    dataset: Dataset

    @classmethod
    def read(cls, path: Path) -> Finished:
        """Read the run in ``path``. UsageError: no finished run there, damaged files, data that cannot be had."""
        directory = RunDirectory(path.resolve())
        record = directory.read()
        if record is None:
            raise UsageError(f"there is no run in {path}: give its directory, results/BENCHMARK/RUN_ID")
        if record.status != "finished":
            raise UsageError(f"the run in {path} is {record.status}, so it has no samples: run it to its end first")
        samples, dataset = read_samples(directory.samples), create_dataset(record)
        if samples.shape[1:] != dataset.train.shape[1:]:
            raise UsageError(f"{directory.samples} does not hold images of the size of the run's data: {REPEAT}")
        enough(len(dataset.held_out))
        return cls(directory.run_id, samples, dataset)


def read_samples(path: Path) -> Images:
    """Read the samples of a run, uint8 [N, H, W, C]. UsageError: a file that is missing or damaged."""
    try:
        # numpy would leave a damaged file open that it opened itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            samples: npt.NDArray[Any] = held["samples"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is missing or damaged: {REPEAT}") from error
    if samples.dtype != np.uint8 or samples.ndim != 4:
        raise UsageError(f"{path} holds {samples.dtype} {samples.shape}, not uint8 images: {REPEAT}")
    return samples


def create_dataset(record: Record) -> Dataset:
    """Create the dataset of a run. UsageError: data that cannot be had, or whose held-out split has changed since."""
    try:
        options = dict(record.config["dataset"])
        name, size = options.pop("name"), record.config["ladder"][0]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"the configuration of {record.run_id} is of another dvbench: {REPEAT}") from error
    dataset: Dataset = dvbench.create("dataset", name, size=size, **options)
    pixels = hashlib.sha256(np.ascontiguousarray(dataset.held_out).data).hexdigest()
    known = {metric.reference_hash for metric in record.metrics if metric.reference_hash}
    if known and pixels not in known:
        raise UsageError(f"the images of {name} are not those that {record.run_id} was held against: {REPEAT}")
    return dataset


def examine(run: Finished, detector: Detector, told: Told = lambda *_: None) -> Memorised:
    """Compare the samples of ``run`` with its data in the features of ``detector``.

    ``told(split, done, of)`` hears how far the features of a split are.
    """
    splits = {"samples": run.samples, "held-out": run.dataset.held_out, "training": run.dataset.train}
    return Memorised.of(*(features(detector, images, name, told) for name, images in splits.items()))


def features(detector: Detector, images: Images, name: str, told: Told) -> Features:
    """Return the features of ``images`` [N, H, W, C], [N, D], telling after every thousand."""

    def parts() -> Iterator[Features]:
        for start in range(0, len(images), 1000):
            yield detector(images[start : start + 1000])
            told(name, min(start + 1000, len(images)), len(images))

    return np.concatenate(list(parts()))
