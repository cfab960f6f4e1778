"""Distances with their floors, the cost of a sample, the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from processes import process

from dvbench.api import Dataset, Detector
from dvbench.builtin.bases import Dct
from dvbench.builtin.unet import UNet
from dvbench.evaluation import TRAINING_PASSES, distances, network_cost, training, training_flops
from dvbench.evaluation import held_out as reference_of
from dvbench.measure.distance import frechet_distance, kernel_distance, moments
from dvbench.measure.features import known
from dvbench.measure.flops import count
from dvbench.picture import contact_sheet


class Means(Detector):
    """The mean of each channel and of each corner pixel."""

    name, version, weights_hash, resize = "means", "1", "none", "none"

    def __call__(self, images):
        x = images.astype(np.float64) / 255
        return np.concatenate([x.mean((1, 2)), x[:, 0, 0]], axis=1)


class Splits(Dataset):
    """A dataset of two given arrays."""

    train = held_out = None
    fingerprint = "none"

    def __init__(self, train, held_out):
        self.train, self.held_out = train, held_out


def measured(samples, train, held_out, seed=0, detector=None):
    detector = detector or Means()
    return distances(detector, samples, [reference_of(detector, {}, Splits(train, held_out), len(samples), seed)])


def pictures(count, seed, shift=0):
    random = np.random.default_rng(seed)
    return (random.integers(0, 200, (count, 4, 4, 3)) + shift).astype(np.uint8)


def test_distances_are_those_of_the_features_and_the_floor_that_of_as_many_real_images():
    samples, train, held_out = pictures(30, 0, 50), pictures(200, 1), pictures(100, 2)
    detector = Means()
    fd, kid = measured(samples, train, held_out)
    said, wanted = detector(samples), detector(held_out)
    assert fd["value"] == frechet_distance(*moments(said), *moments(wanted))
    assert kid["value"] == kernel_distance(said, wanted)
    assert fd["floor"] < fd["value"] / 2
    assert (fd["name"], fd["n"], fd["detector"], fd["resize"]) == ("fd", 30, "means 1", "none")
    assert fd["low"] is fd["high"] is None
    again = measured(samples, train, held_out)[0]
    assert again == fd
    assert measured(samples, train, held_out, seed=1)[0]["floor"] != fd["floor"]


def test_without_as_many_real_images_there_is_no_floor():
    fd, kid = measured(pictures(30, 0), pictures(29, 1), pictures(100, 2))
    assert fd["floor"] is kid["floor"] is None


def test_only_clean_fids_inception_is_called_fid():
    detector = Means()
    detector.name = "inception"
    names = [m["name"] for m in measured(pictures(5, 0), pictures(9, 1), pictures(9, 2), detector=detector)]
    assert names == ["fid", "kid"]


def test_the_reference_is_known_by_its_pixels():
    hashes = {measured(pictures(5, 0), pictures(9, 1), pictures(9, seed))[0]["reference_hash"] for seed in (2, 2, 3)}
    assert len(hashes) == 2


def test_against_the_training_split_the_floor_redraws_it():
    train = pictures(40, 1)
    samples = train[np.random.default_rng(7).integers(0, 40, 30)]
    reference = training(Means(), {}, Splits(train, pictures(9, 2)), 30, 0)
    fd, _ = distances(Means(), samples, [reference])
    assert (fd["split"], fd["reference"]) == ("train", "training split, 40 images")
    assert fd["value"] == frechet_distance(*moments(Means()(samples)), *moments(Means()(train)))
    known = {tuple(row) for row in Means()(train)}
    assert len(reference.real) == 30
    assert {tuple(row) for row in reference.real} < known


def test_features_of_a_split_are_worked_out_once_and_again_when_anything_changes():
    calls = []

    class Counted(Means):
        def __call__(self, images):
            calls.append(len(images))
            return super().__call__(images)

    images = pictures(20, 77)
    first, again = known(Counted(), {"size": 1}, images), known(Counted(), {"size": 1}, images)
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    assert np.array_equal(first[1], Means()(images))
    assert calls == [20]
    changed = images.copy()
    changed[3, 2, 1, 0] ^= 1
    other = Counted()
    other.weights_hash = "other"
    known(Counted(), {"size": 1}, changed)
    known(Counted(), {"size": 2}, images)
    known(other, {"size": 1}, images)
    assert calls == [20] * 4


def test_a_damaged_entry_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path))
    images = pictures(20, 5)
    _, features = known(Means(), {}, images)
    (file,) = tmp_path.rglob("*.npz")
    whole = file.read_bytes()
    for place in range(0, len(whole), 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert np.array_equal(known(Means(), {}, images)[1], features)
    file.write_bytes(whole[: len(whole) // 2])
    assert np.array_equal(known(Means(), {}, images)[1], features)
    assert file.read_bytes() == whole


def test_without_a_writable_cache_it_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "file"))
    images = pictures(20, 5)
    assert np.array_equal(known(Means(), {}, images)[1], Means()(images))
    assert "DVBENCH_CACHE" in caplog.text


def test_a_sample_costs_the_sum_over_its_steps():
    drawn = process(Dct, ladder=(16, 8), turns=(0.5,))
    network = UNet((16, 8), 1, width=8, attention=(4,))
    cost = network_cost(network, drawn, 10, torch.device("cpu"))
    forward = [
        count(network, torch.zeros(1, 1, side, side), torch.ones(1), level=level).flops
        for level, side in enumerate((16, 8))
    ]
    assert cost["forward_flops"] == forward
    assert cost["steps_per_level"] == [5, 5]
    assert cost["sample_flops"] == 5 * forward[0] + 5 * forward[1]
    assert cost["params"] == sum(p.numel() for p in network.parameters())


def test_a_training_image_costs_what_was_seen():
    assert training_flops([100, 10], [1, 3]) == pytest.approx(TRAINING_PASSES * (100 + 30) / 4)
    assert training_flops([100, 10], [0, 0]) is None


@pytest.mark.parametrize(("number", "channels", "side"), [(1, 3, 16), (7, 1, 32), (70, 3, 8), (4, 3, 100)])
def test_the_picture_shows_every_pixel_of_the_first_images(number, channels, side):
    images = np.random.default_rng(0).integers(0, 256, (number, side, side, channels), dtype=np.uint8)
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(images))))
    factor = max(1, 64 // side)
    cell = side * factor + 2
    columns = (sheet.shape[1] - 2) // cell
    for index in range(min(number, 64)):
        row, column = divmod(index, columns)
        top, left = 2 + row * cell, 2 + column * cell
        shown = sheet[top : top + cell - 2 : factor, left : left + cell - 2 : factor]
        assert np.array_equal(shown, np.broadcast_to(images[index], (side, side, 3)))
