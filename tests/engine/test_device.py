"""Everything that runs on a device of its own, on the pretend accelerator: the CPU's numbers, bit for bit."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.mask_updates import FILE as UPDATES
from support.paths import ROOT
from support.recorder import Again

from lotteryfw import Run, load_ticket, runner
from lotteryfw.engine import EngineContext, KernelDispatcher
from lotteryfw.engine.kernels import lockstep
from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.dispatch import make_kernel
from lotteryfw.engine.learned_mask import evaluate_state
from lotteryfw.engine.prefetched_draws import SPAN, PrefetchedDraws
from lotteryfw.registry import Registry
from lotteryfw.runner import Interrupted, StudyContext
from lotteryfw.runner import run_study as run
from lotteryfw.search.lab import CellLab
from lotteryfw.std import optimizers

pretend = pytest.importorskip(
    "support.pretend", reason="this torch cannot make a device in Python", exc_type=ImportError
)
torch.set_num_threads(1)
DATA = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5}
IMAGES = {"use": "synthetic", "examples": 60, "classes": 3, "shape": [3, 8, 8], "noise": 0.5}
TRAIN = {"length": "6it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}}
LEARNED = {
    "initialiser": "signed_constant",
    "model": {"use": "mlp", "hidden": [8, 6], "bias": False},
}
TOP_K = {"parametrization": "top_k", **LEARNED}
PLUGIN = ROOT / "benchmarks" / "gpu_parts" / "plugin.py"
"""A criterion that needs gradients, and a network with dropout."""
SOFT = ROOT / "plugins" / "lotteryfw-soft" / "src" / "lotteryfw_soft" / "__init__.py"
"""Parametrizations that train weights beside the scores."""
AT_INIT = ROOT / "plugins" / "lotteryfw-pai" / "src" / "lotteryfw_pai" / "__init__.py"
"""Criteria that score whole networks."""
NETWORK_CRITERIA = [{"use": "snip", "batch": 32}, {"use": "grasp", "batch": 32}, "synflow"]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the pretend accelerator, which the engine takes as it takes a GPU.

    The CPU has fused optimizers and the pretend device has not, so neither uses them: their rounding is another.
    """
    monkeypatch.setattr(runner.study, "pick_device", lambda name: name)
    monkeypatch.setattr(optimizers, "_in_one_call", lambda parameters: {"foreach": True})
    monkeypatch.setitem(lockstep.KERNEL.group_sizes, pretend.NAME, 16)  # type: ignore[arg-type]
    pretend.syncs.clear()
    with pretend.Pretend():
        yield pretend.NAME


def names(kind: str) -> list[str]:
    return [
        offer.name for offer in Registry.load().offers(kind) if offer.distribution == "lotteryfw"
    ]


def recipe(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": "small", "data": DATA, "model": {"use": "mlp", "hidden": [8, 6]}, "train": TRAIN,
        "search": {"use": "imp", "levels": 1}, "evaluate": {"points": 2}, "engine": {"kernel": "reference"},
    }  # fmt: skip
    return plain | changes


def images(model: dict[str, Any] | str, *augment: str, **changes: Any) -> dict[str, Any]:
    return recipe(
        data=IMAGES,
        model=model,
        train={**TRAIN, "length": "2it", "augment": list(augment)},
        **changes,
    )


def learned(search: Any, **changes: Any) -> dict[str, Any]:
    return recipe(search=search, engine={}, **changes)


def optimizer_grid() -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = [{"use": name, "lr": 1e-3} for name in names("optimizer")]
    return [*tables, {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}]


EVERYTHING: dict[str, dict[str, Any]] = {
    "criteria": recipe(grid={"criterion": [*names("criterion"), "connection_sensitivity"]}),
    "mask-1 actions": recipe(grid={"mask1": names("mask1")}),
    "mask-0 actions": recipe(grid={"mask0": names("mask0")}, search={"use": "imp", "levels": 2}),
    "scopes": recipe(grid={"scope": names("scope")}),
    "rewind policies": recipe(grid={"rewind": [
        "to_init", {"use": "to_step", "step": "2it"}, "learning_rate", "fine_tune",
    ]}),
    "optimizers": recipe(grid={"train.optimizer": optimizer_grid()}),
    "metrics": recipe(evaluate={
        "points": 2, "train": True,
        "metrics": [
            *sorted({*names("metric")} - {"top_k", "moment_distance"}), {"use": "top_k", "k": 2},
        ],
    }),
    "connectivity": images(
        {"use": "resnet20", "width": 0.125},
        "flip",
        analyses=[{"use": "linear_mode_connectivity", "points": 3}],
    ),
    "generator": recipe(
        data={**IMAGES, "shape": [1, 8, 8]},
        model={"use": "dcgan", "width": 0.125, "latent": 8},
        initialiser="signed_constant",
        parametrization={"use": "frozen_weights", "inner": "top_k", "frozen": ["generator.*"]},
        search={"use": "joint_training", "density": 0.5},
        train={**TRAIN, "objective": "adversarial"},
        evaluate={"points": 2, "metrics": ["moment_distance"]},
        engine={},
    ),
    "schedules": recipe(grid={"train.schedule": [
        "constant", "cosine", {"use": "multistep", "milestones": ["2it", "4it"]},
    ]}),
    "objectives": recipe(train={**TRAIN, "objective": "reconstruction"}),
    "searches": recipe(grid={"search": [
        {"use": "one_shot", "levels": 2}, {"use": "one_shot", "levels": 2, "train": False},
        {"use": "random_pruning", "levels": 1},
    ]}),
    "network criteria": recipe(grid={"criterion": NETWORK_CRITERIA}),
    "network criteria, dropout and data order": recipe(model="dropped", criterion={"use": "snip", "batch": 32}),
    "network criteria, batch normalisation": images({"use": "resnet20", "width": 0.1}, criterion={"use": "grasp", "batch": 20}),
    "at_init": recipe(
        search={"use": "at_init", "densities": [0.5, 0.2], "rounds": 3},
        grid={"criterion": [*NETWORK_CRITERIA, "connection_sensitivity"]},
    ),
    "controls": recipe(controls=names("control")),
    "analyses": recipe(analyses=[
        "mask_diagnostics", "mask_overlap", "weight_scatter", "error_barrier", "stability_to_pruning",
        "stability_to_data_order",
    ], search={"use": "imp", "levels": 2}),
    "lockstep": recipe(engine={"kernel": "lockstep"}, grid={"mask0": ["zero", "init"], "search.levels": [2]}),
    "lockstep, Adam": recipe(
        engine={"kernel": "lockstep"}, seeds=[0, 1], train={**TRAIN, "optimizer": {"use": "adam", "lr": 1e-3}}
    ),
    "compact": images(
        {"use": "conv2", "width": 0.05}, engine={"kernel": "compact"}, search={"use": "imp", "levels": 2}
    ),
    "supermask": learned("supermask", parametrization="bernoulli", **LEARNED),
    "supermask, rescaled": learned(
        "supermask", parametrization={"use": "bernoulli", "rescale": "dynamic"}, **LEARNED
    ),
    "supermask, weights trained": learned(
        {"use": "supermask", "train_weights": True}, parametrization="bernoulli", **LEARNED
    ),
    "edge_popup": learned({"use": "edge_popup", "density": 0.5}, analyses=["dying_edges"], **TOP_K),
    "edge_popup, global": learned({"use": "edge_popup", "density": 0.5}, scope="global", **TOP_K),
    "iterative_edge_popup": learned(
        {"use": "iterative_edge_popup", "density": 0.5}, rewind="learning_rate", **TOP_K
    ),
    "iterative_edge_popup, hard": learned(
        {"use": "iterative_edge_popup", "density": 0.5, "pruning": "hard"}, rewind={"use": "to_step", "step": "1it"},
        train={**TRAIN, "length": "20it"}, **TOP_K,
    ),
    "mask updates": recipe(
        search={"use": "during_training", "density": 0.4, "retrain": True},
        train={**TRAIN, "mask_update": {"use": "swap", "every": 2}}, controls=["random_mask"],
    ),
    "mask updates, Adam and dropout": recipe(
        search={"use": "during_training", "density": 0.4, "dense": False}, model="dropped",
        train={**TRAIN, "optimizer": {"use": "adam", "lr": 1e-3}, "mask_update": {"use": "swap", "every": 2}},
    ),
    "text": recipe(
        data={"use": "synthetic_text", "examples": 330, "classes": 3, "length": 6},
        model={"use": "embedding_mlp", "hidden": [8]},
    ),
    "penalties and distillation": recipe(grid={"train.objective": [
        "l1", {"use": "group_lasso", "strength": 1e-3}, "distillation",
    ]}),
    "joint training": recipe(
        search={"use": "joint_training", "retrain": True},
        engine={"sparse_below": 0.0},  # both take the same kernels
        grid={"parametrization": [
            {"use": "soft_threshold", "initial_score": -4.0}, {"use": "continuous_sparsification", "strength": 1e-3},
        ]},
    ),
    "joint training, Adam and convolutions": recipe(
        search={"use": "joint_training", "dense": False}, engine={}, data=IMAGES, model={"use": "resnet20", "width": 0.1},
        parametrization={"use": "continuous_sparsification", "strength": 1e-3},
        train={**TRAIN, "length": "4it", "optimizer": {"use": "adam", "lr": 1e-3}},
    ),
    "dropout": recipe(model="dropped"),
    "ResNet-20 and augmentations": images({"use": "resnet20", "width": 0.1}, "crop", "flip"),
    "ResNet-20 in bf16": recipe(
        data=IMAGES, model={"use": "resnet20", "width": 0.1}, train={**TRAIN, "length": "2it", "precision": "bf16"},
        engine={},
    ),
    "channels-last": images(
        {"use": "conv2", "width": 0.05}, engine={"memory_format": "channels_last"}
    ),
    "edge_popup in bf16": learned(
        {"use": "edge_popup", "density": 0.5},
        **{**TOP_K, "model": {"use": "conv2", "width": 0.05}, "data": IMAGES, "train": {**TRAIN, "precision": "bf16"}},
    ),
    "random_resized_crop": images({"use": "conv2", "width": 0.05}, "random_resized_crop"),
}  # fmt: skip


COMPUTED = (
    "criterion", "mask1", "mask0", "scope", "rewind", "optimizer", "schedule", "parametrization", "augmentation",
    "metric", "control", "analysis", "search", "objective",
)  # fmt: skip
"""The kinds whose components work with tensors of a device, or decide what does."""


LONG_ONES = {
    "connectivity", "criteria", "mask-0 actions", "network criteria, batch normalisation", "analyses", "at_init",
    "ResNet-20 in bf16", "joint training, Adam and convolutions", "resnet44", "resnet56", "resnet110",
}  # fmt: skip
"""What takes more than a few seconds."""


def marked(cases: Iterable[str]) -> list[Any]:
    """The cases of a test, with a mark on the long ones."""
    return [
        pytest.param(case, marks=pytest.mark.large) if case in LONG_ONES else case for case in cases
    ]


@pytest.mark.parametrize("kind", COMPUTED)
def test_every_built_in_component_is_tried_on_the_device(kind: str) -> None:
    tried = json.dumps(EVERYTHING)
    left_out = {name for name in names(kind) if f'"{name}"' not in tried}
    assert left_out <= {"classification"}, "the default, of all other recipes"


MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "lenet_300_100": {}, "mlp": {"hidden": [8]}, "torchvision": {"name": "squeezenet1_1"},
    "wide_resnet": {"depth": 10, "widen": 1},
}  # fmt: skip
"""Options that make a network small; those of the other models are a width."""
OTHERWISE_TRIED = {"embedding_mlp", "dcgan", "factory"}
"""Models of the recipes `text` and `generator`, and one that has no network of its own."""


@pytest.mark.parametrize("name", marked(sorted({*names("model")} - OTHERWISE_TRIED)))
def test_every_network_gives_the_numbers_of_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    table = recipe(
        data={**IMAGES, "examples": 12, "shape": [3, 32, 32]},
        model={"use": name, **MODEL_OPTIONS.get(name, {"width": 0.1})},
        train={**TRAIN, "batch": 2},
    )
    states = []
    for kind in ("cpu", device):
        kernel = kernel_for(table, kind, tmp_path / kind)
        kernel.update(0, 1.0)
        states.append(kernel.members[0].state().values)
    for label, value in states[0].items():
        assert torch.equal(value, states[1][label].cpu()), label


class Watch:
    """A listener that remembers troubles, and may stop the run after so many calls of `progress`."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.warnings: list[str] = []
        self._left = stop_after
        self._stop: Any = None

    def started(self, stop: Any) -> None:
        self._stop = stop

    def event(self, event: Any) -> None: ...

    def progress(self, progress: Any) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._stop()

    def warning(self, message: str) -> None:
        self.warnings.append(message)


def go(
    folder: Path,
    table: dict[str, Any],
    device: str,
    watch: Watch | None = None,
    seconds: float = 60.0,
) -> Run:
    watch = watch or Watch()
    done = run(
        table, out=folder / "run", store=folder / "store", data=folder, device=device, jobs=1,
        trust=[PLUGIN, AT_INIT, UPDATES, SOFT],
        listener=watch, on_start=watch.started, checkpoint_seconds=seconds,
    )  # fmt: skip
    assert not watch.warnings
    assert set(done.statuses.values()) == {"done"}
    return done


def results(done: Run) -> list[Any]:
    """Every figure of a run, in order; keys are left out, for the device is part of them."""
    rows = []
    for row in done.levels:
        rows.append(
            (
                row.cell,
                row.variant,
                row.level,
                row.validation_loss,
                row.test_loss,
                row.test_accuracy,
                row.density,
                tuple(row.metrics.items()),
            )
        )
    return rows


def assert_equal(one: Run, other: Run) -> None:
    """Equal figures, and equal tickets to the bit."""
    assert results(one) == results(other)
    assert one.findings == other.findings
    files = sorted((one.path / "tickets").rglob("*.safetensors"))
    assert files
    for file in files:
        theirs = load_ticket(other.path / file.relative_to(one.path))
        for name, value in load_ticket(file).values.items():
            assert torch.equal(value, theirs.values[name]), f"{file.name}: {name}"


@pytest.mark.parametrize("what", marked(EVERYTHING))
def test_the_device_gives_the_numbers_of_the_cpu(what: str, device: str, tmp_path: Path) -> None:
    on_device = go(tmp_path / "device", EVERYTHING[what], device)
    assert sum(pretend.syncs.values()) > 0  # it was used
    assert_equal(on_device, go(tmp_path / "cpu", EVERYTHING[what], "cpu"))


RESUMED = (
    "dropout",
    "supermask",
    "iterative_edge_popup",
    "mask updates",
    "mask updates, Adam and dropout",
    "joint training, Adam and convolutions",
    "lockstep, Adam",
    "ResNet-20 and augmentations",
)


@pytest.mark.parametrize("what", marked(RESUMED))
def test_a_stopped_run_goes_on_to_the_same_bits(what: str, device: str, tmp_path: Path) -> None:
    with contextlib.suppress(Interrupted):
        go(tmp_path / "device", EVERYTHING[what], device, Watch(stop_after=2), seconds=0.0)
        pytest.fail("the run was not stopped")
    assert_equal(
        go(tmp_path / "device", EVERYTHING[what], device),
        go(tmp_path / "cpu", EVERYTHING[what], "cpu"),
    )


LONG = {**TRAIN, "length": "60it"}
WITH_ADAM = {**LONG, "optimizer": {"use": "adam", "lr": 1e-3}}
SMALL_CONV = {"data": {**IMAGES, "examples": 330}, "model": {"use": "conv2", "width": 0.05}}
SPANS: dict[str, tuple[dict[str, Any], int]] = {
    "reference": (recipe(train=LONG), 0),
    "reference, Adam": (recipe(train=WITH_ADAM), 0),
    "lockstep": (recipe(train=LONG, engine={"kernel": "lockstep"}), 0),
    "lockstep, Adam": (recipe(train=WITH_ADAM, engine={"kernel": "lockstep"}), 0),
    "crop and flip": (recipe(train={**LONG, "augment": ["crop", "flip"]}, **SMALL_CONV), 2),
    "random_resized_crop": (
        recipe(train={**LONG, "augment": ["random_resized_crop"]}, **SMALL_CONV),
        2,
    ),
    "bf16": (recipe(train={**LONG, "precision": "bf16"}, **SMALL_CONV), 0),
    "top_k": (learned({"use": "edge_popup", "density": 0.5}, train=LONG, **TOP_K), 0),
    "bernoulli": (learned("supermask", parametrization="bernoulli", train=LONG, **LEARNED), 3),
    "bernoulli, rescaled": (
        learned(
            "supermask",
            parametrization={"use": "bernoulli", "rescale": "dynamic"},
            train=LONG,
            **LEARNED,
        ),
        3,
    ),
    "top_k, global, fan scaled": (
        learned(
            {"use": "edge_popup", "density": 0.5},
            scope="global",
            train=LONG,
            **{**TOP_K, "parametrization": {"use": "top_k", "scale_fan": True}},
        ),
        0,
    ),
    "compact": (
        recipe(train=LONG, **{**SMALL_CONV, "engine": {"kernel": "compact"}}),
        0,
    ),
    "soft_threshold": (
        recipe(
            search="joint_training",
            engine={},
            train=LONG,
            parametrization={"use": "soft_threshold", "initial_score": -4.0},
        ),
        0,
    ),
    "continuous_sparsification": (
        recipe(
            search="joint_training",
            engine={},
            train=LONG,
            parametrization={"use": "continuous_sparsification", "strength": 1e-3},
        ),
        0,
    ),
    "reconstruction": (recipe(train={**LONG, "objective": "reconstruction"}), 0),
    "l1": (recipe(train={**LONG, "objective": "l1"}), 0),
    "group_lasso": (recipe(train={**LONG, "objective": "group_lasso"}), 0),
    "dropout": (recipe(model="dropped", train=LONG), 0),
    "batch normalisation": (
        recipe(
            train=LONG,
            data={**IMAGES, "examples": 330},
            model={"use": "resnet20", "width": 0.1},
        ),
        0,
    ),
    "mask update": (
        recipe(
            search={"use": "during_training", "density": 0.4},
            train={**LONG, "mask_update": {"use": "swap", "every": 50}},
        ),
        0,
    ),
}
"""Trainings whose copies and waits are counted, and how many copies of random numbers they need for 64 steps."""


def job_for(table: dict[str, Any], device: str, folder: Path) -> tuple[Any, EngineContext]:
    """A recipe's first training, and a workshop for it."""
    context = StudyContext(table, store=folder / "store", trust=[PLUGIN, UPDATES, SOFT])
    engine_context = EngineContext(context.registry, folder, device)
    lab = CellLab(
        context.recipe.cells[0], context.describe, folder, device, KernelDispatcher(engine_context)
    )
    density = getattr(lab.cell.search, "density", None)
    if lab.cell.parametrization is not None:
        ticket = lab.learn_mask(density)
    elif lab.cell.mask_update is not None:
        ticket = lab.update_mask(density)
    else:
        ticket = lab.dense()
    return lab.job(ticket), engine_context


def kernel_for(table: dict[str, Any], device: str, folder: Path) -> Any:
    """The kernel of a recipe's first training."""
    job, engine_context = job_for(table, device, folder)
    return make_kernel([job], engine_context)


@pytest.mark.parametrize("what", SPANS)
def test_steps_neither_wait_nor_copy(what: str, device: str, tmp_path: Path) -> None:
    table, copies = SPANS[what]
    kernel = kernel_for(table, device, tmp_path)
    pretend.syncs.clear()
    kernel.update(0, 1.0)
    drawn = {line: count for line, count in pretend.syncs.items() if "prefetched_draws.py" in line}
    assert sum(drawn.values()) == copies
    pretend.syncs.clear()
    for step in range(1, 15):
        kernel.update(step, 1.0)
    assert not pretend.syncs


@pytest.mark.parametrize("what", SPANS)
def test_an_evaluation_waits_twice_at_most(what: str, device: str, tmp_path: Path) -> None:
    kernel = kernel_for(SPANS[what][0], device, tmp_path)
    kernel.update(0, 1.0)
    kernel.members[0].evaluate("validation")  # draws what later evaluations draw again
    kernel.update(1, 1.0)
    pretend.syncs.clear()
    kernel.members[0].evaluate("validation")
    assert 1 <= sum(pretend.syncs.values()) <= 2, pretend.syncs


def test_a_network_is_built_once_for_many_measurements(device: str, tmp_path: Path) -> None:
    """What an evaluation copies is the tensors of the network that it measures, and no module."""
    table = recipe(data=IMAGES, model={"use": "resnet20", "width": 0.1}, train=LONG)
    job, engine_context = job_for(table, device, tmp_path)
    state = make_kernel([job], engine_context).members[0].state()
    evaluate_state(job, engine_context, state, "test")  # builds the network, and reads the data
    pretend.syncs.clear()
    first = evaluate_state(job, engine_context, state, "test")
    assert sum(pretend.syncs.values()) == 1, pretend.syncs  # the two figures come to the host
    # A measurement may change what the module holds, such as a count of calls.
    module = engine_context.network_to_measure(job)
    for buffer in module.buffers():
        buffer.zero_()
    assert evaluate_state(job, engine_context, state, "test") == first
    restored = engine_context.network_to_measure(job)
    assert restored is module
    assert any(bool((buffer != 0).any()) for buffer in restored.buffers())


@pytest.mark.parametrize("kernel_name", ["reference", "lockstep"])
def test_steps_do_not_wait_after_a_checkpoint_either(
    kernel_name: str, device: str, tmp_path: Path
) -> None:
    table = recipe(train=WITH_ADAM, engine={"kernel": kernel_name})
    kernel = kernel_for(table, device, tmp_path)
    kernel.update(0, 1.0)
    (member,) = kernel.members
    saved = {name: value.cpu() for name, value in member.optimizer_state().items()}
    member.restore(member.state().copied(), saved)
    pretend.syncs.clear()
    for step in range(1, 15):
        kernel.update(step, 1.0)
    assert not pretend.syncs


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)], ids=["shared order", "own orders"])
def test_recorded_updates_neither_wait_nor_copy(
    seeds: tuple[int, int], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain SGD, for torch's other updates cannot read a learning rate from the pretend device."""
    sgd = {**LONG, "optimizer": {"use": "sgd", "lr": 0.1}}
    table = recipe(train=sgd, engine={"kernel": "lockstep"})
    jobs = [replace(job_for(table, "cpu", tmp_path)[0], order_seed=seed) for seed in seeds]
    plain = lockstep.Group(jobs, job_for(table, "cpu", tmp_path)[1])
    recorder = Again()
    monkeypatch.setattr(lockstep, "recorder_for", lambda optimizer, device: recorder)
    engine_context = job_for(table, device, tmp_path)[1]
    recorded = lockstep.Group([replace(job, device=device) for job in jobs], engine_context)
    for step in range(15):
        pretend.syncs.clear()
        losses = recorded.update(step, 1.0 - 0.01 * step)
        assert not pretend.syncs or step % jobs[0].steps_per_epoch == 0
        torch.testing.assert_close(
            losses.cpu(), plain.update(step, 1.0 - 0.01 * step), rtol=1e-4, atol=1e-5
        )
    assert recorder.replays == 15 - WARM_UP


def test_an_unfinished_span_goes_on_where_a_step_asks(device: str) -> None:
    drawn: list[int] = []

    def draw(step: int) -> dict[str, torch.Tensor]:
        drawn.append(step)
        return {"numbers": torch.full((3,), float(step))}

    ahead = PrefetchedDraws(draw, device)
    asked = [5, 6, 5 + SPAN - 1, 5 + SPAN, 2]
    assert [ahead(step)["numbers"].tolist() for step in asked] == [
        [float(step)] * 3 for step in asked
    ]
    assert drawn == [*range(5, 5 + 2 * SPAN), *range(2, 2 + SPAN)]
