"""The studies: what their tables are made of is committed, whole, and from the runs that the script names."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from dvbench import record as records
from dvbench.entry import configurations, overrides

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("studies", ROOT / "benchmarks/studies.py")
studies = importlib.util.module_from_spec(SPEC)
sys.modules["studies"] = studies  # where its dataclass looks for its annotations
SPEC.loader.exec_module(studies)


def resolved(job):
    benchmark, options = job
    settings = options.pop("set")
    (config,) = configurations(benchmark, overrides(options, settings), baseline=False)
    return records.digest(config.to_json())


@pytest.mark.parametrize("name", studies.STUDIES)
def test_every_run_of_a_study_is_committed_and_no_other(name):
    wanted = [resolved(job) for job in studies.STUDIES[name].jobs()]
    found = [records.read(path).config_hash for path in (studies.RESULTS / name).rglob("record.json")]
    assert len(set(wanted)) == len(wanted) == len(found)
    assert set(wanted) == set(found)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_study_is_shown_and_plotted_from_its_records(name, tmp_path):
    plot = tmp_path / "made" / "plot.svg"
    result = CliRunner().invoke(studies.main, [name, "--show", "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert " ± " in result.output
    root = ET.parse(plot).getroot()
    assert root.tag.endswith("svg")
    first = plot.read_bytes()
    CliRunner().invoke(studies.main, [name, "--show", "--plot", str(plot)])
    assert plot.read_bytes() == first  # equal records, equal file


def test_a_cell_is_a_mean_over_the_seeds_with_its_standard_error():
    runs = studies.read(studies.RESULTS / "presets")
    values = [
        studies.labelled(record)["FD (lite0, train)"].value
        for path in (studies.RESULTS / "presets" / "faces").rglob("record.json")
        if (record := records.read(path)).method.basis == "haar"
    ]
    assert len(values) == 5
    mean = sum(values) / 5
    error = (sum((value - mean) ** 2 for value in values) / 4 / 5) ** 0.5
    (line,) = re.findall(r"\| `subspace` .*", studies.STUDIES["presets"].table(runs))
    assert f"| {mean:.1f} ± {error:.1f} " in line


def test_nothing_to_show_is_one_sentence(tmp_path):
    result = CliRunner().invoke(studies.main, ["steps", "--show", "--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "there are no finished runs under" in result.output
