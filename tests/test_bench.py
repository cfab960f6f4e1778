"""Whole runs in process: the record, the files, resuming, reuse of weights, failures."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import dvbench
from benchmarks import write_benchmark, write_pictures
from dvbench import bench, checkpoint
from dvbench import record as records
from dvbench.builtin.pca import Pca
from dvbench.builtin.samplers import Ancestral
from dvbench.errors import UsageError, WorkError
from dvbench.training import Trainer


@pytest.fixture
def tiny(tmp_path):
    return write_benchmark(tmp_path)


def run(path, **options):
    return dvbench.run(str(path), results=path.parent / "results", **options)


def directory(path, record):
    return path.parent / "results" / path.stem / record.run_id


def samples(path, record):
    return np.load(directory(path, record) / "samples.npz")["samples"]


def test_a_run_leaves_all_that_the_contract_names(tiny):
    record = run(tiny)
    place = directory(tiny, record)
    assert {file.name for file in place.iterdir()} == {
        "record.json", "config.yaml", "log.jsonl", "samples.png", "samples.npz", "checkpoints",
    }  # fmt: skip
    assert [file.name for file in (place / "checkpoints").iterdir()] == ["weights.safetensors"]
    assert records.read(place / "record.json") == record
    assert (record.status, record.benchmark, record.resumed) == ("finished", "tiny", [])
    assert record.config == yaml.safe_load((place / "config.yaml").read_text())
    assert record.config_hash == records.digest(record.config)
    images = samples(tiny, record)
    assert (images.shape, images.dtype) == ((6, 16, 16, 3), np.uint8)
    with Image.open(place / "samples.png") as picture:
        assert picture.size == (3 * 66 + 2, 2 * 66 + 2)
    events = [json.loads(line)["event"] for line in (place / "log.jsonl").read_text().splitlines()]
    assert (events[0], events[-1]) == ("started", "finished")


def test_the_record_says_what_was_run_and_what_it_cost(tiny):
    record = run(tiny)
    cost, method = record.cost, record.method
    assert method.ladder == [16, 8]
    assert method.turns == [0.5]
    assert (method.attenuation, method.sample_steps) == (0.3, 4)
    assert cost.steps_per_level == [2, 2]
    assert cost.sample_flops == sum(f * n for f, n in zip(cost.forward_flops, cost.steps_per_level, strict=True))
    seen = cost.train_images_per_level
    assert sum(seen) == cost.train_images == 64
    passes = zip(cost.forward_flops, cost.backward_flops, seen, strict=True)
    expected = sum((there + back) * n for there, back, n in passes) / 64
    assert cost.train_flops_per_image == pytest.approx(expected)
    assert 0 < sum(cost.seconds_per_level) <= cost.sample_seconds
    assert cost.peak_memory_bytes > 1e7
    assert 0 < cost.overhead["train"] < 1
    assert 0 < cost.overhead["sample"] < 1
    assert "aten::group_norm" in cost.uncounted_ops
    assert sum(batch["samples"] for batch in cost.sample_batches) == 6
    assert sum(batch["seconds"] for batch in cost.sample_batches) == cost.sample_seconds
    assert [metric.name for metric in record.metrics] == ["fd", "fd_inf", "kid", "lsd"]
    *seen, lsd = record.metrics
    for metric in seen:
        assert (metric.n, metric.resize) == (6, "bicubic antialiased to 32 px")
        assert metric.floor >= 0 or metric.name == "kid"  # KID is unbiased: it may fall below 0
    assert (lsd.detector, lsd.resize, len(lsd.power)) == (None, None, len(lsd.frequencies))
    assert len(record.environment.code) == 64
    assert record.environment.plugins.keys() == {"dvbench"}


def test_a_finished_run_is_reported_and_not_repeated_unless_fresh(tiny, monkeypatch):
    first = run(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", None)
        assert run(tiny) == first
    again = run(tiny, fresh=True)
    assert again.run_id == f"{first.run_id}-2"
    assert again.method.trained_by is None
    assert np.array_equal(samples(tiny, again), samples(tiny, first))
    assert run(tiny) == again


def test_equal_training_inputs_share_their_weights(tiny, monkeypatch):
    first = run(tiny)
    monkeypatch.setattr(Trainer, "train", None)
    other = run(tiny, sampler="ddim", sample_steps=3)
    assert other.method.trained_by == first.run_id
    assert other.method.train_hash == first.method.train_hash
    assert other.cost.train_seconds == first.cost.train_seconds
    assert other.cost.train_flops_per_image == first.cost.train_flops_per_image


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"attenuation": 0.5}, {"prediction": "v"}, {"train_images": 48}, {"basis": "haar"}]
)
def test_other_training_inputs_do_not(tiny, change):
    first = run(tiny, train_images=32)
    assert run(tiny, **{"train_images": 32, **change}).method.train_hash != first.method.train_hash


def test_batch_size_changes_no_sample_by_more_than_rounding(tiny):
    """One image a batch against six: the same noise, so that bytes differ by one step of rounding at most."""
    together = run(tiny, set={"sampling.batch": 6})
    apart = run(tiny, set={"sampling.batch": 1})
    difference = samples(tiny, together).astype(int) - samples(tiny, apart)
    assert np.abs(difference).max() <= 1


def test_an_interrupted_training_goes_on_to_the_same_weights(tiny, monkeypatch):
    whole = run(tiny)
    original = Trainer._update

    def interrupted(self):
        if self.progress.images == 32:
            raise KeyboardInterrupt
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, fresh=True, set={"training.checkpoint_seconds": 1e-6})
    place = next((tiny.parent / "results" / "tiny").glob("*/checkpoints/training.safetensors")).parents[1]
    assert records.read(place / "record.json").status == "interrupted"
    # Another directory's finished run has equal training inputs; what was begun is finished all the same.
    resumed = run(tiny, set={"training.checkpoint_seconds": 1e-6})
    assert resumed.run_id == place.name
    assert len(resumed.resumed) == 1
    assert resumed.method.trained_by is None
    assert np.array_equal(samples(tiny, resumed), samples(tiny, whole))


def test_metrics_are_measured_while_training_where_asked_for_and_training_is_none_the_worse(tiny):
    plain = run(tiny)
    record = run(tiny, eval_every=16)
    assert record.config["evaluation"] == {"every": 16, "samples": 6}
    assert "evaluation" not in plain.config
    each = record.cost.train_flops_per_image
    for metric in record.metrics:
        assert [point["train_images"] for point in metric.curve] == [16, 32, 48]
        assert [point["n"] for point in metric.curve] == [6, 6, 6]
        assert [point["train_flops"] for point in metric.curve] == pytest.approx([16 * each, 32 * each, 48 * each])
        assert all(point["value"] != metric.value for point in metric.curve)
    seconds = [point["train_seconds"] for point in record.metrics[0].curve]
    assert 0 < seconds[0] < seconds[1] < seconds[2] < record.cost.train_seconds
    assert np.array_equal(samples(tiny, record), samples(tiny, plain))
    assert [metric.curve for metric in plain.metrics] == [[]] * len(plain.metrics)


def test_an_interrupted_curve_goes_on_to_the_same_points(tiny, monkeypatch):
    whole = run(tiny, eval_every=16)
    original, drawn = Ancestral.sample, []

    def interrupted(self, denoise, process, noise, steps):
        drawn.append(len(noise.generators))
        if len(drawn) == 4:  # the second batch of the second point
            raise KeyboardInterrupt
        return original(self, denoise, process, noise, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, eval_every=16, fresh=True)
    resumed = run(tiny, eval_every=16)
    assert len(resumed.resumed) == 1
    for mine, its in zip(resumed.metrics, whole.metrics, strict=True):
        assert [point["value"] for point in mine.curve] == [point["value"] for point in its.curve]


def test_what_is_measured_while_training_belongs_to_the_training(tiny):
    first = run(tiny, eval_every=32)
    other = run(tiny, eval_every=32, sample_steps=3)
    assert other.method.trained_by is None
    assert [len(metric.curve) for metric in other.metrics] == [1] * len(first.metrics)
    assert run(tiny, eval_every=32, set={"sampling.batch": 4}).run_id == first.run_id


def test_several_seeds_are_as_many_runs_each_with_its_baseline(tiny):
    last = run(tiny, baseline=True, seeds=2, seed=3)
    found = [records.read(path) for path in (tiny.parent / "results").rglob("record.json")]
    assert {(record.method.basis, record.seed) for record in found} == {
        ("identity", 3), ("identity", 4), ("dct", 3), ("dct", 4),
    }  # fmt: skip
    assert (last.method.basis, last.seed) == ("dct", 4)
    hashes = {record.method.train_hash for record in found}
    assert len(hashes) == 4


def test_an_interrupted_sampling_goes_on_with_the_next_batch(tiny, monkeypatch):
    whole = run(tiny)
    calls = []
    original = Ancestral.sample

    def interrupted(self, denoise, process, noise, steps):
        calls.append(len(noise.generators))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, denoise, process, noise, steps)

    monkeypatch.setattr(Ancestral, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, fresh=True)
    resumed = run(tiny)
    assert calls == [4, 2, 2]
    assert len(resumed.resumed) == 1
    assert np.array_equal(samples(tiny, resumed), samples(tiny, whole))
    assert resumed.cost.samples == 6


def test_the_baseline_is_ddpm_with_the_same_network_budget_and_seed(tiny):
    record = run(tiny, baseline=True, seed=4)
    comparison = dvbench.compare(["tiny"], results=tiny.parent / "results").to_json()
    ddpm, dct = sorted(comparison, key=lambda row: not row["baseline"])
    assert (ddpm["method"]["basis"], dct["run_id"]) == ("identity", record.run_id)
    assert ddpm["cost"]["train_images"] == dct["cost"]["train_images"]
    assert dct["comparable"]
    ratio = ddpm["cost"]["sample_flops"] / dct["cost"]["sample_flops"]
    assert dct["ratios"]["sample_flops"] == pytest.approx(ratio)
    assert ratio > 1


def test_a_failure_is_recorded_and_the_same_command_tries_again(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", lambda _self: float("nan"))
        with pytest.raises(WorkError, match="diverged"):
            run(tiny)
    (path,) = (tiny.parent / "results").rglob("record.json")
    assert records.read(path).status == "failed"
    assert run(tiny).status == "finished"


@pytest.mark.parametrize("name", ["training", "weights"])
def test_a_damaged_checkpoint_is_named_and_left_alone(tiny, monkeypatch, name):
    with monkeypatch.context() as patch:
        patch.setattr(
            Ancestral if name == "weights" else Trainer, {"weights": "sample", "training": "train"}[name], raising
        )
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    (record,) = (tiny.parent / "results").rglob("record.json")
    file = record.parent / "checkpoints" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"no weights")
    with pytest.raises(UsageError, match=f"{name}.safetensors is damaged: delete it"):
        run(tiny)
    assert file.read_bytes() == b"no weights"
    file.unlink()
    assert run(tiny).status == "finished"


def raising(*_args, **_options):
    raise KeyboardInterrupt


def stopped_at_batch(number):
    """Return a sampler's ``sample`` that is interrupted at the batch with this number, from 1 on."""
    original, calls = Ancestral.sample, []

    def sample(self, *args):
        calls.append(self)
        return raising() if len(calls) == number else original(self, *args)

    return sample


def checkpoints(path, pattern):
    return sorted((path.parent / "results").glob(f"*/*/checkpoints/{pattern}"))


def test_each_sample_is_drawn_once_where_a_batch_is_missing(tiny, monkeypatch):
    batches = {"sampling.batch": 2}
    whole = run(tiny, set=batches)
    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", stopped_at_batch(3))
        with pytest.raises(KeyboardInterrupt):
            run(tiny, set=batches, fresh=True)
    first, _ = checkpoints(tiny, "samples-*")
    first.write_bytes(b"no samples")
    with pytest.raises(UsageError, match="delete it to go on without it"):
        run(tiny, set=batches)
    first.unlink()
    resumed = run(tiny, set=batches)
    assert len(resumed.resumed) == 1
    assert np.array_equal(samples(tiny, resumed), samples(tiny, whole))
    assert not checkpoints(tiny, "samples-*")


def test_samples_of_weights_that_are_no_more_are_drawn_anew(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", stopped_at_batch(2))
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    for file in checkpoints(tiny, "weights*"):
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", raising)
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    assert not checkpoints(tiny, "samples-*")
    drawn = []
    original = Ancestral.sample
    monkeypatch.setattr(Ancestral, "sample", lambda self, *args: drawn.append(args) or original(self, *args))
    assert len(run(tiny).resumed) == 2
    assert len(drawn) == 2


@pytest.mark.parametrize("fresh", [False, True])
def test_what_another_process_finished_meanwhile_is_kept(tiny, monkeypatch, fresh):
    original, others = bench.assemble, []

    def meanwhile(*args):
        parts = original(*args)
        if not others:
            others.append(None)
            others[0] = run(tiny, fresh=fresh)
        return parts

    earlier = run(tiny) if fresh else None
    monkeypatch.setattr(bench, "assemble", meanwhile)
    mine = run(tiny, fresh=fresh)
    (other,) = others
    assert records.read(directory(tiny, other) / "record.json") == other
    if fresh:
        assert [other.run_id, mine.run_id] == [f"{earlier.run_id}-2", f"{earlier.run_id}-3"]
    else:
        assert mine == other


def test_a_run_goes_on_with_a_damaged_log_and_names_one_that_cannot_be_read(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", raising)
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    (log,) = (tiny.parent / "results").rglob("log.jsonl")
    log.unlink()
    log.mkdir()
    with pytest.raises(UsageError, match=r"log\.jsonl cannot be read \(Is a directory\): move it away"):
        run(tiny)
    log.rmdir()
    log.write_bytes(b"\xff\xfe\n")
    assert run(tiny).status == "finished"
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "finished"


def test_what_a_killed_process_half_wrote_is_cleared_away(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", raising)
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    (weights,) = checkpoints(tiny, "weights*")
    for place in (weights.parent, weights.parents[1]):
        (place / ".some.name.part").write_bytes(b"half")
    run(tiny)
    assert not list((tiny.parent / "results").rglob("*.part"))


def test_reused_weights_stay_the_other_runs_when_sampling_is_resumed(tiny, monkeypatch):
    first = run(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", raising)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, sample_steps=3)
    resumed = run(tiny, sample_steps=3)
    assert len(resumed.resumed) == 1
    assert resumed.method.trained_by == first.run_id


def test_what_was_begun_on_other_data_is_not_gone_on_with(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Ancestral, "sample", raising)
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    Image.new("RGB", (20, 20), "red").save(tiny.parent / "pictures" / "000.png")
    with pytest.raises(UsageError, match=r"the data, a version or the machine has changed .*: give --fresh"):
        run(tiny)
    assert run(tiny, fresh=True).status == "finished"


def test_a_finished_run_of_data_that_changed_is_not_reported_as_theirs(tiny):
    record = run(tiny)
    pictures = sorted((tiny.parent / "pictures").iterdir())
    pictures[0].unlink()
    with pytest.raises(UsageError, match=r"pictures have changed since .* was finished: give --fresh"):
        run(tiny)
    for picture in pictures[1:]:
        picture.unlink()
    assert run(tiny) == record  # there is nothing to measure anew
    assert record.method.fingerprint


def test_another_detector_or_sampler_needs_no_other_training(tiny):
    one, other = run(tiny), run(tiny, sampler="ddim", set={"detector.size": 64})
    assert one.method.train_hash == other.method.train_hash
    assert other.method.trained_by == one.run_id


def test_a_budget_in_seconds_belongs_to_a_machine(tiny):
    hashes = {run(tiny, train_seconds=0.1, threads=threads).method.train_hash for threads in (1, 2)}
    torch.set_num_threads(1)
    assert len(hashes) == 2


def test_the_baseline_is_not_begun_where_the_run_itself_is_refused(tiny):
    with pytest.raises(UsageError, match="--sample-steps"):
        run(tiny, baseline=True, sample_steps=1)
    assert not (tiny.parent / "results").exists()


def test_two_processes_do_not_work_on_one_run(tiny, monkeypatch):
    original = Ancestral.sample

    def meanwhile(self, *args):
        with pytest.raises(UsageError, match="another process is at work"):
            run(tiny)
        return original(self, *args)

    monkeypatch.setattr(Ancestral, "sample", meanwhile)
    run(tiny)
    assert not list((tiny.parent / "results").rglob("*.lock"))


def test_a_signal_while_measuring_interrupts_and_what_was_done_is_kept(tiny, monkeypatch):
    original = bench.contact_sheet

    def signalled(images):
        signal.raise_signal(signal.SIGINT)
        return original(images)

    monkeypatch.setattr(bench, "contact_sheet", signalled)
    with pytest.raises(KeyboardInterrupt):
        run(tiny)
    (path,) = (tiny.parent / "results").rglob("record.json")
    assert records.read(path).status == "finished"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"turns": [0.3, 0.6]}, "2 turning points do not suit the ladder 16,8: give 1"),
        ({"ladder": [16, 8, 4], "turns": [0.6, 0.3]}, "must rise"),
        ({"attenuation": 0.0}, "attenuation"),
        ({"ladder": [16, 9]}, "no multiple of"),
        ({"ladder": [16, 12], "basis": "haar"}, "must halve"),
        ({"sample_steps": 1}, "--sample-steps: 1 sampling steps do not suit"),
        ({"sample_steps": 41}, "take 2 to 40"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"data": "/does/not/exist"}, "does not exist: give --data"),
        ({"set": {"steps": 10}}, "take 21 or more"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(tiny, options, sentence):
    with pytest.raises(UsageError) as error:
        run(tiny, **options)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tiny.parent / "results").exists()


def test_pictures_that_cannot_be_read_stop_a_run_before_it_starts(tmp_path):
    path = write_benchmark(tmp_path)
    (write_pictures(tmp_path / "pictures") / "013.png").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"013\.png"):
        run(path)
    assert not (tmp_path / "results").exists()


def test_results_that_cannot_be_written_are_bad_input(tiny):
    (tiny.parent / "results").write_text("a file")
    with pytest.raises(UsageError, match="cannot be written"):
        run(tiny)


def test_a_basis_that_learns_is_kept_with_the_run(tiny, monkeypatch):
    first = run(tiny, basis="pca")
    tensors, _ = checkpoint.read(directory(tiny, first) / "checkpoints" / "weights.safetensors")
    assert tensors["basis.rows.0"].shape == (12, 48)
    monkeypatch.setattr(Pca, "fit", lambda _self, _images: None)
    other = run(tiny, basis="pca", set={"sampling.batch": 6})
    assert other.method.trained_by == first.run_id
    assert np.abs(samples(tiny, other).astype(int) - samples(tiny, first)).max() <= 1


def test_start_and_jumps_may_be_matched_with_the_same_weights(tiny):
    plain = run(tiny, prediction="eps")  # hardly trained, it says little: what comes out depends on the start
    matched = run(tiny, prediction="eps", set={"start": "matched", "jump": "matched"})
    assert matched.method.trained_by == plain.run_id
    assert (matched.method.start, matched.method.jump) == ("matched", "matched")
    assert not np.array_equal(samples(tiny, matched), samples(tiny, plain))


def test_precisions_of_the_cpu_and_the_predictions_all_run(tiny):
    for precision in ("fp32", "bf16"):
        for prediction in ("eps", "v", "x0"):
            record = run(tiny, precision=precision, prediction=prediction, train_images=16, sampler="ddim")
            assert record.status == "finished"
            assert record.environment.precision == precision
