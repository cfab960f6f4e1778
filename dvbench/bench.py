"""The conductor: config -> data -> train -> sample -> measure -> record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from dvbench import checkpoint, evaluation
from dvbench import record as records
from dvbench.api import KINDS
from dvbench.config import Config, resolve
from dvbench.environment import autocast, describe
from dvbench.errors import UsageError
from dvbench.files import write_text, write_whole
from dvbench.interruption import Interruption
from dvbench.measure.clock import LevelClock, peak_memory
from dvbench.picture import contact_sheet
from dvbench.prediction import DataRange, data_range
from dvbench.progress import Reporter
from dvbench.record import Record
from dvbench.registry import Registry, registry
from dvbench.rundir import Log, RunDirectory, place, trained
from dvbench.sampling import Denoiser, draw
from dvbench.setup import Parts, assemble, check_schedule, on_this_machine
from dvbench.training import Progress, Trainer

Json = dict[str, Any]


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def configure(benchmark: str, overrides: Mapping[str, Any], plugins: Registry | None = None) -> Config:
    """Resolve a benchmark and dotted overrides for this machine and check them as far as that goes without data."""
    plugins = plugins or registry()
    config = on_this_machine(resolve(benchmark, overrides, plugins))
    check_schedule(config, plugins)
    return config


def conduct(config: Config, results: Path, reporter: Reporter, *, fresh: bool = False) -> tuple[RunDirectory, Record]:
    """Do the run of ``config``, go on with it where it stopped, or return it where it is finished.

    Nothing is written before data, network and all options have proved sound. An interruption (KeyboardInterrupt)
    leaves a run that goes on when asked for again; any other failure leaves a record whose status is "failed".
    """
    config_hash = records.digest(config.to_json())
    directory = place(results, config, config_hash, fresh=fresh)
    before = directory.read()
    if before is not None and before.status == "finished":
        reporter.say(f"{directory.path} is finished: this is its record (--fresh runs it again)")
        return directory, before
    reporter.say(f"{config.benchmark}, {method_name(config)}: preparing")
    run = Run(assemble(config, registry()), directory, reporter)
    run.begin(before, config_hash)
    try:
        with Interruption() as interruption:
            run.work(interruption, None if fresh else results)
    except BaseException as error:
        run.stop("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    return directory, run.finish()


def method_name(config: Config) -> str:
    """Return what people call the method: DDPM, or the basis with its ladder."""
    name = config.plugin("basis")[0]
    return "DDPM" if name == "identity" else f"{name} {'-'.join(map(str, config.ladder))}"


class Run:
    """One run in its directory, phase by phase; each phase leaves what the next, or a later process, goes on from."""

    def __init__(self, parts: Parts, directory: RunDirectory, reporter: Reporter) -> None:
        self.parts, self.config, self.directory, self.reporter = parts, parts.config, directory, reporter
        self.autocast = autocast(parts.device, self.config.precision)
        self.log = Log(directory.path / "log.jsonl")
        self.record: Record

    def begin(self, before: Record | None, config_hash: str) -> None:
        """Write the record of a run that has not come far yet, and the configuration."""
        config, process = self.config, self.parts.process
        turns = [turn / process.T for turn in process.turns]
        names = {kind: config.plugin(kind)[0] for kind in KINDS}
        nothing = dict.fromkeys(records.Cost.model_fields)
        self.record = Record.model_validate({
            "run_id": self.directory.run_id,
            "benchmark": config.benchmark,
            "status": "interrupted",  # until it is finished: a killed process cannot say so any more
            "seed": config.seed,
            "started": before.started if before else now(),
            "finished": None,
            "resumed": [*before.resumed, now()] if before else [],
            "config": config.to_json(),
            "config_hash": config_hash,
            "method": {
                **{kind: names[kind] for kind in ("basis", "schedule", "backbone", "sampler")},
                "ladder": list(config.ladder),
                "turns": turns,
                "attenuation": config.schedule.get("attenuation"),
                "prediction": config.prediction,
                "sample_steps": config.sampling.steps,
                "train_hash": self.parts.train_hash,
                "trained_by": None,
            },
            "environment": describe(self.parts.device, config.precision, self.parts.plugins),
            "cost": {**nothing, "flops_per_mac": 2},
            "metrics": [],
        })  # fmt: skip
        records.write(self.directory.record, self.record)
        write_text(self.directory.path / "config.yaml", yaml.safe_dump(config.to_json(), sort_keys=False))
        self.log.add(event="resumed" if before else "started", time=now())

    def work(self, interruption: Interruption, results: Path | None) -> None:
        """Train (or take the weights of a run in ``results`` with equal training inputs), sample, measure."""
        torch.set_float32_matmul_precision("high")
        cost: Json = evaluation.network_cost(self.parts.network, self.parts.process, self.config.sampling.steps)
        limits, training = self._train(interruption, results)
        images_per_level = training.pop("images_per_level")
        cost |= training
        cost["train_flops_per_image"] = evaluation.training_flops(cost["forward_flops"], images_per_level)
        cost["train_images_per_level"] = images_per_level
        samples, sampling = self._sample(interruption, limits)
        cost |= sampling
        cost["peak_memory_bytes"] = peak_memory(self.parts.device)
        self.reporter.say(f"measuring against {len(self.parts.dataset.held_out)} held-out images")
        write_whole(self.directory.samples, lambda file: np.savez_compressed(file, samples=samples))
        write_whole(self.directory.picture, lambda file: file.write(contact_sheet(samples)))
        dataset = self.parts.dataset
        metrics = evaluation.distances(self.parts.detector, samples, dataset.train, dataset.held_out, self.config.seed)
        self._note(cost=cost, metrics=metrics)

    def stop(self, status: str) -> None:
        """Leave word that the run was interrupted or has failed."""
        self._note(status=status)
        self.log.add(event=status, time=now())
        self._write()

    def finish(self) -> Record:
        """Write the finished record; what only an unfinished run needs goes away."""
        self._note(status="finished", finished=now())
        self.log.add(event="finished", time=now())
        self._write()
        self.directory.training.unlink(missing_ok=True)
        self.directory.drawn.unlink(missing_ok=True)
        return self.record

    def _note(self, **values: Any) -> None:
        self.record = Record.model_validate(self.record.model_dump() | values)

    def _write(self) -> None:
        self.log.write()
        records.write(self.directory.record, self.record)

    def _train(self, interruption: Interruption, results: Path | None) -> tuple[DataRange, Json]:
        """Put trained weights into the network; return what clipping needs and what the training cost."""
        parts, own = self.parts, self.directory.weights
        source = own if own.exists() else None
        if source is None and not self.directory.training.exists() and results is not None:
            for run, _ in trained(results, self.config.benchmark, parts.train_hash):
                source = run.weights
                self.reporter.say(f"taking the weights that {run.run_id} trained from the same inputs")
                break
        if source is None:
            return self._train_anew(interruption)
        tensors, state = checkpoint.read(source)
        _load(source, lambda: parts.network.load_state_dict(tensors))
        if source != own:
            self._note(method=self.record.method.model_dump() | {"trained_by": source.parents[1].name})
            checkpoint.write(own, tensors, state)
        return _limits(state), state["cost"]

    def _train_anew(self, interruption: Interruption) -> tuple[DataRange, Json]:
        parts, options, file = self.parts, self.config.training, self.directory.training
        tensors, state = checkpoint.read(file) if file.exists() else ({}, {})
        images = parts.dataset.train
        limits = _limits(state) if state else data_range(parts.process, images)
        if prepare := getattr(parts.network, "prepare", None):
            prepare(parts.process, images, self.config.prediction)
        cost: Json = {"train_seconds": 0.0, "train_images": 0, "images_per_level": [0] * (parts.process.K + 1)}
        if any(parameter.requires_grad for parameter in parts.network.parameters()):
            trainer = Trainer(
                parts.network, parts.process, images, limits, self.config.prediction, options, self.config.seed,
                parts.device, self.autocast, loss_scaling=self.config.precision == "fp16",
            )  # fmt: skip
            if state:
                _load(file, lambda: trainer.load(tensors, state["trainer"]))
                self.reporter.say(f"going on after {trainer.progress.images} training images")
            cost = self._teach(trainer, limits, interruption)
            parts.network.load_state_dict(trainer.ema.state_dict())
        checkpoint.write(self.directory.weights, parts.network.state_dict(), {"limits": limits.to_json(), "cost": cost})
        return limits, cost

    def _teach(self, trainer: Trainer, limits: DataRange, interruption: Interruption) -> Json:
        """Train to the end of the budget, with a checkpoint every now and then and at an interruption."""
        saved = logged = time.monotonic()
        first = (trainer.progress.images, trainer.progress.seconds)

        def save() -> None:
            nonlocal saved
            state = {"limits": limits.to_json(), "trainer": trainer.state()}
            checkpoint.write(self.directory.training, trainer.tensors(), state)
            self.log.write()
            saved = time.monotonic()

        with self.reporter.task(f"training {method_name(self.config)}") as update:

            def after_step(progress: Progress) -> None:
                nonlocal logged
                speed = (progress.images - first[0]) / max(progress.seconds - first[1], 1e-9)
                update(trainer.fraction(), f"loss {progress.loss:.4f}, {speed:.0f} images/s")
                if time.monotonic() - logged > 1.0 or trainer.fraction() >= 1.0:
                    logged = time.monotonic()
                    held = {"images": progress.images, "seconds": progress.seconds, "loss": progress.loss}
                    self.log.add(event="training", **held)
                if interruption.asked or time.monotonic() - saved > self.config.training.checkpoint_seconds:
                    save()
                    interruption.check()

            trainer.train(after_step)
        progress = trainer.progress
        self.log.add(event="trained", images=progress.images, seconds=progress.seconds)
        return {
            "train_seconds": progress.seconds,
            "train_images": progress.images,
            "images_per_level": progress.images_per_level,
        }

    def _sample(self, interruption: Interruption, limits: DataRange) -> tuple[npt.NDArray[np.uint8], Json]:
        """Draw all samples, batch by batch; what is drawn survives an interruption."""
        parts, options, file = self.parts, self.config.sampling, self.directory.drawn
        levels = parts.process.K + 1
        tensors, state = checkpoint.read(file) if file.exists() else ({}, {"seconds": 0.0, "levels": [0.0] * levels})
        clock = LevelClock(parts.device)
        network = parts.network.eval()
        denoiser = Denoiser(network, parts.process, self.config.prediction, limits, self.autocast, clock)
        drawn = [tensors["samples"].numpy()] if tensors else []
        done = sum(map(len, drawn))
        calls = 0
        with self.reporter.task(f"sampling {method_name(self.config)}") as update:

            def before_call() -> None:
                nonlocal calls
                interruption.check()
                share = min(options.batch, options.samples - done) / options.samples
                update(done / options.samples + share * calls / options.steps, f"{options.samples} images")
                calls += 1

            if done < options.samples:
                self._warm_up(denoiser)
            denoiser.before_call = before_call
            while done < options.samples:
                calls, size = 0, min(options.batch, options.samples - done)
                started = time.perf_counter()
                images = draw(
                    parts.sampler, denoiser, options.steps, self.config.seed, range(done, done + size), parts.device
                )
                state["seconds"] += time.perf_counter() - started
                drawn.append(images)
                done += size
                spent = [clock.seconds.get(level, 0.0) for level in range(levels)]
                held = {
                    "seconds": state["seconds"],
                    "levels": [a + b for a, b in zip(state["levels"], spent, strict=True)],
                }
                if done < options.samples:
                    checkpoint.write(file, {"samples": torch.from_numpy(np.concatenate(drawn))}, held)
                else:
                    state = held
            update(1.0, f"{options.samples} images")
        return np.concatenate(drawn), {
            "sample_seconds": state["seconds"],
            "samples": options.samples,
            "seconds_per_level": state["levels"],
        }

    def _warm_up(self, denoiser: Denoiser) -> None:
        """Call the network once a level before the clock runs: libraries choose and build their kernels then."""
        process = self.parts.process
        batch = min(self.config.sampling.batch, self.config.sampling.samples)
        with torch.inference_mode():
            for level, side in enumerate(process.ladder):
                x = torch.zeros(batch, denoiser.network.channels, side, side, device=self.parts.device)
                denoiser(x, process.T, level)
        denoiser.clock.stop()
        denoiser.clock.seconds.clear()


def _limits(state: Mapping[str, Any]) -> DataRange:
    held = state["limits"]
    return DataRange(**{**held, "faded": tuple(held["faded"])})


def _load(file: Path, load: Any) -> None:
    """Load tensors that must fit; where they do not, the file is of another network."""
    try:
        load()
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"the checkpoint {file} does not fit this network: delete it, or give --fresh to start a new run"
        ) from error
