"""Stands between the bench and plugins: a result that is not what was promised is a sentence, not a wrong figure.

Shapes are watched all the time; where values that are not finite come from is looked for only once a result has some.
What a plugin raises is told with its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from dvbench.api import Basis, Dataset, Detector, Kind, Sampler
from dvbench.backbone import Backbone
from dvbench.errors import DvbenchError, UsageError, WorkError
from dvbench.memory import ran_out
from dvbench.offers import failure, raised
from dvbench.process import Process

if TYPE_CHECKING:
    from dvbench.api import Denoise, Features, Images, Noise
    from dvbench.prediction import Prediction

# The share by which float32 may miss: half of its digits, far above rounding and far below what a wrong basis misses.
ROUNDING = torch.finfo(torch.float32).eps ** 0.5
# Bytes of pictures that are looked through for some that are in both splits: less than 50 ms.
LOOKED_THROUGH = 2**26


class NotFiniteError(WorkError):
    """A result holds values that are not finite, and who made the first of them is to be found."""


class Guard:
    """Watches the parts of a run. ``labels`` say whose each kind's is: "basis corner of dvbench-corner 0.1.0"."""

    def __init__(self, labels: Mapping[Kind, str]) -> None:
        self.labels = labels
        self.searching = False

    def fail(self, kind: Kind, complaint: str) -> NoReturn:
        """Raise WorkError: the part of ``kind`` did not do what it must."""
        raise failure(self.labels[kind], complaint)

    def raised(self, kind: Kind, asked: str, error: BaseException) -> NoReturn:
        """Raise WorkError for what the part of ``kind`` raised when it was ``asked`` for something.

        Errors for the user pass, and those of full memory, after which fewer images are tried.
        """
        if isinstance(error, DvbenchError) or ran_out(error):
            raise error
        raise raised(self.labels[kind], asked, error) from error

    @contextmanager
    def asking(self, kind: Kind, asked: str) -> Iterator[None]:
        """Do what ``raised`` does with whatever the part raises, SystemExit included."""
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
            self.raised(kind, asked, error)

    def has(self, kind: Kind, part: object, *names: str) -> None:
        """Raise WorkError where the constructor of ``part`` did not leave it what its base class sets."""
        for name in names:
            if not hasattr(part, name):
                self.fail(kind, f"has no {name}, which super().__init__({', '.join(names)}) sets")

    @contextmanager
    def search(self) -> Iterator[None]:
        """Look at all values that the basis and the network return: the first that are not finite raise WorkError."""
        self.searching = True
        try:
            yield
        finally:
            self.searching = False

    def watch(self, kind: Kind, does: str, given: torch.Tensor, result: Any, wanted: tuple[int, ...]) -> None:
        """Hold ``result``, which ``does`` made of ``given``, against the shape ``wanted``."""
        if not isinstance(result, torch.Tensor) or result.shape != wanted:
            found = f"the shape {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
            self.fail(kind, f"returns {found} from {does}, not {tuple(wanted)}")
        if self.searching and bool(given.isfinite().all()) and not bool(result.isfinite().all()):
            self.fail(kind, f"returns values that are not finite from {does}")

    def network(self, network: Backbone) -> Backbone:
        """Watch a network's answers, whoever asks."""
        self.has("backbone", network, "ladder", "channels")

        def answered(_network: torch.nn.Module, asked: tuple[Any, ...], named: dict[str, Any], said: Any) -> None:
            if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # torch gives it no types
                return  # shapes are tensors there
            level = named["level"] if "level" in named else asked[2]
            self.watch("backbone", f"forward at level {level}", asked[0], said, asked[0].shape)

        network.register_forward_hook(answered, with_kwargs=True)
        return network

    def prepare(
        self, network: Backbone, process: Process, images: Images, prediction: Prediction, device: torch.device
    ) -> None:
        """Let a network that asks for it see the training split, and see that it answers at every level.

        What is wrong with it is found before it is trained; the answers to a batch are watched later.
        """
        if prepare := getattr(network, "prepare", None):
            with self.asking("backbone", "asked to prepare(process, images, prediction)"):
                prepare(process, images, prediction)
        given = {
            level: (torch.zeros(1, network.channels, side, side, device=device), torch.ones(1, device=device))
            for level, side in enumerate(process.ladder)
        }
        trains = network.training
        with torch.no_grad(), self.asking("backbone", "asked for forward(x, t, level) and at_levels(inputs)"):
            network.eval()
            for level, (x, t) in given.items():
                network(x, t, level)
            said: Any = network.at_levels(given)
        network.train(trains)
        for level, (x, _) in given.items():
            if not isinstance(said, Mapping) or level not in said:
                found = f"the levels {sorted(said)}" if isinstance(said, Mapping) else type(said).__name__
                self.fail("backbone", f"returns {found} from at_levels, not what it was asked: {sorted(given)}")
            self.watch("backbone", f"at_levels at level {level}", x, said[level], tuple(x.shape))

    def fit(self, basis: Any, images: torch.Tensor) -> None:
        """Let a basis learn from ``images``, and see that what it learned can be kept."""
        with self.asking("basis", "asked to fit(images)"):
            basis.fit(images)
        with self.asking("basis", "asked for state()"):
            state = basis.state()
        if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            self.fail("basis", "returns from state() what is no dict of tensors")

    def basis(self, basis: Basis) -> None:
        """Hold each level's maps against what the process takes for granted: orthonormal rows, and their adjoint."""
        generator = torch.Generator().manual_seed(0)
        for level, sides in enumerate(pairwise(basis.ladder)):
            x, y = (torch.randn(1, basis.channels, side, side, generator=generator) for side in sides)
            with self.search():
                below, above = basis.project(x, level), basis.embed(y, level)
                back = basis.project(above, level)
            for name, result in (("project", below), ("embed", above)):
                if result.dtype != x.dtype:
                    self.fail("basis", f"returns {result.dtype} from {name} at level {level}, not {x.dtype}")
            if float((back - y).norm() / y.norm()) > ROUNDING:
                self.fail("basis", f"has no orthonormal rows at level {level}: project(embed(y)) is not y")
            # <P x, y> and <x, E y> of a standard normal x differ by some |y| where E is not P's adjoint.
            if abs(_product(below, y) - _product(x, above)) / float(y.norm()) > ROUNDING:
                self.fail("basis", f"has an embed at level {level} that is not the adjoint of project")

    def dataset(self, dataset: Dataset, size: int) -> Dataset:
        """Check both splits once. UsageError: what cannot be trained on, or measured against.

        Pictures in both splits are looked for where there are not more than ``LOOKED_THROUGH`` bytes.
        """
        label, mend = self.labels["dataset"], "mend it, or choose another dataset"
        for split, fewest in (("train", 1), ("held_out", 2)):  # a covariance needs two
            with self.asking("dataset", f"asked for {split}"):
                images: Any = getattr(dataset, split)
            whole = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
            alike = whole and images.shape[1:] == (size, size, dataset.train.shape[-1]) and images.shape[3] in {1, 3}
            if not alike or len(images) < fewest:
                found = f"{getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}"
                raise UsageError(
                    f"{label} has a split {split} of {found}, which must be uint8 N x {size} x {size} x C with 1 or 3 "
                    f"channels and N at least {fewest}: {mend}"
                )
        with self.asking("dataset", "asked for fingerprint"):
            fingerprint: Any = dataset.fingerprint
        if not isinstance(fingerprint, str):
            raise UsageError(f"{label} has the fingerprint {fingerprint!r}, which must be a text: {mend}")
        train, held_out = dataset.train, dataset.held_out
        if train.nbytes + held_out.nbytes <= LOOKED_THROUGH:
            known = {picture.tobytes() for picture in held_out}
            if shared := sum(picture.tobytes() in known for picture in train):
                raise UsageError(f"{label} has {shared} pictures of the training split in the held-out one too: {mend}")
        return dataset


def _product(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() * b.double()).sum())


class WatchedBasis(Basis):
    """A basis whose results are watched; for all else it is the basis itself."""

    def __init__(self, basis: Basis, guard: Guard) -> None:
        guard.has("basis", basis, "ladder", "channels")
        super().__init__(basis.ladder, basis.channels)
        self._basis, self._guard = basis, guard

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Project, and watch."""
        return self._watched("project", x, level, self.ladder[level + 1])

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Embed, and watch."""
        return self._watched("embed", y, level, self.ladder[level])

    def _watched(self, name: str, given: torch.Tensor, level: int, side: int) -> torch.Tensor:
        try:  # not `asking`, which would take time at every step
            result: torch.Tensor = getattr(self._basis, name)(given, level)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
            self._guard.raised("basis", f"asked to {name} at level {level}", error)
        self._guard.watch("basis", f"{name} at level {level}", given, result, (*given.shape[:-2], side, side))
        return result

    def __getattr__(self, name: str) -> Any:
        """Return what a basis that learns has besides: fit, state, load."""
        if name.startswith("_"):  # not yet there, while a copy is made
            raise AttributeError(name)
        return getattr(self._basis, name)


class WatchedSampler(Sampler):
    """A sampler whose calls are counted, since costs are worked out from their number, and whose images are watched."""

    def __init__(self, sampler: Sampler, guard: Guard) -> None:
        self._sampler, self._guard = sampler, guard
        self.uses_uncertainty = sampler.uses_uncertainty

    def sample(self, denoise: Denoise, process: Process, noise: Noise, steps: int) -> torch.Tensor:
        """Sample, and watch. NotFiniteError: images that are not finite, whosever fault it is."""
        counted = CountedCalls(denoise, process, self._guard)
        with self._guard.asking("sampler", "asked to sample(denoise, process, noise, steps)"):
            images = self._sampler.sample(counted, process, noise, steps)
        calls, asked = counted.per_level(process.K), process.steps_per_level(steps)
        if calls != asked:
            self._guard.fail("sampler", f"calls the network {calls} times, level by level, where {asked} was asked for")
        self._guard.watch("sampler", "sample", images, images, counted.batch + (process.ladder[0],) * 2)
        if not bool(images.isfinite().all()):
            raise NotFiniteError(f"{self._guard.labels['sampler']} ends at values that are not finite")
        return images


class CountedCalls:
    """A network as a sampler sees it, which remembers the level of each call."""

    def __init__(self, denoise: Denoise, process: Process, guard: Guard) -> None:
        self._denoise, self._ladder, self._guard = denoise, process.ladder, guard
        self.levels: list[int] = []
        self.batch: tuple[int, ...] = ()

    def __call__(self, x: torch.Tensor, t: int, level: int) -> torch.Tensor:
        """Ask the network; what goes wrong then is not the sampler's fault, unless it asks for what there is not."""
        if not 0 <= level < len(self._ladder) or x.shape[-1] != self._ladder[level]:
            self._guard.fail("sampler", f"calls the network at level {level} with the shape {tuple(x.shape)}")
        self.levels.append(level)
        self.batch = tuple(x.shape[:2])
        with self._guard.asking("backbone", f"asked for x_0 at step {t}, level {level}"):
            said: torch.Tensor = self._denoise(x, t, level)
        return said

    def per_level(self, K: int) -> list[int]:
        """Return the number of calls at each level 0..K."""
        return [self.levels.count(level) for level in range(K + 1)]

    def __getattr__(self, name: str) -> Any:
        """Return what the network can tell besides: its uncertainty."""
        return getattr(self._denoise, name)


class WatchedDetector(Detector):
    """A detector whose features are watched; for all else it is the detector itself."""

    def __init__(self, detector: Detector, guard: Guard) -> None:
        for name in ("name", "version", "weights_hash", "resize"):
            if not isinstance(said := getattr(detector, name, None), str):
                guard.fail("detector", f"has the {name} {said!r}, which must be a text for the record")
        if detector.name == "inception" and type(detector).__module__.partition(".")[0] != "dvbench":
            guard.fail("detector", "is called inception, as the network alone is whose distance is FID")
        self._detector, self._guard = detector, guard

    def __call__(self, images: Images) -> Features:
        """Map uint8 images N x H x W x C to float features [N, D]."""
        with self._guard.asking("detector", f"asked for the features of {len(images)} images"):
            said: Any = self._detector(images)
        if not isinstance(said, np.ndarray) or said.dtype.kind != "f" or said.ndim != 2 or len(said) != len(images):
            found = f"{getattr(said, 'dtype', type(said).__name__)} {np.shape(said)}"
            self._guard.fail("detector", f"returns features of {found}, not floats ({len(images)}, D)")
        if not np.isfinite(said).all():
            self._guard.fail("detector", "returns features that are not finite")
        return said

    def __getattr__(self, name: str) -> Any:
        """Return what names it in records."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._detector, name)
