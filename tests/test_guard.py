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
from dvbench import Backbone, Dataset, Detector, Plugin, Schedule, bench, hookimpl
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


class Tripled(Dct):
    def project(self, x, level):
        return 3 * super().project(x, level)


class Oblique(Dct):
    """Its maps undo each other, and are no projection."""

    def project(self, x, level):
        return 2 * super().project(x, level)

    def embed(self, y, level):
        return super().embed(y, level) / 2


class Double(Dct):
    def project(self, x, level):
        return super().project(x, level).double()


class Unfounded(Dct):
    def __init__(self, ladder: tuple[int, ...], channels: int) -> None: ...


class TwoOnly(Dct):
    def project(self, x):
        return x


class Learns(Dct):
    def fit(self, images):
        self.mean = images.mean()

    def state(self):
        return {"mean": float(self.mean)}


class Unteachable(Learns):
    def fit(self, images):
        raise KeyError("images")


class Stateless(Dct):
    def fit(self, images): ...


class Wide(Backbone):
    def __init__(self, ladder: tuple[int, ...], channels: int) -> None:
        super().__init__(ladder, channels)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, level):
        return (x * self.weight)[:, :1]


class Undefined(Wide):
    def forward(self, x, t, level):
        return x * self.weight + (0.0 if self.training else math.nan)


class Unasked(Wide):
    def __init__(self, ladder: tuple[int, ...], channels: int) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.zeros(()))


class Pair(Wide):
    def forward(self, x, t):
        return x


class Unprepared(Wide):
    def forward(self, x, t, level):
        return x * self.weight

    def prepare(self, process): ...


class Leaves(Wide):
    def forward(self, x, t, level):
        raise SystemExit(0)


class Nothing(Unprepared):
    prepare = None

    def at_levels(self, inputs): ...


class FirstOnly(Nothing):
    def at_levels(self, inputs):
        return {0: self(*inputs[0], 0)}


class Late(Nothing):
    """A right network while it is trained."""

    def at_levels(self, inputs):
        return Backbone.at_levels(self, inputs)

    def forward(self, x, t, level):
        if torch.is_inference_mode_enabled() and x.any():
            raise RuntimeError("too\nlate")
        return x * self.weight


class Lazy(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps - 1)


class Small(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps)[..., 1:]


class Overflowing(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps) / 0


class Shortened(Ddim):
    def sample(self, denoise, process, noise):
        return noise(0)


class Lost(Ddim):
    def sample(self, denoise, process, noise, steps):
        return denoise(noise(0), process.T, 5)


class Bare(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int, turns: tuple[float, ...] = (), attenuation: float = 1.0):
        super().__init__(ladder, steps, turns=turns)
        del self.gains


class Grey(Dataset):
    def __init__(self, size: int, data: str | None = None) -> None:
        super().__init__(size)

    train = held_out = property(lambda self: np.zeros((8, self.size, self.size), np.uint8))
    fingerprint = "0" * 64


class Pictures(Grey):
    train = property(lambda self: self.pictures(8))
    held_out = property(lambda self: self.pictures(12)[8:])

    def pictures(self, count):
        return np.random.default_rng(0).integers(0, 256, (count, self.size, self.size, 3), np.uint8)


class OneHeldOut(Pictures):
    held_out = property(lambda self: self.pictures(9)[8:])


class Twins(Pictures):
    held_out = property(lambda self: self.pictures(12)[6:])


class Numbered(Pictures):
    fingerprint = 7


class Gone(Pictures):
    @property
    def held_out(self):
        return vars(self)["held_out"]


class Fewer(Detector):
    name, version, weights_hash, resize = "fewer", "1", "0" * 64, "none"

    def __init__(self, size: int = 32) -> None: ...

    def __call__(self, images):
        return np.zeros((len(images) - 1, 4))


class Unnamed(Fewer):
    name = None


class Posing(Fewer):
    name = "inception"


class Clumsy(Fewer):
    def __call__(self, images):
        return images.nothing


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
    ("basis", Tripled, WorkError, r"has no orthonormal rows at level 0: project\(embed\(y\)\) is not y"),
    ("basis", Oblique, WorkError, "has an embed at level 0 that is not the adjoint of project"),
    ("basis", Double, WorkError, r"returns torch.float64 from project at level 0, not torch.float32"),
    ("basis", Unfounded, WorkError, r"has no ladder, which super\(\).__init__\(ladder, channels\) sets"),
    ("basis", TwoOnly, WorkError, r"raised TypeError: .* when asked to project at level 0 \(--debug"),
    ("basis", Learns, WorkError, r"returns from state\(\) what is no dict of tensors"),
    ("basis", Unteachable, WorkError, r"raised KeyError: 'images' when asked to fit\(images\)"),
    ("basis", Stateless, WorkError, r"raised AttributeError: .* when asked for state\(\)"),
    ("backbone", Unasked, WorkError, r"has no ladder, which super\(\).__init__\(ladder, channels\) sets"),
    ("backbone", Pair, WorkError, r"raised TypeError: .* when asked for forward\(x, t, level\)"),
    ("backbone", Unprepared, WorkError, r"raised TypeError: .* when asked to prepare\(process, images, prediction\)"),
    ("backbone", Leaves, WorkError, r"raised SystemExit: 0 when asked for forward\(x, t, level\)"),
    ("backbone", Nothing, WorkError, r"returns NoneType from at_levels, not what it was asked: \[0, 1\]"),
    ("backbone", FirstOnly, WorkError, r"returns the levels \[0\] from at_levels, not what it was asked: \[0, 1\]"),
    ("backbone", Late, WorkError, "raised RuntimeError: too late when asked for x_0 at step 40, level 1"),
    ("sampler", Shortened, WorkError, r"raised TypeError: .* when asked to sample\(denoise, process, noise, steps\)"),
    ("sampler", Lost, WorkError, r"calls the network at level 5 with the shape \(4, 3, 16, 16\)"),
    ("sampler", Small, WorkError, r"returns the shape \(4, 3, 16, 15\) from sample, not \(4, 3, 16, 16\)"),
    ("sampler", Overflowing, WorkError, "ends at values that are not finite"),
    ("schedule", Bare, UsageError, "has no attribute 'gains'"),
    ("dataset", Grey, UsageError, r"has a split train of uint8 \(8, 16, 16\), which must be uint8 N x 16 x 16 x C"),
    ("dataset", OneHeldOut, UsageError, r"has a split held_out of uint8 \(1, 16, 16, 3\), .* N at least 2"),
    ("dataset", Twins, UsageError, "has 2 pictures of the training split in the held-out one too"),
    ("dataset", Numbered, UsageError, "has the fingerprint 7, which must be a text"),
    ("dataset", Gone, WorkError, "raised KeyError: 'held_out' when asked for held_out"),
    ("detector", Unnamed, WorkError, "has the name None, which must be a text"),
    ("detector", Posing, WorkError, "is called inception, as the network alone is whose distance is FID"),
    ("detector", Clumsy, WorkError, r"raised AttributeError: .* when asked for the features of \d+ images"),
    ("detector", Fewer, WorkError, r"returns features of float64 \(\d+, 4\), not floats \(\d+, D\)"),
    ("detector", Hollow, WorkError, "returns features that are not finite"),
]


def begun(target: Any) -> bool:
    """Tell whether a run has begun before anybody can see what is wrong; else nothing is written."""
    seen_first = Schedule, Dataset, OneChannel, Tripled, Oblique, Double, Unfounded, TwoOnly, Learns, Stateless, Unasked
    return not issubclass(target, (*seen_first, Unnamed, Posing))


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
    assert [record.status for record in found] == (["failed"] if begun(target) else [])


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
        ("return x @ x[..., :1, :]", "basis rotten of rotten 1.2 raised RuntimeError"),
        ("raise SystemExit(0)", "basis rotten of rotten 1.2 raised SystemExit: 0 when asked to project at level 0"),
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
    mean = "x.unfold(-2, 2, 2).unfold(-2, 2, 2).mean((-2, -1))"
    install(tmp_path, "rotten", ROTTEN.format(project=f"return {mean} * 2"))
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
