"""Group norm gives what PyTorch's gives, forward and back, wherever it takes another way."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dvbench.builtin.norm import LARGE, GroupNorm, LastNorm, normalised, slow, sums
from dvbench.builtin.unet import attended

LAST = torch.channels_last
ROUNDING = 2**-8  # of bf16, relative
SIDES = (8, 32)  # one below LARGE positions, one not


def images(side, dtype=torch.bfloat16, batch=3, channels=12):
    """Return images whose channels have means of their own, lying channels last."""
    drawn = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(side))
    return (2 * drawn + torch.linspace(-1, 1, channels)[:, None, None]).to(dtype).to(memory_format=LAST)


def made(dtype=torch.float32):
    """Return a norm with weights that are not those it starts with."""
    norm = GroupNorm(3, 12, eps=1e-6)
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0, generator=generator)
    return norm.to(dtype)


def passed(norm, x):
    """Return what the norm says of x and the gradients of x, the weight and the bias for a random one of that."""
    x = x.detach().requires_grad_()
    said = norm(x)
    seed = torch.Generator().manual_seed(2)
    upstream = torch.randn(said.shape, generator=seed).to(torch.bfloat16).to(said)
    return said, *torch.autograd.grad(said, (x, norm.weight, norm.bias), upstream)


@pytest.mark.parametrize("side", SIDES)
def test_bf16_is_what_float64_gives_to_within_its_rounding(side):
    assert slow(images(side))
    low = passed(made(), images(side))
    exact = passed(made(torch.float64), images(side).double())
    # The result is rounded once; a gradient is a sum of three terms, none much larger than it, each rounded twice.
    for mine, true, roundings in zip(low, exact, (1, 6, 6, 6), strict=True):
        assert (mine.double() - true).abs().max() <= roundings * ROUNDING * true.abs().max()
    assert low[0].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("side", SIDES)
def test_without_gradients_bf16_gives_the_same_as_with_them(side):
    norm, x = made(), images(side)
    with torch.no_grad():
        drawn = norm(x)
    torch.testing.assert_close(drawn, norm(x).detach(), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("side", SIDES)
def test_whatever_is_not_slow_is_left_to_pytorch(side):
    norm, x = made(), images(side, torch.float32)
    first = images(side).contiguous()
    assert not slow(x)
    assert not slow(first)
    for given in (x, first):
        assert torch.equal(norm(given), F.group_norm(given, 3, norm.weight, norm.bias, 1e-6))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_knows_it_by_its_name():
    x = images(SIDES[1])
    graph = str(torch.jit.trace(made(torch.bfloat16), x).inlined_graph)
    assert "aten::group_norm" in graph
    assert "LastNorm" not in graph


def test_a_large_image_is_slow_only_on_the_way_back():
    with torch.no_grad():
        assert [slow(images(side)) for side in SIDES] == [True, False]
    assert SIDES[0] ** 2 < LARGE <= SIDES[1] ** 2


@pytest.mark.parametrize("side", [4, 3])  # positions in equal parts, and not
def test_the_way_back_is_the_gradient(side):
    x = images(side, torch.float64, batch=2).requires_grad_()
    norm = made(torch.float64)
    given = (x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    torch.testing.assert_close(LastNorm.apply(*given), norm(x))
    assert torch.autograd.gradcheck(LastNorm.apply, given)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, ROUNDING), (torch.float32, 2e-6)])
def test_what_a_gpu_computes_is_group_norm(dtype, rounding):
    norm, x = made(torch.float64), images(8, dtype)
    weight, bias = (parameter.detach().to(torch.float32) for parameter in (norm.weight, norm.bias))
    said, mean, rate = normalised(x, weight, bias, 3, norm.eps)
    exact = norm(x.double())
    assert said.dtype == dtype
    assert said.is_contiguous(memory_format=LAST)
    assert (said.double() - exact).abs().max() <= rounding * exact.abs().max()
    grouped = x.double().reshape(3, 3, -1)
    torch.testing.assert_close(mean.double(), grouped.mean(2), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rate.double(), grouped.var(2, correction=0).rsqrt(), rtol=1e-5, atol=0)


def test_what_a_gpu_computes_of_fp32_keeps_its_digits_beside_a_large_mean():
    """The features themselves are rounded to 2^-24 of the mean, about 1e-4 of their spread."""
    x = images(8, torch.float32) + 2000
    said, _, rate = normalised(x, torch.ones(12), torch.zeros(12), 3, 1e-6)
    exact = x.double().reshape(3, 3, -1)
    torch.testing.assert_close(rate.double(), exact.var(2, correction=0).rsqrt(), rtol=1e-5, atol=0)
    assert (said.double() - F.group_norm(x.double(), 3, eps=1e-6)).abs().max() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, ROUNDING), (torch.float32, 1e-5)])
def test_a_gpu_gives_what_float64_gives_to_within_its_rounding(side, dtype, rounding):
    x = images(side, dtype)
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        low = passed(made().cuda(), x.cuda())
    exact = passed(made(torch.float64), x.double())
    assert low[0].dtype == dtype
    assert low[0].is_contiguous(memory_format=LAST)
    for mine, true, roundings in zip(low, exact, (1, 6, 6, 6), strict=True):
        assert (mine.cpu().double() - true).abs().max() <= roundings * rounding * true.abs().max()


def test_sums_are_not_rounded_to_bf16():
    ones = torch.ones(2, 4, 32, 32).to(torch.bfloat16).to(memory_format=LAST)
    ones[:, :, 0, 0] = 4  # 1027 is no number of bf16
    assert torch.equal(sums(ones), torch.full((2, 4), 1027.0))


def test_a_norm_holds_and_copies_what_pytorchs_does():
    norm = made()
    theirs = nn.GroupNorm(3, 12, eps=1e-6)
    theirs.load_state_dict(norm.state_dict())
    x = images(8, torch.float32)
    assert torch.equal(copy.deepcopy(norm)(x), theirs(x))


def test_attention_in_bf16_has_the_gradient_of_float64():
    qkv = torch.randn(2, 3, 1, 64, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    upstream = torch.randn(2, 1, 64, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)

    def gradient(dtype):
        given = qkv.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            said = attended(given)
        return torch.autograd.grad(said, given, upstream.to(said.dtype))[0].double()

    true = gradient(torch.float64)
    # All is computed in fp32, and the gradient rounded once.
    assert (gradient(torch.bfloat16) - true).abs().max() <= ROUNDING * true.abs().max()
