"""What a record holds, key by key: the models that check it, and the JSON Schema that they make.

``python -m dvbench.schema > dvbench/record.schema.json`` writes the schema that the package carries, for scripts in any
language. A key that is required is null where it was not measured; one that may be absent is unknown where it is.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, with_config
from pydantic.json_schema import GenerateJsonSchema, WithJsonSchema
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# int first: a count stays a count, where plain float would turn 3 into 3.0.
Number = Annotated[int | float, WithJsonSchema({"type": "number"})]

_OPEN = ConfigDict(extra="allow", allow_inf_nan=False)


class _Part(BaseModel):
    """An object inside the record: keys without a default are required, and more may be added beside all."""

    model_config = _OPEN

    @model_serializer(mode="wrap")
    def _as_said(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was never said: absent is unknown, null is known not to be."""
        return {key: value for key, value in serialize(self).items() if key in self.model_fields_set}


class Method(_Part):
    """What was run."""

    basis: str = Field(description="the basis' name; identity, which never changes the resolution, is DDPM")
    schedule: str = Field(description="the schedule's name")
    backbone: str = Field(description="the network's name")
    sampler: str = Field(description="the sampler's name")
    ladder: list[int] = Field(description="side lengths in pixels, level by level, falling")
    turns: list[Number] = Field(description="turning points as shares of the process, rising, one less than levels")
    attenuation: Number | None = Field(description="what the gain of a component has fallen to when it is dropped")
    prediction: str = Field(description="what the network says: eps, v or x0")
    sample_steps: int = Field(description="network calls for an image")
    start: str | None = Field(None, description="how sampling starts: noise, or matched to the data's moments")
    jump: str | None = Field(None, description="what noise a jump fills in: sigma, or matched to the data's moments")
    train_hash: str | None = Field(None, description="SHA-256 of all that the trained weights depend on")
    trained_by: str | None = Field(None, description="run_id of the run whose weights were taken; null: trained here")
    fingerprint: str | None = Field(None, description="the dataset's own: another one means that its data have changed")


class Environment(_Part):
    """Where it ran."""

    dvbench: str = Field(description="dvbench's version")
    python: str = Field(description="Python's version")
    torch: str = Field(description="PyTorch's version")
    plugins: dict[str, str] = Field(description="version of each distribution whose plugins took part")
    git_commit: str | None = Field(description="commit of the checkout that dvbench ran from; null: from no checkout")
    git_dirty: bool | None = Field(description="whether that checkout had been changed")
    device: str = Field(description="cpu, cuda or mps")
    device_name: str | None = Field(description="model of the processor or GPU")
    threads: int | None = Field(description="PyTorch's threads on the processor")
    precision: str = Field(description="fp32, bf16 or fp16")
    platform: str = Field(description="operating system and machine")
    torchvision: str | None = Field(None, description="torchvision's version")
    plugin_code: dict[str, str] | None = Field(
        None, description="SHA-256 of the source of each distribution in plugins but dvbench"
    )
    code: str | None = Field(None, description="SHA-256 of the part of dvbench's source that decides what a run does")


@with_config(_OPEN)
class Batch(TypedDict):
    """Images that were drawn together."""

    samples: Annotated[int, Field(description="how many")]
    seconds: Annotated[Number, Field(description="wall seconds")]


@with_config(_OPEN)
class Overhead(TypedDict):
    """The share of the wall seconds that went to anything but the network: process, data, optimiser, bookkeeping."""

    train: Annotated[Number | None, Field(description="of train_seconds, the network's being forward and backward")]
    sample: Annotated[Number | None, Field(description="of sample_seconds")]


class Cost(_Part):
    """What it cost. FLOPs are those of convolution, linear, matmul and attention."""

    params: int | None = Field(description="trainable parameters")
    flops_per_mac: Literal[2] = Field(description="FLOPs counted for a multiply-accumulate")
    uncounted_ops: list[str] | None = Field(description="operators of a forward pass whose FLOPs are not counted")
    forward_flops: list[Number] | None = Field(description="FLOPs of one image's forward pass, one for each level")
    steps_per_level: list[int] | None = Field(description="network calls for an image, one for each level")
    sample_flops: Number | None = Field(description="FLOPs of drawing one image")
    train_flops_per_image: Number | None = Field(description="FLOPs of one training image, forward and backward")
    train_seconds: Number | None = Field(description="wall seconds of the training steps")
    train_images: int | None = Field(description="images seen in training")
    sample_seconds: Number | None = Field(description="wall seconds of drawing all samples")
    samples: int | None = Field(description="images drawn")
    peak_memory_bytes: int | None = Field(
        description="most bytes held: allocated on a GPU, else resident in the process"
    )
    seconds_per_level: list[Number] | None = Field(description="wall seconds of drawing all samples, at each level")
    backward_flops: list[Number] | None = Field(
        None, description="FLOPs of one image's backward pass, one for each level"
    )
    train_images_per_level: list[int] | None = Field(None, description="images seen in training, at each level")
    sample_batches: list[Batch] | None = Field(None, description="each batch of samples and its wall seconds, in order")
    train_energy_joules: Number | None = Field(None, description="energy of training; null: the device does not tell")
    sample_energy_joules: Number | None = Field(
        None, description="energy of drawing all samples; null: the device does not tell"
    )
    overhead: Overhead | None = Field(None, description="share of time outside the network; null: not measured")


@with_config(_OPEN)
class Point(TypedDict):
    """A metric of the network at one moment of its training, and what had been spent by then."""

    train_images: Annotated[int, Field(description="images seen by then")]
    train_seconds: Annotated[Number, Field(description="wall seconds of the training steps by then")]
    train_flops: Annotated[Number | None, Field(description="FLOPs of training by then")]
    value: Annotated[Number, Field(description="the metric, not rounded")]
    low: Annotated[Number | None, Field(description="lower end of its 95 % interval")]
    high: Annotated[Number | None, Field(description="upper end of its 95 % interval")]
    n: Annotated[int, Field(description="samples measured")]


class Metric(_Part):
    """One thing that was measured of the samples."""

    name: str = Field(
        description="fid (of clean-fid's InceptionV3) or fd: Frechet distance; fid_inf or fd_inf: extrapolated to "
        "infinitely many samples; kid: kernel distance; precision; recall; lsd: distance of log spectra in dB; others"
    )
    value: Number = Field(description="the metric, not rounded")
    low: Number | None = Field(description="lower end of its 95 % interval")
    high: Number | None = Field(description="upper end of its 95 % interval")
    n: int = Field(description="samples measured")
    detector: str | None = Field(description="name and version of the detector; null: pixels were measured")
    detector_hash: str | None = Field(description="SHA-256 of the detector's weights")
    reference: str | None = Field(description="in words, what the samples were held against")
    reference_hash: str | None = Field(description="SHA-256 of the reference images' pixels")
    resize: str | None = Field(description="in words, how images reached the detector's size")
    higher_is_better: bool = Field(description="whether a larger value is better")
    split: Literal["held-out", "train"] | None = Field(
        None, description="split that the reference is; absent: held-out"
    )
    floor: Number | None = Field(None, description="what as many real images reach; null: there are too few")
    interval: str | None = Field(None, description="in words, how low and high were found; null where these are")
    curve: list[Point] = Field([], description="the metric during training, by train_images; the end is not in it")
    frequencies: list[Number] | None = Field(None, description="of lsd: radial frequencies in cycles an image")
    power: list[Number] | None = Field(None, description="of lsd: power of the samples at those frequencies")
    reference_power: list[Number] | None = Field(None, description="of lsd: power of the reference split at them")


class Record(BaseModel):
    """A run's record: exactly these keys. Times are ISO 8601 in UTC; values are raw, null where not measured."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = Field(1, description="the version of this schema")
    run_id: str = Field(description="name of the run's directory")
    benchmark: str = Field(description="the benchmark's name")
    status: Literal["finished", "interrupted", "failed"] = Field(description="how the run ended")
    seed: int = Field(description="seed of the weights, the training and the samples")
    started: str = Field(description="time of the first start")
    finished: str | None = Field(description="time of the end; null where the run is not finished")
    resumed: list[str] = Field(description="times at which the run went on")
    config: dict[str, Any] = Field(description="the whole resolved configuration")
    config_hash: str = Field(description="SHA-256 of config as JSON with sorted keys and no spaces")
    method: Method
    environment: Environment
    cost: Cost
    metrics: list[Metric] = Field(description="what was measured; what was not is not listed")


class _Plain(GenerateJsonSchema):
    """Leaves out titles that only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Whether a key needs a title."""
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record on disk, which always says its version."""
    schema = Record.model_json_schema(schema_generator=_Plain)
    return {"$schema": DIALECT, **schema, "required": ["schema_version", *schema["required"]]}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))  # noqa: T201 - this is how the file in the package is made
