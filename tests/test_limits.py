"""What the whole process tends to, with the perfect network: DDPM's distance to the data, and that is none."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from processes import process
from scipy.stats import chi2

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.perfect import Perfect
from dvbench.builtin.samplers import Ancestral
from dvbench.measure.clock import LevelClock
from dvbench.prediction import data_range
from dvbench.sampling import Denoiser

SAMPLES = 4000
PICTURES = 16


def pictures():
    """Eight coarse pictures, each with a faint and a bold checkerboard on it: a 2 x 2 grid cannot tell the two."""
    coarse = np.random.default_rng(0).integers(90, 166, (PICTURES // 2, 2, 2)).repeat(2, 1).repeat(2, 2)
    checks = np.indices((4, 4)).sum(0) % 2 * 2 - 1
    return np.concatenate([coarse + contrast * checks for contrast in (10, 80)]).astype(np.uint8)[..., None]


def unevenness(drawn):
    """Redraw the pictures and return the chi-square statistic of how often each came.

    A sampler that draws from the data draws each as often as any other; the statistic then has the chi-square
    distribution with one degree of freedom less than there are pictures.
    """
    images = pictures()
    network = Perfect(drawn.ladder, 1)
    network.prepare(drawn, images, "x0")
    denoiser = Denoiser(network, drawn, "x0", data_range(drawn, images), nullcontext, LevelClock())
    generator = torch.Generator().manual_seed(0)

    def noise(level):
        return torch.randn(SAMPLES, 1, *drawn.ladder[level : level + 1] * 2, generator=generator)

    with torch.inference_mode():
        samples = Ancestral().sample(denoiser, drawn, noise, drawn.T)
    known = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    nearest = torch.cdist(samples.flatten(1), known.flatten(1)).argmin(1)
    counts = torch.bincount(nearest, minlength=PICTURES).double()
    expected = SAMPLES / PICTURES
    return float(((counts - expected) ** 2 / expected).sum())


ALIKE = float(chi2.isf(1e-6, PICTURES - 1))  # passed once in a million by a sampler without error


def test_ddpm_draws_from_the_data():
    assert unevenness(process(Identity, ladder=(4,), turns=(), steps=400)) < ALIKE


@pytest.mark.parametrize("basis", [Haar, Dct])
def test_dvdp_reaches_the_data_as_attenuation_falls(basis):
    """A drop without attenuation loses which of two pictures it was, and prefers the faint one; with it, ever less."""
    error = {
        attenuation: unevenness(process(basis, ladder=(4, 2), turns=(0.3,), attenuation=attenuation, steps=400))
        for attenuation in (1.0, 0.5, 0.02)
    }
    assert error[1.0] > 2 * error[0.5] > 2 * ALIKE
    assert error[0.02] < ALIKE


@pytest.mark.parametrize("basis", [Haar, Dct])
def test_dvdp_reaches_the_data_as_steps_grow(basis):
    """The same strong attenuation is too much for few steps."""
    error = {
        steps: unevenness(process(basis, ladder=(4, 2), turns=(0.3,), attenuation=0.02, steps=steps))
        for steps in (25, 400)
    }
    assert error[25] > ALIKE > error[400]
