"""The bases are pywt's transform, orthonormal to rounding, and refuse what is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import pywt
import torch
from dvbench_wavelets import NAMES
from dvbench_wavelets.bases import Wavelet

import dvbench
from dvbench.errors import UsageError
from dvbench.testing import check_basis

EVERY = (*NAMES, "db38", "sym20", "coif17")  # the longest filters that pywt has, too


@pytest.fixture(scope="module", autouse=True)
def _threads():
    torch.set_num_threads(1)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("side", [2, 6, 32])
def test_project_is_pywts_approximation_band_whatever_the_filters_length(name, side):
    x = draw(2, 3, side, side)
    wanted = pywt.dwt2(x.numpy(), name, mode="periodization")[0]
    found = Wavelet((side, side // 2), 3, name).project(x, 0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["db3", "sym4", "coif1"])
def test_a_drop_by_four_is_two_levels_of_pywts(name):
    x = draw(1, 1, 32, 32)
    wanted = pywt.wavedec2(x.numpy(), name, mode="periodization", level=2)[0]
    np.testing.assert_allclose(Wavelet((32, 8), 1, name).project(x, 0).numpy(), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", EVERY)
def test_rows_are_orthonormal_and_embed_is_the_adjoint_however_short_the_side(name):
    basis = Wavelet((16, 8, 4, 2, 1), 1, name)
    for level, (finer, coarser) in enumerate([(16, 8), (8, 4), (4, 2), (2, 1)]):
        rows = basis.project(torch.eye(finer**2, dtype=torch.float64).reshape(-1, 1, finer, finer), level).flatten(1).T
        torch.testing.assert_close(rows @ rows.T, torch.eye(coarser**2, dtype=torch.float64), rtol=0, atol=1e-13)
        unit = torch.eye(coarser**2, dtype=torch.float64).reshape(-1, 1, coarser, coarser)
        torch.testing.assert_close(basis.embed(unit, level).flatten(1), rows, rtol=0, atol=1e-15)


def test_db1_is_the_built_in_haar():
    x = draw(2, 3, 16, 16)
    haar = dvbench.create("basis", "haar", ladder=(16, 8, 2), channels=3)
    db1 = dvbench.create("basis", "db1", ladder=(16, 8, 2), channels=3)
    torch.testing.assert_close(db1.project(x, 0), haar.project(x, 0), rtol=0, atol=1e-13)
    torch.testing.assert_close(db1.embed(x[..., :2, :2], 1), haar.embed(x[..., :2, :2], 1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_dbn_keeps_polynomials_below_degree_n_and_no_others(order):
    """The N vanishing moments that define dbN (Daubechies 1992, chapter 6), away from the wrapped border."""
    position = torch.linspace(-1, 1, 64, dtype=torch.float64)
    basis = Wavelet((64, 32), 1, f"db{order}")

    def lost(degree):
        x = (position**degree).expand(1, 1, 64, 64)
        return float((x - basis.embed(basis.project(x, 0), 0))[..., 20:44, 20:44].abs().max())

    assert lost(order - 1) < 1e-10
    assert lost(order) > 1e-7


@pytest.mark.parametrize("name", ["db2", "sym10", "coif5"])
def test_a_named_basis_is_the_generic_one_with_that_option(name):
    x = draw(1, 1, 16, 16)
    named = dvbench.create("basis", name, ladder=(16, 8), channels=1)
    generic = dvbench.create("basis", "wavelet", ladder=(16, 8), channels=1, wavelet=name)
    assert torch.equal(named.project(x, 0), generic.project(x, 0))
    with pytest.raises(UsageError, match="no option of basis"):
        dvbench.create("basis", name, ladder=(16, 8), channels=1, wavelet="db3")


@pytest.mark.parametrize("name", ["bior2.2", "rbio1.3", "dmey"])
def test_a_wavelet_without_orthonormal_rows_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.* not orthonormal.*: take an orthogonal one") as refusal:
        Wavelet((32, 16), 1, name)
    assert "\n" not in str(refusal.value)


def test_a_misspelt_wavelet_is_told_the_nearest():
    with pytest.raises(UsageError, match="there is no wavelet called 'smy4': did you mean 'sym4'"):
        Wavelet((32, 16), 1, "smy4")


@pytest.mark.parametrize("ladder", [(32, 24), (15, 5), (31, 15), (32, 16, 6)])
def test_sides_that_do_not_halve_are_refused(ladder):
    with pytest.raises(ValueError, match=r"each side must halve, once or more, and \d+ to \d+ does not"):
        Wavelet(ladder, 1)


def test_a_basis_first_used_while_sampling_can_train():
    basis = Wavelet((26, 13), 1, "db7")  # used nowhere else, so that its matrix is cast here
    with torch.inference_mode():
        basis.project(torch.zeros(1, 1, 26, 26), 0)
    x = torch.zeros(1, 1, 26, 26, requires_grad=True)
    basis.project(x, 0).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("ladder", [(2, 1), (256, 128), (12, 6, 3), (64, 4)])
def test_other_ladders_conform_too(ladder):
    check_basis("sym8", ladders=[ladder])


def test_asking_for_plugins_imports_neither_torch_nor_pywt():
    """So that `dvbench --help` is as quick as without this package."""
    heavy = "import sys, dvbench; assert 'db2' in dvbench.available('basis'); print({'torch', 'pywt'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True).strip() == "set()"


def test_a_run_uses_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    record = dvbench.run(
        "faces", basis="db2", ladder=[16, 8], turns=[0.5], train_images=32, samples=2, sample_steps=3,
        device="cpu", results=tmp_path / "results", set={"backbone.width": 8, "training.batch": 16},
    )  # fmt: skip
    assert (record.status, record.method.basis, record.method.ladder) == ("finished", "db2", [16, 8])
    assert record.environment.plugins["dvbench-wavelets"]
