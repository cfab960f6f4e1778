import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from records import RAW, raw, save

from dvbench import record as records
from dvbench.errors import UsageError
from dvbench.record import Record

KEYS = {
    "": "schema_version run_id benchmark status seed started finished resumed config config_hash method environment "
    "cost metrics",
    "method": "basis schedule backbone sampler ladder turns attenuation prediction sample_steps",
    "environment": "dvbench python torch plugins git_commit git_dirty device device_name threads precision platform",
    "cost": "params flops_per_mac uncounted_ops forward_flops steps_per_level sample_flops train_flops_per_image "
    "train_seconds train_images sample_seconds samples peak_memory_bytes seconds_per_level",
    "metrics.0": "name value low high n detector detector_hash reference reference_hash resize higher_is_better",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def without(path: str) -> dict:
    value = raw()
    *outer, last = path.split(".")
    place = value
    for step in outer:
        place = place[int(step)] if step.isdigit() else place[step]
    del place[last]
    return value


def refused(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "cats" / "run" / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        records.read(path)
    told = str(caught.value)
    assert str(path) in told
    assert "delete its directory" in told
    assert "\n" not in told
    return told


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = save(tmp_path)
    assert json.loads(path.read_text()) == RAW
    assert records.read(path).model_dump(mode="json") == RAW
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_values_are_not_rounded_and_counts_stay_whole(tmp_path):
    path = save(tmp_path, **{"cost.sample_flops": 2**60 + 1, "cost.train_seconds": 0.1 + 0.2})
    assert '"sample_flops": 1152921504606846977,' in path.read_text()
    assert records.read(path).cost.train_seconds == 0.1 + 0.2


@pytest.mark.parametrize("place", KEYS)
def test_every_key_of_the_contract_is_required(tmp_path, place):
    for key in KEYS[place].split():
        path = f"{place}.{key}".lstrip(".")
        if path == "schema_version":
            continue
        assert key in refused(tmp_path, json.dumps(without(path)))


def test_no_key_is_added_at_the_top_and_any_inside(tmp_path):
    assert "extra" in refused(tmp_path, json.dumps(raw(extra=1)))
    inside = {"method.more": 1, "environment.more": "x", "cost.more": [0.5], "metrics.0.more": {"a": None}}
    path = save(tmp_path, **inside)
    assert json.loads(path.read_text()) == raw(**inside)


def test_what_was_not_measured_is_null(tmp_path):
    nulls = {f"cost.{key}": None for key in KEYS["cost"].split() if key != "flops_per_mac"}
    path = save(tmp_path, status="interrupted", finished=None, metrics=[], **nulls)
    assert records.read(path).cost.sample_flops is None


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        ({"seed": "0"}, "seed"),
        ({"status": "done"}, "status"),
        ({"metrics.0.value": None}, "metrics.0.value"),
        ({"metrics.0.higher_is_better": 1}, "higher_is_better"),
        ({"cost.flops_per_mac": 1}, "flops_per_mac"),
        ({"method.ladder": 32}, "method.ladder"),
        ({"config": []}, "config"),
    ],
)
def test_a_wrong_type_is_refused_and_placed(tmp_path, overrides, place):
    assert place in refused(tmp_path, json.dumps(raw(**overrides)))


def test_a_damaged_file_is_refused(tmp_path):
    whole = json.dumps(raw())
    for text in ("", whole[: len(whole) // 2], "[]", "null", b"\xff\xfe{", "[" * 100_000, '{"seed": NaN}'):
        refused(tmp_path, text)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_schema_is_refused(tmp_path, version):
    assert f"schema {version!r}" in refused(tmp_path, json.dumps(raw(schema_version=version)))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"record\.json cannot be read"):
        records.read(tmp_path / "record.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_never_written(tmp_path, value):
    with pytest.raises(ValidationError):
        save(tmp_path, **{"metrics.0.value": value})
    assert not list(tmp_path.rglob("*.json"))
    assert records.read(save(tmp_path, **{"metrics.0.floor": value})).metrics[0].model_extra == {"floor": None}


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_the_canonical_form_does_not_know_the_order_of_keys(config):
    turned = dict(reversed(config.items()))
    assert records.canonical(turned) == records.canonical(config)
    assert json.loads(records.canonical(config)) == config
    assert re.fullmatch("[0-9a-f]{64}", records.digest(config))


def test_the_digest_is_the_sha256_of_the_canonical_form():
    assert records.canonical({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert records.digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert records.digest({"seed": 1}) != records.digest({"seed": 2})


def test_the_model_names_the_contract_s_keys():
    assert list(Record.model_fields) == KEYS[""].split()
