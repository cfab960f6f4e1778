"""What a sampler must do: walk to the data on the process's grids, with as many calls as it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from dvbench.api import Sampler
from dvbench.process import Process
from dvbench.testing.findings import Finding, within, without

STEPS = (3, 10, 50)
BATCH = 3

Make = Callable[[], Sampler]


class Network:
    """Stands for a network that says ``estimate(x, t, level)``, and notes how it was called."""

    def __init__(self, process: Process, estimate: Callable[[torch.Tensor, int, int], torch.Tensor]) -> None:
        self.process, self.estimate = process, estimate
        self.calls: list[tuple[int, int, tuple[int, ...]]] = []

    def __call__(self, x: torch.Tensor, t: int, level: int) -> torch.Tensor:
        """Estimate x_0 on the grid of ``level``."""
        self.calls.append((t, level, tuple(x.shape)))
        return self.estimate(x, t, level)

    def uncertainty(self, x: torch.Tensor, t: int, level: int) -> list[torch.Tensor]:
        """Be sure."""
        return [torch.zeros(len(x), 1, 1, 1, dtype=x.dtype) for _ in range(level, self.process.K + 1)]


class Noise:
    """White noise in float64, each image of the batch from a generator of its own."""

    def __init__(self, process: Process, images: Sequence[int]) -> None:
        self.process = process
        self.generators = [torch.Generator().manual_seed(image) for image in images]

    def __call__(self, level: int) -> torch.Tensor:
        """Draw on the grid of ``level``."""
        side, channels = self.process.ladder[level], self.process.basis.channels
        return torch.stack(
            [torch.randn(channels, side, side, dtype=torch.float64, generator=g) for g in self.generators]
        )


def examine(make: Make, processes: Sequence[Process]) -> Iterator[Finding]:
    """Examine the samplers that ``make()`` makes on ``processes``."""
    yield without("can be made", lambda: [] if isinstance(make(), Sampler) else ["it is no dvbench.Sampler"])
    yield without("as many network calls as asked for", lambda: each(make, processes, count))
    yield without(
        "calls at falling steps, each at its level, turning points among them", lambda: each(make, processes, walk)
    )
    yield without("images of level 0, finite", lambda: each(make, processes, result))
    yield within("given the truth, it ends there", 1e-6, lambda: max(truth(make(), process) for process in processes))
    yield within("each image by itself", 1e-6, lambda: max(alone(make(), process) for process in processes))
    yield without("all its randomness is the noise it is given", lambda: each(make, processes, again))


Run = tuple[Process, int, Network, torch.Tensor]


def pull(x: torch.Tensor, _t: int, _level: int) -> torch.Tensor:
    """Stand for a network: a smooth function of the state."""
    return torch.tanh(x) * 0.7


def run(sampler: Sampler, process: Process, steps: int, images: Sequence[int] = range(BATCH)) -> Run:
    """Sample with a network that pulls the state together."""
    network = Network(process, pull)
    return process, steps, network, sampler.sample(network, process, Noise(process, images), steps)


def each(make: Make, processes: Sequence[Process], complain: Callable[[Sampler, Run], str | None]) -> Iterator[str]:
    """Yield the complaints about every process and number of steps."""
    for process in processes:
        for steps in STEPS:
            sampler = make()
            if (complaint := complain(sampler, run(sampler, process, steps))) is not None:
                yield f"{complaint} (ladder {process.ladder}, T = {process.T}, {steps} steps)"


def count(_sampler: Sampler, done: Run) -> str | None:
    """Complain of a wrong number of calls."""
    _, steps, network, _ = done
    return None if len(network.calls) == steps else f"{len(network.calls)} calls"


def walk(_sampler: Sampler, done: Run) -> str | None:
    """Complain of calls at wrong times, levels or shapes, or that pass over a turning point."""
    process, _, network, _ = done
    times = [t for t, _, _ in network.calls]
    if times != sorted(set(times), reverse=True) or not all(1 <= t <= process.T for t in times):
        return f"it calls at the steps {times}"
    if missing := [turn for turn in process.turns if turn < process.T and turn not in times]:
        return f"it passes over the turning point {missing[0]}"
    for t, level, shape in network.calls:
        if level != process.level(t) or shape[-1] != process.ladder[level]:
            return f"at step {t}, of level {process.level(t)}, it calls level {level} with {shape}"
    return None


def result(_sampler: Sampler, done: Run) -> str | None:
    """Complain of images of a wrong shape or that are not finite."""
    process, _, _, images = done
    wanted = (BATCH, process.basis.channels, process.ladder[0], process.ladder[0])
    if tuple(images.shape) != wanted:
        return f"it returns {tuple(images.shape)}, not {wanted}"
    return None if bool(torch.isfinite(images).all()) else "it returns values that are not finite"


def again(sampler: Sampler, done: Run) -> str | None:
    """Complain of a second run from the same noise that differs, or of a global generator that was used."""
    process, steps, _, images = done
    before = torch.random.get_rng_state()
    *_, other = run(sampler, process, steps)
    if not torch.equal(before, torch.random.get_rng_state()):
        return "it draws from torch's global generator"
    return None if torch.equal(images, other) else "the same noise gives other images"


def truth(sampler: Sampler, process: Process) -> float:
    """Return how far from x_0 a sampler ends whose network knows x_0, in T steps."""
    side = process.ladder[0]
    x0 = torch.randn(BATCH, process.basis.channels, side, side, generator=torch.Generator().manual_seed(9)).double()
    network = Network(process, lambda _x, _t, level: process.lower(x0, level))
    images = sampler.sample(network, process, Noise(process, range(BATCH)), process.T)
    return float((images - x0).abs().max())


def alone(sampler: Sampler, process: Process) -> float:
    """Return the difference that the rest of the batch makes to an image."""
    *_, together = run(sampler, process, 10)
    *_, single = run(sampler, process, 10, [1])
    return float((together[1] - single[0]).abs().max())
