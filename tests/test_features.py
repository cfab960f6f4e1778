"""Statistics of real images: worked out once, again when anything changes, never taken from a damaged entry."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dvbench.api import Detector
from dvbench.builtin.folder import Folder
from dvbench.measure.distance import moments
from dvbench.measure.features import statistics


class Counted(Detector):
    """The mean of each channel and of each corner pixel, in single precision; it counts the images that it sees."""

    name, version, weights_hash, resize = "means", "1", "none", "none"

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        x = images.astype(np.float32) / 255
        return np.concatenate([x.mean((1, 2)), x[:, 0, 0]], axis=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(count=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def known(detector, options=None, images=None, *, fingerprint="f" * 64, split="held-out", indices=None):
    images = pictures() if images is None else images
    return statistics(detector, options or {}, images, fingerprint=fingerprint, split=split, indices=indices)


def same(one, other):
    assert one.sha256 == other.sha256
    for name in ("features", "mean", "covariance"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_they_are_the_features_and_their_moments_the_first_time_and_from_the_cache():
    detector = Counted()
    first, again = known(detector), known(detector)
    assert detector.seen == [20]
    features = Counted()(pictures())
    mean, covariance = moments(features)
    np.testing.assert_array_equal(first.features, features)
    np.testing.assert_array_equal(first.mean, mean)
    np.testing.assert_array_equal(first.covariance, covariance)
    assert first.mean.dtype == first.covariance.dtype == np.float64
    same(first, again)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "e" * 64},
        {"split": "train"},
        {"options": {"size": 2}},
        {"indices": np.arange(20)},
        {"indices": np.arange(19)},
        {"indices": np.arange(20)[::-1]},
    ],
    ids=str,
)
def test_another_split_choice_or_option_is_another_entry(change, cache):
    detector = Counted()
    known(detector)
    known(detector, **change)
    known(detector, **change)
    known(detector)
    assert len(detector.seen) == len(list(cache.rglob("*.npz"))) == 2


@pytest.mark.parametrize("attribute", ["name", "version", "weights_hash", "resize"])
def test_another_detector_is_another_entry(attribute, cache):
    detector, other = Counted(), Counted()
    setattr(other, attribute, "other")
    for each in (detector, other, detector, other):
        known(each)
    assert detector.seen == other.seen == [20]
    assert len(list(cache.rglob("*.npz"))) == 2


def test_chosen_images_are_those_of_their_indices_in_order():
    indices = np.array([7, 3, 3, 11])
    chosen = known(Counted(), indices=indices)
    np.testing.assert_array_equal(chosen.features, Counted()(pictures()[indices]))
    assert chosen.sha256 == known(Counted(), images=pictures()[indices]).sha256


def test_other_pixels_under_the_same_fingerprint_are_never_taken_for_these():
    images = pictures()
    before = known(Counted(), images=images)
    images[3, 2, 1, 0] ^= 1
    after = known(Counted(), images=images)
    np.testing.assert_array_equal(after.features, Counted()(images))
    assert after.sha256 != before.sha256


def test_a_changed_file_makes_them_anew(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()

    def draw(number, seed):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(
            folder / f"{number}.png"
        )

    def held_out(detector):
        data = Folder(8, data=str(folder), held_out_fraction=0.5)
        return known(detector, images=data.held_out, fingerprint=data.fingerprint)

    for number in range(8):
        draw(number, number)
    detector = Counted()
    before = held_out(detector)
    same(held_out(detector), before)
    assert detector.seen == [4]
    for number in range(8):
        draw(number, 100 + number)
    assert held_out(detector).sha256 != before.sha256
    assert detector.seen == [4, 4]


def test_an_entry_damaged_in_any_place_is_made_again(cache):
    images = pictures(5)
    good = known(Counted(), images=images)
    (file,) = cache.rglob("*.npz")
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        same(known(Counted(), images=images), good)


def test_half_an_entry_is_made_whole_again(cache):
    good = known(Counted())
    (file,) = cache.rglob("*.npz")
    whole = file.read_bytes()
    for rest in (whole[: len(whole) // 2], b"", b"no entry"):
        file.write_bytes(rest)
        detector = Counted()
        same(known(detector), good)
        assert detector.seen == [20]
        assert len(file.read_bytes()) == len(whole)


def test_without_a_writable_cache_it_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(known(Counted()).features, Counted()(pictures()))
    assert "DVBENCH_CACHE" in caplog.text


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="at least two rows"):
        known(Counted(), images=pictures(1))
