"""Optimizers, schedules and augmentations."""

from collections.abc import Callable
from math import cos, pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import RandomResizedCrop as Theirs
from torchvision.transforms.functional import resized_crop

from lotteryfw.api.kinds import Augmentation, Optimizer, Schedule
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.std import initialisers
from lotteryfw.std.augmentations import Crop, Flip, RandomResizedCrop
from lotteryfw.std.optimizers import Adam, AdamW, RmsProp, Sgd
from lotteryfw.std.schedules import Constant, Cosine, Multistep

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


def named(optimizer: Optimizer) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """Return a function that builds the optimizer over a list, whose members it names."""

    def build(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return optimizer.build({f"fc{index}.weight": one for index, one in enumerate(parameters)})

    return build


PLAIN = {"foreach": False, "fused": False}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1, **PLAIN)),
        (
            Sgd(lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.5),
            lambda p: torch.optim.SGD(
                p, lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.5, **PLAIN
            ),
        ),
        (
            Sgd(lr=0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, **PLAIN),
        ),
        (Adam(), lambda p: torch.optim.Adam(p, **PLAIN)),
        (
            Adam(lr=0.1, beta1=0.5, beta2=0.6, eps=0.1, weight_decay=0.1),
            lambda p: torch.optim.Adam(
                p, lr=0.1, betas=(0.5, 0.6), eps=0.1, weight_decay=0.1, **PLAIN
            ),
        ),
        (AdamW(), lambda p: torch.optim.AdamW(p, **PLAIN)),
        (
            AdamW(lr=0.1, beta1=0.5, beta2=0.6, eps=0.1, weight_decay=0.1),
            lambda p: torch.optim.AdamW(
                p, lr=0.1, betas=(0.5, 0.6), eps=0.1, weight_decay=0.1, **PLAIN
            ),
        ),
        (RmsProp(), lambda p: torch.optim.RMSprop(p, foreach=False)),
        (
            RmsProp(lr=0.1, alpha=0.5, eps=0.1, weight_decay=0.1, momentum=0.5, centered=True),
            lambda p: torch.optim.RMSprop(
                p,
                lr=0.1,
                alpha=0.5,
                eps=0.1,
                weight_decay=0.1,
                momentum=0.5,
                centered=True,
                foreach=False,
            ),
        ),
    ],
    ids=lambda value: getattr(value, "use", "torch"),
)
def test_optimizer_is_torchs_plain_one(
    ours: Optimizer, theirs: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    torch.testing.assert_close(trained(named(ours)), trained(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1), Adam(), AdamW()], ids=lambda o: o.use)
def test_fused_where_torch_has_it(optimizer: Optimizer) -> None:
    assert optimizer.build({"w": torch.zeros(3, requires_grad=True)}).defaults["fused"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0},
        {"lr": 0.1, "momentum": 1},
        {"lr": 0.1, "nesterov": True},
        {"lr": 0.1, "learning": 1},
    ],
)
def test_impossible_sgd_is_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        Sgd(**options)


# scores that start equal


def test_constant_is_its_value_everywhere_and_biases_are_zero() -> None:
    layer, constant = LayerInfo("conv", (4, 3, 2, 2)), initialisers.Constant(value=-0.5)
    weight = constant.weight(layer, stream(0, "test"))
    assert weight.dtype == torch.float32
    assert weight.equal(torch.full(layer.shape, -0.5))
    assert constant.bias(layer, stream(0, "test")).equal(torch.zeros(4))


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
    assert [forth.factor(step, CLOCK) for step in range(100)] == [
        back.factor(step, CLOCK) for step in range(100)
    ]


def test_cosine_falls_from_1_to_final() -> None:
    factors = [Cosine(final=0.2).factor(step, CLOCK) for step in range(100)]
    assert factors == pytest.approx(
        [0.2 + 0.8 * (1 + cos(pi * step / 100)) / 2 for step in range(100)]
    )
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize(
    "schedule", [Constant, Cosine, lambda warmup: Multistep(milestones=[80], warmup=warmup)]
)
def test_warmup_rises_linearly_to_1(schedule: Callable[..., Schedule]) -> None:
    factors = [schedule(warmup="2ep").factor(step, CLOCK) for step in range(20)]
    assert factors == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert schedule(warmup="2ep").factor(20, CLOCK) == 1
    assert schedule(warmup=0).factor(0, CLOCK) == 1


def test_cosine_per_epoch_holds_the_factor_of_the_epochs_first_step() -> None:
    length = CLOCK.steps_per_epoch
    by_step = [Cosine().factor(step, CLOCK) for step in range(100)]
    by_epoch = [Cosine(per="epoch").factor(step, CLOCK) for step in range(100)]
    assert by_epoch == [by_step[step - step % length] for step in range(100)]
    assert by_epoch != by_step
    # a warmup rises by the step all the same
    warm = [Cosine(warmup=20, per="epoch").factor(step, CLOCK) for step in range(20)]
    assert warm == [Cosine(warmup=20).factor(step, CLOCK) for step in range(20)]


def test_cosine_after_a_warmup_spans_the_rest() -> None:
    schedule = Cosine(warmup=20)
    assert schedule.factor(60, CLOCK) == pytest.approx(0.5)
    assert schedule.factor(99, CLOCK) < 0.001


@given(total=st.integers(1, 50), warmup=st.integers(0, 60))
def test_factors_stay_in_0_to_1_however_long_the_warmup(total: int, warmup: int) -> None:
    clock = Clock(total, 10)
    for schedule in (
        Constant(warmup=warmup),
        Cosine(warmup=warmup),
        Multistep(milestones=["50%"], warmup=warmup),
    ):
        assert all(0 < schedule.factor(step, clock) <= 1 for step in range(total))


# augmentations

IMAGES = torch.arange(40 * 2 * 5 * 6, dtype=torch.float32).reshape(40, 2, 5, 6)


def test_flip_mirrors_each_image_or_leaves_it() -> None:
    flipped = Flip().apply(IMAGES, stream(0, "flip"))
    mirrored = [
        bool((after == before.flip(-1)).all())
        for before, after in zip(IMAGES, flipped, strict=True)
    ]
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


def boxes(crop: RandomResizedCrop, count: int, height: int, width: int) -> Tensor:
    """[count, 4]: y, x, h, w of the boxes that are cut out, read off images whose pixels say where they are."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns]).float().expand(count, -1, -1, -1)
    seen = crop.apply(places, stream(0, "resized")).flatten(2)
    first, last = seen.amin(2), seen.amax(2)
    found = torch.cat([first, last - first + 1], dim=1)
    assert found.allclose(found.round(), atol=1e-3)  # nothing is mixed in from outside the box
    return found.round().long()


@pytest.mark.parametrize("antialias", [False, True])  # which changes nothing, as the docstring says
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 17, 40), (2, 5, 3), (1, 1, 1)], ids=str)
def test_resized_crop_is_torchvisions_of_the_same_boxes(
    shape: tuple[int, int, int], antialias: bool
) -> None:
    crop, images = RandomResizedCrop(), torch.rand(50, *shape, generator=stream(0, "images"))
    ours = crop.apply(images, stream(0, "resized"))
    drawn = boxes(crop, 50, *shape[1:]).tolist()
    theirs = [
        resized_crop(image, *box, size=list(shape[1:]), antialias=antialias)
        for image, box in zip(images, drawn, strict=True)
    ]
    assert ours.allclose(torch.stack(theirs), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "height", "width"),
    [({}, 32, 32), ({}, 24, 50), ({"area": [0.5, 0.9], "aspect": [0.5, 3]}, 40, 40)],
)
def test_resized_crop_draws_boxes_as_torchvision_does(
    options: dict[str, list[float]], height: int, width: int
) -> None:
    crop, image = RandomResizedCrop(**options), torch.empty(1, height, width)
    ours = boxes(crop, 3000, height, width).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor(
            [Theirs.get_params(image, crop.area, crop.aspect) for _ in range(3000)]
        ).float()
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 0.02 * min(height, width)
    assert (ours.std(0) - theirs.std(0)).abs().max() < 0.02 * min(height, width)


@settings(deadline=None)  # a first call of torch's can take longer than hypothesis allows
@given(
    area=st.lists(st.floats(0.01, 1), min_size=2, max_size=2).map(sorted),
    aspect=st.lists(st.floats(0.2, 5), min_size=2, max_size=2).map(sorted),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_resized_crops_lie_within_the_image(
    area: list[float], aspect: list[float], height: int, width: int
) -> None:
    y, x, h, w = boxes(RandomResizedCrop(area=area, aspect=aspect), 20, height, width).T
    assert (torch.stack([y, x]) >= 0).all()
    assert (torch.stack([h, w]) >= 1).all()
    assert (y + h <= height).all()
    assert (x + w <= width).all()


def test_a_crop_of_the_whole_area_is_the_image() -> None:
    whole = RandomResizedCrop(area=[1, 1], aspect=[6 / 5, 6 / 5]).apply(IMAGES, stream(0, "whole"))
    assert whole.allclose(IMAGES, rtol=1e-5, atol=1e-5)


def test_a_box_that_never_fits_is_cut_to_the_image() -> None:
    drawn = boxes(RandomResizedCrop(area=[1, 1], aspect=[4, 4]), 30, 8, 8)
    assert (drawn[:, 1:] == torch.tensor([0, 4, 8])).all()  # of 4×16 pixels
    assert set(drawn[:, 0].tolist()) == {0, 1, 2, 3, 4}
    pixels = torch.ones(30, 1, 1, 1)  # each larger than its box
    assert RandomResizedCrop(area=[0.01, 0.01]).apply(pixels, stream(0, "pixels")).equal(pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"area": [0, 1]},
        {"area": [0.5, 1.5]},
        {"area": [0.9, 0.1]},
        {"area": [1]},
        {"aspect": [0, 1]},
        {"aspect": [2, 1]},
        {"aspect": [1, 1, 2]},
        {"aspect": [1, float("inf")]},
    ],
    ids=str,
)
def test_resized_crop_refuses_ranges_that_are_none(options: dict[str, list[float]]) -> None:
    with pytest.raises(ValidationError):
        RandomResizedCrop(**options)


@pytest.mark.parametrize(
    "augmentation", [Flip(), Crop(padding=1), RandomResizedCrop()], ids=lambda a: a.use
)
def test_augmentations_repeat_from_the_stream_and_leave_their_input(
    augmentation: Augmentation,
) -> None:
    before = IMAGES.clone()
    first, again, other = (
        augmentation.apply(IMAGES, stream(seed, "augment")) for seed in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first.equal(other)
    assert IMAGES.equal(before)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
