"""Training learns, keeps its books, and goes on as if never interrupted."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from processes import process

from dvbench.backbone import Backbone
from dvbench.builtin.bases import Dct, Identity
from dvbench.builtin.unet import UNet
from dvbench.config import Training
from dvbench.errors import WorkError
from dvbench.prediction import data_range
from dvbench.randomness import SampleNoise, order_of_epoch, seed_of
from dvbench.training import Trainer, packed

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
CPU = torch.device("cpu")


def trainer(basis=Dct, prediction="x0", pictures=IMAGES, dropout=0.0, order=torch.contiguous_format, **options):
    torch.manual_seed(0)
    drawn = process(basis, ladder=(16, 8), turns=(0.5,), channels=3)
    network = UNet(drawn.ladder, 3, width=8, multipliers=(1, 2), attention=(8,), dropout=dropout)
    network.to(memory_format=order)
    held = Training(**{"images": 320, "batch": 16, "warmup": 32, **options})
    return Trainer(network, drawn, pictures, data_range(drawn, pictures), prediction, held, 1, CPU, nullcontext)


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("basis", [Identity, Dct])
@pytest.mark.parametrize(
    ("prediction", "optimizer"), [("eps", "adamw"), ("v", "adamw"), ("x0", "adamw"), ("x0", "muon")]
)
def test_it_learns_flat_pictures(basis, prediction, optimizer):
    """Pictures of one grey level are learnt in seconds: the loss falls far below that of the untrained network."""
    flat = np.full((40, 16, 16, 3), 200, dtype=np.uint8)
    one = trainer(basis, prediction, flat, images=2400, lr=3e-3, optimizer=optimizer)
    losses = []
    one.train(lambda progress: losses.append(progress.loss))
    assert np.mean(losses[-10:]) < 0.3 * losses[0]


def test_it_stops_at_the_image_even_within_a_batch_and_books_levels():
    one = trainer(images=50)
    one.train(lambda _: None)
    assert (one.progress.images, one.progress.steps) == (50, 4)
    assert sum(one.progress.images_per_level) == 50
    assert one.progress.seconds > 0


def test_which_image_meets_which_step_is_random(monkeypatch):
    """Over m meetings the correlation of an image's place in the data with its step has standard error m^(-1/2)."""
    places = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)
    one = trainer(pictures=places, images=1600)
    met = []

    def loss(chosen):
        for images, t in chosen.values():
            met.extend(zip(images[:, 0, 0, 0].tolist(), t.tolist(), strict=True))
        return next(one.network.parameters()).sum() * 0

    monkeypatch.setattr(one, "_loss", loss)
    one.train(lambda _: None)
    assert abs(np.corrcoef(np.array(met).T)[0, 1]) < 5 / 1600**0.5


def test_a_budget_in_seconds_counts_the_steps_alone():
    one = trainer(images=None, seconds=0.3)
    one.train(lambda _: None)
    assert 0.3 <= one.progress.seconds < 3
    assert one.progress.images == 16 * one.progress.steps


def test_levels_are_seen_in_proportion():
    """The turning point at one half splits a batch of 16 into 8 and 8, every time."""
    one = trainer(images=1600)
    one.train(lambda _: None)
    assert one.progress.images_per_level == [800, 800]


def test_levels_are_seen_in_their_shares_where_they_have_any():
    one = trainer(images=1600, shares=(3, 1))
    one.train(lambda _: None)
    assert one.progress.images_per_level == [1200, 400]


def test_a_level_counts_as_its_weight_says():
    """The first loss is linear in the weights, and the levels differ in it."""
    losses = {}
    for weights in ((1, 1), (3, 1), (1, 3)):
        one = trainer(weights=weights)
        one.step()
        losses[weights] = one.progress.loss
    assert losses[3, 1] + losses[1, 3] == pytest.approx(4 * losses[1, 1])
    assert losses[3, 1] != pytest.approx(losses[1, 3], rel=0.01)
    plain = trainer()
    plain.step()
    assert plain.progress.loss == losses[1, 1]


def test_half_of_the_images_are_mirrored_where_asked(monkeypatch):
    """Of n images n/2 are mirrored, within 5 standard deviations; the steps are those of a run that mirrors none."""
    seen = {}
    for flip in (False, True):
        one = trainer(images=1600, flip=flip)
        met = seen[flip] = []
        monkeypatch.setattr(one, "_gradient", lambda x0, t, _groups, met=met: met.append((x0, t)) or torch.zeros(()))
        one.train(lambda _: None)
    mirrored = 0
    for (plain, t), (tossed, same) in zip(seen[False], seen[True], strict=True):
        assert torch.equal(t, same)
        turned = (tossed == plain.flip(-1)).all(dim=(1, 2, 3))
        assert bool((turned | (tossed == plain).all(dim=(1, 2, 3))).all())
        mirrored += int(turned.sum())
    assert abs(mirrored - 800) < 5 * 400**0.5


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_going_on_from_a_checkpoint_is_as_if_never_interrupted(dropout, order, optimizer):
    whole = trainer(dropout=dropout, order=order, optimizer=optimizer)
    whole.train(lambda _: None)
    first = trainer(dropout=dropout, order=order, optimizer=optimizer)

    def stop(progress):
        if progress.images == 160:
            raise StopHereError

    with pytest.raises(StopHereError):
        first.train(stop)
    # As a checkpoint's file has them.
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in first.tensors().items()}
    state = first.state()
    second = trainer(dropout=dropout, order=order, optimizer=optimizer)
    second.load(tensors, state)
    second.train(lambda _: None)
    for name, value in whole.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name
    assert second.progress.images_per_level == whole.progress.images_per_level


def test_microbatches_add_up_to_the_same_step():
    one, other = trainer(images=16, clip=1e9), trainer(images=16, clip=1e9, microbatch=3)
    # The same noise must meet the same images: drawn in the same order, part by part.
    one.train(lambda _: None)
    other.train(lambda _: None)
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_memory_for_less_than_one_image_is_told_with_the_mend(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    one = trainer()
    monkeypatch.setattr(UNet, "at_levels", full)
    with pytest.raises(WorkError, match="too little memory for this network with one image at a time"):
        one.train(lambda _: None)


def test_warming_up_meets_every_shape_of_a_step_and_changes_nothing(monkeypatch):
    one, other = trainer(batch=15, microbatch=6), trainer(batch=15, microbatch=6)
    shapes, forward = set(), UNet.forward
    for each in (one, other):
        # Level by level, as what is compiled is called.
        each.network.at_levels = Backbone.at_levels.__get__(each.network)

    def watched(self, x, t, level):
        shapes.add((len(x), level))
        return forward(self, x, t, level)

    monkeypatch.setattr(UNet, "forward", watched)
    one.warm_up()
    warmed = set(shapes)
    assert warmed
    shapes.clear()
    one.options = one.options.model_copy(update={"images": 300})  # whole batches
    other.options = one.options
    one.train(lambda _: None)
    assert shapes <= warmed
    other.train(lambda _: None)
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name


@pytest.mark.parametrize(
    ("images", "done", "sizes"), [(40, 0, {15, 10}), (40, 20, {15, 5}), (10, 0, {10}), (30, 0, {15})]
)
def test_warming_up_meets_the_last_batch_too(monkeypatch, images, done, sizes):
    one = trainer(batch=15, images=images)
    one.progress.images = done
    seen, at_levels = [], UNet.at_levels

    def watched(self, inputs):
        seen.append(tuple((level, len(x)) for level, (x, _) in inputs.items()))
        return at_levels(self, inputs)

    monkeypatch.setattr(UNet, "at_levels", watched)
    one.warm_up()
    warmed = set(seen)
    assert {sum(number for _, number in each) for each in warmed} == sizes
    seen.clear()
    one.train(lambda _: None)
    assert seen
    assert set(seen) <= warmed


def test_what_a_step_did_before_memory_ran_out_is_undone_and_its_lesson_kept(monkeypatch):
    """Noise, dropout and buffers are those of a run that has so few images in the network from the start."""
    at_levels, made = UNet.at_levels, UNet.__init__

    def buffered(self, *given, **named):
        made(self, *given, **named)
        self.middle[0].register_buffer("calls", torch.zeros(()))

    def narrow(self, inputs):
        self.middle[0].calls += 1
        said = at_levels(self, inputs)
        if sum(len(x) for x, _ in inputs.values()) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return said

    monkeypatch.setattr(UNet, "__init__", buffered)
    monkeypatch.setattr(UNet, "at_levels", narrow)
    few, one = (trainer(images=80, dropout=0.3, microbatch=most) for most in (8, None))
    torch.manual_seed(1)
    few.train(lambda _: None)
    held = few.tensors()  # with the states of generators that both share
    torch.manual_seed(1)
    one.passes.replays["whole"] = None
    one.train(lambda _: None)
    for name, value in one.tensors().items():
        assert torch.equal(value, held[name]), name
    assert not one.passes.replays
    on = trainer(images=80, dropout=0.3)
    on.load(one.tensors(), one.state())
    assert on.microbatch == 8


@pytest.mark.parametrize(("microbatch", "used"), [(None, True), (6, False)])
def test_what_a_gpu_records_before_the_clock_is_what_its_steps_use(monkeypatch, microbatch, used):
    made, asked = [], []

    def graphed(function, *_, **__):
        made.append(function)
        return lambda *values: (asked.append(1), function(*values))[1]

    monkeypatch.setattr("dvbench.training.can_record", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    one, other = (trainer(batch=15, microbatch=microbatch, images=150) for _ in range(2))
    one.warm_up()
    assert len(made) == (len(one.times.groups(15)) if used else 0)
    asked.clear()
    one.train(lambda _: None)
    assert len(asked) == (one.progress.steps if used else 0)
    other.train(lambda _: None)
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name


def test_the_network_takes_a_part_of_the_time():
    one = trainer(images=64)
    one.train(lambda _: None)
    assert 0 < one.progress.network_seconds < one.progress.seconds


def test_the_average_lags_behind_the_weights_and_follows_them():
    one = trainer(images=16)
    start = [p.clone() for p in one.network.parameters()]
    one.train(lambda _: None)
    decay = min(0.999, 2 / 11)
    for average, now, then in zip(one.ema.parameters(), one.network.parameters(), start, strict=True):
        torch.testing.assert_close(average, decay * then + (1 - decay) * now)


def test_buffers_are_those_of_the_last_step_even_where_a_step_replaces_them(monkeypatch):
    forward = UNet.at_levels

    def counting(self, given):
        self.middle[0].calls = self.middle[0].calls + torch.tensor([1.0, 2.0])
        return forward(self, given)

    monkeypatch.setattr(UNet, "at_levels", counting)
    made = UNet.__init__

    def buffered(self, *given, **named):
        made(self, *given, **named)
        self.middle[0].register_buffer("calls", torch.zeros(2))

    monkeypatch.setattr(UNet, "__init__", buffered)
    one = trainer(images=48)
    one.train(lambda _: None)
    assert one.ema.middle[0].calls.tolist() == [one.progress.steps, 2 * one.progress.steps]


def test_the_learning_rate_rises_and_falls():
    one = trainer(images=320, warmup=64, lr=1.0)
    rates = []
    original = one._learning_rate
    one._learning_rate = lambda: rates.append(original()) or 1e-4
    one.train(lambda _: None)
    assert rates[0] == pytest.approx(0.25, rel=0.01)
    assert max(rates) == rates[3]
    assert rates[-1] < 0.02


def test_divergence_is_one_sentence():
    one = trainer(lr=1e20, warmup=0, images=640)
    with pytest.raises(WorkError, match=r"training diverged after .* lower --set training.lr"):
        one.train(lambda _: None)


def test_every_image_is_seen_once_an_epoch():
    one = trainer()
    seen = np.concatenate([one._next_indices(8) for _ in range(1)])
    for _ in range(9):
        one.progress.images += 8
        seen = np.concatenate([seen, one._next_indices(8)])
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert not np.array_equal(seen[:40], seen[40:])
    assert np.array_equal(seen[:40], order_of_epoch(1, 0, 40))


def test_a_samples_noise_depends_on_its_index_alone():
    together = SampleNoise(3, range(5), (8, 4), 2, CPU)
    apart = [SampleNoise(3, [index], (8, 4), 2, CPU) for index in range(5)]
    for level in (1, 0, 0):
        noise = together(level)
        assert noise.shape == (5, 2, (8, 4)[level], (8, 4)[level])
        for index in range(5):
            assert torch.equal(noise[index : index + 1], apart[index](level))
    assert seed_of(1, "a") != seed_of(1, "b") != seed_of(2, "b")


@pytest.mark.parametrize(
    ("counts", "most", "packs"),
    [
        ((3, 4, 5), 12, [[3, 4, 5]]),
        ((3, 4, 5), 8, [[3, 4], [5]]),
        ((3, 0, 5), 5, [[3], [5]]),
        ((9, 0, 2), 4, [[4], [4], [1, 2]]),
        ((2, 2, 2), 1, [[1]] * 6),
    ],
)
def test_what_goes_through_the_network_together_is_at_most_so_much(counts, most, packs):
    order = torch.randperm(sum(counts))
    groups = order.split(list(counts))
    made = list(packed(groups, most))
    assert [[len(part) for part in pack.values()] for pack in made] == packs
    for level, members in enumerate(groups):
        parts = [pack[level] for pack in made if level in pack]
        assert torch.equal(torch.cat(parts) if parts else members, members)


def test_a_network_whose_levels_together_answer_in_another_shape_is_named(monkeypatch):
    one = trainer()
    monkeypatch.setattr(one.network, "at_levels", lambda asked: {level: x[:, :1] for level, (x, _) in asked.items()})
    with pytest.raises(WorkError, match=r"at_levels returns the shape .* at level 0"):
        one.step()
