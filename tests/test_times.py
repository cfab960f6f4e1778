"""Training meets every step as often as it should, evenly spread, with or without a share for each level."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import process

from dvbench.builtin.bases import Dct
from dvbench.times import TrainingTimes

BATCHES = 100


@st.composite
def shared(draw):
    """Rising ends of levels, each with steps and a share, and a first step in the first level."""
    ends = tuple(sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=4))))
    shares = tuple(draw(st.lists(st.floats(0.05, 5), min_size=len(ends), max_size=len(ends))))
    return TrainingTimes(ends, shares, draw(st.integers(1, ends[0])))


def counts_of(times, batch, seed):
    """Return how often each step is drawn in each of many batches [BATCHES, T]."""
    generator, T = torch.Generator().manual_seed(seed), times.ends[-1]
    drawn = [times.draw(batch, generator) for _ in range(BATCHES)]
    assert all(t.min() >= times.first and t.max() <= T and len(t) == batch for t in drawn)
    return torch.stack([torch.bincount(t - 1, minlength=T) for t in drawn]).double()


def assert_even(counts, wanted):
    """A count of mean ``wanted`` is a neighbouring whole number, and so has a variance of at most 1/4.

    Over n batches its mean lies within 5 standard errors.
    """
    assert bool(((counts - wanted).abs() < 1 + 1e-6).all())
    assert bool(((counts.mean(0) - wanted).abs() <= 5 * (0.25 / BATCHES) ** 0.5).all())


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**31))
def test_steps_are_uniform_and_evenly_spread(T, first, batch, seed):
    first = min(first, T)
    counts = counts_of(TrainingTimes((T,), first=first), batch, seed)
    assert not counts[:, : first - 1].any()
    assert_even(counts[:, first - 1 :], batch / (T - first + 1))


@given(shared(), st.integers(1, 40), st.integers(0, 2**31))
def test_each_level_has_its_share_and_within_it_each_step_the_same(times, batch, seed):
    counts = counts_of(times, batch, seed)
    counts = counts[:, times.first - 1 :]
    edges = (0, *(end - times.first + 1 for end in times.ends))
    levels = torch.stack([counts[:, start:end].sum(1) for start, end in pairwise(edges)], dim=1)
    share = torch.tensor([times.share(level) for level in range(len(times.ends))], dtype=torch.float64)
    assert float(share.sum()) == pytest.approx(1)
    assert_even(levels, batch * share)
    steps = torch.tensor([end - start for start, end in pairwise(edges)])
    assert_even(counts, torch.repeat_interleave(batch * share / steps, steps))


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_shares_that_say_what_the_steps_say_change_nothing(batch, seed):
    ends = (4, 8, 16)
    drawn = [
        TrainingTimes(ends, shares).draw(batch, torch.Generator().manual_seed(seed)).tolist()
        for shares in (None, (4, 4, 8))
    ]
    assert drawn[0] == drawn[1]


def test_a_level_without_steps_has_no_share():
    drawn = process(Dct, ladder=(16, 8), turns=(1.0,), channels=1)
    assert [TrainingTimes.of(drawn, None, 0).share(level) for level in (0, 1)] == [1, 0]
    assert [TrainingTimes.of(drawn, (2, 0), 0).share(level) for level in (0, 1)] == [1, 0]
    generator = torch.Generator().manual_seed(0)
    assert set(TrainingTimes.of(drawn, (2, 0), 0).draw(drawn.T, generator).tolist()) == set(range(1, drawn.T + 1))


def test_steps_that_are_not_trained_count_for_no_level():
    drawn = process(Dct, ladder=(16, 8), turns=(0.4,), steps=50)
    assert [TrainingTimes.of(drawn, None, 0.22).share(level) for level in (0, 1)] == [10 / 40, 30 / 40]
    assert TrainingTimes.of(drawn, None, 0.0) == TrainingTimes.of(drawn, None, 0.02) == TrainingTimes((20, 50))


def test_a_first_level_without_a_step_is_refused():
    assert TrainingTimes((5, 10), first=5).share(0) == 1 / 6
    with pytest.raises(ValueError, match=r"training.least_t: .* lower it to at most 0.5"):
        TrainingTimes((5, 10), first=6)


@pytest.mark.parametrize(
    ("shares", "message"),
    [((1, 1, 1), "3 shares were given for 2 levels"), ((1, 0), "the levels have 5, 5"), ((1, -1), "above 0")],
)
def test_shares_that_say_nothing_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        TrainingTimes((5, 10), shares)


@given(shared(), st.booleans(), st.integers(1, 40), st.integers(0, 2**31))
def test_the_groups_of_every_batch_are_foretold(times, by_share, batch, seed):
    if not by_share:
        times = TrainingTimes(times.ends, first=times.first)
    foretold = times.groups(batch)
    counts = counts_of(times, batch, seed)
    levels = [counts[:, start:end].sum(1) for start, end in pairwise((0, *times.ends))]
    assert {tuple(row) for row in torch.stack(levels, dim=1).long().tolist()} <= foretold
    assert len(foretold) <= len(times.ends) + 1
    assert all(sum(group) == batch for group in foretold)


def test_where_shares_come_out_even_there_is_one_group():
    assert TrainingTimes((2, 4)).groups(4) == {(2, 2)}
    assert TrainingTimes((2, 4)).groups(3) == {(1, 2), (2, 1)}
    assert TrainingTimes((10, 20, 30), (1, 1, 1)).groups(12) == {(4, 4, 4)}
