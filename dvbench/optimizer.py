"""What turns gradients into steps: AdamW for everything, or Muon for the matrices inside the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dvbench.checkpoint import under
from dvbench.config import Training
from dvbench.flat import Flat

FEWEST = 8  # rows and columns: what has fewer stands for colours or levels, and is AdamW's
MOMENTUM = 0.95
# The odd polynomial a x + b x^3 + c x^5 whose repetition takes (0, 1] into 0.7 to 1.2 soonest (Jordan et al. 2024).
A, B, C = 3.4445, -4.7750, 2.0315
REPETITIONS = 5


class Optimizer:
    """Steps all ``parameters`` at one learning rate; scales by ``scaler``, clips the whole gradient's norm.

    They become views of the ``flats``: AdamW's first, then Muon's, of each dtype.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        options: Training,
        device: torch.device,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.clip, self.scaler = options.clip, scaler
        alike: dict[tuple[bool, torch.dtype], list[torch.Tensor]] = {}
        for p in parameters:
            inner = options.optimizer == "muon" and p.ndim >= 2 and min(p.shape[:2]) >= FEWEST
            alike.setdefault((inner, p.dtype), []).append(p)
        self.flats: list[Flat] = []
        self.parts: list[torch.optim.Optimizer] = []
        lr, decay = options.lr, options.weight_decay
        for (inner, _), members in sorted(alike.items(), key=lambda item: item[0][0]):
            flat = Flat(members)
            self.flats.append(flat)
            if inner:
                self.parts.append(Muon(flat, lr, decay))
            else:
                betas, fused = (0.9, options.beta2), device.type != "mps"
                self.parts.append(torch.optim.AdamW([flat.values], lr, betas, weight_decay=decay, fused=fused))

    def step(self, lr: float) -> None:
        """Take one step and forget the gradients."""
        for flat in self.flats:
            flat.gather()
        for part in self.parts:
            self.scaler.unscale_(part)
        norm = torch.nn.utils.clip_grad_norm_([flat.values for flat in self.flats], self.clip)
        # Each part looks for an overflow in its own gradients alone, and clipping has spoilt all by it. Only where the
        # loss is scaled is the device waited for.
        if not self.scaler.is_enabled() or bool(norm.isfinite()):
            for part in self.parts:
                part.param_groups[0]["lr"] = lr
                self.scaler.step(part)
        self.scaler.update()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        for flat in self.flats:
            flat.forget()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state: of the part numbered n, the tensors n.slot."""
        return {
            f"{number}.{slot}": torch.as_tensor(value)
            for number, part in enumerate(self.parts)
            for slot, value in part.state_dict()["state"].get(0, {}).items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what ``tensors`` returned. Raises RuntimeError where it does not fit."""
        for number, (part, flat) in enumerate(zip(self.parts, self.flats, strict=True)):
            slots = under(str(number), tensors)
            if any(value.ndim and value.shape != flat.values.shape for value in slots.values()):
                raise RuntimeError("the optimiser's state is of another network")
            part.load_state_dict({**part.state_dict(), "state": {0: slots} if slots else {}})


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonal matrix nearest to the gradient's running mean (Jordan et al. 2024, "Muon").

    Of a convolution [out, in, h, w] the matrix is [out, in h w]. An update's root mean square is 0.2 ``lr`` as
    AdamW's is about (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that one learning rate serves both;
    ``weight_decay`` is decoupled as AdamW's is. PyTorch's own takes no convolutions.
    """

    def __init__(self, flat: Flat, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__([flat.values], {"lr": lr, "weight_decay": weight_decay})
        self.flat = flat
        self.matrices = flat.matrices(flat.values)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing here evaluates a loss anew
        """Step every parameter by its gathered gradient."""
        values, (group,) = self.flat.values, self.param_groups
        assert values.grad is not None
        state = self.state[values]
        if not state:
            state["mean"] = torch.zeros_like(values)
        mean = state["mean"]
        mean.lerp_(values.grad, 1 - MOMENTUM)
        # Nesterov's look. The polynomial blows up what bf16 and fp16 round.
        ahead = values.grad.lerp(mean, MOMENTUM).to(torch.promote_types(values.dtype, torch.float32))
        if group["weight_decay"]:
            values.mul_(1 - group["lr"] * group["weight_decay"])
        for matrix, update in zip(self.matrices, orthogonal(self.flat.matrices(ahead)), strict=True):
            matrix.add_(update, alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)


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
