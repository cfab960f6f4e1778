"""What a GPU records: that it is asked for what was recorded, and, on a GPU, that this changes nothing."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dvbench
from benchmarks import write_benchmark
from dvbench.backbone import Backbone
from dvbench.builtin.unet import UNet
from dvbench.graphs import AtLevels, Passes, can_record, recorded

LADDER = (16, 8)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


class Tape(TorchDispatchMode):
    """Stands for a CUDA graph: it remembers the operators of what it records, and runs them again into their places."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        said = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, said))
        return said

    def replay(self):
        for func, args, kwargs, said in self.done:
            again = func(*args, **kwargs)
            if isinstance(said, torch.Tensor) and again.data_ptr() != said.data_ptr():
                said.copy_(again)


@contextmanager
def idle(*_args, **_named):
    yield


class Idle:
    def wait_stream(self, _other):
        pass


@pytest.fixture
def taped(monkeypatch):
    """Let the CPU record."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape, **_: tape)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "stream", idle)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Idle)


def network(seed=0):
    torch.manual_seed(seed)
    made = UNet(LADDER, 3, width=8, multipliers=(1, 2))
    for parameter in made.parameters():  # heads start at zero and would say nothing
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def given(level, batch, seed=1):
    random = torch.Generator().manual_seed(seed)
    side = LADDER[level]
    return torch.randn(batch, 3, side, side, generator=random), torch.rand(batch, generator=random)


def test_a_gpu_records_a_network_that_says_it_may():
    class Other(UNet):
        recordable = Backbone.recordable

    for device, kind, may in (("cuda", UNet, True), ("cuda", Other, False), ("cpu", UNet, False)):
        assert can_record(torch.device(device), kind(LADDER, 3, width=8, multipliers=(1, 2))) == may


@torch.inference_mode()
def test_what_was_recorded_says_what_the_network_says_of_other_images(taped):
    one, other = network(), network()
    recorded(one)
    forward = vars(one)["forward"]
    for seed, level, batch in ((1, 0, 3), (2, 0, 3), (3, 1, 3), (4, 1, 2), (5, 0, 3)):
        asked = given(level, batch, seed)
        torch.testing.assert_close(one(*asked, level), other(*asked, level))
    assert set(forward.replays) == {(0, (3, 3, 16, 16)), (1, (3, 3, 8, 8)), (1, (2, 3, 8, 8))}


def test_a_run_draws_the_same_with_what_was_recorded(taped, tmp_path, monkeypatch):
    path = str(write_benchmark(tmp_path))
    plain = dvbench.run(path, results=tmp_path / "plain")
    monkeypatch.setattr("dvbench.drawing.can_record", lambda *_: True)
    replayed = []
    monkeypatch.setattr(Tape, "replay", lambda self, replay=Tape.replay: (replayed.append(1), replay(self)))
    made = dvbench.run(path, results=tmp_path / "recorded")
    assert len(replayed) > 2
    one, other = (
        np.load(tmp_path / kind / "tiny" / record.run_id / "samples.npz")["samples"]
        for kind, record in (("plain", plain), ("recorded", made))
    )
    assert np.array_equal(one, other)


@torch.inference_mode()
def test_a_network_that_was_recorded_goes_when_it_is_let_go(taped):
    one = network()
    recorded(one)
    one(*given(0, 2), 0)
    held = weakref.ref(one)
    gc.disable()
    del one
    gc.enable()
    assert held() is None


@torch.inference_mode()
def test_hooks_see_every_call_of_what_was_recorded(taped):
    one, seen = network(), []
    recorded(one)
    one.register_forward_hook(lambda *_: seen.append(1))
    for _ in range(3):
        one(*given(0, 2), 0)
    assert len(seen) == 3


@torch.inference_mode()
def test_what_cannot_be_recorded_is_called_and_that_told_once(taped, monkeypatch, caplog):
    def refused(_tape, **_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refused)
    one, other = network(), network()
    recorded(one)
    for seed in (1, 2):
        asked = given(0, 2, seed)
        assert torch.equal(one(*asked, 0), other(*asked, 0))
    one(*given(1, 2), 1)
    (told,) = caplog.messages
    assert "cannot record the network" in told
    assert "(operation not permitted when stream is capturing)" in told


@torch.inference_mode()
def test_memory_that_runs_out_while_recording_is_told_and_what_was_recorded_let_go(taped, monkeypatch):
    one = network()
    recorded(one)
    one(*given(0, 2), 0)

    def full(_tape, **_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "graph", full)
    with pytest.raises(torch.OutOfMemoryError):
        one(*given(1, 2), 1)
    assert not vars(one)["forward"].replays


def test_training_records_what_it_is_shown_of_whole_batches_and_nothing_else(taped, monkeypatch):
    made = []

    def graphed(function, values, calls, *, allow_unused_input, pool):
        assert calls > 1
        assert allow_unused_input  # the outer stages of a batch without level 0
        made.append((function, values))
        return function

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    one = network()
    passes = Passes(one, nullcontext)
    both = {level: given(level, 2 + level) for level in (0, 1)}
    asked = {**both}
    plain = one.at_levels(asked)
    for whole, done in ((0, 0), (4, 0), (5, 1), (0, 1), (5, 1)):
        passes.whole = whole
        said = passes(asked)
        assert all(torch.equal(said[level], plain[level]) for level in asked)
        assert len(made) == done
    passes({1: both[1]})
    assert len(made) == 1
    function, values = made[0]
    assert isinstance(function, AtLevels)
    assert [value.shape for value in values] == [value.shape for pair in both.values() for value in pair]


def test_training_records_the_way_there_alone_under_autocast(taped, monkeypatch):
    """As it runs unrecorded: what a network computes exactly would be cast on the way back."""
    one, during = network(), {"recording": [], "network": []}

    def cast():
        return torch.is_autocast_enabled("cpu")

    def graphed(function, *_, **__):
        during["recording"].append(cast())
        return function

    at_levels = one.at_levels
    one.at_levels = lambda asked: (during["network"].append(cast()), at_levels(asked))[1]
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    passes = Passes(one, lambda: torch.autocast("cpu", torch.bfloat16))
    asked = {level: given(level, 2) for level in (0, 1)}
    plain = passes(asked)
    passes.whole = 4
    said = passes(asked)
    assert all(torch.equal(said[level], plain[level]) for level in asked)
    assert during == {"recording": [False], "network": [True, True]}


def test_training_goes_on_with_what_cannot_be_recorded(taped, monkeypatch, caplog):
    def refused(*_, **__):
        raise RuntimeError("CUDA error: operation would make the legacy stream depend on a capturing one")

    one = network()
    passes = Passes(one, nullcontext)
    both = {level: given(level, 2) for level in (0, 1)}
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda function, *_, **__: function)
    passes.whole = 2
    passes({1: both[1]})
    assert passes.replays
    passes.whole = 4
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refused)
    for _ in range(2):
        said = passes(both)
    assert not passes.replays
    assert set(said) == {0, 1}
    assert len(caplog.messages) == 1


def test_levels_keep_their_order_whatever_order_the_network_answers_in():
    one = network()
    both = {level: given(level, 2) for level in (0, 1)}
    said = one.at_levels(both)
    one.at_levels = lambda _asked: {1: said[1], 0: said[0]}
    flat = [value for pair in both.values() for value in pair]
    assert [told.shape[-1] for told in AtLevels(one, (0, 1), nullcontext)(*flat)] == list(LADDER)


@needs_cuda
def test_a_gpu_draws_and_trains_the_same_with_what_it_recorded():
    device = torch.device("cuda")
    one, other = network().to(device), network().to(device)
    passes = Passes(one, nullcontext)
    passes.whole = 5
    for seed in range(4):
        both = {level: tuple(v.to(device) for v in given(level, 2 + level, seed)) for level in (0, 1)}
        for each, call in ((one, passes), (other, other.at_levels)):
            each.zero_grad()
            sum(said.square().mean() for said in call(both).values()).backward()
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
            a.data -= 0.1 * a.grad
            b.data -= 0.1 * b.grad
    assert passes.replays
    recorded(one)
    with torch.inference_mode():
        for seed in range(3):
            asked = tuple(value.to(device) for value in given(0, 2, seed))
            torch.testing.assert_close(one(*asked, 0), other(*asked, 0), rtol=1e-3, atol=1e-4)
    assert vars(one)["forward"].replays


@needs_cuda
def test_a_gpu_calls_a_network_that_cannot_be_recorded_and_goes_on():
    device = torch.device("cuda")

    class Deciding(UNet):
        def forward(self, x, t, level):
            return super().forward(x, t, level) * (2.0 if float(x.mean()) > 0 else 1.0)

    torch.manual_seed(0)
    one = Deciding(LADDER, 3, width=8, multipliers=(1, 2)).eval().to(device)
    recorded(one)
    with torch.inference_mode():
        for seed in range(2):
            one(*(value.to(device) for value in given(0, 2, seed)), 0)
    assert vars(one)["forward"].refused
