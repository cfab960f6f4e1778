"""The exact output distribution for Gaussian data, and that samplers draw from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import process, processes

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.samplers import Ancestral, Ddim, Dpmpp
from dvbench.builtin.schedules import Cosine, Linear, Shifted
from dvbench.gaussian import ancestral, ddim, dpmpp, output_variance
from dvbench.process import Moments

PAIRS = [
    (Ancestral(), ancestral()),
    (Ancestral("large"), ancestral("large")),
    (Ancestral("optimal"), ancestral("optimal")),
    (Ddim(), ddim(0.0)),
    (Ddim(0.5), ddim(0.5)),
    (Ddim(1.0), ddim(1.0)),
    (Dpmpp(), dpmpp),
]
VARIANCE = (0.02, 0.1, 0.6)


class Wiener:
    """The exact posterior mean and variance of data that is Gaussian in each component."""

    def __init__(self, drawn, variances):
        self.drawn, self.variances = drawn, variances

    def __call__(self, x, t, level):
        pairs = zip(self.drawn.gains[level:, t], self.variances[level:], strict=True)
        ks = [float(g * v / (g**2 * v + self.drawn.sigma[t] ** 2)) for g, v in pairs]
        return self.drawn.combine([(x, ks)], level)

    def uncertainty(self, x, t, level):
        pairs = zip(self.drawn.gains[level:, t], self.variances[level:], strict=True)
        square = self.drawn.sigma[t] ** 2
        return [torch.full((len(x), 1, 1, 1), v * square / (g**2 * v + square), dtype=x.dtype) for g, v in pairs]


def sampled(drawn, sampler, variances, steps, count):
    """Sample with the exact posterior mean of Gaussian data; return each component's squares over its coordinates."""
    generator = torch.Generator().manual_seed(5)

    def noise(level):
        side = drawn.ladder[level]
        return torch.randn(count, 1, side, side, dtype=torch.float64, generator=generator)

    sides = [*drawn.ladder, 0]
    parts = drawn.components(sampler.sample(Wiener(drawn, variances), drawn, noise, steps), 0)
    for i, part in enumerate(parts):
        coordinates = count * (sides[i] ** 2 - (sides[i + 1] ** 2 if i < drawn.K else 0))
        yield float(part.square().sum()) / coordinates, coordinates


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize(("sampler", "rule"), PAIRS)
@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
@pytest.mark.parametrize("schedule", [Linear, Cosine, Shifted])
def test_the_recursion_is_what_samplers_put_out(sampler, rule, basis, schedule, matched):
    """Over m coordinates a variance's standard error is v sqrt(2 / m): 5 of them."""
    drawn = process(basis, schedule, ladder=(16, 8, 4), steps=50)
    variances = VARIANCE[2 - drawn.K :]
    if matched:
        drawn = drawn.matching(Moments(torch.zeros(1, *drawn.ladder[-1:] * 2), variances), start=True, jump=True)
    exact = output_variance(drawn, rule, variances, 12)
    for expected, (actual, m) in zip(exact, sampled(drawn, sampler, variances, 12, 600), strict=True):
        assert abs(actual - expected) < 5 * expected * (2 / m) ** 0.5


@given(processes(), st.floats(0.01, 1.0), st.data())
def test_ddim_at_eta_1_with_every_step_is_ancestral(drawn, variance, data):
    variances = [variance * data.draw(st.floats(0.1, 1)) for _ in range(drawn.K + 1)]
    one = output_variance(drawn, ddim(1.0), variances, drawn.T)
    np.testing.assert_allclose(one, output_variance(drawn, ancestral(), variances, drawn.T), rtol=1e-8)


@pytest.mark.parametrize("rule", [ancestral(), ancestral("large"), ddim(0.0), ddim(1.0)])
def test_with_ever_more_steps_ddpm_reaches_the_data(rule):
    """First-order samplers: the error falls with every doubling of T, twice."""
    errors = []
    for steps in (50, 200, 800):
        drawn = process(Identity, Cosine, ladder=(4,), turns=(), steps=steps)
        (actual,) = output_variance(drawn, rule, [0.2], steps)
        errors.append(abs(actual / 0.2 - 1))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_dpmpp_converges_faster_than_ddim():
    drawn = process(Identity, Cosine, ladder=(4,), turns=(), steps=1000)
    best = output_variance(drawn, ddim(0.0), [0.2], 1000)[0]
    error = {
        name: abs(output_variance(drawn, rule, [0.2], 20)[0] - best)
        for name, rule in (("ddim", ddim(0.0)), ("dpmpp", dpmpp))
    }
    assert error["dpmpp"] < error["ddim"] / 3


@pytest.mark.parametrize("rule", [ancestral(), ddim(0.0), dpmpp])
def test_a_matched_start_mends_what_a_linear_schedule_leaves_alive(rule):
    """Coefficients of large pictures are strong: at T a variance of 10,000 is not yet noise, and white is too weak."""
    drawn = process(Identity, Linear, ladder=(4,), turns=(), steps=1000)
    strong = 1e4
    matched = drawn.matching(Moments(torch.zeros(1, 4, 4), (strong,)), start=True, jump=False)
    error = [abs(output_variance(each, rule, [strong], 1000)[0] / strong - 1) for each in (drawn, matched)]
    assert error[1] < error[0] / 5


def test_matched_jumps_mend_a_drop_without_attenuation():
    drawn = process(Dct, Linear, ladder=(8, 4), turns=(0.2,), attenuation=1.0, steps=500)
    matched = drawn.matching(Moments(torch.zeros(1, 4, 4), (0.3, 0.6)), start=False, jump=True)
    error = [abs(output_variance(each, ancestral(), [0.3, 0.6], 500)[0] / 0.3 - 1) for each in (drawn, matched)]
    assert error[1] < error[0] / 5


def test_attenuation_mends_an_early_drop():
    """What is lost at a drop is what the component still carried: less, the more it was attenuated."""
    errors = []
    for attenuation in (1.0, 0.5, 0.25):
        drawn = process(Dct, Linear, ladder=(8, 4), turns=(0.2,), attenuation=attenuation, steps=500)
        faded = output_variance(drawn, ancestral(), [0.3, 0.6], 500)[0]
        errors.append(abs(faded / 0.3 - 1))
    assert errors[0] > errors[1] > errors[2]


@given(processes(), st.data())
def test_with_the_optimal_variance_any_number_of_steps_draws_the_data_itself(drawn, data):
    """Gaussian data, matched start and jumps: each step draws from the true q(x_s | x_t), so nothing is lost."""
    variances = [data.draw(st.floats(0.01, 1)) for _ in range(drawn.K + 1)]
    side = drawn.ladder[-1]
    matched = drawn.matching(Moments(torch.zeros(2, side, side), tuple(variances)), start=True, jump=True)
    steps = data.draw(st.integers(drawn.K + 1, drawn.T))
    np.testing.assert_allclose(output_variance(matched, ancestral("optimal"), variances, steps), variances, rtol=1e-9)


@given(processes(), st.data())
def test_the_small_variance_loses_some(drawn, data):
    """It is that of a known x_0, so it is a lower bound (Ho et al. 2020, section 3.2)."""
    variances = [data.draw(st.floats(0.01, 1)) for _ in range(drawn.K + 1)]
    side = drawn.ladder[-1]
    matched = drawn.matching(Moments(torch.zeros(2, side, side), tuple(variances)), start=True, jump=True)
    small = output_variance(matched, ancestral("small"), variances, drawn.T)
    assert all(less < exact for less, exact in zip(small, variances, strict=True))
