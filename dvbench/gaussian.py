"""What a sampler puts out for Gaussian data, exactly and without sampling: a scalar recursion in each component.

For data that is Gaussian and diagonal in the basis the exact posterior mean is linear, x^ = k x_t with
k = lambda v / (lambda^2 v + sigma^2), so every sampler's step is linear in the state, and the variance of each
coefficient follows from step to step. Means are zero here: they follow the same recursions without their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dvbench.process import Move, Process

# The matrix [2, 2] and the noise variance of one step of the pair (x_t, last x^): (x_s, x^) = A (x_t, x^') + (n, 0).
Linear: TypeAlias = tuple[npt.NDArray[np.float64], float]
Rule: TypeAlias = Callable[[Process, int, Move, Move | None, float], Linear]


def output_variance(process: Process, rule: Rule, variance: Sequence[float], steps: int) -> list[float]:
    """Return the variance of a coefficient of each component 0..K in the samples.

    ``rule`` is ``ancestral(variance)``, ``ddim(eta)`` or ``dpmpp``; ``variance`` that of the data's coefficients in
    each component; ``steps`` the network calls. Start and jumps are those of the process.
    """
    return [_component(process, rule, i, float(v), steps) for i, v in enumerate(variance)]


def _component(process: Process, rule: Rule, i: int, variance: float, steps: int) -> float:
    start = int(process.level(process.T)) <= i
    # The covariance of (x_t, last x^); the component is not there before it is jumped to.
    covariance = np.diag([process.start_variance(i) if start else 0.0, 0.0])
    last: Move | None = None
    for move in process.walk(steps):
        if i + 1 in move.jumps_from:
            covariance = np.diag([process.fill_variance(i + 1), 0.0])
        if move.level > i:
            continue
        if move.jumps_from:
            last = None
        gain, sigma = process.gains[i, move.t], process.sigma[move.t]
        matrix, noise = rule(process, i, move, last, gain * variance / (gain**2 * variance + sigma**2))
        covariance = matrix @ covariance @ matrix.T + np.diag([noise, 0.0])
        last = move
    return float(covariance[0, 0])


def _one_step(state: float, data: float, k: float, noise: float) -> Linear:
    """Return the map of x_s = state x_t + data x^ + noise."""
    return np.array([[state + data * k, 0.0], [k, 0.0]]), noise


def ancestral(variance: Literal["small", "large", "optimal"] = "small") -> Rule:
    """Return the rule of one step about the posterior's mean (Ho et al. 2020, equations 6 and 7).

    Its variance is the posterior's, the forward step's, or, as the optimal one, the posterior's and that of x_0 given
    x_t, v - lambda k v = k sigma^2 / lambda, on top.
    """

    def rule(process: Process, i: int, move: Move, _last: Move | None, k: float) -> Linear:
        gain_t, gain_s = process.gains[i, move.t], process.gains[i, move.s]
        var_t, var_s = process.sigma[move.t] ** 2, process.sigma[move.s] ** 2
        r = gain_t / gain_s
        s2 = var_t - r**2 * var_s
        data = s2 * gain_s / var_t
        noise = {
            "small": s2 * var_s / var_t,
            "large": s2 if move.s else 0.0,
            "optimal": s2 * var_s / var_t + data**2 * k * var_t / gain_t,
        }[variance]
        return _one_step(r * var_s / var_t, data, k, noise)

    return rule


def ddim(eta: float) -> Rule:
    """Return the rule of one implicit step (Song et al. 2021, equation 12)."""
    posterior = ancestral()

    def rule(process: Process, i: int, move: Move, last: Move | None, k: float) -> Linear:
        noise = eta**2 * posterior(process, i, move, last, k)[1]
        along = max(process.sigma[move.s] ** 2 - noise, 0.0) ** 0.5 / process.sigma[move.t]
        return _one_step(along, process.gains[i, move.s] - along * process.gains[i, move.t], k, noise)

    return rule


def dpmpp(process: Process, i: int, move: Move, last: Move | None, k: float) -> Linear:
    """Return one step of DPM-Solver++ 2M (Lu et al. 2022): two terms, this estimate and the last."""
    if move.s == 0:
        return np.array([[k, 0.0], [k, 0.0]]), 0.0

    def ratio(t: int) -> float:
        return float(process.gains[i, t] / process.sigma[t])

    h = np.log(ratio(move.s) / ratio(move.t))
    ahead = 0.0 if last is None else h / (2 * np.log(ratio(last.s) / ratio(last.t)))
    state = process.sigma[move.s] / process.sigma[move.t]
    data = process.gains[i, move.s] * -np.expm1(-h)
    return np.array([[state + data * (1 + ahead) * k, -data * ahead], [k, 0.0]]), 0.0
