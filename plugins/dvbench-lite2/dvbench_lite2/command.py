"""``dvbench memorised``. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dvbench_lite2.memorised import Memorised


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--device", default="cpu", show_default=True, help="Where lite2 runs, such as cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def memorised(run_dir: Path, device: str, as_json: bool) -> None:
    """Say whether the samples of a finished run are copies of training images.

    RUN_DIR is results/BENCHMARK/RUN_ID. In lite2's features, each sample's distance to its nearest training image is
    held against the distances of held-out images to theirs: images that were never trained on, and so not copied.
    """
    import json
    from dataclasses import asdict

    import dvbench
    from dvbench_lite2.memorised import Finished, examine

    run = Finished.read(run_dir)
    detector = dvbench.create("detector", "dvbench-lite2:lite2", device=device)

    def told(split: str, done: int, of: int) -> None:
        click.echo(f"features of {split} images: {done} of {of}", err=True)

    found = examine(run, detector, told)
    if as_json:
        features = {name: getattr(detector, name) for name in ("name", "version", "weights_hash", "resize")}
        click.echo(json.dumps({"run_id": run.run_id, "detector": features, **asdict(found)}, allow_nan=False))
    else:
        click.echo(f"{run.run_id}, {sentence(found)}")


def sentence(found: Memorised) -> str:
    """Tell what was found, in five lines."""
    sample, image, distance = found.nearest
    medians = f"samples {found.median:.4g}, held-out images {found.median_held_out:.4g}"
    near = f"as the nearest 5% of held-out images are: {found.near:.1%} of samples"
    return f"""{found.samples} samples and {found.held_out} held-out images beside {found.train} training images
  median distance to the nearest training image: {medians}
  nearer than {found.threshold:.4g}, {near}
  Mann-Whitney z: {found.z:+.1f} (below -3: nearer than chance brings them)
  nearest: sample {sample} and training image {image}, at {distance:.4g} (both counted from 0)"""
