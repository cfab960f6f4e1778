"""What the documentation shows works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dvbench import record as records
from dvbench.registry import Registry

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*.md")]


def test_the_plugin_of_the_docs_is_an_orthonormal_basis(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL).group(1)
    (tmp_path / "dvbench_corner.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import dvbench_corner

    registry = Registry({"dvbench-corner": dvbench_corner}, entry_points=[])
    assert not registry.problems
    basis = registry.create("basis", "corner", {"ladder": (8, 5), "channels": 2}, {})
    y = torch.randn(3, 2, 5, 5)
    assert torch.equal(basis.project(basis.embed(y, 0), 0), y)
    del sys.modules["dvbench_corner"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


SHOWN = [
    (page, command, shown)
    for page in PAGES
    for command, shown in re.findall(r"```console\n\$ (dvbench compare [^\n]*)\n(.*?)```", page.read_text(), re.DOTALL)
]


def test_the_readme_shows_a_comparison():
    assert "README.md" in {page.name for page, _, _ in SHOWN}


@pytest.mark.parametrize(("page", "command", "shown"), SHOWN, ids=lambda value: getattr(value, "name", None))
def test_every_table_is_what_its_command_prints_of_the_committed_records(page, command, shown):
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    run = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    def words(text):
        return [line.rstrip() for line in text.strip().splitlines()]

    assert words(shown) == words(run.stdout)


@pytest.mark.parametrize("path", sorted((ROOT / "results/reference").rglob("record.json")), ids=lambda p: p.parent.name)
def test_every_committed_record_is_whole_and_was_made_by_a_committed_program(path):
    record = records.read(path)
    assert record.status == "finished"
    assert record.run_id == path.parent.name
    assert record.environment.git_commit
    assert record.environment.git_dirty is False
    assert (path.parent / "samples.png").exists()
