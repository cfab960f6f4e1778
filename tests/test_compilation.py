"""The network compiled for each level: the same results, and no compiling while the clock runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dvbench
from benchmarks import write_benchmark
from dvbench import compilation
from dvbench.cli import cli
from dvbench.errors import UsageError
from dvbench.training import Trainer


def test_the_option_makes_another_run_and_its_absence_the_run_that_always_was(tmp_path):
    path = write_benchmark(tmp_path)
    shown = [CliRunner().invoke(cli, ["run", str(path), "--dry-run", *more]).output for more in ([], ["--compile"])]
    assert "compile" not in shown[0]
    assert "compile: true" in shown[1]


def test_a_machine_that_cannot_compile_is_told_of_before_anything_is_written(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no C++ compiler\nwas found")

    monkeypatch.setattr(torch, "compile", fail)
    results = tmp_path / "results"
    told = r"--compile does not work here \(no C\+\+ compiler was found\): install"
    with pytest.raises(UsageError, match=told):
        dvbench.run(str(write_benchmark(tmp_path)), compile=True, results=results)
    assert not results.exists()


@pytest.mark.slow
def test_a_compiled_network_draws_the_same_and_every_graph_is_made_before_the_clock_runs(tmp_path, monkeypatch):
    """Graphs sum in another order, so that four steps of training part by a byte at most."""
    graphs = {}
    train = Trainer.train

    def watched(self, after_step):
        graphs["before"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        train(self, after_step)
        graphs["after"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]

    path = write_benchmark(tmp_path)
    plain = dvbench.run(str(path), results=tmp_path / "results")
    monkeypatch.setattr(Trainer, "train", watched)
    made = dvbench.run(str(path), results=tmp_path / "results", compile=True)
    assert made.config["compile"] is True
    assert made.method.train_hash != plain.method.train_hash
    assert graphs["before"] >= 2  # one a level
    assert graphs["after"] == graphs["before"]
    images = [
        np.load(tmp_path / "results" / "tiny" / record.run_id / "samples.npz")["samples"].astype(int)
        for record in (plain, made)
    ]
    assert np.abs(images[0] - images[1]).max() <= 1
    assert torch._dynamo.config.recompile_limit >= 2 * compilation.GRAPHS
