"""What a network's samples are worth while it trains: quality against images, seconds and FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dvbench.config import Evaluation as Options
from dvbench.config import Training
from dvbench.training import Progress

Json: TypeAlias = dict[str, Any]
Measure: TypeAlias = Callable[[npt.NDArray[np.uint8]], list[Json]]

KEPT = ("name", "split", "value", "low", "high", "n")


class Curve:
    """A point each time that another ``options.every`` of the budget of ``training`` is used.

    ``points`` hold what was used by then (images, those of each level, seconds) and the metrics; they survive an
    interruption as part of a checkpoint.
    """

    def __init__(self, options: Options | None, training: Training, points: Sequence[Json] = ()) -> None:
        self.options = options
        self.used = "train_seconds" if training.seconds is not None else "train_images"
        self.points = list(points)

    def due(self, progress: Progress) -> bool:
        """Whether enough of the budget was used since the last point."""
        if self.options is None:
            return False
        before = self.points[-1][self.used] if self.points else 0
        now = spent(progress)[self.used]
        return bool(now // self.options.every > before // self.options.every)

    def add(self, progress: Progress, metrics: Sequence[Json]) -> None:
        """Add the point that ``metrics`` make now."""
        kept = [{key: metric[key] for key in KEPT} for metric in metrics]
        self.points.append({**spent(progress), "metrics": kept})


def spent(progress: Progress) -> Json:
    """Return what training has cost so far, as the record calls it."""
    return {
        "train_seconds": progress.seconds,
        "train_images": progress.images,
        "train_images_per_level": list(progress.images_per_level),
    }


def of_metric(metric: Json, points: Sequence[Json], flops_per_image: Callable[[list[int]], float | None]) -> list[Json]:
    """Return the points of one metric; ``flops_per_image`` works out the cost of images seen at each level."""
    found = []
    for point in points:
        for held in point["metrics"]:
            if (held["name"], held["split"]) == (metric["name"], metric["split"]):
                each = flops_per_image(point["train_images_per_level"])
                found.append({
                    "train_images": point["train_images"],
                    "train_seconds": point["train_seconds"],
                    "train_flops": None if each is None else each * point["train_images"],
                    **{key: held[key] for key in ("value", "low", "high", "n")},
                })  # fmt: skip
    return found
