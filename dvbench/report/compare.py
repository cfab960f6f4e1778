"""Compares runs with DDPM: finds their records, joins them in one table, and says which may be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dvbench import record as records
from dvbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvbench.record import Metric, Record

RATIOS = ("sample_flops", "train_flops_per_image", "sample_seconds", "train_seconds")
NO_BASELINE = "no DDPM baseline among the runs: add --baseline to dvbench run"


@dataclass(frozen=True)
class Comparison:
    """Finished runs, each beside the DDPM run that suits it best.

    ``frame`` has a row for each of ``records``: method, cost, each metric's value under its label, and each ratio
    under "ratio NAME". ``notes`` say what was left out.
    """

    records: list[Record]
    frame: pd.DataFrame
    notes: list[str]

    def to_json(self) -> list[dict[str, Any]]:
        """Return what ``compare --format json`` prints."""
        return [
            {
                "run_id": record.run_id,
                "benchmark": record.benchmark,
                **record.model_dump(mode="json", include={"method", "cost", "metrics"}),
                "ratios": {name: null(row[f"ratio {name}"]) for name in RATIOS},
                "baseline": row["baseline"],
                "comparable": row["comparable"],
                "why_not": null(row["why_not"]),
            }
            for record, row in zip(self.records, self.frame.to_dict("records"), strict=True)
        ]


def compare(paths: Sequence[str | Path] | str | Path | None = None, results: str | Path = "results") -> Comparison:
    """Compare runs with the DDPM runs of their benchmark.

    Each of ``paths`` is a benchmark's name, a run's id, directory or record, or a directory to search; none means all
    of ``results``.
    """
    wanted = [paths] if isinstance(paths, str | Path) else list(paths or [])
    found = [(path, records.read(path)) for path in _select(wanted, Path(results))]
    finished = [record for _, record in found if record.status == "finished"]
    notes = [f"{path.parent} is left out: the run is {r.status}" for path, r in found if r.status != "finished"]
    return Comparison(finished, _join(finished), [*notes, *_versions(finished)])


def label(metric: Metric) -> str:
    """Name a metric with its detector; "FID" alone is the distance of one detector only, to held-out images."""
    detector = (metric.detector or "").partition(" ")[0]  # its version follows
    split = (metric.model_extra or {}).get("split", "held-out")
    about = [part for part in (detector, split) if part not in {"", "held-out"}]
    if (metric.name, about) == ("fid", ["inception"]):
        return "FID"
    name = "FD" if metric.name == "fid" and detector != "inception" else metric.name.upper()
    return f"{name} ({', '.join(about)})" if about else name


def labelled(record: Record) -> dict[str, Metric]:
    """Return the metrics of ``record`` by label; the first of each, should one be there against two references."""
    return {label(metric): metric for metric in reversed(record.metrics)}


def is_ddpm(record: Record) -> bool:
    """Whether the run never changed the dimensionality."""
    return record.method.basis in {"identity", "dvbench:identity"}


def null(value: Any) -> Any:
    """Turn pandas' missing values into None."""
    return None if pd.isna(value) else value


def _select(wanted: Sequence[str | Path], results: Path) -> list[Path]:
    """Return the records' paths that are meant, each once."""
    if not wanted and not _search(results):
        raise UsageError(f"there are no runs under {results}: make one with `dvbench run NAME`")
    found = [] if wanted else _search(results)
    for argument in wanted:
        path, name = Path(argument), str(argument)
        benchmark = _search(results / name) if path.name == name not in {"", ".."} else []
        places = benchmark or [run for run in _search(results) if run.parent.name == name] or _search(path)
        if not places:
            raise UsageError(
                f"no run matches {name!r}: it is no benchmark and no run under {results}, and no directory with a "
                f"{records.NAME}; make one with `dvbench run {path.stem or 'NAME'}`"
            )
        found += places
    return list({path.resolve(): path for path in found}.values())


def _search(place: Path) -> list[Path]:
    return [place] if place.suffix == ".json" and place.is_file() else sorted(place.rglob(records.NAME))


def _join(runs: Sequence[Record]) -> pd.DataFrame:
    """Put each run and its ratios to its baseline in a row."""
    frame = pd.DataFrame([_row(run) for run in runs])
    if frame.empty:
        return frame
    against = [_baseline(run, runs) for run in runs]
    frame["baseline"] = [is_ddpm(run) for run in runs]
    frame["against"] = [None if base is None else runs[base].run_id for base in against]
    frame["why_not"] = [
        _why_not(run, None if base is None else runs[base]) for run, base in zip(runs, against, strict=True)
    ]
    frame["comparable"] = frame["why_not"].isna()

    costs = frame[list(RATIOS)].astype(float)
    costs["sample_seconds"] = frame["seconds_per_image"].astype(float)  # runs may differ in how many they sampled
    base = costs.reindex([-1 if row is None else row for row in against]).set_axis(costs.index)
    ratios = (base / costs).where((base > 0) & (costs > 0))
    ratios[frame["baseline"]] = 1.0
    return frame.join(ratios.add_prefix("ratio "))


def _plugins(run: Record) -> dict[str, str]:
    """Return the version of each plugin of a run, with a sign of its source where it is not dvbench's own."""
    code = (run.environment.model_extra or {}).get("plugin_code", {})
    return {
        name: f"{version} (source {code[name][:8]})" if name in code else version
        for name, version in run.environment.plugins.items()
    }


def _versions(runs: Sequence[Record]) -> list[str]:
    """Say which plugins differ in their version between runs of one benchmark."""
    found: dict[tuple[str, str], dict[str, str]] = {}  # for each benchmark and plugin, a run of each version
    for run in runs:
        for plugin, version in _plugins(run).items():
            found.setdefault((run.benchmark, plugin), {}).setdefault(version, run.run_id)
    return [
        f"{benchmark}: runs were made with different versions of {plugin}: "
        + ", ".join(f"{version} (such as {run})" for version, run in sorted(versions.items()))
        for (benchmark, plugin), versions in found.items()
        if len(versions) > 1
    ]


def _row(run: Record) -> dict[str, Any]:
    cost = run.cost
    measured = cost.sample_seconds is not None and cost.samples
    return {
        "benchmark": run.benchmark,
        "run_id": run.run_id,
        "seed": run.seed,
        **run.method.model_dump(exclude={"ladder", "turns", "train_hash", "trained_by"}),
        "ladder": "-".join(map(str, run.method.ladder)),
        "turns": ",".join(map(str, run.method.turns)),
        "device_name": run.environment.device_name,
        "threads": run.environment.threads,
        **{name: metric.value for name, metric in labelled(run).items()},
        **{name: getattr(cost, name) for name in (*RATIOS, "train_images", "samples", "peak_memory_bytes", "params")},
        "seconds_per_image": (cost.sample_seconds or 0) / (cost.samples or 1) if measured else None,
    }


def _baseline(run: Record, runs: Sequence[Record]) -> int | None:
    """Find the DDPM run to hold ``run`` against: a comparable one, then the likest, then the newest."""
    if is_ddpm(run):
        return next(row for row, other in enumerate(runs) if other is run)
    rows = [row for row, other in enumerate(runs) if is_ddpm(other) and other.benchmark == run.benchmark]

    def suits(row: int) -> tuple[bool, int, str]:
        other = runs[row]
        alike = sum(mine == its for mine, its in zip(_choices(run), _choices(other), strict=True))
        return not _differences(run, other), alike, other.finished or ""

    return max(rows, key=suits, default=None)


def _choices(run: Record) -> tuple[Any, ...]:
    method = run.method
    training = run.config.get("training")
    return method.backbone, method.sampler, method.sample_steps, method.prediction, run.seed, training


def _why_not(run: Record, base: Record | None) -> str | None:
    if base is None:
        return NO_BASELINE
    differences = _differences(run, base)
    return f"not comparable with {base.run_id}: {'; '.join(differences)}" if differences else None


def _differences(run: Record, base: Record) -> list[str]:
    """Say what makes the numbers of two runs speak of different things."""
    pairs = [
        (name, getattr(run.environment, name), getattr(base.environment, name))
        for name in ("device", "device_name", "threads", "precision")
    ]
    own, others = _plugins(run), _plugins(base)
    pairs += [(plugin, own[plugin], others[plugin]) for plugin in sorted(own.keys() & others.keys())]
    mine, its = labelled(run), labelled(base)
    shared = [name for name in mine if name in its]
    keys = ("n", "detector_hash", "reference_hash", "resize")
    pairs += [
        (f"{key} of {name}", getattr(mine[name], key), getattr(its[name], key)) for name in shared for key in keys
    ]
    said = [f"{what} is {_short(own)}, not {_short(other)}" for what, own, other in pairs if own != other]
    return [*said, "they share no metric"] if mine and its and not shared else said


def _short(value: Any) -> str:
    """Show a value; of a hash, as much as tells it from another."""
    return "unknown" if value is None else value[:8] if isinstance(value, str) and len(value) == 64 else str(value)
