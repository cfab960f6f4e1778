"""What of a run is built before an image is seen, each part checked against the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dvbench.api import Basis, Kind, Sampler
from dvbench.backbone import Backbone
from dvbench.config import Config
from dvbench.errors import UsageError
from dvbench.guard import Guard, WatchedBasis, WatchedSampler
from dvbench.memory import ran_out
from dvbench.process import Process
from dvbench.randomness import seed_of
from dvbench.registry import Registry
from dvbench.times import TrainingTimes

UNCOUNTABLE = "Storage size calculation overflowed"  # what torch says of more bytes than it can count


@dataclass(frozen=True)
class Design:
    """The process, the network and the sampler of a run, watched. A basis that learns has learned nothing yet."""

    process: Process
    network: Backbone
    sampler: Sampler


def create(config: Config, registry: Registry, kind: Kind, **context: object) -> Any:
    """Create the plugin that ``config`` names for ``kind`` with its options."""
    name, options = config.plugin(kind)
    return registry.create(kind, name, context, options)


def design(config: Config, registry: Registry, guard: Guard, channels: int, device: torch.device) -> Design:
    """Build a run's process, network and sampler for images of ``channels`` channels.

    The network is made on ``device``; on the meta device it has no values and takes neither time nor memory. Raises
    UsageError for whatever does not suit: ladder, turning points, steps.
    """
    sampler: Sampler = WatchedSampler(create(config, registry, "sampler"), guard)
    basis: Basis = WatchedBasis(create(config, registry, "basis", ladder=config.ladder, channels=channels), guard)
    schedule = create(config, registry, "schedule", ladder=config.ladder, steps=config.steps)
    try:
        process = Process(basis, schedule)
    except (ValueError, TypeError, AttributeError) as error:  # a stranger's schedule may lack anything
        raise UsageError(f"{guard.labels['schedule']}: {error}") from error
    try:
        process.times(config.sampling.steps)
    except ValueError as error:
        raise UsageError(f"--sample-steps: {error}") from error
    try:
        TrainingTimes.of(process, config.training.shares, config.training.least_t)
    except ValueError as error:
        raise UsageError(str(error)) from error
    # The network's first weights come from the seed, and nobody else's random numbers are touched.
    with device, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "weights"))
        try:
            network = guard.network(create(config, registry, "backbone", ladder=config.ladder, channels=channels))
        except (RuntimeError, MemoryError) as error:
            if not (ran_out(error) or UNCOUNTABLE in str(error)):
                raise
            raise UsageError(
                f"{guard.labels['backbone']}, as it is set, needs more memory than there is: choose smaller options"
            ) from error
    if sampler.uses_uncertainty and not hasattr(network, "uncertainty"):
        raise UsageError(
            f"sampler {config.plugin('sampler')[0]}, as it is set, needs a network that knows how sure it is, and "
            f"{config.plugin('backbone')[0]} does not: take --backbone perfect, or another setting of the sampler"
        )
    return Design(process, network, sampler)
