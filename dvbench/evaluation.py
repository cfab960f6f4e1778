"""What a run's samples are worth: their distances to real images, each with its interval and its floor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dvbench.api import Dataset, Detector
from dvbench.estimate import Estimate
from dvbench.measure.distance import Gaussian, frechet
from dvbench.measure.features import Statistics, statistics
from dvbench.measure.kernel import kernel
from dvbench.measure.manifold import NEIGHBOURS, PRECISION_INTERVAL, RECALL_INTERVAL, precision_recall
from dvbench.measure.resampling import INTERVAL
from dvbench.measure.spectrum import Spectrum, log_spectral_distance, spectrum
from dvbench.randomness import seed_of

Images: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[Any]
Json: TypeAlias = dict[str, Any]
Estimates: TypeAlias = dict[str, Estimate]

INTERVALS = {"precision": PRECISION_INTERVAL, "recall": RECALL_INTERVAL}
HIGHER_IS_BETTER = {"precision", "recall"}
OF_PIXELS = {"lsd"}
OF_EQUAL_NUMBERS = {"precision", "recall"}  # take no more samples than there are images to hold them against


@dataclass(frozen=True)
class Reference:
    """A split to hold samples against.

    ``real`` holds the metrics of as many real images as there are samples, what a perfect sampler would reach; none
    where there are too few.
    """

    split: str
    name: str
    sha256: str
    gaussian: Gaussian
    features: Floats
    spectrum: Spectrum
    real: Estimates

    def hold(self, frechet_name: str, features: Floats, drawn: Spectrum) -> Estimates:
        """Return each metric of samples with these ``features`` and this spectrum, less those that cannot be had."""
        distance, limit = frechet(features, self.gaussian)
        found = {frechet_name: distance}
        if limit is not None:
            found[f"{frechet_name}_inf"] = limit
        found["kid"] = kernel(features, self.features)
        if min(len(features), len(self.features)) > NEIGHBOURS:
            found["precision"], found["recall"] = precision_recall(features, self.features)
        found["lsd"] = log_spectral_distance(drawn, self.spectrum)
        return found


class Judge:
    """Turns samples into metrics: holds them against the held-out split of ``dataset`` as ``detector`` sees it.

    ``redraws``: the network draws the training split again, so that its samples are held against that too. ``options``
    are the detector's; ``seed`` draws the real images that the floors are of.
    """

    def __init__(self, detector: Detector, options: Json, dataset: Dataset, seed: int, *, redraws: bool) -> None:
        self.detector, self.options, self.dataset, self.seed = detector, options, dataset, seed
        self.redraws = redraws
        # FID is the distance of one network's features only (Heusel et al. 2017; Parmar et al. 2022).
        self.frechet_name = "fid" if detector.name == "inception" else "fd"
        self._references: dict[int, list[Reference]] = {}

    def __call__(self, samples: Images) -> list[Json]:
        """Measure ``samples`` against each reference, as the record tells it."""
        features, drawn = self.detector(samples), spectrum(samples)
        return [
            self._told(name, estimate, reference, len(samples), drawn)
            for reference in self.references(len(samples))
            for name, estimate in reference.hold(self.frechet_name, features, drawn).items()
        ]

    def references(self, count: int) -> list[Reference]:
        """Return what ``count`` samples are held against, worked out once."""
        if count not in self._references:
            self._references[count] = [self._held_out(count), *([self._training(count)] if self.redraws else [])]
        return self._references[count]

    @cached_property
    def _held_out_spectrum(self) -> Spectrum:
        return spectrum(self.dataset.held_out)

    def _held_out(self, count: int) -> Reference:
        """Return the held-out split; its real images are ``count`` of the training split."""
        train, chosen = self.dataset.train, None
        if len(train) >= count:
            random = np.random.default_rng(seed_of(self.seed, "floor"))
            chosen = np.sort(random.choice(len(train), count, replace=False))
        return self._reference("held-out", self.dataset.held_out, self._held_out_spectrum, chosen)

    def _training(self, count: int) -> Reference:
        """Return the training split; its real images are ``count`` draws from itself."""
        train = self.dataset.train
        chosen = np.random.default_rng(seed_of(self.seed, "redrawn")).choice(len(train), count)
        return self._reference("train", train, spectrum(train), chosen)

    def _reference(self, split: str, images: Images, powers: Spectrum, chosen: Floats | None) -> Reference:
        """Return ``images`` as a reference whose real images are those of the training split that are ``chosen``."""
        held = self._statistics(split, images)
        words = "training" if split == "train" else split
        name = f"{words} split, {len(images)} images"
        gaussian = Gaussian(held.mean, held.covariance)
        bare = Reference(split, name, held.sha256, gaussian, held.features, powers, {})
        if chosen is None:
            return bare
        train = self.dataset.train
        # What is drawn from the reference itself has been looked at already.
        features = held.features[chosen] if split == "train" else self._statistics("train", train, chosen).features
        return replace(bare, real=bare.hold(self.frechet_name, features, spectrum(train[chosen])))

    def _statistics(self, split: str, images: Images, indices: Floats | None = None) -> Statistics:
        fingerprint = self.dataset.fingerprint
        return statistics(self.detector, self.options, images, fingerprint=fingerprint, split=split, indices=indices)

    def _told(self, name: str, estimate: Estimate, reference: Reference, n: int, drawn: Spectrum) -> Json:
        """Return one metric as the record tells it."""
        detector, of_pixels = self.detector, name in OF_PIXELS
        floor = reference.real.get(name)
        told = {
            "name": name,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": min(n, len(reference.features)) if name in OF_EQUAL_NUMBERS else n,
            "detector": None if of_pixels else f"{detector.name} {detector.version}",
            "detector_hash": None if of_pixels else detector.weights_hash,
            "reference": reference.name,
            "reference_hash": reference.sha256,
            "resize": None if of_pixels else detector.resize,
            "higher_is_better": name in HIGHER_IS_BETTER,
            "split": reference.split,
            "floor": None if floor is None else floor.value,
            "interval": None if estimate.half is None else INTERVALS.get(name, INTERVAL),
        }
        if of_pixels:
            told["frequencies"] = drawn.frequencies.tolist()
            told["power"], told["reference_power"] = drawn.power.tolist(), reference.spectrum.power.tolist()
        return told
