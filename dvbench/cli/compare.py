"""``dvbench compare``: runs beside their DDPM baseline."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, metavar="[BENCHMARK | RUN | DIR]...")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="Where the runs are.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table to read, or JSON with raw values.",
)
def compare(runs: tuple[str, ...], results: Path, style: str) -> None:
    """Show runs beside DDPM: distances, cost, and how many times less they cost.

    Without arguments, all finished runs are shown. A ratio is DDPM's cost divided by the run's: above 1 is better.
    """
    from dvbench.report.compare import compare as compare_runs

    comparison = compare_runs(runs, results)
    if style == "json":
        import json

        click.echo(json.dumps(comparison.to_json(), indent=1, allow_nan=False))
    else:
        from dvbench.cli.options import console
        from dvbench.report.table import tables

        console().print(tables(comparison))
    for note in comparison.notes:
        click.echo(note, err=True)
