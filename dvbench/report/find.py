"""Finds the runs that are meant: a benchmark's, one by its id, directory or record, or all below a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvbench import record as records
from dvbench.errors import UsageError
from dvbench.report.groups import Run


def find(wanted: Sequence[str | Path], results: Path) -> list[Run]:
    """Return the runs that are meant, finished or not, each once; nothing wanted means all of ``results``."""
    if not wanted and not _search(results):
        raise UsageError(f"there are no runs under {results}: make one with `dvbench run NAME`")
    found = [] if wanted else _search(results)
    for argument in wanted:
        path, name = Path(argument), str(argument)
        if not name:
            raise UsageError("an empty argument names no run: give a benchmark, a run or a directory, or nothing")
        benchmark = _search(results / name) if path.name == name not in {"", ".."} else []
        places = benchmark or [run for run in _search(results) if run.parent.name == name] or _search(path)
        if not places:
            raise UsageError(
                f"no run matches {name!r}: it is no benchmark and no run under {results}, and no directory with a "
                f"{records.NAME}; make one with `dvbench run {path.stem or 'NAME'}`"
            )
        found += places
    return [Run(records.read(path), path.parent) for path in {path.resolve(): path for path in found}.values()]


def _search(place: Path) -> list[Path]:
    return [place] if place.suffix == ".json" and place.is_file() else sorted(place.rglob(records.NAME))
