"""The conformance checks: what is right passes, and each thing that can be wrong is caught by its name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dvbench import Backbone, Dataset, Detector, Sampler, Schedule, testing
from dvbench.builtin.bases import Dct, Haar
from dvbench.builtin.pca import Pca
from dvbench.builtin.samplers import Ddim
from dvbench.builtin.schedules import Linear
from dvbench.errors import UsageError
from dvbench.registry import registry
from dvbench.testing import NonConformance, examine

pytest_plugins = ["pytester"]


BUILT_IN = [
    (kind, name)
    for kind in ("basis", "schedule", "sampler", "backbone", "detector")
    for name in registry().available(kind)
    if name not in {"inception", "unet"}  # the one needs a download, the other time: below, it is small
]


@pytest.mark.parametrize(("kind", "name"), [*BUILT_IN, ("dataset", "faces")])
def test_what_is_built_in_conforms(kind, name):
    report = examine(kind, name)
    assert not report.failed, str(report)
    assert len(report.findings) > 1


def test_the_network_conforms():
    small = {"width": 8, "multipliers": [1, 2], "attention": [8]}
    report = testing.check_backbone("unet", ladders=[(16, 8)], **small)
    assert "ten steps of training lower its loss" in {finding.what for finding in report.findings}


# Each is the right thing but for one fault.


class Unscaled(Haar):
    def project(self, x, level):
        return super().project(x, level) / 2  # the plain mean of a block: not orthonormal


class NotAdjoint(Dct):
    def embed(self, y, level):
        return super().embed(y, level).flip(-1)


class Larger(Dct):
    def project(self, x, level):
        return functional.pad(super().project(x, level), (0, 1))


class Single(Dct):
    def project(self, x, level):
        return super().project(x.float(), level)


class Undefined(Dct):
    def project(self, x, level):
        return super().project(x, level) * float("nan")


class Random(Haar):
    def embed(self, y, level):
        return super().embed(y, level) + 1e-9 * torch.randn(())


class Detached(Dct):
    def project(self, x, level):
        return super().project(x.detach(), level)


class OnTheCpu(Dct):
    def project(self, x, level):
        return torch.from_numpy(super().project(x, level).detach().numpy())


class Mixing(Haar):
    def project(self, x, level):
        y = super().project(x, level)
        return y + (y.mean(0, keepdim=True) if len(y) > 1 else 0)


class Squared(Dct):
    def project(self, x, level):
        return super().project(x, level).square()


class Forgetful(Pca):
    def load(self, state):
        super().load({name: value.flip(0) for name, value in state.items()})


class Choosy(Dct):
    def __init__(self, ladder: tuple[int, ...], channels: int) -> None:
        raise ValueError("none of these")


class Rising(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int, turns: tuple[float, ...] = ()) -> None:
        super().__init__(ladder, steps, turns=turns)
        self.gains = self.gains[:, ::-1].copy()


class Quiet(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int, turns: tuple[float, ...] = ()) -> None:
        super().__init__(ladder, steps, turns=turns)
        self.sigma[steps // 2] *= 0.5  # the noise falls


class Coarse(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int, turns: tuple[float, ...] = ()) -> None:
        super().__init__(ladder, steps, turns=turns)
        self.gains = self.gains.astype(np.float32)


class Backwards(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int, turns: tuple[float, ...] = ()) -> None:
        super().__init__(ladder, steps, turns=turns)
        self.turns = self.turns[::-1]


class Empty(Schedule):
    pass


class Net(Backbone):
    """A right network: one convolution, its input scaled by the level."""

    def __init__(self, ladder: tuple[int, ...], channels: int) -> None:
        super().__init__(ladder, channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, t, level):
        return self.convolution(x) * t.view(-1, 1, 1, 1)


class Idle(Net):
    def __init__(self, ladder: tuple[int, ...], channels: int) -> None:
        super().__init__(ladder, channels)
        self.unused = nn.Linear(2, 2)


class Shrunken(Net):
    def forward(self, x, t, level):
        return super().forward(x, t, level)[..., 1:]


class Dice(Net):
    def forward(self, x, t, level):
        return super().forward(x, t, level) + torch.randn(())


class Batched(Net):
    def forward(self, x, t, level):
        y = super().forward(x, t, level)
        return y - y.mean(0, keepdim=True)


class Infinite(Net):
    def forward(self, x, t, level):
        return super().forward(x, t, level) / 0


class Stuck(Net):
    def forward(self, x, t, level):
        return super().forward(x, t, level) * 1e-12


class FirstLevel(Net):
    def forward(self, x, t, level):
        if level:
            raise IndexError("no such level")
        return super().forward(x, t, level)


class Leaving(Net):
    def at_levels(self, inputs):
        return {0: self(*inputs[0], 0)}


class Exiting(Net):
    def forward(self, x, t, level):
        raise SystemExit(0)


class Departing(Linear):
    def __init__(self, ladder: tuple[int, ...], steps: int) -> None:
        raise SystemExit(0)


class Short(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, max(steps - 1, process.K + 1))


class Flat(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps)[:1]


class OwnNoise(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, lambda level: torch.randn_like(noise(level)), steps)


class Wandering(Ddim):
    def sample(self, denoise, process, noise, steps):
        return super().sample(denoise, process, noise, steps) * 1.01


class Careless(Sampler):
    """Samples DDPM alone: it never leaves the level at which it starts."""

    def sample(self, denoise, process, noise, steps):
        x = noise(process.K)
        for t in range(process.T, process.T - steps, -1):
            x = denoise(x, t, process.K)
        return x


class Pictures(Dataset):
    """A right dataset: random pictures."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.pixels = np.random.default_rng(0).integers(0, 256, (12, size, size, 3), dtype=np.uint8)
        self.pixels.setflags(write=False)

    @property
    def train(self):
        return self.pixels[:8]

    @property
    def held_out(self):
        return self.pixels[8:]

    @property
    def fingerprint(self):
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


class Shared(Pictures):
    @property
    def held_out(self):
        return self.pixels[7:]


class Floating(Pictures):
    @property
    def train(self):
        return super().train / 255


class Oblong(Pictures):
    @property
    def train(self):
        return super().train[:, 1:]


class Open(Pictures):
    @property
    def train(self):
        return super().train.copy()


class Unnamed(Pictures):
    @property
    def fingerprint(self):
        return "pictures"


class Shuffled(Pictures):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.pixels = np.random.default_rng().permutation(self.pixels)
        self.pixels.setflags(write=False)


class Means(Detector):
    """A right detector: means of quarters, channel by channel."""

    name, version, weights_hash, resize = "means", "1", "0" * 64, "none"

    def __call__(self, images):
        x = np.broadcast_to(images, (*images.shape[:3], 3)).astype(np.float32)
        halves = [part for rows in np.array_split(x, 2, axis=1) for part in np.array_split(rows, 2, axis=2)]
        return np.concatenate([half.mean(axis=(1, 2)) for half in halves], axis=1)


class Nameless(Means):
    weights_hash = "unknown"


class Missing(Means):
    def __call__(self, images):
        return super().__call__(images)[1:]


class Blind(Means):
    def __call__(self, images):
        return np.ones((len(images), 4), np.float32)


class Centred(Means):
    def __call__(self, images):
        features = super().__call__(images)
        return features - features.mean(axis=0)


class Greedy(Means):
    def __call__(self, images):
        found = super().__call__(images)
        images[:] = 0
        return found


class Nan(Means):
    def __call__(self, images):
        return super().__call__(images) * np.float32("nan")


class Coloured(Means):
    def __call__(self, images):
        return super().__call__(images) + images.shape[3]


WRONG = [
    ("basis", Unscaled, "rows are orthonormal, float64"),
    ("basis", NotAdjoint, "project and embed are adjoint, float64"),
    ("basis", Larger, "shapes at every level"),
    ("basis", Single, "the dtype is kept"),
    ("basis", Undefined, "rows are orthonormal, float32"),
    ("basis", Random, "deterministic"),
    ("basis", Detached, "gradients flow back through embed's adjoint"),
    ("basis", OnTheCpu, "the device is kept"),
    ("basis", Mixing, "each image by itself"),
    ("basis", Squared, "project is linear, float64"),
    ("basis", Forgetful, "what it learned is saved and loaded"),
    ("basis", Choosy, "takes a ladder, or refuses it with a ValueError"),
    ("schedule", Rising, "starts at the data: gains 1 and sigma 0 at t = 0"),
    ("schedule", Quiet, "no step needs a negative noise variance"),
    ("schedule", Coarse, "shapes and dtype"),
    ("schedule", Backwards, "turning points rise from above 0 to at most T"),
    ("schedule", Empty, "shapes and dtype"),
    ("backbone", Idle, "a gradient reaches every parameter"),
    ("backbone", Shrunken, "answers in x's shape at every level"),
    ("backbone", Dice, "deterministic in evaluation"),
    ("backbone", Batched, "each image by itself"),
    ("backbone", Infinite, "answers are finite"),
    ("backbone", Stuck, "ten steps of training lower its loss"),
    ("backbone", FirstLevel, "answers in x's shape at every level"),
    ("backbone", Leaving, "levels together answer as each alone"),
    ("backbone", Exiting, "answers in x's shape at every level"),
    ("schedule", Departing, "can be made for T = 50, 250, 1000"),
    ("sampler", Short, "as many network calls as asked for"),
    ("sampler", Flat, "images of level 0, finite"),
    ("sampler", OwnNoise, "all its randomness is the noise it is given"),
    ("sampler", Wandering, "given the truth, it ends there"),
    ("sampler", Careless, "calls at falling steps, each at its level, turning points among them"),
    ("dataset", Shared, "no picture is in both splits"),
    ("dataset", Floating, "train is uint8 N x 32 x 32 x C"),
    ("dataset", Oblong, "train is uint8 N x 32 x 32 x C"),
    ("dataset", Open, "splits are read-only"),
    ("dataset", Unnamed, "fingerprint is a SHA-256"),
    ("dataset", Shuffled, "deterministic"),
    ("detector", Nameless, "name, version, resize and the SHA-256 of its weights"),
    ("detector", Missing, "features are finite floats [N, D] for 1 and 3 channels"),
    ("detector", Blind, "different images have different features"),
    ("detector", Centred, "each image by itself"),
    ("detector", Greedy, "images are left as they were"),
    ("detector", Nan, "features are finite floats [N, D] for 1 and 3 channels"),
    ("detector", Coloured, "a grey image is the same with one and with three channels"),
]


@pytest.mark.parametrize(("kind", "cls", "fault"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_wrong_is_caught_by_its_name(kind, cls, fault):
    report = examine(kind, cls)
    assert fault in {finding.what for finding in report.failed}, str(report)


@pytest.mark.parametrize(("kind", "cls"), [("backbone", Net), ("dataset", Pictures), ("detector", Means)])
def test_what_the_wrong_ones_were_made_of_is_right(kind, cls):
    assert not examine(kind, cls).failed


def test_the_checks_raise_what_they_found():
    with pytest.raises(NonConformance, match=r"basis Unscaled does not conform: .*rows are orthonormal, float32: 0\.5"):
        testing.check_basis(Unscaled)
    checks = {
        testing.check_schedule: Coarse,
        testing.check_backbone: Idle,
        testing.check_sampler: Flat,
        testing.check_dataset: Open,
        testing.check_detector: Blind,
    }
    for check, cls in checks.items():
        with pytest.raises(NonConformance, match=f"{cls.__name__} does not conform"):
            check(cls)


def test_options_and_ladders_are_passed_on():
    report = examine("basis", "haar", ladders=[(9, 4)])
    assert [finding.what for finding in report.failed] == ["takes a ladder, or refuses it with a ValueError"]
    assert "9,4" in report.failed[0].figure
    with pytest.raises(UsageError, match="no option of sampler ddim called 'etta'"):
        testing.check_sampler("ddim", etta=1.0)
    assert not examine("sampler", "ddim", {"eta": 1.0}).failed


def test_what_raises_is_a_finding():
    class Raising(Dct):
        def project(self, x, level):
            raise RuntimeError("no\nluck")

    report = examine("basis", Raising)
    assert {finding.figure for finding in report.failed} >= {"raised RuntimeError: no luck"}


LINE = """
[tool.pytest.ini_options]
dvbench_plugins = ["sampler ddim", "sampler ddim eta=0.5", "basis nowhere"]
"""


def test_one_line_of_configuration_checks_a_package_s_plugins(pytester):
    pytester.makepyprojecttoml(LINE)
    pytester.makepyfile(test_own="def test_it(): pass")
    for asked in ("test_own.py", "test_own.py::test_it"):
        pytester.runpytest_subprocess("-p", "no:cacheprovider", asked).assert_outcomes(passed=1)
    (pytester.path / "test_own.py").unlink()
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", ".")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*there is no basis called 'nowhere'*"])


def test_without_that_line_the_pytest_plugin_does_nothing(pytester):
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
