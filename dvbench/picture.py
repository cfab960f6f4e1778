"""A picture of the first samples."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

MOST, LEAST_SIDE, GAP = 64, 64, 2


def contact_sheet(images: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG of up to 64 images N x H x W x C in rows of 8 or fewer, small ones enlarged by whole pixels."""
    shown = images[:MOST]
    side = shown.shape[1]
    factor = max(1, LEAST_SIDE // side)
    columns = min(8, int(np.ceil(np.sqrt(len(shown)))))
    rows = -(-len(shown) // columns)
    cell = side * factor + GAP
    sheet = np.full((rows * cell + GAP, columns * cell + GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(shown):
        top, left = (GAP + position * cell for position in divmod(index, columns))
        sheet[top : top + cell - GAP, left : left + cell - GAP] = image.repeat(factor, 0).repeat(factor, 1)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="PNG")
    return file.getvalue()
