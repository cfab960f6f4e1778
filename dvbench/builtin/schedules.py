"""Schedules that preserve variance: sigma^2 = 1 - lambda_K^2, with turning points and attenuation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dvbench.api import Schedule


class VariancePreserving(Schedule):
    """Component K fades as in DDPM; component i < K fades further, to ``attenuation`` times that at T_{i+1}.

    ``turns`` are the turning points as fractions of T, rising; 1 never drops. ``attenuation`` lies in (0, 1]: the
    path is gain_i = gain_K attenuation^(t / T_{i+1}). The paper (Zhang et al. 2023, section 3.2) asks that a
    component has faded where it is dropped and leaves the path open.
    """

    def __init__(
        self, ladder: Sequence[int], steps: int, turns: tuple[float, ...] = (), attenuation: float = 0.3
    ) -> None:
        super().__init__(ladder, steps)
        drops = len(self.ladder) - 1
        if len(turns) != drops:
            raise ValueError(
                f"{len(turns)} turning points do not suit the ladder {','.join(map(str, self.ladder))}: give {drops} "
                "with --turns, one for each drop"
            )
        if not 0 < attenuation <= 1:
            raise ValueError(f"attenuation must lie above 0 and at most at 1, not at {attenuation:g}")
        self.turns = tuple(round(turn * steps) for turn in turns)
        for earlier, later in zip((0, *self.turns), self.turns, strict=False):
            if not (earlier < later <= steps or earlier == later == steps):
                raise ValueError(
                    f"turning points must rise from above 0 to at most 1 (in steps of 1/{steps}), and "
                    f"{','.join(f'{turn:g}' for turn in turns)} does not"
                )
        cumulative = np.cumprod(1.0 - self.betas(steps))
        kept = np.sqrt(np.concatenate([[1.0], cumulative]))
        # Past its turning point a component is dropped, and how far it would fade is nobody's matter.
        fade = [attenuation ** np.minimum(np.arange(steps + 1) / turn, 1.0) for turn in self.turns]
        self.gains = np.stack([kept * path for path in fade] + [kept])
        self.sigma = np.sqrt(np.concatenate([[0.0], 1.0 - cumulative]))

    @abstractmethod
    def betas(self, steps: int) -> npt.NDArray[np.float64]:
        """Return beta_1..beta_T of DDPM: 1 - beta_t is the squared factor by which step t shrinks the signal."""


class Linear(VariancePreserving):
    """Betas from 1e-4 to 0.02 over 1000 steps (Ho et al. 2020, section 4), scaled by 1000 / T for T steps."""

    def betas(self, steps: int) -> npt.NDArray[np.float64]:
        """Return T betas; refuse a T so small that the last would reach 1."""
        scale = 1000 / steps
        if 0.02 * scale >= 1:
            raise ValueError(
                f"{steps} steps would make the last beta {0.02 * scale:g}, which must stay below 1: take 21 or more"
            )
        return np.linspace(1e-4 * scale, 0.02 * scale, steps)


class Cosine(VariancePreserving):
    """The cumulative signal falls as a squared cosine (Nichol and Dhariwal 2021, equation 17), betas at most 0.999."""

    def betas(self, steps: int) -> npt.NDArray[np.float64]:
        """Return T betas."""
        offset = 0.008
        angle = (np.arange(steps + 1) / steps + offset) / (1 + offset) * math.pi / 2
        cumulative = np.cos(angle) ** 2
        betas: npt.NDArray[np.float64] = np.minimum(1 - cumulative[1:] / cumulative[:-1], 0.999)
        return betas


class Shifted(VariancePreserving):
    """Cosine, its signal-to-noise ratio shifted with the resolution (Hoogeboom et al. 2023, section 3.1).

    log SNR = -2 log tan(pi t / 2) + 2 log(``reference`` / n_0): a picture of n_0 px is noised until it has, at t, the
    ratio that one of ``reference`` px has after averaging down to it. Betas at most 0.999.
    """

    def __init__(
        self,
        ladder: Sequence[int],
        steps: int,
        turns: tuple[float, ...] = (),
        attenuation: float = 0.3,
        reference: int = 64,
    ) -> None:
        if reference < 1:
            raise ValueError(f"reference must be a side length of at least 1, not {reference}")
        self.reference = reference
        super().__init__(ladder, steps, turns, attenuation)

    def betas(self, steps: int) -> npt.NDArray[np.float64]:
        """Return T betas."""
        tangent = np.tan(np.pi / 2 * np.arange(steps) / steps) * self.ladder[0] / self.reference
        cumulative = np.append(1 / (1 + tangent**2), 0.0)  # sigmoid(log SNR), 0 at t = 1
        betas: npt.NDArray[np.float64] = np.minimum(1 - cumulative[1:] / cumulative[:-1], 0.999)
        return betas


class Heat(Schedule):
    """Gains that follow the heat equation, band by band: Blurring Diffusion (Hoogeboom and Salimans 2022, section 4).

    gain_i = alpha ((1 - ``least``) exp(-f_i^2 tau) + ``least``), f_i^2 the mean over the coefficients of component i
    of their squared dct frequency, (pi k / n_0)^2 summed over the axes; tau = sigma_B^2 / 2, sigma_B = ``blur`` times
    sin^2(pi t / 2); alpha and sigma are those of the cosine schedule. In the paper each frequency has a gain of its
    own; here each band has. ``turns``: where a band is dropped, as fractions of T; in the paper none is.
    """

    def __init__(
        self,
        ladder: Sequence[int],
        steps: int,
        turns: tuple[float, ...] = (),
        blur: float = 20.0,
        least: float = 0.001,
    ) -> None:
        super().__init__(ladder, steps)
        if blur < 0 or not 0 < least <= 1:
            raise ValueError(f"blur must be at least 0 and least above 0 and at most 1, not {blur:g} and {least:g}")
        plain = Cosine(self.ladder, steps, turns, attenuation=1.0)
        self.turns, self.sigma = plain.turns, plain.sigma
        tau = (blur * np.sin(np.pi / 2 * np.arange(steps + 1) / steps) ** 2) ** 2 / 2
        fades = [(1 - least) * np.exp(-square * tau) + least for square in self._squared_frequencies()]
        self.gains = np.stack([plain.gains[-1] * fade for fade in fades])

    def _squared_frequencies(self) -> list[float]:
        """Return the mean of |f|^2 over the coefficients of each component 0..K."""
        frequency = np.pi * np.arange(self.ladder[0]) / self.ladder[0]
        square = frequency[:, None] ** 2 + frequency**2
        totals = [float(square[:side, :side].sum()) for side in self.ladder] + [0.0]
        counts = [side**2 for side in self.ladder] + [0]
        return [
            (finer - coarser) / (many - few)
            for (finer, coarser), (many, few) in zip(pairwise(totals), pairwise(counts), strict=True)
        ]
