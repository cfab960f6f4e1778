"""The FLOPs of a pass forward and of one back, against formulas and against torch's own counter."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dvbench.builtin.unet import UNet
from dvbench.guard import Guard
from dvbench.measure import flops

META = torch.device("meta")


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def macs(function, *shapes):
    """Count real tensors with fvcore and such without values with torch, which must agree."""
    module = function if isinstance(function, nn.Module) else Call(function)
    cost = flops.count(module, *(torch.randn(shape) for shape in shapes))
    assert cost.flops == sum(cost.by_operator.values())
    assert cost.flops % 2 == 0
    without_values = flops.count(copy.deepcopy(module).to(META), *(torch.empty(shape, device=META) for shape in shapes))
    assert without_values.flops == sum(without_values.by_operator.values()) == cost.flops
    return cost.flops // 2


@pytest.mark.parametrize(
    ("conv", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, bias=False), (1, 4, 9, 9), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(8, 12, 5, groups=4, padding=2), (1, 8, 7, 7), 7 * 7 * 12 * 2 * 25),
        (nn.Conv2d(3, 8, 1), (5, 3, 4, 4), 5 * 4 * 4 * 8 * 3),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), (1, 6, 5, 5), 5 * 5 * 6 * 4 * 4),
        (nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, output_padding=1), (1, 6, 5, 5), 5 * 5 * 6 * 2 * 9),
        (nn.Conv1d(2, 3, 4), (1, 2, 9), 6 * 3 * 2 * 4),
        (nn.Conv3d(2, 3, 3, dilation=2), (1, 2, 7, 7, 7), 3**3 * 3 * 2 * 27),
        (nn.Conv2d(3, 8, 3, padding="same"), (2, 3, 6, 6), 2 * 6 * 6 * 8 * 3 * 9),
        (nn.Conv2d(4, 8, 3, padding="valid", groups=2), (1, 4, 6, 6), 4 * 4 * 8 * 2 * 9),
        (nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), (1, 3, 6, 6), 6 * 6 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3), (3, 6, 6), 4 * 4 * 8 * 3 * 9),
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
        (torch.dot, [(4,), (4,)], 4),
        (torch.inner, [(3, 4), (5, 4)], 3 * 4 * 5),
        (torch.matmul, [(2, 3, 4), (4,)], 2 * 3 * 4),
        (torch.matmul, [(4,), (2, 4, 5)], 2 * 4 * 5),
        (torch.addmv, [(3,), (3, 4), (4,)], 3 * 4),
        (torch.addmm, [(3, 5), (3, 4), (4, 5)], 3 * 4 * 5),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (lambda a, b: torch.einsum("bhid, bhjd -> bhij", a, b), [(2, 3, 37, 41), (2, 3, 43, 41)], 2 * 3 * 37 * 43 * 41),
        (lambda a, b: torch.einsum("...id,...jd->...ij", a, b), [(2, 4, 8), (2, 4, 8)], 2 * 4 * 4 * 8),
        (lambda a, b: torch.einsum("ij,jk", a, b), [(3, 4), (4, 5)], 3 * 4 * 5),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(5, 4, 3), (1, 3, 2)], 5 * 4 * 3 * 2),
        (lambda a, b: torch.einsum("ijx,jk->ik", a, b), [(3, 4, 9), (4, 5)], 3 * 4 * 5),  # x is summed over first
        (lambda a, b: torch.einsum("ii,ij->j", a, b), [(4, 4), (4, 5)], 4 * 5),  # the diagonal of a
        (lambda a, b: torch.einsum("ij,ij->ij", a, b), [(3, 4), (3, 4)], 0),
        (lambda a, b: torch.einsum("i,j->ij", a, b), [(3,), (4,)], 0),
        (lambda a: torch.einsum("ij->ji", a), [(3, 4)], 0),
        (lambda a, b: torch.tensordot(a, b, 1), [(3, 4), (4, 5)], 3 * 4 * 5),
        (lambda a, b: torch.tensordot(a, b, ([0, 2], [1, 0])), [(3, 4, 5), (5, 3, 6)], 4 * 6 * 3 * 5),
        (lambda a, b: torch.tensordot(a, b, 0), [(3,), (4,)], 3 * 4),  # as a matrix product
        (lambda *given: torch.linalg.multi_dot(given), [(3, 4), (4, 5)], 3 * 4 * 5),
        (lambda *given: torch.linalg.multi_dot(given), [(9, 2), (2, 8), (8, 3)], 2 * 8 * 3 + 9 * 2 * 3),
        (lambda *given: torch.linalg.multi_dot(given), [(2,), (2, 8), (8, 3), (3,)], 8 * 3 + 2 * 8 + 2),
    ],
)
def test_a_matrix_product_costs_the_inner_axis_at_each_output(function, shapes, expected):
    assert macs(function, *shapes) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.RNN(4, 5, nonlinearity="relu"), 6 * (5 * 4 + 5 * 5)),
        (nn.GRU(4, 5, batch_first=True), 6 * 3 * (5 * 4 + 5 * 5)),
        (nn.LSTM(4, 5, num_layers=2), 6 * 4 * (5 * 4 + 3 * 5 * 5)),
        (nn.LSTM(4, 5, bidirectional=True, bias=False), 6 * 4 * 2 * (5 * 4 + 5 * 5)),
    ],
)
def test_a_recurrent_layer_costs_its_matrices_at_each_position(layer, expected):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x)[0]

    assert macs(Last(), (2, 3, 4)) == expected


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


def plainly(module, *tensors, **constants):
    """Return what torch's counter, as it comes, makes of a pass forward and one back, attention as its products.

    Of fused attention it sees nothing on a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            said = module(*tensors, **constants)
        with FlopCounterMode(display=False) as backward:
            said.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_agrees_with_torch_on_a_small_network():
    net = Net().eval()
    x, t = torch.randn(2, 3, 16, 16), torch.rand(2)
    forward, backward = plainly(net, x, t, level=0)
    assert flops.count(net, x, t, level=0).flops == forward
    # Its formula for the weights of a convolution in two groups counts twice what they cost.
    assert flops.backward(net, x, t, level=0) == backward - 2 * 2 * 8 * 8 * 32 * 8 * 9


class Apart(nn.Module):
    """A convolution in groups as convolutions side by side, one for each group."""

    def __init__(self, conv):
        super().__init__()
        options = {"stride": conv.stride, "padding": conv.padding}
        sizes = (conv.in_channels // conv.groups, conv.out_channels // conv.groups, conv.kernel_size)
        self.parts = nn.ModuleList(type(conv)(*sizes, **options) for _ in range(conv.groups))

    def forward(self, x):
        return torch.cat([part(y) for part, y in zip(self.parts, x.chunk(len(self.parts), dim=1), strict=True)], dim=1)


class Attended(nn.Module):
    """Attention of what three layers make of x."""

    def __init__(self, attention, layers=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(layers))
        self.attention = attention

    def forward(self, x):
        return self.attention(*(layer(x) for layer in self.layers))


class Heads(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, q, k, v):
        return self.attention(q, k, v, need_weights=self.weights)[0]


LAYERS = {
    "3x3": (nn.Conv2d(4, 8, 3, padding=1), (2, 4, 9, 9)),
    "1x1": (nn.Conv2d(4, 8, 1), (2, 4, 9, 9)),
    "strided": (nn.Conv2d(4, 8, 3, stride=2), (2, 4, 9, 9)),
    "dilated": (nn.Conv2d(4, 8, 3, dilation=2), (2, 4, 9, 9)),
    "same": (nn.Conv2d(4, 8, 3, padding="same"), (2, 4, 9, 9)),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2, stride=2), (2, 4, 9, 9)),
    "each channel by itself": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 9, 9)),
    "transposed": (nn.ConvTranspose2d(4, 8, 3, stride=2), (2, 4, 9, 9)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2), (2, 4, 9, 9)),
    "linear": (nn.Linear(16, 5), (2, 16)),
    "linear, many rows": (nn.Linear(16, 5, bias=False), (2, 7, 16)),
    "attention": (Attended(functional.scaled_dot_product_attention), (2, 3, 7, 16)),
    "attention without heads": (Attended(functional.scaled_dot_product_attention), (2, 7, 16)),
    "heads": (Attended(Heads(weights=True)), (2, 7, 16)),
    "heads, fused": (Attended(Heads(weights=False)), (2, 7, 16)),
    "encoder": (Attended(nn.TransformerEncoderLayer(16, 4, 24, dropout=0.1, batch_first=True), 1), (2, 7, 16)),
}


@pytest.mark.parametrize("behind", [False, True], ids=["first", "behind another"])
@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_both_ways_agree_with_torch(layer, shape, behind):
    """The first layer's input needs no gradient, that of one behind it does."""

    def placed(layer):
        another = nn.Linear(16, 16) if shape[-1] == 16 else nn.Conv2d(4, 4, 1)
        return nn.Sequential(*([another] if behind else []), layer).eval()

    module, x = placed(layer), torch.randn(shape)
    grouped = getattr(layer, "groups", 1) > 1  # torch's formula for their weights is wrong
    forward, backward = plainly(placed(Apart(layer) if grouped else layer), x)
    assert flops.count(module, x).flops == forward
    assert flops.backward(module, x) == backward
    meta, x = copy.deepcopy(module).to(META), x.to(META)
    assert flops.count(meta, x).flops == forward
    assert flops.backward(meta, x) == backward


def test_a_gradient_costs_a_product_as_large_as_that_of_the_pass_forward():
    first, second = nn.Linear(5, 7, bias=False), nn.Linear(7, 11)
    x, layers = torch.randn(3, 5), nn.Sequential(first, nn.SiLU(), second)
    assert flops.backward(layers, x) == 2 * 3 * (5 * 7 + 2 * 7 * 11)  # the weights of both, and what lies between
    first.weight.requires_grad_(requires_grad=False)
    assert flops.backward(layers, x) == 2 * 3 * 7 * 11
    assert flops.backward(layers.requires_grad_(requires_grad=False), x) is None


def test_attention_costs_four_products_back_whatever_the_kernel():
    """A fused kernel computes the first product anew: it is the device's, not the network's."""
    module = Attended(functional.scaled_dot_product_attention)
    layers = 3 * 2 * 2 * 7 * 16 * 16  # weights only, since x is not trained
    products = 4 * 2 * 2 * 7 * 7 * 16
    x = torch.randn(2, 1, 7, 16)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert flops.backward(module, x) == layers + products
    with sdpa_kernel(SDPBackend.MATH):
        assert flops.backward(module, x) == layers + products


@pytest.mark.parametrize("ladder", [(32, 16, 8), (32,), (24, 12)])
def test_a_network_without_values_costs_what_the_real_one_does_at_every_level(ladder):
    options = {"channels": 3, "width": 8, "multipliers": (1, 2), "attention": (16, 12), "dropout": 0.1}
    watch = Guard({"backbone": "backbone unet of dvbench 0"}).network
    real = watch(UNet(ladder, **options))
    with META:
        empty = watch(UNet(ladder, **options))
    for level, side in enumerate(ladder):
        x, t = torch.randn(1, 3, side, side), torch.rand(1)
        forward, backward = plainly(copy.deepcopy(real).eval(), x, t, level=level)
        cost, without_values = (
            flops.count(real, x, t, level=level),
            flops.count(empty, x.to(META), t.to(META), level=level),
        )
        assert cost.flops == without_values.flops == forward
        assert cost.uncounted_ops == without_values.uncounted_ops
        assert flops.backward(real, x, t, level=level) == backward
        assert flops.backward(empty, x.to(META), t.to(META), level=level) == backward


def test_a_level_that_no_trainable_parameter_answers_costs_nothing_back():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, level):
            return self.layer(x) if level else x

    assert [flops.backward(Partly(), torch.randn(1, 4), level=level) for level in (0, 1)] == [0, 2 * 16]


def test_weights_that_are_shared_are_so_in_the_copy_that_is_counted():
    layer = nn.Linear(4, 4, bias=False)
    tied, x = nn.Sequential(layer, layer), torch.randn(1, 4)
    assert flops.backward(tied, x) == 2 * 16 * 3


def test_a_recurrent_network_is_counted_back_too():
    class Recurrent(nn.GRU):
        def forward(self, x):
            return super().forward(x)[0]

    module, x = Recurrent(4, 5, batch_first=True), torch.randn(2, 3, 4)
    assert flops.backward(module, x) == plainly(module, x)[1]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_computes_anew_is_not_counted(reentrant):
    class Saving(nn.Sequential):
        def forward(self, x):
            for part in self:
                x = checkpoint(part, x, use_reentrant=reentrant)
            return x

    inner = [nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 4)]
    saving, plain = (nn.Sequential(nn.Linear(4, 4), kind(*inner)) for kind in (Saving, nn.Sequential))
    x = torch.randn(3, 4)
    for device in ("cpu", META):
        asked = saving.to(device), x.to(device)
        assert flops.count(*asked).flops == flops.count(plain.to(device), x.to(device)).flops
        assert flops.backward(*asked) == 2 * 3 * (4 * 4 + 2 * 4 * 6 + 2 * 6 * 4)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in saving.modules())


def test_a_network_that_looks_at_values_is_counted_all_the_same():
    class Looks(nn.Sequential):
        def forward(self, x):
            return super().forward(x if float(x.detach().sum()) > math.inf else -x)

    layers, x = [nn.Linear(4, 6), nn.Linear(6, 4)], torch.randn(3, 4)
    assert flops.backward(Looks(*layers), x) == flops.backward(nn.Sequential(*layers), x)


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
    with META:
        assert flops.count(Caching(), torch.empty(1, 8)).flops == 2 * 8 * 8


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
        flops.backward(net, torch.zeros(1, 3, 16, 16), torch.ones(1), level=0)
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
