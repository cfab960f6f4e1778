"""What a run says of where it ran."""

from __future__ import annotations

import subprocess

import pytest
import torch

from dvbench.environment import (
    autocast,
    bf16_speed_up,
    choose_device,
    choose_precision,
    describe,
    git_state,
    memory_order,
    tf32,
)
from dvbench.errors import UsageError
from dvbench.memory import sent

CPU = torch.device("cpu")


def test_auto_is_a_device_that_is_there():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else choose_device("auto").type)
    missing = next(
        name for name in ("mps", "cuda") if not {"cuda": torch.cuda, "mps": torch.backends.mps}[name].is_available()
    )
    with pytest.raises(UsageError, match=f"no {missing} device here: choose --device cpu"):
        choose_device(missing)


def test_precision_is_what_the_device_computes_in():
    assert choose_precision("fp32", CPU) == "fp32"
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        choose_precision("fp16", CPU)
    linear, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, precision)():
            assert linear(x).dtype == dtype


@pytest.mark.parametrize(("speed_up", "chosen"), [(0.0, "fp32"), (0.6, "fp32"), (2.5, "bf16")])
def test_auto_is_bf16_only_where_a_processor_is_faster_in_it(monkeypatch, speed_up, chosen):
    monkeypatch.setattr("dvbench.environment.bf16_speed_up", lambda: speed_up)
    assert choose_precision("auto", CPU) == chosen


def test_the_speed_of_bf16_is_measured_where_the_processor_has_it():
    assert (bf16_speed_up() > 0) == torch.cpu._is_avx512_bf16_supported()


def test_networks_train_channels_last_where_convolutions_run_backward_fast_in_it():
    assert memory_order(torch.device("cuda")) == torch.channels_last
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512"
    assert memory_order(CPU) == (torch.channels_last if fast else torch.contiguous_format)


def test_fp32_products_are_rounded_to_tf32_on_cuda_alone_and_only_meanwhile():
    before = torch.get_float32_matmul_precision()
    with tf32(CPU):
        assert torch.get_float32_matmul_precision() == before
    with tf32(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_what_is_sent_to_cuda_is_pinned_first_and_not_waited_for(monkeypatch):
    sends = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: sends.append((self.item(), where, how)))
    for kind in ("cuda", "mps", "cpu"):
        sent(torch.zeros(()), torch.device(kind))
    assert sends == [
        (pinned, (torch.device(kind),), {"non_blocking": True})
        for kind, pinned in (("cuda", 1), ("mps", 0), ("cpu", 0))
    ]


def test_the_commit_is_that_of_the_checkout_and_dirt_is_told(tmp_path):
    assert git_state(tmp_path) == (None, None)

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    commit, dirty = git_state(tmp_path)
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == (commit, True)


def test_the_description_names_versions_and_the_machine():
    told = describe(CPU, "fp32", {"dvbench": "0.1.0", "other": "2"}, {"other": "a1"})
    assert (told["dvbench"], told["plugins"]) == ("0.1.0", {"dvbench": "0.1.0", "other": "2"})
    assert told["torch"] == torch.__version__
    assert told["threads"] == torch.get_num_threads()
