"""What a network costs: at each level, for a sample and for a training image."""

from __future__ import annotations

import pytest
import torch
from processes import process

from dvbench.backbone import Backbone
from dvbench.builtin.bases import Dct
from dvbench.builtin.unet import UNet
from dvbench.costs import network_cost, training_flops
from dvbench.measure import flops

CPU = torch.device("cpu")


def asked(channels, side):
    return torch.zeros(1, channels, side, side), torch.ones(1)


@pytest.fixture(scope="module")
def network():
    return UNet((16, 8), 1, width=8, attention=(4,))


@pytest.fixture(scope="module")
def cost(network):
    return network_cost(network, process(Dct, ladder=(16, 8), turns=(0.4,)), 10, CPU)


def test_both_ways_are_counted_at_each_level(network, cost):
    sides = list(enumerate((16, 8)))
    assert cost["forward_flops"] == [flops.count(network, *asked(1, side), level=level).flops for level, side in sides]
    assert cost["backward_flops"] == [flops.backward(network, *asked(1, side), level=level) for level, side in sides]
    assert cost["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_back_costs_twice_what_forward_does_but_for_the_gradient_of_the_image(cost):
    """Each product has two operands with a gradient, but for the first layers': the image's and the time's."""
    first = [2 * side**2 * 9 * 1 * 8 for side in (16, 8)]
    time = 2 * 8 * 32
    wanted = [2 * forward - conv - time for forward, conv in zip(cost["forward_flops"], first, strict=True)]
    assert cost["backward_flops"] == wanted


def test_a_sample_costs_the_sum_over_its_steps(cost):
    high, low = cost["forward_flops"]
    assert cost["steps_per_level"] == [4, 6]
    assert cost["sample_flops"] == 4 * high + 6 * low


def test_a_training_image_costs_both_ways_of_what_was_seen():
    assert training_flops([100, 10], [190, 20], [1, 3]) == pytest.approx((290 + 3 * 30) / 4)
    assert training_flops([100, 10], [190, 20], [0.25, 0.75]) == pytest.approx((290 + 3 * 30) / 4)
    assert training_flops([100, 10], [190, 20], [5, 0]) == 290


def test_without_training_there_is_no_cost_of_it():
    assert training_flops([100, 10], [190, 20], [0, 0]) is None
    assert training_flops([100, 10], None, [1, 3]) is None


def test_a_network_that_is_not_trained_has_no_way_back():
    class Fixed(Backbone):
        def __init__(self, ladder, channels):
            super().__init__(ladder, channels)
            self.register_buffer("kernel", torch.ones(channels, channels, 3, 3))

        def forward(self, x, t, level):
            return torch.nn.functional.conv2d(x, self.kernel, padding=1)

    cost = network_cost(Fixed((16, 8), 2), process(Dct, ladder=(16, 8), turns=(0.5,)), 4, CPU)
    assert cost["backward_flops"] is None
    assert cost["forward_flops"] == [2 * 9 * 4 * side**2 for side in (16, 8)]


def test_counting_leaves_the_network_as_it_was(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network_cost(network, process(Dct, ladder=(16, 8), turns=(0.5,)), 4, CPU)
    assert network.training
    assert all(parameter.grad is None and not parameter.is_meta for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
