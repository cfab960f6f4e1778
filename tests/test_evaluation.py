"""Distances with their floors, the cost of a sample, the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from processes import process

from dvbench.api import Detector
from dvbench.builtin.bases import Dct
from dvbench.builtin.unet import UNet
from dvbench.evaluation import TRAINING_PASSES, distances, network_cost, training_flops
from dvbench.measure.distance import frechet_distance, kernel_distance, moments
from dvbench.measure.flops import count
from dvbench.picture import contact_sheet


class Means(Detector):
    """The mean of each channel and of each corner pixel."""

    name, version, weights_hash, resize = "means", "1", "none", "none"

    def __call__(self, images):
        x = images.astype(np.float64) / 255
        return np.concatenate([x.mean((1, 2)), x[:, 0, 0]], axis=1)


def pictures(count, seed, shift=0):
    random = np.random.default_rng(seed)
    return (random.integers(0, 200, (count, 4, 4, 3)) + shift).astype(np.uint8)


def test_distances_are_those_of_the_features_and_the_floor_that_of_as_many_real_images():
    samples, train, held_out = pictures(30, 0, 50), pictures(200, 1), pictures(100, 2)
    detector = Means()
    fd, kid = distances(detector, samples, train, held_out, seed=0)
    said, wanted = detector(samples), detector(held_out)
    assert fd["value"] == frechet_distance(*moments(said), *moments(wanted))
    assert kid["value"] == kernel_distance(said, wanted)
    assert fd["floor"] < fd["value"] / 2
    assert (fd["name"], fd["n"], fd["detector"], fd["resize"]) == ("fd", 30, "means 1", "none")
    assert fd["low"] is fd["high"] is None
    again = distances(detector, samples, train, held_out, seed=0)[0]
    assert again == fd
    assert distances(detector, samples, train, held_out, seed=1)[0]["floor"] != fd["floor"]


def test_without_as_many_real_images_there_is_no_floor():
    fd, kid = distances(Means(), pictures(30, 0), pictures(29, 1), pictures(100, 2), seed=0)
    assert fd["floor"] is kid["floor"] is None


def test_only_clean_fids_inception_is_called_fid():
    detector = Means()
    detector.name = "inception"
    names = [m["name"] for m in distances(detector, pictures(5, 0), pictures(9, 1), pictures(9, 2), 0)]
    assert names == ["fid", "kid"]


def test_the_reference_is_known_by_its_pixels():
    hashes = {
        distances(Means(), pictures(5, 0), pictures(9, 1), pictures(9, seed), 0)[0]["reference_hash"]
        for seed in (2, 2, 3)
    }
    assert len(hashes) == 2


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
