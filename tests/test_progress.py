"""Progress in plain lines and as a bar."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dvbench import progress
from dvbench.progress import Reporter, TimeLeft


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clock):
    told = io.StringIO()
    with Reporter(Console(file=told, width=100)).task("training") as update:
        for second in range(41):
            clock.now = float(second)
            update(second / 40, f"loss {second}")
    assert told.getvalue().splitlines() == [
        "training ...",
        "training  25%  loss 10, 0:30 left",
        "training  50%  loss 20, 0:20 left",
        "training  75%  loss 30, 0:10 left",
        "training 100%  loss 40",
    ]


def test_a_terminal_gets_a_bar_with_the_same_words(clock):
    told = io.StringIO()
    with Reporter(Console(file=told, width=100, force_terminal=True)).task("training") as update:
        update(0.0, "loss 1")
        clock.now = 90.0
        update(0.5, "loss 2")
    assert "training" in told.getvalue()
    assert "50%  loss 2, 1:30 left" in told.getvalue()


def test_the_time_left_of_a_resumed_task_is_judged_by_its_own_pace(clock):
    left = TimeLeft()
    assert left.after(0.8) == ""
    clock.now = 10.0
    assert left.after(0.9) == ", 0:10 left"
    assert left.after(1.0) == ""
