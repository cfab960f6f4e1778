"""What happens where memory runs out, and what becomes of memory that is freed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import dvbench
from benchmarks import write_benchmark, write_pictures
from dvbench.builtin.unet import UNet
from dvbench.errors import WorkError
from dvbench.memory import GLIBC, halved, ran_out
from dvbench.progress import Reporter

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of its memory")


def python(script):
    """Run a script in a process of its own and return what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Lines(Reporter):
    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_what_says_that_memory_ran_out_is_told_from_other_errors():
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert ran_out(MemoryError())
    assert not ran_out(RuntimeError("shapes do not fit"))
    assert not ran_out(ValueError("out of memory"))


def test_half_is_tried_next_until_there_is_one_image():
    full = torch.OutOfMemoryError("CUDA out of memory")
    assert [halved(n, full) for n in (64, 7, 2)] == [32, 3, 1]
    with pytest.raises(WorkError, match="too little memory for this network with one image at a time: choose"):
        halved(1, full)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        halved(64, RuntimeError("shapes do not fit"))


def narrow(monkeypatch, most, training):
    """Let the network run out of memory with more than ``most`` images, in training or in drawing only."""
    forward, at_levels = UNet.forward, UNet.at_levels

    def limit(images):
        if images > most and torch.is_grad_enabled() == training:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def limited(self, x, t, level):
        limit(len(x))
        return forward(self, x, t, level)

    def together(self, inputs):
        limit(sum(len(x) for x, _ in inputs.values()))
        return at_levels(self, inputs)

    monkeypatch.setattr(UNet, "forward", limited)
    monkeypatch.setattr(UNet, "at_levels", together)


def images(tmp_path, record):
    return np.load(tmp_path / "results" / "tiny" / record.run_id / "samples.npz")["samples"]


def test_a_batch_that_is_too_large_to_draw_is_halved_and_the_samples_are_the_same(tmp_path, monkeypatch):
    path, lines = write_benchmark(tmp_path), Lines()
    batch = {"sampling.batch": 6}
    whole = dvbench.run(str(path), results=tmp_path / "results", set=batch)
    narrow(monkeypatch, 2, training=False)
    parts = dvbench.run(str(path), results=tmp_path / "results", set=batch, fresh=True, reporter=lines)
    assert [batch["samples"] for batch in whole.cost.sample_batches] == [6]
    # 6 are halved to 3 and 3 to 1, which then is the batch.
    assert [batch["samples"] for batch in parts.cost.sample_batches] == [1] * 6
    said = [line for line in lines.lines if "memory" in line]
    assert said == [f"out of memory drawing {n} images at a time: going on with {n // 2}" for n in (6, 3)]
    # Kernels may sum in another order for another batch.
    assert np.abs(images(tmp_path, whole).astype(int) - images(tmp_path, parts)).max() <= 1


def test_a_batch_that_is_too_large_to_train_is_halved_in_the_network_alone(tmp_path, monkeypatch):
    path, lines = write_benchmark(tmp_path), Lines()
    narrow(monkeypatch, 3, training=True)
    record = dvbench.run(str(path), results=tmp_path / "results", reporter=lines)
    said = [line for line in lines.lines if "memory" in line]
    # 16 images, those of both levels together.
    assert said == [f"out of memory with {n} images in the network: going on with {n // 2}" for n in (16, 8, 4)]
    assert record.cost.train_images == 64
    assert record.status == "finished"


@linux
def test_training_goes_on_in_a_process_whose_memory_really_is_too_small():
    told = python("""
        import resource
        from contextlib import nullcontext
        import numpy as np, torch
        from dvbench.builtin.bases import Identity
        from dvbench.builtin.schedules import Linear
        from dvbench.builtin.unet import UNet
        from dvbench.config import Training
        from dvbench.prediction import data_range
        from dvbench.process import Process
        from dvbench.training import Trainer

        torch.set_num_threads(1)
        torch.backends.mkldnn.set_flags(False)  # a library that may crash where it gets no memory
        cpu, pictures = torch.device("cpu"), np.zeros((64, 64, 64, 3), np.uint8)
        drawn = Process(Identity((64,), 3), Linear((64,), steps=50))
        network = UNet((64,), 3, width=16)
        def trainer(**options):
            held = Training(**{"images": 64, "batch": 64, "warmup": 1, **options})
            limits = data_range(drawn, pictures)
            return Trainer(network, drawn, pictures, limits, "x0", held, 0, cpu, nullcontext, say=print)

        trainer(images=2, batch=2).train(lambda _: None)  # libraries are loaded before the limit
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + 400 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        one = trainer()
        one.train(lambda _: None)
        print(one.progress.images, one.microbatch < 64)
    """).splitlines()
    assert told[0] == "out of memory with 64 images in the network: going on with 32"
    assert told[-1] == "64 True"


@linux
@pytest.mark.skipif(not GLIBC, reason="only glibc can be told to keep what is freed")
def test_memory_that_is_freed_is_used_again_without_page_faults_and_handed_back_on_demand():
    told = python("""
        import resource, torch
        from dvbench.environment import set_up
        from dvbench.measure.clock import peak_memory, reset_peak_memory

        cpu = torch.device("cpu")

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10):
                torch.ones(2**24 // 4)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        torch.set_num_threads(1)
        before = faults()
        set_up(1)
        faults()
        print(before, faults())
        held = peak_memory(cpu)
        torch.ones(2**26 // 4)
        assert reset_peak_memory(cpu)
        print(peak_memory(cpu) - held)
    """).split()
    before, after, kept = map(int, told)
    assert after < 10 < before
    assert kept < 2**24


@pytest.mark.slow
@linux
def test_the_network_of_the_ffhq_preset_trains_at_256_px_within_24_gb(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=8, side=256)
    few = {"training.batch": 4, "sampling.batch": 1, "sampling.samples": 2, "sampling.steps": 3}
    record = dvbench.run(
        "ffhq", data=str(data), results=tmp_path / "results", train_images=4, microbatch=1, device="cpu", set=few
    )
    assert record.cost.params > 1e8
    assert min(record.cost.train_images_per_level) >= 1  # the whole network too
    assert record.cost.peak_memory_bytes < 24e9
