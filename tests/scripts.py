"""The scripts under benchmarks/, which import one another as Python lets a script do: from their own directory."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

DIRECTORY = str(Path(__file__).parents[1] / "benchmarks")


def script(name):
    """Import the script ``name`` as a module."""
    if DIRECTORY not in sys.path:
        sys.path.append(DIRECTORY)
    return importlib.import_module(name)
