"""Optimizers, schedules and augmentations."""

from collections.abc import Callable
from math import cos, pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from lotteryfw.kinds import Augmentation, Optimizer, Schedule
from lotteryfw.rng import stream
from lotteryfw.std.augmentations import Crop, Flip
from lotteryfw.std.optimizers import Adam, AdamW, RmsProp, Sgd
from lotteryfw.std.schedules import Constant, Cosine, Multistep
from lotteryfw.steps import Clock

# optimizers


def trained(make: Callable[[list[Tensor]], torch.optim.Optimizer], steps: int = 5) -> Tensor:
    """Where a quadratic's descent gets in a few steps."""
    weight = torch.linspace(-1, 1, 20).requires_grad_()
    optimizer = make([weight])
    for _ in range(steps):
        optimizer.zero_grad()
        (weight**2 * torch.linspace(1, 3, 20)).sum().backward()
        optimizer.step()
    return weight.detach()


PLAIN = {"foreach": False, "fused": False}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1, **PLAIN)),
        (
            Sgd(lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.5),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.5, **PLAIN),
        ),
        (
            Sgd(lr=0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, **PLAIN),
        ),
        (Adam(), lambda p: torch.optim.Adam(p, **PLAIN)),
        (
            Adam(lr=0.1, beta1=0.5, beta2=0.6, eps=0.1, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.6), eps=0.1, weight_decay=0.1, **PLAIN),
        ),
        (AdamW(), lambda p: torch.optim.AdamW(p, **PLAIN)),
        (
            AdamW(lr=0.1, beta1=0.5, beta2=0.6, eps=0.1, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.6), eps=0.1, weight_decay=0.1, **PLAIN),
        ),
        (RmsProp(), lambda p: torch.optim.RMSprop(p, foreach=False)),
        (
            RmsProp(lr=0.1, alpha=0.5, eps=0.1, weight_decay=0.1, momentum=0.5, centered=True),
            lambda p: torch.optim.RMSprop(
                p, lr=0.1, alpha=0.5, eps=0.1, weight_decay=0.1, momentum=0.5, centered=True, foreach=False
            ),
        ),
    ],
    ids=lambda value: getattr(value, "use", "torch"),
)
def test_optimizer_is_torchs_plain_one(
    ours: Optimizer, theirs: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    torch.testing.assert_close(trained(ours.build), trained(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1), Adam(), AdamW()], ids=lambda o: o.use)
def test_fused_where_torch_has_it(optimizer: Optimizer) -> None:
    assert optimizer.build(iter([torch.zeros(3, requires_grad=True)])).defaults["fused"]


@pytest.mark.parametrize(
    "options", [{}, {"lr": 0}, {"lr": 0.1, "momentum": 1}, {"lr": 0.1, "nesterov": True}, {"lr": 0.1, "learning": 1}]
)
def test_impossible_sgd_is_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        Sgd(**options)


# schedules

CLOCK = Clock(total=100, steps_per_epoch=10)


def test_constant() -> None:
    assert {Constant().factor(step, CLOCK) for step in range(100)} == {1.0}


def test_multistep_drops_at_its_milestones() -> None:
    schedule = Multistep(milestones=["50it", "8ep"], gamma=0.1)
    factors = [schedule.factor(step, CLOCK) for step in (0, 49, 50, 79, 80, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_multistep_does_not_mind_the_order() -> None:
    forth, back = Multistep(milestones=[20, 60]), Multistep(milestones=[60, 20])
    assert [forth.factor(step, CLOCK) for step in range(100)] == [back.factor(step, CLOCK) for step in range(100)]


def test_cosine_falls_from_1_to_final() -> None:
    factors = [Cosine(final=0.2).factor(step, CLOCK) for step in range(100)]
    assert factors == pytest.approx([0.2 + 0.8 * (1 + cos(pi * step / 100)) / 2 for step in range(100)])
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("schedule", [Constant, Cosine, lambda warmup: Multistep(milestones=[80], warmup=warmup)])
def test_warmup_rises_linearly_to_1(schedule: Callable[..., Schedule]) -> None:
    factors = [schedule(warmup="2ep").factor(step, CLOCK) for step in range(20)]
    assert factors == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert schedule(warmup="2ep").factor(20, CLOCK) == 1
    assert schedule(warmup=0).factor(0, CLOCK) == 1


def test_cosine_after_a_warmup_spans_the_rest() -> None:
    schedule = Cosine(warmup=20)
    assert schedule.factor(60, CLOCK) == pytest.approx(0.5)
    assert schedule.factor(99, CLOCK) < 0.001


@given(total=st.integers(1, 50), warmup=st.integers(0, 60))
def test_factors_stay_in_0_to_1_however_long_the_warmup(total: int, warmup: int) -> None:
    clock = Clock(total, 10)
    for schedule in (Constant(warmup=warmup), Cosine(warmup=warmup), Multistep(milestones=["50%"], warmup=warmup)):
        assert all(0 < schedule.factor(step, clock) <= 1 for step in range(total))


# augmentations

IMAGES = torch.arange(40 * 2 * 5 * 6, dtype=torch.float32).reshape(40, 2, 5, 6)


def test_flip_mirrors_each_image_or_leaves_it() -> None:
    flipped = Flip().apply(IMAGES, stream(0, "flip"))
    mirrored = [bool((after == before.flip(-1)).all()) for before, after in zip(IMAGES, flipped, strict=True)]
    left = [bool((after == before).all()) for before, after in zip(IMAGES, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, left, strict=True))
    assert 10 < sum(mirrored) < 30


def test_flip_always_and_never() -> None:
    assert Flip(p=1).apply(IMAGES, stream(0, "flip")).equal(IMAGES.flip(-1))
    assert Flip(p=0).apply(IMAGES, stream(0, "flip")).equal(IMAGES)


def shifts(padding: int, height: int, width: int) -> dict[tuple[int, int], Tensor]:
    """Where every pixel of an image that counts its pixels from 1 ends up, for each possible shift."""
    image = torch.arange(1, height * width + 1, dtype=torch.float32).reshape(height, width)
    found = {}
    for y in range(-padding, padding + 1):
        for x in range(-padding, padding + 1):
            shifted = torch.zeros(height, width)
            for row in range(height):
                for column in range(width):
                    if 0 <= row + y < height and 0 <= column + x < width:
                        shifted[row, column] = image[row + y, column + x]
            found[y, x] = shifted
    return found


def test_crop_shifts_each_image_as_the_loop_does() -> None:
    possible = shifts(padding=2, height=5, width=6)
    image = possible[0, 0]
    batch = torch.stack([torch.stack([image, -image])] * 600)
    cropped = Crop(padding=2).apply(batch, stream(0, "crop"))
    assert cropped.shape == batch.shape
    drawn = []
    for grey, negative in cropped:
        (shift,) = (shift for shift, shifted in possible.items() if shifted.equal(grey))
        assert negative.equal(-grey)  # one shift for all channels
        drawn.append(shift)
    assert set(drawn) == set(possible)
    assert max(drawn.count(shift) for shift in possible) < 3 * 600 / 25


@pytest.mark.parametrize("augmentation", [Flip(), Crop(padding=1)], ids=lambda a: a.use)
def test_augmentations_repeat_from_the_stream_and_leave_their_input(augmentation: Augmentation) -> None:
    before = IMAGES.clone()
    first, again, other = (augmentation.apply(IMAGES, stream(seed, "augment")) for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
    assert IMAGES.equal(before)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
