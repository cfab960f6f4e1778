"""Packages that are known to bring plugins, so that asking for one that is not installed says where to get it."""

from __future__ import annotations

import re

# For each distribution, the names that it offers, by kind.
KNOWN: dict[str, dict[str, str]] = {
    "dvbench-wavelets": {"basis": r"wavelet|db\d+|sym\d+|coif\d+"},
    "dvbench-diffusers": {"backbone": r"diffusers-unet"},
    "dvbench-dit": {"backbone": r"dit"},
    "dvbench-lite2": {"detector": r"lite2"},
}


def bringer(kind: str, name: str) -> str | None:
    """Return the distribution that is known to offer ``name``, None where none is."""
    bare = name.rpartition(":")[2]
    return next((dist for dist, offers in KNOWN.items() if re.fullmatch(offers.get(kind, r"(?!)"), bare)), None)
