"""How fast dvbench is: its network beside others, and how much of the FLOPs saved arrives on the clock.

    python benchmarks/speed.py networks         time what this part compares, write its record, print its table
    python benchmarks/speed.py operators
    python benchmarks/speed.py saving
    python benchmarks/speed.py data
    python benchmarks/speed.py networks --show  print the table of the record that is there

They measure the processor, or with --device cuda a GPU, on which networks and images are larger.

What is compared takes turns in one process, round after round, so that a slow moment of the machine meets all alike.
Every ratio is the median over the rounds of the ratio within a round, with its quartiles.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt
import torch
from contenders import BATCH, COMPARED, OURS, Call, flops, inputs, one_pass, unets
from PIL import Image, ImageOps

from dvbench.bench import configure
from dvbench.compilation import compiled, copied
from dvbench.costs import network_cost, training_flops
from dvbench.drawing import Drawing
from dvbench.environment import DTYPES, autocast, bf16_speed_up, choose_device, choose_precision, describe, set_up, tf32
from dvbench.files import write_json
from dvbench.measure.clock import wait
from dvbench.prediction import data_range, to_float
from dvbench.randomness import order_of_epoch
from dvbench.registry import registry, version
from dvbench.setup import assemble
from dvbench.training import Trainer

RESULTS = Path(__file__).parents[1] / "results" / "reference" / "speed"
Row: TypeAlias = dict[str, Any]
SIDES = {"cpu": (32, 64), "cuda": (64,)}
SIDE_OF_PRODUCT = {"cpu": 2048, "cuda": 8192}
# Side and batch, and options of the network; on a GPU it is that of DDPM at 256 px (Ho et al. 2020, appendix B).
SAVED = {"cpu": ((32, 64), (32, 256), (64, 64), (64, 256)), "cuda": ((64, 64), (64, 256), (256, 16))}
NETWORKS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "cuda": {
        "backbone.width": 128,
        "backbone.multipliers": [1, 1, 2, 2, 4, 4],
        "backbone.blocks": 2,
        "backbone.attention": [16],
    },
}
STEPS = 6  # network calls an image
TURNS: dict[int, tuple[float, ...]] = {1: (), 2: (0.4,), 3: (0.25, 0.55)}  # turning points, by levels


def race(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each contender tells in each round, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            spent = run()
            if number:
                seconds[name].append(spent)
    return seconds


def timed(call: Call, device: torch.device) -> float:
    """Return the seconds that ``call`` takes."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


def spread(values: Sequence[float]) -> list[float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return [middle, low, high]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the median and the quartiles of the ratio within each round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def networks(rounds: int, device: torch.device) -> Iterator[Row]:
    """Time the U-Nets of three libraries, of the same stages and widths, and ours at each of its levels."""
    for precision, side in product(precisions(device), SIDES[device.type]):
        yield from _side(side, device, precision, rounds)


def precisions(device: torch.device) -> list[str]:
    """Return the precisions in which the processor computes, or the one that a run chooses on a GPU."""
    if device.type == "cuda":
        return [choose_precision("auto", device)]
    if bf16_speed_up():
        return ["fp32", "bf16"]
    click.echo("this processor does not compute in bf16: it is left out", err=True)
    return ["fp32"]


def _side(side: int, device: torch.device, precision: str, rounds: int) -> Iterator[Row]:
    order = SIDE_OF_PRODUCT[device.type]
    factor = torch.randn(order, order, dtype=DTYPES.get(precision, torch.float32), device=device)

    def multiply() -> None:
        with tf32(device):
            factor @ factor

    for mode, passes in (("forward", 1), ("training step", 3)):
        contenders = unets(side, device, precision, drawing=mode == "forward")
        # Counted in fp32: torch's counter takes some of what autocast does apart and fails, and what a GPU has recorded
        # it does not see; the FLOPs are the same.
        exact = unets(side, device, "fp32", drawing=False)
        work: dict[str, float] = {name: flops(call) for name, (_, call) in exact.items()}
        if device.type == "cpu" and side == SIDES["cpu"][0]:  # compiling takes minutes
            ours, _ = contenders[OURS]
            quick = copied(ours)  # type: ignore[arg-type]
            compiled(quick)
            name = f"{OURS}, compiled"
            contenders[name], work[name] = (quick, partial(quick, *inputs(side, device), 0)), work[OURS]
        runs: dict[str, Callable[[], float]] = {
            name: partial(timed, one_pass(mode, network, call, device, precision), device)
            for name, (network, call) in contenders.items()
        }
        runs["matrix product"] = partial(timed, multiply, device)
        work["matrix product"] = 2 * order**3 / passes
        seconds = race(runs, rounds)
        rates = {name: [passes * work[name] / spent / 1e9 for spent in seconds[name]] for name in seconds}
        for name in seconds:
            # A step of training counts three times the FLOPs of a forward pass.
            yield {
                "side": side, "precision": precision, "mode": mode, "what": name, "batch": BATCH, "rounds": rounds,
                "flops": passes * work[name], "seconds": spread(seconds[name]), "gflops": spread(rates[name]),
                "ours_over_it": ratios(rates[OURS], rates[name]),
            }  # fmt: skip


def operators(rounds: int, device: torch.device) -> Iterator[Row]:
    """Tell how the time of dvbench's network is spent, at its whole size."""
    for precision, mode in product(precisions(device), ("forward", "training step")):
        network, call = unets(SIDES[device.type][0], device, precision, drawing=mode == "forward")[OURS]
        run = one_pass(mode, network, call, device, precision)
        run()
        on_gpu = device.type == "cuda"
        activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[activity]) as profile:
            for _ in range(rounds):
                run()
            wait(device)
        spent = {
            event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
            for event in profile.key_averages()
        }
        total = sum(spent.values())
        for name, time_ in sorted(spent.items(), key=lambda item: -item[1])[:8]:
            yield {"precision": precision, "mode": mode, "operator": name, "share": time_ / total}


class Method:
    """What trains and draws with one ladder, and what it should cost."""

    def __init__(self, ladder: Sequence[int], batch: int, device: torch.device, precision: str) -> None:
        turns = TURNS[len(ladder)]
        asked = {
            "basis.name": "dct" if turns else "identity",
            "ladder": list(ladder),
            **({"schedule.turns": list(turns), "schedule.attenuation": 0.3} if turns else {}),
            "device": device.type,
            "precision": precision,
            "jump": "sigma",
            "backbone.nested": False,
            "training.batch": batch,
            "training.optimizer": "adamw",
            "sampling.batch": batch,
            "sampling.steps": STEPS,
            "dataset.train_images": 512,
            "dataset.held_out_images": 2,
            **NETWORKS[device.type],
        }
        config = configure("cats", asked)
        parts = assemble(config, registry())
        limits = data_range(parts.process, parts.dataset.train)
        self.batch = batch
        self.cost = network_cost(parts.network, parts.process, STEPS, device)
        cast = autocast(device, precision)
        self.trainer = Trainer(
            parts.network,
            parts.process,
            parts.dataset.train,
            limits,
            config.prediction,
            config.training,
            0,
            device,
            cast,
        )
        if device.type != "cpu":  # as a run does
            self.trainer.warm_up()
        self.drawing = Drawing(parts, self.trainer.ema, limits)
        self.drawn, self.in_network = 0.0, 0.0

    def train(self) -> float:
        """Take a step and return its seconds."""
        before = self.trainer.progress.seconds
        self.trainer.step()
        return self.trainer.progress.seconds - before

    def draw(self) -> float:
        """Draw a batch and return its seconds."""
        _, spent = self.drawing.draw(range(self.batch))
        self.drawn, self.in_network = self.drawn + spent["seconds"], self.in_network + spent["network"]
        return float(spent["seconds"])

    @property
    def train_flops(self) -> float:
        """FLOPs of a training image."""
        seen = self.trainer.progress.images_per_level
        return training_flops(self.cost["forward_flops"], self.cost["backward_flops"], seen) or 0.0


def saving(rounds: int, device: torch.device) -> Iterator[Row]:
    """Train and draw with and without dropping dimensions: the ratios of FLOPs, and those of the clock."""
    for precision, (side, batch) in product(precisions(device), SAVED[device.type]):
        # Four times the pixels in four times the images: the rounds that take longest are the fewest.
        often = max(rounds // 3, 3) if side * batch > 64 * 64 else rounds
        ladders = {"DDPM": [side], "2 levels": [side, side // 2], "3 levels": [side, side // 2, side // 4]}
        methods = {name: Method(ladder, batch, device, precision) for name, ladder in ladders.items()}
        base = methods["DDPM"]
        training = race({name: method.train for name, method in methods.items()}, often)
        drawing = race({name: method.draw for name, method in methods.items()}, often)
        for name, method in methods.items():
            progress = method.trainer.progress
            yield {
                "precision": precision, "side": side, "batch": batch, "what": name, "rounds": often,
                "sample_flop_ratio": base.cost["sample_flops"] / method.cost["sample_flops"],
                "sample_speedup": ratios(drawing["DDPM"], drawing[name]),
                "sample_seconds": spread(drawing[name]),
                "sample_overhead": 1 - method.in_network / method.drawn,
                "train_flop_ratio": base.train_flops / method.train_flops,
                "train_speedup": ratios(training["DDPM"], training[name]),
                "train_seconds": spread(training[name]),
                "train_overhead": 1 - progress.network_seconds / progress.seconds,
            }  # fmt: skip


def data(rounds: int, device: torch.device) -> Iterator[Row]:
    """Read an epoch of a folder of pictures out of the cache, and by decoding them."""
    count, side = 512, 64
    cats = registry().load("dataset", "cats")(256, train_images=count, held_out_images=1)
    with tempfile.TemporaryDirectory() as place:
        for index, picture in enumerate(cats.train):
            Image.fromarray(picture).save(Path(place, f"{index}.png"))
        folder = registry().load("dataset", "folder")(side, place)
        images = folder.train

        def decode(file: Path) -> npt.NDArray[np.uint8]:
            with Image.open(file) as picture:
                return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS))

        def cached() -> None:
            for chosen in np.array_split(order_of_epoch(0, 0, len(images)), len(images) // BATCH):
                to_float(images[chosen], device)

        def decoded() -> None:
            with ThreadPoolExecutor() as pool:  # as the dataset does it once
                to_float(np.stack(list(pool.map(decode, Path(place).iterdir()))), device)

        contenders = {"cache": partial(timed, cached, device), "decoding": partial(timed, decoded, device)}
        seconds = race(contenders, rounds)
    for name in seconds:
        yield {
            "what": name, "rounds": rounds, "pictures": count, "side": side,
            "images_per_second": spread([count / spent for spent in seconds[name]]),
            "cache_over_it": ratios(seconds[name], seconds["cache"]),
        }  # fmt: skip


def told(values: Sequence[float], form: str) -> str:
    """Write a median with its quartiles."""
    middle, low, high = (format(value, form) for value in values)
    return f"{middle} ({low} to {high})"


def networks_table(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    """Yield the head and the rows of what ``networks`` found."""
    yield "px", "precision", "", "network", "GFLOP/s", "dvbench's over it"
    for row in rows:
        yield (
            *map(str, (row["side"], row["precision"], row["mode"], row["what"])),
            *(told(row["gflops"], ".0f"), told(row["ours_over_it"], ".2f")),
        )


def operators_table(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    """Yield the head and the rows of what ``operators`` found."""
    yield "precision", "", "operator", "share of the time"
    for row in rows:
        yield row["precision"], row["mode"], f"`{row['operator']}`", f"{row['share']:.1%}"


def saving_table(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    """Yield the head and the rows of what ``saving`` found."""
    of = ("FLOPs", "clock", "outside the network")
    yield (
        "precision",
        "px",
        "batch",
        "method",
        *(f"sampling: {what}" for what in of),
        *(f"training: {what}" for what in of),
    )
    for row in rows:
        yield (
            *map(str, (row["precision"], row["side"], row["batch"], row["what"])),
            *(f"{row['sample_flop_ratio']:.2f}", told(row["sample_speedup"], ".2f"), f"{row['sample_overhead']:.1%}"),
            *(f"{row['train_flop_ratio']:.2f}", told(row["train_speedup"], ".2f"), f"{row['train_overhead']:.1%}"),
        )


def data_table(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    """Yield the head and the rows of what ``data`` found."""
    yield "pictures from", "images a second", "the cache is faster by"
    for row in rows:
        yield row["what"], told(row["images_per_second"], ",.0f"), told(row["cache_over_it"], ".1f")


PARTS = {
    "networks": (networks, networks_table),
    "operators": (operators, operators_table),
    "saving": (saving, saving_table),
    "data": (data, data_table),
}


@click.command()
@click.argument("part", type=click.Choice(list(PARTS)))
@click.option("--show", is_flag=True, help="Only print the table of the record that is there.")
@click.option("--rounds", type=click.IntRange(2), default=9, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--device", "kind", type=click.Choice(list(SIDES)), default="cpu", show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Directory for the record.")
def main(part: str, show: bool, rounds: int, threads: int, kind: str, results: Path) -> None:
    """Measure a PART of what makes dvbench fast on this machine."""
    measure, table = PARTS[part]
    file = results / (f"{part}.json" if kind == "cpu" else f"{part}-{kind}.json")
    if not show:
        device = choose_device(kind)
        set_up(threads)
        measured = list(measure(rounds, device))
        plugins = (
            {name: version(name) for name in ("dvbench", *COMPARED)}
            if part == "networks"
            else {"dvbench": version("dvbench")}
        )
        on = "" if kind == "cpu" else f" --device {kind}"
        environment = describe(device, choose_precision("auto", device), plugins, {})
        write_json(
            file,
            {
                "command": f"python benchmarks/speed.py {part} --rounds {rounds} --threads {threads}{on}",
                "environment": environment,
                "rows": measured,
            },
        )
    head, *lines = table(json.loads(file.read_text(encoding="utf-8"))["rows"])
    for cells in (head, ["---"] * len(head), *lines):
        click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
