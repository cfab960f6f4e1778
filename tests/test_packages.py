"""The packages under plugins/, and those that `plugins new` writes: built, installed beside dvbench, tested and run.

Each gets a virtual environment of its own with the wheels of dvbench and of the package; torch and the other packages
are those of the environment that the tests run in.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from dvbench import record as records
from dvbench.api import KINDS
from dvbench.scaffold import create

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# For each package: what to check, and the options of a run that uses it.
PACKAGES = {
    "dvbench-wavelets": (["db2", "coif1", "wavelet"], ["--basis", "db2"]),
    "dvbench-diffusers": (["diffusers-unet"], ["--backbone", "diffusers-unet"]),
    "dvbench-dit": (["dit"], ["--backbone", "dit", "--set", "backbone.depth=2"]),
    "dvbench-lite2": (["lite2"], ["--detector", "lite2"]),
}
SHORT = ["--train-images", "80", "--samples", "8", "--sample-steps", "4", "--threads", "1", "--precision", "fp32"]
FEW = ["--set", "dataset.train_images=200", "--set", "dataset.held_out_images=40"]


@dataclass(frozen=True)
class Venv:
    """A virtual environment, and an empty directory to work in."""

    python: Path
    work: Path

    def run(self, *words, code=0, cwd=None):
        """Run a module of the environment's Python and return what it prints."""
        # Not the checkout that the tests run from: only what was installed.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
        command = [self.python, "-m", *map(str, words)]
        done = subprocess.run(
            command, cwd=cwd or self.work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def build(source, folder):
    """Build the wheel of the package in ``source``."""
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def dvbench_wheel(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dvbench"))


@pytest.fixture
def install(dvbench_wheel, tmp_path):
    """Return a function that installs packages' sources beside dvbench's wheel."""

    def make(*sources):
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
        python = next((tmp_path / "venv").glob("bin/python")).absolute()
        site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
        # After the environment's own: of two dvbench the wheel's is found.
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        wheels = [dvbench_wheel, *(build(source, tmp_path) for source in sources)]
        command = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed", "-q", *wheels]
        subprocess.run(command, check=True, capture_output=True)
        work = tmp_path / "work"
        work.mkdir()
        return Venv(python, work)

    return make


def last_record(venv):
    (path,) = venv.work.glob("results/cats/*/record.json")
    return records.read(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_installs_conforms_passes_its_tests_and_runs(package, install):
    venv = install(ROOT / "plugins" / package)
    where = venv.run("dvbench", "--version") and venv.run("site")
    assert str(venv.python.parents[1]) in where

    listed = json.loads(venv.run("dvbench", "plugins", "list", "--json"))
    own = [row for row in listed if row["distribution"] == package]
    assert own
    assert {row["state"] for row in own} == {"active"}
    assert [row for row in listed if row["state"] != "active"] == []

    names, options = PACKAGES[package]
    for name in names:
        told = venv.run("dvbench", "plugins", "check", name)
        assert "FAILS" not in told
        assert told.count("  holds  ") > 5
    outcome = venv.run("pytest", ROOT / "plugins" / package, "-p", "no:cacheprovider")
    assert re.search(r"\d+ passed", outcome)
    assert "failed" not in outcome

    venv.run("dvbench", "run", "cats", *options, *SHORT, *FEW)
    record = last_record(venv)
    assert record.status == "finished"
    assert record.environment.plugins[package] == "0.1.0"
    assert "dvbench" in record.environment.plugins
    assert record.metrics


def test_dvbench_imports_none_of_them():
    modules = {package.replace("-", "_") for package in PACKAGES}
    assert modules == {path.name for path in ROOT.glob("plugins/*/dvbench_*")}
    for path in ROOT.glob("dvbench/**/*.py"):
        assert not re.search(rf"^\s*(from|import) ({'|'.join(modules)})\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("kind", KINDS)
def test_what_plugins_new_writes_installs_passes_its_tests_and_runs(kind, install, tmp_path):
    source = tmp_path / "dvbench-mine"
    create(source, kind)
    venv = install(source)
    assert "FAILS" not in venv.run("dvbench", "plugins", "check", "mine")
    outcome = venv.run("pytest", source, "-p", "no:cacheprovider")
    assert re.search(r"\d+ passed", outcome)
    assert "failed" not in outcome
    chosen = ["--set", "dataset.name=mine"] if kind == "dataset" else [f"--{kind}", "mine", *FEW]
    venv.run("dvbench", "run", "cats", *chosen, *SHORT)
    record = last_record(venv)
    assert record.status == "finished"
    assert record.environment.plugins["dvbench-mine"] == "0.1.0"


def test_the_command_of_a_package_tells_what_its_page_says(install):
    """The page's figures come from a committed record; other processors may round otherwise."""
    page = (ROOT / "plugins/dvbench-lite2/README.md").read_text()
    command, shown = re.search(r"```console\n\$ (dvbench memorised [^\n]*)\n(.*?)```", page, re.DOTALL).groups()
    venv = install(ROOT / "plugins/dvbench-lite2")
    told = venv.run(*command.split(), cwd=ROOT)
    assert re.sub(r"[\d.+]+", "#", told.strip()) == re.sub(r"[\d.+]+", "#", shown.strip())

    def numbers(text):
        return [float(number) for number in re.findall(r"(?<![\w.-])[+]?\d+(?:\.\d+)?", text)]

    assert numbers(told) == pytest.approx(numbers(shown), rel=0.02)
