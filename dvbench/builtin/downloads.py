"""CIFAR-10 and Fashion-MNIST, read and where need be downloaded by torchvision."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from dvbench.builtin.imaging import DataError, SplitDataset, Splits, square
from dvbench.files import cache_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dvbench.api import Images


class Download(SplitDataset):
    """A dataset of torchvision's: its training split without the test split's pictures, and its test split.

    ``data`` is the directory that holds the files; without it they are downloaded into the cache. Raises UsageError
    where they are missing or damaged, or cannot be downloaded.
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
        """Read both splits."""
        return Splits.of(self._read(train=True), self._read(train=False))

    def _read(self, *, train: bool) -> Images:
        reader = self.reader()
        root = cache_directory() / "torchvision" if self.data is None else Path(self.data).expanduser()
        try:
            pictures = np.asarray(reader(root, train=train, download=self.data is None).data, np.uint8)
        except Exception as error:  # sockets, archives, pickles and checks each raise their own kind
            if self.data is None:
                message = f"{self.title} could not be downloaded into {root}: where there is no network, give --data"
            else:
                message = f"{root} does not hold {self.title}, or not whole: give --data"
            raise DataError(f"{message} a directory with {self.files}") from error
        return self.resize(pictures.reshape(*pictures.shape[:3], self.channels))


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
