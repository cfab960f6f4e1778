"""Copies are found, images that were never trained on are not taken for copies."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from dvbench_lite2.command import memorised, sentence
from dvbench_lite2.memorised import Finished, Memorised, mann_whitney, nearest
from scipy.stats import mannwhitneyu

import dvbench
from dvbench.errors import UsageError


def draw(count, seed, dimensions=5):
    return np.random.default_rng(seed).normal(size=(count, dimensions))


def test_the_nearest_is_found_across_blocks():
    ours, among = draw(600, 0), draw(50, 1)
    among[7] = ours[300]
    distances = np.linalg.norm(ours[:, None] - among, axis=2)
    found, indices = nearest(ours.astype(np.float32), among.astype(np.float32))
    np.testing.assert_allclose(found, distances.min(1), atol=1e-6)
    np.testing.assert_array_equal(indices, distances.argmin(1))
    assert (indices[300], found[300]) == (7, pytest.approx(0, abs=1e-6))


def test_z_is_mann_whitneys():
    ours, theirs = draw(40, 0, 1).ravel(), draw(70, 1, 1).ravel() + 0.3
    scipys = mannwhitneyu(ours, theirs, alternative="less", method="asymptotic", use_continuity=False)
    z = mann_whitney(ours, theirs)
    assert z < 0
    assert math.erfc(-z / 2**0.5) / 2 == pytest.approx(scipys.pvalue, rel=1e-9)
    assert mann_whitney(theirs, ours) == pytest.approx(-z)
    assert mann_whitney(np.zeros(5), np.zeros(9)) == 0


@pytest.mark.parametrize("held_out", [19, 38, 39, 60])
def test_of_images_drawn_like_the_held_out_ones_at_most_one_in_twenty_is_near(held_out):
    """By exchangeability exactly k / (n + 1); 4 standard errors of 2000 draws, a sample each, are 0.02."""
    train = draw(10, 0)
    near = [
        Memorised.of(images[:1], images[1:], train).near for images in (draw(held_out + 1, 1 + s) for s in range(2000))
    ]
    assert np.mean(near) == pytest.approx((held_out + 1) // 20 / (held_out + 1), abs=0.02)


def test_copies_are_near_and_the_pair_is_named():
    train, held_out = draw(100, 0), draw(200, 1)
    found = Memorised.of(train[40:60] + 1e-3 * draw(20, 2), held_out, train)
    assert found.near == 1
    assert found.z < -5
    assert found.median < 0.01 < found.threshold < found.median_held_out
    sample, image, distance = found.nearest
    assert image == sample + 40
    assert distance < 0.01


def test_too_few_held_out_images_are_refused():
    with pytest.raises(UsageError, match=r"18 held-out images do not show .*: 19 or more are needed"):
        Memorised.of(draw(5, 0), draw(18, 1), draw(9, 2))


def call(*arguments):
    result = CliRunner().invoke(memorised, [*map(str, arguments)], catch_exceptions=False)
    return result.stdout


def other(run, place, samples):
    """Copy a run, with other samples."""
    shutil.copytree(run, place / run.name)
    np.savez_compressed(place / run.name / "samples.npz", samples=samples)
    return place / run.name


def test_a_network_that_knows_only_the_training_images_has_memorised_them(memorising):
    found = json.loads(call(memorising, "--json"))
    assert found["near"] > 0.9
    assert found["z"] < -5
    assert (found["run_id"], found["samples"], found["held_out"], found["train"]) == (memorising.name, 16, 80, 320)
    assert found["detector"]["name"] == "lite2"
    faces = dvbench.create("dataset", "faces", size=32)
    sample, image, _ = found["nearest"]
    drawn = np.load(memorising / "samples.npz")["samples"][sample]
    assert np.abs(drawn.astype(int) - faces.train[image]).mean() < 10


def test_images_that_were_never_trained_on_are_not_copies(memorising, tmp_path):
    unseen = dvbench.create("dataset", "faces", size=32).held_out
    found = json.loads(call(other(memorising, tmp_path, unseen), "--json"))
    assert found["near"] < 0.05
    assert found["z"] == pytest.approx(0, abs=1e-3)
    assert found["median"] == pytest.approx(found["median_held_out"], rel=1e-4)


def test_what_is_found_can_be_read():
    said = sentence(Memorised(16, 80, 320, 1.5, 4.25, 2.0, 0.75, -6.04, (3, 14, 0.125)))
    assert said.splitlines() == [
        "16 samples and 80 held-out images beside 320 training images",
        "  median distance to the nearest training image: samples 1.5, held-out images 4.25",
        "  nearer than 2, as the nearest 5% of held-out images are: 75.0% of samples",
        "  Mann-Whitney z: -6.0 (below -3: nearer than chance brings them)",
        "  nearest: sample 3 and training image 14, at 0.125 (both counted from 0)",
    ]


def refused(path):
    with pytest.raises(UsageError) as refusal:
        Finished.read(path)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_a_directory_without_a_finished_run_is_refused(memorising, tmp_path):
    assert "there is no run in" in refused(tmp_path)
    shutil.copy(memorising / "record.json", tmp_path)
    assert "samples.npz is missing or damaged" in refused(tmp_path)
    text = (memorising / "record.json").read_text()
    (tmp_path / "record.json").write_text(text.replace('"finished",', '"interrupted",', 1))
    assert "is interrupted, so it has no samples" in refused(tmp_path)
    (tmp_path / "record.json").write_text(text[:100])
    assert "record.json" in refused(tmp_path)


@pytest.mark.parametrize("damage", ["cut off", "another key", "pickled", "floats"])
def test_damaged_samples_are_refused(memorising, tmp_path, damage):
    run = other(memorising, tmp_path, np.zeros((2, 32, 32, 1), float if damage == "floats" else np.uint8))
    file = run / "samples.npz"
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "another key":
        np.savez(file, others=np.zeros(3))
    elif damage == "pickled":
        np.savez(file, samples=np.array([None]))
    assert "samples.npz" in refused(run)


def test_samples_of_another_size_are_refused(memorising, tmp_path):
    assert "size of the run's data" in refused(other(memorising, tmp_path, np.zeros((2, 16, 16, 1), np.uint8)))


def test_data_that_changed_since_the_run_are_refused(memorising, tmp_path):
    run = other(memorising, tmp_path, np.zeros((2, 32, 32, 1), np.uint8))
    record = json.loads((run / "record.json").read_text())
    record["config"]["dataset"]["seed"] = 1
    (run / "record.json").write_text(json.dumps(record))
    assert "are not those that" in refused(run)
    del record["config"]["ladder"]
    (run / "record.json").write_text(json.dumps(record))
    assert "of another dvbench" in refused(run)


def test_the_program_has_the_command_and_tells_errors_in_one_line(tmp_path):
    program = [sys.executable, "-m", "dvbench", "memorised", str(tmp_path / "nowhere")]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: there is no run in ")
    assert ended.stderr.count("\n") == 1


def test_help_imports_neither_torch_nor_numpy():
    heavy = (
        "import sys, click, dvbench_lite2; group = click.Group(); dvbench_lite2.dvbench_commands(group); "
        "assert 'memorised' in group.commands; print({'torch', 'numpy'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True).strip() == "set()"
