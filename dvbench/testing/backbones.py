"""What a network must do: one set of weights that answers, and learns, at every level."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from dvbench.backbone import Backbone
from dvbench.measure import flops
from dvbench.process import Process
from dvbench.testing.findings import Finding, none_taken, taken, within, without

LADDERS: tuple[tuple[int, ...], ...] = ((32, 16, 8), (32, 16), (16,))
BATCH = 4

Make = Callable[[Sequence[int], int], Backbone]
ProcessOf = Callable[[Sequence[int], int], Process]


def examine(make: Make, process_of: ProcessOf, ladders: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Examine the networks that ``make(ladder, channels)`` makes, on those of ``ladders`` that it takes."""
    made: list[Backbone] = []

    def refusals() -> Iterator[str]:
        torch.manual_seed(0)
        made.extend(prepared(n, process_of(n.ladder, n.channels)).eval() for n in taken(make, ladders))
        if not made:
            yield none_taken(ladders)

    yield without("takes a ladder, or refuses it with a ValueError", refusals)
    if not made:
        return
    yield without("answers in x's shape at every level", lambda: shapes(made))
    yield without("answers are finite", lambda: finite(made))
    yield without("deterministic in evaluation", lambda: deterministic(made))
    yield within("each image by itself", 1e-4, lambda: max(alone(network) for network in made))
    yield within("levels together answer as each alone", 1e-4, lambda: max(together(network) for network in made))
    yield without("its FLOPs can be counted at every level", lambda: counted(made))
    if any(parameter.requires_grad for network in made for parameter in network.parameters()):
        yield without("a gradient reaches every parameter", lambda: unreached(made))
        yield without("weights are saved and loaded", lambda: saved(made))
        yield without("ten steps of training lower its loss", lambda: taught(made))


def prepared(network: Backbone, process: Process) -> Backbone:
    """Show a network that asks for it the process and a few images."""
    if prepare := getattr(network, "prepare", None):
        side = process.ladder[0]
        images = np.random.default_rng(0).integers(0, 256, (8, side, side, network.channels), dtype=np.uint8)
        prepare(process, images, "x0")
    return network


def inputs(network: Backbone, batch: int = BATCH) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield for every level the level, white noise and times."""
    for level, side in enumerate(network.ladder):
        generator = torch.Generator().manual_seed(level)
        x = torch.randn(batch, network.channels, side, side, generator=generator)
        yield level, x, torch.linspace(0.2, 0.9, batch)


def stirred(network: Backbone) -> Backbone:
    """Return a copy with all weights moved a little: layers that start at zero would hide what lies behind them."""
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return other


def shapes(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain of answers of another shape or dtype than x."""
    for network in made:
        for level, x, t in inputs(network):
            said = network(x, t, level)
            if said.shape != x.shape or said.dtype != x.dtype:
                yield f"{said.dtype} {tuple(said.shape)} for {x.dtype} {tuple(x.shape)} at level {level}"


def finite(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain of answers that are not finite."""
    for network in map(stirred, made):
        for level, x, t in inputs(network):
            if not bool(torch.isfinite(network(x, t, level)).all()):
                yield f"not at level {level} of {network.ladder}"


def deterministic(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain of answers that differ from call to call."""
    for network in map(stirred, made):
        for level, x, t in inputs(network):
            if not torch.equal(network(x, t, level), network(x, t, level)):
                yield f"not at level {level} of {network.ladder}"


def alone(network: Backbone) -> float:
    """Return the difference that the rest of the batch makes, relative to the answer."""
    other = stirred(network)
    errors = []
    with torch.no_grad():
        for level, x, t in inputs(other):
            together, single = other(x, t, level)[1:2], other(x[1:2], t[1:2], level)
            errors.append(float((together - single).abs().max() / together.abs().max().clamp(min=1e-12)))
    return max(errors)


def together(network: Backbone) -> float:
    """Return the difference that the other levels' images make in ``at_levels``, relative to the answer."""
    other = stirred(network)
    errors = []
    with torch.no_grad():
        # Not as many images of each level: what is split by their numbers must be told apart.
        asked = {level: (x[: level + 1], t[: level + 1]) for level, x, t in inputs(other)}
        said = other.at_levels(asked)
        for level, given in asked.items():
            if level not in said:
                raise LookupError(f"at_levels leaves out level {level} of {sorted(asked)}")
            single = other(*given, level)
            errors.append(float((said[level] - single).abs().max() / single.abs().max().clamp(min=1e-12)))
    return max(errors)


def counted(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain of a network that cannot be traced."""
    for network in made:
        for level, x, t in inputs(network, 1):
            if flops.count(network, x, t, level=level).flops <= 0:
                yield f"it counts none at level {level} of {network.ladder}"


def unreached(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain of parameters that no level's loss moves."""
    for network in map(stirred, made):
        network.zero_grad()
        for level, x, t in inputs(network):
            network(x, t, level).square().mean().backward()
        for name, parameter in network.named_parameters():
            reached = parameter.grad is not None and bool(parameter.grad.isfinite().all() and parameter.grad.any())
            if parameter.requires_grad and not reached:
                yield f"{name} of the ladder {network.ladder} gets none, or one that is 0 or not finite"


def saved(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain where weights put into another instance do not answer the same."""
    for network in made:
        one, other = stirred(network), copy.deepcopy(network)
        other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
        for level, x, t in inputs(network):
            if not torch.equal(one(x, t, level), other(x, t, level)):
                yield f"answers at level {level} of {network.ladder} differ"


def taught(made: Sequence[Backbone]) -> Iterator[str]:
    """Complain of a network that does not learn to say something simple: its input, halved."""
    for network in made:
        pupil = copy.deepcopy(network).train()
        optimizer = torch.optim.Adam([p for p in pupil.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for _ in range(11):
            optimizer.zero_grad()
            loss = torch.stack([(pupil(x, t, level) - x / 2).square().mean() for level, x, t in inputs(pupil)]).sum()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        if not losses[-1] < losses[0]:
            yield f"{losses[0]:.3g} becomes {losses[-1]:.3g} on the ladder {network.ladder}"
