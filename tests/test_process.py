"""The process's identities, component by component."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import process, processes

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.schedules import Cosine, Linear
from dvbench.process import Moments, Process

F64 = torch.float64


def white(shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def grid(drawn, level, batch=2, seed=0):
    side = drawn.ladder[level]
    return white((batch, drawn.basis.channels, side, side), seed)


@given(processes(), st.integers(0, 2**31))
def test_components_compose_again_and_are_orthogonal(drawn, seed):
    for level in range(drawn.K + 1):
        x = grid(drawn, level, seed=seed)
        parts = drawn.components(x, level)
        torch.testing.assert_close(drawn.compose(parts, level), x, rtol=0, atol=1e-10)
        energy = sum(part.square().sum() for part in parts)
        torch.testing.assert_close(energy, x.square().sum(), rtol=1e-10, atol=1e-10)


@given(processes(), st.integers(0, 2**31), st.data())
def test_combining_weighs_each_component_by_its_own_coefficient(drawn, seed, data):
    level = data.draw(st.integers(0, drawn.K))
    x, y = grid(drawn, level, seed=seed), grid(drawn, level, seed=seed + 1)
    numbers = st.lists(
        st.sampled_from([0.0, 0.5, 1.0, -2.0]), min_size=drawn.K + 1 - level, max_size=drawn.K + 1 - level
    )
    a, b = data.draw(numbers), data.draw(numbers)
    parts = zip(drawn.components(x, level), drawn.components(y, level), a, b, strict=True)
    expected = drawn.compose([u * p + v * q for p, q, u, v in parts], level)
    torch.testing.assert_close(drawn.combine([(x, a), (y, b)], level), expected, rtol=0, atol=1e-9)


@given(processes())
def test_the_level_is_the_number_of_turning_points_strictly_below(drawn):
    levels = drawn.level(torch.arange(drawn.T + 1))
    for t in range(drawn.T + 1):
        assert drawn.level(t) == sum(turn < t for turn in drawn.turns) == int(levels[t])
    for k, turn in enumerate(drawn.turns):
        assert drawn.level(turn) == k


@given(processes(), st.integers(0, 2**31), st.data())
def test_the_marginal_is_gain_times_data_plus_sigma_times_noise_in_each_component(drawn, seed, data):
    t = data.draw(st.integers(0, drawn.T))
    level = drawn.level(t)
    x0, noise = grid(drawn, 0, seed=seed), grid(drawn, level, seed=seed + 1)
    x = drawn.perturb(x0, t, noise)
    clean = drawn.components(x0, 0)[level:]
    for i, (part, was, eps) in enumerate(
        zip(drawn.components(x, level), clean, drawn.components(noise, level), strict=True), start=level
    ):
        torch.testing.assert_close(part, drawn.gains[i, t] * was + drawn.sigma[t] * eps, rtol=0, atol=1e-9)


def test_steps_of_one_level_may_differ_in_a_batch_and_of_two_levels_may_not():
    drawn = process()
    x0, t = grid(drawn, 0), torch.tensor([2, 9])
    together = drawn.perturb(x0, t, grid(drawn, 0, seed=1))
    for i in range(2):
        alone = drawn.perturb(x0[i : i + 1], int(t[i]), grid(drawn, 0, seed=1)[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
    with pytest.raises(ValueError, match="group the batch by level"):
        drawn.perturb(x0, torch.tensor([2, 40]), grid(drawn, 0))


@given(processes(), st.data())
def test_steps_compose_to_the_closed_form_marginal(drawn, data):
    """Walking the kernel's mean and variance from 0 to t gives lambda[t] and sigma[t]^2 exactly."""
    t = data.draw(st.integers(1, drawn.T))
    level = drawn.level(t)
    like = torch.zeros(1, dtype=F64)
    gain, variance = np.ones(drawn.K + 1 - level), np.zeros(drawn.K + 1 - level)
    for step in range(1, t + 1):
        r, s2 = np.array(drawn.transition(step, step - 1, level, like)).T
        gain, variance = r * gain, r**2 * variance + s2
    np.testing.assert_allclose(gain, drawn.gains[level:, t], rtol=1e-9)
    np.testing.assert_allclose(variance, drawn.sigma[t] ** 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_simulating_the_forward_kernel_gives_the_closed_form_mean_and_variance(basis):
    """One picture noised step by step n times: per coefficient, mean and variance lie within 5 standard errors.

    Over m coefficients the mean of their squared standardised errors has mean 1 and standard error sqrt(2 / m).
    """
    drawn, n, t = process(basis, steps=30), 4000, 15
    level = drawn.level(t)
    x0 = grid(drawn, 0, batch=1)
    generator = torch.Generator().manual_seed(7)
    x = drawn.lower(x0, level).expand(n, -1, -1, -1).clone()
    for step in range(1, t + 1):
        r, s2 = zip(*drawn.transition(step, step - 1, level, x), strict=True)
        noise = torch.randn(x.shape, dtype=F64, generator=generator)
        x = drawn.combine([(x, r), (noise, [v**0.5 for v in s2])], level)
    expected = drawn.perturb(x0, t, torch.zeros_like(x[:1]))
    sigma = drawn.sigma[t]
    errors = ((x.mean(0) - expected[0]) / (sigma / n**0.5)).flatten()
    assert abs(float(errors.square().mean()) - 1) < 5 * (2 / len(errors)) ** 0.5
    spread = ((x.var(0) / sigma**2 - 1) / (2 / (n - 1)) ** 0.5).flatten()
    assert abs(float(spread.square().mean()) - 1) < 5 * (2 / len(spread)) ** 0.5 + 5 / n**0.5


@given(processes(), st.data())
def test_bayes_posterior_times_forward_is_the_joint(drawn, data):
    """q(x_s | x_t, x_0) q(x_t | x_0) = q(x_t | x_s) q(x_s | x_0), as log-densities of scalars, in every component."""
    t = data.draw(st.integers(2, drawn.T))
    s = data.draw(st.integers(1, t - 1))
    level = drawn.level(t)
    x0, x_t = 0.7, -0.4
    x_s = 0.3

    def log_normal(x, mean, variance):
        return -0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)

    like = torch.zeros(1, dtype=F64)
    for i, (r, s2) in enumerate(drawn.transition(t, s, level, like), start=level):
        if s2 < 1e-9:
            continue  # two steps that hardly differ: the density is a spike
        # The posterior of a single coefficient, through the public function on a grid that is that coefficient.
        one = component(drawn, level, i)
        posterior = drawn.posterior(x_t * one, x0 * one, t, s)
        a = posterior_coefficients(drawn, t, s, i)
        mean, variance = a[0] * x_t + a[1] * x0, float(posterior.variance[i - level])
        torch.testing.assert_close(posterior.mean, mean * one, rtol=0, atol=1e-9)
        joint = log_normal(x_t, r * x_s, s2) + log_normal(x_s, drawn.gains[i, s] * x0, drawn.sigma[s] ** 2)
        marginal = log_normal(x_t, drawn.gains[i, t] * x0, drawn.sigma[t] ** 2)
        assert log_normal(x_s, mean, variance) + marginal == pytest.approx(joint, rel=1e-6, abs=1e-6)


def component(drawn, level, number):
    """Draw a state that lies in one component."""
    parts = drawn.components(grid(drawn, level, batch=1), level)
    return drawn.compose([p if i == number else torch.zeros_like(p) for i, p in enumerate(parts, start=level)], level)


def posterior_coefficients(drawn, t, s, i):
    """Product of two Gaussians in x_s: N(x_t; r x_s, s2) and N(x_s; gain x_0, sigma^2), by precisions."""
    r = drawn.gains[i, t] / drawn.gains[i, s]
    s2 = drawn.sigma[t] ** 2 - r**2 * drawn.sigma[s] ** 2
    precision = r**2 / s2 + 1 / drawn.sigma[s] ** 2
    return r / s2 / precision, drawn.gains[i, s] / drawn.sigma[s] ** 2 / precision


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_identity_is_ddpm_as_its_paper_writes_it(schedule):
    """Ho et al. 2020: equation 4 (marginal), 6 and 7 (posterior), from betas, in float64 to 1e-10."""
    steps = 60
    drawn = process(Identity, schedule, ladder=(8,), turns=(), steps=steps)
    beta = schedule((8,), steps).betas(steps)
    alpha, cumulative = 1 - beta, np.cumprod(1 - beta)
    x0, noise = grid(drawn, 0), grid(drawn, 0, seed=1)
    for t in range(1, steps + 1):
        x = drawn.perturb(x0, t, noise)
        written = cumulative[t - 1] ** 0.5 * x0 + (1 - cumulative[t - 1]) ** 0.5 * noise
        torch.testing.assert_close(x, written, rtol=0, atol=1e-10)
        before = cumulative[t - 2] if t > 1 else 1.0
        mean = (before**0.5 * beta[t - 1] * x0 + alpha[t - 1] ** 0.5 * (1 - before) * x) / (1 - cumulative[t - 1])
        variance = (1 - before) / (1 - cumulative[t - 1]) * beta[t - 1]
        posterior = drawn.posterior(x, x0, t)
        torch.testing.assert_close(posterior.mean, mean, rtol=0, atol=1e-10)
        assert posterior.variance[0] == pytest.approx(variance, abs=1e-10)


@given(processes(), st.integers(0, 2**31))
def test_a_jump_keeps_what_is_there_and_fills_the_rest_with_noise_of_sigma(drawn, seed):
    for level in range(1, drawn.K + 1):
        x, noise = grid(drawn, level, seed=seed), grid(drawn, level - 1, seed=seed + 1)
        up = drawn.jump(x, level, noise)
        torch.testing.assert_close(drawn.basis.project(up, level - 1), x, rtol=0, atol=1e-9)
        filled = drawn.components(up, level - 1)[0]
        expected = drawn.sigma[drawn.turns[level - 1]] * drawn.components(noise, level - 1)[0]
        torch.testing.assert_close(filled, expected, rtol=0, atol=1e-9)


def fading(basis):
    """Return a process that ends before much has faded, by as much as tells components apart, and drops nothing."""
    ladder = (8,) if basis is Identity else (8, 4, 2)
    drawn = Linear(ladder, 50, turns=(1.0,) * (len(ladder) - 1))
    drawn.gains = np.linspace(1, (0.9, 0.3, 0.6)[-len(ladder) :], 51).T
    drawn.sigma = np.linspace(0, 0.8, 51)
    return Process(basis(ladder, 1), drawn)


@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_an_unmatched_start_has_the_variance_of_a_kept_coordinate_of_variance_1(basis):
    drawn = fading(basis)
    noise = grid(drawn, 0)
    expected = (drawn.sigma[-1] ** 2 + drawn.gains[-1, -1] ** 2) ** 0.5 * noise
    torch.testing.assert_close(drawn.start(lambda _: noise), expected)
    preserving = process(basis, attenuation=0.3)
    noise = grid(preserving, preserving.level(preserving.T))
    torch.testing.assert_close(preserving.start(lambda _: noise), noise, rtol=1e-12, atol=0)


@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_a_matched_start_has_the_mean_and_the_variances_of_the_last_state(basis):
    """n draws: means within 5 standard errors in the mean square, variances of m values within 5 sqrt(2 / m)."""
    drawn = fading(basis)
    power = (0.5, 3.0, 2.0)[2 - drawn.K :]
    side = drawn.ladder[-1]
    moments = Moments(100 * torch.ones(1, side, side), power)
    n, generator = 3000, torch.Generator().manual_seed(2)
    x = drawn.matching(moments, start=True, jump=False).start(
        lambda level: torch.randn(n, 1, *drawn.ladder[level : level + 1] * 2, dtype=F64, generator=generator)
    )
    parts = drawn.components(x, 0)
    variances = drawn.sigma[-1] ** 2 + drawn.gains[:, -1] ** 2 * np.array(power)
    sides = [*drawn.ladder, 0]
    for i, (part, variance) in enumerate(zip(parts, variances, strict=True)):
        mean = 100 * drawn.gains[-1, -1] if i == drawn.K else 0.0
        m = n * (sides[i] ** 2 - (sides[i + 1] ** 2 if i < drawn.K else 0))
        assert abs(float((part - mean).sum())) < 5 * (variance * part.numel()) ** 0.5
        assert abs(float((part - mean).square().sum()) / m / variance - 1) < 5 * (2 / m) ** 0.5


@pytest.mark.parametrize("attenuation", [0.3, 1.0])
def test_a_matched_jump_fills_in_what_the_component_still_has(attenuation):
    drawn = process(Dct, attenuation=attenuation)
    power = (0.5, 2.0, 9.0)
    matched = drawn.matching(Moments(torch.zeros(1, 4, 4), power), start=False, jump=True)
    for level in (1, 2):
        x, noise = grid(drawn, level), grid(drawn, level - 1, seed=1)
        plain, filled = (each.components(each.jump(x, level, noise), level - 1)[0] for each in (drawn, matched))
        turn = drawn.turns[level - 1]
        ratio = (1 + drawn.gains[level - 1, turn] ** 2 * power[level - 1] / drawn.sigma[turn] ** 2) ** 0.5
        torch.testing.assert_close(filled, ratio * plain)


@settings(max_examples=200)
@given(processes(), st.data())
def test_the_grid_has_exactly_the_calls_asked_for_and_every_turning_point(drawn, data):
    turns = [turn for turn in drawn.turns if turn < drawn.T]
    steps = data.draw(st.integers(len(turns) + 1, drawn.T))
    times = drawn.times(steps)
    assert len(times) == steps
    assert times[0] == drawn.T
    assert set(turns) <= set(times)
    assert all(earlier > later > 0 for earlier, later in pairwise(times))
    moves = list(drawn.walk(steps))
    assert [move.t for move in moves] == times
    assert moves[-1].s == 0
    here = drawn.level(drawn.T)
    for move in moves:
        assert move.jumps_from == tuple(range(here, move.level, -1))
        here = move.level
    assert here == 0
    assert sum(drawn.steps_per_level(steps)) == steps


def test_steps_that_cannot_hold_every_turning_point_are_refused():
    drawn = process()
    for steps in (0, 2, 51):
        with pytest.raises(ValueError, match="take 3 to 50"):
            drawn.times(steps)
    assert drawn.times(3) == [50, 30, 15]
