"""diffusers' U-Net: that it is diffusers' own, what it is told, what it costs and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from dvbench_diffusers.unet import DiffusersUNet
from PIL import Image

import dvbench
from dvbench.errors import UsageError

SMALL = {"width": 8, "groups": 2, "multipliers": (1, 2)}


def test_the_hook_imports_neither_torch_nor_diffusers():
    heavy = "bool({'torch', 'diffusers'} & {*sys.modules})"
    says = f"import sys, dvbench_diffusers; dvbench_diffusers.dvbench_backbones(); sys.exit({heavy})"
    subprocess.run([sys.executable, "-c", says], check=True)


def test_a_run_counts_the_cost_which_falls_with_the_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(40):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{seed}.png")
    record = dvbench.run(
        "folder",
        data=str(pictures),
        backbone="diffusers-unet",
        ladder=(16, 8),
        turns=(0.5,),
        train_images=20,
        samples=2,
        sample_steps=2,
        device="cpu",
        results=tmp_path,
        set={"backbone.attention": (4,)},
    )
    high, low = record.cost.forward_flops
    assert 0.25 < low / high < 0.27  # convolutions by the pixel; the embeddings of time and level cost the same
    assert not {name for name in record.cost.uncounted_ops or () if "matmul" in name or "attention" in name}


def test_the_network_of_ddpms_256_px_experiments_has_its_parameter_count():
    """113,673,219 parameters, as google/ddpm-celebahq-256 has, which is a UNet2DModel too."""
    with torch.device("meta"):
        network = DiffusersUNet((256,), 3, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(16,))
    assert sum(parameter.numel() for parameter in network.parameters()) == 113_673_219
    assert network.unet.config.norm_num_groups == 32


def test_it_answers_as_diffusers_own_network_in_thousandths_of_the_time():
    torch.manual_seed(0)
    network = DiffusersUNet((16, 8), 3, **SMALL, attention=(8,)).eval()
    theirs = UNet2DModel.from_config(network.unet.config).eval()
    theirs.load_state_dict(network.unet.state_dict())
    for level, side in enumerate((16, 8)):
        x = torch.randn(2, 3, side, side)
        wanted = theirs(x, torch.tensor([250.0, 1000.0]), class_labels=torch.tensor([level, level])).sample
        assert torch.equal(network(x, torch.tensor([0.25, 1.0]), level), wanted)


def test_each_level_has_an_embedding_of_its_own():
    network = DiffusersUNet((16, 8), 1, **SMALL)
    network(torch.randn(1, 1, 8, 8), torch.rand(1), 1).square().sum().backward()
    gradient = network.unet.class_embedding.weight.grad
    assert gradient[1].any()
    assert not gradient[0].any()
    assert DiffusersUNet((16,), 1, **SMALL).unet.class_embedding is None


@pytest.mark.parametrize(("attention", "heads"), [((), [2]), ((8,), [2] * 6), ((16,), [1, 1, 1, 1, 1, 2])])
def test_attention_is_where_it_was_asked_for_and_in_the_middle(attention, heads):
    network = DiffusersUNet((16, 8), 1, blocks=2, attention=attention, head_width=8, **SMALL)
    assert sorted(part.heads for part in network.modules() if isinstance(part, Attention)) == sorted(heads)


def test_without_a_head_width_there_is_one_head():
    network = DiffusersUNet((16,), 1, attention=(8,), **SMALL)
    assert {part.heads for part in network.modules() if isinstance(part, Attention)} == {1}


def test_dropout_is_for_training():
    network = DiffusersUNet((8,), 1, dropout=0.5, **SMALL)
    x, t = torch.randn(1, 1, 8, 8), torch.rand(1)
    assert not torch.equal(network(x, t, 0), network(x, t, 0))
    network.eval()
    assert torch.equal(network(x, t, 0), network(x, t, 0))


def test_nothing_stays_behind_when_it_moves_to_a_device():
    network = DiffusersUNet((16, 8), 3, **SMALL).to("meta")
    x = torch.empty(2, 3, 8, 8, device="meta")
    labels = []
    network.unet.class_embedding.register_forward_pre_hook(lambda _, given: labels.extend(given))
    assert network(x, torch.empty(2, device="meta"), 1).shape == x.shape
    assert [label.device for label in labels] == [x.device]  # an embedding on "meta" takes labels from anywhere


@pytest.mark.parametrize("ladder", [(20, 10), (18,), (32, 7)])
def test_sides_that_cannot_be_halved_are_refused(ladder):
    with pytest.raises(UsageError, match=r"diffusers-unet: its 3 stages halve .* no multiple of 4: choose"):
        dvbench.create("backbone", "diffusers-unet", ladder=ladder, channels=1, width=8)


def test_diffusers_would_fail_at_such_sides():
    """Why they are refused beforehand."""
    network = DiffusersUNet((16,), 1, **SMALL)
    with pytest.raises(RuntimeError):
        network.unet(torch.randn(1, 1, 9, 9), 1.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"width": 0}, "at least 1"),
        ({"multipliers": ()}, "at least 1"),
        ({"multipliers": (1, 0)}, "at least 1"),
        ({"blocks": 0}, "at least 1"),
        ({"groups": 0}, "into 0 groups"),
        ({"dropout": 1.0}, "below 1"),
        ({"width": 12, "groups": 8}, "into 8 groups"),
        ({"head_width": 0}, "into heads of 0"),
        ({"head_width": 24}, "into heads of 24"),
        ({"head_width": 24, "attention": ()}, "into heads of 24"),
        ({"head_width": 64, "attention": (16,)}, "32 channels do not split"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        DiffusersUNet((16,), 1, **options)
