"""Stands between the bench and plugins: a result that is not what was promised is a sentence, not a wrong figure.

Shapes are watched all the time; where values that are not finite come from is looked for only once a result has some.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from dvbench.api import Basis, Dataset, Detector, Kind, Sampler
from dvbench.backbone import Backbone
from dvbench.errors import UsageError, WorkError
from dvbench.process import Process

if TYPE_CHECKING:
    from dvbench.api import Denoise, Features, Images, Noise


class NotFiniteError(WorkError):
    """A result holds values that are not finite, and who made the first of them is to be found."""


class Guard:
    """Watches the parts of a run. ``labels`` say whose each kind's is: "basis corner of dvbench-corner 0.1.0"."""

    def __init__(self, labels: Mapping[Kind, str]) -> None:
        self.labels = labels
        self.searching = False

    def fail(self, kind: Kind, complaint: str) -> NoReturn:
        """Raise WorkError: the part of ``kind`` did not do what it must."""
        name = self.labels[kind].split()[1]
        raise WorkError(
            f"{self.labels[kind]} {complaint}: mend it (`dvbench plugins check {name}` shows what holds and what does "
            f"not), or choose another {kind}"
        )

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

        def answered(_network: torch.nn.Module, asked: tuple[Any, ...], named: dict[str, Any], said: Any) -> None:
            if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # torch gives it no types
                return  # shapes are tensors there
            level = named["level"] if "level" in named else asked[2]
            self.watch("backbone", f"forward at level {level}", asked[0], said, asked[0].shape)

        network.register_forward_hook(answered, with_kwargs=True)
        return network

    def dataset(self, dataset: Dataset, size: int) -> Dataset:
        """Check both splits once. UsageError: arrays of another kind than uint8 N x size x size x 1 or 3."""
        for split in ("train", "held_out"):
            images: Any = getattr(dataset, split)
            whole = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and len(images)
            if not (whole and images.shape[1:] == (size, size, dataset.train.shape[-1]) and images.shape[3] in {1, 3}):
                found = f"{getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}"
                raise UsageError(
                    f"{self.labels['dataset']} has a split {split} of {found}, which must be uint8 N x {size} x {size} "
                    "x C with 1 or 3 channels: mend it, or choose another dataset"
                )
        return dataset


class WatchedBasis(Basis):
    """A basis whose results are watched; for all else it is the basis itself."""

    def __init__(self, basis: Basis, guard: Guard) -> None:
        super().__init__(basis.ladder, basis.channels)
        self._basis, self._guard = basis, guard

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Project, and watch."""
        return self._watched("project", x, level, self.ladder[level + 1])

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Embed, and watch."""
        return self._watched("embed", y, level, self.ladder[level])

    def _watched(self, name: str, given: torch.Tensor, level: int, side: int) -> torch.Tensor:
        result: torch.Tensor = getattr(self._basis, name)(given, level)
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
        counted = CountedCalls(denoise)
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

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.levels: list[int] = []
        self.batch: tuple[int, ...] = ()

    def __call__(self, x: torch.Tensor, t: int, level: int) -> torch.Tensor:
        """Ask the network."""
        self.levels.append(level)
        self.batch = tuple(x.shape[:2])
        return self._denoise(x, t, level)

    def per_level(self, K: int) -> list[int]:
        """Return the number of calls at each level 0..K."""
        return [self.levels.count(level) for level in range(K + 1)]

    def __getattr__(self, name: str) -> Any:
        """Return what the network can tell besides: its uncertainty."""
        return getattr(self._denoise, name)


class WatchedDetector(Detector):
    """A detector whose features are watched; for all else it is the detector itself."""

    def __init__(self, detector: Detector, guard: Guard) -> None:
        self._detector, self._guard = detector, guard

    def __call__(self, images: Images) -> Features:
        """Map uint8 images N x H x W x C to float features [N, D]."""
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
