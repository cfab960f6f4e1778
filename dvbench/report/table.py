"""The table for a terminal: numbers are rounded here, and nowhere before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dvbench.report.compare import labelled, null

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dvbench.record import Metric, Record
    from dvbench.report.compare import Comparison

NONE = "–"  # noqa: RUF001  # a dash as wide as a digit
_RATIOS = {"FLOPs": "sample_flops", "clock": "sample_seconds", "train": "train_seconds"}

Row = tuple["Record", "Mapping[str, Any]"]


def tables(comparison: Comparison) -> Group:
    """Return one table for each benchmark, DDPM first, then the others from the least distance on."""
    pairs = list(zip(comparison.records, comparison.frame.to_dict("records"), strict=True))
    names = sorted({record.benchmark for record, _ in pairs})
    made = [_table(name, [pair for pair in pairs if pair[0].benchmark == name]) for name in names]
    return Group(*(part for table in made for part in (table, "")))


def significant(value: float | None, digits: int = 3) -> str:
    """Round to ``digits`` significant digits for the eye, and never inside the digits before the point."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    size = int(rounded.partition("e")[2])  # of the rounded value: 9.999 becomes 10.0, not 10.00
    return rounded if size < -4 else f"{value:,.{max(0, digits - 1 - size)}f}"


def duration(seconds: float | None) -> str:
    """Show seconds in the unit that people would use."""
    if seconds is None:
        return NONE
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{significant(seconds / size)} {unit}"


def count(number: float | None) -> str:
    """Show a count in thousands or millions."""
    if number is None:
        return NONE
    size, unit = (1.0, "") if number < 1e4 else (1e3, "k") if number < 1e6 else (1e6, "M")
    return f"{number / size:.4g}{unit}"


def _table(benchmark: str, rows: Sequence[Row]) -> Table:
    metrics = _distances(rows)
    rows = sorted(rows, key=lambda row: _order(row, metrics))
    table = Table(title=Text(benchmark, "bold"), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)  # narrow, so that nothing but the first column wraps at 80 columns
    table.caption_justify = "left"
    table.add_column("Run", overflow="fold")
    heads = [name.replace(" ", " ↓\n", 1) if " " in name else f"{name} ↓" for name in metrics]
    heads += ["GFLOPs\n/image", "training\n(images)", "seconds\n/image", *(f"{name}\nx" for name in _RATIOS)]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    if floors := _floors(rows):
        cells = [significant(floors.get(name), _digits(name)) for name in metrics]
        table.add_row(Text("real against real", style="dim"), *cells, end_section=True)
    footnotes: dict[str, int] = {}
    for record, row in rows:
        mark = None
        if (why_not := null(row["why_not"])) is not None:
            mark = footnotes.setdefault(why_not, len(footnotes) + 1)
        table.add_row(_name(record, row, mark), *_cells(record, row, metrics))
    table.caption = Text("\n".join(f"({mark}) {why_not}" for why_not, mark in footnotes.items())) if footnotes else None
    return table


def _distances(rows: Sequence[Row]) -> list[str]:
    """Return the labels of the distances, FID and FD first."""
    found = {name: metric for record, _ in rows for name, metric in labelled(record).items()}
    names = [name for name, metric in found.items() if not metric.higher_is_better]
    return sorted(names, key=lambda name: (name != "FID", not name.startswith("FD")))


def _order(row: Row, metrics: Sequence[str]) -> tuple[bool, float, str]:
    value = null(row[1].get(metrics[0])) if metrics else None
    return not row[1]["baseline"], math.inf if value is None else value, row[0].run_id


def _floors(rows: Sequence[Row]) -> dict[str, float]:
    """Return what each distance is between real images and real images, where a run tells: the first that does."""
    found: dict[str, float] = {}
    for record, _ in rows:
        for name, metric in labelled(record).items():
            if (floor := _floor(metric)) is not None:
                found.setdefault(name, floor)
    return found


def _floor(metric: Metric) -> float | None:
    return (metric.model_extra or {}).get("floor")


def _digits(name: str) -> int:
    return 4 if name.startswith(("FID", "FD")) else 3


def _name(record: Record, row: Mapping[str, Any], mark: int | None) -> Text:
    method = "DDPM" if row["baseline"] else f"{record.method.basis} {row['ladder']}"
    run = record.run_id if len(record.run_id) <= 20 else f"…{record.run_id[-12:]}"
    how = f"{record.method.sampler}, {record.method.sample_steps} steps"
    return Text.assemble(method, f" ({mark})" if mark else "", (f"\n{how}\n{run}", "dim"))


def _cells(record: Record, row: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    cost = record.cost
    flops = None if cost.sample_flops is None else cost.sample_flops / 1e9
    ratios = [null(row[f"ratio {name}"]) for name in _RATIOS.values()]
    return [
        *(significant(null(row[name]), _digits(name)) for name in metrics),
        significant(flops),
        f"{duration(cost.train_seconds)}\n{count(cost.train_images)}",
        significant(null(row["seconds_per_image"])),
        *(_times(ratio) for ratio in ratios),
    ]


def _times(ratio: float | None) -> str:
    if ratio is None:
        return NONE
    return f"{ratio:,.2f}x" if ratio >= 0.1 else f"{significant(ratio, 2)}x"
