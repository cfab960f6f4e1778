"""Parameters one after another in one tensor, so that what is done alike to each is done to all at once.

A network has hundreds of them, most of them small: calling one kernel after another, for each and for each of its
averages, takes longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Flat:
    """Moves ``parameters`` of one dtype and device into the tensor ``values`` [N], of which they become views.

    Each keeps its order in memory, but that its first dimension comes first. ``values.grad`` is what ``gather`` makes
    it.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.parameters = list(parameters)
        self._orders = [_order_in_memory(p) for p in self.parameters]
        self.values = torch.cat(
            [p.detach().permute(order).flatten() for p, order in zip(self.parameters, self._orders, strict=True)]
        )
        self.place(self.parameters, self.values)
        self._gradients: list[torch.Tensor] = []

    def place(self, parameters: Sequence[torch.Tensor], values: torch.Tensor) -> None:
        """Make ``parameters``, of the same shapes, views of ``values`` [N], as those here are of theirs."""
        for p, view in zip(parameters, self.alike(values), strict=True):
            p.data = view

    def alike(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return of ``values`` [N] what lies where each parameter does, in its shape."""
        return [
            part.view([p.shape[dim] for dim in order]).permute([order.index(dim) for dim in range(p.ndim)])
            for part, p, order in zip(self._parts(values), self.parameters, self._orders, strict=True)
        ]

    def matrices(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return the same as matrices, whose rows are the parameter's first dimension."""
        return [part.view(len(p), -1) for part, p in zip(self._parts(values), self.parameters, strict=True)]

    def _parts(self, values: torch.Tensor) -> Sequence[torch.Tensor]:
        return torch.split(values, [p.numel() for p in self.parameters])

    def gather(self) -> None:
        """Put the gradients of the parameters into ``values.grad``; a parameter without any has one of zero."""
        if self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
            self._gradients = self.alike(self.values.grad)
        places, gradients = [], []
        for place, p in zip(self._gradients, self.parameters, strict=True):
            if p.grad is not None:
                places.append(place)
                gradients.append(p.grad)
        if len(places) < len(self.parameters):
            self.values.grad.zero_()
        if places:
            torch._foreach_copy_(places, gradients)

    def forget(self) -> None:
        """Drop the gradients of the parameters."""
        for p in self.parameters:
            p.grad = None


def _order_in_memory(tensor: torch.Tensor) -> list[int]:
    """Return the dimensions, those after the first in their order in memory."""
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda dim: (dim > 0, -strides[dim]))
