"""The low-pass band of an orthogonal wavelet as a basis: a small matrix, built from pywt's own transform."""

# pywt may come without types.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pywt
import torch

from dvbench import Basis
from dvbench.errors import unknown
from dvbench_wavelets import NAMES, describe

# The tables of the symlets are exact to 1e-11; that of dmey, a finite filter for an infinite one, to 1e-2.
ROUNDING = 1e-9

MEND = "take an orthogonal one, such as db2, sym4 or coif1"


class Wavelet(Basis):
    """The approximation band of the periodised 2-D wavelet transform (Mallat 1989; Daubechies 1992).

    ``wavelet`` is pywt's name of an orthogonal wavelet. Each drop of the ladder halves the side, once or more. With
    P [n', n] the low-pass band of pywt's ``dwt(..., mode="periodization")`` on one axis, ``project`` is P x P^T, and so
    pywt's ``dwt2(x, wavelet, mode="periodization")[0]`` of every image and channel; ``embed`` is its adjoint P^T y P.
    A filter longer than the side wraps around more than once and stays orthonormal. Raises ValueError for a ladder
    whose sides do not halve and for a wavelet that is not orthogonal, UsageError for one that pywt does not know.
    """

    def __init__(self, ladder: Sequence[int], channels: int, wavelet: str = "db2") -> None:
        super().__init__(ladder, channels)
        self.wavelet = wavelet
        filters(wavelet)  # refused even where the ladder has no drop
        for finer, coarser in pairwise(self.ladder):
            lowpass(wavelet, finer, coarser, torch.float64, torch.device("cpu"))

    def project(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n, n] to [B, C, n', n'] by P x P^T."""
        p = lowpass(self.wavelet, self.ladder[level], self.ladder[level + 1], x.dtype, x.device)
        return p @ (x @ p.T)

    def embed(self, y: torch.Tensor, level: int) -> torch.Tensor:
        """Map [B, C, n', n'] to [B, C, n, n] by P^T y P."""
        p = lowpass(self.wavelet, self.ladder[level], self.ladder[level + 1], y.dtype, y.device)
        return p.T @ (y @ p)


class Named(Wavelet):
    """A Wavelet whose class says which, so that it needs no option; one subclass for each of NAMES."""

    which: str

    def __init__(self, ladder: Sequence[int], channels: int) -> None:
        super().__init__(ladder, channels, self.which)


@functools.cache
def __getattr__(name: str) -> type[Named]:
    """Make the class of one of NAMES when it is asked for: ``bases.db2``."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (Named,), {"which": name, "__doc__": f"{describe(name)}.", "__module__": __name__})


@functools.cache
def filters(name: str) -> pywt.Wavelet:
    """Return pywt's filters. ValueError: a wavelet that is not orthogonal; UsageError: an unknown one."""
    if name not in pywt.wavelist(kind="discrete"):
        raise unknown("wavelet", name, NAMES)
    wavelet = pywt.Wavelet(name)
    if not wavelet.orthogonal:
        raise ValueError(f"{name} is biorthogonal, so its rows are not orthonormal: {MEND}")
    return wavelet


@functools.cache
def lowpass(name: str, finer: int, coarser: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return P [coarser, finer], computed in float64. ValueError: sides that do not halve, or rows not orthonormal."""
    with torch.inference_mode(mode=False):  # what sampling puts into the cache has to serve training too
        if (dtype, device.type) != (torch.float64, "cpu"):
            return lowpass(name, finer, coarser, torch.float64, torch.device("cpu")).to(dtype).to(device)
        factor = finer // coarser
        if coarser * factor != finer or factor & (factor - 1):
            raise ValueError(f"each side must halve, once or more, and {finer} to {coarser} does not: dct takes any")
        rows = np.eye(finer)
        while len(rows) > coarser:
            rows = pywt.dwt(rows, filters(name), mode="periodization", axis=0)[0]
        return torch.from_numpy(orthonormal(name, rows))


def orthonormal(name: str, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the nearest matrix [n', n] with orthonormal rows (Higham 1986), if ``rows`` are so but for rounding."""
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    if (error := float(np.abs(sizes**2 - 1).max())) > ROUNDING:
        raise ValueError(f"the rows of {name} are not orthonormal at {rows.shape[1]} px, by {error:.1g}: {MEND}")
    nearest: npt.NDArray[np.float64] = left @ right
    return nearest
