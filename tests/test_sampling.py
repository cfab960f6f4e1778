"""What a network is told when it draws."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from processes import process

import dvbench
from benchmarks import write_benchmark
from dvbench.bench import configure
from dvbench.builtin.unet import UNet
from dvbench.drawing import Drawing
from dvbench.entry import overrides
from dvbench.errors import UsageError
from dvbench.measure.clock import LevelClock
from dvbench.prediction import data_range
from dvbench.registry import registry
from dvbench.sampling import Denoiser
from dvbench.setup import assemble

T = 50
DRAWN = process(ladder=(16, 8), turns=(0.3,), attenuation=1.0, steps=T)  # the first level ends at step 15


def denoiser(prediction="x0", least=0):
    torch.manual_seed(0)
    network = UNet(DRAWN.ladder, 1, width=8, multipliers=(1, 2), attention=(8,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # at its beginning it says nothing but zero
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)
    return Denoiser(network.eval(), DRAWN, prediction, data_range(DRAWN, images), nullcontext, LevelClock(), least)


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
@pytest.mark.parametrize(
    ("t", "level", "least", "told"),
    [
        (3, 0, 0, 3),
        (3, 0, 10, 10),
        (10, 0, 10, 10),
        (12, 0, 10, 12),
        (3, 0, 20, 15),  # the network has learned no later step at this level
        (16, 1, 20, 20),
        (T, 1, 20, T),
        (16, 1, T, T),
    ],
)
@torch.inference_mode()
def test_a_state_is_taken_for_one_of_the_least_step(prediction, t, level, least, told):
    x = torch.randn(2, 1, *DRAWN.ladder[level : level + 1] * 2, generator=torch.Generator().manual_seed(1))
    one, other = denoiser(prediction, least)(x, t, level), denoiser(prediction)(x, told, level)
    assert torch.equal(one, other)
    if told != t:
        assert not torch.equal(one, denoiser(prediction)(x, t, level))


def test_a_run_draws_otherwise_from_the_same_weights(tmp_path):
    path = write_benchmark(tmp_path)
    plain, told = (
        dvbench.run(str(path), results=tmp_path / "results", set={"sampling.least_t": least}) for least in (0.0, 0.5)
    )
    assert told.method.trained_by == plain.run_id != told.run_id
    one, other = (
        np.load(tmp_path / "results" / "tiny" / record.run_id / "samples.npz")["samples"] for record in (plain, told)
    )
    assert one.shape == other.shape
    assert not np.array_equal(one, other)


def test_no_run_tells_its_network_what_it_was_not_trained_for(tmp_path):
    """The later of the two steps is told: that below which nothing is trained, and that which is asked for."""
    path = write_benchmark(tmp_path)
    asked = ({"training.least_t": 0.25}, {"training.least_t": 0.25, "sampling.least_t": 0.1}, {"sampling.least_t": 0.1})
    told = []
    for settings in asked:
        parts = assemble(configure(str(path), overrides({}, settings)), registry())
        limits = data_range(parts.process, parts.dataset.train)
        told.append(Drawing(parts, parts.network, limits).denoiser.least)
    assert told == [10, 10, 4]


def test_what_is_not_trained_draws_as_if_training_left_nothing_out(tmp_path):
    """Or a benchmark that leaves steps out would make the perfect network wrong."""
    path, results = write_benchmark(tmp_path), tmp_path / "results"
    drawn = []
    for least in (0.0, 0.4):
        run = dvbench.run(str(path), backbone="perfect", results=results, set={"training.least_t": least})
        drawn.append(np.load(results / "tiny" / run.run_id / "samples.npz")["samples"])
    assert np.array_equal(*drawn)


def test_a_share_of_the_process_it_must_be(tmp_path):
    with pytest.raises(UsageError, match="least_t"):
        dvbench.run(str(write_benchmark(tmp_path)), results=tmp_path / "results", set={"sampling.least_t": 15})
