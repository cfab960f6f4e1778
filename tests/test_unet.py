"""The U-Net: DDPM's network to the parameter, levels that run only the inner stages."""

from __future__ import annotations

import pytest
import torch

from dvbench.builtin.unet import UNet
from dvbench.measure.flops import count, params


def test_the_network_of_ddpms_256_px_experiments_has_its_parameter_count():
    """113,673,219 parameters: the count of the published DDPM CelebA-HQ and LSUN networks at 256 px."""
    with torch.device("meta"):
        network = UNet((256,), 3, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(16,))
    assert params(network) == 113_673_219


@pytest.mark.parametrize("ladder", [(32, 16, 8), (32, 24, 16), (32, 8), (32,)])
def test_every_level_keeps_its_shape_and_low_levels_cost_less(ladder):
    network = UNet(ladder, 3, width=8)
    costs = []
    for level, side in enumerate(ladder):
        x = torch.randn(2, 3, side, side)
        assert network(x, torch.rand(2), level).shape == x.shape
        costs.append(count(network, x, torch.rand(2), level=level).flops)
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == len(costs)


def test_levels_share_the_inner_stages():
    network = UNet((32, 16), 3, width=8)
    x, t = torch.randn(1, 3, 16, 16), torch.rand(1)
    network.leave[1].conv.weight.data.normal_()
    network(x, t, 1).square().sum().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("down.1") for name in reached)
    assert not any(name.startswith(("down.0", "up.0", "enter.0", "leave.0", "shrink.0")) for name in reached)


def test_a_side_between_two_stages_enters_at_the_larger():
    assert UNet((32, 24, 16, 12, 8), 1, width=4).entry == [0, 0, 1, 1, 2]


def test_the_whole_network_may_run_at_every_level():
    """From the outermost stage each level costs as its pixels, but for its time's features and the attention's product.

    All weights but those of the other levels' ways in and out have a gradient.
    """
    network = UNet((32, 16, 8), 3, width=8, attention=(), entry="outer")
    assert network.entry == [0, 0, 0]
    pictures = [torch.randn(1, 3, side, side) for side in (32, 16, 8)]
    costs = [count(network, x, torch.rand(1), level=level).flops for level, x in enumerate(pictures)]
    assert costs[0] / costs[1] == pytest.approx(4, rel=0.05)
    assert costs[1] / costs[2] == pytest.approx(4, rel=0.1)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    network(torch.randn(2, 3, 8, 8), torch.rand(2), 2).square().sum().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert idle
    assert all(name.startswith(("enter.0", "enter.1", "leave.0", "leave.1")) for name in idle)
    with pytest.raises(ValueError, match="no multiple of"):
        UNet((32, 18), 1, width=8, entry="outer")


def test_the_input_goes_past_the_network_as_the_time_and_the_level_say():
    """At first nothing of it does; with weights g and h the output is g x + (1 + h) said."""
    torch.manual_seed(0)
    plain = UNet((32, 16), 3, width=8, attention=())
    past = UNet((32, 16), 3, width=8, attention=(), skip=True)
    past.load_state_dict(plain.state_dict(), strict=False)
    for network in (plain, past):
        for head in network.leave:
            head.conv.weight.data.fill_(0.01)
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([0.1, 0.5, 1.0])
    said = plain(x, t, 1)
    assert torch.equal(past(x, t, 1), said)
    past.past[1].bias.data = torch.tensor([2.0, -0.5])
    torch.testing.assert_close(past(x, t, 1), 2 * x + 0.5 * said)
    past.past[1].weight.data.normal_()
    of_input = past(x, t, 1) - past.past[1].bias[0] * x
    assert not torch.allclose(of_input[0], of_input[1])
    # The other level has weights of its own.
    finer = torch.randn(3, 3, 32, 32)
    assert torch.equal(past(finer, t, 0), plain(finer, t, 0))


def test_a_network_that_has_learned_nothing_else_can_return_its_input():
    """What the stages would have to copy: with the input past them it is learned exactly, in a few steps."""
    torch.manual_seed(0)
    network = UNet((16,), 3, width=8, multipliers=(1, 2), attention=(), skip=True)
    optimizer = torch.optim.Adam(network.past.parameters(), lr=0.1)
    x, t = torch.randn(4, 3, 16, 16), torch.full((4,), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (network(x, t, 0) - x).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(network(x, t, 0), x, rtol=0, atol=0.02)


@pytest.mark.parametrize("ladder", [(32, 18), (30,), (32, 16, 7)])
def test_sides_that_the_stages_cannot_halve_are_refused(ladder):
    if ladder == (32, 16, 7):
        UNet(ladder, 1, width=4)  # the innermost stage halves nothing
        return
    with pytest.raises(ValueError, match="no multiple of"):
        UNet(ladder, 1, width=4)


def test_time_level_and_dropout_matter():
    network = UNet((16, 8), 1, width=8, attention=(4,), dropout=0.5).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    x = torch.randn(1, 1, 16, 16)
    early, late = (network(x, torch.tensor([t]), 0) for t in (0.1, 0.9))
    assert not torch.allclose(early, late)
    assert torch.equal(network(x, torch.tensor([0.1]), 0), early)
    network.train()
    assert not torch.allclose(network(x, torch.tensor([0.1]), 0), early)


@pytest.mark.parametrize("option", [{"width": 0}, {"blocks": 0}, {"multipliers": ()}, {"dropout": 1.0}])
def test_options_without_sense_are_refused(option):
    with pytest.raises(ValueError, match="at least 1"):
        UNet((16,), 1, **option)


@pytest.mark.parametrize(
    ("ladder", "entry", "seeing"),
    [
        ((32, 16, 8), "own", [[0, 1, 2], [1, 2], [2]]),
        ((32, 8), "own", [[0, 1], [1]]),  # the second way in is the third stage's
        ((32, 24, 16), "own", [[0, 1], [0, 1], [1]]),
        ((32, 16, 8), "outer", [[0], [0], [0]]),
        ((32,), "own", [[0]]),
    ],
)
def test_with_nested_stages_each_one_that_runs_and_where_levels_enter_sees_the_input(ladder, entry, seeing):
    network = UNet(ladder, 3, width=8, attention=(), entry=entry, nested=True)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    for level, side in enumerate(ladder):
        network.zero_grad()
        x = torch.randn(2, 3, side, side)
        said = network(x, torch.rand(2), level)
        assert said.shape == x.shape
        said.square().sum().backward()
        for ways in (network.enter, network.leave):
            used = [index for index, way in enumerate(ways) if any(p.grad is not None for p in way.parameters())]
            assert used == seeing[level]


def test_with_one_level_there_is_nothing_to_nest():
    networks = []
    for nested in (False, True):
        torch.manual_seed(0)
        networks.append(UNet((32,), 3, width=8, nested=nested))
        networks[-1].leave[0].conv.weight.data.normal_()
    x, t = torch.randn(2, 3, 32, 32), torch.rand(2)
    assert torch.equal(networks[0](x, t, 0), networks[1](x, t, 0))


def test_a_nested_outer_stage_begins_from_what_the_inner_ones_say_of_the_reduced_input():
    """With nothing handed inwards and nothing said at the outer stage, level 0 says what level 1 does, enlarged."""
    torch.manual_seed(0)
    network = UNet((32, 16), 3, width=8, attention=(), nested=True)
    for head in network.leave[1:]:
        head.conv.weight.data.normal_()
    for parameter in network.shrink[0].parameters():
        parameter.data.zero_()
    x, t = torch.randn(2, 3, 32, 32), torch.rand(2)
    # Sums of four over two: white noise stays white noise of the same variance.
    reduced = x.unflatten(3, (16, 2)).unflatten(2, (16, 2)).sum(dim=(3, 5)) / 2
    inner = network(reduced, t, 1).repeat_interleave(2, 2).repeat_interleave(2, 3) / 2
    torch.testing.assert_close(network(x, t, 0), inner)


@pytest.mark.parametrize("ladder", [(32, 16, 8), (32, 24, 16, 12), (32, 8), (32,)])
@pytest.mark.parametrize("options", [{}, {"nested": True}, {"nested": True, "skip": True}, {"entry": "outer"}])
def test_levels_together_say_and_learn_what_each_does_alone(ladder, options):
    """Answers and gradients are equal up to rounding, for as many images of each level as there are not of another."""
    torch.manual_seed(0)
    one = UNet(ladder, 3, width=8, attention=(8,), **options)
    for p in one.parameters():
        torch.nn.init.normal_(p, std=0.1)
    asked = {level: (torch.randn(level + 1, 3, side, side), torch.rand(level + 1)) for level, side in enumerate(ladder)}
    gradients = []
    for said in (one.at_levels(asked), {level: one(x, t, level) for level, (x, t) in asked.items()}):
        assert {level: answer.shape for level, answer in said.items()} == {n: x.shape for n, (x, _) in asked.items()}
        one.zero_grad()
        sum(((level + 1) * answer.square().mean() for level, answer in said.items()), torch.zeros(())).backward()
        gradients.append([answer.detach() for _, answer in sorted(said.items())] + [p.grad for p in one.parameters()])
    for together, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-4 * float(alone.abs().max()))


def test_levels_together_run_each_stage_once():
    """Levels of sides that no stage has in common, as 32 and 24 have none, do not."""
    for ladder, options, calls in (
        ((32, 16, 8), {}, 1),
        ((32, 16, 8), {"nested": True}, 1),
        ((32, 24, 16), {}, 2),
        ((32, 16, 8), {"entry": "outer"}, 3),
    ):
        one, seen = UNet(ladder, 3, width=4, **options), []
        one.middle[0].register_forward_hook(lambda _block, given, _said, seen=seen: seen.append(len(given[0])))
        one.at_levels({level: (torch.randn(2, 3, side, side), torch.rand(2)) for level, side in enumerate(ladder)})
        assert (len(seen), sum(seen)) == (calls, 6)
