"""The transformer: what it costs, where its tokens lie, what it is told and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from dvbench_dit.dit import DiT, centres, places
from PIL import Image

import dvbench
from dvbench.errors import UsageError

SMALL = {"hidden_size": 16, "depth": 2, "heads": 2}


def stirred(network):
    """Move all weights, since those at zero would hide what lies behind them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def formula(side, channels, patch=4, width=128, depth=4, mlp_ratio=4):
    """Multiply-accumulates of one picture, by hand."""
    tokens = (side // patch) ** 2
    pixels = channels * patch**2
    attention = width * 3 * width + 2 * tokens * width + width * width
    block = attention + 2 * mlp_ratio * width**2
    features = 2 * width**2 + depth * 6 * width**2 + 2 * width**2
    return tokens * (pixels * width + depth * block + width * pixels) + features


def test_the_hook_imports_no_torch():
    says = "import sys, dvbench_dit; dvbench_dit.dvbench_backbones(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", says], check=True)


def test_a_run_counts_every_product_at_every_level(tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(40):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{seed}.png")
    record = dvbench.run(
        "folder",
        data=str(pictures),
        backbone="dit",
        ladder=(16, 8),
        turns=(0.5,),
        train_images=20,
        samples=2,
        sample_steps=2,
        device="cpu",
        results=tmp_path,
    )
    assert record.cost.forward_flops == [2 * formula(side, 3) for side in (16, 8)]
    assert not {name for name in record.cost.uncounted_ops or () if "matmul" in name or "attention" in name}


def test_a_new_network_says_zero():
    network = DiT((16, 8), 3)
    for level, side in enumerate((16, 8)):
        assert not network(torch.randn(2, 3, side, side), torch.rand(2), level).any()


def test_levels_share_all_weights_but_their_embedding():
    one, three = (sum(p.numel() for p in DiT(ladder, 3).parameters()) for ladder in ((32,), (32, 16, 8)))
    assert three == one + 3 * 128


@pytest.mark.parametrize("side", [16, 12, 8, 4])
def test_a_lower_patch_lies_in_the_middle_of_the_finest_patches_that_it_covers(side):
    finest, patch = 48, 4
    covered = torch.arange(finest // patch, dtype=torch.float32).reshape(side // patch, -1)
    torch.testing.assert_close(centres(finest, side, patch), covered.mean(dim=1))


def test_patches_that_cover_no_whole_finest_ones_still_span_the_picture():
    fine, coarse = centres(32, 32, 4), centres(32, 24, 4)
    assert coarse.mean() == fine.mean()
    assert (coarse[1:] - coarse[:-1]).unique() == pytest.approx(32 / 24)


def test_places_of_one_spot_are_the_same_at_all_levels():
    fine, middle = places(48, 48, 4, 32).reshape(12, 12, 32), places(48, 16, 4, 32).reshape(4, 4, 32)
    torch.testing.assert_close(middle, fine[1::3, 1::3])
    assert not torch.allclose(fine[0, 1], fine[1, 0])


def test_what_enters_in_a_patch_leaves_in_it():
    """As new, but for its last layer, a network has its attention gated off: each patch is by itself."""
    network = DiT((16, 8), 2, patch=4, **SMALL)
    torch.nn.init.normal_(network.paint.weight)
    for level, side in enumerate((16, 8)):
        x = torch.randn(1, 2, side, side)
        other = x.clone()
        other[0, 1, 2, 5] += 1  # in the first patch of rows, the second of columns
        changed = (network(x, torch.ones(1), level) != network(other, torch.ones(1), level)).any(dim=1)[0]
        assert changed[:4, 4:8].all()
        assert changed.sum() == 16


def test_patches_see_each_other_and_know_where_they_are():
    network = stirred(DiT((16,), 1, patch=4, **SMALL))
    t = torch.full((1,), 0.5)
    x = torch.randn(1, 1, 16, 16)
    other = x.clone()
    other[..., :4, :4] += 1
    said = network(x, t, 0)
    assert not torch.allclose(said[..., 12:, 12:], network(other, t, 0)[..., 12:, 12:])
    assert not torch.allclose(said.roll(4, dims=-1), network(x.roll(4, dims=-1), t, 0))


def test_time_and_level_are_told():
    network = stirred(DiT((16, 8), 1, **SMALL))
    x = torch.randn(1, 1, 8, 8)
    said = network(x, torch.tensor([0.5]), 1)
    assert not torch.allclose(said, network(x, torch.tensor([0.6]), 1))
    with torch.no_grad():
        network.level.weight[0] += 1
        assert torch.equal(said, network(x, torch.tensor([0.5]), 1))
        network.level.weight[1] += 1
    assert not torch.allclose(said, network(x, torch.tensor([0.5]), 1))


def test_nothing_stays_behind_when_it_moves_to_a_device():
    network = DiT((16, 8), 3, **SMALL).to("meta")
    x = torch.empty(2, 3, 8, 8, device="meta")
    assert network(x, torch.empty(2, device="meta"), 1).shape == x.shape


@pytest.mark.parametrize(("ladder", "patch"), [((16, 6), 4), ((17,), 2), ((8, 4), 8)])
def test_sides_that_patches_do_not_tile_are_refused(ladder, patch):
    with pytest.raises(UsageError, match=f"dit: patches of side {patch} do not tile side .* --set backbone.patch"):
        dvbench.create("backbone", "dit", ladder=ladder, channels=3, patch=patch)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"patch": 0}, "at least 1"),
        ({"depth": 0}, "at least 1"),
        ({"heads": 0}, "at least 1"),
        ({"mlp_ratio": 0.001}, "at least 1"),
        ({"hidden_size": 64, "heads": 3}, "into 3 heads"),
        ({"hidden_size": 6, "heads": 2}, "4 waves"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        DiT((16,), 1, **options)
