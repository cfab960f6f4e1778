"""The exchange of networks below the first turning point: what is not exchanged is what the runs themselves drew."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from scripts import script

import dvbench
from benchmarks import write_benchmark
from dvbench.errors import UsageError

exchange = script("exchange")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the directories of a run of DDPM, one of DVDP without attenuation and one with it."""
    place = tmp_path_factory.mktemp("exchange")
    path = write_benchmark(place, sampling__steps=10)
    for basis, attenuation in (("identity", 1), ("dct", 1), ("dct", 0.3)):
        name = f"{basis}{attenuation}"
        dvdp = {} if basis == "identity" else {"attenuation": attenuation}
        dvbench.run(str(path), basis=basis, results=place / name, **dvdp)
    return [next((place / name).glob("*/*")) for name in ("identity1", "dct1", "dct0.3")]


def test_networks_that_are_not_exchanged_draw_what_they_drew(runs):
    """The first and the last row have the figures of the two runs' own records, to the bit."""
    rows = exchange.measure(*runs[:2])["rows"]
    for row, run in ((rows[0], runs[0]), (rows[-1], runs[1])):
        for metric in json.loads((run / "record.json").read_text())["metrics"]:
            assert row["metrics"][metric["name"]]["value"] == metric["value"]
    assert len({row["metrics"]["lsd"]["value"] for row in rows[:-1]}) == len(rows) - 1


def test_each_network_is_asked_on_its_side_of_the_turning_point(runs):
    (ddpm, _, parts), (dvdp, *_) = map(exchange.trained, runs[:2])
    turn = dvdp.process.turns[0]
    asked = []
    for name, denoiser in (("DDPM", ddpm), ("DVDP", dvdp)):
        denoiser.network.register_forward_pre_hook(
            lambda _module, said, name=name: asked.append((name, round(float(said[1][0]) * ddpm.process.T), said[2]))
        )
    for above, below, last, denoiser in exchange.ways(ddpm, dvdp):
        asked.clear()
        exchange.drawn(denoiser, parts)
        end = denoiser.process.T // 50
        assert {name for name, t, _ in asked if t > turn} == {above}
        assert {name for name, t, _ in asked if end < t <= turn} == {below}
        assert {name for name, t, _ in asked if t <= end} <= {last}
        assert all(level == 0 for name, _, level in asked if name == "DDPM")


def test_what_is_measured_is_shown(runs, tmp_path):
    out = tmp_path / "made" / "found.json"
    made = CliRunner().invoke(exchange.main, [*map(str, runs[:2]), "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert made.output.splitlines()[0].startswith("| above 0.5 T | up to 0.5 T |")
    assert len(made.output.splitlines()) == 7
    assert CliRunner().invoke(exchange.main, ["--show", str(out)]).output == made.output


def test_runs_that_cannot_be_exchanged_are_refused(runs):
    with pytest.raises(UsageError, match="in that order"):
        exchange.measure(runs[1], runs[0])
    with pytest.raises(UsageError, match="--attenuation 1"):
        exchange.measure(runs[0], runs[2])


def test_a_metric_that_was_not_measured_is_called_so():
    assert exchange.figure(None) == exchange.figure({"value": None}) == "not measured"
    assert exchange.figure({"value": 812.34, "low": None, "high": None}) == "812.3"
    assert exchange.figure({"value": 812.34, "low": 800.0, "high": 830.0}) == "812.3 ±15"
