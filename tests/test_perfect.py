"""The perfect network against a sum over all images, written out."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import process, processes

import dvbench
from benchmarks import write_benchmark
from dvbench.builtin import perfect
from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.perfect import Perfect
from dvbench.builtin.samplers import Ancestral, Ddim, Dpmpp
from dvbench.environment import autocast
from dvbench.errors import UsageError
from dvbench.measure.clock import LevelClock
from dvbench.prediction import data_range, estimate, scaled_input, to_float
from dvbench.sampling import Denoiser, draw

CPU = torch.device("cpu")


def pictures(count, side, channels=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def prepared(drawn, images, prediction):
    network = Perfect(drawn.ladder, drawn.basis.channels)
    network.prepare(drawn, images, prediction)
    return network


def likelihoods(drawn, images, x, t, level):
    """Bayes' rule as it is written: every image's density at x_t, in float64, one image at a time, [B, N]."""
    clean = drawn.lower(to_float(images, CPU).double(), level)
    gains, sigma = drawn.gain(t, level, x), drawn.noise_level(t, x)
    logs = torch.stack(
        [-((x - drawn.combine([(y[None], gains)], level)) ** 2).sum((1, 2, 3)) / (2 * sigma**2) for y in clean], dim=1
    )
    return logs.softmax(1)


def by_the_book(drawn, images, x, t, level):
    """E[x_0 | x_t] as the sum over all images."""
    clean = drawn.lower(to_float(images, CPU).double(), level)
    return torch.einsum("bn,nchw->bchw", likelihoods(drawn, images, x, t, level), clean)


@given(processes(), st.sampled_from(["eps", "v", "x0"]), st.integers(0, 2**31), st.data())
def test_it_is_the_posterior_mean_in_whichever_form(drawn, prediction, seed, data):
    images = pictures(7, drawn.ladder[0], seed=seed)
    t = data.draw(st.integers(1, drawn.T))
    level = drawn.level(t)
    noise = torch.randn(
        2,
        2,
        drawn.ladder[level],
        drawn.ladder[level],
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )
    x = drawn.perturb(to_float(images[:2], CPU).double(), t, noise)
    network = prepared(drawn, images, prediction)
    seen = scaled_input(drawn, x, t, level, data_range(drawn, images).std)
    said = network(seen, torch.full((2,), t / drawn.T), level)
    mean = estimate(prediction, drawn, said, x, t, level)
    # The images are kept in float32; eps and v are divided by gains that may be small.
    smallest = float(drawn.gains[level:, t].min())
    torch.testing.assert_close(mean, by_the_book(drawn, images, x, t, level), rtol=1e-4, atol=1e-5 + 1e-7 / smallest)


@given(processes(), st.integers(0, 2**31), st.data())
def test_its_uncertainty_is_the_posterior_variance_of_each_component(drawn, seed, data):
    images = pictures(7, drawn.ladder[0], seed=seed)
    t = data.draw(st.integers(1, drawn.T))
    level = drawn.level(t)
    side = drawn.ladder[level]
    x = torch.randn(2, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    network = prepared(drawn, images, "x0")
    actual = network.uncertainty(
        scaled_input(drawn, x, t, level, network.std), torch.full((2,), t / drawn.T, dtype=torch.float64), level
    )
    weights = likelihoods(drawn, images, x, t, level)
    clean = drawn.lower(to_float(images, CPU).double(), level)
    mean = torch.einsum("bn,nchw->bchw", weights, clean)
    for b in range(2):
        about = drawn.components(clean - mean[b], level)
        for part, found, (finer, coarser) in zip(about, actual[b], pairwise([*drawn.ladder[level:], 0]), strict=True):
            coordinates = 2 * (finer**2 - coarser**2)  # two channels
            expected = (weights[b] * part.square().sum((1, 2, 3))).sum() / coordinates
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_chunks_change_nothing(monkeypatch):
    drawn, images = process(channels=2), pictures(50, 16)
    x, t = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.tensor([0.4, 0.5, 0.6])
    whole = prepared(drawn, images, "x0")(x, t, 1)
    monkeypatch.setattr(perfect, "CHUNK", 7)
    torch.testing.assert_close(prepared(drawn, images, "x0")(x, t, 1), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral("large"), Ancestral("optimal"), Ddim(), Dpmpp()])
@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sampling_with_it_redraws_training_images(sampler, basis, precision):
    """Every sample ends on one of the images, to a byte's rounding, since the last estimate's weights are 0 and 1."""
    drawn = process(basis, turns=(0.3, 0.6), channels=3)
    images = pictures(5, 16, 3)
    network = prepared(drawn, images, "eps")
    denoiser = Denoiser(network, drawn, "eps", data_range(drawn, images), autocast(CPU, precision), LevelClock())
    samples = draw(sampler, denoiser, 20, 0, range(12), CPU)
    apart = np.abs(samples[:, None].astype(int) - images[None]).max((2, 3, 4)).min(1)
    assert apart.max() <= 2


def test_a_run_with_it_trains_nothing_and_reports_the_error_of_the_process(tmp_path):
    path = write_benchmark(tmp_path)
    record = dvbench.run(str(path), results=tmp_path / "results", backbone="perfect", baseline=True)
    assert (record.cost.params, record.cost.train_images, record.cost.train_seconds) == (0, 0, 0.0)
    assert record.cost.train_flops_per_image is None
    assert record.cost.sample_flops > 0
    assert [(m.name, m.split) for m in record.metrics] == [
        ("fd", "held-out"),
        ("fd_inf", "held-out"),
        ("kid", "held-out"),
        ("lsd", "held-out"),
        ("fd", "train"),
        ("kid", "train"),
        ("precision", "train"),
        ("recall", "train"),
        ("lsd", "train"),
    ]
    rows = dvbench.compare(["tiny"], results=tmp_path / "results").to_json()
    assert {row["method"]["backbone"] for row in rows} == {"perfect"}
    assert all(row["comparable"] for row in rows)


def test_only_it_knows_the_optimal_variance(tmp_path):
    path = write_benchmark(tmp_path)
    with pytest.raises(UsageError, match="--backbone perfect"):
        dvbench.run(str(path), results=tmp_path / "results", set={"sampler.variance": "optimal"})
    assert not (tmp_path / "results").exists()
    settings = {"sampler.variance": "optimal"}
    record = dvbench.run(str(path), results=tmp_path / "results", backbone="perfect", set=settings)
    assert record.config["sampler"] == {"name": "ancestral", "variance": "optimal"}


LARGE = """
import numpy as np, torch
from dvbench import Process, create
from dvbench.measure.clock import peak_memory
torch.set_num_threads(1)
images = np.random.default_rng(0).integers(0, 256, (10_000, 64, 64, 3), dtype=np.uint8)
ladder = (64, 32, 16)
basis = create("basis", "dct", ladder=ladder, channels=3)
process = Process(basis, create("schedule", "linear", ladder=ladder, steps=250, turns=(0.25, 0.55)))
network = create("backbone", "perfect", ladder=ladder, channels=3)
network.prepare(process, images, "eps")
with torch.inference_mode():
    said = network(torch.randn(64, 3, 64, 64), torch.full((64,), 0.1), 0)
assert said.isfinite().all()
print(peak_memory(torch.device("cpu")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the largest resident set is read where Linux tells it")
@pytest.mark.slow
def test_ten_thousand_images_of_64_px_fit_in_2_gb():
    run = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    # Not getrusage's figure: that begins with what the process held that started this one.
    assert 10_000 * 64 * 64 * 3 * 4 < int(run.stdout) < 2e9
