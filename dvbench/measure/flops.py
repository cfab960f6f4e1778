"""The cost of one forward and one backward pass, counted by fvcore on a trace and by torch operator by operator."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dvbench.measure.operators import FLOPS_PER_MAC, MACS, torch_counter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import scripts a loss function, which new versions of torch deplore
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_analysis import _IGNORED_OPS as FREE

META = torch.device("meta")  # tensors there have shapes and no values, and take no memory


@dataclass(frozen=True)
class ForwardCost:
    """``flops``: 2 x the multiply-accumulates of convolution, linear, matmul and attention, and of nothing else.

    ``by_operator`` splits them; ``uncounted_ops`` names, sorted, what else is called and fvcore does not take for free
    (fvcore takes for free what moves, cuts, pads or compares).
    """

    flops: int
    by_operator: dict[str, int]
    uncounted_ops: tuple[str, ...]


def count(module: nn.Module, *tensors: torch.Tensor, **constants: object) -> ForwardCost:
    """Count ``module(*tensors, **constants)`` in evaluation mode; the cost is that of the whole batch.

    Python numbers go in as ``constants``, since a trace takes only tensors as inputs. The module's modes are restored.
    It is called once before it is counted: what a first call makes and keeps is not what a call costs. What cannot be
    traced, as convolutions on the meta device and reentrant checkpointing, is counted by torch instead, with the same
    result.
    """
    with _evaluated(module):
        if not any(tensor.is_meta for tensor in tensors):
            with _perhaps(module):
                return _traced(module, tensors, constants)
        return _observed(module, tensors, constants)


def backward(module: nn.Module, *tensors: torch.Tensor, **constants: object) -> int | None:
    """Count the FLOPs of the backward pass of ``module(*tensors, **constants)``; None: there is nothing to train.

    Gradients are those that training takes: of the trainable parameters, and of what lies between them and the output,
    so not of the inputs. Each product of a forward pass costs one as large for each of its two operands that has a
    gradient; what is computed anew to save memory, as by fused attention or checkpointing, is not counted, so that the
    figure is that of the network and not of a device (as the model FLOPs of Chowdhery et al. 2022, appendix B).
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return None
    try:
        return _backward(module, tensors, constants, META)
    except Exception:  # noqa: BLE001 - whatever a network does that needs the values of its tensors
        return _backward(module, tensors, constants, tensors[0].device)


def params(module: nn.Module) -> int:
    """Count the trainable parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _traced(module: nn.Module, tensors: tuple[torch.Tensor, ...], constants: dict[str, Any]) -> ForwardCost:
    """Count a forward pass on its trace."""
    analysis = FlopCountAnalysis(_Closed(module, constants), tensors)
    analysis.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False).tracer_warnings("none")
    # fvcore's own list also charges norms, pooling and upsampling, in operations that are not MACs.
    analysis.clear_op_handles().set_op_handle(**MACS)
    with torch.no_grad():
        module(*tensors, **constants)
        macs = analysis.by_operator()
    return _cost({name: FLOPS_PER_MAC * int(number) for name, number in macs.items()}, analysis.unsupported_ops())


def _observed(module: nn.Module, tensors: tuple[torch.Tensor, ...], constants: dict[str, Any]) -> ForwardCost:
    """Count a forward pass operator by operator."""
    # In inference mode, what is called is seen before it is taken apart: a linear layer, not its transposed product.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        module(*tensors, **constants)
        with torch_counter() as counter, _Observer(counter) as seen:
            module(*tensors, **constants)
    return _cost(seen.flops, seen.others - FREE)


def _cost(by_operator: dict[str, int], uncounted: Iterable[str]) -> ForwardCost:
    return ForwardCost(sum(by_operator.values()), dict(sorted(by_operator.items())), tuple(sorted(uncounted)))


def _backward(
    module: nn.Module, tensors: tuple[torch.Tensor, ...], constants: dict[str, Any], device: torch.device
) -> int:
    """Count a backward pass of a copy on ``device``: the module's gradients, buffers and caches stay as they are."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(device, copy=True)

    # What is copied already is not copied: weights of their full size need not fit twice.
    held = (*module.parameters(), *module.buffers())
    copied = copy.deepcopy(module, {id(each): moved(each).requires_grad_(each.requires_grad) for each in held})
    with _evaluated(copied), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        said = copied(*map(moved, tensors), **constants)
        if not said.requires_grad:  # no trainable parameter had a say in it
            return 0
        with torch_counter() as counter:
            counter.flop_registry = {operator: _back(formula) for operator, formula in counter.flop_registry.items()}
            # Not torch.autograd.grad, in which reentrant checkpointing must not be.
            said.backward(torch.ones_like(said))
    return int(counter.get_total_flops())


def _back(formula: Callable[..., int]) -> Callable[..., int]:
    """Let ``formula`` count nothing of what is to have gradients: on the way back, that is a way there done anew."""
    return lambda *args, **kwargs: 0 if torch.is_grad_enabled() else formula(*args, **kwargs)


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


@contextmanager
def _perhaps(module: nn.Module) -> Iterator[None]:
    """Let a trace of the module fail, and take away the hooks that fvcore then leaves on it."""
    every = [hooks for part in module.modules() for hooks in (part._forward_pre_hooks, part._forward_hooks)]  # noqa: SLF001 - they have no public name
    before = [set(hooks) for hooks in every]
    try:
        yield
    except RuntimeError:
        for hooks, kept in zip(every, before, strict=True):
            for added in set(hooks) - kept:
                del hooks[added]


class _Observer(TorchDispatchMode):
    """Credits what ``counter`` counts to the operators that a network calls, by the names that a trace gives them."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives the base class no types
        self.counter = counter
        self.flops: dict[str, int] = {}
        self.others: set[str] = set()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.counter.get_total_flops()
        said = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        if counted := self.counter.get_total_flops() - before:
            self.flops[name] = self.flops.get(name, 0) + counted
        else:
            self.others.add(f"{operator.namespace}::{name}")
        return said
