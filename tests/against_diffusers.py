"""DDPM here is the DDPM of the diffusers package. Run by the tox environment "diffusers", which installs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from processes import process
from test_samplers import SeededNoise

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.samplers import Ancestral, Ddim

STEPS = 1000


def eps(x, t):
    """Stand for a network that predicts the noise; t from 1 to T."""
    return torch.tanh(x + 0.001 * t)


def ours(sampler, drawn, steps, seed):
    def denoise(x, t, level):
        gain, sigma = float(drawn.gains[-1, t]), float(drawn.sigma[t])
        return (x - sigma * eps(x, t)) / gain

    return sampler.sample(denoise, drawn, SeededNoise(drawn, seed), steps)


def theirs(scheduler, drawn, steps, seed, **options):
    scheduler.betas = torch.from_numpy(np.linspace(1e-4, 0.02, STEPS))
    scheduler.alphas = 1.0 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(steps)
    noise = SeededNoise(drawn, seed)
    x = noise(0)
    for t in scheduler.timesteps:
        x = scheduler.step(eps(x, int(t) + 1), t, x, generator=noise.generator, **options).prev_sample
    return x


def processes():
    plain = process(Identity, ladder=(8,), turns=(), steps=STEPS)
    same = {"ladder": (8, 4, 2), "turns": (1.0, 1.0), "attenuation": 1.0, "steps": STEPS}
    return [plain, process(Haar, **same), process(Dct, **same)]


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("drawn", processes(), ids=["identity", "haar", "dct"])
def test_ancestral_is_its_ddpm_scheduler(drawn, variance):
    scheduler = DDPMScheduler(num_train_timesteps=STEPS, variance_type=f"fixed_{variance}", clip_sample=False)
    expected = theirs(scheduler, drawn, STEPS, 4)
    torch.testing.assert_close(ours(Ancestral(variance), drawn, STEPS, 4), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1000, 50])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("drawn", processes(), ids=["identity", "haar", "dct"])
def test_ddim_is_its_ddim_scheduler(drawn, eta, steps):
    scheduler = DDIMScheduler(num_train_timesteps=STEPS, clip_sample=False, timestep_spacing="trailing")
    expected = theirs(scheduler, drawn, steps, 4, eta=eta)
    torch.testing.assert_close(ours(Ddim(eta), drawn, steps, 4), expected, rtol=0, atol=1e-5)
