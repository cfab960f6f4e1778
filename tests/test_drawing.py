"""What a network becomes for drawing: faster, and otherwise the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import dvbench
from benchmarks import write_benchmark
from dvbench.backbone import Backbone
from dvbench.builtin.perfect import Perfect
from dvbench.builtin.unet import UNet
from dvbench.drawing import Drawing, for_drawing
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


def test_a_network_that_computes_a_part_exactly_draws_as_it_trained():
    class Exact(Backbone):
        def __init__(self):
            super().__init__((16, 8), 3)
            self.layer, self.time = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(1, 3)

        def forward(self, x, t, level):
            with torch.autocast(x.device.type, enabled=False):
                features = self.time(t[:, None])
            return self.layer(x) + features[:, :, None, None]

    exact = Exact()
    assert torch.equal(said(for_drawing(exact, "bf16"), "bf16"), said(exact, "bf16"))


def test_every_size_of_a_batch_is_called_before_its_clock_runs(tmp_path, monkeypatch):
    seen, warm_up, draw = [], Drawing.warm_up, Drawing.draw

    def warmed(self, batch):
        seen.append(("warmed", batch))
        warm_up(self, batch)

    def drawn(self, indices):
        seen.append(("drawn", len(indices)))
        return draw(self, indices)

    monkeypatch.setattr(Drawing, "warm_up", warmed)
    monkeypatch.setattr(Drawing, "draw", drawn)
    few = {"sampling.batch": 4, "sampling.samples": 11}
    record = dvbench.run(str(write_benchmark(tmp_path)), results=tmp_path / "results", set=few)
    assert seen == [("warmed", 4), ("drawn", 4), ("drawn", 4), ("warmed", 3), ("drawn", 3)]
    assert [batch["samples"] for batch in record.cost.sample_batches] == [4, 4, 3]


def test_a_network_without_parameters_is_not_copied_with_all_its_images():
    perfect = Perfect((16, 8), 3)
    assert for_drawing(perfect, "bf16") is perfect
