"""Muon steps along orthogonal matrices, AdamW whatever is no matrix, and both at one learning rate."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dvbench.builtin.unet import UNet
from dvbench.config import Training
from dvbench.flat import Flat
from dvbench.optimizer import REPETITIONS, A, B, C, Muon, Optimizer, orthogonal

CPU = torch.device("cpu")


def optimizer(network, **options):
    held = Training(images=1, **{"optimizer": "muon", **options})
    return Optimizer(list(network.parameters()), held, CPU, torch.amp.GradScaler("cpu", enabled=False))


@given(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**31))
def test_orthogonal_takes_each_singular_value_through_the_polynomial_and_keeps_the_vectors(count, rows, columns, seed):
    """For M = U S V' the polynomial's r-fold repetition p gives U p(S) V', here in double precision throughout."""
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    for _ in range(REPETITIONS):
        s = A * s + B * s**3 + C * s**5
    torch.testing.assert_close(torch.stack(orthogonal(list(matrices))), u * s[:, None] @ v, rtol=0, atol=1e-4)


def test_singular_values_end_near_one():
    matrices = torch.randn(50, 16, 144, generator=torch.Generator().manual_seed(0))
    ends = torch.linalg.svdvals(torch.stack(orthogonal([*matrices])))
    assert ends.min() > 0.65
    assert ends.max() < 1.25


def test_no_gradient_moves_nothing_and_gives_no_nan():
    assert torch.equal(orthogonal([torch.zeros(4, 6)])[0], torch.zeros(4, 6))


@pytest.mark.parametrize("shape", [(24, 16), (16, 8, 3, 3), (64, 8, 1, 1)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_an_update_is_as_long_as_adamws_and_heeds_no_scale(shape, order):
    """Its root mean square is 0.2 lr (Liu et al. 2025, eq. 4), up to the singular values' 0.65 to 1.25."""
    weights, gradient = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    if len(shape) == 4:
        weights, gradient = weights.to(memory_format=order), gradient.to(memory_format=order)
    moved = []
    for scale in (1.0, 1e-8):
        held = weights.clone().requires_grad_()
        muon = Muon(Flat([held]), lr=0.01)
        held.grad = gradient * scale
        muon.flat.gather()
        muon.step()
        moved.append(held.detach() - weights)
    assert 0.65 * 0.002 < moved[0].square().mean().sqrt() < 1.25 * 0.002
    assert (moved[0] * gradient).sum() < 0
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=1e-5)


def test_the_order_in_memory_of_parameter_and_gradient_changes_nothing():
    """Channels first or last, of either: the same step, but for the order in which sums are rounded."""
    torch.manual_seed(0)
    start, gradient = torch.randn(16, 8, 3, 3), torch.randn(16, 8, 3, 3)
    steps = []
    for of_it, of_gradient in product((torch.contiguous_format, torch.channels_last), repeat=2):
        parameter = torch.nn.Parameter(start.clone(memory_format=of_it))
        muon = Muon(Flat([parameter]), 0.1)
        parameter.grad = gradient.clone(memory_format=of_gradient)
        muon.flat.gather()
        muon.step()
        steps.append(parameter.detach() - start)
    assert steps[0].abs().max() > 0.01
    for step in steps[1:]:
        torch.testing.assert_close(step, steps[0], rtol=0, atol=1e-5)


def test_weight_decay_is_decoupled():
    plain, decayed = (torch.ones(8, 8, requires_grad=True) for _ in range(2))
    for held, decay in ((plain, 0.0), (decayed, 0.5)):
        muon = Muon(Flat([held]), lr=0.1, weight_decay=decay)
        held.grad = torch.eye(8)
        muon.flat.gather()
        muon.step()
    torch.testing.assert_close(plain - decayed, torch.full((8, 8), 0.1 * 0.5))


def test_every_parameter_is_stepped_by_one_of_the_two():
    network = UNet((16, 8), 3, width=8, multipliers=(1, 2), attention=(8,))
    stepped = optimizer(network)
    assert [type(part) for part in stepped.parts] == [torch.optim.AdamW, Muon]
    names = {id(p): name for name, p in network.named_parameters()}
    by_adamw, by_muon = ({names[id(p)] for p in flat.parameters} for flat in stepped.flats)
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw
    assert {"down.0.0.conv_in.weight", "middle.0.attend.qkv.weight", "time.0.weight"} <= by_muon
    assert {"enter.0.weight", "leave.1.conv.weight", "level.weight", "down.0.0.conv_in.bias"} <= by_adamw


def test_adamw_alone_is_pytorchs():
    one, other = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
    other.load_state_dict(one.state_dict())
    mine = optimizer(one, optimizer="adamw", weight_decay=0.1, clip=1e9)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    for _ in range(3):
        for network in (one, other):
            network(torch.ones(1, 16)).square().sum().backward()
        mine.step(0.01)
        theirs.step()
        theirs.zero_grad()
        torch.testing.assert_close(one.weight, other.weight)


def test_the_learning_rate_and_the_gradients_norm_reach_both():
    network = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 3))
    one = optimizer(network, clip=1e-3)
    before = [p.detach().clone() for p in network.parameters()]
    network(torch.ones(1, 16)).square().sum().backward()
    one.step(0.0)
    assert all(torch.equal(p, held) for p, held in zip(network.parameters(), before, strict=True))
    assert all(p.grad is None for p in network.parameters())
    network(torch.ones(1, 16)).square().sum().backward()
    one.step(0.01)
    assert not any(torch.equal(p, held) for p, held in zip(network.parameters(), before, strict=True))


def test_an_overflow_under_loss_scaling_moves_nothing_and_lowers_the_scale():
    network = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 3))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    one = Optimizer(list(network.parameters()), Training(images=1, optimizer="muon"), CPU, scaler)
    before = [p.detach().clone() for p in network.parameters()]
    scaler.scale(network(torch.ones(1, 16)).sum() * float("inf")).backward()
    one.step(0.01)
    assert all(torch.equal(p, held) for p, held in zip(network.parameters(), before, strict=True))
    assert scaler.get_scale() == 512


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_an_overflow_of_one_part_moves_no_other(bad, where):
    """The weight is Muon's and the bias AdamW's; both have a mean of past gradients to step on."""
    network = torch.nn.Linear(16, 16)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    one = Optimizer(list(network.parameters()), Training(images=1, optimizer="muon"), CPU, scaler)

    def backward():
        scaler.scale(network(torch.ones(1, 16)).square().sum()).backward()

    backward()
    one.step(0.01)
    held = [*network.parameters(), *one.tensors().values()]
    before = [value.detach().clone() for value in held]
    backward()
    getattr(network, where).grad.view(-1)[0] = bad
    one.step(0.01)
    assert all(torch.equal(value, kept) for value, kept in zip(held, before, strict=True))
    assert scaler.get_scale() == 512
    backward()
    one.step(0.01)
    assert not any(torch.equal(p, kept) for p, kept in zip(network.parameters(), before[:2], strict=True))
    assert all(bool(p.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_muon_steps_parameters_of_low_precision_no_further_than_exact_ones(dtype):
    """A gradient of rank one, as one image gives: all other singular values are what rounding leaves."""
    rows, columns = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    parameter = torch.nn.Parameter(torch.zeros(64, 64, dtype=dtype))
    muon = Muon(Flat([parameter]), 1.0)
    parameter.grad = (torch.outer(rows, columns) / 1024).to(dtype)
    muon.flat.gather()
    muon.step()
    assert 0.65 < torch.linalg.svdvals(parameter.detach().double() / (0.2 * 64**0.5)).max() < 1.25


def test_parameters_of_two_precisions_are_stepped_each_in_its_own():
    network = torch.nn.ModuleList([torch.nn.Linear(16, 16), torch.nn.Linear(16, 16).double()])
    one = optimizer(network, optimizer="adamw")
    before = [p.detach().clone() for p in network.parameters()]
    sum(layer(torch.ones(1, 16).to(layer.weight)).square().sum() for layer in network).backward()
    one.step(0.01)
    assert [flat.values.dtype for flat in one.flats] == [torch.float32, torch.float64]
    for p, held in zip(network.parameters(), before, strict=True):
        assert p.dtype == held.dtype
        assert not torch.equal(p, held)
