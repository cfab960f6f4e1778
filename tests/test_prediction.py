"""What the network is asked, and the way back to x_0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import process, processes

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.prediction import (
    clipped,
    data_moments,
    data_range,
    estimate,
    loss_weight,
    scaled_input,
    shrink,
    target,
    to_float,
    to_uint8,
)

F64 = torch.float64
predictions = st.sampled_from(["eps", "v", "x0"])


def white(shape, seed):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@given(processes(smallest_attenuation=0.1), predictions, st.integers(0, 2**31), st.data())
def test_a_network_that_says_the_target_gives_x0_back(drawn, prediction, seed, data):
    t = data.draw(st.integers(1, drawn.T))
    level = drawn.level(t)
    x0 = white((2, 2, drawn.ladder[level], drawn.ladder[level]), seed)
    noise = white(x0.shape, seed + 1)
    x = drawn.diffuse(x0, t, noise, level)
    said = target(prediction, drawn, x0, noise, t, level)
    torch.testing.assert_close(estimate(prediction, drawn, said, x, t, level), x0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_batch_of_steps_is_each_step_by_itself(prediction):
    drawn = process()
    t = torch.tensor([17, 22, 30])
    x0, noise = white((3, 1, 8, 8), 0), white((3, 1, 8, 8), 1)
    together = target(prediction, drawn, x0, noise, t, 1)
    back = estimate(prediction, drawn, together, x0, t, 1)
    scaled = scaled_input(drawn, x0, t, 1, 0.5)
    for i, step in enumerate(t.tolist()):
        one = slice(i, i + 1)
        torch.testing.assert_close(together[one], target(prediction, drawn, x0[one], noise[one], step, 1))
        torch.testing.assert_close(back[one], estimate(prediction, drawn, together[one], x0[one], step, 1))
        torch.testing.assert_close(scaled[one], scaled_input(drawn, x0[one], step, 1, 0.5))


def test_with_one_level_v_is_that_of_its_paper():
    """Salimans and Ho 2022, section 4: v = alpha eps - sigma x, and x^ = alpha z - sigma v."""
    drawn = process(Identity, ladder=(8,), turns=())
    x0, noise, t = white((1, 1, 8, 8), 0), white((1, 1, 8, 8), 1), 20
    alpha, sigma = drawn.gains[0, t], drawn.sigma[t]
    v = target("v", drawn, x0, noise, t, 0)
    torch.testing.assert_close(v, alpha * noise - sigma * x0)
    z = alpha * x0 + sigma * noise
    torch.testing.assert_close(estimate("v", drawn, v, z, t, 0), alpha * z - sigma * v, rtol=0, atol=1e-10)


@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_the_input_has_about_unit_variance(basis):
    """Flat pictures of standard deviation s have kept pixels of n_0 / n_l s: the input's variance is exactly 1."""
    drawn = process(basis, steps=50, attenuation=0.3)
    n, s = 4000, 0.5
    flat = s * white((n, 1, 1, 1), 0).expand(n, 1, 16, 16)
    for t in (3, 20, 45):
        level = drawn.level(t)
        side = drawn.ladder[level]
        seen = scaled_input(drawn, drawn.perturb(flat, t, white((n, 1, side, side), 1)), t, level, s)
        # n independent pictures: the variance's standard error is sqrt(2 / n); 5 of them.
        assert abs(float(seen.square().mean()) - 1) < 5 * (2 / n) ** 0.5


@pytest.mark.parametrize("basis", [Haar, Dct])
def test_clipping_a_component_touches_no_coarser_one(basis):
    """However wild one is: what is cut off its pixels would not lie in it alone."""
    drawn = process(basis, ladder=(16, 8, 4), turns=(0.3, 0.6))
    limits = data_range(drawn, np.random.default_rng(0).integers(0, 256, (50, 16, 16, 1), dtype=np.uint8))
    parts = [0.01 * part for part in drawn.components(white((2, 1, 16, 16), 0), 0)]
    for wild in range(drawn.K):
        given_ = [10_000 * part if i == wild else part for i, part in enumerate(parts)]
        for level in range(wild + 1):
            found = drawn.components(clipped(drawn, drawn.compose(given_[level:], level), level, limits), level)
            for i, part in enumerate(found, level):
                if i != wild:
                    torch.testing.assert_close(part, parts[i], rtol=0, atol=1e-9)
                else:  # the nearest in it to what was cut, which is no larger than the cut
                    assert float(part.norm()) <= limits.faded[i] * part.numel() ** 0.5
                    assert float(part.norm()) < float(given_[i].norm())


def test_clipping_leaves_the_training_data_as_it_is():
    images = np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    for basis in (Identity, Haar, Dct):
        drawn = process(basis, channels=3)
        limits = data_range(drawn, images, chunk=7)
        x = to_float(images, torch.device("cpu"))
        for level in range(drawn.K + 1):
            clean = drawn.lower(x, level)
            torch.testing.assert_close(clipped(drawn, clean, level, limits), clean, rtol=0, atol=1e-5)


def test_the_range_of_the_data():
    images = np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    x = images / 127.5 - 1
    limits = data_range(process(Identity, channels=3), images, chunk=7)
    assert (limits.low, limits.high, limits.faded) == (-1, 1, ())
    assert limits.std == pytest.approx(x.std(), rel=1e-5)
    drawn = process(Haar, ladder=(16, 8), turns=(0.5,), channels=3)
    limits = data_range(drawn, images, chunk=7)
    blocks = x.reshape(40, 8, 2, 8, 2, 3).mean((2, 4))
    assert (limits.low, limits.high) == pytest.approx((2 * blocks.min(), 2 * blocks.max()), rel=1e-5)
    detail = x - blocks.repeat(2, 1).repeat(2, 2)
    assert limits.faded == pytest.approx((np.abs(detail).max(),), rel=1e-5)


@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_the_moments_of_the_data(basis):
    images = np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    drawn = process(basis, channels=3)
    moments = data_moments(drawn, images)
    *details, kept = drawn.components(to_float(images, torch.device("cpu")).double(), 0)
    torch.testing.assert_close(moments.mean, kept.mean(0), rtol=0, atol=1e-5)
    assert moments.power[-1] == pytest.approx(float(kept.var(0, unbiased=False).mean()), rel=1e-4)
    for detail, power, share in zip(details, moments.power, (3 / 4, 3 / 4), strict=False):
        assert power == pytest.approx(float(detail.square().mean()) / share, rel=1e-4)


@given(st.integers(0, 2**31))
def test_bytes_to_floats_and_back(seed):
    images = np.random.default_rng(seed).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(to_float(images, torch.device("cpu"))), images)
    assert to_uint8(torch.tensor([-9.0, 9.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_the_weights_of_the_three_predictions_ask_for_the_same_loss_in_x0():
    """At one level with equal gains: eps and v errors are x_0 errors scaled by SNR and SNR + 1 (Hang et al. 2023)."""
    drawn = process(Identity, ladder=(8,), turns=())
    t = torch.arange(1, drawn.T + 1)
    like = torch.zeros(1, dtype=F64)
    snr = torch.from_numpy((drawn.gains[0, 1:] / drawn.sigma[1:]) ** 2)
    weights = {p: loss_weight(p, drawn, t, 0, 5.0, "kept", like).flatten() for p in ("x0", "eps", "v")}
    torch.testing.assert_close(weights["x0"], snr.clamp(max=5))
    torch.testing.assert_close(weights["eps"] * snr, weights["x0"])
    torch.testing.assert_close(weights["v"] * (snr + 1), weights["x0"])
    assert bool((loss_weight("v", drawn, t, 0, None, "kept", like) == 1).all())


def test_a_low_levels_pixels_have_more_signal():
    drawn = process()
    t = torch.tensor([35])
    like = torch.zeros(1, dtype=F64)
    snr = (drawn.gains[2, 35] / (drawn.sigma[35] * shrink(drawn, 2))) ** 2
    assert float(loss_weight("x0", drawn, t, 2, 1e9, "kept", like)) == pytest.approx(snr)


@pytest.mark.parametrize("basis", [Identity, Haar, Dct])
def test_a_white_picture_is_asked_for_as_ones_at_every_level(basis):
    drawn = process(basis)
    white_ = torch.ones(1, 1, drawn.ladder[0], drawn.ladder[0], dtype=F64)
    for level in range(drawn.K + 1):
        asked = target("x0", drawn, drawn.lower(white_, level), white_, drawn.T, level)
        torch.testing.assert_close(asked, torch.ones_like(asked))


@pytest.mark.parametrize("of", ["kept", "picture"])
@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
@given(step=st.integers(1, 50), min_snr=st.floats(1e-3, 10), seed=st.integers(0, 2**31))
def test_whatever_is_predicted_an_error_of_what_a_level_keeps_weighs_the_same(prediction, of, step, min_snr, seed):
    """min(SNR, gamma) times the squared error of the picture (Hang et al. 2023), for one x_t and two pictures."""
    drawn = process(attenuation=0.3)
    level, t = drawn.level(step), torch.tensor([step])
    side = drawn.ladder[level]
    x0, x = white((1, 1, side, side), seed), white((1, 1, side, side), seed + 1)
    error = white((1, 1, 4, 4), seed + 2)
    for finer in range(drawn.K - 1, level - 1, -1):
        error = drawn.basis.embed(error, finer)

    def asked(picture):
        noise = (x - drawn.diffuse(picture, t, torch.zeros_like(x), level)) / drawn.noise_level(t, x)
        return target(prediction, drawn, picture, noise, t, level)

    small = shrink(drawn, level)
    snr = (drawn.gains[drawn.K, step] / drawn.sigma[step]) ** 2 / (small**2 if of == "kept" else 1)
    weight = loss_weight(prediction, drawn, t, level, min_snr, of, x)
    found = float((weight * (asked(x0 + error) - asked(x0)).square()).mean())
    assert found == pytest.approx(min(snr, min_snr) * float((small * error).square().mean()), rel=1e-6)


@pytest.mark.parametrize("prediction", ["x0", "eps"])
@given(step=st.integers(31, 50), min_snr=st.floats(1e-3, 10), seed=st.integers(0, 2**31))
def test_with_the_pictures_snr_what_a_level_keeps_weighs_what_it_does_at_level_0(prediction, step, min_snr, seed):
    """Errors of x_0 whose difference lies in the coarse part alone: the loss tells no level from another."""
    drawn = process(attenuation=1.0)
    coarse = white((1, 1, 4, 4), seed)
    whole = drawn.compose([torch.zeros(1, 1, side, side, dtype=F64) for side in (16, 8)] + [coarse], 0)
    t = torch.tensor([step])

    def loss(error, level):
        of_x0 = (
            -drawn.gain(t, level, error)[-1] / drawn.noise_level(t, error)
            if prediction == "eps"
            else shrink(drawn, level)
        )
        weight = loss_weight(prediction, drawn, t, level, min_snr, "picture", error)
        return float((weight * (of_x0 * error).square()).mean())

    assert loss(coarse, drawn.K) == pytest.approx(loss(whole, 0))
