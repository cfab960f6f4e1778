"""The training loop: t drawn per image, the batch grouped by level, all levels in the network together."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dvbench.backbone import Backbone
from dvbench.checkpoint import under
from dvbench.config import Training
from dvbench.environment import tf32
from dvbench.errors import WorkError
from dvbench.graphs import Autocast, Passes, can_record
from dvbench.measure.clock import NetworkClock, wait
from dvbench.memory import halved, release, sent
from dvbench.optimizer import Optimizer
from dvbench.prediction import DataRange, Prediction, loss_weight, scaled_input, target, to_float
from dvbench.process import Process
from dvbench.randomness import default_generators, order_of_epoch, torch_generator
from dvbench.times import TrainingTimes


@dataclass
class Progress:
    """What training has used so far: steps, ``images`` and wall ``seconds``, and the images seen at each level.

    ``network_seconds`` is the part of ``seconds`` that the network took, forward and backward.
    """

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    network_seconds: float = 0.0
    images_per_level: list[int] = field(default_factory=list)
    loss: float = math.nan


class Trainer:
    """Trains a network in place and keeps the running average of its weights in ``ema``.

    ``images``: the training split, uint8 N x H x W x C. ``autocast``: a factory of the context in which the network
    runs. The state that ``tensors`` and ``state`` return, loaded by ``load``, goes on as if never interrupted.
    """

    def __init__(
        self,
        network: Backbone,
        process: Process,
        images: npt.NDArray[np.uint8],
        limits: DataRange,
        prediction: Prediction,
        options: Training,
        seed: int,
        device: torch.device,
        autocast: Autocast,
        *,
        loss_scaling: bool = False,
        say: Callable[[str], object] = lambda _said: None,
    ) -> None:
        self.network, self.process, self.images, self.limits = network, process, images, limits
        self.prediction, self.options, self.seed, self.device = prediction, options, seed, device
        self.say = say
        self.microbatch = options.microbatch or options.batch
        self.clock = NetworkClock(device)
        self.passes = Passes(network, autocast)
        self.ema = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        # A network has few such modules, or none, and looking through all takes long.
        self.buffered = [
            pair
            for pair in zip(self.ema.modules(), network.modules(), strict=True)
            if next(pair[1].buffers(recurse=False), None) is not None
        ]
        self.scaler = torch.amp.GradScaler(device.type, enabled=loss_scaling)
        trained = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = Optimizer(trained, options, device, self.scaler)
        averages = {id(p): average for average, p in zip(self.ema.parameters(), network.parameters(), strict=True)}
        self.averages = [flat.values.clone() for flat in self.optimizer.flats]
        for flat, values in zip(self.optimizer.flats, self.averages, strict=True):
            flat.place([averages[id(p)] for p in flat.parameters], values)
        self.times = TrainingTimes.of(process, options.shares, options.least_t)
        self.weights = options.weights or (1.0,) * (process.K + 1)
        self.generators = {
            "times": torch_generator(seed, "training times"),
            "flips": torch_generator(seed, "training flips"),
            "noise": torch_generator(seed, "training noise", device),
            **default_generators(device),
        }
        self.progress = Progress(images_per_level=[0] * (process.K + 1))
        self._epoch: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def fraction(self) -> float:
        """Return how much of the budget is used, from 0 to 1."""
        if self.options.images is not None:
            return min(self.progress.images / self.options.images, 1.0)
        return min(self.progress.seconds / (self.options.seconds or math.inf), 1.0)

    def warm_up(self) -> None:
        """Run the network on every shape that a step has, before the clock runs: a compiler does its work then.

        What a recordable network asks a GPU for is recorded then.
        """
        random, whole = self._random(), self.options.batch
        left = whole if self.options.images is None else self.options.images - self.progress.images
        self.network.train()
        if can_record(self.device, self.network):
            self.passes.whole = whole
        # A budget of images may end with a smaller batch, or be one.
        for batch in filter(None, dict.fromkeys((min(whole, left), left % whole))):
            x0 = to_float(self.images[np.arange(batch) % len(self.images)], self.device)
            for counts in self.times.groups(batch):
                t = torch.tensor(self.times.ends).repeat_interleave(torch.tensor(counts))
                self._gradient(x0, t, self._groups(t))
        self.passes.whole = 0
        self.optimizer.forget()
        wait(self.device)
        self.clock.take()
        self._rewind(random)

    def train(self, after_step: Callable[[Progress], object]) -> None:
        """Train to the end of the budget, calling ``after_step`` (not timed) after each step."""
        self.network.train()
        while self.fraction() < 1.0:
            self.step()
            after_step(self.progress)

    def step(self) -> None:
        """Take one step and book what it used. Raises WorkError where the loss is no longer finite."""
        started = time.perf_counter()
        loss = self._update()
        # Reading the loss waits for the device, so that the seconds are those of the work.
        self.progress.loss = float(loss)
        self.progress.seconds += time.perf_counter() - started
        self.progress.network_seconds += self.clock.take()
        if not math.isfinite(self.progress.loss):
            raise WorkError(
                f"training diverged after {self.progress.images} images (its loss is no longer finite): "
                "lower --set training.lr or choose --precision fp32"
            )

    def _update(self) -> torch.Tensor:
        options = self.options
        batch = options.batch
        if options.images is not None:
            batch = min(batch, options.images - self.progress.images)
        x0 = to_float(self.images[self._next_indices(batch)], self.device)
        if options.flip:
            x0 = torch.where(self._coins(batch)[:, None, None, None], x0.flip(-1), x0)
        t = self.times.draw(batch, self.generators["times"])
        lr = options.lr * self._learning_rate()
        groups = self._groups(t)
        total = self._gradient(x0, t, groups)
        for level, members in enumerate(groups):
            self.progress.images_per_level[level] += len(members)
        self.optimizer.step(lr)
        self.progress.steps += 1
        self.progress.images += batch
        self._average()
        return total

    def _groups(self, t: torch.Tensor) -> list[torch.Tensor]:
        """Return the indices of the images of each level, for the steps t [batch] of all."""
        levels = torch.as_tensor(self.process.level(t))
        return [(levels == level).nonzero()[:, 0] for level in range(self.process.K + 1)]

    def _gradient(self, x0: torch.Tensor, t: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
        """Take the gradient of a batch and return its loss; ``groups``: the indices of the images of each level.

        Where the device runs out of memory, half as many images are in the network at a time from then on.
        """
        random = self._random()
        while True:
            try:
                return self._accumulate(x0, t, groups)
            except (RuntimeError, MemoryError) as error:
                held = min(self.microbatch, len(x0))
                self.microbatch = halved(held, error)
            # Only here, where the error no longer holds what filled the memory, is there any to try again with.
            self.optimizer.forget()
            self.passes.replays.clear()  # of whole batches, which do not come again
            release(self.device)
            self._rewind(random)
            self.say(f"out of memory with {held} images in the network: going on with {self.microbatch}")

    def _accumulate(self, x0: torch.Tensor, t: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        for members in packed(groups, self.microbatch):
            chosen = {
                level: (x0[sent(part, self.device)], sent(t[part], self.device)) for level, part in members.items()
            }
            loss = self._loss(chosen) / len(x0)
            with tf32(self.device), self.clock.running():
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _loss(self, chosen: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Return the weighted squared error summed over images and their steps t [B], given for some levels."""
        process, seen, wanted = self.process, {}, {}
        for level, (images, t) in chosen.items():
            x0 = process.lower(images, level)
            noise = torch.randn(x0.shape, generator=self.generators["noise"], device=self.device)
            x = process.diffuse(x0, t, noise, level)
            weight = loss_weight(self.prediction, process, t, level, self.options.min_snr, self.options.snr, x0)
            wanted[level] = target(self.prediction, process, x0, noise, t, level), self.weights[level] * weight
            seen[level] = scaled_input(process, x, t, level, self.limits.std), (t / process.T).to(x)
        with tf32(self.device), self.clock.running():
            said = self.passes(seen)
        total = torch.zeros((), device=self.device)
        for level, (goal, weight) in wanted.items():
            if said[level].shape != goal.shape:
                raise WorkError(
                    f"the backbone's at_levels returns the shape {tuple(said[level].shape)} at level {level}, not "
                    f"{tuple(goal.shape)}: mend it, or leave it out, and forward is called level by level"
                )
            error = weight * (said[level].float() - goal).square()
            total = total + error.mean(dim=(1, 2, 3)).sum()
        return total

    def _coins(self, batch: int) -> torch.Tensor:
        """Toss a coin [batch] for each image."""
        return sent(torch.rand(batch, generator=self.generators["flips"]) < 0.5, self.device)

    def _next_indices(self, batch: int) -> npt.NDArray[np.int64]:
        """Return the next indices into the training split: every image once an epoch, in an order of the seed's."""
        parts, position, count = [], self.progress.images, len(self.images)
        while batch:
            epoch, offset = divmod(position, count)
            if self._epoch[0] != epoch:
                self._epoch = (epoch, order_of_epoch(self.seed, epoch, count))
            part = self._epoch[1][offset : offset + batch]
            parts.append(part)
            position, batch = position + len(part), batch - len(part)
        return np.concatenate(parts)

    def _learning_rate(self) -> float:
        """Return the learning rate as a fraction of its peak: a linear rise, then a cosine fall to the budget's end."""
        rise = min((self.progress.images + self.options.batch) / max(self.options.warmup, 1), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * self.fraction())) if self.options.decay == "cosine" else 1.0
        return rise * fall

    @torch.no_grad()
    def _average(self) -> None:
        # The first steps' weights are forgotten faster: a short run would otherwise average in its start.
        decay = min(self.options.ema, (1 + self.progress.steps) / (10 + self.progress.steps))
        for average, now in zip(self.averages, self.optimizer.flats, strict=True):
            average.lerp_(now.values, 1 - decay)
        for kept, buffer in self._buffers():
            kept.copy_(buffer)

    def _buffers(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each buffer of ``ema``, which is that of the last step, with that of the network."""
        for held, module in self.buffered:
            yield from zip(held.buffers(recurse=False), module.buffers(recurse=False), strict=True)

    def _random(self) -> dict[str, torch.Tensor]:
        """Return the state of every generator."""
        return {name: generator.get_state() for name, generator in self.generators.items()}

    @torch.no_grad()
    def _rewind(self, random: Mapping[str, torch.Tensor]) -> None:
        """Give the generators the states that ``_random`` returned, and the buffers what the last step left in them."""
        for name, state in random.items():
            self.generators[name].set_state(state)
        for kept, buffer in self._buffers():
            buffer.copy_(kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the state: weights, averaged weights, the optimiser's, every random generator's."""
        held = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        held |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        held |= {f"optimizer.{name}": value for name, value in self.optimizer.tensors().items()}
        return held | {f"random.{name}": value for name, value in self._random().items()}

    def state(self) -> dict[str, Any]:
        """Return the plain numbers of the state."""
        scaler = self.scaler.state_dict() if self.scaler.is_enabled() else {}
        return {"progress": vars(self.progress), "scaler": scaler, "microbatch": self.microbatch}

    def load(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Go on from what ``tensors`` and ``state`` returned. Raises KeyError or RuntimeError where they do not fit."""
        self.network.load_state_dict(under("network", tensors))
        self.ema.load_state_dict(under("ema", tensors))
        self.optimizer.load(under("optimizer", tensors))
        self._rewind(under("random", tensors))
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.microbatch = min(
            self.microbatch, state.get("microbatch", self.microbatch)
        )  # what went in, or is asked for
        self.progress = Progress(**state["progress"])


def packed(groups: Sequence[torch.Tensor], most: int) -> Iterator[dict[int, torch.Tensor]]:
    """Split the images of each level and yield what goes through the network together: at most ``most`` images.

    A level's parts have ``most`` images each, and a rest, however full the other levels are: so few sizes recur.
    """
    pack: dict[int, torch.Tensor] = {}
    for level, members in enumerate(groups):
        for part in torch.split(members, most) if len(members) else ():
            if pack and (level in pack or sum(map(len, pack.values())) + len(part) > most):
                yield pack
                pack = {}
            pack[level] = part
    if pack:
        yield pack
