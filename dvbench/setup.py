"""From a Config to the parts of a run: data, process, network, sampler, detector. Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dvbench import record as records
from dvbench.api import KINDS, Dataset, Detector, Kind, Sampler
from dvbench.backbone import Backbone
from dvbench.compilation import check as check_compiler
from dvbench.config import Config
from dvbench.design import create, design
from dvbench.environment import choose_device, choose_precision, device_name, memory_order, set_up
from dvbench.guard import Guard, WatchedDetector
from dvbench.prediction import to_float
from dvbench.process import Process
from dvbench.registry import Registry, version

MOST_TO_FIT = 10_000  # training images that a basis learns from; splits are in random order


@dataclass(frozen=True)
class Parts:
    """What a run is made of, watched by ``guard``.

    ``config`` has its device and precision resolved; ``plugins`` {distribution: version}, and of those that are not
    dvbench's own ``code`` {distribution: SHA-256 of the source}.
    """

    config: Config
    device: torch.device
    guard: Guard
    plugins: dict[str, str]
    code: dict[str, str]
    dataset: Dataset
    process: Process
    network: Backbone
    sampler: Sampler
    detector: Detector
    train_hash: str


def on_this_machine(config: Config) -> Config:
    """Return ``config`` with the device and the precision that "auto" means here."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    return config.model_copy(update={"device": device.type, "precision": precision})


def chosen(config: Config, kinds: Sequence[Kind] = KINDS) -> list[tuple[str, str]]:
    """Return the kind and the name of each plugin that ``config`` names."""
    return [(kind, config.plugin(kind)[0]) for kind in kinds]


def run_hash(config: Config, registry: Registry) -> str:
    """Return the SHA-256 that tells runs apart: of the configuration, and of the source of plugins not dvbench's."""
    code = registry.code(chosen(config))
    return records.digest({**config.to_json(), **({"code": code} if code else {})})


def check_schedule(config: Config, registry: Registry) -> None:
    """Raise UsageError for turning points or options that the schedule refuses, without any data."""
    name, options = config.plugin("schedule")
    registry.create("schedule", name, {"ladder": config.ladder, "steps": config.steps}, options)


def assemble(config: Config, registry: Registry) -> Parts:
    """Create all parts. Raises UsageError for whatever does not suit: data, ladder, turning points, steps."""
    device = choose_device(config.device)
    check_schedule(config, registry)
    set_up(config.threads)
    if config.compile:
        check_compiler(device)

    guard = Guard({kind: registry.label(kind, config.plugin(kind)[0]) for kind in KINDS})
    detector: Detector = WatchedDetector(create(config, registry, "detector"), guard)
    dataset = guard.dataset(create(config, registry, "dataset", size=config.ladder[0]), config.ladder[0])
    made = design(config, registry, guard, dataset.train.shape[-1], torch.device("cpu"))
    if hasattr(made.process.basis, "fit"):
        guard.fit(made.process.basis, to_float(dataset.train[:MOST_TO_FIT], torch.device("cpu")))
    guard.basis(made.process.basis)
    plugins = registry.versions(chosen(config)) | {"dvbench": version("dvbench")}
    code = registry.code(chosen(config))
    inputs = train_hash(config, dataset.fingerprint, registry)
    # torch declares this call for tensors, not for modules.
    network = made.network.to(device=device, memory_format=memory_order(device))  # type: ignore[call-overload]
    return Parts(config, device, guard, plugins, code, dataset, made.process, network, made.sampler, detector, inputs)


def train_hash(config: Config, fingerprint: str, registry: Registry) -> str:
    """Return the SHA-256 of all that trained weights depend on: of the configuration, the data and the versions.

    What a budget in seconds buys depends on the machine too.
    """
    inputs = config.to_json()
    irrelevant = ["benchmark", "threads"]
    if config.evaluation is None:  # what is drawn and measured while a network trains belongs to its training
        irrelevant += ["sampler", "sampling", "detector", "start", "jump"]
    for key in irrelevant:
        del inputs[key]
    del inputs["training"]["checkpoint_seconds"]
    inputs["dataset"] = fingerprint
    kinds: tuple[Kind, ...] = ("basis", "schedule", "backbone")
    inputs["versions"] = registry.versions(chosen(config, kinds)) | {"dvbench": version("dvbench")}
    if code := registry.code(chosen(config, kinds)):
        inputs["code"] = code
    if config.training.seconds is not None:
        inputs["machine"] = [device_name(choose_device(config.device)), torch.get_num_threads()]
    return records.digest(inputs)
