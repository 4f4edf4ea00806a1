"""Recorded updates, with a recorder on the CPU that calls the recorded work again."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.recorder import Again
from support.small import cell, dense_job, engine_context, kernel, lab, make
from support.trainings import OPTIMIZERS, jobs_of

from lotteryfw.api.layers import MaskedLayer
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.kernels import captured
from lotteryfw.engine.kernels.captured import WARM_UP, Body, Pool
from lotteryfw.engine.kernels.kernel import Member
from lotteryfw.engine.kernels.lockstep import Group
from lotteryfw.engine.kernels.mask_training import MaskTraining
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.search.jobs import Train
from lotteryfw.std.parametrizations import Bernoulli

torch.set_num_threads(1)
STEPS = 45
"""More than two epochs of DATA in batches of 16."""


class Refuses(Again):
    """A recorder for which every recording breaks off."""

    def record(self, body: Body, pool: Pool) -> Body:
        try:
            raise RuntimeError("it asks for a number\nand waits")
        finally:
            raise ValueError("the recording was broken off")  # what torch raises at the end of one


def factor(step: int) -> float:
    """A learning rate that changes with every step, but for the first two."""
    return 1.0 if step < 2 else 1.0 - 0.01 * step


def conv_job(**changes: Any) -> Train:
    data = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8], "noise": 0.5}
    model = {"use": "resnet20", "width": 0.1}
    return replace(
        dense_job(cell(STEPS, data=data, model=model, **changes)), kernel=kernel("reference")
    )


def masked_job(**changes: Any) -> Train:
    return replace(jobs_of(1, STEPS, **changes)[0], kernel=kernel("reference"))


AUGMENT = (make("augmentation", "crop"), make("augmentation", "flip"))
REFERENCE: dict[str, Callable[[], Train]] = {
    "sgd": lambda: masked_job(optimizer=OPTIMIZERS["sgd"]),
    "momentum": lambda: masked_job(optimizer=OPTIMIZERS["momentum"]),
    "adam": lambda: masked_job(optimizer=OPTIMIZERS["adam"]),
    "adamw": lambda: masked_job(optimizer=OPTIMIZERS["adamw"]),
    "batch of all examples": lambda: masked_job(batch=230),
    "batch norm": conv_job,
    "augmented": lambda: conv_job(augment=AUGMENT),
}  # fmt: skip
GROUPS: dict[str, Callable[[], list[Train]]] = {
    **{
        f"{name}, {'shared' if shared else 'own'} orders": lambda name=name, shared=shared: jobs_of(  # type: ignore[misc]
            3, STEPS, shared=shared, optimizer=OPTIMIZERS[name]
        )
        for name in ("sgd", "momentum", "adam", "adamw") for shared in (True, False)
    },
    "augmented": lambda: jobs_of(3, STEPS, augment=AUGMENT),
    "one": lambda: jobs_of(1, STEPS),
}  # fmt: skip


def learning(how: Any, density: float | None = None, **changes: Any) -> Train:
    """The training of a learned mask."""
    changes = {"optimizer": OPTIMIZERS["momentum"], "mask1": "constant", **changes}
    desk = lab(cell(STEPS, parametrization=make("parametrization", how), **changes))
    return replace(desk.job(desk.learn_mask(density)), kernel=kernel("mask_training"))


CONV = {
    "data": {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8], "noise": 0.5},
    "model": {"use": "conv2", "width": 0.05},
}
MASKS: dict[str, Callable[[], Train]] = {
    "top_k": lambda: learning("top_k", 0.5),
    "top_k, every three steps": lambda: learning({"use": "top_k", "every": 3}, 0.5),
    "top_k, global, fan scaled, Adam": lambda: learning(
        {"use": "top_k", "scale_fan": True}, 0.5, scope="global", optimizer=OPTIMIZERS["adam"]
    ),
    "top_k, augmented": lambda: learning("top_k", 0.5, augment=AUGMENT, **CONV),
    "bernoulli": lambda: learning("bernoulli"),
    "bernoulli, rescaled": lambda: learning({"use": "bernoulli", "rescale": "dynamic"}),
}  # fmt: skip


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Again:
    """A recorder for the CPU."""
    recorder = Again()
    monkeypatch.setitem(captured.RECORDERS, "cpu", recorder)
    return recorder


def run(kernel: Any, first: int = 0, last: int = STEPS) -> list[torch.Tensor]:
    """The losses of updates."""
    return [kernel.update(step, factor(step)).clone() for step in range(first, last)]


def state(kernel: Any) -> dict[str, torch.Tensor]:
    """All that a checkpoint holds of a kernel with one member."""
    (member,) = kernel.members
    return member_state(member)


def member_state(member: Member) -> dict[str, torch.Tensor]:
    """All that a checkpoint holds of a member."""
    parts = {"value": member.state().values, "optimizer": member.optimizer_state()}
    return {
        f"{part}.{name}": value.clone() for part in parts for name, value in parts[part].items()
    }


def states(group: Group) -> list[dict[str, torch.Tensor]]:
    return [member_state(member) for member in group.members]


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.numpy().tobytes() == theirs[name].numpy().tobytes(), name


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal but for the learning rate's rounding to float32."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("what", REFERENCE)
def test_recorded_updates_of_the_reference_are_the_plain_ones(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = REFERENCE[what]()
    plain = Reference(job, engine_context())
    losses = run(plain)
    recorder = Again()
    monkeypatch.setitem(captured.RECORDERS, "cpu", recorder)
    recorded = Reference(job, engine_context())
    recorded_losses = run(recorded)
    assert (recorder.warm_ups, recorder.recordings, recorder.replays) == (
        WARM_UP,
        1,
        STEPS - WARM_UP,
    )
    torch.testing.assert_close(
        torch.stack(recorded_losses), torch.stack(losses), rtol=1e-3, atol=1e-4
    )
    assert_close(state(recorded), state(plain))


@pytest.mark.parametrize("what", MASKS)
def test_recorded_updates_of_learned_masks_are_the_plain_ones(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are made before each replay, which reads them where they lie."""
    job = MASKS[what]()
    plain = MaskTraining(job, engine_context())
    losses = run(plain)
    recorder = Again()
    monkeypatch.setitem(captured.RECORDERS, "cpu", recorder)
    recorded = MaskTraining(job, engine_context())
    recorded_losses = run(recorded)
    assert recorder.replays == STEPS - WARM_UP
    torch.testing.assert_close(
        torch.stack(recorded_losses), torch.stack(losses), rtol=1e-3, atol=1e-4
    )
    scores, theirs = recorded.state().scores, plain.state().scores
    for name, score in scores.items():
        torch.testing.assert_close(score, theirs[name], rtol=1e-3, atol=1e-4)
    for name, value in recorded.state().values.items():
        if name.endswith("weight"):
            assert torch.equal(value, job.values[name])  # it learns masks, and no weights
    assert recorded.curve_figures() == plain.curve_figures()


@pytest.mark.parametrize("what", MASKS)
def test_a_learned_mask_goes_on_from_a_checkpoint_to_the_same_bits(
    what: str, recorder: Again
) -> None:
    job = MASKS[what]()
    whole = MaskTraining(job, engine_context())
    run(whole, last=20)
    kept, optimizer = whole.state().copied(), whole.optimizer_state()
    losses = run(whole, 20)
    end = whole.state().copied()
    for trained in (MaskTraining(job, engine_context()), whole):
        trained.restore(kept.copied(), optimizer)
        assert torch.equal(torch.stack(run(trained, 20)), torch.stack(losses))
        assert_same(dict(trained.state().scores), dict(end.scores))
    assert recorder.recordings == 3


def test_masks_that_depend_on_the_progress_take_the_plain_path(recorder: Again) -> None:
    class Fading(Bernoulli):
        use = "fading"

        def weight(self, edges: MaskedLayer, mask: torch.Tensor) -> torch.Tensor:
            return super().weight(edges, mask) * (1.0 - 0.5 * (edges.progress or 0.0))

    context = engine_context()
    job = learning("bernoulli")
    own = replace(job.parametrization, use="fading")  # type: ignore[type-var]
    component = context.component
    context.component = lambda spec: Fading() if spec == own else component(spec)  # type: ignore[method-assign]
    run(MaskTraining(replace(job, parametrization=own), context), last=5)
    assert recorder.warm_ups == 0


@pytest.mark.parametrize("what", GROUPS)
def test_recorded_updates_of_a_group_are_the_plain_ones(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = GROUPS[what]()
    plain = Group(jobs, engine_context())
    losses = run(plain)
    recorder = Again()
    monkeypatch.setitem(captured.RECORDERS, "cpu", recorder)
    recorded = Group(jobs, engine_context())
    recorded_losses = run(recorded)
    assert (recorder.warm_ups, recorder.recordings, recorder.replays) == (
        WARM_UP,
        1,
        STEPS - WARM_UP,
    )
    torch.testing.assert_close(
        torch.stack(recorded_losses), torch.stack(losses), rtol=1e-3, atol=1e-4
    )
    for ours, theirs in zip(states(recorded), states(plain), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("what", REFERENCE)
def test_the_reference_goes_on_from_a_checkpoint_to_the_same_bits(
    what: str, recorder: Again
) -> None:
    job = REFERENCE[what]()
    whole = Reference(job, engine_context())
    run(whole, last=20)
    kept = state(whole)
    values = {
        name.removeprefix("value."): value
        for name, value in kept.items()
        if name.startswith("value.")
    }
    optimizer = {
        name.removeprefix("optimizer."): v
        for name, v in kept.items()
        if name.startswith("optimizer.")
    }
    losses = run(whole, 20)

    fresh = Reference(job, engine_context())
    fresh.network.restore(NetworkState(values), optimizer)
    for updated in (fresh, whole):  # one that has made no update yet, and one that goes back
        updated.network.restore(NetworkState(values), optimizer)
        assert torch.equal(torch.stack(run(updated, 20)), torch.stack(losses))
    assert_same(state(fresh), state(whole))
    assert recorder.recordings == 3


@pytest.mark.parametrize("what", GROUPS)
def test_a_group_goes_on_from_a_checkpoint_to_the_same_bits(what: str, recorder: Again) -> None:
    jobs = GROUPS[what]()
    whole = Group(jobs, engine_context())
    run(whole, last=20)
    kept = []
    for member in whole.members:
        kept.append(
            (
                member.state().copied(),
                member.optimizer_state(),
            )
        )
    losses = run(whole, 20)
    ends = states(whole)

    for group in (Group(jobs, engine_context()), whole):
        for member, (network, optimizer) in zip(group.members, kept, strict=True):
            member.restore(network, optimizer)
        assert torch.equal(torch.stack(run(group, 20)), torch.stack(losses))
        for ours, theirs in zip(states(group), ends, strict=True):
            assert_same(ours, theirs)
    assert recorder.recordings == 3


@pytest.mark.parametrize(
    "make_kernel",
    [
        lambda: Reference(masked_job(), engine_context()),
        lambda: Group(jobs_of(2), engine_context()),
        lambda: MaskTraining(MASKS["top_k"](), engine_context()),
    ],
)
def test_where_recording_fails_the_results_are_the_same_and_a_warning_says_why(
    make_kernel: Callable[[], Any], recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = run(make_kernel())
    monkeypatch.setitem(captured.RECORDERS, "cpu", Refuses())
    with pytest.warns(
        RuntimeWarning, match="updates cannot be recorded .* step by step: it asks for a number$"
    ) as warned:
        assert torch.equal(torch.stack(run(make_kernel())), torch.stack(losses))
    assert len(warned) == 1


def test_what_cannot_be_recorded_takes_the_plain_path(recorder: Again) -> None:
    run(Reference(masked_job(optimizer=OPTIMIZERS["rmsprop"]), engine_context()))
    assert recorder.warm_ups == 0
    assert captured.RECORDERS.keys() == {"cuda", "cpu"}


def test_an_optimizer_with_step_hooks_is_not_recorded(recorder: Again) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, fused=True)
    assert captured.recorder_for(optimizer, "cpu") is recorder
    optimizer.register_step_post_hook(lambda *args: None)
    assert captured.recorder_for(optimizer, "cpu") is None


def test_updates_in_any_order_of_steps_see_the_batches_of_their_steps(recorder: Again) -> None:
    """As after a restore, which may lead back to another epoch."""
    job = masked_job(
        optimizer=OPTIMIZERS["sgd"] | {"lr": 1e-30}
    )  # the weights stay, so the loss tells the batch
    kernel = Reference(job, engine_context())
    straight = run(kernel)
    for step in (30, 3, 4, 44, 0, 14, 15):
        assert torch.equal(kernel.update(step, 1.0), straight[step]), step


def test_evaluations_between_updates_change_nothing(recorder: Again) -> None:
    job = conv_job()
    plain, measured = Reference(job, engine_context()), Reference(job, engine_context())
    run(plain)
    for step in range(STEPS):
        measured.update(step, factor(step))
        measured.network.evaluate("validation")
    assert_same(state(plain), state(measured))


EVALUATED: dict[str, Callable[[], Any]] = {
    "reference": lambda: Reference(masked_job(), engine_context()),
    "batch norm": lambda: Reference(conv_job(), engine_context()),
    "group": lambda: Group(jobs_of(3), engine_context()),
}


def curve(kernel: Any, part: str = "validation") -> list[list[tuple[float, float]]]:
    """The figures of every member, after each of some updates."""
    figures = []
    for step in range(8):
        kernel.update(step, factor(step))
        figures.append([member.evaluate(part) for member in kernel.members])
    return figures


@pytest.mark.parametrize("what", EVALUATED)
def test_recorded_evaluations_are_the_plain_ones(
    what: str, recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = EVALUATED[what]()
    figures = curve(recorded)
    assert len({tuple(point) for point in figures}) == 8  # each is of the weights of its step
    # one recording of the updates and one of the evaluations, which begins after two of them
    assert recorder.recordings == 2
    assert recorder.replays == (8 - WARM_UP) + (8 - 2)
    monkeypatch.delitem(captured.RECORDERS, "cpu")
    assert torch.allclose(torch.tensor(curve(EVALUATED[what]())), torch.tensor(figures), atol=1e-4)


@pytest.mark.parametrize("what", EVALUATED)
def test_after_a_restore_evaluations_are_of_the_weights_put_back(
    what: str, recorder: Again
) -> None:
    kernel = EVALUATED[what]()
    run(kernel, last=4)
    kept = [(member.state().copied(), member.optimizer_state()) for member in kernel.members]
    figures = curve(kernel)
    for member, (state, optimizer) in zip(kernel.members, kept, strict=True):
        member.restore(state, optimizer)
    assert curve(kernel) == figures


def test_the_test_set_is_read_as_it_is(recorder: Again) -> None:
    curve(EVALUATED["reference"](), "test")
    curve(EVALUATED["group"](), "test")
    assert recorder.recordings == 2  # of updates


@pytest.mark.parametrize("what", EVALUATED)
def test_where_no_evaluation_can_be_recorded_a_warning_says_why(
    what: str, recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = curve(EVALUATED[what]())
    monkeypatch.setitem(captured.RECORDERS, "cpu", Refuses())
    with pytest.warns(RuntimeWarning) as warned:
        assert curve(EVALUATED[what]()) == figures
    assert [str(one.message).partition(" cannot")[0] for one in warned] == [
        "a training's evaluations",
        "a training's updates",
    ]


class LosesMemory(Again):
    """A recorder for which chosen recordings break off, and with them the memory that they were to lie in."""

    def __init__(self, *broken: int) -> None:
        super().__init__()
        self._broken, self._lost = broken, set[int]()
        self._pools = 0

    def pool(self) -> Pool:
        self._pools += 1
        return self._pools

    def record(self, body: Body, pool: Pool) -> Body:
        assert pool not in self._lost, "recorded in memory that was released"
        replay = super().record(body, pool)
        if self.recordings in self._broken:
            self._lost.add(pool)
            raise RuntimeError("it asks for a number")
        return replay


@pytest.mark.parametrize("what", EVALUATED)
def test_where_no_update_can_be_recorded_no_evaluation_is_tried(
    what: str, recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures() -> list[list[tuple[float, float]]]:
        kernel = EVALUATED[what]()
        run(kernel, 0, WARM_UP + 1)
        return curve(kernel)

    expected = figures()
    broken = LosesMemory(1)
    monkeypatch.setitem(captured.RECORDERS, "cpu", broken)
    with pytest.warns(RuntimeWarning, match="a training's updates cannot") as warned:
        assert figures() == expected
    assert len(warned) == 1
    assert broken.recordings == 1


@pytest.mark.parametrize("what", EVALUATED)
def test_a_recording_that_breaks_off_leaves_memory_to_the_next(
    what: str, recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = LosesMemory(1)
    monkeypatch.setitem(captured.RECORDERS, "cpu", broken)
    kernel = EVALUATED[what]()
    with pytest.warns(RuntimeWarning) as warned:
        curve(kernel)
    assert [str(one.message).partition(" cannot")[0] for one in warned] == [
        "a training's evaluations"
    ]
    assert broken.recordings == 2
    assert broken.replays == 8 - WARM_UP


@pytest.mark.parametrize("what", EVALUATED)
def test_updates_are_recorded_anew_after_an_evaluation_that_broke_off(
    what: str, recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the first recording would draw from a generator that is seeded no longer."""
    broken = LosesMemory(2)
    monkeypatch.setitem(captured.RECORDERS, "cpu", broken)
    kernel = EVALUATED[what]()
    run(kernel, 0, WARM_UP + 1)
    assert (broken.recordings, broken.replays) == (1, 1)
    with pytest.warns(RuntimeWarning, match="a training's evaluations cannot"):
        curve(kernel)
    # by the first recording until the second evaluation, then three as they are, then by the third
    assert (broken.recordings, broken.replays) == (3, 1 + 2 + 3)


def test_float32_means_float32() -> None:
    program = (
        "import torch\nfrom lotteryfw.engine import configure_torch\nconfigure_torch()\n"
        "assert not torch.backends.cuda.matmul.allow_tf32\nassert not torch.backends.cudnn.allow_tf32\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_these_trainings_go_over_several_epochs() -> None:
    for make_job in REFERENCE.values():
        assert 2 * make_job().steps_per_epoch < STEPS


class KeepsNoBody(Again):
    """A recorder whose replays do nothing, and keep nothing of Python alive, as a CUDA graph does not."""

    def record(self, body: Body, pool: Pool) -> Body:
        super().record(body, pool)
        return lambda: None


def test_a_recorded_kernel_is_let_go_with_its_last_user(
    recorder: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is a GPU's: it cannot wait until Python looks for cycles."""
    monkeypatch.setitem(captured.RECORDERS, "cpu", KeepsNoBody())
    gc.collect()
    gc.disable()
    try:
        for make_job in (masked_job, lambda: conv_job(augment=AUGMENT)):
            kernel = Reference(make_job(), engine_context())
            run(kernel, 0, WARM_UP + 1)
            gone = weakref.ref(kernel)
            recordings = weakref.WeakSet(
                one for one in gc.get_objects() if type(one) is captured.Recording
            )
            assert any(recording.is_made for recording in recordings)
            del kernel
            assert gone() is None
            assert not recordings
        group = Group(jobs_of(2, augment=AUGMENT), engine_context())
        member = group.members[1]
        group.update(0, 1.0)
        gone = weakref.ref(group)
        del group
        assert gone() is not None
        del member
        assert gone() is None
    finally:
        gc.enable()


def test_all_warm_ups_of_a_process_share_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS keeps memory for each stream that it was ever called on."""
    streams = []

    class Stream:
        def __init__(self) -> None:
            streams.append(self)

        def wait_stream(self, other: object) -> None: ...

    current = Stream()
    streams.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    recorder, runs = captured.CudaGraphs(), []
    for _ in range(3):
        recorder.warm_up(lambda: runs.append(1))
    assert len(runs) == 3
    assert len(streams) == 1
