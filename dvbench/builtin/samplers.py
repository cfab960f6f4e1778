"""Samplers with one network call a step: ancestral, ddim, dpmpp."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast

import torch

from dvbench.api import Denoise, Noise, Sampler
from dvbench.process import Coefficients, Move, Process

Variance: TypeAlias = Literal["small", "large", "optimal"]


class Informed(Protocol):
    """A ``denoise`` that also knows how sure its estimate is: see ``Sampler.uses_uncertainty``."""

    def uncertainty(self, x: torch.Tensor, t: int, level: int) -> list[torch.Tensor]:
        """Return the variance of a coordinate of each component ``level``..K of x_0 given x_t, [B, 1, 1, 1]."""


@dataclass(frozen=True)
class Call:
    """One call of the network: x_t and the estimate of x_0, both on the grid of ``move.level``.

    ``uncertainty``: the variance of a coordinate of each component of x_0, for a sampler that uses it.
    """

    move: Move
    x: torch.Tensor
    x0: torch.Tensor
    uncertainty: Coefficients | None


class OneStep(Sampler):
    """Walks from T to 0 with one network call a step, jumping at turning points. A subclass says how to step."""

    def sample(self, denoise: Denoise, process: Process, noise: Noise, steps: int) -> torch.Tensor:
        """Return images [B, C, n_0, n_0] at level 0."""
        x = process.start(noise)
        last: Call | None = None
        for move in process.walk(steps):
            for level in move.jumps_from:
                x = process.jump(x, level, noise(level - 1))
                last = None  # it lies on another grid
            at: Any = (x, move.t, move.level)
            sure = cast("Informed", denoise).uncertainty(*at) if self.uses_uncertainty else None
            here = Call(move, x, denoise(*at), sure)
            x = self.step(process, here, last, noise)
            last = here
        return x

    @abstractmethod
    def step(self, process: Process, here: Call, last: Call | None, noise: Noise) -> torch.Tensor:
        """Return x_s on the grid of ``here.move.level``; ``last`` is None at the start and after a jump."""


class Ancestral(OneStep):
    """Draws x_s from q(x_s | x_t, x^_0), the posterior with the estimate in place of x_0 (Ho et al. 2020, alg. 2).

    ``variance``: that of the posterior ("small", the paper's beta~_t), that of the forward step ("large", its beta_t),
    or "optimal", which adds to the posterior's what x_0 still may vary, as Bao et al. 2022 (Analytic-DPM, theorem 1)
    for each image and component by itself; that needs a network which knows it. The last step is its mean, but for
    "optimal", whose last step is a draw like the others.
    """

    def __init__(self, variance: Variance = "small") -> None:
        self.variance = variance
        self.uses_uncertainty = variance == "optimal"

    def step(self, process: Process, here: Call, last: Call | None, noise: Noise) -> torch.Tensor:
        """Return a draw about the posterior's mean."""
        move = here.move
        posterior = process.posterior(here.x, here.x0, move.t, move.s)
        if move.s == 0 and self.variance != "optimal":
            return posterior.mean
        spread = [variance**0.5 for variance in self._variances(process, here, posterior.variance)]
        return posterior.mean + process.combine([(noise(move.level), spread)], move.level)

    def _variances(self, process: Process, here: Call, small: Coefficients) -> Coefficients:
        move = here.move
        large = [s2 for _, s2 in process.transition(move.t, move.s, move.level, here.x)]
        if here.uncertainty is None:
            return large if self.variance == "large" else small
        gains = process.gain(move.s, move.level, here.x)
        from_data = [s2 * gain / process.sigma[move.t] ** 2 for s2, gain in zip(large, gains, strict=True)]
        return [v + c**2 * unsure for v, c, unsure in zip(small, from_data, here.uncertainty, strict=True)]


class Ddim(OneStep):
    """Keeps the marginals and draws no more noise than ``eta`` asks (Song et al. 2021, equation 12).

    Per component x_s = lambda[s] x^ + sqrt(sigma[s]^2 - eta^2 var) eps^ + eta sqrt(var) z, var the posterior's variance
    and eps^ = (x_t - lambda[t] x^) / sigma[t]. ``eta`` from 0 (no noise) to 1 (as much as ancestral).
    """

    def __init__(self, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, not at {eta:g}")
        self.eta = eta

    def step(self, process: Process, here: Call, last: Call | None, noise: Noise) -> torch.Tensor:
        """Return x_s; noise is drawn only where eta is above 0."""
        move, level = here.move, here.move.level
        sigma_t, sigma_s = float(process.sigma[move.t]), float(process.sigma[move.s])
        from_state, from_data, spread = [], [], []
        for gain_t, gain_s, (_, s2) in zip(
            process.gains[level:, move.t],
            process.gains[level:, move.s],
            process.transition(move.t, move.s, level, here.x),
            strict=True,
        ):
            variance = self.eta**2 * float(s2) * sigma_s**2 / sigma_t**2
            along = max(sigma_s**2 - variance, 0.0) ** 0.5 / sigma_t
            from_state.append(along)
            from_data.append(float(gain_s) - along * float(gain_t))
            spread.append(variance**0.5)
        terms = [(here.x, from_state), (here.x0, from_data)]
        if any(spread):
            terms.append((noise(level), spread))
        return process.combine(terms, level)


class Dpmpp(OneStep):
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2), in each component by itself.

    x_s = (sigma_s / sigma_t) x_t - lambda[s] (e^-h - 1) D with h the step of log(lambda / sigma) of that component, and
    D = x^ + h / (2 h') (x^ - x^') from this estimate and the last, h' the last step's h. First order at the start and
    after a jump, since no estimate on the new grid is known yet; the last step, whose h is infinite, returns x^.
    """

    def step(self, process: Process, here: Call, last: Call | None, noise: Noise) -> torch.Tensor:
        """Return x_s; no noise is drawn."""
        move = here.move
        if move.s == 0:
            return here.x0
        steps = log_ratio_steps(process, move)
        from_data = [
            float(gain) * -math.expm1(-h) for gain, h in zip(process.gains[move.level :, move.s], steps, strict=True)
        ]
        from_state = [float(process.sigma[move.s] / process.sigma[move.t])] * len(steps)
        if last is None:
            return process.combine([(here.x, from_state), (here.x0, from_data)], move.level)
        ahead = [h / (2 * h0) for h, h0 in zip(steps, log_ratio_steps(process, last.move), strict=True)]
        now = [c * (1 + a) for c, a in zip(from_data, ahead, strict=True)]
        then = [-c * a for c, a in zip(from_data, ahead, strict=True)]
        return process.combine([(here.x, from_state), (here.x0, now), (last.x0, then)], move.level)


def log_ratio_steps(process: Process, move: Move) -> list[float]:
    """Return h = log(lambda_s / sigma_s) - log(lambda_t / sigma_t) of each component from the move's level to K."""
    ratio_t = process.gains[move.level :, move.t] / process.sigma[move.t]
    ratio_s = process.gains[move.level :, move.s] / process.sigma[move.s]
    return [math.log(now / then) for now, then in zip(ratio_s, ratio_t, strict=True)]
