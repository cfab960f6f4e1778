"""Parameters in one tensor are what they were, where they were, and so are their gradients."""

from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dvbench.flat import Flat

LAST = torch.channels_last


@st.composite
def parameters(draw):
    """Parameters of several shapes, each with its dimensions in some order in memory."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    made = []
    for shape in draw(st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=5)):
        order = draw(st.permutations(range(len(shape))))
        stored = torch.randn([shape[dim] for dim in order], generator=random)
        made.append(nn.Parameter(stored.permute([order.index(dim) for dim in range(len(shape))])))
    return made


@given(parameters())
def test_they_keep_their_values_and_follow_the_tensor(made):
    before = [p.detach().clone() for p in made]
    flat = Flat(made)
    assert flat.values.numel() == sum(p.numel() for p in made)
    for p, held in zip(made, before, strict=True):
        assert torch.equal(p, held)
        assert p.requires_grad
    flat.values.mul_(2)
    for p, held in zip(made, before, strict=True):
        assert torch.equal(p, 2 * held)
    for p, alike in zip(made, flat.alike(flat.values), strict=True):
        assert torch.equal(p, alike)
        assert p.data_ptr() == alike.data_ptr()


@given(parameters(), st.integers(0, 2**31))
def test_gradients_come_together_where_their_parameters_are(made, seed):
    flat = Flat(made)
    random = torch.Generator().manual_seed(seed)
    for _ in range(2):  # what the first time left is overwritten
        given_ = [
            torch.randn(p.shape, generator=random) if torch.rand((), generator=random) < 0.7 else None for p in made
        ]
        for p, gradient in zip(made, given_, strict=True):
            p.grad = gradient
        flat.gather()
        for gradient, found in zip(given_, flat.alike(flat.values.grad), strict=True):
            assert torch.equal(found, torch.zeros_like(found) if gradient is None else gradient)
    flat.forget()
    assert all(p.grad is None for p in made)


def test_a_matrix_has_a_row_for_each_feature_and_channels_stay_last():
    weight = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=LAST))
    linear = nn.Parameter(torch.randn(6, 5))
    flat = Flat([weight, linear])
    assert weight.is_contiguous(memory_format=LAST)
    rows, same = flat.matrices(flat.values)
    assert torch.equal(rows, weight.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(same, linear)


def test_a_gradient_is_taken_in_the_order_of_its_parameter_and_a_copy_of_the_network_is_its_own():
    network = nn.Conv2d(4, 8, 3).to(memory_format=LAST)
    flat = Flat(list(network.parameters()))
    network(torch.randn(1, 4, 5, 5).to(memory_format=LAST)).sum().backward()
    assert network.weight.grad.stride() == network.weight.stride()
    made = copy.deepcopy(network)
    flat.values.zero_()
    assert not network.weight.any()
    assert made.weight.all()
    network.load_state_dict(made.state_dict())
    assert torch.equal(flat.alike(flat.values)[0], made.weight)


@given(parameters())
def test_others_are_placed_where_these_are_whatever_their_own_order(made):
    flat = Flat(made)
    others = [nn.Parameter(torch.zeros(p.shape)) for p in made]
    values = flat.values.clone()
    flat.place(others, values)
    values.mul_(2)
    for p, other in zip(made, others, strict=True):
        assert torch.equal(other, 2 * p)
