"""Ladders, turning points and processes for tests, fixed ones and hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from dvbench.builtin.bases import Dct, Haar, Identity
from dvbench.builtin.schedules import Cosine, Linear, Shifted
from dvbench.process import Process


def process(basis=Dct, schedule=Linear, ladder=(16, 8, 4), turns=(0.3, 0.6), attenuation=0.3, steps=50, channels=1):
    ladder = basis.usable(ladder)
    turns = tuple(turns)[: len(ladder) - 1]
    return Process(basis(ladder, channels), schedule(ladder, steps, turns=turns, attenuation=attenuation))


@st.composite
def ladders(draw, basis):
    """Draw a ladder of up to four levels that the basis takes."""
    if basis is Identity:
        return (draw(st.integers(2, 12)),)
    if basis is Haar:
        last, levels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        return tuple(last * 2 ** (levels - 1 - level) for level in range(levels))
    sides = draw(st.lists(st.integers(1, 24), min_size=1, max_size=4, unique=True))
    return tuple(sorted(sides, reverse=True))


@st.composite
def processes(draw, bases=(Identity, Haar, Dct), schedules=(Linear, Cosine, Shifted), smallest_attenuation=0.01):
    """Draw a process of any basis, schedule, ladder, turning points and attenuation."""
    basis, schedule = draw(st.sampled_from(bases)), draw(st.sampled_from(schedules))
    ladder = draw(ladders(basis))
    steps = draw(st.integers(25, 80))
    drops = len(ladder) - 1
    turns = sorted(draw(st.lists(st.integers(1, steps), min_size=drops, max_size=drops, unique=True)))
    attenuation = draw(st.floats(smallest_attenuation, 1.0))
    return Process(
        basis(ladder, 2), schedule(ladder, steps, turns=tuple(turn / steps for turn in turns), attenuation=attenuation)
    )
