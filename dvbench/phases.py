"""The phases of a run that take long: training and sampling, each of which goes on from what it left."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dvbench import checkpoint
from dvbench.checkpoint import under
from dvbench.compilation import compiled
from dvbench.curve import Curve, Measure
from dvbench.drawing import Drawing
from dvbench.environment import autocast
from dvbench.errors import DvbenchError, UsageError, WorkError
from dvbench.interruption import Interruption
from dvbench.measure.energy import EnergyMeter, total
from dvbench.memory import release
from dvbench.prediction import DataRange, data_range, to_float
from dvbench.progress import Reporter
from dvbench.randomness import seed_of
from dvbench.rundir import Log, RunDirectory, trained
from dvbench.setup import Parts
from dvbench.training import Progress, Trainer

Json: TypeAlias = dict[str, Any]
Held: TypeAlias = tuple[dict[str, torch.Tensor], Json]


class Work:
    """Trains and samples the network of ``parts`` in ``directory``, calling the method ``name`` in what it tells.

    ``measure`` turns samples into metrics. ``curve`` holds those of the network while it trained, where asked for.
    """

    def __init__(
        self, parts: Parts, directory: RunDirectory, reporter: Reporter, log: Log, name: str, measure: Measure
    ) -> None:
        self.parts, self.config, self.directory = parts, parts.config, directory
        self.reporter, self.log, self.name, self.measure = reporter, log, name, measure
        self.curve = Curve(self.config.evaluation, self.config.training)
        self.autocast = autocast(parts.device, self.config.precision)
        self.weights: Held | None = None
        self.training: Held | None = None
        self.drawn: list[Held] = []
        self.limits: DataRange

    def restore(self) -> None:
        """Read what an earlier process left. Raises UsageError for a damaged file, or for one of other data."""
        if self.directory.weights.exists():
            self.weights = self._read(self.directory.weights)
            self.drawn = list(self._batches())
            return
        if self.directory.training.exists():
            self.training = self._read(self.directory.training)
        for file in self.directory.drawn:  # with weights that are no more: those to come may be others
            file.unlink()

    def _batches(self) -> Iterator[Held]:
        """Read the batches drawn so far, up to the first that is missing: what follows it is drawn anew."""
        done = 0
        while (file := self.directory.batch(done)).exists():
            batch = self._read(file)
            done += len(batch[0]["samples"])
            yield batch

    def _read(self, file: Path) -> Held:
        tensors, state = checkpoint.read(file)
        if state["train_hash"] != self.parts.train_hash:
            raise UsageError(
                f"the data, a version or the machine has changed since {file} was written: "
                "give --fresh to start a new run"
            )
        return tensors, state

    def _write(self, file: Path, tensors: Mapping[str, torch.Tensor], **state: Any) -> None:
        checkpoint.write(file, tensors, {**state, "train_hash": self.parts.train_hash})

    def prepare(self) -> None:
        """Let a network that asks for it see the process and the training images, and see that any answers."""
        parts = self.parts
        parts.guard.prepare(parts.network, parts.process, parts.dataset.train, self.config.prediction, parts.device)

    def train(self, interruption: Interruption, results: Path | None) -> Json:
        """Put trained weights into the network and return what the training cost.

        They are the run's own, or those of a run in ``results`` with equal training inputs, or trained here.
        """
        if self.weights is None and self.training is None and results is not None:
            self.weights = self._shared(results)
        if self.weights is None:
            return self._train_here(interruption)
        tensors, state = self.weights
        _load(self.directory.weights, lambda: self._take(tensors))
        self.limits = DataRange.from_json(state["limits"])
        self.curve.points = state.get("curve", [])
        if not self.directory.weights.exists():
            checkpoint.write(self.directory.weights, tensors, state)
        return {**state["cost"], "trained_by": state["trained_by"]}

    def _take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take weights, and what the basis had learned when they were trained."""
        self.parts.network.load_state_dict(under("network", tensors))
        if load := getattr(self.parts.process.basis, "load", None):
            load(under("basis", tensors))

    def _shared(self, results: Path) -> Held | None:
        """Return the weights of another run that was trained from the same inputs, if there are any."""
        for run in trained(results, self.parts.train_hash):
            try:
                tensors, state = self._read(run.weights)
            except DvbenchError:
                continue  # somebody else's damage is not this run's
            self.reporter.say(f"taking the weights that {run.run_id} trained from the same inputs")
            return tensors, {**state, "trained_by": run.run_id}
        return None

    def _train_here(self, interruption: Interruption) -> Json:
        parts, config = self.parts, self.config
        images = parts.dataset.train
        self.limits = (
            DataRange.from_json(self.training[1]["limits"]) if self.training else data_range(parts.process, images)
        )
        cost: Json = {
            "train_seconds": 0.0,
            "train_images": 0,
            "train_images_per_level": [0] * (parts.process.K + 1),
            "train_energy_joules": None,
            "train_overhead": None,
        }
        if any(parameter.requires_grad for parameter in parts.network.parameters()):
            torch.manual_seed(seed_of(config.seed, "network"))  # what the network itself draws, such as dropout
            trainer = Trainer(
                parts.network,
                parts.process,
                images,
                self.limits,
                config.prediction,
                config.training,
                config.seed,
                parts.device,
                self.autocast,
                loss_scaling=config.precision == "fp16",
                say=self.reporter.say,
            )
            joules: float | None = 0.0
            if self.training:
                tensors, state = self.training
                _load(self.directory.training, lambda: trainer.load(tensors, state["trainer"]))
                self.curve.points, joules = state.get("curve", []), state.get("joules")
                self.training = None  # as large as three networks, and no longer needed
                self.reporter.say(f"going on after {trainer.progress.images} training images")
            if config.compile:
                compiled(parts.network)
                self.reporter.say("compiling the network for each level")
            if config.compile or parts.device.type != "cpu":
                trainer.warm_up()
            cost = self._teach(trainer, interruption, joules)
            parts.network.load_state_dict(trainer.ema.state_dict())
        limits = self.limits.to_json()
        learned = parts.process.basis.state() if hasattr(parts.process.basis, "state") else {}
        held = {f"network.{name}": value for name, value in parts.network.state_dict().items()}
        held |= {f"basis.{name}": value for name, value in learned.items()}
        self._write(self.directory.weights, held, limits=limits, cost=cost, curve=self.curve.points, trained_by=None)
        return {**cost, "trained_by": None}

    def _teach(self, trainer: Trainer, interruption: Interruption, joules: float | None) -> Json:
        """Train to the end of the budget, with a checkpoint every now and then and at an interruption.

        ``joules`` are those of the training so far, None where they are not known.
        """
        saved = logged = time.monotonic()
        first = (trainer.progress.images, trainer.progress.seconds)
        meter = EnergyMeter(self.parts.device)

        def keep() -> None:
            nonlocal saved
            state = {"limits": self.limits.to_json(), "trainer": trainer.state(), "joules": joules}
            self._write(self.directory.training, trainer.tensors(), **state, curve=self.curve.points)
            self.log.write()
            saved = time.monotonic()

        def after_step(progress: Progress) -> None:
            nonlocal logged, joules
            speed = (progress.images - first[0]) / max(progress.seconds - first[1], 1e-9)
            update(trainer.fraction(), f"loss {progress.loss:.4f}, {speed:.0f} images/s")
            done = trainer.fraction() >= 1.0
            if time.monotonic() - logged > 1.0 or done:
                logged = time.monotonic()
                meter.joules()  # a processor's counter begins anew after minutes: it must be looked at meanwhile
                self.log.add(event="training", images=progress.images, seconds=progress.seconds, loss=progress.loss)
            due = self.curve.due(progress) and not done
            late = time.monotonic() - saved > self.config.training.checkpoint_seconds
            if due or late or interruption.asked or done:
                joules = total([joules, meter.joules()])
                if not done:
                    keep()
                    interruption.check()
                if due:
                    evaluate()
                meter.start()

        def evaluate() -> None:
            update(trainer.fraction(), "measuring")
            self._evaluate(trainer, interruption)
            keep()

        with self.reporter.task(f"training {self.name}") as update:
            try:
                if self.curve.due(trainer.progress):  # an interruption came before it was done
                    evaluate()
                meter.start()
                trainer.train(after_step)
            except WorkError:  # it diverged: unless the basis is at fault, by itself
                with self.parts.guard.search():
                    images = to_float(self.parts.dataset.train[: self.config.training.batch], self.parts.device)
                    self.parts.process.components(images, 0)
                raise
        progress = trainer.progress
        self.log.add(event="trained", images=progress.images, seconds=progress.seconds)
        return {
            "train_seconds": progress.seconds,
            "train_images": progress.images,
            "train_images_per_level": progress.images_per_level,
            "train_energy_joules": joules,
            "train_overhead": overhead(progress.seconds, progress.network_seconds),
        }

    def _evaluate(self, trainer: Trainer, interruption: Interruption) -> None:
        """Add to the curve what the averaged weights are worth now."""
        assert self.config.evaluation is not None
        drawing = Drawing(self.parts, trainer.ema, self.limits, self.reporter.say)
        drawing.denoiser.before_call = interruption.check
        drawn = [images for images, _ in drawing.batches(self.config.evaluation.samples)]
        metrics = self.measure(np.concatenate(drawn))
        self.curve.add(trainer.progress, metrics)
        told = {metric["name"]: metric["value"] for metric in reversed(metrics)}
        self.log.add(event="evaluated", images=trainer.progress.images, seconds=trainer.progress.seconds, **told)

    def sample(self, interruption: Interruption) -> tuple[npt.NDArray[np.uint8], Json]:
        """Draw all samples and return them with what they cost; each batch drawn survives an interruption."""
        options = self.config.sampling
        release(self.parts.device)  # what only training needed
        # Compiled here, but not while training, where a copy is drawn with once.
        drawing = Drawing(self.parts, self.parts.network, self.limits, self.reporter.say, compiles=self.config.compile)
        meter = EnergyMeter(self.parts.device)
        done = sum(len(tensors["samples"]) for tensors, _ in self.drawn)
        with self.reporter.task(f"sampling {self.name}") as update:

            def before(indices: range) -> None:
                calls = itertools.count()

                def before_call() -> None:
                    interruption.check()
                    drawn = indices.start + len(indices) * next(calls) / options.steps
                    update(drawn / options.samples, f"{options.samples} images")

                drawing.denoiser.before_call = before_call
                meter.start()

            for images, cost in drawing.batches(options.samples, done, before):
                cost["joules"] = meter.joules()
                batch = {"samples": torch.from_numpy(images)}
                self._write(self.directory.batch(done), batch, **cost)
                self.drawn.append((batch, cost))
                done += len(images)
            update(1.0, f"{options.samples} images")
        costs = [cost for _, cost in self.drawn]
        sizes = [len(tensors["samples"]) for tensors, _ in self.drawn]
        return np.concatenate([tensors["samples"].numpy() for tensors, _ in self.drawn]), {
            "sample_seconds": sum(cost["seconds"] for cost in costs),
            "samples": sum(sizes),
            "seconds_per_level": np.sum([cost["levels"] for cost in costs], axis=0).tolist(),
            "sample_batches": [
                {"samples": size, "seconds": cost["seconds"]} for size, cost in zip(sizes, costs, strict=True)
            ],
            "sample_energy_joules": total([cost["joules"] for cost in costs]),
            "sample_overhead": overhead(sum(cost["seconds"] for cost in costs), sum(cost["network"] for cost in costs)),
        }


def overhead(seconds: float, network_seconds: float) -> float:
    """Return the share of ``seconds`` that went to anything but the network."""
    return 1 - network_seconds / seconds


def _load(file: Path, load: Callable[[], object]) -> None:
    """Load tensors that must fit; where they do not, the file is of another network."""
    try:
        load()
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"the checkpoint {file} does not fit this network: delete it, or give --fresh to start a new run"
        ) from error
