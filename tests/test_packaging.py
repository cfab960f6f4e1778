"""The wheel holds what `dvbench run NAME` needs outside a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_carries_the_benchmarks_the_claims_the_licence_and_nothing_of_the_checkout(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("dvbench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"dvbench/benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.yaml")}
    assert {"dvbench/benchmarks/cats.yaml", "dvbench/benchmarks/ffhq1024.yaml"} <= expected <= names
    assert {"dvbench/literature.yaml", "dvbench/record.schema.json"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "results", "plugins"))]
