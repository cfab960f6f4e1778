"""Samplers against the algorithms as their papers write them, and what every sampler must do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import process, processes

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.samplers import Ancestral, Ddim, Dpmpp
from dvbench.builtin.schedules import Cosine, Linear

F64 = torch.float64


class SeededNoise:
    """White noise in float64 from one generator; counts what was drawn on each grid."""

    def __init__(self, drawn, seed, batch=2):
        self.drawn, self.batch = drawn, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.levels = []

    def __call__(self, level):
        self.levels.append(level)
        side = self.drawn.ladder[level]
        shape = (self.batch, self.drawn.basis.channels, side, side)
        return torch.randn(shape, dtype=F64, generator=self.generator)


def pull_to_zero(x, t, level):
    """Stand for a network: some smooth function of the state and the time."""
    return torch.tanh(x) * (0.5 + 0.01 * t)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_ancestral_with_identity_is_algorithm_2_of_ddpm(schedule, variance):
    """Ho et al. 2020, algorithm 2 with the variances beta~_t and beta_t of section 3.2, at equal seeds, to 1e-10."""
    steps = 40
    drawn = process(Identity, schedule, ladder=(6,), turns=(), steps=steps)
    ours = Ancestral(variance).sample(pull_to_zero, drawn, SeededNoise(drawn, 3), steps)
    beta = schedule((6,), steps).betas(steps)
    alpha, cumulative = 1 - beta, np.cumprod(1 - beta)
    noise = SeededNoise(drawn, 3)
    x = noise(0)
    for t in range(steps, 0, -1):
        a, bar = alpha[t - 1], cumulative[t - 1]
        before = cumulative[t - 2] if t > 1 else 1.0
        eps = (x - bar**0.5 * pull_to_zero(x, t, 0)) / (1 - bar) ** 0.5
        x = (x - beta[t - 1] / (1 - bar) ** 0.5 * eps) / a**0.5
        if t > 1:
            square = (1 - before) / (1 - bar) * beta[t - 1] if variance == "small" else beta[t - 1]
            x = x + square**0.5 * noise(0)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_with_identity_is_equation_12_of_its_paper(eta):
    """Song et al. 2021, equations 12 and 16, on a grid of 7 of 40 steps, at equal seeds, in float64 to 1e-10."""
    drawn = process(Identity, ladder=(6,), turns=(), steps=40)
    ours = Ddim(eta).sample(pull_to_zero, drawn, SeededNoise(drawn, 3), 7)
    bar = np.concatenate([[1.0], np.cumprod(1 - Linear((6,), 40).betas(40))])
    noise = SeededNoise(drawn, 3)
    x = noise(0)
    times = drawn.times(7)
    for t, s in zip(times, [*times[1:], 0], strict=True):
        x0 = pull_to_zero(x, t, 0)
        eps = (x - bar[t] ** 0.5 * x0) / (1 - bar[t]) ** 0.5
        spread = eta * ((1 - bar[s]) / (1 - bar[t])) ** 0.5 * (1 - bar[t] / bar[s]) ** 0.5
        x = bar[s] ** 0.5 * x0 + (1 - bar[s] - spread**2) ** 0.5 * eps
        if eta:
            x = x + spread * noise(0)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-10)


def test_dpmpp_with_identity_is_algorithm_2_of_its_paper():
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, on a grid of 9 of 40 steps, in float64 to 1e-10."""
    drawn = process(Identity, ladder=(6,), turns=(), steps=40)
    ours = Dpmpp().sample(pull_to_zero, drawn, SeededNoise(drawn, 3), 9)
    alpha, sigma = drawn.gains[0], drawn.sigma
    times = [*drawn.times(9), 0]
    x = SeededNoise(drawn, 3)(0)
    estimates = []
    for i in range(1, len(times) - 1):
        t, s = times[i - 1], times[i]
        estimates.append(pull_to_zero(x, t, 0))
        h = np.log(alpha[s] / sigma[s]) - np.log(alpha[t] / sigma[t])
        d = estimates[-1]
        if i > 1:
            r = (np.log(alpha[t] / sigma[t]) - np.log(alpha[times[i - 2]] / sigma[times[i - 2]])) / h
            d = (1 + 1 / (2 * r)) * estimates[-1] - 1 / (2 * r) * estimates[-2]
        x = sigma[s] / sigma[t] * x - alpha[s] * (np.exp(-h) - 1) * d
    torch.testing.assert_close(ours, pull_to_zero(x, times[-2], 0), rtol=0, atol=1e-10)


def test_ddim_at_eta_1_with_every_step_is_ancestral():
    drawn = process(Identity, ladder=(6,), turns=(), steps=40)
    one = Ddim(1.0).sample(pull_to_zero, drawn, SeededNoise(drawn, 5), 40)
    other = Ancestral().sample(pull_to_zero, drawn, SeededNoise(drawn, 5), 40)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("basis", [Haar, Dct])
@pytest.mark.parametrize("sampler", [Ancestral(), Ddim(), Ddim(0.7), Dpmpp()])
def test_no_drop_and_equal_gains_is_ddpm_in_any_basis(basis, sampler):
    """Turning points at T and attenuation 1: the components fade alike, so that the basis cannot matter."""
    plain = process(Identity, ladder=(8,), turns=(), steps=40)
    split = process(basis, ladder=(8, 4, 2), turns=(1.0, 1.0), attenuation=1.0, steps=40)
    expected = sampler.sample(pull_to_zero, plain, SeededNoise(plain, 1), 20)
    actual = sampler.sample(pull_to_zero, split, SeededNoise(split, 1), 20)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@given(processes(), st.data(), st.sampled_from([Ancestral(), Ancestral("large"), Ddim(), Ddim(1.0), Dpmpp()]))
def test_every_sampler_calls_the_network_as_often_as_asked_on_the_right_grids(drawn, data, sampler):
    steps = data.draw(st.integers(drawn.K + 1, drawn.T))
    calls = []

    def denoise(x, t, level):
        calls.append((t, level, x.shape[-1]))
        return torch.zeros_like(x)

    images = sampler.sample(denoise, drawn, SeededNoise(drawn, 0), steps)
    assert images.shape == (2, 2, drawn.ladder[0], drawn.ladder[0])
    assert len(calls) == steps
    assert [t for t, _, _ in calls] == drawn.times(steps)
    assert all(level == drawn.level(t) and side == drawn.ladder[level] for t, level, side in calls)


@given(
    processes(), st.sampled_from([Ancestral(), Ancestral("large"), Ddim(), Ddim(1.0), Dpmpp()]), st.integers(0, 2**31)
)
def test_a_network_that_knows_the_picture_gets_it_back(drawn, sampler, seed):
    """With the true x_0 as its estimate, the last step returns x_0 itself."""
    truth = torch.randn(
        2, 2, drawn.ladder[0], drawn.ladder[0], dtype=F64, generator=torch.Generator().manual_seed(seed)
    )
    images = sampler.sample(lambda _x, _t, level: drawn.lower(truth, level), drawn, SeededNoise(drawn, seed), drawn.T)
    torch.testing.assert_close(images, truth, rtol=0, atol=1e-8)


@pytest.mark.parametrize("sampler", [Ancestral(), Ddim(0.0), Ddim(0.5), Ddim(1.0), Dpmpp()])
@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_given_the_truth_each_step_draws_from_the_marginal(basis, sampler):
    """Given x_0, the state stays distributed as q(x_t | x_0), through every jump, whatever the sampler.

    Data zero makes that white noise of variance sigma_t^2 (jumps fill in just that). Over m values the mean square
    has standard error sigma^2 sqrt(2 / m): 5 of them.
    """
    drawn = process(basis, steps=40)
    seen = {}

    def denoise(x, t, level):
        seen[t] = float(x.square().mean()), x.numel()
        return torch.zeros_like(x)

    sampler.sample(denoise, drawn, SeededNoise(drawn, 11, batch=500), 20)
    for t, (square, count) in seen.items():
        start = 1.0 if t == drawn.T else drawn.sigma[t] ** 2
        # The start is drawn with variance 1, not sigma_T^2: the excess that is left at t is (lambda_T-like) tiny.
        excess = 1 - drawn.sigma[drawn.T] ** 2
        assert abs(square - start) <= 5 * start * (2 / count) ** 0.5 + excess


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_ddim_refuses_other_eta(eta):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Ddim(eta)
