"""Benchmark files and overrides: one configuration, or one sentence."""

from __future__ import annotations

import pytest
import yaml

from benchmarks import write_benchmark
from dvbench.config import baseline_of, benchmark_directory, resolve
from dvbench.entry import overrides
from dvbench.errors import UsageError
from dvbench.presets import PRESETS
from dvbench.process import Process
from dvbench.registry import registry


def resolved(benchmark, **given):
    return resolve(
        str(benchmark), overrides({k: v for k, v in given.items() if k != "set"}, given.get("set")), registry()
    )


@pytest.mark.parametrize("path", sorted(benchmark_directory().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_benchmark_that_comes_along_resolves_and_so_does_its_baseline(path):
    config = resolved(path.stem)
    assert config.benchmark == path.stem
    assert config.basis["name"] == "dct"
    baseline = resolve(path.stem, baseline_of({}), registry())
    assert baseline.ladder == config.ladder[:1]
    assert baseline.schedule["turns"] == []
    of_levels = {"basis": True, "ladder": True, "schedule": True, "training": {"snr", "shares"}}
    assert baseline.model_dump(exclude=of_levels) == config.model_dump(exclude=of_levels)


def test_what_a_config_prints_resolves_to_itself(tmp_path):
    config = resolved("cats", basis="haar", seed=3, set={"backbone.width": 64})
    path = tmp_path / "cats.yaml"
    path.write_text(yaml.safe_dump(config.to_json()))
    assert resolved(path) == config


def test_options_reach_their_place():
    config = resolved(
        "cats", schedule="cosine", sampler="ddim", ladder=[32, 16], turns=[0.4], attenuation=0.1, prediction="v",
        sample_steps=7, samples=9, seed=5, train_images=1000, microbatch=8, device="cpu", threads=1, precision="fp32",
        set={"sampler.eta": 0.5, "backbone.width": 64, "training.lr": 3e-4, "steps": 100},
    )  # fmt: skip
    assert config.schedule == {"name": "cosine", "turns": [0.4], "attenuation": 0.1}
    assert config.sampler == {"name": "ddim", "eta": 0.5}
    assert (config.ladder, config.prediction, config.seed, config.steps) == ((32, 16), "v", 5, 100)
    assert (config.sampling.steps, config.sampling.samples) == (7, 9)
    assert (config.training.images, config.training.seconds, config.training.microbatch) == (1000, None, 8)
    assert (config.training.lr, config.backbone["width"]) == (3e-4, 64)
    assert (config.device, config.threads, config.precision) == ("cpu", 1, "fp32")


def test_another_plugin_keeps_the_options_that_it_has_too():
    assert resolved("cats", schedule="cosine").schedule == {"name": "cosine", "turns": [0.25, 0.55], "attenuation": 1.0}
    assert resolved("cats", sampler="ddim", set={"sampler.eta": 1}).sampler == {"name": "ddim", "eta": 1.0}


def test_two_baselines_of_runs_that_differ_in_their_levels_only_are_one():
    one = baseline_of(overrides({"basis": "haar", "turns": [0.2, 0.5], "attenuation": 0.1, "seed": 2}))
    other = baseline_of(overrides({"basis": "dct", "seed": 2}))
    assert resolve("cats", one, registry()) == resolve("cats", other, registry())


def test_what_came_later_and_is_not_asked_for_is_not_in_the_configuration():
    plain = resolved("faces").to_json()
    assert not {"compile", "evaluation"} & set(plain)
    assert not {"snr", "shares", "weights", "flip", "optimizer", "least_t"} & set(plain["training"])
    assert resolved("faces", set={"training.optimizer": "muon"}).to_json()["training"]["optimizer"] == "muon"
    asked = resolved("cats", set={"training.shares": [2, 1, 1], "training.weights": [1, 2, 3], "training.flip": True})
    held = asked.to_json()["training"]
    assert (held["shares"], held["weights"], held["flip"]) == ([2, 1, 1], [1, 2, 3], True)
    assert "least_t" not in resolved("faces").to_json()["sampling"]
    assert resolved("faces", set={"sampling.least_t": 0.1}).to_json()["sampling"]["least_t"] == 0.1


def test_another_ladder_takes_no_shares_of_the_benchmarks_levels(tmp_path):
    content = yaml.safe_load((benchmark_directory() / "cats.yaml").read_text())
    content["training"] |= {"shares": [2, 1, 1], "weights": [1, 2, 3]}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    for given in ({"ladder": [32, 16], "turns": [0.3]}, {"preset": "blurring"}):
        training = resolve(str(path), overrides(given), registry()).training
        assert (training.shares, training.weights) == (None, None)
    kept = resolve(str(path), overrides({"ladder": [32, 24, 16]}), registry()).training
    assert (kept.shares, kept.weights) == ((2, 1, 1), (1, 2, 3))
    asked = overrides({"ladder": [32, 16], "turns": [0.3]}, {"training.shares": [2, 1]})
    assert resolve(str(path), asked, registry()).training.shares == (2, 1)


def test_a_baseline_takes_no_whole_section_of_levels_either():
    whole = {"basis": {"name": "haar"}, "schedule": {"name": "linear", "turns": [0.2, 0.5], "attenuation": 0.2}}
    baseline = resolve("cats", baseline_of(overrides({}, whole)), registry())
    assert baseline == resolved("cats", basis="identity", schedule="linear")


def test_a_section_that_is_null_is_empty(tmp_path):
    path = write_benchmark(tmp_path, evaluation=None)
    assert resolved(path).evaluation is None
    assert resolved(path, eval_every=16).evaluation.every == 16


def test_a_file_names_no_place_outside_the_results(tmp_path):
    with pytest.raises(UsageError, match="benchmark: must be a name that a directory may have"):
        resolved(write_benchmark(tmp_path, benchmark="a/b"))


def test_a_baseline_has_no_levels_to_weigh():
    settings = {"training.shares": [2, 1, 1], "training.weights": [1, 2, 3], "training.snr": "picture"}
    assert baseline_of(overrides({}, settings)) == baseline_of(overrides({}, {}))
    assert resolved("cats", set={"training.snr": "picture"}).to_json()["training"]["snr"] == "picture"
    with pytest.raises(UsageError, match="basis identity stays at 32 px, so shares says nothing"):
        resolved("cats", basis="identity", set={"training.shares": [2, 1, 1]})
    with pytest.raises(UsageError, match="basis identity stays at 32 px, so snr says nothing"):
        resolved("cats", basis="identity", set={"training.snr": "picture"})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"basis": "dtc"}, "there is no basis called 'dtc': did you mean 'dct'"),
        ({"backbone": "u-net"}, "did you mean 'unet'"),
        ({"set": {"backbone.widht": 4}}, "'widht': did you mean 'width'"),
        ({"set": {"training.rl": 4}}, "option of training called 'rl': did you mean 'lr'"),
        ({"set": {"backbon.width": 4}}, "section called 'backbon': did you mean 'backbone'"),
        ({"set": {"sed": 4}}, "option called 'sed': did you mean 'seed'"),
        ({"set": {"backbone.width": "wide"}}, "option width of backbone unet is int, and 'wide' will not do"),
        ({"ladder": [32, 32]}, "does not fall"),
        ({"ladder": [8, 16]}, "does not fall"),
        ({"ladder": [32, 0]}, "falling side lengths"),
        ({"set": {"ladder": 32}}, "falling side lengths"),
        ({"ladder": [32], "turns": [0.3]}, "basis dct stays at 32 px, so turns says nothing"),
        ({"basis": "identity", "turns": [0.3, 0.6]}, "basis identity stays at 32 px, so turns says nothing"),
        ({"samples": 1}, "sampling.samples"),
        ({"train_images": 0}, "training.images"),
        ({"train_images": 5, "train_seconds": 5.0}, "two budgets: give one of them"),
        ({"train_seconds": float("inf")}, "training.seconds"),
        ({"set": {"basis": "dct"}}, "basis must name a plugin"),
        ({"set": {"sampling.name": "x"}}, "option of sampling called 'name'"),
        ({"set": {"foo.name": "x"}}, "section called 'foo'"),
        ({"seed": -1}, "seed"),
        ({"data": "/tmp"}, "option of dataset cats"),
        ({"preset": "dpdm"}, "no preset called 'dpdm': did you mean 'ddpm'"),
        ({"preset": "blurring", "set": {"ladder": 32}}, "falling side lengths"),
        ({"set": {"training.weights": [1, 2]}}, "training.weights must be 3 numbers above 0, one for each level"),
        ({"set": {"training.weights": [1, 2, 0]}}, "training.weights must be 3 numbers above 0"),
        ({"colour": "red"}, "option of run called 'colour'"),
        ({"set": {"benchmark": ""}}, "benchmark: must be a name that a directory may have, such as cats, not ''"),
        ({"set": {"benchmark": ".."}}, "a name that a directory may have"),
        ({"set": {"benchmark": "../../x"}}, "a name that a directory may have"),
        ({"set": {"benchmark": "a\0b"}}, "a name that a directory may have"),
        ({"threads": 99_999}, "threads: input should be less than or equal to 1024, not 99999"),
        ({"set": {"steps": 10**11}}, "steps: input should be less than or equal to 1000000"),
        ({"set": {"training.a.b": 1}}, "no option of training called 'a.b'"),
        ({"set": {"evaluation.a.b": 1, "evaluation.every": 2}}, "no option of evaluation called 'a.b'"),
        ({"set": {"backbone": {"name": "unet", 1: 2}}}, "1 is no key of backbone"),
        ({"set": {"training": {"images": 5, None: 2}}}, "None is no key of training"),
        ({"set": {"training": 5, "training.images": 3}}, "training must hold keys and values for training.images"),
        ({"train_images": 5, "set": {"training.seconds": 5}}, "two budgets: give one of them"),
        ({"set": {"training.images": 5, "training.seconds": 5}}, "two budgets: give one of them"),
    ],
)
def test_wrong_input_is_one_sentence(given, sentence):
    with pytest.raises(UsageError) as error:
        resolved("cats", **given)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_benchmark_suggests_the_nearest():
    with pytest.raises(UsageError, match="no benchmark called 'catz': did you mean 'cats'"):
        resolved("catz")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ladder: [", "no valid YAML"),
        ("- 1", "keys and values"),
        ("ladder: [16, 8]", "field required"),
        ("backbone: unet", "backbone must name a plugin"),
        ("dataset: {}", "dataset must name a plugin"),
        ("seed: 2020-13-45", "mine.yaml is no valid YAML: month must be in 1..12"),
        ("seed: !!timestamp foo", "mine.yaml is no valid YAML"),
        ("seed: !!bool foo", "mine.yaml is no valid YAML"),
        ("1: 2", "1 is no key of the configuration"),
        ("~: 1", "None is no key of the configuration"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_benchmark_file_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as error:
        resolved(path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_both_budgets_or_none_are_refused(tmp_path):
    for training in ({"batch": 4}, {"images": 4, "seconds": 4}):
        with pytest.raises(UsageError, match="in images or in seconds"):
            resolved(write_benchmark(tmp_path, training=training))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("benchmark", ["cats", "ffhq"])
def test_every_preset_resolves_on_a_benchmark_and_makes_a_process(name, benchmark):
    config = resolved(benchmark, preset=name)
    kind, options = config.plugin("basis")
    basis = registry().create("basis", kind, {"ladder": config.ladder, "channels": 3}, options)
    kind, options = config.plugin("schedule")
    schedule = registry().create("schedule", kind, {"ladder": config.ladder, "steps": config.steps}, options)
    Process(basis, schedule)
    assert PRESETS[name].paper
    assert PRESETS[name].differs


def test_presets_are_what_their_papers_say_and_yield_to_options():
    assert resolved("cats", preset="ddpm").ladder == (32,)
    subspace = resolved("cats", preset="subspace")
    assert (subspace.jump, subspace.schedule["attenuation"], subspace.basis["name"]) == ("matched", 1.0, "haar")
    assert resolved("cats", preset="subspace", basis="dct").basis["name"] == "dct"
    blurring = resolved("cats", preset="blurring")
    assert blurring.ladder == (32, 28, 24, 20, 16, 12, 8, 4)
    assert blurring.schedule == {"name": "heat", "turns": [1.0] * 7, "blur": 20.0, "least": 0.001}
    dvdp = resolved("cats", preset="dvdp")
    assert (dvdp.jump, dvdp.schedule["attenuation"], dvdp.schedule["turns"]) == ("sigma", 0.3, [0.25, 0.55])
    assert resolved("cats", preset="dvdp", attenuation=0.1).schedule["attenuation"] == 0.1


def test_the_baseline_of_a_preset_is_the_benchmarks_ddpm():
    baseline = resolve("cats", baseline_of(overrides({"preset": "blurring", "seed": 1})), registry())
    assert baseline == resolved("cats", basis="identity", seed=1)


def test_a_ladder_of_one_side_needs_no_turning_points():
    assert resolved("cats", basis="identity", ladder=[32]) == resolved("cats", basis="identity")
    assert resolved("cats", basis="dct", ladder=[32]).schedule["turns"] == []
