"""Distances with their floors, the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dvbench.api import Dataset, Detector
from dvbench.evaluation import Judge
from dvbench.measure.distance import frechet_distance, moments
from dvbench.measure.kernel import kernel_distance
from dvbench.picture import contact_sheet
from dvbench.randomness import seed_of


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


def judge(train, held_out, seed=0, detector=None, *, redraws=False):
    return Judge(detector or Means(), {}, Splits(train, held_out), seed, redraws=redraws)


def measured(samples, *splits, **options):
    return {(metric["name"], metric["split"]): metric for metric in judge(*splits, **options)(samples)}


def pictures(count, seed, shift=0):
    random = np.random.default_rng(seed)
    return (random.integers(0, 200, (count, 4, 4, 3)) + shift).astype(np.uint8)


def fd(*arguments, **options):
    return measured(*arguments, **options)["fd", "held-out"]


def test_metrics_are_those_of_the_features_and_the_floor_that_of_as_many_real_images():
    samples, train, held_out = pictures(60, 0, 50), pictures(200, 1), pictures(100, 2)
    found = measured(samples, train, held_out)
    assert [name for name, _ in found] == ["fd", "fd_inf", "kid", "precision", "recall", "lsd"]
    said, wanted = Means()(samples), Means()(held_out)
    one = found["fd", "held-out"]
    assert one["value"] == pytest.approx(frechet_distance(*moments(said), *moments(wanted)), rel=1e-9)
    assert one["low"] < one["value"] < one["high"]
    assert found["kid", "held-out"]["value"] == pytest.approx(kernel_distance(said, wanted), rel=1e-9)
    assert one["floor"] < one["value"] / 2
    assert (one["n"], one["detector"], one["resize"]) == (60, "means 1", "none")
    assert one["interval"] == "delete-group jackknife, 24 groups"
    assert fd(samples, train, held_out) == one
    assert fd(samples, train, held_out, seed=1)["floor"] != one["floor"]


def test_a_metric_says_of_itself_what_it_is_of_and_which_way_is_better():
    found = {name: m for (name, _), m in measured(pictures(60, 0, 50), pictures(200, 1), pictures(100, 2)).items()}
    assert {name for name, metric in found.items() if metric["higher_is_better"]} == {"precision", "recall"}
    lsd = found["lsd"]
    assert (lsd["detector"], lsd["detector_hash"], lsd["resize"]) == (None, None, None)
    assert len(lsd["frequencies"]) == len(lsd["power"]) == len(lsd["reference_power"]) == 4
    assert found["recall"]["interval"] != found["precision"]["interval"] != found["kid"]["interval"]


def test_without_as_many_real_images_there_is_no_floor():
    assert {metric["floor"] for metric in measured(pictures(30, 0), pictures(29, 1), pictures(100, 2)).values()} == {
        None
    }


def test_of_few_samples_there_is_what_can_be_had_and_no_interval():
    found = measured(pictures(3, 0), pictures(9, 1), pictures(100, 2))
    assert {name for name, _ in found} == {"fd", "kid", "lsd"}
    assert {metric["low"] for metric in found.values()} == {metric["interval"] for metric in found.values()} == {None}


def test_only_clean_fids_inception_is_called_fid():
    detector = Means()
    detector.name = "inception"
    found = measured(pictures(60, 0), pictures(90, 1), pictures(90, 2), detector=detector)
    assert [name for name, _ in found][:2] == ["fid", "fid_inf"]


def test_precision_and_recall_count_the_samples_that_they_take():
    found = measured(pictures(60, 0), pictures(90, 1), pictures(40, 2))
    assert {name: metric["n"] for (name, _), metric in found.items() if metric["n"] != 60} == {
        "precision": 40,
        "recall": 40,
    }


def test_the_reference_is_known_by_its_pixels():
    hashes = {fd(pictures(5, 0), pictures(9, 1), pictures(9, seed))["reference_hash"] for seed in (2, 2, 3)}
    assert len(hashes) == 2


def test_against_the_training_split_the_floor_redraws_it():
    train = pictures(40, 1)
    chosen = np.random.default_rng(seed_of(0, "redrawn")).choice(40, 30)
    found = measured(train[chosen], train, pictures(9, 2), redraws=True)
    one = found["fd", "train"]
    assert {split for _, split in found} == {"held-out", "train"}
    assert one["reference"] == "training split, 40 images"
    expected = frechet_distance(*moments(Means()(train[chosen])), *moments(Means()(train)))
    assert one["value"] == one["floor"] == pytest.approx(expected, rel=1e-9)


def test_what_samples_are_held_against_is_worked_out_once():
    calls = []

    class Counted(Means):
        def __call__(self, images):
            calls.append(len(images))
            return super().__call__(images)

    held = judge(pictures(200, 11), pictures(100, 12), detector=Counted())
    held(pictures(30, 0))
    assert sorted(calls) == [30, 30, 100]
    held(pictures(30, 1))
    assert sorted(calls) == [30, 30, 30, 100]


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
