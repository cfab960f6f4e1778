"""Plugins that go wrong in the middle of a run: one sentence that names them, and a record that says "failed"."""

from __future__ import annotations

import json
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from installed import dvbench, install

from benchmarks import write_benchmark
from dvbench import Backbone, Dataset, Detector, Plugin, bench, hookimpl
from dvbench import record as records
from dvbench.builtin.bases import Dct
from dvbench.builtin.samplers import Ddim
from dvbench.builtin.schedules import Linear
from dvbench.errors import UsageError, WorkError
from dvbench.progress import Reporter
from dvbench.registry import Registry


class TurnsNan(Dct):
    """A right basis for a while."""

    calls = 0
    last = 12

    def project(self, x, level):
        TurnsNan.calls += 1
        return super().project(x, level) * (math.nan if TurnsNan.calls > self.last else 1.0)


class TurnsLarge(TurnsNan):
    def project(self, x, level):
        y = Dct.project(self, x, level)
        TurnsNan.calls += 1
        return y if TurnsNan.calls < self.last else y[..., 1:]


class OneChannel(Dct):
    def embed(self, y, level):
        return super().embed(y, level)[:, :1]  # it would broadcast, and nobody would notice


class Wide(Backbone):
    def __init__(self, ladder: tuple[int, ...], channels: int) -> None:
        super().__init__(ladder, channels)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, level):
        return (x * self.weight)[:, :1]


class Undefined(Wide):
    def forward(self, x, t, level):
        return x * self.weight + (0.0 if self.training else math.nan)


class Lazy(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps - 1)


class Small(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps)[..., 1:]


class Overflowing(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps) / 0


class Bare(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int, turns: tuple[float, ...] = (), attenuation: float = 1.0):
        super().__init__(ladder, steps, turns=turns)
        del self.gains


class Grey(Dataset):
    def __init__(self, size: int, data: str | None = None) -> None:
        super().__init__(size)

    train = held_out = property(lambda self: np.zeros((8, self.size, self.size), np.uint8))
    fingerprint = "0" * 64


class Fewer(Detector):
    name, version, weights_hash, resize = "fewer", "1", "0" * 64, "none"

    def __init__(self, size: int = 32) -> None: ...

    def __call__(self, images):
        return np.zeros((len(images) - 1, 4))


class Hollow(Fewer):
    def __call__(self, images):
        return np.full((len(images), 4), np.inf)


WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("basis", TurnsNan, WorkError, "returns values that are not finite from project at level 0"),
    ("basis", TurnsLarge, WorkError, r"returns the shape \(\d+, 3, 8, 7\) from project at level 0, not \(\d+, 3, 8, 8"),
    ("basis", OneChannel, WorkError, r"returns the shape .* from embed at level 0"),
    ("backbone", Wide, WorkError, r"returns the shape .* from forward at level 0"),
    ("backbone", Undefined, WorkError, "returns values that are not finite from forward at level 1"),
    ("sampler", Lazy, WorkError, r"calls the network \[.*\] times, level by level, where \[.*\] was asked for"),
    ("sampler", Small, WorkError, r"returns the shape \(4, 3, 16, 15\) from sample, not \(4, 3, 16, 16\)"),
    ("sampler", Overflowing, WorkError, "ends at values that are not finite"),
    ("schedule", Bare, UsageError, "has no attribute 'gains'"),
    ("dataset", Grey, UsageError, r"has a split train of uint8 \(8, 16, 16\), which must be uint8 N x 16 x 16 x C"),
    ("detector", Fewer, WorkError, r"returns features of float64 \(\d+, 4\), not floats \(\d+, D\)"),
    ("detector", Hollow, WorkError, "returns features that are not finite"),
]


def offering(kind: str, target: Any) -> Registry:
    made = types.ModuleType("made")
    plural = {"basis": "bases"}.get(kind, f"{kind}s")
    setattr(made, f"dvbench_{plural}", hookimpl(lambda: [Plugin("it", target, "")]))
    return Registry({"strange": made}, [])


@pytest.mark.parametrize(("kind", "target", "error", "told"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_what_goes_wrong_in_a_run_is_one_sentence_that_names_the_plugin(
    tmp_path, monkeypatch, kind, target, error, told
):
    TurnsNan.calls = 0
    registry = offering(kind, target)
    monkeypatch.setattr(bench, "registry", lambda: registry)
    config = bench.configure(str(write_benchmark(tmp_path)), {f"{kind}.name": "it"}, registry)
    with pytest.raises(error, match=told) as caught:
        list(bench.conduct([config], tmp_path / "results", Reporter()))
    assert str(caught.value).startswith(f"{kind} it of strange unknown")
    found = [records.read(path) for path in Path(tmp_path).rglob("record.json")]
    assert [record.status for record in found] == (["failed"] if error is WorkError else [])


def test_a_network_that_diverges_by_itself_is_not_the_basis_s_fault(tmp_path, monkeypatch):
    class Diverging(Wide):
        def forward(self, x, t, level):
            return x * self.weight * math.inf

    registry = offering("backbone", Diverging)
    monkeypatch.setattr(bench, "registry", lambda: registry)
    config = bench.configure(str(write_benchmark(tmp_path)), {"backbone.name": "it"}, registry)
    with pytest.raises(WorkError, match="training diverged"):
        list(bench.conduct([config], tmp_path / "results", Reporter()))


ROTTEN = """
    import math
    from dvbench import Basis, Plugin, hookimpl
    from dvbench.testing import bases

    @hookimpl
    def dvbench_bases():
        return [Plugin("rotten", "rotten:Rotten", "")]

    class Rotten(Basis):
        def project(self, x, level):
            {project}

        def embed(self, y, level):
            return y.repeat_interleave(2, -1).repeat_interleave(2, -2) / 2
"""


@pytest.mark.parametrize(
    ("project", "told"),
    [
        ("return x[..., ::2, ::2] * math.nan", "basis rotten of rotten 1.2 returns values that are not finite"),
        ("return x[..., ::2]", "basis rotten of rotten 1.2 returns the shape"),
        ("return x @ x[..., :1, :]", "Error: rotten 1.2 raised RuntimeError"),
    ],
)
def test_the_program_says_so_and_exits_with_1(tmp_path, project, told):
    install(tmp_path, "rotten", ROTTEN.format(project=project))
    run = dvbench("run", write_benchmark(tmp_path), "--basis", "rotten", path=tmp_path, cwd=tmp_path)
    assert run.returncode == 1
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("Error:")]
    assert told in error
    assert "Traceback" not in run.stderr


def test_an_edited_plugin_makes_another_run_and_takes_no_old_weights(tmp_path):
    install(tmp_path, "rotten", ROTTEN.format(project="return x[..., ::2, ::2] * 2"))
    benchmark = write_benchmark(tmp_path)

    def done():
        run = dvbench("run", benchmark, "--basis", "rotten", "--json", path=tmp_path, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout), run.stderr

    first, _ = done()
    again, told = done()
    assert again == first
    assert "is finished" in told
    module = tmp_path / "rotten.py"
    module.write_text(module.read_text().replace("* 2", "* 2.0"))  # at the same version
    other, _ = done()
    assert other["run_id"] != first["run_id"]
    assert other["config_hash"] == first["config_hash"]
    assert other["method"]["train_hash"] != first["method"]["train_hash"]
    assert other["method"]["trained_by"] is None
    assert other["environment"]["plugins"]["rotten"] == first["environment"]["plugins"]["rotten"] == "1.2"
    assert list(other["environment"]["plugin_code"]) == ["rotten"]
    listed = dvbench("compare", "tiny", path=tmp_path, cwd=tmp_path)
    assert "runs were made with different versions of rotten: 1.2 (source" in listed.stderr
