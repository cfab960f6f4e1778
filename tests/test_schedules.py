"""Schedules: DDPM's own tables, turning points, attenuation, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import process, processes

from dvbench.api import Schedule
from dvbench.builtin.bases import Dct, Identity
from dvbench.builtin.schedules import Cosine, Heat, Linear, Shifted
from dvbench.process import Process


def test_linear_is_that_of_ddpm_at_a_thousand_steps():
    """Ho et al. 2020, section 4: beta from 1e-4 to 0.02; their table's cumulative product ends near 4.04e-5."""
    schedule = Linear((32,), 1000)
    cumulative = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(schedule.gains[0, 1:] ** 2, cumulative, rtol=1e-12)
    assert schedule.gains[0, -1] ** 2 == pytest.approx(4.04e-5, rel=1e-2)


def test_linear_scales_its_betas_so_that_the_end_hardly_depends_on_the_steps():
    ends = [np.log(Linear((8,), steps).gains[0, -1]) for steps in (250, 500, 1000)]
    np.testing.assert_allclose(ends, ends[-1], rtol=0.05)


def test_cosine_follows_its_formula_where_betas_are_not_capped():
    """Nichol and Dhariwal 2021, equation 17."""
    steps = 400
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(Cosine((8,), steps).gains[0, :-1] ** 2, (f / f[0])[:-1], rtol=1e-9)


@given(processes())
def test_every_schedule_starts_at_the_data_preserves_variance_and_never_needs_negative_noise(drawn):
    gains, sigma = drawn.gains, drawn.sigma
    assert (gains[:, 0] == 1).all()
    assert sigma[0] == 0
    np.testing.assert_allclose(gains[-1] ** 2 + sigma**2, 1, atol=1e-12)
    assert (sigma[1:] ** 2 - (gains[:, 1:] / gains[:, :-1]) ** 2 * sigma[:-1] ** 2 >= -1e-12).all()


@given(processes(), st.floats(0.01, 1.0))
def test_a_component_is_attenuated_as_asked_where_it_is_dropped(drawn, attenuation):
    turns = [turn / drawn.T for turn in drawn.turns]
    gains = Linear(drawn.ladder, drawn.T, turns=turns, attenuation=attenuation).gains
    for component, turn in enumerate(drawn.turns):
        assert gains[component, turn] == pytest.approx(attenuation * gains[-1, turn], rel=1e-9)


@pytest.mark.parametrize(
    ("turns", "attenuation", "sentence"),
    [
        ((0.3,), 0.3, "1 turning points do not suit"),
        ((0.6, 0.3), 0.3, "must rise"),
        ((0.3, 0.3), 0.3, "must rise"),
        ((0.0, 0.3), 0.3, "must rise"),
        ((0.3, 1.2), 0.3, "must rise"),
        ((0.3, 0.6), 0.0, "attenuation"),
        ((0.3, 0.6), 1.5, "attenuation"),
    ],
)
def test_what_makes_no_sense_is_refused(turns, attenuation, sentence):
    with pytest.raises(ValueError, match=sentence):
        Linear((16, 8, 4), 50, turns=turns, attenuation=attenuation)


def test_a_turning_point_at_the_end_never_drops_and_may_repeat():
    drawn = process(turns=(1.0, 1.0))
    assert drawn.turns == (50, 50)
    assert drawn.level(50) == 0
    assert [move.jumps_from for move in drawn.walk(10)] == [()] * 10


def test_too_few_steps_for_linear_are_refused():
    with pytest.raises(ValueError, match="take 21 or more"):
        Linear((8,), 20)
    Linear((8,), 21)


class Given(Schedule):
    """A schedule made of tables."""

    def __init__(self, ladder, gains, sigma, turns=()):
        super().__init__(ladder, len(sigma) - 1)
        self.gains, self.sigma, self.turns = np.array(gains), np.array(sigma), turns


@pytest.mark.parametrize(
    ("gains", "sigma", "sentence"),
    [
        ([[1, 0.8, 0.85]], [0, 0.6, 0.6], "negative noise variance .* component 0 at step 2"),
        ([[1, 0.8, 0.7]], [0, 0.6, 0.5], "negative noise variance"),
        ([[0.9, 0.8, 0.7]], [0, 0.6, 0.7], "start at the data"),
        ([[1, 0.8, 0.7]], [0.1, 0.6, 0.7], "start at the data"),
        ([[1, 0.8, 0.0]], [0, 0.6, 0.7], "above 0"),
        ([[1, 0.8, np.nan]], [0, 0.6, 0.7], "not finite"),
        ([[1, 0.8]], [0, 0.6, 0.7], "need"),
    ],
)
def test_a_schedule_that_is_no_diffusion_is_refused_with_the_reason(gains, sigma, sentence):
    with pytest.raises(ValueError, match=sentence):
        Process(Identity((4,), 1), Given((4,), gains, sigma))


def test_a_component_that_is_dropped_early_and_faded_much_has_gains_above_0_to_the_end():
    """It is not looked at there any more; before, it fades on a path of its own, to the attenuation where it ends."""
    early = Linear((8, 4), 1000, turns=(0.005,), attenuation=0.01)
    drawn = Process(Dct((8, 4), 1), early)
    assert (drawn.gains > 0).all()
    assert early.gains[0, 5] == pytest.approx(0.01 * early.gains[1, 5])


def test_turning_points_that_do_not_fit_the_basis_are_refused():
    tables = Given((8, 4), [[1, 0.9], [1, 0.9]], [0, 0.3], turns=())
    with pytest.raises(ValueError, match="0 turning points do not suit the 1 drops"):
        Process(Dct((8, 4), 1), tables)
    tables.turns = (2,)
    with pytest.raises(ValueError, match="must rise"):
        Process(Dct((8, 4), 1), tables)


def test_heat_fades_as_blurring_diffusion_does():
    """Hoogeboom and Salimans 2022, section 4: with one coefficient a band, its gain is that of the paper."""
    steps, side = 40, 6
    ladder = tuple(range(side, 0, -1))
    heat = Heat(ladder, steps, turns=(1.0,) * (side - 1))
    t = np.arange(steps + 1) / steps
    tau = (20 * np.sin(np.pi * t / 2) ** 2) ** 2 / 2
    cosine = Cosine((side,), steps)
    np.testing.assert_allclose(heat.sigma, cosine.sigma)
    np.testing.assert_allclose(heat.gains[-1], cosine.gains[0], rtol=1e-12)  # the mean never fades: its frequency is 0
    # The second band holds the coefficients (1, 0), (0, 1) and (1, 1): |f|^2 is (pi / n)^2 times 1, 1 and 2.
    square = (np.pi / side) ** 2 * 4 / 3
    fade = (1 - 0.001) * np.exp(-square * tau) + 0.001
    np.testing.assert_allclose(heat.gains[-2], cosine.gains[0] * fade, rtol=1e-9)
    process = Process(Dct(ladder, 1), heat)
    assert process.level(steps) == 0


def test_shifted_is_cosine_at_its_reference_and_noisier_above_it():
    """Hoogeboom et al. 2023, equation 5: log SNR moves by 2 log(reference / n_0), where betas are not capped."""
    steps = 200
    small, large = (Shifted((side,), steps) for side in (64, 256))

    def log_snr(schedule):
        return 2 * np.log(schedule.gains[0, 1:-2] / schedule.sigma[1:-2])

    t = np.arange(1, steps - 1) / steps
    np.testing.assert_allclose(log_snr(small), -2 * np.log(np.tan(np.pi * t / 2)), atol=1e-6)
    np.testing.assert_allclose(log_snr(small) - log_snr(large), 2 * np.log(4), atol=1e-6)
    with pytest.raises(ValueError, match="reference"):
        Shifted((64,), steps, reference=0)


@pytest.mark.parametrize("option", [{"blur": -1.0}, {"least": 0.0}, {"least": 1.5}])
def test_heat_refuses_options_without_sense(option):
    with pytest.raises(ValueError, match="blur must be"):
        Heat((8,), 50, **option)
