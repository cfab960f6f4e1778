"""The comparison of two networks step by step: its errors are those of the pictures, split into components."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from scripts import script

import dvbench
from benchmarks import write_benchmark
from dvbench.errors import UsageError
from dvbench.prediction import to_float

denoising = script("denoising")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the directories of a run of DDPM and one of DVDP."""
    place = tmp_path_factory.mktemp("denoising")
    path = write_benchmark(place)
    for basis in ("identity", "dct"):
        dvbench.run(str(path), basis=basis, results=place / "results")
    return [next((place / "results").glob(f"*/{basis}-*")) for basis in ("identity", "dct")]


def test_the_errors_of_the_components_add_up_to_the_pictures(runs):
    """Of DDPM, which drops nothing, on any ladder: Parseval's identity."""
    ddpm, _, parts = denoising.trained(runs[0])
    dvdp, *_ = denoising.trained(runs[1])
    images = to_float(parts.dataset.held_out, torch.device("cpu"))
    found = denoising.errors(ddpm, images, 3, dvdp.process)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    assert len(images) <= denoising.BATCH, "the noise of one batch is that of all"
    with torch.inference_mode():
        missed = ddpm(ddpm.process.diffuse(images, 3, noise, 0), 3, 0) - images
    torch.testing.assert_close(sum(found), missed.square().mean(dim=(1, 2, 3)))


def test_what_is_dropped_has_no_error_and_only_that(runs):
    record = denoising.measure(*runs)
    turn = round(record["configs"]["dvdp"]["schedule"]["turns"][0] * record["configs"]["dvdp"]["steps"])
    for row in record["rows"]:
        first, *_, last = row["components"]
        assert (first["ratio"] is None) == (row["t"] > turn)
        assert last["ratio"] > 0
        assert min(found["ddpm"] for found in row["components"]) > 0


def test_a_network_beside_itself_is_as_good(runs):
    for row in denoising.measure(runs[0], runs[0])["rows"]:
        assert [(found["ratio"], found["ratio_error"]) for found in row["components"]] == [(1, 0)]


def test_each_step_is_measured_by_itself_whatever_a_network_is_told_when_it_draws(runs, tmp_path):
    path = write_benchmark(tmp_path)
    told = []
    for basis in ("identity", "dct"):
        dvbench.run(str(path), basis=basis, results=tmp_path / "results", set={"sampling.least_t": 0.4})
        told.append(next((tmp_path / "results").glob(f"*/{basis}-*")))
    assert denoising.measure(*told)["rows"] == denoising.measure(*runs)["rows"]


def test_what_is_measured_is_shown(runs, tmp_path):
    out = tmp_path / "made" / "found.json"
    made = CliRunner().invoke(denoising.main, [*map(str, runs), "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert made.output.count("dropped") == made.output.count("| dropped |") > 0
    assert CliRunner().invoke(denoising.main, ["--show", str(out)]).output == made.output


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path):
    with pytest.raises(UsageError, match="in that order"):
        denoising.measure(*reversed(runs))
    with pytest.raises(UsageError, match="no record or no weights"):
        denoising.measure(runs[0], tmp_path)
    told = CliRunner().invoke(denoising.main, [str(runs[0]), str(tmp_path), "--out", str(tmp_path / "found.json")])
    assert told.exit_code == 2
    assert "name the directory of a finished run" in told.output
    assert not list(tmp_path.iterdir())
