"""The dimensionality-varying diffusion process: pure mathematics on tensors.

A picture x_0 is the sum of orthogonal components 0..K: component i < K is what level i has and level i + 1 has not,
component K is the rest. Each fades by its own gain while white noise grows in all alike (Zhang et al. 2023, arXiv
2211.16032, sections 3.1 and 3.2), and past turning point T_k the state drops component k - 1 and lives on the grid
of level k.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from dvbench.api import Basis, Noise, Schedule

Step: TypeAlias = int | torch.Tensor
Coefficient: TypeAlias = float | torch.Tensor
Coefficients: TypeAlias = Sequence[Coefficient]

# Schedules are sums of float64 products: a variance this far below zero is rounding, not a wrong schedule.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Posterior:
    """q(x_s | x_t, x_0), Gaussian and independent per component.

    ``mean`` lies on the grid of level(t); ``variance`` has one number for each component from level(t) to K.
    """

    mean: torch.Tensor
    variance: tuple[Coefficient, ...]


@dataclass(frozen=True)
class Moments:
    """What moment matching needs to know of the data.

    ``mean`` [C, n_K, n_K]: the mean of component K on its own grid. ``power``: a coordinate's mean square in each
    component i < K, whose mean is dropped with it, and its mean variance about ``mean`` in component K.
    """

    mean: torch.Tensor
    power: tuple[float, ...]


@dataclass(frozen=True)
class Move:
    """A sampler's move: jumps from the levels ``jumps_from``, then the step from ``t`` to ``s`` < t at ``level``."""

    t: int
    s: int
    level: int
    jumps_from: tuple[int, ...]


class Process:
    """The process that a basis and a schedule define.

    Raises ValueError where they do not fit each other or where the schedule is no diffusion: a gain that is not 1 or
    a noise level that is not 0 at t = 0, a step that would need a negative noise variance, turning points that do
    not rise.
    """

    def __init__(self, basis: Basis, schedule: Schedule) -> None:
        self.basis = basis
        self.ladder = tuple(basis.ladder)
        self.K = len(self.ladder) - 1
        self.T = schedule.steps
        self.gains = np.asarray(schedule.gains, dtype=np.float64)
        self.sigma = np.asarray(schedule.sigma, dtype=np.float64)
        self.turns = tuple(int(turn) for turn in schedule.turns)
        self._check()
        self._levels = torch.tensor([self._level_of(t) for t in range(self.T + 1)])
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}
        self._start: Moments | None = None
        self._fill: Moments | None = None

    def matching(self, moments: Moments, *, start: bool, jump: bool) -> Process:
        """Return this process with its start, its jumps or both drawn with the moments that the data give them."""
        other = copy.copy(self)
        other._start, other._fill = moments if start else None, moments if jump else None  # noqa: SLF001 - its own
        return other

    def _check(self) -> None:
        if self.gains.shape != (self.K + 1, self.T + 1) or self.sigma.shape != (self.T + 1,):
            raise ValueError(
                f"the schedule has gains {self.gains.shape} and sigma {self.sigma.shape}, and the ladder "
                f"{','.join(map(str, self.ladder))} with T = {self.T} needs {(self.K + 1, self.T + 1)}, {(self.T + 1,)}"
            )
        if not (np.isfinite(self.gains).all() and np.isfinite(self.sigma).all()):
            raise ValueError("the schedule holds a gain or a noise level that is not finite")
        if not (np.allclose(self.gains[:, 0], 1.0) and self.sigma[0] == 0.0):
            raise ValueError("the schedule must start at the data: gains 1 and sigma 0 at t = 0")
        if (self.gains <= 0).any() or (self.sigma[1:] <= 0).any():
            raise ValueError("the schedule's gains, and its noise levels after t = 0, must be above 0")
        if len(self.turns) != self.K:
            raise ValueError(
                f"{len(self.turns)} turning points do not suit the {self.K} drops of the ladder "
                f"{','.join(map(str, self.ladder))}: give {self.K}"
            )
        for earlier, later in zip((0, *self.turns), self.turns, strict=False):
            if not (earlier < later <= self.T or earlier == later == self.T):
                raise ValueError(
                    f"turning points must rise from above 0 to at most T = {self.T}, but {list(self.turns)} does not"
                )
        variance = self.sigma[1:] ** 2 - (self.gains[:, 1:] / self.gains[:, :-1]) ** 2 * self.sigma[:-1] ** 2
        if (variance < -ROUNDING).any():
            component, step = (int(where[0]) for where in np.nonzero(variance < -ROUNDING))
            raise ValueError(
                f"the schedule would need a negative noise variance ({variance[component, step]:.3g}) in component "
                f"{component} at step {step + 1}: its gain rises, or its noise falls, beyond what the other allows"
            )

    def _level_of(self, t: int) -> int:
        return sum(turn < t for turn in self.turns)

    def level(self, t: Step) -> int | torch.Tensor:
        """Return the level at which the state lives at step ``t``: the number of turning points strictly below it."""
        if isinstance(t, torch.Tensor):
            return self._levels.to(t.device)[t]
        return self._level_of(t)

    def _one_level(self, t: Step) -> int:
        if not isinstance(t, torch.Tensor):
            return self._level_of(t)
        levels = torch.unique(self._levels[t.cpu()])
        if len(levels) != 1:
            raise ValueError("the steps of one batch must share one level: group the batch by level")
        return int(levels[0])

    def gain(self, t: Step, level: int, like: torch.Tensor) -> list[Coefficient]:
        """Return lambda[i, t] for i = level..K: floats, or [B, 1, 1, 1] in the dtype of ``like`` for t [B]."""
        if isinstance(t, torch.Tensor):
            gains = self._on(like)[0][level:, t.to(like.device)]
            return [row.view(-1, 1, 1, 1) for row in gains]
        return [float(gain) for gain in self.gains[level:, t]]

    def noise_level(self, t: Step, like: torch.Tensor) -> Coefficient:
        """Return sigma[t]: a float, or [B, 1, 1, 1] in the dtype of ``like`` for t [B]."""
        if isinstance(t, torch.Tensor):
            return self._on(like)[1][t.to(like.device)].view(-1, 1, 1, 1)
        return float(self.sigma[t])

    def _on(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gains and noise levels as tensors like ``like``, kept where it lies: they are asked for every step."""
        key = (like.dtype, like.device)
        if key not in self._tables:
            with torch.inference_mode(mode=False):  # what sampling keeps serves training too
                # MPS knows no float64: the dtype comes first.
                tables = (torch.from_numpy(table).to(like.dtype).to(like.device) for table in (self.gains, self.sigma))
                self._tables[key] = (next(tables), next(tables))
        return self._tables[key]

    def lower(self, x: torch.Tensor, level: int, start: int = 0) -> torch.Tensor:
        """Project x from the grid of level ``start`` down to the grid of ``level``."""
        for step in range(start, level):
            x = self.basis.project(x, step)
        return x

    def combine(self, terms: Sequence[tuple[torch.Tensor, Coefficients]], level: int) -> torch.Tensor:
        """Sum tensors on the grid of ``level``, component i of each weighted by its own coefficient.

        Each term is a tensor and its coefficients for the components ``level``..K. Component i of x is reached
        without splitting x: with P and E one projection and its embedding, c x + E ((c' - c) P x) weighs component
        ``level`` by c and the rest by c'.
        """
        total = sum_of([(x, coefficients[0]) for x, coefficients in terms])
        finer = [
            (x, [later - coefficients[0] for later in coefficients[1:]])
            for x, coefficients in terms
            if any(isinstance(c, torch.Tensor) or c != coefficients[0] for c in coefficients[1:])
        ]
        if finer:
            projected = [(self.basis.project(x, level), coefficients) for x, coefficients in finer]
            total = total + self.basis.embed(self.combine(projected, level + 1), level)
        return total

    def components(self, x: torch.Tensor, level: int) -> list[torch.Tensor]:
        """Split x into its components ``level``..K, component i on the grid of level i (the last on level K's)."""
        parts = []
        for step in range(level, self.K):
            detail, x = self.split(x, step)
            parts.append(detail)
        return [*parts, x]

    def split(self, x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Split x on the grid of ``level`` < K into what the next level drops and, on its grid, what it keeps."""
        kept = self.basis.project(x, level)
        return x - self.basis.embed(kept, level), kept

    def compose(self, parts: Sequence[torch.Tensor], level: int) -> torch.Tensor:
        """Put the components ``level``..K together again on the grid of ``level``: the inverse of ``components``."""
        x = parts[-1]
        for step in range(self.K - 1, level - 1, -1):
            x = parts[step - level] + self.basis.embed(x, step)
        return x

    def perturb(self, x0: torch.Tensor, t: Step, noise: torch.Tensor) -> torch.Tensor:
        """Draw x_t from q(x_t | x_0): component i is lambda[i, t] x_0 + sigma[t] noise (DVDP, equation 6).

        ``x0`` [B, C, n_0, n_0] at level 0; ``t`` a step or [B] steps of one level; ``noise`` white, on the grid of
        level(t), whose shape the result has.
        """
        level = self._one_level(t)
        return self.diffuse(self.lower(x0, level), t, noise, level)

    def diffuse(self, x: torch.Tensor, t: Step, noise: torch.Tensor, level: int) -> torch.Tensor:
        """Do what ``perturb`` does to clean data that is on the grid of ``level`` already."""
        return self.combine([(x, self.gain(t, level, x))], level) + self.noise_level(t, x) * noise

    def transition(self, t: Step, s: Step, level: int, like: torch.Tensor) -> list[tuple[Coefficient, ...]]:
        """Return (r, s2) of q(x_t | x_s) = N(r x_s, s2) for each component ``level``..K, s < t.

        r = lambda[i, t] / lambda[i, s] and s2 = sigma[t]^2 - r^2 sigma[s]^2 (Kingma et al. 2021, equation 20, in
        each component).
        """
        noise_t, noise_s = self.noise_level(t, like), self.noise_level(s, like)
        ratios = [now / then for now, then in zip(self.gain(t, level, like), self.gain(s, level, like), strict=True)]
        return [(r, clamped(noise_t**2 - r**2 * noise_s**2)) for r in ratios]

    def posterior(self, x_t: torch.Tensor, x0: torch.Tensor, t: Step, s: Step | None = None) -> Posterior:
        """Return q(x_s | x_t, x_0) on the grid of level(t), with s = t - 1 where it is not given.

        Mean (r sigma[s]^2 x_t + s2 lambda[i, s] x_0) / sigma[t]^2 and variance s2 sigma[s]^2 / sigma[t]^2 in each
        component (Ho et al. 2020, equations 6 and 7, generalised). ``x_t`` and ``x0`` are on the grid of level(t).
        """
        s = t - 1 if s is None else s
        level = self._one_level(t)
        noise_t, noise_s = self.noise_level(t, x_t), self.noise_level(s, x_t)
        from_state, from_data, variance = [], [], []
        for (r, s2), gain in zip(self.transition(t, s, level, x_t), self.gain(s, level, x_t), strict=True):
            from_state.append(r * noise_s**2 / noise_t**2)
            from_data.append(s2 * gain / noise_t**2)
            variance.append(s2 * noise_s**2 / noise_t**2)
        return Posterior(self.combine([(x_t, from_state), (x0, from_data)], level), tuple(variance))

    def jump(self, x: torch.Tensor, level: int, noise: torch.Tensor) -> torch.Tensor:
        """Go from ``level`` to ``level`` - 1 at turning point T_level (DVDP, equation 13).

        x is embedded and the subspace that it lacks is filled with ``noise`` (white, on the grid of ``level`` - 1) of
        variance ``fill_variance``.
        """
        finer = level - 1
        fill, _ = self.split(noise, finer)
        return self.basis.embed(x, finer) + math.sqrt(self.fill_variance(level)) * fill

    def fill_variance(self, level: int) -> float:
        """Return the variance that the jump from ``level`` gives to the coordinates of the component it brings back.

        sigma^2 at T_level as in the paper, or with the power that the component still carries there, lambda^2 v
        (Jing et al. 2022, equation 9), where jumps are matched.
        """
        turn, component = self.turns[level - 1], level - 1
        left = self.gains[component, turn] ** 2 * self._fill.power[component] if self._fill else 0.0
        return float(self.sigma[turn] ** 2 + left)

    def start(self, noise: Noise) -> torch.Tensor:
        """Draw x_T on the grid of level(T): white noise, or of the mean and the variances of x_T where matched."""
        level = self._level_of(self.T)
        spread = [math.sqrt(self.start_variance(i)) for i in range(level, self.K + 1)]
        x = self.combine([(noise(level), spread)], level)
        if self._start is None:
            return x
        mean: torch.Tensor = self._start.mean.to(x.dtype).to(x.device)[None] * float(self.gains[self.K, self.T])
        for finer in range(self.K - 1, level - 1, -1):
            mean = self.basis.embed(mean, finer)
        return x + mean

    def start_variance(self, component: int) -> float:
        """Return the variance about its mean with which a coordinate of a component starts.

        Where the start is not matched it is that of a kept coordinate of variance 1: 1, with a gain and a noise level
        whose squares sum to 1.
        """
        if self._start is None:
            return float(self.sigma[self.T] ** 2 + self.gains[self.K, self.T] ** 2)
        return float(self.sigma[self.T] ** 2 + self.gains[component, self.T] ** 2 * self._start.power[component])

    def times(self, steps: int) -> list[int]:
        """Return the falling grid of exactly ``steps`` steps at which a sampler calls the network.

        Even from T to T / steps; the interior time nearest each turning point is moved onto it. Raises ValueError
        where there are more than T steps, or no interior time left for every turning point.
        """
        turns = [turn for turn in self.turns if turn < self.T]
        if not len(turns) < steps <= self.T:
            raise ValueError(
                f"{steps} sampling steps do not suit T = {self.T} and {len(turns)} turning points: "
                f"take {len(turns) + 1} to {self.T}"
            )
        interior = [round(self.T * (steps - j) / steps) for j in range(1, steps)]
        moved: list[int] = []
        for turn in turns:
            nearest = min(interior, key=lambda time: abs(time - turn))
            interior.remove(nearest)
            moved.append(turn)
        return [self.T, *sorted(interior + moved, reverse=True)]

    def walk(self, steps: int) -> Iterator[Move]:
        """Yield a sampler's moves from T to 0, jumps included: at T_k the state leaves level k before the step."""
        times = self.times(steps)
        here = self._level_of(self.T)
        for t, s in zip(times, [*times[1:], 0], strict=True):
            level = self._level_of(t)
            yield Move(t, s, level, tuple(range(here, level, -1)))
            here = level

    def steps_per_level(self, steps: int) -> list[int]:
        """Count the network calls at each level 0..K among ``steps``."""
        levels = [move.level for move in self.walk(steps)]
        return [levels.count(level) for level in range(self.K + 1)]


def sum_of(terms: Sequence[tuple[torch.Tensor, Coefficient]]) -> torch.Tensor:
    """Return the weighted sum of tensors of one shape; the first weight's product allocates, the rest add to it."""
    (first, weight), *others = terms
    total = first * weight
    for x, coefficient in others:
        total = torch.add(total, x, alpha=coefficient) if isinstance(coefficient, float) else total + coefficient * x
    return total


def clamped(variance: Coefficient) -> Coefficient:
    """Return a variance with its rounding below zero removed."""
    return variance.clamp(min=0.0) if isinstance(variance, torch.Tensor) else max(variance, 0.0)
