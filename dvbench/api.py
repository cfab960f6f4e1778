"""What a plugin author subclasses and registers. Importing this module imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pluggy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from dvbench.process import Process

    Images: TypeAlias = npt.NDArray[np.uint8]
    Features: TypeAlias = npt.NDArray[np.floating[Any]]

Kind: TypeAlias = Literal["basis", "schedule", "backbone", "sampler", "dataset", "detector"]
KINDS: tuple[Kind, ...] = ("basis", "schedule", "backbone", "sampler", "dataset", "detector")

hookimpl = pluggy.HookimplMarker("dvbench")


@dataclass(frozen=True)
class Plugin:
    """One thing that a distribution offers.

    ``name`` is what users type; ``target`` a class, or "package.module:Class", imported only when the name is asked
    for; ``summary`` one line for listings. The class's keyword parameters, with their defaults and types, are its
    configuration.
    """

    name: str
    target: type | str
    summary: str


class Basis(ABC):
    """Linear maps between the grids of a ladder of side lengths, each with orthonormal rows.

    ``ladder`` is the falling list of side lengths; ``channels`` the images' channel count. Raise ValueError, in one
    sentence, for a ladder that does not suit. A basis that learns adds ``fit(images)`` (float [N, C, n_0, n_0] in
    [-1, 1], at most 10,000 of the training split), ``state()``, a dict of tensors, and ``load(state)``; what it learned
    is kept with the run's weights.
    """

    def __init__(self, ladder: Sequence[int], channels: int) -> None:
        self.ladder = tuple(ladder)
        self.channels = channels

    @classmethod
    def usable(cls, ladder: Sequence[int]) -> tuple[int, ...]:
        """Return the part of ``ladder`` that this basis descends: all of it, unless the basis has no levels."""
        return tuple(ladder)

    @abstractmethod
    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n, n] on the grid of ``level`` to the grid of ``level`` + 1."""

    @abstractmethod
    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n, n] on the grid of ``level`` + 1 to the grid of ``level``: the adjoint of ``project``."""


class Schedule(ABC):
    """How signal fades and noise grows over the steps 0..T.

    Attributes (all set by the constructor, numpy float64): ``gains`` [K+1, T+1], the signal's gain of each component,
    1 at t = 0; ``sigma`` [T+1], the noise level, 0 at t = 0; ``turns`` [K], the turning points as step numbers,
    rising, where a turning point at T never drops and may repeat.
    """

    gains: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64]
    turns: tuple[int, ...]

    def __init__(self, ladder: Sequence[int], steps: int) -> None:
        self.ladder = tuple(ladder)
        self.steps = steps


Denoise: TypeAlias = "Callable[[torch.Tensor, int, int], torch.Tensor]"
Noise: TypeAlias = "Callable[[int], torch.Tensor]"


class Sampler(ABC):
    """Turns noise into images with exactly as many network calls as it is asked for.

    ``uses_uncertainty`` says that it asks ``denoise.uncertainty(x, t, level)`` too: the variance of a coordinate of
    each component ``level``..K of x_0 given x_t, tensors [B, 1, 1, 1]. Only a network that knows the data can tell it.
    """

    uses_uncertainty: bool = False

    @abstractmethod
    def sample(self, denoise: Denoise, process: Process, noise: Noise, steps: int) -> torch.Tensor:
        """Return images [B, C, n_0, n_0] at level 0, jumps included.

        ``denoise(x, t, level)`` estimates x_0 on the grid of ``level`` from x at step ``t``; ``noise(level)`` draws
        white noise [B, C, n, n] on the grid of ``level``, each image of the batch from a generator of its own.
        """


class Dataset(ABC):
    """Images of one size, split into a training and a held-out part that share no picture pixel for pixel.

    ``channels`` tells the images' channel count before any is read, which a constructor does not do: costs are worked
    out without data.
    """

    channels: int = 3

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    @abstractmethod
    def train(self) -> Images:
        """The training split, uint8, N x H x W x C (memory-mapped where large); read-only."""

    @property
    @abstractmethod
    def held_out(self) -> Images:
        """The held-out split, uint8, N x H x W x C; read-only."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A SHA-256 in hexadecimal that changes when any pixel of either split changes."""


class Detector(ABC):
    """Maps images to features whose distribution is compared.

    ``name`` and ``version`` name it in records, ``weights_hash`` is the SHA-256 of its weights, ``resize`` says in
    words how images reach the size that it looks at.
    """

    name: str
    version: str
    weights_hash: str
    resize: str

    @abstractmethod
    def __call__(self, images: Images) -> Features:
        """Map uint8 images N x H x W x C to float features [N, D]."""
