"""What a basis must do: linear maps with orthonormal rows, for every image by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from dvbench.api import Basis
from dvbench.testing.findings import Finding, none_taken, taken, within, without

LADDERS: tuple[tuple[int, ...], ...] = ((32, 16, 8), (64, 32), (16, 8, 4, 2), (31, 17, 5), (24, 18, 12))
BATCH = 3
MOST = {torch.float32: 1e-5, torch.float64: 1e-12}

Make = Callable[[Sequence[int], int], Basis]


def examine(make: Make, ladders: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Examine the bases that ``make(ladder, channels)`` makes, on those of ``ladders`` that it takes."""
    made: list[Basis] = []

    def refusals() -> Iterator[str]:
        """Complain where no ladder is taken; one that does not suit is a ValueError, which users get as a sentence."""
        made.extend(map(fitted, taken(make, ladders)))
        if not made:
            yield none_taken(ladders)

    yield without("takes a ladder, or refuses it with a ValueError", refusals)
    if not made:
        return
    if all(len(basis.ladder) == 1 for basis in made):
        yield Finding("levels", holds=True, figure="none: it keeps everything, and there is nothing more to check")
        return
    yield without("shapes at every level", lambda: shapes(made))
    yield without("the dtype is kept", lambda: dtypes(made))
    yield without("the device is kept", lambda: devices(made))
    for dtype, most in MOST.items():
        name = str(dtype).removeprefix("torch.")
        yield within(f"project and embed are adjoint, {name}", most, partial(adjoint, made, dtype))
        yield within(f"rows are orthonormal, {name}", most, partial(orthonormal, made, dtype))
        yield within(f"project is linear, {name}", most, partial(linear, made, dtype))
    yield within("each image by itself", 1e-5, lambda: alone(made))
    yield without("deterministic", lambda: deterministic(make, made))
    yield within("gradients flow back through embed's adjoint", 1e-5, lambda: gradients(made))
    if any(hasattr(basis, "fit") for basis in made):
        yield without("what it learned is saved and loaded", lambda: learned(make, made))


def fitted(basis: Basis) -> Basis:
    """Let a basis that learns learn from smooth random images."""
    if fit := getattr(basis, "fit", None):
        generator = torch.Generator().manual_seed(0)
        side = basis.ladder[0]
        coarse = torch.randn(64, basis.channels, 4, 4, generator=generator)
        fit(torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(-1, 1))
    return basis


def places(made: Sequence[Basis]) -> Iterator[tuple[Basis, int, tuple[int, ...], tuple[int, ...]]]:
    """Yield every level of every basis, with the shapes on both sides of its maps."""
    for basis in made:
        for level, (finer, coarser) in enumerate(zip(basis.ladder, basis.ladder[1:], strict=False)):
            head = (BATCH, basis.channels)
            yield basis, level, (*head, finer, finer), (*head, coarser, coarser)


def normal(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Draw white noise."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def shapes(made: Sequence[Basis]) -> Iterator[str]:
    """Complain of every map whose result has the wrong shape."""
    for basis, level, fine, coarse in places(made):
        for name, given, wanted in (("project", fine, coarse), ("embed", coarse, fine)):
            found = tuple(getattr(basis, name)(normal(given), level).shape)
            if found != wanted:
                yield f"{name} at level {level} of {basis.ladder} gives {found}, not {wanted}"


def dtypes(made: Sequence[Basis]) -> Iterator[str]:
    """Complain of every map that changes the dtype."""
    for basis, level, fine, coarse in places(made):
        for dtype in MOST:
            found = {basis.project(normal(fine, dtype), level).dtype, basis.embed(normal(coarse, dtype), level).dtype}
            if found != {dtype}:
                yield f"{dtype} becomes {', '.join(map(str, found))} at level {level} of {basis.ladder}"


def devices(made: Sequence[Basis]) -> Iterator[str]:
    """Complain of every map that fails on, or leaves, a device: the meta device, and CUDA where there is one."""
    for device in ("meta", *(["cuda"] if torch.cuda.is_available() else [])):
        for basis, level, fine, coarse in places(made):
            found = {
                basis.project(torch.zeros(fine, device=device), level).device.type,
                basis.embed(torch.zeros(coarse, device=device), level).device.type,
            }
            if found != {device}:
                yield f"{device} becomes {', '.join(found)} at level {level} of {basis.ladder}"


def adjoint(made: Sequence[Basis], dtype: torch.dtype) -> float:
    """Return the worst |<P x, y> - <x, E y>| / (|x| |y|)."""

    def error(basis: Basis, level: int, x: torch.Tensor, y: torch.Tensor) -> float:
        apart = (basis.project(x, level) * y).sum() - (x * basis.embed(y, level)).sum()
        return float(apart.abs() / (x.norm() * y.norm()))

    return worst(error(b, at, normal(fine, dtype), normal(coarse, dtype, 1)) for b, at, fine, coarse in places(made))


def orthonormal(made: Sequence[Basis], dtype: torch.dtype) -> float:
    """Return the worst |P E y - y| over y's own size."""

    def error(basis: Basis, level: int, y: torch.Tensor) -> float:
        return float((basis.project(basis.embed(y, level), level) - y).abs().max() / y.abs().max())

    return worst(error(basis, level, normal(coarse, dtype)) for basis, level, _, coarse in places(made))


def linear(made: Sequence[Basis], dtype: torch.dtype) -> float:
    """Return the worst |P (2 x - 3 x') - (2 P x - 3 P x')|."""

    def error(basis: Basis, level: int, one: torch.Tensor, other: torch.Tensor) -> float:
        apart = basis.project(2 * one - 3 * other, level)
        apart = apart - (2 * basis.project(one, level) - 3 * basis.project(other, level))
        return float(apart.abs().max() / one.norm())

    return worst(error(b, at, normal(fine, dtype), normal(fine, dtype, 1)) for b, at, fine, _ in places(made))


def alone(made: Sequence[Basis]) -> float:
    """Return the worst difference that the rest of the batch makes to an image."""

    def error(basis: Basis, level: int, x: torch.Tensor) -> float:
        return float((basis.project(x, level)[1:2] - basis.project(x[1:2], level)).abs().max())

    return worst(error(basis, level, normal(fine)) for basis, level, fine, _ in places(made))


def deterministic(make: Make, made: Sequence[Basis]) -> Iterator[str]:
    """Complain where a second call, or a second instance, gives other numbers."""
    for basis, level, fine, coarse in places(made):
        other = fitted(make(basis.ladder, basis.channels))
        for name, given in (("project", normal(fine)), ("embed", normal(coarse))):
            results = [getattr(which, name)(given, level) for which in (basis, basis, other)]
            if not all(torch.equal(results[0], result) for result in results):
                yield f"{name} at level {level} of {basis.ladder} differs from call to call"


def gradients(made: Sequence[Basis]) -> float:
    """Return the worst difference of the gradient of <P x, y> from E y."""

    def error(basis: Basis, level: int, x: torch.Tensor, y: torch.Tensor) -> float:
        (basis.project(x.requires_grad_(), level) * y).sum().backward()
        return float("inf" if x.grad is None else (x.grad - basis.embed(y, level)).abs().max())

    return worst(
        error(basis, level, normal(fine), normal(coarse, seed=1)) for basis, level, fine, coarse in places(made)
    )


def learned(make: Make, made: Sequence[Basis]) -> Iterator[str]:
    """Complain where a fresh instance that loads the state does not do the same."""
    for basis, level, fine, _ in places(made):
        other = make(basis.ladder, basis.channels)
        # Only what can be fitted comes here, and so has load; the type of every basis has not.
        other.load({name: value.clone() for name, value in basis.state().items()})  # type: ignore[attr-defined]
        if not torch.equal(basis.project(normal(fine), level), other.project(normal(fine), level)):
            yield f"after load(state()) project at level {level} of {basis.ladder} differs"


def worst(errors: Iterator[float]) -> float:
    """Return the largest error, NaN if there is any."""
    return float(torch.tensor(list(errors)).max())
