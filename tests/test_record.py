import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from records import RAW, raw, save

from dvbench import record as records
from dvbench.errors import UsageError, WorkError
from dvbench.migrations import STEPS, migrated
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


def test_what_could_not_be_written_again_is_damage_wherever_it_stands(tmp_path):
    whole = json.dumps(raw(**{"config.more": 0.5}))
    assert '"more": 0.5' in whole
    for value in ("1e999", r'"\ud800"', r'{"\udfff": 1}'):
        assert "is damaged" in refused(tmp_path, whole.replace('"more": 0.5', f'"more": {value}'))


@pytest.mark.parametrize("version", [2, 17])
def test_a_newer_schema_is_refused(tmp_path, version):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"schema_version": version, "unheard": "of"}))
    with pytest.raises(UsageError) as caught:
        records.read(path)
    assert str(caught.value) == (
        f"{path} follows schema {version}, and this dvbench knows up to 1: install a newer dvbench"
    )


@pytest.mark.parametrize("version", ["1", None, True, 1.0, -1, [1]])
def test_what_is_no_version_is_refused(tmp_path, version):
    assert f"schema_version: {version!r} is no version" in refused(tmp_path, json.dumps(raw(schema_version=version)))


def test_a_record_from_before_schemas_were_numbered_is_read_and_stays_as_it_is(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(without("schema_version")))
    before = path.read_bytes()
    assert records.read(path).model_dump(mode="json") == RAW
    assert path.read_bytes() == before


def test_migration_goes_version_by_version_and_changes_nothing_that_it_is_given():
    steps = {
        0: STEPS[0],
        1: lambda raw: {**raw, "schema_version": 2, "seed": [raw["seed"]]},
        2: lambda raw: {**raw, "schema_version": 3, "seed": len(raw["seed"])},
    }
    given = {"seed": 5}
    assert migrated(given, steps) == {"schema_version": 3, "seed": 1}
    assert migrated({"schema_version": 2, "seed": [1, 2]}, steps) == {"schema_version": 3, "seed": 2}
    assert migrated({"schema_version": 3, "seed": "x"}, steps) == {"schema_version": 3, "seed": "x"}
    assert given == {"seed": 5}


def test_migrations_lead_from_the_first_schema_to_the_present_one():
    assert list(STEPS) == list(range(Record.model_fields["schema_version"].default))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"record\.json cannot be read"):
        records.read(tmp_path / "record.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["metrics.0.value", "metrics.0.floor", "cost.train_seconds"])
def test_what_json_cannot_hold_is_never_written(tmp_path, value, place):
    with pytest.raises(ValidationError):
        save(tmp_path, **{place: value})
    assert not list(tmp_path.rglob("*.json"))
    assert records.read(save(tmp_path, **{"metrics.0.more": value})).metrics[0].more is None


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_is_not_read_wherever_it_stands(tmp_path, constant):
    text = json.dumps(raw(**{"metrics.0.more": 0.5}))
    assert f"{constant} is no JSON" in refused(
        tmp_path, text.replace("0.5,", f"{constant},").replace("0.5}", f"{constant}}}")
    )


def changed(record, place, value):
    """Set an attribute of a record as code may, past its checks."""
    *outer, last = place.split(".")
    part = record
    for step in outer:
        part = part[int(step)] if step.isdigit() else getattr(part, step)
    setattr(part, last, value)
    return record


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", "0"),
        ("status", "done"),
        ("resumed", None),
        ("cost.samples", 1.5),
        ("cost", {}),
        ("method.ladder", [32.0]),
        ("metrics.0.value", None),
        ("metrics.0.low", float("nan")),
        ("metrics.0.curve", [{"value": 1.0}]),
    ],
)
def test_what_was_made_invalid_is_not_written(tmp_path, place, value):
    path = save(tmp_path)
    before = path.read_bytes()
    record = changed(records.read(path), place, value)
    with pytest.raises(WorkError) as caught:
        records.write(path, record)
    assert str(caught.value).startswith(f"{path} is not written, since the record would not be valid ({place}")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_a_copy_that_lacks_what_is_required_is_not_written(tmp_path):
    with pytest.raises(WorkError, match="metrics: field required"):
        records.write(tmp_path / "record.json", Record.model_construct(run_id="run"))
    with pytest.raises(WorkError, match="seed: input should be a valid integer"):
        records.write(tmp_path / "record.json", Record.model_validate(RAW).model_copy(update={"seed": None}))
    assert list(tmp_path.iterdir()) == []


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
