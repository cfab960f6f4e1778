"""A benchmark file and the user's overrides become one frozen, validated Config."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dvbench.api import KINDS, Kind
from dvbench.errors import UsageError, unknown
from dvbench.presets import preset_overrides
from dvbench.registry import Registry


class Section(BaseModel):
    """A frozen section of the configuration that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(Section):
    """How a network is trained. The budget is ``images`` or ``seconds`` of training, not both."""

    images: int | None = Field(None, ge=1, description="training images to see")
    seconds: float | None = Field(None, gt=0, description="seconds to train, checkpoints not counted")
    batch: int = Field(64, ge=1, description="images a step")
    microbatch: int | None = Field(None, ge=1, description="images that go through the network at a time, at most")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon steps the matrices, AdamW what is left")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    beta2: float = Field(0.99, gt=0, lt=1, description="AdamW's decay of the squared gradients; its other is 0.9")
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(2000, ge=0, description="images over which the learning rate rises")
    decay: Literal["cosine", "none"] = Field("cosine", description="how the learning rate falls over the budget")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(
        0.999, ge=0, lt=1, description="decay per step of the averaged weights, lower in the first steps"
    )
    min_snr: float | None = Field(5.0, gt=0, description="min-SNR-gamma weight of the loss; null weighs all alike")
    snr: Literal["kept", "picture"] = Field(
        "kept", description="of which pixel min_snr takes the ratio: one that the level keeps, or the picture's"
    )
    shares: tuple[float, ...] | None = Field(
        None, description="for each level, its share of the images of a batch; null: as its steps to all"
    )
    weights: tuple[float, ...] | None = Field(None, description="for each level, what its loss is multiplied by")
    flip: bool = Field(default=False, description="mirror half of the images")
    least_t: float = Field(0.0, ge=0, le=1, description="the least t, as a share of T, that is trained, and so told")
    checkpoint_seconds: float = Field(60.0, gt=0, description="seconds between checkpoints")

    @model_validator(mode="after")
    def _one_budget(self) -> Training:
        if (self.images is None) == (self.seconds is None):
            raise ValueError("give a training budget in images or in seconds, one of the two")
        return self


class Sampling(Section):
    """How many images are drawn, and in how many steps and batches."""

    steps: int = Field(ge=1, description="network calls an image")
    samples: int = Field(ge=2, description="images to draw")
    batch: int = Field(64, ge=1, description="images drawn at a time")
    least_t: float = Field(0.0, ge=0, le=1, description="the least t, as a share of T, that the network is told")


class Evaluation(Section):
    """Measuring while the network trains, with the metrics of the end."""

    every: float = Field(gt=0, description="of the training budget, in its unit: images or seconds")
    samples: int = Field(ge=2, description="images to draw each time")


class Config(Section):
    """Everything that a run depends on. Each plugin section holds ``name`` and all of that plugin's options."""

    benchmark: str
    seed: int = Field(0, ge=0)
    ladder: tuple[int, ...]
    prediction: Literal["eps", "v", "x0"]
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads")
    compile: bool = Field(default=False, description="compile the network for the shapes of each level")
    steps: int = Field(ge=1, le=1_000_000, description="T, the steps of the process")
    start: Literal["noise", "matched"] = Field("noise", description="x_T: white noise, or with the moments of x_T")
    jump: Literal["sigma", "matched"] = Field("sigma", description="the noise a jump fills in: sigma, or what x_t has")
    basis: dict[str, Any]
    schedule: dict[str, Any]
    backbone: dict[str, Any]
    sampler: dict[str, Any]
    dataset: dict[str, Any]
    detector: dict[str, Any]
    training: Training
    sampling: Sampling
    evaluation: Evaluation | None = Field(None, description="None: the network is measured at the end of training only")

    @field_validator("benchmark")
    @classmethod
    def _names_a_directory(cls, name: str) -> str:
        if name in {"", ".", ".."} or {"/", "\\"} & set(name) or not name.isprintable():
            raise ValueError(f"must be a name that a directory may have, such as cats, not {name!r}")
        return name

    @model_validator(mode="after")
    def _a_weight_for_each_level(self) -> Config:
        weights = self.training.weights
        if weights is not None and (len(weights) != len(self.ladder) or min(weights) <= 0):
            raise ValueError(f"training.weights must be {len(self.ladder)} numbers above 0, one for each level")
        return self

    def plugin(self, kind: Kind) -> tuple[str, dict[str, Any]]:
        """Return the name and the options of the plugin chosen for ``kind``."""
        section = dict(getattr(self, kind))
        return section.pop("name"), section

    def to_json(self) -> dict[str, Any]:
        """Return the whole resolved configuration in JSON's types; what is not asked for is left out."""
        # Runs are found again by a hash of this: an option that came later must not rename them.
        absent: dict[str, Any] = {key: True for key in ("evaluation", "compile") if not getattr(self, key)}
        absent["training"] = {
            key for key in ("shares", "weights", "flip", "least_t") if not getattr(self.training, key)
        }
        absent["training"] |= {
            key for key, first in (("optimizer", "adamw"), ("snr", "kept")) if getattr(self.training, key) == first
        }
        absent["sampling"] = set() if self.sampling.least_t else {"least_t"}
        return self.model_dump(mode="json", exclude=absent)


# One number for each level, or for each but the last.
PER_LEVEL = ("schedule.turns", "training.shares", "training.weights")
# Where there is one level these say nothing.
OF_LEVELS = (*PER_LEVEL, "schedule.attenuation", "training.snr")
MODELS: Mapping[str, type[Section]] = {"training": Training, "sampling": Sampling, "evaluation": Evaluation}


def benchmark_directory() -> Path:
    """Return where the benchmark files lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "benchmarks"
    return installed if installed.is_dir() else package.parent / "benchmarks"


def read_benchmark(benchmark: str) -> dict[str, Any]:
    """Read a benchmark by its name or its YAML file's path. Raises UsageError for an unknown or a broken one."""
    path = Path(benchmark)
    if path.suffix not in {".yaml", ".yml"}:
        known = {file.stem: file for file in benchmark_directory().glob("*.yaml")}
        if benchmark not in known:
            raise unknown("benchmark", benchmark, known, "(a YAML file's path works too)")
        path = known[benchmark]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the benchmark file {path} cannot be read: {error.strerror}; check its path") from error
    except Exception as error:  # for a value such as 2020-13-45 the library lets through whatever is raised
        raise UsageError(f"the benchmark file {path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"the benchmark file {path} must hold keys and values; see the benchmarks that come with dvbench"
        )
    return {"benchmark": path.stem, **content}


def resolve(benchmark: str, overrides: Mapping[str, Any], registry: Registry) -> Config:
    """Merge ``overrides`` (dotted keys, "backbone.width") into a benchmark and check the whole.

    The key "preset" stands for that preset's overrides, which the others override in turn. A plugin's own options are
    checked against its constructor; every default becomes a value of the Config.
    """
    content = read_benchmark(benchmark)
    _check_sections(content)
    asked = set(overrides)
    if "preset" in overrides:
        ladder = overrides.get("ladder", content.get("ladder"))
        _check_ladder(ladder)
        given = {key: value for key, value in overrides.items() if key != "preset"}
        overrides = {**preset_overrides(str(overrides["preset"]), ladder), **given}
    for kind in KINDS:
        if f"{kind}.name" in overrides:
            _choose(content, kind, str(overrides[f"{kind}.name"]), registry)
    _leave_to_new_levels(content, overrides)
    for key, value in overrides.items():
        if key not in {f"{kind}.name" for kind in KINDS}:
            _put(content, key, value)
    _check_sections(content)
    _complete_evaluation(content)
    if "ladder" in content and "basis" in content:
        _fit_ladder(content, registry, asked)
    for kind in KINDS:
        if kind in content:
            options = dict(content[kind])
            name = str(options.pop("name"))
            content[kind] = {"name": name, **registry.validate(kind, name, options)}
    try:
        return Config(**content)
    except ValidationError as error:
        raise _sentence(error) from error


def _check_sections(content: Mapping[str, Any]) -> None:
    """Raise UsageError for a key that is no word, and for a plugin's section that does not name its plugin.

    A missing section is told of later.
    """
    for where, section in {"the configuration": content, **content}.items():
        if isinstance(section, dict) and (strange := [key for key in section if not isinstance(key, str)]):
            raise UsageError(f"{strange[0]!r} is no key of {where}: a key is the name of an option, such as seed")
    for kind in KINDS:
        section = content.get(kind, {"name": ""})
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            raise UsageError(f"{kind} must name a plugin, as in {kind}: {{name: ...}}, not {section!r}")


def baseline_of(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of the DDPM baseline of a run: the same but for the basis, and so without levels."""
    of_levels = {"preset", *OF_LEVELS}
    kept = {key: value for key, value in overrides.items() if key not in of_levels and key.split(".")[0] != "basis"}
    return {**kept, "basis.name": "identity"}


def _choose(content: dict[str, Any], kind: Kind, name: str, registry: Registry) -> None:
    """Put another plugin into a section, with options of its own.

    Only turning points and attenuation belong to the benchmark's ladder more than to any one schedule: they stay.
    """
    held = dict(content.get(kind, {}))
    if held.get("name") != name:
        known = registry.options(kind, name)
        held = {key: value for key, value in held.items() if key in known and key in {"turns", "attenuation"}}
    content[kind] = {**held, "name": name}


def _leave_to_new_levels(content: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Forget the benchmark's shares and weights of its levels where a ladder of another length takes their place."""
    old, new, training = content.get("ladder"), overrides.get("ladder"), content.get("training")
    if isinstance(old, list) and isinstance(new, list | tuple) and len(old) != len(new) and isinstance(training, dict):
        content["training"] = {key: value for key, value in training.items() if f"training.{key}" not in PER_LEVEL}


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; which keys there are is checked with the whole."""
    section, dot, option = key.partition(".")
    if not dot:
        content[section] = value
        return
    if section not in {*KINDS, *MODELS}:
        raise unknown("section", section, {*KINDS, *MODELS})
    held = content.get(section)
    if held is None:
        held = {}
    if not isinstance(held, dict):
        raise UsageError(f"{section} must hold keys and values for {key} to be one, not {held!r}")
    held = {**held, option: value}
    # A budget replaces the other kind of budget: it is one choice.
    if section == "training" and option in {"images", "seconds"}:
        held.pop({"images": "seconds", "seconds": "images"}[option], None)
    content[section] = held


def _complete_evaluation(content: dict[str, Any]) -> None:
    """Let what is drawn while training be as many images as at the end, unless the user says otherwise."""
    evaluation, sampling = content.get("evaluation"), content.get("sampling")
    if isinstance(evaluation, dict) and isinstance(sampling, dict):
        content["evaluation"] = {"samples": sampling.get("samples"), **evaluation}


def _check_ladder(ladder: Any) -> None:
    """Raise UsageError for what is no falling list of side lengths."""
    if not isinstance(ladder, list | tuple) or not ladder or not all(type(n) is int and n > 0 for n in ladder):
        raise UsageError(f"the ladder must be falling side lengths such as 32,16,8, not {ladder!r}")
    if any(finer <= coarser for finer, coarser in pairwise(ladder)):
        raise UsageError(
            f"the ladder {','.join(map(str, ladder))} does not fall: each side must be smaller than the last"
        )


def _fit_ladder(content: dict[str, Any], registry: Registry, asked: set[str]) -> None:
    """Check that the ladder falls and cut it to what the basis uses, with the options that speak of its levels.

    A basis without levels has no turning points and nothing to attenuate, so what the benchmark says of them must not
    tell two equal baselines apart.
    """
    ladder = content["ladder"]
    _check_ladder(ladder)
    name = str(content["basis"].get("name", ""))
    usable = registry.usable(name, ladder)
    if (len(usable) == 1 or len(usable) < len(ladder)) and "schedule" in content:
        silent = OF_LEVELS if len(usable) == 1 else PER_LEVEL
        for option in silent:
            if option in asked:
                raise UsageError(
                    f"basis {name} stays at {usable[-1]} px, so {option.partition('.')[2]} says nothing: leave it out"
                )
        schedule = dict(content["schedule"])
        known = registry.options("schedule", str(schedule.get("name", "")))
        turns = schedule.get("turns", [])
        levels: dict[str, Any] = {"turns": turns[: len(usable) - 1] if isinstance(turns, list) else turns}
        if len(usable) == 1:
            levels["attenuation"] = 1.0
        content["schedule"] = {**schedule, **{key: value for key, value in levels.items() if key in known}}
        if isinstance(content.get("training"), dict):
            said = {key: value for key, value in content["training"].items() if f"training.{key}" not in silent}
            content["training"] = said
    content["ladder"] = list(usable)


def _sentence(error: ValidationError) -> UsageError:
    """Make one sentence of pydantic's first complaint; an unknown key gets the nearest known one."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *sections, option = map(str, first["loc"])
        model = MODELS[sections[0]] if sections else Config
        return unknown(" of ".join(["option", *sections]), option, model.model_fields)
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in {"missing", "value_error"} else f", not {first['input']!r}"
    return UsageError(f"{where}: {message[0].lower()}{message[1:]}{given}" if where else message)
