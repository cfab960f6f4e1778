"""Pictures for detectors, and weights that stand in for clean-fid's, which are 90 MB and not ours to carry."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import torch
from torch import nn

from dvbench.builtin.inception import Inception


def pictures(count, height, width, channels=3, seed=0):
    """Smooth ramps with noise, so that resizing has something to blur and something to overshoot."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, height * width).reshape(1, height, width, 1)
    noisy = ramp * rng.uniform(0.3, 1, (count, 1, 1, channels)) + rng.normal(0, 60, (count, height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def sum_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def own(path, **options):
    """Make the detector with weights of one's own."""
    return Inception(weights=str(path), sha256=sum_of(path), **options)


class StandIn(nn.Module):
    """The interface of NVIDIA's file: ``layers`` maps [B, 3, 299, 299] to what can be viewed as [B, 2048]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(32), nn.Flatten())

    def forward(self, x):
        return self.layers(x)


def save_standin(path):
    """Write the same TorchScript file each time, and return its path."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # torch deplores TorchScript, in which the real weights come
        torch.manual_seed(0)
        torch.jit.script(StandIn()).save(path)
    return path
