"""The speed bench: how it times and compares, and one part of it run for real."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scripts import script

speed = script("speed")


def test_contenders_take_turns_and_the_first_round_does_not_count():
    turns = []

    def contender(name):
        def run():
            turns.append(name)
            return float(len(turns))

        return run

    seconds = speed.race({name: contender(name) for name in "ab"}, 3)
    assert turns == list("abababab")
    assert seconds == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=9), st.floats(1.5, 4))
def test_a_slow_moment_of_the_machine_leaves_the_ratio_alone(moments, factor):
    """Where every round is slower by its own factor, the ratio within the rounds is exact and has no spread."""
    assert speed.ratios([factor * moment for moment in moments], moments) == pytest.approx([factor] * 3)


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=20))
def test_the_spread_is_the_median_between_quartiles(values):
    middle, low, high = speed.spread(values)
    assert middle == pytest.approx(statistics.median(values))
    assert min(values) <= low <= middle <= high <= max(values)


def test_a_part_writes_its_record_and_shows_it_again(tmp_path):
    asked = ["data", "--rounds", "2", "--threads", "1", "--results", str(tmp_path)]
    measured = CliRunner().invoke(speed.main, asked, catch_exceptions=False)
    record = json.loads((tmp_path / "data.json").read_text())
    cache, decoding = record["rows"]
    assert record["command"] == "python benchmarks/speed.py data --rounds 2 --threads 1"
    assert record["environment"]["threads"] == 1
    assert cache["cache_over_it"] == [1.0, 1.0, 1.0]
    assert decoding["cache_over_it"][0] > 1
    shown = CliRunner().invoke(speed.main, [*asked, "--show"], catch_exceptions=False)
    assert shown.output == measured.output
    assert len(shown.output.splitlines()) == 2 + len(record["rows"])


def test_the_saving_in_flops_is_that_of_the_levels(monkeypatch):
    """One small pair timed for real: DDPM is its own measure, and fewer dimensions cost fewer FLOPs."""
    monkeypatch.setattr(speed, "SAVED", {"cpu": ((16, 8),)})
    monkeypatch.setattr(speed, "precisions", lambda _device: ["fp32"])
    ddpm, two, three = speed.saving(2, torch.device("cpu"))
    assert ddpm["sample_flop_ratio"] == ddpm["train_flop_ratio"] == 1
    assert ddpm["sample_speedup"] == ddpm["train_speedup"] == [1, 1, 1]
    assert 1 < two["sample_flop_ratio"] < three["sample_flop_ratio"]
    for row in (ddpm, two, three):
        assert 0 < row["sample_overhead"] < 1
        assert 0 < row["train_overhead"] < 1
