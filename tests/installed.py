"""Distributions with plugins, laid out in a folder as pip would leave them."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent


def install(folder, name, body, *, version="1.2", module=None, entry_points=None):
    """Put the distribution ``name``, whose module has the source ``body``, into ``folder``."""
    module = module or name.replace("-", "_")
    (folder / f"{module}.py").write_text(dedent(body))
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points or f"[dvbench]\n{module} = {module}\n")


def dvbench(*arguments, path, cwd=None, **environment):
    """Run the program as its users do, with the distributions in ``path`` installed."""
    return subprocess.run(
        [sys.executable, "-m", "dvbench", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False,
        env={**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "COLUMNS": "250", **environment},
    )  # fmt: skip
