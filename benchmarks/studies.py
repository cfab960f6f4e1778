"""Studies of the process by itself: many runs with the perfect network, joined in one table and one plot.

    python benchmarks/studies.py attenuation           do the runs that are missing, then print the table
    python benchmarks/studies.py attenuation --show    print the table of the records that are there
    python benchmarks/studies.py attenuation --show --plot docs/images/attenuation.svg

Each figure is a mean over seeds with its standard error. An interrupted study goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import pandas as pd

from dvbench import record as records
from dvbench.report.compare import is_ddpm, labelled
from dvbench.report.table import NONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = Path(__file__).parents[1] / "results" / "reference" / "studies"
# The benchmark cats as it was: nothing trains here, but what it says of training is part of what names a run.
BEFORE = str(RESULTS / "cats.yaml")
TRAIN, HELD_OUT = "FD (lite0, train)", "FD (lite0)"
Job: TypeAlias = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Study:
    """``jobs`` yields each run's benchmark and options; ``keys`` tell runs apart that differ in more than the seed."""

    jobs: Callable[[], Iterator[Job]]
    table: Callable[[pd.DataFrame], str]
    plot: Callable[[pd.DataFrame, Sequence[Axes]], None]
    panels: int


def perfect(samples: int, seed: int, settings: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Return the options of one run with the perfect network, all of its samples in one batch."""
    common = {"backbone": "perfect", "precision": "fp32", "threads": 2, "device": "cpu"}
    return {
        **common,
        **options,
        "samples": samples,
        "seed": seed,
        "set": {"sampling.batch": samples, **(settings or {})},
    }


# Attenuation against turning points, on 1,000 cats of 32 px, down to 4 px.

ATTENUATIONS = (1.0, 0.5, 0.3, 0.1, 0.01)
TURNS = ((0.25, 0.55, 0.75), (0.1, 0.25, 0.45), (0.05, 0.1, 0.2))
# Nothing trains here: the benchmark's settings of old are what tells these runs from new ones, and lets them be found.
TRAINING = {
    "training.batch": 40,
    "training.optimizer": "adamw",
    "training.lr": 0.001,
    "training.min_snr": 5,
}
CATS = {"dataset.train_images": 1000, **TRAINING}


def attenuation_jobs() -> Iterator[Job]:
    """DDPM, and dct and haar with every attenuation and turning points, in 50 and in 10 steps, 5 seeds."""
    settings = {**CATS, "jump": "sigma"}
    for steps, seed in product((50, 10), range(5)):
        yield BEFORE, perfect(1000, seed, settings, basis="identity", sample_steps=steps)
        for basis, turns, attenuation in product(("dct", "haar"), TURNS, ATTENUATIONS):
            levels = {"ladder": [32, 16, 8, 4], "turns": list(turns), "attenuation": attenuation}
            yield BEFORE, perfect(1000, seed, settings, basis=basis, sample_steps=steps, **levels)


def attenuation_table(runs: pd.DataFrame) -> str:
    """Return a table for each number of steps: a row for each basis and turning points, a column an attenuation."""
    parts = []
    for steps, some in runs.groupby("steps", sort=False):
        ddpm, others = some[some.ddpm], some[~some.ddpm]
        head = ["", "turning points", "FLOPs x", *(f"{value:g}" for value in ATTENUATIONS)]
        rows = [["DDPM", "", "1.00", mean(ddpm[TRAIN]), *[""] * 4], ["real", "", "", mean(ddpm["floor"]), *[""] * 4]]
        for (basis, turns), group in others.groupby(["basis", "turns"], sort=False):
            cells = [mean(group[group.attenuation == value][TRAIN]) for value in ATTENUATIONS]
            rows.append([basis, turns, f"{group['saving'].mean():.2f}", *cells])
        parts.append(f"{steps} steps:\n\n{markdown(head, rows)}")
    return "\n\n".join(parts)


def attenuation_plot(runs: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw distance against attenuation, a panel for each number of steps."""
    for axis, (steps, some) in zip(axes, runs.groupby("steps", sort=False), strict=True):
        ddpm = some[some.ddpm][TRAIN]
        axis.axhspan(ddpm.mean() - 2 * ddpm.sem(), ddpm.mean() + 2 * ddpm.sem(), color="0.85", label="DDPM")
        for (basis, turns), group in some[~some.ddpm].groupby(["basis", "turns"], sort=False):
            by = group.groupby("attenuation")[TRAIN]
            style = {"dct": "-", "haar": "--"}[str(basis)]
            axis.errorbar(by.mean().index, by.mean(), 2 * by.sem(), fmt=f"o{style}", ms=3, label=f"{basis} {turns}")
        axis.set(xscale="log", xlabel="attenuation", title=f"{steps} steps")


# Quality against the number of steps, on faces of 64 px.

STEPS = (10, 20, 50, 100, 250)
SAMPLERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ancestral, small": ("ancestral", {"sampler.variance": "small"}),
    "ancestral, large": ("ancestral", {"sampler.variance": "large"}),
    "ancestral, optimal": ("ancestral", {"sampler.variance": "optimal"}),
    "ddim": ("ddim", {}),
    "dpmpp": ("dpmpp", {}),
}
METHODS: Mapping[str, dict[str, Any]] = {
    "DDPM": {"basis": "identity", "ladder": [64]},
    "DVDP": {"basis": "dct", "ladder": [64, 32, 16]},
}


def steps_jobs() -> Iterator[Job]:
    """DDPM and DVDP with every sampler and number of steps, 3 seeds."""
    for seed, steps, (sampler, settings), method in product(range(3), STEPS, SAMPLERS.values(), METHODS.values()):
        yield "faces", perfect(320, seed, settings, sampler=sampler, sample_steps=steps, **method)


def steps_table(runs: pd.DataFrame) -> str:
    """Return a table with a row for each sampler and method, a column a number of steps, and the savings below."""
    head = ["sampler", "method", *(f"{steps} steps" for steps in STEPS)]
    rows = []
    for sampler, ddpm in product(SAMPLERS, (True, False)):
        some = runs[(runs.sampler == sampler) & (runs.ddpm == ddpm)]
        rows.append([sampler, name(ddpm), *(mean(some[some.steps == steps][TRAIN]) for steps in STEPS)])
    rows.append(["real images", "", *(mean(runs[runs.steps == steps]["floor"].drop_duplicates()) for steps in STEPS)])
    whole = runs[runs.ddpm & (runs.steps == max(STEPS))].flops.mean()
    for ddpm in (True, False):
        some = runs[runs.ddpm == ddpm]
        cells = [f"{whole / some[some.steps == steps].flops.mean():.2f}" for steps in STEPS]
        rows.append([f"FLOPs x of {max(STEPS)} steps of DDPM", name(ddpm), *cells])
    return markdown(head, rows)


def steps_plot(runs: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw distance against FLOPs, a panel for each sampler."""
    for axis, sampler in zip(axes, SAMPLERS, strict=True):
        for ddpm in (True, False):
            some = runs[(runs.sampler == sampler) & (runs.ddpm == ddpm)]
            by = some.groupby("flops")[TRAIN]
            axis.errorbar(by.mean().index / 1e9, by.mean(), 2 * by.sem(), fmt="o-", ms=3, label=name(ddpm))
        axis.set(xscale="log", xlabel="GFLOPs an image", title=sampler)


# The four presets, on faces and cats.


def preset_jobs() -> Iterator[Job]:
    """Every preset on faces and on 1,000 cats, at 32 px, 5 seeds."""
    for seed, benchmark, preset in product(range(5), ("faces", BEFORE), PRESETS):
        settings = {**(CATS if benchmark == BEFORE else {}), **({"jump": "sigma"} if preset == "ddpm" else {})}
        yield benchmark, perfect(1000, seed, settings, preset=preset)


PRESETS = ("ddpm", "dvdp", "subspace", "blurring")


def preset_of(run: Mapping[str, Any]) -> str:
    """Return the preset that a run of the study was made with."""
    if run["ddpm"]:
        return "ddpm"
    return {"haar": "subspace", "dct": "blurring" if run["schedule"] == "heat" else "dvdp"}[run["basis"]]


def preset_table(runs: pd.DataFrame) -> str:
    """Return a table with a row for each preset."""
    runs = runs.assign(preset=runs.apply(preset_of, axis=1))
    datasets = ("faces", "cats")
    head = ["preset", *(f"{data}: {what}" for data in datasets for what in ("to training", "to held-out", "FLOPs x"))]
    rows = []
    for preset in PRESETS:
        groups = [runs[(runs.benchmark == data) & (runs.preset == preset)] for data in datasets]
        cells = [[mean(g[TRAIN]), mean(g[HELD_OUT]), f"{g['saving'].mean():.2f}"] for g in groups]
        rows.append([f"`{preset}`", *(cell for group in cells for cell in group)])
    floors = [runs[runs.benchmark == data].drop_duplicates("seed") for data in datasets]
    rows.append(["real images", *(cell for f in floors for cell in (mean(f["floor"]), mean(f["held_out_floor"]), ""))])
    return markdown(head, rows)


def preset_plot(runs: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw distance against FLOPs, a panel for each dataset."""
    runs = runs.assign(preset=runs.apply(preset_of, axis=1))
    for axis, data in zip(axes, ("faces", "cats"), strict=True):
        for preset in PRESETS:
            some = runs[(runs.benchmark == data) & (runs.preset == preset)]
            axis.errorbar(some.flops.mean() / 1e9, some[TRAIN].mean(), 2 * some[TRAIN].sem(), fmt="o", label=preset)
        axis.set(xlabel="GFLOPs an image", title=data)


STUDIES: Mapping[str, Study] = {
    "attenuation": Study(attenuation_jobs, attenuation_table, attenuation_plot, 2),
    "steps": Study(steps_jobs, steps_table, steps_plot, len(SAMPLERS)),
    "presets": Study(preset_jobs, preset_table, preset_plot, 2),
}


def name(ddpm: bool) -> str:
    """Name a method."""
    return "DDPM" if ddpm else "DVDP"


def mean(values: pd.Series[Any]) -> str:
    """Show the mean and, of several, its standard error over seeds."""
    if values.isna().all():
        return NONE
    error = f" ± {values.sem():.1f}" if values.count() > 1 else ""
    return f"{values.mean():.1f}{error}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are as wide as their widest cell."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(folder: Path) -> pd.DataFrame:
    """Read the finished records under ``folder``, in the order in which they were made."""
    held = [records.read(path) for path in folder.rglob(records.NAME)]
    held = sorted((record for record in held if record.status == "finished"), key=lambda record: record.started)
    if not held:
        raise click.ClickException(f"there are no finished runs under {folder}: leave --show out to make them")
    runs = pd.DataFrame([row(record) for record in held])
    base = runs[runs.ddpm].drop_duplicates(["benchmark", "steps"]).set_index(["benchmark", "steps"])["flops"]
    keys = pd.MultiIndex.from_frame(runs[["benchmark", "steps"]])
    return runs.assign(saving=base.reindex(keys).to_numpy() / runs["flops"])


def row(record: records.Record) -> dict[str, Any]:
    """Return what the tables tell of one run."""
    method, found = record.method, labelled(record)
    variance = record.config["sampler"].get("variance")
    return {
        "benchmark": record.benchmark,
        "seed": record.seed,
        "ddpm": is_ddpm(record),
        "basis": method.basis,
        "schedule": method.schedule,
        "sampler": f"{method.sampler}, {variance}" if variance else method.sampler,
        "steps": method.sample_steps,
        "turns": ", ".join(f"{turn:.2g}" for turn in record.config["schedule"].get("turns", [])),
        "attenuation": method.attenuation,
        "flops": record.cost.sample_flops,
        "floor": found[TRAIN].floor,
        "held_out_floor": found[HELD_OUT].floor,
        TRAIN: found[TRAIN].value,
        HELD_OUT: found[HELD_OUT].value,
    }


def draw(study: Study, runs: pd.DataFrame, path: Path) -> None:
    """Write the plot of ``study`` as SVG or PNG, whichever ``path`` ends in."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "dvbench"  # equal records make an equal file
    figure, axes = plt.subplots(1, study.panels, figsize=(1 + 3.2 * study.panels, 3.4), sharey=True, squeeze=False)
    study.plot(runs, list(axes[0]))
    axes[0][0].set_ylabel("FD (lite0) to the training split")
    handles, names = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=8, frameon=False)
    figure.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


@click.command()
@click.argument("study", type=click.Choice(list(STUDIES)))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Where the studies' records are.")
@click.option("--show", is_flag=True, help="Run nothing: show the records that are there.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a plot to this file, too (.svg or .png).")
def main(study: str, results: Path, show: bool, plot: Path | None) -> None:
    """Do the runs of STUDY that are missing and print its table."""
    chosen = STUDIES[study]
    if not show:
        import dvbench

        for benchmark, options in chosen.jobs():
            dvbench.run(benchmark, results=results / study, **options)
    runs = read(results / study)
    click.echo(chosen.table(runs))
    if plot is not None:
        draw(chosen, runs, plot)


if __name__ == "__main__":
    main()
