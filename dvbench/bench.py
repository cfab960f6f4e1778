"""The conductor: config -> data -> train -> sample -> measure -> record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from dvbench import record as records
from dvbench.api import KINDS
from dvbench.config import Config, resolve
from dvbench.costs import network_cost, training_flops
from dvbench.curve import of_metric
from dvbench.design import create
from dvbench.environment import describe
from dvbench.errors import UsageError
from dvbench.evaluation import Judge
from dvbench.files import told, write_text, write_whole
from dvbench.interruption import Interruption
from dvbench.measure.clock import peak_memory, reset_peak_memory
from dvbench.phases import Json, Work
from dvbench.picture import contact_sheet
from dvbench.progress import Reporter
from dvbench.record import Record
from dvbench.registry import Registry, registry
from dvbench.rundir import Log, RunDirectory, place
from dvbench.setup import Parts, assemble, check_schedule, on_this_machine, run_hash


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def configure(benchmark: str, overrides: Mapping[str, Any], plugins: Registry | None = None) -> Config:
    """Resolve a benchmark and dotted overrides for this machine and check them as far as that goes without data."""
    plugins = plugins or registry()
    config = on_this_machine(resolve(benchmark, overrides, plugins))
    check_schedule(config, plugins)
    return config


def method_name(config: Config) -> str:
    """Return what people call the method: DDPM, or the basis with its ladder."""
    name = config.plugin("basis")[0]
    return "DDPM" if name == "identity" else f"{name} {'-'.join(map(str, config.ladder))}"


@dataclass(frozen=True)
class Plan:
    """A run that has proved sound: its directory, the record it left before, and its parts (None: it is finished)."""

    directory: RunDirectory
    before: Record | None
    config: Config
    parts: Parts | None


def conduct(
    configs: Sequence[Config], results: Path, reporter: Reporter, *, fresh: bool = False
) -> Iterator[tuple[RunDirectory, Record]]:
    """Do the runs of ``configs`` and yield each when it is finished: begun, gone on with, or found finished.

    Nothing is written before the data, networks and options of all have proved sound. An interruption
    (KeyboardInterrupt) leaves a run that goes on when asked for again; any other failure leaves a record whose status
    is "failed".
    """
    plans = [_plan(config, results, reporter, fresh=fresh) for config in configs]
    for plan in plans:
        yield _execute(plan, results, reporter, fresh=fresh)


def _plan(config: Config, results: Path, reporter: Reporter, *, fresh: bool) -> Plan:
    directory = place(results, config, run_hash(config, registry()), fresh=fresh)
    before = directory.read()
    if before is not None and before.status == "finished":
        _check_data(directory, before, config)
        return Plan(directory, before, config, None)
    reporter.say(f"{config.benchmark}, {method_name(config)}: preparing")
    return Plan(directory, before, config, assemble(config, registry()))


def _check_data(directory: RunDirectory, record: Record, config: Config) -> None:
    """Raise UsageError where the user's own data are others than those of a finished run; the path tells nothing."""
    held = record.method.fingerprint
    if held is None or config.dataset.get("data") is None:
        return
    try:
        found = create(config, registry(), "dataset", size=config.ladder[0]).fingerprint
    except UsageError:  # they are no more there, and the record stands
        return
    if found != held:
        raise UsageError(
            f"the data in {config.dataset['data']} have changed since {directory.path} was finished: give --fresh to "
            "start a new run"
        )


def _execute(plan: Plan, results: Path, reporter: Reporter, *, fresh: bool) -> tuple[RunDirectory, Record]:
    directory, before = plan.directory, plan.before
    if plan.parts is not None:
        # Another process may have taken the new directory, or finished the run, since the plan was made.
        if fresh:
            directory = place(results, plan.config, run_hash(plan.config, registry()), fresh=True)
        with _alone(directory.path):
            before = directory.read()
            if before is None or before.status != "finished":
                return directory, Run(plan.parts, directory, reporter).do(before, None if fresh else results)
    assert before is not None
    reporter.say(f"{directory.path} is finished: this is its record (--fresh runs it again)")
    return directory, before


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from working on the run in ``path`` at the same time."""
    file = path.parent / f".{path.name}.lock"
    lock = FileLock(file)
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(f"another process is at work on {path}: wait for it, or stop it first") from error
    try:
        yield
    finally:
        lock.release()
        file.unlink(missing_ok=True)


class Run:
    """One run in its directory. ``record`` is what is known of it so far."""

    def __init__(self, parts: Parts, directory: RunDirectory, reporter: Reporter) -> None:
        self.parts, self.config, self.directory, self.reporter = parts, parts.config, directory, reporter
        self.log = Log(directory.path / "log.jsonl")
        self.record: Record

    def do(self, before: Record | None, results: Path | None) -> Record:
        """Do what is left to do and return the finished record."""
        parts = self.parts
        judge = Judge(
            parts.detector, self.config.detector, parts.dataset, self.config.seed, redraws=parts.network.exact
        )
        work = Work(parts, self.directory, self.reporter, self.log, method_name(self.config), judge)
        work.restore()  # before anything is written: a damaged checkpoint is bad input
        self._begin(before)
        try:
            with Interruption() as interruption:
                self._work(work, judge, interruption, results)
                self._finish()
                interruption.check()
        except BaseException as error:
            if self.record.status != "finished":
                self._stop("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        return self.record

    def _begin(self, before: Record | None) -> None:
        """Clear away what a killed process half wrote; write the record of an unfinished run and the configuration."""
        for file in self.directory.unfinished:
            file.unlink()
        config, process = self.config, self.parts.process
        names = {kind: config.plugin(kind)[0] for kind in KINDS}
        self.record = Record.model_validate({
            "run_id": self.directory.run_id,
            "benchmark": config.benchmark,
            "status": "interrupted",  # until it is finished: a killed process cannot say so any more
            "seed": config.seed,
            "started": before.started if before else now(),
            "finished": None,
            "resumed": [*before.resumed, now()] if before else [],
            "config": config.to_json(),
            "config_hash": records.digest(config.to_json()),
            "method": {
                **{kind: names[kind] for kind in ("basis", "schedule", "backbone", "sampler")},
                "ladder": list(config.ladder),
                "turns": [turn / process.T for turn in process.turns],
                "attenuation": config.schedule.get("attenuation"),
                "prediction": config.prediction,
                "sample_steps": config.sampling.steps,
                "start": config.start,
                "jump": config.jump,
                "train_hash": self.parts.train_hash,
                "trained_by": None,
                "fingerprint": self.parts.dataset.fingerprint,
            },
            "environment": describe(self.parts.device, config.precision, self.parts.plugins, self.parts.code),
            "cost": {**dict.fromkeys(records.Cost.model_fields), "flops_per_mac": 2},
            "metrics": [],
        })  # fmt: skip
        records.write(self.directory.record, self.record)
        write_text(self.directory.path / "config.yaml", yaml.safe_dump(config.to_json(), sort_keys=False))
        self.log.add(event="resumed" if before else "started", time=now())

    def _work(self, work: Work, judge: Judge, interruption: Interruption, results: Path | None) -> None:
        """Train (or take the weights of a run in ``results`` with equal training inputs), sample, measure."""
        parts = self.parts
        counted = reset_peak_memory(parts.device)
        work.prepare()
        cost: Json = network_cost(parts.network, parts.process, self.config.sampling.steps, parts.device)
        training = work.train(interruption, results)
        self._note(method=self.record.method.model_dump() | {"trained_by": training.pop("trained_by")})
        flops_per_image = partial(training_flops, cost["forward_flops"], cost["backward_flops"])
        cost |= training | {"train_flops_per_image": flops_per_image(training["train_images_per_level"])}
        samples, sampling = work.sample(interruption)
        cost |= sampling | {"peak_memory_bytes": peak_memory(parts.device) if counted else None}
        cost["overhead"] = {key: cost.pop(f"{key}_overhead") for key in ("train", "sample")}
        interruption.check()
        self.reporter.say(f"measuring against {len(parts.dataset.held_out)} held-out images")
        write_whole(self.directory.samples, lambda file: np.savez_compressed(file, samples=samples))
        write_whole(self.directory.picture, lambda file: file.write(contact_sheet(samples)))
        metrics = judge(samples)
        for metric in metrics:
            metric["curve"] = of_metric(metric, work.curve.points, flops_per_image)
        self._note(cost=cost, metrics=metrics)

    def _stop(self, status: str) -> None:
        """Leave word that the run was interrupted or has failed."""
        self._note(status=status)
        self.log.add(event=status, time=now())
        self._write()
        if status == "interrupted":
            self.reporter.say(
                f"{self.directory.path} is interrupted: the same command (without --fresh) goes on with it"
            )

    def _finish(self) -> None:
        """Write the finished record; what only an unfinished run needs goes away."""
        self._note(status="finished", finished=now())
        self.log.add(event="finished", time=now())
        self._write()
        for file in (self.directory.training, *self.directory.drawn):
            file.unlink(missing_ok=True)

    def _note(self, **values: Any) -> None:
        self.record = Record.model_validate(self.record.model_dump() | values)

    def _write(self) -> None:
        self.log.write()
        records.write(self.directory.record, self.record)
