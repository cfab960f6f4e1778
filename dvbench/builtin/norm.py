"""Group norm that stays fast where PyTorch's does not: in bf16 on a CPU, channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LARGE = 1024  # positions, from which PyTorch takes another kernel, which is slow only on the way back
PARTS = 8  # of the positions: the sum of each is rounded to bf16, what they add up to is not


class GroupNorm(nn.GroupNorm):
    """Group norm (Wu & He 2018, eq. 1 to 3): PyTorch's own, but for the ways around its slow kernels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, n, n] to the same shape."""
        if not slow(x):
            return super().forward(x)
        if x.shape[2:].numel() < LARGE:  # with the way there and back, channels first is still the sooner
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        said: torch.Tensor = LargeNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return said


def slow(x: torch.Tensor) -> bool:
    """Tell whether PyTorch's own way is slow for x [B, C, n, n]; a compiler has one of its own."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    last = x.is_contiguous(memory_format=torch.channels_last)
    return last and (torch.is_grad_enabled() or x.shape[2:].numel() < LARGE)


class LargeNorm(torch.autograd.Function):
    """Group norm of x [B, C, n, n] that lies channels last; its way back is a few passes over all of x.

    With x' = (x - mean) rate, what x is normalised to, and means over a group,
    dx = rate (w dy - mean(w dy) - x' mean(w dy x')), dw = sum(dy x') and db = sum(dy) (the chain rule, as in Ioffe &
    Szegedy 2015, section 3). In x itself dx is linear: (rate w) dy + slope x + offset.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
    ) -> torch.Tensor:
        """Return x normalised, by PyTorch's kernel."""
        batch, channels, *sides = x.shape
        said, mean, rate = torch.native_group_norm(x, weight, bias, batch, channels, sides[0] * sides[1], groups, eps)
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


def sums(x: torch.Tensor) -> torch.Tensor:
    """Return the sums over the positions [B, C] of x [B, C, n, n] that lies channels last."""
    batch, channels, *sides = x.shape
    positions = sides[0] * sides[1]
    parts = PARTS if positions % PARTS == 0 else 1
    divided = x.permute(0, 2, 3, 1).view(batch, parts, positions // parts, channels)
    return divided.sum(2).sum(1, dtype=torch.promote_types(x.dtype, torch.float32))
