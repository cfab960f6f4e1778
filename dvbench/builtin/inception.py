"""FID's own features: clean-fid's InceptionV3 behind clean-fid's own resizing, mode "clean"."""

from __future__ import annotations

import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from cleanfid.downloads_helper import inception_url
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer

from dvbench.builtin.features import NetworkDetector
from dvbench.errors import UsageError
from dvbench.files import cache_directory, write_whole

if TYPE_CHECKING:
    from dvbench.api import Features, Images

URL: str = inception_url
FILE = URL.rsplit("/", 1)[1]


class Inception(NetworkDetector):
    """The 2048 features that FID is defined by (Heusel et al. 2017; Parmar et al. 2022 for mode "clean").

    ``weights`` is the path of NVIDIA's TorchScript file; without it the file is downloaded once, into $DVBENCH_CACHE or
    the user's cache. ``batch`` images go through at a time, on ``device``. UsageError: weights that cannot be had or
    read, or an option that cannot be used; ValueError: images that are not uint8 N x H x W x 1 or 3.
    """

    name = "inception"
    dimensions = 2048
    resize = "clean-fid clean (PIL bicubic to 299 px)"

    def __init__(self, weights: str | None = None, batch: int = 32, device: str = "cpu") -> None:
        path = _cached() if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise UsageError(f"there is no Inception weights file {path}: {_mend()}")
        super().__init__(_load(path), path, batch, device)
        self.version = version("clean-fid")
        self._resizer = build_resizer("clean")

    def features(self, images: Images) -> torch.Tensor:
        """Map one batch to its features [B, 2048]."""
        said: torch.Tensor = self.network(torch.from_numpy(self.resized(images)).to(self.device))
        return said

    def resized(self, images: Images) -> Features:
        """Resize each image alone, as clean-fid does with a folder's files: float32 [N, 3, 299, 299] in 0..255."""
        coloured = np.broadcast_to(images, (*images.shape[:3], 3))
        return np.stack([self._resizer(image).transpose(2, 0, 1) for image in coloured])


def _load(path: Path) -> InceptionV3W:
    """Load ``path``, whatever its name, into clean-fid's wrapper, which wants a directory and a fixed name."""
    with tempfile.TemporaryDirectory() as directory:
        link = Path(directory, FILE)
        try:
            link.symlink_to(path.resolve())
        except OSError:  # Windows lets only some users make links
            shutil.copyfile(path, link)
        try:
            return InceptionV3W(directory, download=False, resize_inside=False)
        except (RuntimeError, AttributeError, ValueError) as error:
            raise UsageError(f"{path} is not the TorchScript file of Inception weights: {_mend()}") from error


def _cached() -> Path:
    """Return the downloaded weights, downloading them the first time, whole or not at all."""
    path = cache_directory() / "inception" / FILE
    if not path.is_file():
        write_whole(path, _download)
    return path


def _download(file: BinaryIO) -> None:
    try:
        with urllib.request.urlopen(URL, timeout=30) as response:  # noqa: S310 - a fixed https address
            shutil.copyfileobj(response, file)
            size = response.headers["Content-Length"]
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the answer, with an open socket
        raise UsageError(f"the Inception weights that FID needs cannot be downloaded: {_mend()}") from error
    if size is not None and file.tell() != int(size):
        raise UsageError(f"the download of the Inception weights that FID needs broke off: {_mend()}")


def _mend() -> str:
    return f"download {URL} and give the file with --set detector.weights=PATH, or use --detector lite0"
