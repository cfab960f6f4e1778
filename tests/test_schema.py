"""The JSON Schema in the package says what the models say."""

import json
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from records import raw, save

from dvbench import record as records
from dvbench.record import Record
from dvbench.schema import json_schema

ROOT = Path(__file__).parents[1]
COMMITTED = sorted((ROOT / "results/reference").rglob("record.json"))
POINT = {
    "train_images": 100,
    "train_seconds": 1.5,
    "train_flops": None,
    "value": 20.5,
    "low": 19.5,
    "high": 21.5,
    "n": 9,
}
FULL = {
    "method.start": "matched",
    "method.jump": "sigma",
    "environment.torchvision": "0.21.0",
    "environment.plugin_code": {"dvbench-dit": "b" * 64},
    "environment.code": "f" * 64,
    "cost.backward_flops": [6_000_000, 2_000_000.5, 600_000],
    "cost.train_images_per_level": [20_000, 15_000, 15_000],
    "cost.sample_batches": [{"samples": 64, "seconds": 6.5}, {"samples": 36, "seconds": 3.5}],
    "cost.train_energy_joules": 1000.5,
    "cost.sample_energy_joules": None,
    "metrics.0.split": "train",
    "metrics.0.interval": "delete-group jackknife, 32 groups",
    "metrics.0.curve": [POINT, POINT | {"train_images": 200}],
    "metrics.0.frequencies": [0.5, 1.5],
    "metrics.0.power": [2.5, 0.25],
    "metrics.0.reference_power": [3.5, 0.125],
}

OPTIONAL = {*FULL, "metrics.0.floor", "method.train_hash", "method.trained_by"}
FREE = ("config.", "environment.plugins.", "environment.plugin_code.")  # what is inside is not the record's to say


@cache
def schema():
    return Draft202012Validator(json.loads((ROOT / "dvbench/record.schema.json").read_text()))


def places(value, at=()):
    """Yield the way to each value inside ``value``."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from places(inner, (*at, key))


def at(value, place):
    for key in place:
        value = value[key]
    return value


WHOLE = raw(**FULL)
# Without its version a record is one of schema 0, of which another test speaks.
PLACES = [place for place in places(WHOLE) if place != ("schema_version",)]
OBJECTS = [place for place in [(), *PLACES] if isinstance(at(WHOLE, place), dict)]


def valid(value):
    """Whether the models take ``value``; the JSON Schema must say the same."""
    try:
        Record.model_validate(value, strict=True)
    except ValidationError:
        models = False
    else:
        models = True
    assert schema().is_valid(value) == models
    return models


def test_the_schema_in_the_package_is_the_one_that_the_models_make():
    printed = subprocess.run(
        [sys.executable, "-m", "dvbench.schema"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(printed.stdout) == json_schema()
    assert schema().schema == json_schema(), "python -m dvbench.schema > dvbench/record.schema.json"
    Draft202012Validator.check_schema(json_schema())


def test_every_key_of_the_schema_is_described():
    schema = json_schema()
    for part in [schema, *schema["$defs"].values()]:
        assert part["description"]
        for name, key in part["properties"].items():
            assert "$ref" in key or key["description"], name


def test_the_schema_takes_every_committed_record_and_each_is_dumped_as_it_was_said():
    assert len(COMMITTED) > 400
    for path in COMMITTED:
        said = json.loads(path.read_text())
        assert valid(said), path
        assert records.read(path).model_dump(mode="json") == said, path


def test_a_record_with_all_that_may_be_said_comes_back_as_it_was_written(tmp_path):
    assert valid(WHOLE)
    path = save(tmp_path, **FULL)
    assert json.loads(path.read_text()) == WHOLE
    assert records.read(path).metrics[0].curve[1]["train_images"] == 200


@pytest.mark.parametrize("place", [place for place in PLACES if isinstance(place[-1], str)], ids=str)
def test_a_key_that_is_missing_is_missed_where_it_is_required(place):
    value = deepcopy(WHOLE)
    del at(value, place[:-1])[place[-1]]
    name = ".".join(map(str, place))
    assert valid(value) == (name in OPTIONAL or name.startswith(FREE))


@pytest.mark.parametrize("place", OBJECTS, ids=str)
def test_a_key_more_is_refused_at_the_top_and_taken_inside(place):
    value = deepcopy(WHOLE)
    at(value, place)["more"] = "words"
    assert valid(value) == (place != ())


# JSON Schema takes 3.0 for an integer and the models do not, so that a count stays a count.
SIMPLE = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    SIMPLE.filter(lambda value: not (isinstance(value, float) and value.is_integer())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500)
@given(place=st.sampled_from(PLACES), new=ANYTHING)
@example(place=("seed",), new=True)
@example(place=("cost", "flops_per_mac"), new=True)
@example(place=("metrics", 0, "split"), new="test")
@example(place=("metrics", 0, "curve", 0), new={})
@example(place=("metrics", 0, "curve"), new=None)
def test_both_say_the_same_of_any_value_in_any_place(place, new):
    value = deepcopy(WHOLE)
    at(value, place[:-1])[place[-1]] = new
    valid(value)


@given(ANYTHING)
def test_what_is_no_record_at_all_is_refused_by_both(value):
    assert not valid(value)
