import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dvbench.measure.clock import LevelClock, NetworkClock, peak_memory, reset_peak_memory


class Hands:
    """Time that moves when it is told to."""

    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=30))
def test_each_level_is_charged_what_passed_while_it_ran(visits):
    hands = Hands()
    clock = LevelClock(now=hands)
    owed = {}
    for level, seconds in visits:
        clock.enter(level)
        hands.at += seconds
        owed[level] = owed.get(level, 0) + seconds
    clock.stop()
    assert clock.seconds == owed


def test_time_outside_is_nobodys():
    hands = Hands()
    clock = LevelClock(now=hands)
    hands.at += 5
    clock.enter(1)
    hands.at += 2
    clock.stop()
    hands.at += 7
    clock.stop()
    clock.enter(1)
    hands.at += 3
    clock.stop()
    assert clock.seconds == {1: 5.0}


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_device_is_waited_for_only_when_the_level_changes(monkeypatch, kind):
    hands = Hands()

    def wait(*device):
        waits.append(device)
        hands.at += 10  # work that was still queued belongs to the level that queued it

    waits = []
    monkeypatch.setattr(getattr(torch, kind), "synchronize", wait)
    clock = LevelClock(torch.device(kind), now=hands)
    for level in (2, 2, 2, 0, 0):
        clock.enter(level)
        hands.at += 1
    clock.stop()
    assert len(waits) == 3
    assert clock.seconds == {2: 13.0, 0: 12.0}


def test_a_cpu_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("waited"))
    clock = LevelClock(torch.device("cpu"))
    clock.enter(0)
    clock.stop()
    assert sum(clock.seconds.values()) >= 0


def test_the_networks_seconds_are_counted_apart():
    hands = Hands()
    clock = LevelClock(now=hands)
    clock.enter(0)
    for seconds in (3, 4):
        with clock.network.running():
            hands.at += seconds
        hands.at += 1
    clock.stop()
    assert (clock.seconds, clock.network.take(), clock.network.take()) == ({0: 9.0}, 7.0, 0.0)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_marks_the_times_itself(monkeypatch, kind):
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            hands.at += 1  # in milliseconds, as the device's are
            self.at = hands.at

        def elapsed_time(self, other):
            return other.at - self.at

    hands = Hands()
    monkeypatch.setattr(getattr(torch, kind), "Event", Event)
    monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *_: pytest.fail("waited"))
    clock = NetworkClock(torch.device(kind))
    for milliseconds in (100, 200):
        with clock.running():
            hands.at += milliseconds
    assert clock.take() == pytest.approx(0.302)


def test_the_default_time_is_the_walls():
    clock = LevelClock()
    clock.enter(0)
    time.sleep(0.05)
    clock.stop()
    assert 0.04 < sum(clock.seconds.values()) < 5


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process reset its peak")
def test_peak_memory_of_the_cpu_is_what_this_process_held_at_most_since_the_reset():
    cpu = torch.device("cpu")
    held = np.ones(2**24)  # 128 MiB, written, so resident
    before = peak_memory(cpu)
    assert before >= held.nbytes
    del held
    assert reset_peak_memory(cpu)
    after = peak_memory(cpu)
    assert after < before - 2**26
    held = np.ones(2**24)
    assert peak_memory(cpu) > after + 2**26
    assert held[0] == 1


def test_peak_memory_of_cuda_is_what_was_allocated_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {torch.device("cuda", 1): 12345}.__getitem__)
    assert peak_memory(torch.device("cuda", 1)) == 12345


def test_peak_memory_is_not_told_where_the_system_does_not_count_it(monkeypatch):
    def missing(*_args, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "write_text", missing)
    monkeypatch.setattr(Path, "read_text", missing)
    assert not reset_peak_memory(torch.device("cpu"))
    assert peak_memory(torch.device("cpu")) is None
