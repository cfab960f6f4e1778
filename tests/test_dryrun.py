"""What is known of a run's cost before an image is read: against the record of the run itself, and within bounds."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from subprocess import run as call

import pytest
import torch
from click.testing import CliRunner

import dvbench
from benchmarks import write_benchmark
from dvbench import Plugin, hookimpl
from dvbench.bench import configure
from dvbench.builtin.unet import UNet
from dvbench.cli import cli
from dvbench.config import benchmark_directory
from dvbench.dryrun import Forecast
from dvbench.errors import UsageError
from dvbench.measure import flops
from dvbench.registry import Registry, registry
from dvbench.report.table import NONE
from dvbench.times import TrainingTimes

NETWORK = ("params", "uncounted_ops", "forward_flops", "backward_flops", "sample_flops", "train_flops_per_image")
UNKNOWN = (
    *("train_seconds", "sample_seconds", "seconds_per_level", "peak_memory_bytes"),
    *("train_energy_joules", "sample_energy_joules"),
)


def forecast(benchmark, **overrides):
    return Forecast.of(configure(str(benchmark), overrides), registry())


def dry(*arguments):
    return CliRunner().invoke(cli, ["run", *map(str, arguments), "--dry-run"], obj={}, catch_exceptions=False)


@pytest.mark.parametrize("basis", ["dct", "identity"])
def test_it_tells_what_the_record_of_the_run_will(tmp_path, basis):
    benchmark = write_benchmark(tmp_path)
    cost = forecast(benchmark, **{"basis.name": basis}).cost
    record = dvbench.run(str(benchmark), basis=basis, results=tmp_path).cost.model_dump()
    known = (*NETWORK, "flops_per_mac", "steps_per_level", "train_images", "samples")
    # Batches of 16 hold as many images of each level as the share says, so that no rounding is in the figures.
    assert {key: cost[key] for key in known} == {key: record[key] for key in known}
    assert [share * 64 for share in cost["train_share_per_level"]] == record["train_images_per_level"]
    assert cost["train_flops"] == cost["train_flops_per_image"] * 64
    assert {key: cost[key] for key in UNKNOWN} == dict.fromkeys(UNKNOWN)


def test_shares_are_those_of_the_steps_that_training_draws():
    told = forecast("cats", **{"training.shares": None, "training.least_t": 0})
    T = told.config.steps
    drawn = TrainingTimes((T,)).draw(T, torch.Generator().manual_seed(0))  # each step once
    name, options = told.config.plugin("schedule")
    turns = dvbench.create("schedule", name, ladder=told.config.ladder, steps=T, **options).turns
    count = Counter(sum(turn < t for turn in turns) for t in drawn.tolist())
    assert told.cost["train_share_per_level"] == [count[level] / T for level in range(3)]
    assert told.cost["train_flops"] is None  # how many images 150 seconds buy is not known


def test_shares_that_are_asked_for_are_counted_and_those_that_do_not_suit_are_refused():
    plain, told = forecast("cats"), forecast("cats", **{"training.shares": [2, 1, 1]})
    assert told.cost["train_share_per_level"] == [0.5, 0.25, 0.25]
    assert told.cost["train_flops_per_image"] > plain.cost["train_flops_per_image"]
    with pytest.raises(UsageError, match=r"training.shares: 2 shares were given for 3 levels"):
        forecast("cats", **{"training.shares": [2, 1]})


@pytest.mark.parametrize("name", sorted(file.stem for file in benchmark_directory().glob("*.yaml")))
def test_no_benchmark_needs_its_data(name, tmp_path, monkeypatch):
    if name == "ffhq1024":
        pytest.skip("it has a test of its own")
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path))
    cost = forecast(name, **{"basis.name": "dct"}).cost
    assert all(cost[key] for key in NETWORK)
    assert not list(tmp_path.iterdir())


# From a small process: what a child is said to have held at most begins with what its parent held.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime, used.ru_maxrss)
"""


def test_the_largest_is_counted_within_a_minute_and_in_four_gigabytes(tmp_path):
    command = [sys.executable, "-m", "dvbench", "run", "ffhq1024", "--basis", "dct", "--dry-run", "--json"]
    done = call([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, cwd=tmp_path, check=True)
    line, used = done.stdout.splitlines()
    seconds, kilobytes = map(float, used.split())
    cost = json.loads(line)["cost"]
    assert cost["params"] > 1e8
    assert cost["train_flops"] == 32_000_000 * cost["train_flops_per_image"]
    assert seconds < 60
    assert kilobytes * 1024 < 4e9


def test_a_network_larger_than_any_memory_is_counted():
    assert forecast("cats", **{"backbone.width": 2**15}).cost["params"] * 4 > 1e12


@pytest.mark.parametrize(("name", "overrides", "channels"), [
    ("faces", {}, 1),
    ("fashion-mnist", {}, 1),
    ("cats", {}, 3),
    ("folder", {}, 3),
    ("folder", {"dataset.channels": 1}, 1),
])  # fmt: skip
def test_channels_are_those_of_the_dataset(name, overrides, channels):
    told = forecast(name, **overrides, **{"basis.name": "identity"})
    options = told.config.plugin("backbone")[1]
    network = dvbench.create("backbone", "unet", ladder=told.config.ladder, channels=channels, **options)
    assert told.cost["params"] == flops.params(network)


def test_a_basis_that_learns_is_not_fitted():
    assert forecast("folder", **{"basis.name": "pca"}).cost["forward_flops"]


@pytest.mark.parametrize(("overrides", "told"), [
    ({"ladder": [32, 30, 8]}, "30 is no multiple of 4"),
    ({"sampling.steps": 2}, "--sample-steps: 2 sampling steps do not suit T = 250 and 2 turning points: take 3 to 250"),
    ({"sampling.steps": 251}, "--sample-steps: 251 sampling steps do not suit T = 250"),
    ({"ladder": [512, 256, 128]}, "size must be from 16 to 256 pixels"),
    ({"backbone.width": 0}, "must be at least 1"),
    ({"backbone.width": 10**12}, "backbone unet of dvbench .* needs more memory than there is"),
])  # fmt: skip
def test_what_does_not_suit_is_bad_input(overrides, told):
    with pytest.raises(UsageError, match=told):
        forecast("cats", **overrides)


class Looks(UNet):
    """A network whose constructor reads values, as `torch.linspace(...).tolist()` is often used."""

    def __init__(self, ladder, channels, width: int = 8):
        super().__init__(ladder, channels, width=width)
        self.rates = torch.linspace(0, 1, 3).tolist()


class Branches(UNet):
    """A network whose way depends on values."""

    def forward(self, x, t, level):
        return super().forward(x if float(t[0]) > 0.5 else -x, t, level)


class Offers:
    @hookimpl
    def dvbench_backbones(self):
        return [Plugin("looks", Looks, ""), Plugin("branches", Branches, "")]


@pytest.mark.parametrize("name", ["looks", "branches"])
def test_a_network_that_needs_values_is_counted_with_them(name):
    plugins = Registry({"strange": Offers()}, entry_points=())
    overrides = {"backbone.name": name, "backbone.width": 8}
    told = Forecast.of(configure("cats", overrides, plugins), plugins)
    plain = forecast(
        "cats", **{"backbone.width": 8, "backbone.attention": [8], "backbone.blocks": 1, "backbone.nested": False}
    )
    assert {key: told.cost[key] for key in NETWORK} == {key: plain.cost[key] for key in NETWORK}


def test_a_network_made_from_the_images_has_no_cost_without_them():
    told = dry("cats", "--backbone", "perfect", "--json")
    cost = json.loads(told.stdout)["cost"]
    assert {key: cost[key] for key in NETWORK} == dict.fromkeys(NETWORK)
    assert cost["steps_per_level"] == [25, 30, 45]
    assert told.stderr == ("backbone perfect is made from the training images: without them its cost is not known\n")
    told = dry("cats", "--backbone", "perfect", "--baseline")
    assert told.exit_code == 0
    assert told.stderr.count("backbone perfect") == 1


def test_json_is_one_line_for_each_run_with_its_configuration():
    first, last = map(json.loads, dry("cats", "--baseline", "--seed", "7", "--json").stdout.splitlines())
    assert (first["config"]["basis"]["name"], last["config"]["basis"]["name"]) == ("identity", "dct")
    assert first["config"]["seed"] == last["config"]["seed"] == 7
    assert last == {"config": configure("cats", {"seed": 7}).to_json(), "cost": forecast("cats").cost}


def test_the_table_shows_both_runs_side_by_side_with_their_ratio():
    told = dry("cats", "--baseline", "--train-images", "1000").stdout
    ddpm, dct = (forecast("cats", **{"basis.name": name, "training.images": 1000}).cost for name in ("identity", "dct"))
    lines = [re.sub(r" ([kMGTPE])\b", r"\1", line).split() for line in told.splitlines()]
    rows = {" ".join(words[:-3]): words[-3:] for words in lines}
    assert told.startswith("---\nbenchmark: cats\n")
    assert "DDPM" in told
    assert "dct 32-16-8" in told
    for label, key in (("FLOPs per sample", "sample_flops"), ("FLOPs of training", "train_flops")):
        assert rows[label][2] == f"{ddpm[key] / dct[key]:.2f}x"
    assert rows["FLOPs per sample"][:2] == ["50.0G", "22.9G"]
    assert "not counted: add, avg_pool2d, cos," in told


def test_without_a_baseline_there_is_no_ratio():
    told = dry("cats").stdout
    assert "÷" not in told
    (unknown,) = [line for line in told.splitlines() if line.startswith("seconds, memory, energy (not measured)")]
    assert unknown.split()[-1] == NONE
    (line,) = [line for line in told.splitlines() if line.startswith("FLOPs of training")]
    assert line.split()[-1] == NONE
