"""FID's own features: clean-fid's InceptionV3 behind clean-fid's own resizing, mode "clean"."""

from __future__ import annotations

import hashlib
import http.client
import os
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
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # of the file at URL


class Inception(NetworkDetector):
    """The 2048 features that FID is defined by (Heusel et al. 2017; Parmar et al. 2022 for mode "clean").

    ``weights`` is the path of NVIDIA's TorchScript file, which $DVBENCH_WEIGHTS can name too; without either the file
    is downloaded once, into $DVBENCH_CACHE or the user's cache. Wherever it comes from, its SHA-256 must be ``sha256``.
    Another sum admits other weights of the same interface; they are called inception-custom, since their distance is
    not FID. ``batch`` images go through at a time, on ``device``. UsageError: weights that cannot be had or read or are
    others, or an option that cannot be used; ValueError: images that are not uint8 N x H x W x 1 or 3.
    """

    dimensions = 2048
    resize = "clean-fid clean (PIL bicubic to 299 px)"

    def __init__(self, weights: str | None = None, sha256: str = SHA256, batch: int = 32, device: str = "cpu") -> None:
        path = _weights(weights, sha256)
        super().__init__(_load(path, sha256), path, batch, device)
        self.name = "inception" if sha256 == SHA256 else "inception-custom"
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


def _load(path: Path, sha256: str) -> InceptionV3W:
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
            raise UsageError(f"{path} is not the TorchScript file of Inception weights: {_mend(sha256)}") from error


def _weights(given: str | None, sha256: str) -> Path:
    """Find the weights and check their sum."""
    named = given or os.environ.get("DVBENCH_WEIGHTS")
    if not named:
        return _cached(sha256)
    path = Path(named).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no Inception weights file {path}: {_mend(sha256)}")
    try:
        found = _sum(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): {_mend(sha256)}") from error
    _check(str(path), found, sha256)
    return path


def _cached(sha256: str) -> Path:
    """Return the downloaded weights, downloading them where they are not there or damaged, whole or not at all."""
    if sha256 != SHA256:
        raise UsageError(f"weights that are not clean-fid's cannot be downloaded: {_mend(sha256)}")
    path = cache_directory() / "inception" / FILE
    if not path.is_file() or _sum(path) != sha256:
        write_whole(path, _download)
    return path


def _download(file: BinaryIO) -> None:
    received = hashlib.sha256()
    try:
        with urllib.request.urlopen(URL, timeout=30) as response:  # noqa: S310 - a fixed https address
            while chunk := response.read(1 << 20):
                file.write(chunk)
                received.update(chunk)
            size = response.headers["Content-Length"]
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the answer, with an open socket
        raise UsageError(f"the Inception weights that FID needs cannot be downloaded: {_mend(SHA256)}") from error
    if size is not None and file.tell() != int(size):
        raise UsageError(f"the download of the Inception weights that FID needs broke off: {_mend(SHA256)}")
    _check("what was downloaded", received.hexdigest(), SHA256)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(what: str, found: str, sha256: str) -> None:
    """Hold the sum of a file against the one that it must have, before anything in it is believed."""
    if found != sha256:
        raise UsageError(
            f"{what} is not the file of Inception weights that is asked for (its SHA-256 begins with {found[:12]}, not "
            f"with {sha256[:12]}): {_mend(sha256)}"
        )


def _mend(sha256: str) -> str:
    if sha256 != SHA256:
        return (
            "give a TorchScript file of the interface of clean-fid's with --set detector.weights=PATH and its SHA-256 "
            "with --set detector.sha256=SUM, or leave out both"
        )
    return (
        f"download {URL} where there is a network and give the file with --set detector.weights=PATH or "
        "DVBENCH_WEIGHTS=PATH, or use --detector lite0"
    )
