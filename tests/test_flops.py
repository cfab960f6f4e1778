import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dvbench.measure import flops


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def macs(function, *shapes):
    module = function if isinstance(function, nn.Module) else Call(function)
    cost = flops.count(module, *(torch.randn(shape) for shape in shapes))
    assert cost.flops == sum(cost.by_operator.values())
    assert cost.flops % 2 == 0
    return cost.flops // 2


@pytest.mark.parametrize(
    ("conv", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, bias=False), (1, 4, 9, 9), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(8, 12, 5, groups=4, padding=2), (1, 8, 7, 7), 7 * 7 * 12 * 2 * 25),
        (nn.Conv2d(3, 8, 1), (5, 3, 4, 4), 5 * 4 * 4 * 8 * 3),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), (1, 6, 5, 5), 5 * 5 * 6 * 4 * 4),
        (nn.Conv1d(2, 3, 4), (1, 2, 9), 6 * 3 * 2 * 4),
    ],
)
def test_a_convolution_costs_its_kernel_at_each_output_pixel(conv, shape, expected):
    assert macs(conv, shape) == expected


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(7,), (2, 3)])
def test_a_linear_layer_costs_inputs_times_outputs_per_row(rows, bias):
    assert macs(nn.Linear(5, 11, bias=bias), (*rows, 5)) == torch.Size(rows).numel() * 5 * 11


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(3, 4), (4, 5)], 3 * 4 * 5),
        (torch.matmul, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.matmul, [(3, 4), (7, 2, 4, 5)], 7 * 2 * 3 * 4 * 5),  # the batch belongs to the second operand
        (torch.matmul, [(6, 1, 3, 4), (2, 4, 5)], 6 * 2 * 3 * 4 * 5),
        (torch.matmul, [(4,), (4, 5)], 4 * 5),
        (torch.matmul, [(3, 4), (4,)], 3 * 4),
        (torch.matmul, [(4,), (4,)], 4),
        (torch.mm, [(3, 4), (4, 5)], 3 * 4 * 5),
        (torch.mv, [(3, 4), (4,)], 3 * 4),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.addmm, [(3, 5), (3, 4), (4, 5)], 3 * 4 * 5),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (lambda a, b: torch.einsum("bhid, bhjd -> bhij", a, b), [(2, 3, 37, 41), (2, 3, 43, 41)], 2 * 3 * 37 * 43 * 41),
        (lambda a, b: torch.einsum("...id,...jd->...ij", a, b), [(2, 4, 8), (2, 4, 8)], 2 * 4 * 4 * 8),
    ],
)
def test_a_matrix_product_costs_the_inner_axis_at_each_output(function, shapes, expected):
    assert macs(function, *shapes) == expected


def test_attention_costs_its_two_matrix_products():
    query, key, value = (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 10)
    assert macs(functional.scaled_dot_product_attention, query, key, value) == 2 * 3 * 5 * 7 * (8 + 10)


@pytest.mark.parametrize("weights", [True, False])
def test_multihead_attention_is_counted_inside_its_fused_operator(weights):
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=weights)[0]

    assert macs(Attend(), (2, 6, 16)) == 2 * 6 * 16 * (4 * 16) + 2 * 6 * 6 * (16 + 16)
    assert torch.backends.mha.get_fastpath_enabled()


class Net(nn.Module):
    """Convolutions, attention and everything that is not counted; lower levels skip the first stage."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=2)
        self.norm = nn.GroupNorm(4, 32)
        self.batch_norm = nn.BatchNorm2d(32)
        self.qkv = nn.Conv2d(32, 96, 1)
        self.leave = nn.Conv2d(32, 3, 3, padding=1)
        self.never_called = nn.Linear(2, 2)

    def forward(self, x, t, level: int):
        if not torch.jit.is_tracing():
            assert t.shape == (len(x),)
        x = self.down(self.enter(x)) if level == 0 else x
        q, k, v = self.qkv(self.batch_norm(self.norm(x))).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        x = x + functional.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        return self.leave(functional.interpolate(functional.silu(x), scale_factor=2)) * t.view(-1, 1, 1, 1)


def test_agrees_with_torch_on_a_small_network():
    net = Net().eval()
    x, t = torch.randn(2, 3, 16, 16), torch.rand(2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t, level=0)
    assert flops.count(net, x, t, level=0).flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_constant_chooses_the_path_that_is_counted():
    net = Net()
    high = flops.count(net, torch.randn(1, 3, 16, 16), torch.rand(1), level=0)
    low = flops.count(net, torch.randn(1, 32, 8, 8), torch.rand(1), level=1)
    assert high.flops - low.flops == 2 * (16 * 16 * 16 * 3 * 9 + 8 * 8 * 32 * 8 * 9)


def test_what_a_first_call_makes_and_keeps_is_not_counted():
    class Caching(nn.Module):
        weight = None

        def forward(self, x):
            if self.weight is None:
                self.weight = torch.randn(8, 64) @ torch.randn(64, 8)
            return x @ self.weight

    module, x = Caching(), torch.randn(1, 8)
    assert [flops.count(module, x).flops for _ in range(2)] == [2 * 8 * 8] * 2


def test_norms_resizing_and_elementwise_work_is_named_and_not_counted():
    cost = flops.count(Net(), torch.randn(1, 3, 16, 16), torch.rand(1), level=0)
    assert set(cost.by_operator) == {"conv", "scaled_dot_product_attention"}
    named = {"aten::group_norm", "aten::batch_norm", "aten::upsample_nearest2d", "aten::silu", "aten::add", "aten::mul"}
    assert named <= set(cost.uncounted_ops)
    assert list(cost.uncounted_ops) == sorted(set(cost.uncounted_ops))


def test_leaves_the_network_as_it_was_and_says_nothing(caplog, capfd):
    net = Net().train()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flops.count(net, torch.zeros(1, 3, 16, 16), torch.ones(1), level=0)
    assert [part.training for part in (net, net.norm, net.batch_norm)] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_modes_come_back_when_the_count_fails():
    net = Net().train()
    with pytest.raises(RuntimeError):
        flops.count(net, torch.zeros(1, 5, 16, 16), torch.ones(1), level=0)
    assert net.training
    assert torch.backends.mha.get_fastpath_enabled()


def test_params_are_the_trainable_ones_each_once():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    net.append(net[1])
    assert flops.params(net) == 3 * 4 + 4 + 4 * 4 + 4 + 4
    net[0].bias.requires_grad_(requires_grad=False)
    assert flops.params(net) == 3 * 4 + 4 * 4 + 4 + 4
