"""Every basis is adjoint and orthonormal on every ladder that it takes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import ladders

from dvbench.builtin.bases import Dct, Haar, Identity, dct_matrix, lowpass
from dvbench.builtin.pca import Pca

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
bases_and_ladders = st.sampled_from([Haar, Dct]).flatmap(
    lambda basis: st.tuples(st.just(basis), ladders(basis).filter(lambda ladder: len(ladder) > 1))
)


@given(bases_and_ladders, st.integers(1, 4), st.sampled_from(list(TOLERANCE)), st.integers(0, 2**31))
def test_projecting_what_was_embedded_gives_it_back(chosen, channels, dtype, seed):
    basis, ladder = chosen
    maps = basis(ladder, channels)
    generator = torch.Generator().manual_seed(seed)
    for level, side in enumerate(ladder[1:]):
        y = torch.randn(2, channels, side, side, dtype=dtype, generator=generator)
        torch.testing.assert_close(maps.project(maps.embed(y, level), level), y, rtol=0, atol=TOLERANCE[dtype] * 10)


@given(bases_and_ladders, st.integers(1, 4), st.sampled_from(list(TOLERANCE)), st.integers(0, 2**31))
def test_embed_is_the_adjoint_of_project(chosen, channels, dtype, seed):
    basis, ladder = chosen
    maps = basis(ladder, channels)
    generator = torch.Generator().manual_seed(seed)
    for level, (finer, coarser) in enumerate(pairwise(ladder)):
        x = torch.randn(1, channels, finer, finer, dtype=dtype, generator=generator)
        y = torch.randn(1, channels, coarser, coarser, dtype=dtype, generator=generator)
        below, above = (maps.project(x, level) * y).sum(), (x * maps.embed(y, level)).sum()
        assert abs(float(below - above)) <= TOLERANCE[dtype] * float(x.norm() * y.norm())


@given(bases_and_ladders, st.integers(0, 2**31))
def test_white_noise_stays_white(chosen, seed):
    """Rows are orthonormal: the matrix of project times its transpose is the identity, in float64 to 1e-12."""
    basis, ladder = chosen
    maps, side = basis(ladder, 1), ladder[0]
    unit = torch.eye(side * side, dtype=torch.float64).reshape(-1, 1, side, side)
    rows = maps.project(unit, 0).flatten(1).T
    torch.testing.assert_close(rows @ rows.T, torch.eye(ladder[1] ** 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_haar_averages_blocks():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    y = Haar((4, 2), 1).project(x, 0)
    assert y.flatten().tolist() == [2 * 2.5, 2 * 4.5, 2 * 10.5, 2 * 12.5]
    z = Haar((4, 1), 1).embed(torch.ones(1, 1, 1, 1), 0)
    assert torch.equal(z, torch.full((1, 1, 4, 4), 0.25))


def test_dct_keeps_low_frequencies_and_nothing_else():
    maps, full = Dct((12, 7), 1), dct_matrix(12)
    for k in range(12):
        wave = torch.outer(full[k], full[min(k, 6)]).reshape(1, 1, 12, 12)
        kept = maps.embed(maps.project(wave, 0), 0)
        torch.testing.assert_close(kept, wave if k < 7 else torch.zeros_like(wave), rtol=0, atol=1e-12)


def test_dct_of_a_long_ladder_is_that_of_one_drop():
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ladder = (64, 48, 32, 24, 16)
    maps, y = Dct(ladder, 3), x
    for level in range(4):
        y = maps.project(y, level)
    torch.testing.assert_close(y, Dct((64, 16), 3).project(x, 0), rtol=0, atol=1e-12)


def test_what_dct_made_while_sampling_serves_training():
    lowpass.cache_clear()
    maps, x = Dct((12, 7), 1), torch.zeros(1, 1, 12, 12)
    with torch.inference_mode():
        maps.project(x, 0)
    maps.project(x.requires_grad_(), 0).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("ladder", [(32, 24), (30, 20, 10), (32, 11)])
def test_haar_refuses_sides_that_do_not_halve(ladder):
    with pytest.raises(ValueError, match="halve"):
        Haar(ladder, 3)


def test_identity_keeps_the_first_side_and_has_no_level_below():
    assert Identity.usable((32, 16, 8)) == (32,)
    with pytest.raises(ValueError, match="no level below"):
        Identity((32,), 3).project(torch.zeros(1, 3, 32, 32), 0)


def correlated(count, channels, side, seed=0):
    """Draw pictures whose neighbours are alike, as those of photographs are."""
    noise = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)


@pytest.mark.parametrize(("ladder", "patch"), [((16, 8, 4), 4), ((16, 12), 4), ((12, 8), 6), ((16, 8), 2)])
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_pca_is_orthonormal_before_and_after_it_has_learned(ladder, patch, fitted, channels):
    basis = Pca(ladder, channels, patch=patch)
    if fitted:
        basis.fit(correlated(100, channels, ladder[0]))
    for level, (finer, coarser) in enumerate(pairwise(ladder)):
        x = torch.randn(2, channels, finer, finer, dtype=torch.float64)
        y = torch.randn(2, channels, coarser, coarser, dtype=torch.float64)
        torch.testing.assert_close(basis.project(basis.embed(y, level), level), y, rtol=0, atol=1e-12)
        below, above = (basis.project(x, level) * y).sum(), (x * basis.embed(y, level)).sum()
        torch.testing.assert_close(below, above, rtol=0, atol=1e-10)


def test_pca_keeps_more_energy_than_any_fixed_basis():
    images = correlated(300, 3, 16).double()
    images[:, 1] = images[:, 0]  # two channels alike: something that only learning finds
    basis = Pca((16, 8), 3)
    basis.fit(images)
    kept = {b: float(b((16, 8), 3).project(images, 0).square().sum()) for b in (Haar, Dct)}
    assert float(basis.project(images, 0).square().sum()) > 1.02 * max(kept.values())


def test_pca_is_deterministic_and_comes_back_from_its_state():
    images = correlated(100, 2, 16)
    one, other, third = (Pca((16, 8, 4), 2) for _ in range(3))
    one.fit(images)
    other.fit(images)
    third.load(one.state())
    for mine, its, loaded in zip(one.rows, other.rows, third.rows, strict=True):
        assert torch.equal(mine, its)
        assert torch.equal(mine, loaded)


@pytest.mark.parametrize(("ladder", "patch"), [((16, 10), 4), ((18, 9), 4), ((16, 8), 1)])
def test_pca_refuses_patches_that_do_not_suit(ladder, patch):
    with pytest.raises(ValueError, match="do not suit a drop"):
        Pca(ladder, 1, patch=patch)
