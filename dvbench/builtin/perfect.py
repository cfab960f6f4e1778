"""The perfect network: the exact posterior mean over a finite training set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from dvbench.backbone import Backbone
from dvbench.prediction import Prediction, data_range, input_scale, target, to_float
from dvbench.process import Process

CHUNK = 256


class Perfect(Backbone):
    """E[x_0 | x_t] when x_0 is one of the training images, each as likely: there is nothing to train.

    Given image n, x_t is Gaussian about G y_n with variance sigma^2, where y_n is the image on the level's grid and G
    weighs component i by lambda[i, t]. So its posterior weight is the softmax over n of
    -|x_t - G y_n|^2 / (2 sigma^2), and since G is symmetric, of (<G x_t, y_n> - |G y_n|^2 / 2) / sigma^2. It says what
    the run predicts (eps, v or x0), so that sampling shows the error of the process alone. Sums run in float64, since
    sigma^2 gets small; memory is that of the images as float32 on every level.
    """

    exact = True

    def __init__(self, ladder: Sequence[int], channels: int) -> None:
        super().__init__(ladder, channels)
        self.images: list[torch.Tensor] = []  # for each level [N, C n_l n_l], float32
        self.energies: list[torch.Tensor] = []  # for each level [N, K + 1 - l]: |component i of y_n|^2, float64

    def prepare(self, process: Process, images: npt.NDArray[np.uint8], prediction: Prediction) -> None:
        """Keep the training images [N, H, W, C] on the grid of every level."""
        self.process, self.prediction = process, prediction
        self.std = data_range(process, images).std
        count, ends = len(images), len(self.ladder)
        self.images = [torch.empty(count, self.channels * side**2) for side in self.ladder]
        self.energies = [torch.empty(count, ends - level, dtype=torch.float64) for level in range(ends)]
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            x = to_float(images[part], torch.device("cpu"))
            parts = torch.stack([p.double().square().sum((1, 2, 3)) for p in process.components(x, 0)], dim=1)
            for level in range(ends):
                self.images[level][part] = process.lower(x, level).flatten(1)
                self.energies[level][part] = parts[:, level:]

    def forward(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Map the scaled x_t [B, C, n_l, n_l] and t [B] in (0, 1] to what the run predicts, in the dtype of x."""
        with torch.autocast(x.device.type, enabled=False):
            state, steps = self._state(x, t, level)
            mean = self.mean(self.weights(state, steps, level), level).view_as(state)
            gains, sigma = self.process.gain(steps, level, state), self.process.noise_level(steps, state)
            noise = (state - self.process.combine([(mean, gains)], level)) / sigma
            return target(self.prediction, self.process, mean, noise, steps, level).to(x.dtype)

    def uncertainty(self, x: torch.Tensor, t: torch.Tensor, level: int) -> torch.Tensor:
        """Return Var(x_0 | x_t) of a coordinate of each component ``level``..K, [B, K + 1 - level], float64."""
        with torch.autocast(x.device.type, enabled=False):
            state, steps = self._state(x, t, level)
            weights = self.weights(state, steps, level)
            parts = self.process.components(self.mean(weights, level).view_as(state), level)
            square_of_mean = torch.stack([part.square().sum((1, 2, 3)) for part in parts], dim=1)
            mean_of_square = weights @ self.energies[level].to(state.device)
            sides = [*self.ladder[level:], 0]
            sizes = [self.channels * (finer**2 - coarser**2) for finer, coarser in pairwise(sides)]
            return (mean_of_square - square_of_mean).clamp(min=0.0) / torch.tensor(sizes, device=state.device)

    def _state(self, x: torch.Tensor, t: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x_t in float64 and the steps [B] from what a network sees."""
        steps = (t.double() * self.process.T).round().long().cpu()
        return x.double() * input_scale(self.process, x.double(), steps, level, self.std), steps

    def weights(self, state: torch.Tensor, steps: torch.Tensor, level: int) -> torch.Tensor:
        """Return how likely each training image is given x_t [B, C, n_l, n_l], float64, at ``steps`` [B]: [B, N]."""
        gains = self.process.gain(steps, level, state)
        variance = torch.as_tensor(self.process.noise_level(steps, state)).flatten() ** 2
        seen = self.process.combine([(state, gains)], level).flatten(1)
        squares = torch.cat([torch.as_tensor(gain).view(-1, 1) for gain in gains], dim=1) ** 2
        logits = torch.cat([seen @ chunk.T for chunk in self._chunks(level, state)], dim=1)
        logits = (logits - squares @ self.energies[level].to(state.device).T / 2) / variance[:, None]
        return logits.softmax(dim=1)

    def mean(self, weights: torch.Tensor, level: int) -> torch.Tensor:
        """Return the training images on the grid of ``level``, flat, in the mean of ``weights`` [B, N]."""
        parts = zip(torch.split(weights, CHUNK, dim=1), self._chunks(level, weights), strict=True)
        return torch.as_tensor(sum(part @ chunk for part, chunk in parts))

    def _chunks(self, level: int, like: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the images of a level a chunk at a time in the dtype and on the device of ``like``.

        Every chunk is the same memory: read it before the next. New memory for each would stay with the process.
        """
        images = self.images[level]
        memory = torch.empty(CHUNK, images.shape[1], dtype=like.dtype, device=like.device)
        for chunk in torch.split(images, CHUNK):
            yield memory[: len(chunk)].copy_(chunk)
