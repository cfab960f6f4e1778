"""Samplers with one network call a step: ancestral, ddim, dpmpp."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TypeAlias

import torch

from dvbench.api import Denoise, Noise, Sampler
from dvbench.process import Move, Process

Estimate: TypeAlias = tuple[Move, torch.Tensor]


class OneStep(Sampler):
    """Walks from T to 0 with one network call a step, jumping at turning points. A subclass says how to step."""

    def sample(self, denoise: Denoise, process: Process, noise: Noise, steps: int) -> torch.Tensor:
        """Return images [B, C, n_0, n_0] at level 0."""
        x = process.start(noise)
        last: Estimate | None = None
        for move in process.walk(steps):
            for level in move.jumps_from:
                x = process.jump(x, level, noise(level - 1))
                last = None  # it lies on another grid
            x0 = denoise(x, move.t, move.level)
            x = self.step(process, move, x, x0, noise, last)
            last = (move, x0)
        return x

    @abstractmethod
    def step(
        self,
        process: Process,
        move: Move,
        x: torch.Tensor,
        x0: torch.Tensor,
        noise: Noise,
        last: Estimate | None,
    ) -> torch.Tensor:
        """Return x_s from x_t and the estimate of x_0, all on the grid of ``move.level``.

        ``last`` is the move before and its estimate, None at the start and after a jump.
        """


class Ancestral(OneStep):
    """Draws x_s from q(x_s | x_t, x^_0), the posterior with the estimate in place of x_0 (Ho et al. 2020, alg. 2)."""

    def step(
        self,
        process: Process,
        move: Move,
        x: torch.Tensor,
        x0: torch.Tensor,
        noise: Noise,
        last: Estimate | None,
    ) -> torch.Tensor:
        """Return a draw from the posterior; the last step's variance is zero."""
        posterior = process.posterior(x, x0, move.t, move.s)
        if move.s == 0:
            return posterior.mean
        spread = [variance**0.5 for variance in posterior.variance]
        return posterior.mean + process.combine([(noise(move.level), spread)], move.level)


class Ddim(OneStep):
    """Keeps the marginals and draws no more noise than ``eta`` asks (Song et al. 2021, equation 12).

    Per component x_s = lambda[s] x^ + sqrt(sigma[s]^2 - eta^2 var) eps^ + eta sqrt(var) z, var the posterior's variance
    and eps^ = (x_t - lambda[t] x^) / sigma[t]. ``eta`` from 0 (no noise) to 1 (as much as ancestral).
    """

    def __init__(self, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, not at {eta:g}")
        self.eta = eta

    def step(
        self,
        process: Process,
        move: Move,
        x: torch.Tensor,
        x0: torch.Tensor,
        noise: Noise,
        last: Estimate | None,
    ) -> torch.Tensor:
        """Return x_s; noise is drawn only where eta is above 0."""
        level = move.level
        sigma_t, sigma_s = float(process.sigma[move.t]), float(process.sigma[move.s])
        from_state, from_data, spread = [], [], []
        for gain_t, gain_s, (_, s2) in zip(
            process.gains[level:, move.t],
            process.gains[level:, move.s],
            process.transition(move.t, move.s, level, x),
            strict=True,
        ):
            variance = self.eta**2 * float(s2) * sigma_s**2 / sigma_t**2
            along = max(sigma_s**2 - variance, 0.0) ** 0.5 / sigma_t
            from_state.append(along)
            from_data.append(float(gain_s) - along * float(gain_t))
            spread.append(variance**0.5)
        terms = [(x, from_state), (x0, from_data)]
        if any(spread):
            terms.append((noise(level), spread))
        return process.combine(terms, level)


class Dpmpp(OneStep):
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2), in each component by itself.

    x_s = (sigma_s / sigma_t) x_t - lambda[s] (e^-h - 1) D with h the step of log(lambda / sigma) of that component, and
    D = x^ + h / (2 h') (x^ - x^') from this estimate and the last, h' the last step's h. First order at the start and
    after a jump, since no estimate on the new grid is known yet; the last step, whose h is infinite, returns x^.
    """

    def step(
        self,
        process: Process,
        move: Move,
        x: torch.Tensor,
        x0: torch.Tensor,
        noise: Noise,
        last: Estimate | None,
    ) -> torch.Tensor:
        """Return x_s; no noise is drawn."""
        if move.s == 0:
            return x0
        level = move.level
        steps = log_ratio_steps(process, move)
        from_data = [
            float(gain) * -math.expm1(-h) for gain, h in zip(process.gains[level:, move.s], steps, strict=True)
        ]
        from_state = [float(process.sigma[move.s] / process.sigma[move.t])] * len(steps)
        if last is None:
            return process.combine([(x, from_state), (x0, from_data)], level)
        before, estimate = last
        ahead = [h / (2 * h0) for h, h0 in zip(steps, log_ratio_steps(process, before), strict=True)]
        now = [c * (1 + a) for c, a in zip(from_data, ahead, strict=True)]
        then = [-c * a for c, a in zip(from_data, ahead, strict=True)]
        return process.combine([(x, from_state), (x0, now), (estimate, then)], level)


def log_ratio_steps(process: Process, move: Move) -> list[float]:
    """Return h = log(lambda_s / sigma_s) - log(lambda_t / sigma_t) of each component from the move's level to K."""
    ratio_t = process.gains[move.level :, move.t] / process.sigma[move.t]
    ratio_s = process.gains[move.level :, move.s] / process.sigma[move.s]
    return [math.log(now / then) for now, then in zip(ratio_s, ratio_t, strict=True)]
