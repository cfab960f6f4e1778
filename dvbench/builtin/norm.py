"""Group norm that stays fast where PyTorch's does not: of features that lie channels last, in bf16 or on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

LARGE = 1024  # positions, from which PyTorch takes another kernel on a CPU, which is slow only on the way back
PARTS = 8  # of the positions: the sum of each is rounded to bf16, what they add up to is not


class GroupNorm(nn.GroupNorm):
    """Group norm (Wu & He 2018, eq. 1 to 3): PyTorch's own, but for the ways around its slow kernels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, n, n] to the same shape."""
        if not slow(x):
            return super().forward(x)
        # With the way there and back, channels first is still the sooner.
        if x.device.type == "cpu" and x.shape[2:].numel() < LARGE:
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        with as_it_is(x):
            said: torch.Tensor = LastNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return said


def slow(x: torch.Tensor) -> bool:
    """Tell whether PyTorch's own way is slow for x [B, C, n, n].

    On a GPU it puts channels first what lies channels last, and autocast has it read and write fp32. A compiler has a
    way of its own, and a trace, by which FLOPs are counted, is to know it by its name.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # torch gives it no types
    if tracing or torch.compiler.is_compiling():
        return False
    if not x.is_contiguous(memory_format=torch.channels_last):
        return False
    if x.device.type == "cpu":
        return x.dtype == torch.bfloat16 and (torch.is_grad_enabled() or x.shape[2:].numel() < LARGE)
    return x.device.type == "cuda"


def as_it_is(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Return a context in which a GPU takes and gives the precision of x, where autocast would have it be fp32."""
    return torch.autocast("cuda", enabled=False) if x.device.type == "cuda" else nullcontext()


class LastNorm(torch.autograd.Function):
    """Group norm of x [B, C, n, n] that lies channels last, in a few passes over all of x.

    With x' = (x - mean) rate, what x is normalised to, and means over a group,
    dx = rate (w dy - mean(w dy) - x' mean(w dy x')), dw = sum(dy x') and db = sum(dy) (the chain rule, as in Ioffe &
    Szegedy 2015, section 3). In x itself dx is linear: (rate w) dy + slope x + offset.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
    ) -> torch.Tensor:
        """Return x normalised, on a CPU by PyTorch's kernel."""
        if x.device.type == "cpu":
            batch, channels, *sides = x.shape
            size = sides[0] * sides[1]
            said, mean, rate = torch.native_group_norm(x, weight, bias, batch, channels, size, groups, eps)
        else:
            said, mean, rate = normalised(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, weight.view(groups, -1), mean[:, :, None], rate[:, :, None])
        return said

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, the weight and the bias."""
        x, weight, mean, rate = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        # Of each image, group and channel in it [B, G, C / G].
        of_dy, of_product = (sums(each).view(len(x), *weight.shape) for each in (dy, dy * x))
        of_normal = (of_product - mean * of_dy) * rate
        members = weight.shape[1] * x.shape[2:].numel()
        slope = (of_normal * weight).sum(2, keepdim=True) * rate.square() / -members
        offset = (of_dy * weight).sum(2, keepdim=True) * rate / -members - slope * mean
        scale, slope, offset = (
            each.expand_as(of_dy).reshape(*x.shape[:2], 1, 1).to(x.dtype) for each in (rate * weight, slope, offset)
        )
        dx = torch.addcmul(offset, x, slope).addcmul_(dy, scale)
        return dx, of_normal.sum(0).flatten(), of_dy.sum(0).flatten(), None, None


def normalised(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the group norm of x [B, C, n, n] that lies channels last, and the mean and the rate [B, G] of each group.

    The features are read twice for their sums (fp32 once) and once more, and written once; all is computed in fp32 at
    least.
    """
    batch, channels = x.shape[:2]
    exact = torch.promote_types(x.dtype, torch.float32)
    positions = x.permute(0, 2, 3, 1).flatten(1, 2)
    if x.dtype == exact:
        # Squares less that of the mean would lose digits that x has: a variance is that within channels and among them.
        within, means = (each.view(batch, groups, -1) for each in torch.var_mean(positions, 1, correction=0))
        variance, mean = torch.var_mean(means, 2, correction=0)
        variance = variance + within.mean(2)
    else:
        squares = torch.linalg.vector_norm(positions, dim=1, dtype=exact).square()
        members = positions[0].numel() // groups
        mean, square = (
            each.view(batch, groups, -1).sum(2) / members for each in (positions.sum(1, dtype=exact), squares)
        )
        variance = (square - mean.square()).clamp_min(0)
    rate = variance.add(eps).rsqrt()
    scale = weight.view(groups, -1) * rate[:, :, None]
    offset = bias.view(groups, -1) - mean[:, :, None] * scale
    scale, offset = (each.view(batch, channels, 1, 1) for each in (scale, offset))
    return torch.addcmul(offset, x, scale, out=torch.empty_like(x)), mean, rate


def sums(x: torch.Tensor) -> torch.Tensor:
    """Return the sums over the positions [B, C] of x [B, C, n, n] that lies channels last."""
    exact = torch.promote_types(x.dtype, torch.float32)
    positions = x.permute(0, 2, 3, 1).flatten(1, 2)
    if x.device.type == "cpu":  # adds up faster what it need not convert
        parts = PARTS if positions.shape[1] % PARTS == 0 else 1
        positions = positions.unflatten(1, (parts, -1)).sum(2)
    return positions.sum(1, dtype=exact)
