"""``dvbench run``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvbench.cli.options import console, settings_option
from dvbench.entry import overrides, rounds

if TYPE_CHECKING:
    from dvbench.config import Config


def _numbers(of: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, str | None], list[Any] | None]:
    """Return a callback that reads comma-separated numbers."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[Any] | None:
        try:
            return None if value is None else [of(part) for part in value.split(",")]
        except ValueError:
            what = "whole numbers" if of is int else "numbers"
            raise click.BadParameter(f"{value!r} is no list of {what}: separate them by commas") from None

    return read


@click.command()
@click.argument("benchmark")
@click.option("--preset", help="A published method: ddpm, dvdp, subspace or blurring; other options override it.")
@click.option("--basis", help="Decomposition basis; identity is DDPM.")
@click.option("--schedule", help="Noise schedule.")
@click.option("--backbone", help="Network.")
@click.option("--sampler", help="Sampler.")
@click.option("--detector", help="Feature network of the distances.")
@click.option("--ladder", metavar="N,N,...", callback=_numbers(int), help="Falling side lengths, such as 32,16,8.")
@click.option("--turns", metavar="F,F,...", callback=_numbers(float), help="Turning points as rising fractions of T.")
@click.option("--attenuation", type=float, help="Gain, relative to the kept one, at which a component is dropped.")
@click.option("--prediction", type=click.Choice(["eps", "v", "x0"]), help="What the network predicts.")
@click.option("--sample-steps", type=int, metavar="N", help="Network calls an image.")
@click.option("--samples", type=int, metavar="N", help="Images to draw.")
@click.option("--seed", type=int, metavar="N", help="Seed of every random number.")
@click.option("--train-images", type=int, metavar="N", help="Training budget in images.")
@click.option("--train-seconds", type=float, metavar="S", help="Training budget in seconds.")
@click.option("--microbatch", type=int, metavar="N", help="Most images in the network at a time while training.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]))
@click.option("--threads", type=int, metavar="N", help="CPU threads.")
@click.option("--compile", is_flag=True, default=None, help="Compile the network for the shapes of each level.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]))
@click.option("--data", metavar="PATH", help="Where the dataset's own files are: a directory or a zip.")
@settings_option("Any option of the configuration or of a plugin, such as backbone.width=64.")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
              help="Directory for runs.")  # fmt: skip
@click.option("--eval-every", type=float, metavar="N",
              help="Measure while training too, after every N of the budget (images or seconds).")  # fmt: skip
@click.option("--baseline", is_flag=True, help="Run DDPM too, with the same network, budget and seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Run with N seeds, from --seed on: intervals then cover the luck of training.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the configuration and what is known of its cost; read no data.")
@click.option("--fresh", is_flag=True, help="Start a new run even where this one is finished or under way.")
@click.option("--json", "as_json", is_flag=True, help="Print each record as one line of JSON.")
def run(
    benchmark: str,
    settings: dict[str, Any],
    results: Path,
    baseline: bool,
    seeds: int,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train, sample and measure BENCHMARK: a name, or a YAML file's path.

    A run that was interrupted goes on; a finished one is reported, not repeated. One whose training inputs equal a
    finished run's takes that run's weights.
    """
    first, *others = rounds(benchmark, overrides(options, settings), baseline=baseline, seeds=seeds)
    if dry_run:
        _forecast(first, as_json=as_json)
        return
    from dvbench.bench import conduct
    from dvbench.progress import Reporter
    from dvbench.report.compare import label

    for configs in (first, *others):
        for directory, record in conduct(configs, results, Reporter(), fresh=fresh):
            if as_json:
                click.echo(json.dumps(record.model_dump(mode="json")))
            else:
                measured = ", ".join(f"{label(metric)} {metric.value:.4g}" for metric in record.metrics)
                click.echo(f"{record.run_id}: {measured}; pictures in {directory.picture}")


def _forecast(configs: list[Config], *, as_json: bool) -> None:
    """Print what would run, and what is known of its cost."""
    import yaml

    from dvbench.bench import method_name
    from dvbench.dryrun import Forecast, table
    from dvbench.registry import registry

    forecasts = [Forecast.of(config, registry()) for config in configs]
    for forecast in forecasts:
        config = forecast.config.to_json()
        if as_json:
            click.echo(json.dumps({"config": config, "cost": forecast.cost}))
        else:
            click.echo(f"---\n{yaml.safe_dump(config, sort_keys=False)}", nl=False)
    if not as_json:
        click.echo()
        console().print(table([method_name(config) for config in configs], forecasts))
    if not all(forecast.countable for forecast in forecasts):
        name = configs[-1].backbone["name"]
        click.echo(f"backbone {name} is made from the training images: without them its cost is not known", err=True)
