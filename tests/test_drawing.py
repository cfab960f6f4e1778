"""What a network becomes for drawing: faster, and otherwise the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dvbench.builtin.perfect import Perfect
from dvbench.builtin.unet import UNet
from dvbench.drawing import for_drawing
from dvbench.environment import autocast

CPU = torch.device("cpu")


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = UNet((16, 8), 3, width=8, multipliers=(1, 2), attention=(8,))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)  # nothing is left at zero, where it would hide
    return made


@torch.inference_mode()
def said(network, precision="fp32"):
    x, t = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, 0.5, 0.9])
    with autocast(CPU, precision)():
        return network(x, t, 0)


def test_it_says_the_same_channels_last_and_the_trained_one_stays_as_it_was(network):
    before = copy.deepcopy(network.state_dict())
    drawn = for_drawing(network, "fp32")
    torch.testing.assert_close(said(drawn), said(network))
    assert said(drawn).is_contiguous(memory_format=torch.channels_last)
    assert network.training
    assert not drawn.training
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name])
        assert weight.is_contiguous()


def test_weights_are_cast_once_to_what_each_call_would_cast_them_to(network):
    once, each = for_drawing(network, "bf16"), for_drawing(network, "fp32")
    assert torch.equal(said(once, "bf16"), said(each, "bf16"))
    kinds = {module.weight.dtype for module in once.modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert kinds == {torch.bfloat16}
    assert {module.weight.dtype for module in once.modules() if isinstance(module, nn.GroupNorm)} == {torch.float32}


def test_a_network_without_parameters_is_not_copied_with_all_its_images():
    perfect = Perfect((16, 8), 3)
    assert for_drawing(perfect, "bf16") is perfect
