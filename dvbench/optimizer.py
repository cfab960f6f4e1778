"""What turns gradients into steps: AdamW for everything, or Muon for the matrices inside the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from dvbench.checkpoint import under
from dvbench.config import Training

FEWEST = 8  # rows and columns: what has fewer stands for colours or levels, and is AdamW's
MOMENTUM = 0.95
# The odd polynomial a x + b x^3 + c x^5 whose repetition takes (0, 1] into 0.7 to 1.2 soonest (Jordan et al. 2024).
A, B, C = 3.4445, -4.7750, 2.0315
REPETITIONS = 5


class Optimizer:
    """Steps all ``parameters`` at one learning rate; scales by ``scaler``, clips the whole gradient's norm."""

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        options: Training,
        device: torch.device,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.parameters, self.clip, self.scaler = parameters, options.clip, scaler
        inner = [p for p in parameters if options.optimizer == "muon" and p.ndim >= 2 and min(p.shape[:2]) >= FEWEST]
        chosen = set(map(id, inner))
        self.parts: list[torch.optim.Optimizer] = []
        if others := [p for p in parameters if id(p) not in chosen]:
            decay, betas, fused = options.weight_decay, (0.9, options.beta2), device.type != "mps"
            adamw = torch.optim.AdamW(others, lr=options.lr, weight_decay=decay, betas=betas, fused=fused)
            self.parts.append(adamw)
        if inner:
            self.parts.append(Muon(inner, options.lr, options.weight_decay))

    def step(self, lr: float) -> None:
        """Take one step and forget the gradients."""
        for part in self.parts:
            self.scaler.unscale_(part)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            self.scaler.step(part)
        self.scaler.update()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state: of the parameter numbered n, the tensors n.slot."""
        return {
            f"{first + index}.{slot}": torch.as_tensor(value)
            for first, part in self._numbered()
            for index, slots in part.state_dict()["state"].items()
            for slot, value in slots.items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what ``tensors`` returned. Raises KeyError or RuntimeError where it does not fit."""
        for first, part in self._numbered():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for index, like in enumerate(_stepped(part)):
                for slot, value in under(str(first + index), tensors).items():
                    # In the memory order of its parameter, which the fused optimiser takes for granted.
                    same = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                    state.setdefault(index, {})[slot] = same
            part.load_state_dict({**part.state_dict(), "state": state})

    def _numbered(self) -> Iterator[tuple[int, torch.optim.Optimizer]]:
        """Yield each part after how many parameters those before it step."""
        first = 0
        for part in self.parts:
            yield first, part
            first += len(_stepped(part))


def _stepped(part: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in part.param_groups for parameter in group["params"]]


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonal matrix nearest to the gradient's running mean (Jordan et al. 2024, "Muon").

    Of a convolution [out, in, h, w] the matrix is [out, in h w]. An update's root mean square is 0.2 ``lr`` as
    AdamW's is about (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that one learning rate serves both;
    ``weight_decay`` is decoupled as AdamW's is. PyTorch's own takes no convolutions.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing here evaluates a loss anew
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            members = [p for p in group["params"] if p.grad is not None]
            if not members:
                continue
            gradients = [p.grad for p in members]
            means = [self.state[p].setdefault("mean", torch.zeros_like(p)) for p in members]
            torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
            orders = [_order_in_memory(p) for p in members]
            # Nesterov's look ahead.
            ahead = torch._foreach_lerp(gradients, means, MOMENTUM)  # noqa: SLF001 - it has no public name
            updates = orthogonal([u.permute(order).flatten(1) for u, order in zip(ahead, orders, strict=True)])
            lengths = [-group["lr"] * 0.2 * max(update.shape) ** 0.5 for update in updates]
            if group["weight_decay"]:
                torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
            for p, order, update, length in zip(members, orders, updates, lengths, strict=True):
                stored = p.permute(order)
                stored.add_(update.reshape(stored.shape), alpha=length)


def _order_in_memory(tensor: torch.Tensor) -> list[int]:
    """Return the dimensions, those after the first in their order in memory.

    So nothing is copied where channels lie last: the columns of a matrix may be in any order to be made orthogonal.
    """
    return [0, *sorted(range(1, tensor.ndim), key=tensor.stride, reverse=True)]


def orthogonal(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return matrices [r, c] with all their singular values raised to about 1.

    For M = U S V' that is about U V' (Jordan et al. 2024). Every repetition of the polynomial multiplies M from the
    left by a polynomial in M M' [min(r, c) square], so only those are multiplied on the way, all of one size together:
    one by one they are too small to keep a device busy.
    """
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    factors: list[torch.Tensor] = [matrix @ matrix.T for matrix in wide]
    for side in {len(factor) for factor in factors}:
        alike = [index for index, factor in enumerate(factors) if len(factor) == side]
        for index, factor in zip(alike, _factors(torch.stack([factors[index] for index in alike])), strict=True):
            factors[index] = factor
    raised = [factor @ matrix for factor, matrix in zip(factors, wide, strict=True)]
    return [
        matrix.T if given.shape[0] > given.shape[1] else matrix for given, matrix in zip(matrices, raised, strict=True)
    ]


def _factors(gram: torch.Tensor) -> torch.Tensor:
    """Return what M / |M| and the polynomial, repeated, multiply M by, for M M' [N, r, r]; all of these commute."""
    square = gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]  # |M|^2
    gram = gram / square
    total = factor = _polynomial(gram)
    for _ in range(REPETITIONS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        total = factor @ total
    return total / square.sqrt()


def _polynomial(gram: torch.Tensor) -> torch.Tensor:
    """Return a + b M M' + c (M M')^2 [N, r, r]."""
    raised = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
    raised.diagonal(dim1=1, dim2=2).add_(A)
    return raised
