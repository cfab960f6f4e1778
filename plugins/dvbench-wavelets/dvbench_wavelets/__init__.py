"""Wavelet bases for dvbench. Importing this module imports neither torch nor pywt."""

from __future__ import annotations

from dvbench import Plugin, hookimpl

FAMILIES = {"db": "Daubechies' wavelet", "sym": "symlet", "coif": "coiflet"}

# Those that Ten Lectures on Wavelets (Daubechies 1992) tabulates; `wavelet` takes all that pywt has.
NAMES = (
    *(f"db{order}" for order in range(1, 11)),
    *(f"sym{order}" for order in range(2, 11)),
    *(f"coif{order}" for order in range(1, 6)),
)


@hookimpl
def dvbench_bases() -> list[Plugin]:
    """Offer a basis for each of NAMES, and `wavelet`, which takes the name as an option."""
    summary = "any orthogonal wavelet that PyWavelets knows: --set basis.wavelet=NAME, sides that halve"
    return [
        Plugin("wavelet", "dvbench_wavelets.bases:Wavelet", summary),
        *(Plugin(name, f"dvbench_wavelets.bases:{name}", describe(name)) for name in NAMES),
    ]


def describe(name: str) -> str:
    """Return one line about the wavelet ``name``, one of NAMES: "Daubechies' wavelet of order 2, ..."."""
    family = name.rstrip("0123456789")
    return f"{FAMILIES[family]} of order {name.removeprefix(family)}, low-pass band, sides that halve"
