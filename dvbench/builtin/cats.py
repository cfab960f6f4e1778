"""Cats composited from the art that the package robohash installs: any size, millions of them, no download."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from dvbench.builtin.imaging import DataError, SplitDataset, Splits, chunk_length, distinct, keep, package_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from dvbench.api import Images

    Floats: TypeAlias = npt.NDArray[np.float32]

FORMAT = 1  # part of the cache's key: raise it when the same options shall give other pixels


class Cats(SplitDataset):
    """RGB cats, uint8 N x size x size x 3, each a body, fur, eyes, a mouth and an accessory before a scene.

    ``train_images`` and ``held_out_images`` cats are drawn without replacement with ``seed``, and drawn again where
    two look the same at this size. Raises ValueError for a size outside 16..256 or counts below 1, UsageError for
    more cats than there are.

    Credit: cats by David Revoy (CC-BY-4.0, https://www.peppercarrot.com/extras/html/2016_cat-generator/), backgrounds
    by Zikri Kader (CC-BY-3.0 or CC-BY-4.0), both through robohash; changes: shrunk and composited.
    """

    credit = (
        "cats by David Revoy (CC-BY-4.0, https://www.peppercarrot.com/extras/html/2016_cat-generator/), "
        "backgrounds by Zikri Kader (CC-BY-3.0 or CC-BY-4.0), both through robohash; changes: shrunk and composited"
    )
    sides = range(16, 257)

    def __init__(self, size: int, train_images: int = 10_000, held_out_images: int = 2_000, seed: int = 0) -> None:
        super().__init__(size)
        if min(train_images, held_out_images) < 1 or seed < 0:
            raise ValueError("train_images and held_out_images must be at least 1, and seed at least 0")
        self.train_images = train_images
        self.held_out_images = held_out_images
        self.seed = seed

    def load(self) -> Splits:
        """Draw and composite the cats, or take them from the cache."""
        files = part_files()
        total = self.train_images + self.held_out_images
        if total > combinations(files):
            raise DataError(f"{total} cats were asked for and there are {combinations(files)}: lower train_images")
        key = {
            "format": FORMAT,
            "size": self.size,
            "train_images": self.train_images,
            "held_out_images": self.held_out_images,
            "seed": self.seed,
            "art": art_hash(files),
        }
        shape = (total, self.size, self.size, 3)
        kept = keep(f"cats-{self.size}", key, shape, lambda: distinct(self._draw(files), total))
        if len(kept.pictures) < total:
            raise DataError(
                f"{total} cats were asked for and only {len(kept.pictures)} look different at {self.size} px: "
                "lower train_images"
            )
        return kept.split(self.train_images)

    def _draw(self, files: Sequence[Sequence[Path]]) -> Iterator[Images]:
        """Yield every cat there is, in the order that ``seed`` shuffles them to, in chunks."""
        art = Art.shrunk(files, self.size)
        order = np.random.Generator(np.random.PCG64(self.seed)).permutation(combinations(files))
        step = chunk_length(self.size)
        for start in range(0, len(order), step):
            yield art.compose(np.unravel_index(order[start : start + step], [len(layer) for layer in files]))


def part_files() -> list[list[Path]]:
    """List each layer's alternatives from the back (the backgrounds) to the front, naturally sorted.

    The backgrounds are the scenes of bg1; bg2 holds flat patterns made for the robots. In a part's directory name,
    NNN#MMname, MM is the order of painting.
    """
    package = package_directory("robohash")
    parts = sorted((package / "sets" / "set4").glob("*#*/"), key=lambda path: _natural(path.name.split("#")[1]))
    layers = [
        sorted(path.glob("*.png"), key=lambda file: _natural(file.name))
        for path in (package / "backgrounds" / "bg1", *parts)
    ]
    if not parts or not all(layers):
        raise DataError(f"{package} lacks the cats' art: reinstall it with pip install --force-reinstall robohash")
    return layers


def combinations(files: Sequence[Sequence[Path]]) -> int:
    """Count the cats that ``files`` can make, backgrounds included."""
    return math.prod(len(layer) for layer in files)


def art_hash(files: Sequence[Sequence[Path]]) -> str:
    """Return the SHA-256 of all the art in its order, which another version of robohash may change."""
    sha256 = hashlib.sha256()
    for layer in files:
        sha256.update(b"layer")
        for file in layer:
            sha256.update(hashlib.sha256(file.read_bytes()).digest())
    return sha256.hexdigest()


@dataclass(frozen=True)
class Art:
    """All parts at one size, float32: the background's colours, then (colour, what shines through) of each layer.

    Colours are multiplied with alpha and run to 255; backgrounds and colours are [N, n, n, 3], what shines through
    (1 - alpha) is [N, n, n, 1].
    """

    backgrounds: Floats
    layers: list[tuple[Floats, Floats]]

    @classmethod
    def shrunk(cls, files: Sequence[Sequence[Path]], size: int) -> Art:
        """Read every file and shrink it once."""
        backgrounds, *layers = [
            np.stack([_shrink(file, size, opaque=not i) for file in layer]) for i, layer in enumerate(files)
        ]
        return cls(backgrounds[..., :3], [(layer[..., :3], layer[..., 3:]) for layer in layers])

    def compose(self, choice: Sequence[npt.NDArray[np.intp]]) -> Images:
        """Paint N cats, uint8 [N, n, n, 3], where ``choice`` holds each layer's indices [N]."""
        picture = self.backgrounds[choice[0]]
        for (colour, through), index in zip(self.layers, choice[1:], strict=True):
            picture *= through[index]
            picture += colour[index]
        picture += 0.5  # rounds, since the conversion cuts off
        return picture.astype(np.uint8)


def area_weights(source: int, target: int) -> npt.NDArray[np.float64]:
    """Return [target, source]: how much of each source pixel each target pixel covers, in 1/target of a pixel.

    Whole numbers, so that sums of them times bytes are exact in float64, in whatever order BLAS adds them up: every
    machine gets the same picture.
    """
    near, far = np.arange(source) * target, np.arange(target)[:, None] * source
    shared: npt.NDArray[np.int64] = np.minimum(near + target, far + source) - np.maximum(near, far)
    return shared.clip(0).astype(np.float64)


def _shrink(file: Path, size: int, *, opaque: bool) -> Floats:
    """Average the areas of ``file`` on premultiplied alpha: float32 [size, size, 4].

    The last channel is what shines through, 1 - alpha; the colours before it are multiplied with alpha.
    """
    with Image.open(file) as opened:
        # A background's own transparency is dropped, as robohash does for opaque formats: nothing lies behind it.
        image = opened.convert("RGB").convert("RGBA") if opaque else opened.convert("RGBA")
    left, top, right, bottom = image.getbbox() or (0, 0, 1, 1)
    pixels = np.asarray(image.crop((left, top, right, bottom)), np.float64)  # the rest is empty and adds nothing
    pixels[..., :3] *= pixels[..., 3:]
    pixels[..., 3] *= 255
    rows = area_weights(image.height, size)[:, top:bottom] @ pixels.reshape(bottom - top, -1)
    means = area_weights(image.width, size)[:, left:right] @ rows.reshape(size, right - left, 4)
    means /= 255 * image.height * image.width
    means[..., 3] = 1 - means[..., 3] / 255
    return means.astype(np.float32)


def _natural(name: str) -> list[int | str]:
    """Sort 2 before 10: split ``name`` into text and numbers."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]
