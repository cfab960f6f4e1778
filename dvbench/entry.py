"""What the commands do, from Python: ``dvbench.run`` and ``dvbench.compare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from dvbench.config import Config
    from dvbench.progress import Reporter
    from dvbench.record import Record
    from dvbench.report.compare import Comparison

# What each option of `dvbench run` says of the configuration, as a dotted key.
OPTIONS = {
    "preset": "preset",
    "basis": "basis.name",
    "schedule": "schedule.name",
    "backbone": "backbone.name",
    "sampler": "sampler.name",
    "detector": "detector.name",
    "ladder": "ladder",
    "turns": "schedule.turns",
    "attenuation": "schedule.attenuation",
    "prediction": "prediction",
    "sample_steps": "sampling.steps",
    "samples": "sampling.samples",
    "seed": "seed",
    "train_images": "training.images",
    "train_seconds": "training.seconds",
    "microbatch": "training.microbatch",
    "device": "device",
    "threads": "threads",
    "precision": "precision",
    "compile": "compile",
    "data": "dataset.data",
    "eval_every": "evaluation.every",
}


def overrides(options: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the dotted keys that the command's ``options`` (None: not given) and its --set ``settings`` stand for."""
    for name in options:
        if name not in OPTIONS:
            raise unknown("option of run", name, [*OPTIONS, "set", "results", "baseline", "seeds", "fresh"])
    given = {OPTIONS[name]: value for name, value in options.items() if value is not None} | dict(settings or {})
    if given.get("training.images") is not None and given.get("training.seconds") is not None:
        raise UsageError("--train-images and --train-seconds are two budgets: give one of them")
    return given


def configurations(benchmark: str, given: Mapping[str, Any], *, baseline: bool) -> list[Config]:
    """Return what to run: the DDPM baseline first where it is asked for, then the run itself."""
    from dvbench.bench import configure
    from dvbench.config import baseline_of

    asked = configure(benchmark, given)
    if not baseline:
        return [asked]
    first = configure(benchmark, baseline_of(given))
    return [asked] if first == asked else [first, asked]


def rounds(benchmark: str, given: Mapping[str, Any], *, baseline: bool, seeds: int = 1) -> Iterator[list[Config]]:
    """Yield what to run with each of ``seeds`` seeds, from the one asked for on."""
    if seeds < 1:
        raise UsageError(f"--seeds {seeds} is no number of seeds: give 1 or more")
    first = configurations(benchmark, given, baseline=baseline)
    yield first
    for seed in range(first[-1].seed + 1, first[-1].seed + seeds):
        yield [config.model_copy(update={"seed": seed}) for config in first]


def run(
    benchmark: str,
    *,
    results: str | Path = "results",
    baseline: bool = False,
    seeds: int = 1,
    fresh: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> Record:
    """Do what ``dvbench run`` does and return the asked run's record, with several ``seeds`` that of the last.

    ``options`` are the command's, with underscores: ``run("cats", basis="haar", train_seconds=60,
    set={"backbone.width": 64})``. Raises dvbench.errors.UsageError for bad input.
    """
    from dvbench.bench import conduct
    from dvbench.progress import Reporter

    reporter = reporter or Reporter()
    settings = options.pop("set", None)
    for configs in rounds(benchmark, overrides(options, settings), baseline=baseline, seeds=seeds):
        *_, (_, record) = conduct(configs, Path(results), reporter, fresh=fresh)
    return record


def compare(
    paths: Sequence[str | Path] | None = None,
    *,
    results: str | Path = "results",
    against: str | Path | None = None,
    at: str | None = None,
) -> Comparison:
    """Do what ``dvbench compare`` does: set the records of benchmarks, runs or directories side by side."""
    from dvbench.report.compare import compare as compare_records

    return compare_records(paths, Path(results), against=against, at=at)
