"""The phases of a run that take long: training and sampling, each of which goes on from what it left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dvbench import checkpoint
from dvbench.environment import autocast
from dvbench.errors import DvbenchError, UsageError, WorkError
from dvbench.guard import NotFiniteError
from dvbench.interruption import Interruption
from dvbench.measure.clock import LevelClock
from dvbench.prediction import DataRange, data_moments, data_range, to_float
from dvbench.process import Process
from dvbench.progress import Reporter
from dvbench.randomness import seed_of
from dvbench.rundir import Log, RunDirectory, trained
from dvbench.sampling import Denoiser, draw
from dvbench.setup import Parts
from dvbench.training import Progress, Trainer, under

Json: TypeAlias = dict[str, Any]
Held: TypeAlias = tuple[dict[str, torch.Tensor], Json]


class Work:
    """Trains and samples the network of ``parts`` in ``directory``, calling the method ``name`` in what it tells."""

    def __init__(self, parts: Parts, directory: RunDirectory, reporter: Reporter, log: Log, name: str) -> None:
        self.parts, self.config, self.directory = parts, parts.config, directory
        self.reporter, self.log, self.name = reporter, log, name
        self.autocast = autocast(parts.device, self.config.precision)
        self.weights: Held | None = None
        self.training: Held | None = None
        self.drawn: list[Held] = []
        self.limits: DataRange

    def restore(self) -> None:
        """Read what an earlier process left. Raises UsageError for a damaged file, or for one of other data."""
        if self.directory.weights.exists():
            self.weights = self._read(self.directory.weights)
        elif self.directory.training.exists():
            self.training = self._read(self.directory.training)
        self.drawn = [self._read(file) for file in self.directory.drawn]

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
        """Let a network that asks for it see the process and the training images."""
        if prepare := getattr(self.parts.network, "prepare", None):
            prepare(self.parts.process, self.parts.dataset.train, self.config.prediction)

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
        self.limits = _limits(state)
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
        self.limits = _limits(self.training[1]) if self.training else data_range(parts.process, images)
        cost: Json = {
            "train_seconds": 0.0,
            "train_images": 0,
            "train_images_per_level": [0] * (parts.process.K + 1),
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
            )
            if self.training:
                tensors, state = self.training
                _load(self.directory.training, lambda: trainer.load(tensors, state["trainer"]))
                self.training = None  # as large as three networks, and no longer needed
                self.reporter.say(f"going on after {trainer.progress.images} training images")
            cost = self._teach(trainer, interruption)
            parts.network.load_state_dict(trainer.ema.state_dict())
        limits = self.limits.to_json()
        learned = parts.process.basis.state() if hasattr(parts.process.basis, "state") else {}
        held = {f"network.{name}": value for name, value in parts.network.state_dict().items()}
        held |= {f"basis.{name}": value for name, value in learned.items()}
        self._write(self.directory.weights, held, limits=limits, cost=cost, trained_by=None)
        return {**cost, "trained_by": None}

    def _teach(self, trainer: Trainer, interruption: Interruption) -> Json:
        """Train to the end of the budget, with a checkpoint every now and then and at an interruption."""
        saved = logged = time.monotonic()
        first = (trainer.progress.images, trainer.progress.seconds)

        def after_step(progress: Progress) -> None:
            nonlocal saved, logged
            speed = (progress.images - first[0]) / max(progress.seconds - first[1], 1e-9)
            update(trainer.fraction(), f"loss {progress.loss:.4f}, {speed:.0f} images/s")
            if time.monotonic() - logged > 1.0 or trainer.fraction() >= 1.0:
                logged = time.monotonic()
                self.log.add(event="training", images=progress.images, seconds=progress.seconds, loss=progress.loss)
            if interruption.asked or time.monotonic() - saved > self.config.training.checkpoint_seconds:
                state = {"limits": self.limits.to_json(), "trainer": trainer.state()}
                self._write(self.directory.training, trainer.tensors(), **state)
                self.log.write()
                saved = time.monotonic()
                interruption.check()

        with self.reporter.task(f"training {self.name}") as update:
            try:
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
        }

    def sample(self, interruption: Interruption) -> tuple[npt.NDArray[np.uint8], Json]:
        """Draw all samples and return them with what they cost; each batch drawn survives an interruption."""
        parts, options = self.parts, self.config.sampling
        denoiser = Denoiser(
            parts.network.eval(),
            self._matched(),
            self.config.prediction,
            self.limits,
            self.autocast,
            LevelClock(parts.device),
        )
        done = sum(len(tensors["samples"]) for tensors, _ in self.drawn)
        if done < options.samples:
            self._warm_up(denoiser)
        calls = 0

        def before_call() -> None:
            nonlocal calls
            interruption.check()
            share = min(options.batch, options.samples - done) / options.samples
            update(done / options.samples + share * calls / options.steps, f"{options.samples} images")
            calls += 1

        denoiser.before_call = before_call
        with self.reporter.task(f"sampling {self.name}") as update:
            while done < options.samples:
                calls = 0
                indices = range(done, min(done + options.batch, options.samples))
                started = time.perf_counter()
                images = self._draw(denoiser, indices)
                cost = {"seconds": time.perf_counter() - started, "levels": self._spent(denoiser.clock)}
                batch = {"samples": torch.from_numpy(images)}
                self._write(self.directory.batch(done), batch, **cost)
                self.drawn.append((batch, cost))
                done += len(images)
            update(1.0, f"{options.samples} images")
        return np.concatenate([tensors["samples"].numpy() for tensors, _ in self.drawn]), {
            "sample_seconds": sum(cost["seconds"] for _, cost in self.drawn),
            "samples": done,
            "seconds_per_level": np.sum([cost["levels"] for _, cost in self.drawn], axis=0).tolist(),
        }

    def _draw(self, denoiser: Denoiser, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Draw the samples with these indices; if some are not finite, once more, to see where that begins."""

        def drawn() -> npt.NDArray[np.uint8]:
            parts = self.parts
            return draw(parts.sampler, denoiser, self.config.sampling.steps, self.config.seed, indices, parts.device)

        try:
            return drawn()
        except NotFiniteError:
            with self.parts.guard.search():
                drawn()
            raise

    def _matched(self) -> Process:
        """Return the process with its start and jumps as the configuration asks."""
        start, jump = self.config.start == "matched", self.config.jump == "matched"
        process = self.parts.process
        if not (start or jump):
            return process
        return process.matching(data_moments(process, self.parts.dataset.train), start=start, jump=jump)

    def _spent(self, clock: LevelClock) -> list[float]:
        """Return the seconds of each level since the last call."""
        spent = [clock.seconds.get(level, 0.0) for level in range(self.parts.process.K + 1)]
        clock.seconds.clear()
        return spent

    def _warm_up(self, denoiser: Denoiser) -> None:
        """Call the network once a level before the clock runs: libraries choose and build their kernels then."""
        process, sampling = self.parts.process, self.config.sampling
        batch = min(sampling.batch, sampling.samples)
        with torch.inference_mode():
            for level, side in enumerate(process.ladder):
                x = torch.zeros(batch, denoiser.network.channels, side, side, device=self.parts.device)
                denoiser(x, process.T, level)
        denoiser.clock.stop()
        denoiser.clock.seconds.clear()


def _limits(state: Mapping[str, Any]) -> DataRange:
    held = state["limits"]
    return DataRange(**{**held, "faded": tuple(held["faded"])})


def _load(file: Path, load: Callable[[], object]) -> None:
    """Load tensors that must fit; where they do not, the file is of another network."""
    try:
        load()
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"the checkpoint {file} does not fit this network: delete it, or give --fresh to start a new run"
        ) from error
