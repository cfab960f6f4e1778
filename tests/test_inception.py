import inspect
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import fid
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.utils import ResizeDataset
from PIL import Image
from standin import own, pictures, save_standin, sum_of
from torch import nn

from dvbench.builtin import inception
from dvbench.builtin.inception import Inception
from dvbench.errors import UsageError
from dvbench.measure.distance import frechet_distance, moments


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    return save_standin(tmp_path_factory.mktemp("weights") / "any name.bin")


def write_folder(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{number:03}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 24), (320, 310), (299, 299)])
@pytest.mark.parametrize("channels", [1, 3])
def test_inception_resizes_as_clean_fid_does_pixel_for_pixel(standin, tmp_path, height, width, channels):
    images = pictures(2, height, width, channels)
    theirs = ResizeDataset(write_folder(tmp_path / "images", images), mode="clean")
    ours = own(standin).resized(images)
    assert ours.shape == (2, 3, 299, 299)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, np.stack([image.numpy() for image in theirs]))


@pytest.mark.parametrize("channels", [1, 3])
def test_two_folders_of_pictures_are_as_far_apart_as_clean_fid_says(standin, tmp_path, channels):
    folders = [tmp_path / "first", tmp_path / "second"]
    files = [
        write_folder(folder, pictures(count, 24, 24, channels, seed))
        for seed, (folder, count) in enumerate(zip(folders, (40, 50), strict=True))
    ]
    network = InceptionV3W(str(link(tmp_path, standin)), download=False)
    # Of so few images the covariance of 2048 features is singular, and clean-fid's root of it takes half a minute and
    # keeps five digits: both sides compare the same 16 mixtures of all features.
    mix = np.random.default_rng(0).normal(size=(2048, 16))
    theirs = fid.compute_fid(
        *map(str, folders),
        mode="clean",
        num_workers=0,
        device=torch.device("cpu"),
        use_dataparallel=False,
        verbose=False,
        custom_feat_extractor=lambda batch: network(batch).double() @ torch.from_numpy(mix),
    )
    detector = own(standin)
    read = [np.stack([np.atleast_3d(Image.open(file)) for file in folder]) for folder in files]
    ours = frechet_distance(*(part for images in read for part in moments(detector(images) @ mix)))
    assert ours > 1e-3
    assert ours == pytest.approx(theirs, rel=1e-6)


def link(folder, weights):
    (folder / inception.FILE).symlink_to(weights)
    return folder


def test_inception_does_not_depend_on_the_batch(standin):
    images = pictures(5, 24, 24)
    features = own(standin)(images)
    assert (features.shape, features.dtype) == ((5, 2048), np.float32)
    np.testing.assert_allclose(own(standin, batch=2)(images), features, rtol=1e-5, atol=1e-6)


def test_weights_of_ones_own_are_not_called_inception(standin):
    detector = own(standin)
    assert (detector.name, detector.version) == ("inception-custom", version("clean-fid"))
    assert detector.resize == "clean-fid clean (PIL bicubic to 299 px)"
    assert detector.weights_hash == sum_of(standin)


def refused(**options):
    with pytest.raises(UsageError) as refusal:
        Inception(**options)
    message = str(refusal.value)
    assert "\n" not in message
    return message


MEND = (
    f"download {inception.URL} where there is a network and give the file with --set detector.weights=PATH or "
    "DVBENCH_WEIGHTS=PATH, or use --detector lite0"
)
MEND_OWN = (
    "give a TorchScript file of the interface of clean-fid's with --set detector.weights=PATH and its SHA-256 with "
    "--set detector.sha256=SUM, or leave out both"
)


def test_the_sum_is_that_of_clean_fids_file():
    assert inception.FILE == "inception-2015-12-05.pt"
    assert inception.SHA256.startswith("f58cb9b6ec32")
    assert inspect.signature(Inception).parameters["sha256"].default == inception.SHA256


def test_weights_that_are_missing_or_others_are_refused(standin, tmp_path):
    gone = tmp_path / "no.pt"
    assert refused(weights=str(gone)) == f"there is no Inception weights file {gone}: {MEND}"
    assert refused(weights=str(tmp_path)) == f"there is no Inception weights file {tmp_path}: {MEND}"
    sums = f"its SHA-256 begins with {sum_of(standin)[:12]}, not with f58cb9b6ec32"
    assert refused(weights=str(standin)) == (
        f"{standin} is not the file of Inception weights that is asked for ({sums}): {MEND}"
    )
    assert refused(weights=str(standin), sha256="0" * 64).endswith(f"not with 000000000000): {MEND_OWN}")


def test_weights_of_ones_own_must_be_given():
    assert refused(sha256="0" * 64) == f"weights that are not clean-fid's cannot be downloaded: {MEND_OWN}"


def test_a_file_of_another_kind_is_refused_even_with_its_sum(tmp_path):
    (tmp_path / "text.pt").write_text("not a network")
    (tmp_path / "empty.pt").touch()
    torch.save({"a": torch.zeros(2)}, tmp_path / "dict.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.ReLU()).save(tmp_path / "relu.pt")
    for name in ("text.pt", "empty.pt", "dict.pt", "relu.pt"):
        path = tmp_path / name
        message = refused(weights=str(path), sha256=sum_of(path))
        assert message == f"{path} is not the TorchScript file of Inception weights: {MEND_OWN}"


def test_the_environment_names_weights_and_the_option_comes_first(standin, tmp_path, monkeypatch):
    monkeypatch.setenv("DVBENCH_WEIGHTS", str(standin))
    assert Inception(sha256=sum_of(standin)).weights_hash == sum_of(standin)
    gone = tmp_path / "no.pt"
    assert f"no Inception weights file {gone}" in refused(weights=str(gone), sha256=sum_of(standin))
    assert str(standin) in refused()  # its sum is not clean-fid's


def test_inception_refuses_options_that_cannot_be_used(standin):
    assert "batch" in refused(weights=str(standin), sha256=sum_of(standin), batch=0)
    assert "nowhere" in refused(weights=str(standin), sha256=sum_of(standin), device="nowhere")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Have no weights but those in a cache of one's own, which is empty."""
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DVBENCH_WEIGHTS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(standin, monkeypatch, cache):
    """Serve the stand-in over HTTP as if it were clean-fid's file.

    ``served["body"]`` is what is sent, ``served["cut"]`` breaks it off, ``served["status"]`` refuses.
    """
    served = {"body": standin.read_bytes(), "cut": None, "status": 200, "asked": 0}
    monkeypatch.setattr(inception, "SHA256", sum_of(standin))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            body = served["body"]
            served["asked"] += 1
            self.send_response(served["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served["cut"]])

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:{listener.server_port}/{inception.FILE}")
        yield served
        listener.shutdown()
        thread.join()


def clean_fids():
    """Make the detector with what stands for clean-fid's weights."""
    return Inception(sha256=inception.SHA256)


def cached(cache):
    return [path.relative_to(cache) for path in cache.rglob("*") if path.is_file()]


def test_inception_downloads_its_weights_once(server, standin, cache):
    for _ in range(2):
        detector = clean_fids()
        assert (detector.name, detector.weights_hash) == ("inception", sum_of(standin))
    assert server["asked"] == 1
    assert cached(cache) == [Path("inception", inception.FILE)]


def test_a_damaged_cache_is_downloaded_anew(server, standin, cache):
    file = cache / "inception" / inception.FILE
    clean_fids()
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert clean_fids().weights_hash == sum_of(standin)
    assert server["asked"] == 2
    assert file.read_bytes() == standin.read_bytes()


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"cut": 1000}, "broke off"),
        ({"status": 404}, "cannot be downloaded"),
        ({"body": b"something else"}, "what was downloaded is not the file of Inception weights that is asked for"),
    ],
)
def test_a_broken_download_leaves_nothing_and_can_be_repeated(server, cache, trouble, says):
    good = dict(server)
    server.update(trouble)
    with pytest.raises(UsageError) as refusal:
        clean_fids()
    assert says in str(refusal.value)
    assert "--set detector.weights=PATH or DVBENCH_WEIGHTS=PATH, or use --detector lite0" in str(refusal.value)
    assert cached(cache) == []
    server.update(good)
    clean_fids()


@pytest.mark.parametrize("damaged", [False, True])
def test_no_network_is_one_sentence(monkeypatch, cache, damaged):
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/weights.pt")
    if damaged:
        (cache / "inception").mkdir(parents=True)
        (cache / "inception" / inception.FILE).write_text("half a file")
    before = cached(cache)
    assert refused() == (
        "the Inception weights that FID needs cannot be downloaded: download http://127.0.0.1:9/weights.pt where there "
        "is a network and give the file with --set detector.weights=PATH or DVBENCH_WEIGHTS=PATH, or use "
        "--detector lite0"
    )
    assert cached(cache) == before
