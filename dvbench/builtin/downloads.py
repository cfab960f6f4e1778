"""CIFAR-10 and Fashion-MNIST, read and where need be downloaded by torchvision."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, ClassVar
from urllib.error import URLError

import numpy as np
from filelock import FileLock
from PIL import Image

from dvbench.builtin.imaging import DataError, SplitDataset, Splits, square
from dvbench.files import cache_directory, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dvbench.api import Images


OF_THE_NETWORK = (URLError, SSLError, ConnectionError, TimeoutError)  # errors that are OSError too


class Download(SplitDataset):
    """A dataset of torchvision's: its training split without the test split's pictures, and its test split.

    ``data`` is the directory that holds the files; without it they are downloaded into the cache, where damaged ones
    are replaced. Raises UsageError where they are missing or damaged, or cannot be downloaded or written, WorkError
    for a full disk.
    """

    title: ClassVar[str]
    files: ClassVar[str]

    def __init__(self, size: int, data: str | None = None) -> None:
        super().__init__(size)
        self.data = data

    @abstractmethod
    def reader(self) -> Callable[..., Any]:
        """Return torchvision's class; importing it imports torch."""

    def resize(self, pictures: Images) -> Images:
        """Bring uint8 N x n x n x C to this dataset's size; at the same size nothing is touched."""
        if pictures.shape[1] == self.size:
            return pictures
        return np.stack([square(Image.fromarray(picture.squeeze()), self.size, self.channels) for picture in pictures])

    def load(self) -> Splits:
        """Read both splits, downloading them where the cache has them not, or not whole."""
        if self.data is not None:
            return self._read(Path(self.data).expanduser())
        root = cache_directory() / "torchvision"
        with suppress(DataError):
            return self._read(root)
        with told(root):
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / ".lock"):
                with suppress(DataError):  # another process has downloaded them meanwhile
                    return self._read(root)
                self._download(root)
        return self._read(root)

    def _read(self, root: Path) -> Splits:
        try:
            splits = [np.asarray(self.reader()(root, train=train).data, np.uint8) for train in (True, False)]
        except Exception as error:  # archives, pickles and checks each raise their own kind
            raise DataError(
                f"{root} does not hold {self.title}, or not whole: give --data a directory with {self.files}"
            ) from error
        return Splits.of(*(self.resize(pictures.reshape(*pictures.shape[:3], self.channels)) for pictures in splits))

    def _download(self, root: Path) -> None:
        """Download and unpack beside, then put what is whole in its place. OSError: the disk's."""
        part = root / ".part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            self.reader()(part, download=True)
            for whole in filter(Path.is_dir, part.iterdir()):
                shutil.rmtree(root / whole.name, ignore_errors=True)
                whole.rename(root / whole.name)
        except Exception as error:  # sockets, archives and checks each raise their own kind
            if isinstance(error, OSError) and not isinstance(error, OF_THE_NETWORK):
                raise
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise DataError(
                f"{self.title} could not be downloaded into {root} ({why}): where there is no network, give --data a "
                f"directory with {self.files}"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


class Cifar10(Download):
    """CIFAR-10, uint8 N x size x size x 3: 32 px as published, else resized with antialiasing."""

    title = "CIFAR-10"
    files = "cifar-10-batches-py in it, which holds data_batch_1 to data_batch_5, test_batch and batches.meta"

    def reader(self) -> Callable[..., Any]:
        """Return torchvision's class."""
        from torchvision.datasets import CIFAR10

        reader: Callable[..., Any] = CIFAR10
        return reader


class FashionMnist(Download):
    """Fashion-MNIST, uint8 N x size x size x 1: 28 px as published, 32 px with a black rim, else resized."""

    title = "Fashion-MNIST"
    files = (
        "FashionMNIST/raw in it, which holds train-images-idx3-ubyte, train-labels-idx1-ubyte, "
        "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
    )
    channels = 1

    def reader(self) -> Callable[..., Any]:
        """Return torchvision's class."""
        from torchvision.datasets import FashionMNIST

        reader: Callable[..., Any] = FashionMNIST
        return reader

    def resize(self, pictures: Images) -> Images:
        """Pad 28 px to 32 px with zeros, as is usual, which leaves every published pixel as it is."""
        if self.size == 32:
            return np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)))
        return super().resize(pictures)
