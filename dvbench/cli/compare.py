"""``dvbench compare``: runs beside their baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvbench.report.compare import Comparison
    from dvbench.report.literature import Claim

REGRESSION = 3  # the exit code
TABLES = ("table", "markdown", "latex")
FORMATS = (*TABLES, "csv", "json", "html")


@click.command()
@click.argument("runs", nargs=-1, metavar="[BENCHMARK | RUN | DIR]...")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, metavar="DIR",
              help="Where the runs are.")  # fmt: skip
@click.option("--against", metavar="RUN", help="Hold all against this run, an id or a directory, and its other seeds.")
@click.option("--at", metavar="UNIT[=VALUE]", help="Quality at equal training images, seconds or flops: "
              "at VALUE, or at the most that all have reached.")  # fmt: skip
@click.option("--metrics", metavar="NAME,...", help="Metrics to show in a table, such as fd,kid,recall; or all.  "
              "[default: fid or fd, and kid]")  # fmt: skip
@click.option("--literature", is_flag=True, help="Show what papers claim, too, apart from what was measured.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True,
              help="csv, json and html hold all metrics; csv and json hold raw values.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file, whole or not at all.")
@click.option("--fail-on-regression", is_flag=True,
              help="Exit with 3 where a run is worse than its baseline in quality or clock by more than the noise of "
              "several seeds, or needs more FLOPs an image.")  # fmt: skip
def compare(
    runs: tuple[str, ...],
    results: Path,
    against: str | None,
    at: str | None,
    metrics: str | None,
    literature: bool,
    style: str,
    out: Path | None,
    fail_on_regression: bool,
) -> None:
    """Show runs beside DDPM: quality, cost, and how many times less they cost.

    Without arguments, all finished runs are shown; those that differ only in their seed share a row. A ratio is the
    baseline's cost divided by the run's: above 1 is better.
    """
    from dvbench.errors import UsageError
    from dvbench.report.compare import compare as compare_runs
    from dvbench.report.literature import read

    if metrics is not None and style not in TABLES:
        raise UsageError(f"--metrics chooses the columns of a table, and --format {style} holds all: leave it out")
    if literature and style == "json":
        raise UsageError("--format json holds runs alone: choose another format, such as csv, with --literature")
    comparison = compare_runs(runs, results, against=against, at=at)
    _put(comparison, read() if literature else [], style, metrics, out)
    for note in comparison.notes:
        click.echo(note, err=True)
    if fail_on_regression:
        _judge(comparison)


def _put(comparison: Comparison, claims: Sequence[Claim], style: str, metrics: str | None, out: Path | None) -> None:
    """Print the comparison, or write it to ``out``."""
    from dvbench.report.formats import everything, render, terminal
    from dvbench.report.table import unshown

    if out is not None:
        from dvbench.files import write_text

        write_text(out, render(style, comparison, claims, metrics))
    elif style == "table":
        from dvbench.cli.options import console

        held = console()
        held.print(terminal(everything(comparison, claims, metrics), held.width))
    else:
        click.echo(render(style, comparison, claims, metrics), nl=False)
    if style in TABLES and metrics is None and (left := unshown(comparison)):
        click.echo(f"also measured: {', '.join(left)} (--metrics all shows them)", err=True)


def _judge(comparison: Comparison) -> None:
    """Say what has become worse, and exit where anything has."""
    from dvbench.report.regressions import regressions, unjudged

    worse = regressions(comparison)
    for line in (*unjudged(comparison), *worse):
        click.echo(line, err=True)
    if worse:
        click.get_current_context().exit(REGRESSION)
