"""The cost of one forward pass, counted on its trace by fvcore."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import scripts a loss function, which new versions of torch deplore
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import conv_flop_jit, einsum_flop_jit, get_shape, linear_flop_jit

FLOPS_PER_MAC = 2

Handle = Callable[[Sequence[Any], Sequence[Any]], Any]  # (inputs, outputs of a node in the trace) -> MACs


@dataclass(frozen=True)
class ForwardCost:
    """``flops``: 2 x the multiply-accumulates of convolution, linear, matmul and attention, and of nothing else.

    ``by_operator`` splits them; ``uncounted_ops`` names, sorted, what else the trace holds and fvcore does not take for
    free (fvcore takes for free what moves, cuts, pads or compares).
    """

    flops: int
    by_operator: dict[str, int]
    uncounted_ops: tuple[str, ...]


def count(module: nn.Module, *tensors: torch.Tensor, **constants: object) -> ForwardCost:
    """Count ``module(*tensors, **constants)`` in evaluation mode; the cost is that of the whole batch.

    Python numbers go in as ``constants``, since a trace takes only tensors as inputs. The module's modes are restored.
    It is called once before it is counted: what a first call makes and keeps is not what a call costs.
    """
    analysis = FlopCountAnalysis(_Closed(module, constants), tensors)
    analysis.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False).tracer_warnings("none")
    # fvcore's own list also charges norms, pooling and upsampling, in operations that are not MACs.
    analysis.clear_op_handles().set_op_handle(**_MACS)
    with _evaluated(module), torch.no_grad():
        module(*tensors, **constants)
        macs = analysis.by_operator()
    by_operator = {name: FLOPS_PER_MAC * int(number) for name, number in sorted(macs.items())}
    return ForwardCost(sum(by_operator.values()), by_operator, tuple(sorted(analysis.unsupported_ops())))


def params(module: nn.Module) -> int:
    """Count the trainable parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class _Closed(nn.Module):
    """A module with its constant arguments filled in, so that only tensors remain."""

    def __init__(self, module: nn.Module, constants: dict[str, object]) -> None:
        super().__init__()
        self.module = module
        self.constants = constants

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.module(*tensors, **self.constants)


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode, and each back into its own mode at the end."""
    training = [part for part in module.modules() if part.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # In evaluation mode nn.MultiheadAttention runs as one fused operator, which hides its matrix products.
    torch.backends.mha.set_fastpath_enabled(False)
    module.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for part in training:
            part.training = True


def _product(first: int) -> Handle:
    """Count a product of the operands ``first`` and ``first`` + 1: each output element is a sum over the inner axis.

    fvcore's handler for matmul misses the batch axes of a second operand that has more of them than the first.
    """

    def macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        return int(math.prod(get_shape(outputs[0])) * get_shape(inputs[first])[-1])

    return macs


def _einsum(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count one multiplication for each combination of the indices; fvcore rounds to four digits."""
    terms = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "." in "".join(terms):
        return int(einsum_flop_jit(inputs, outputs))
    shapes = [get_shape(value) for value in inputs[1].node().inputs()]
    sizes = {
        index: size for term, shape in zip(terms, shapes, strict=True) for index, size in zip(term, shape, strict=True)
    }
    return math.prod(sizes.values())


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count q k^T and the weights times v: batch x heads x L_q x L_k x (E + E_v)."""
    query, value = get_shape(inputs[0]), get_shape(inputs[2])
    return int(math.prod(get_shape(outputs[0])[:-1]) * value[-2] * (query[-1] + value[-1]))


_MACS: dict[str, Handle] = {
    "aten::_convolution": conv_flop_jit,
    "aten::linear": linear_flop_jit,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    **dict.fromkeys(("aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot"), _product(0)),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addmv"), _product(1)),
}
