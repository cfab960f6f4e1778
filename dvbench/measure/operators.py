"""What an operator costs: fvcore's handles and torch's formulas, mended where they are wrong."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import scripts a loss function, which new versions of torch deplore
    from fvcore.nn.jit_handles import conv_flop_jit, einsum_flop_jit, get_shape, linear_flop_jit

FLOPS_PER_MAC = 2

Handle = Callable[[Sequence[Any], Sequence[Any]], Any]  # (inputs, outputs of a node in the trace) -> MACs
Shape = Sequence[int]


def _product(first: int) -> Handle:
    """Count a product of the operands ``first`` and ``first`` + 1: each output element is a sum over the inner axis.

    fvcore's handler for matmul misses the batch axes of a second operand that has more of them than the first.
    """

    def macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        return int(math.prod(get_shape(outputs[0])) * get_shape(inputs[first])[-1])

    return macs


def _convolution_mode(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count a convolution whose padding is given in words, "same" or "valid", which fvcore does not know."""
    weight, said = get_shape(inputs[1]), get_shape(outputs[0])
    return int(said[0] * math.prod(weight) * math.prod(said[2:]))


def _einsum(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count a product of two as torch computes it; fvcore rounds to four digits, and counts sums and transpositions.

    Indices of one operand alone that are not kept are summed over first; without one to sum over jointly, nothing is
    accumulated.
    """
    left, arrow, right = inputs[0].toIValue().replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or "." in left:
        return int(einsum_flop_jit(inputs, outputs)) if len(terms) > 1 else 0
    kept = set(right) if arrow else {index for index in "".join(terms) if left.count(index) == 1}
    joint = set(terms[0]) & set(terms[1])
    sizes: dict[str, int] = {}
    for term, value in zip(terms, inputs[1].node().inputs(), strict=True):
        for index, size in zip(term, get_shape(value), strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return math.prod(sizes[index] for index in joint | kept) if joint - kept else 0


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count q k^T and the weights times v: batch x heads x L_q x L_k x (E + E_v)."""
    query, value = get_shape(inputs[0]), get_shape(inputs[2])
    return int(math.prod(get_shape(outputs[0])[:-1]) * value[-2] * (query[-1] + value[-1]))


def _tensordot(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count a product over several axes at once: each output element is a sum over all of them."""
    axes = [value.toIValue() for value in inputs[2].node().inputs()]
    return int(math.prod(get_shape(outputs[0])) * math.prod(get_shape(inputs[0])[axis] for axis in axes))


def _chain(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    """Count the product of several matrices in the order that takes fewest, in which torch computes it.

    The first and the last may be vectors.
    """
    first, *inner, last = (get_shape(value) for value in inputs[0].node().inputs())
    sides = [*([1] if len(first) == 1 else []), *first, *(shape[1] for shape in inner), *(last[1:] or [1])]

    @cache
    def fewest(start: int, end: int) -> int:
        middle = range(start + 1, end)
        outer = sides[start] * sides[end]
        return min((fewest(start, mid) + fewest(mid, end) + outer * sides[mid] for mid in middle), default=0)

    return fewest(0, len(sides) - 1)


def _recurrent(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    """Count each matrix of a recurrent network once at each position of all sequences; its states have three axes."""
    lists = [value.node() for value in inputs if value.node().kind() == "prim::ListConstruct"]
    shapes = [get_shape(value) for node in lists for value in node.inputs()]
    positions = math.prod(get_shape(inputs[0])[:-1])
    return int(positions * sum(math.prod(shape) for shape in shapes if len(shape) == 2))


MACS: dict[str, Handle] = {
    "aten::_convolution": conv_flop_jit,
    "aten::_convolution_mode": _convolution_mode,
    "aten::linear": linear_flop_jit,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    "aten::tensordot": _tensordot,
    "aten::linalg_multi_dot": _chain,
    **dict.fromkeys(("aten::gru", "aten::lstm", "aten::rnn_tanh", "aten::rnn_relu"), _recurrent),
    **dict.fromkeys(("aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::inner"), _product(0)),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addmv"), _product(1)),
}


def _convolution_backward(
    said: Shape,
    seen: Shape,
    weight: Shape,
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    wanted: Sequence[bool],
    **_out: object,
) -> int:
    """Count one convolution for each gradient that is wanted: of the input, of the weight.

    torch's own formula takes the gradient of a grouped weight for that of one without groups.
    """
    return FLOPS_PER_MAC * sum(wanted[:2]) * seen[0] * math.prod(weight) * math.prod((seen if transposed else said)[2:])


def torch_counter() -> FlopCounterMode:
    """Return torch's counter, with what it lacks. It counts FLOPs."""
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten.convolution_backward: _convolution_backward,
            aten.mv: lambda matrix, *_, **_out: FLOPS_PER_MAC * math.prod(matrix),
            aten.dot: lambda vector, *_, **_out: FLOPS_PER_MAC * math.prod(vector),
            aten.addmv: lambda _added, matrix, *_, **_out: FLOPS_PER_MAC * math.prod(matrix),
        },
    )
