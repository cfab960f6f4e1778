"""Cats: the same for everyone, painted in the right order, never twice, and safe in their cache."""

from __future__ import annotations

import hashlib
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dvbench.builtin import cats
from dvbench.builtin.cats import Art, Cats, area_weights, combinations, part_files
from dvbench.errors import UsageError

FEW = {"train_images": 64, "held_out_images": 16}


SHRUNK = {}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep pictures away from the user's own cache, and shrink the art only once a size: that is most of the time."""
    shrink = Art.shrunk

    def once(files, size):
        key = (size, *map(tuple, files))
        if key not in SHRUNK:
            SHRUNK[key] = shrink(files, size)
        return SHRUNK[key]

    monkeypatch.setattr(Art, "shrunk", once)
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def marks(pictures):
    return [picture.tobytes() for picture in pictures]


@pytest.mark.parametrize("size", [16, 33, 64])
def test_both_splits_have_their_shapes_and_share_no_picture(size):
    data = Cats(size, **FEW)
    assert data.train.shape == (64, size, size, 3)
    assert data.held_out.shape == (16, size, size, 3)
    assert data.train.dtype == data.held_out.dtype == np.uint8
    assert len(set(marks(data.train)) | set(marks(data.held_out))) == 80
    assert data.train.std() > 20  # not flat
    for split in (data.train, data.held_out):
        with pytest.raises(ValueError, match="read-only"):
            split[0] = 0


def test_the_same_seed_gives_the_same_bytes_without_the_cache(cache, monkeypatch):
    first = Cats(16, **FEW, seed=3)
    bytes_, fingerprint = marks(first.train) + marks(first.held_out), first.fingerprint
    monkeypatch.setenv("DVBENCH_CACHE", str(cache.parent / "another"))
    again = Cats(16, **FEW, seed=3)
    assert marks(again.train) + marks(again.held_out) == bytes_
    assert again.fingerprint == fingerprint
    other = Cats(16, **FEW, seed=4)
    assert marks(other.train) != marks(first.train)
    assert other.fingerprint != fingerprint


def test_the_bytes_are_those_that_every_machine_gets():
    # Exact sums and single float32 operations leave no room for rounding, so this holds on any platform; it changes
    # only with the art or on purpose (then raise FORMAT).
    data = Cats(16, **FEW)
    assert hashlib.sha256(data.train.tobytes()).hexdigest() == (
        "5bf0c30264db5b1317114dbe17e6da6ffdab61a9fbba28d1ebcad190b565356a"
    )


def test_the_order_of_the_directory_does_not_matter(monkeypatch):
    files = part_files()
    glob = type(files[0][0]).glob
    monkeypatch.setattr(type(files[0][0]), "glob", lambda self, pattern: reversed(list(glob(self, pattern))))
    assert part_files() == files


def test_layers_are_painted_in_the_order_that_their_folders_name():
    files = part_files()
    assert [layer[0].parent.name.partition("#")[2][2:] for layer in files] == [
        *("", "body", "fur", "eyes", "mouth", "accessories")
    ]
    assert [int(file.name[:3]) for file in files[5]] == list(range(16))


def test_there_are_about_4_7_million():
    files = part_files()
    assert combinations(files) == math.prod((13, 15, 10, 15, 10, 16)) == 4_680_000
    assert [len(list(layer[0].parent.iterdir())) for layer in files] == [len(layer) for layer in files]
    assert 4.6e6 < combinations(files) < 4.8e6


def slow_cat(files, size):
    """Paint at full size with Pillow, back to front, and shrink the finished picture."""
    image = Image.open(files[0]).convert("RGB").resize((1024, 1024), Image.Resampling.BOX).convert("RGBA")
    for file in files[1:]:
        image = Image.alpha_composite(image, Image.open(file).convert("RGBA"))
    return np.asarray(image.convert("RGB").reduce(1024 // size), np.float64)


def test_a_cat_looks_as_if_painted_at_full_size():
    files, choice = part_files(), (1, 4, 4, 6, 4, 0)  # a cat whose accessory overlaps its mouth
    painted = Art.shrunk(files, 32).compose([np.array([index]) for index in choice])[0]
    parts = [layer[index] for layer, index in zip(files, choice, strict=True)]
    # Where two parts' edges fall within one pixel, the mean of a product is not the product of the means: a few edge
    # pixels differ by some 20 of 255, the average by about 0.1. A wrong order costs several times more.
    difference = np.abs(painted - slow_cat(parts, 32))
    assert difference.mean() < 0.2
    assert difference.max() < 32
    scene, body, fur, eyes, mouth, accessory = parts
    for wrong in ([scene, fur, body, eyes, mouth, accessory], [scene, body, fur, eyes, accessory, mouth]):
        assert np.abs(painted - slow_cat(wrong, 32)).mean() > 0.3


@given(st.integers(1, 300), st.integers(1, 60))
def test_shrinking_counts_every_pixel_equally(source, target):
    weights = area_weights(source, target)
    assert (weights >= 0).all()
    assert (weights.sum(axis=0) == target).all()  # each source pixel is spent wholly
    assert (weights.sum(axis=1) == source).all()  # each target pixel is covered wholly


def test_a_background_shrinks_to_the_means_of_its_areas():
    files = part_files()
    image = np.asarray(Image.open(files[0][0]).convert("RGB"), np.float64)  # 300 px: 20 a pixel at 15, by hand
    assert image.shape == (300, 300, 3)
    means = image.reshape(20, 15, 20, 15, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(Art.shrunk([files[0]], 20).backgrounds[0], means, rtol=1e-6)


def few_files(monkeypatch):
    """Leave 2 x 1 x 1 x 1 x 1 x 2 files, and one of the backgrounds twice: 6 combinations, 4 pictures."""
    scenes, *layers, accessories = part_files()
    files = [[*scenes[:2], scenes[0]], *(layer[:1] for layer in layers), accessories[:2]]
    monkeypatch.setattr(cats, "part_files", lambda: files)
    return files


def test_cats_that_look_the_same_are_drawn_again(monkeypatch):
    assert combinations(few_files(monkeypatch)) == 6
    data = Cats(16, train_images=3, held_out_images=1)
    assert len(set(marks(data.train) + marks(data.held_out))) == 4


def test_more_cats_than_there_are_is_one_sentence(monkeypatch):
    few_files(monkeypatch)
    with pytest.raises(UsageError, match=r"^5 cats were asked for and only 4 look different at 16 px: lower [^.]*$"):
        _ = Cats(16, train_images=4, held_out_images=1).train
    with pytest.raises(UsageError, match=r"^7 cats were asked for and there are 6: lower [^.]*$"):
        _ = Cats(16, train_images=6, held_out_images=1).train


@pytest.mark.parametrize(
    "options", [{"size": 15}, {"size": 257}, {"size": 32, "train_images": 0}, {"size": 32, "seed": -1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"^[^.]*must be[^.]*$"):
        Cats(**options)


def test_missing_art_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cats, "package_directory", lambda _: tmp_path)
    with pytest.raises(UsageError, match="lacks the cats' art: reinstall"):
        _ = Cats(16).train


def entry(cache):
    (array,) = cache.glob("*.npy")
    return array


def test_the_cache_is_used_and_memory_mapped(monkeypatch):
    first = Cats(16, **FEW)
    assert isinstance(first.train, np.memmap)
    monkeypatch.setattr(Cats, "_draw", lambda *_: pytest.fail("made again"))
    assert Cats(16, **FEW).fingerprint == first.fingerprint
    with pytest.raises(pytest.fail.Exception):
        _ = Cats(16, **FEW, seed=1).train


def truncate(array):
    array.write_bytes(array.read_bytes()[:-1])


def empty(array):
    array.write_bytes(b"")


def flip(where):
    def damage(array):
        data = bytearray(array.read_bytes())
        data[where] ^= 1
        array.write_bytes(data)

    return damage


def forget(array):
    array.with_suffix(".json").unlink()


def cut_note(array):
    note = array.with_suffix(".json")
    note.write_text(note.read_text()[:-9])


def odd_note(array):
    array.with_suffix(".json").write_text("[]")


@pytest.mark.parametrize(
    "damage", [truncate, empty, flip(0), flip(40), flip(-1), flip(5000), forget, cut_note, odd_note]
)
def test_a_damaged_cache_is_made_again(cache, damage):
    want = marks(Cats(16, **FEW).train)
    array = entry(cache)
    whole, note = array.read_bytes(), array.with_suffix(".json").read_bytes()
    damage(array)
    again = Cats(16, **FEW)
    assert marks(again.train) == want
    assert isinstance(again.train, np.memmap)
    assert entry(cache).read_bytes() == whole
    assert array.with_suffix(".json").read_bytes() == note


def test_the_note_beside_the_array_tells_its_hash(cache):
    data = Cats(16, **FEW)
    pixels = data.train.tobytes() + data.held_out.tobytes()
    note = json.loads(entry(cache).with_suffix(".json").read_text())
    assert note["sha256"] == hashlib.sha256(pixels).hexdigest()
    assert note["shape"] == [80, 16, 16, 3]
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]  # no temporary file stays


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    want = Cats(16, **FEW)
    fingerprint = want.fingerprint
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "file" / "cache"))
    data = Cats(16, **FEW)
    assert data.fingerprint == fingerprint
    assert marks(data.held_out) == marks(want.held_out)
    assert not data.train.flags.writeable
    assert "going on without a cache" in caplog.text


def test_twelve_thousand_take_seconds():
    SHRUNK.clear()  # reading the art counts
    start = time.perf_counter()
    data = Cats(32)
    assert (len(data.train), len(data.held_out)) == (10_000, 2_000)
    # 2 s on two idle cores; the bound is for a machine that is busy with other things.
    assert time.perf_counter() - start < 30
    assert not set(marks(data.train)) & set(marks(data.held_out))


def test_the_artists_are_credited():
    for words in ("David Revoy", "CC-BY-4.0", "peppercarrot.com", "Zikri Kader", "robohash", "shrunk and composited"):
        assert words in Cats.credit
        assert words in " ".join(Cats.__doc__.split())
