"""One network in two processes: against one process, and with processes that are lost."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.killed import run_killed
from support.mask_updates import FILE as MASK_UPDATES
from support.runs import Watch, go, recipe
from support.small import (
    REGISTRY,
    cell,
    dense_job,
    engine_context,
    execute_one,
    kernel,
    lab,
    make,
    reference_kernel,
)
from support.trainings import CONV, FROZEN, IMAGES, OPTIMIZERS, masked_job, of_network
from torch import Tensor, nn

from lotteryfw.api.errors import RecipeError, UsageError
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine import EngineContext, KernelDispatcher, StoredOutcome
from lotteryfw.engine.batch_parts import bounds
from lotteryfw.engine.kernels.dispatch import description_of, make_kernel
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.ranks.exchange import StepExchange
from lotteryfw.engine.ranks.sync_batch_norm import synchronise_batch_norm
from lotteryfw.engine.streamed_part import StreamedPart
from lotteryfw.engine.training_batches import TrainingBatches
from lotteryfw.registry import Registry
from lotteryfw.runner import StudyContext
from lotteryfw.runner.device_slots import gpu_groups
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab
from lotteryfw.store import Store

torch.set_num_threads(1)
STEPS = 20
RESNET = {"use": "resnet20", "width": 0.1}


class Trained:
    """The end of a training: its losses, its state, and the exit of its processes."""

    def __init__(self, job: Train, folder: Path, registry: Registry = REGISTRY):
        context = EngineContext(registry, folder, "cpu", Store(folder / "store"))
        job = replace(job, kernel=KernelDispatcher(context)(job, "auto"))
        self.kernel = make_kernel([job], context)
        try:
            self.losses = [
                float(self.kernel.update(step, 1 - 0.01 * step)) for step in range(STEPS)
            ]
            # On several devices, this compares the bits of all ranks first.
            self.figures = self.kernel.members[0].evaluate("validation")
            self.state = self.kernel.members[0].state().copied()
        finally:
            description_of(job.kernel).close(self.kernel)


def assert_close(one: NetworkState, other: NetworkState, tolerance: float = 1e-5) -> None:
    for ours, theirs in ((one.values, other.values), (one.scores, other.scores)):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance)


# Two processes against one


def test_two_processes_are_one_within_rounding(tmp_path: Path) -> None:
    job = masked_job(STEPS, augment=(make("augmentation", "flip"),), batch=15, accumulate=2)
    one, two = Trained(job, tmp_path), Trained(replace(job, devices=2), tmp_path)
    assert_close(two.state, one.state)
    assert two.losses == pytest.approx(one.losses, rel=1e-5)
    assert two.losses != one.losses
    assert two.figures == pytest.approx(one.figures, rel=1e-5)
    # The bits of rank 1 are those of rank 0, as the evaluation has found.
    for name, mask in job.mask.items():
        frozen = two.state.values[name][~mask]
        assert torch.equal(frozen, torch.full_like(frozen, FROZEN))
    # Nothing is left in the store for another process, nor in the job's scratch folder.
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "objects" not in path.parts]
    assert [path.name for path in left if path.suffix != ".json"] == []


def test_synchronised_batch_norm_has_the_statistics_of_the_whole_batch(tmp_path: Path) -> None:
    gentle = {"use": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-3}
    job = masked_job(STEPS, model=RESNET, optimizer=gentle)
    one = Trained(job, tmp_path)
    divided = replace(job, devices=2, sync_batch_norm=True, activation_checkpointing=True)
    two = Trained(divided, tmp_path)
    assert_close(two.state, one.state, 1e-4)
    assert two.losses == pytest.approx(one.losses, rel=1e-4)


def test_scores_of_a_learned_mask_are_trained_together(tmp_path: Path) -> None:
    settings = {"data": IMAGES, "model": CONV, "optimizer": {"use": "sgd", "lr": 0.1}}
    of = cell(STEPS, parametrization=make("parametrization", "top_k"), mask1="constant", **settings)
    job = lab(of).job(lab(of).learn_mask(0.5))
    assert isinstance(job, Train)
    one, two = Trained(job, tmp_path), Trained(replace(job, devices=2), tmp_path)
    assert_close(two.state, one.state)


def test_masks_that_change_change_alike_on_all_ranks(tmp_path: Path) -> None:
    registry = Registry.load([MASK_UPDATES])

    def described(component: Any, clock: Any) -> Any:
        offer = registry.offer_of(component)
        return replace(
            lab(cell()).context.specs["data"],
            kind=offer.kind,
            use=offer.full_name,
            provider=offer.provider,
            options=registry.options_for_job(component, clock),
        )

    of = cell(
        STEPS, mask_update=registry.create("mask_update", "swap"), optimizer=OPTIMIZERS["momentum"]
    )
    desk = CellLab(of, described, Path("unused"), "cpu", reference_kernel)
    job = desk.job(desk.update_mask(0.4))
    assert isinstance(job, Train)
    one = Trained(job, tmp_path, registry)
    two = Trained(replace(job, devices=2), tmp_path, registry)
    assert_close(two.state, one.state)
    for name, mask in one.state.masks.items():
        assert torch.equal(two.state.masks[name], mask)
        assert not torch.equal(mask, job.mask[name])


def test_a_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    # Batch normalisation here has the statistics of each rank's own share.
    job = masked_job(STEPS, model=RESNET, devices=2)
    job = replace(job, kernel=KernelDispatcher(engine_context())(job, "auto"))
    whole, later = Store(tmp_path / "whole"), Store(tmp_path / "later")

    def copy_checkpoint(done: int, of: int) -> bool:
        # Both runs pass this step.
        if done == 13 and not later.scratch(job.key).exists():
            shutil.copytree(whole.scratch(job.key), later.scratch(job.key))
        return False

    values, metrics = [], []
    for store in (whole, later):
        context = EngineContext(REGISTRY, tmp_path, "cpu", store)
        execute_one(job, store, context, copy_checkpoint, checkpoint_seconds=0.0)
        outcome = StoredOutcome(store, job.key)
        values.append(outcome.tensors().values)
        metrics.append(outcome.metrics)
    assert StoredOutcome(later, job.key).record["timing"]["steps"] == STEPS - 12
    assert all(torch.equal(value, values[1][name]) for name, value in values[0].items())
    assert metrics[0] == metrics[1]


# Lost processes

PLUGIN = '''
import os
import signal
import sys
import time
from pathlib import Path

from lotteryfw import Augmentation, ModelFamily, hookimpl

IN_RANK = "lotteryfw.engine.ranks.main" in " ".join(sys.orig_argv)


class Losing(Augmentation):
    """Changes nothing; notes the ranks, and ends one of them once, at its tenth update."""

    use = "losing"
    folder: str
    how: str = ""
    in_rank: bool = True

    def apply(self, images, rng):
        folder = Path(self.folder)
        if IN_RANK:
            (folder / f"rank-{os.getpid()}").touch()
        calls = folder / f"calls-{os.getpid()}"
        with calls.open("a") as file:
            file.write("x")
        once = folder / "lost"
        if self.how and IN_RANK == self.in_rank and not once.exists():
            if len(calls.read_text()) == 10:
                once.touch()
                if self.how == "raise":
                    raise RuntimeError("no luck in a rank")
                os.kill(os.getpid(), getattr(signal, self.how))
        return images


class Drifting(ModelFamily):
    """A network that computes something else in each process."""

    use = "drifting"

    def build(self, shape, classes):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1 = nn.Linear(16, 8)
                self.fc2 = nn.Linear(8, classes)
                self.register_buffer("calls", None)

            def forward(self, x):
                if IN_RANK and self.training:
                    import torch

                    with torch.no_grad():
                        self.fc1.weight[0, 0] += 1.0
                return self.fc2(self.fc1(x.flatten(1)).relu())

        return Net()


@hookimpl
def register_components():
    return [Losing, Drifting]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "losing_plugin.py"
    path.write_text(PLUGIN)
    return path


def losing_recipe(tmp_path: Path, how: str, in_rank: bool = True) -> dict[str, Any]:
    """A study of one training in two processes."""
    table = recipe(data=IMAGES, model=CONV, engine={"devices": 2})
    table["search"] = {"use": "imp", "levels": 0}
    losing = {"use": "losing", "folder": str(tmp_path), "how": how, "in_rank": in_rank}
    table["train"] = table["train"] | {"length": "20it", "augment": [losing]}
    return table


def ranks(tmp_path: Path) -> list[int]:
    """The processes of all ranks but the first that there ever were."""
    return [int(path.name.partition("-")[2]) for path in tmp_path.glob("rank-*")]


def assert_all_end(pids: Sequence[int]) -> None:
    """Wait until these processes are gone; none of them stays."""
    assert pids
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, f"processes are left: {pids}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


LOSSES = {
    "SIGKILL": r"rank 1 of 2: its process \d+ ended \(signal 9\)",
    "SIGSTOP": r"rank 1 of 2: no sign of life for \d+ s",
    "raise": r"rank 1 of 2: augmentation '\S+losing' of \S+ broke in apply\(\): RuntimeError: no luck",
}


@pytest.mark.parametrize(
    "how", ["SIGKILL", pytest.param("SIGSTOP", marks=pytest.mark.large), "raise"]
)
def test_a_lost_rank_ends_the_training_and_the_next_run_goes_on(
    how: str, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "SIGSTOP":
        monkeypatch.setenv("LOTTERYFW_HEARTBEAT", "4")
    table = losing_recipe(tmp_path, how)
    error = failure(*go(tmp_path, table, trust=[plugin], checkpoint_seconds=0.0))
    assert re.search(LOSSES[how], error), error
    assert "goes on from its last checkpoint" in error
    assert_all_end(ranks(tmp_path))
    if how != "SIGKILL":
        return
    done, watch = go(tmp_path, table, trust=[plugin], checkpoint_seconds=0.0)
    assert set(done.statuses.values()) == {"done"}
    (key,) = watch.trained
    record = StoredOutcome(Store(tmp_path / "store"), key).record
    assert 0 < record["timing"]["steps"] <= 12
    assert_all_end(ranks(tmp_path))


def failure(done: Any, watch: Watch) -> str:
    """The message of the one cell of a run, which failed."""
    assert set(done.statuses.values()) == {"failed"}
    (finished,) = watch.of("CellFinished")
    message: str = finished.message
    return message


@pytest.mark.large
def test_a_killed_run_leaves_no_rank(plugin: Path, tmp_path: Path) -> None:
    table = losing_recipe(tmp_path, "")
    run_killed(table, tmp_path / "run", tmp_path / "store", [plugin], steps=10)
    assert_all_end(ranks(tmp_path))


@pytest.mark.large
def test_a_killed_worker_leaves_no_rank_and_another_goes_on(plugin: Path, tmp_path: Path) -> None:
    # The worker is rank 0.
    table = losing_recipe(tmp_path, "SIGKILL", in_rank=False)
    done, watch = go(tmp_path, table, trust=[plugin], checkpoint_seconds=0.0, jobs=2)
    assert set(done.statuses.values()) == {"done"}
    (warning,) = watch.warnings
    assert warning.startswith("a worker process, rank 0 of 2, ended (signal 9)")
    assert "goes on from its last checkpoint" in warning
    assert len(ranks(tmp_path)) == 2
    assert_all_end(ranks(tmp_path))


def test_ranks_trust_what_the_run_trusts(plugin: Path) -> None:
    trust = (plugin, Path("json.decoder"))
    assert Registry.load(trust).trust == trust


def test_ranks_that_come_apart_are_noticed(plugin: Path, tmp_path: Path) -> None:
    table = losing_recipe(tmp_path, "") | {"model": "drifting", "data": recipe()["data"]}
    error = failure(*go(tmp_path, table, trust=[plugin]))
    assert "rank 1 of 2 has other weights than rank 0" in error


# The parts


class Alone:
    """A group of one rank."""

    rank, size = 0, 1

    def add_up(self, tensor: Tensor) -> None: ...

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5, 5)])
def test_the_batch_norm_of_one_rank_is_torchs(
    shape: tuple[int, ...], affine: bool, momentum: float | None
) -> None:
    build = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    results = []
    for is_synchronised in (False, True):
        torch.manual_seed(0)
        norm = build(3, affine=affine, momentum=momentum).double()
        if is_synchronised:
            synchronise_batch_norm(norm, Alone())  # type: ignore[arg-type]
        inputs = torch.randn(shape, dtype=torch.float64).requires_grad_()
        for _ in range(3):
            outputs = norm(inputs)
        outputs.square().sin().sum().backward()
        gradients = [tensor.grad for tensor in (inputs, *norm.parameters())]
        norm.eval()
        results.append([outputs, *gradients, *norm.buffers(), norm(inputs)])
    for torchs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs)


def test_a_batch_norm_with_a_forward_of_its_own_is_left_alone() -> None:
    usual, changed = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    changed.forward = lambda inputs: inputs  # type: ignore[method-assign]
    network = nn.Sequential(usual, changed)
    inputs = torch.randn(6, 3)
    for ranks in (Alone(), Alone()):
        synchronise_batch_norm(network, ranks)  # type: ignore[arg-type]
        # A training that returns to an earlier state starts other ranks.
        assert vars(usual)["forward"]._ranks is ranks
        assert torch.equal(changed(inputs), inputs)


def test_buffers_outside_the_state_dict_stay_those_of_each_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))
    network.register_buffer("own", torch.ones(3), persistent=False)
    job = of_network(dense_job(cell()), network, monkeypatch)
    trained = TrainedNetwork(job, engine_context())
    trained.join(Alone())  # type: ignore[arg-type]
    assert trained._exchange is not None
    assert [buffer.shape for buffer in trained._exchange._buffers] == [(3,), (3,)]


def test_a_parameter_that_nobody_used_has_no_gradient() -> None:
    used, unused = (torch.ones(3).requires_grad_() for _ in range(2))
    used.grad = torch.tensor([1.0, 2.0, 3.0])
    buffers = [torch.tensor([7.0]), torch.tensor(3)]
    exchange = StepExchange(Alone(), [used, unused], buffers)  # type: ignore[arg-type]
    assert float(exchange.add_up(torch.tensor(0.5))) == 0.5
    assert used.grad.tolist() == [1, 2, 3]
    assert unused.grad is None
    assert [float(buffer) for buffer in buffers] == [7, 3]


class OneOf:
    """A rank of a group, which shares batches and exchanges nothing."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def share(self, examples: int) -> slice:
        return bounds(examples, self.size, self.rank)


@pytest.mark.parametrize("streamed", [False, True])
def test_shares_are_those_of_the_whole_batch_and_alone_are_read(
    streamed: bool, picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"use": "image_folder", "path": str(picture_folder), "size": 8, "damaged": "skip"}
    data = {**folder, "streamed": True, "validation": 100} if streamed else IMAGES
    augment = (make("augmentation", "random_resized_crop"), make("augmentation", "flip"))
    job, context = dense_job(cell(STEPS, data=data, augment=augment, batch=31)), engine_context()
    dataset = context.dataset_of(job)
    inputs, labels = TrainingBatches(job, context, dataset)(3, until=4)

    reads: list[int] = []
    read = StreamedPart.read

    def noted(part: StreamedPart, index: int, draw_box: Any) -> Tensor:
        reads.append(index)
        return read(part, index, draw_box)

    monkeypatch.setattr(StreamedPart, "read", noted)
    shares = []
    for rank in range(4):
        batches = TrainingBatches(job, context, dataset)
        batches.join(OneOf(rank, 4))  # type: ignore[arg-type]
        shares.append(batches(3, until=4))
    assert sorted(len(share[1]) for share in shares) == [7, 8, 8, 8]
    assert torch.equal(torch.cat([share[0] for share in shares]), inputs)
    assert torch.equal(torch.cat([share[1] for share in shares]), labels)
    assert len(reads) == len(set(reads)) == (31 if streamed else 0)


# Keys, kernels and recipes


def test_the_key_has_the_devices_where_there_are_several() -> None:
    job = masked_job(STEPS)
    assert not {"devices", "sync_batch_norm"} & job.source.keys()
    keys = {replace(job, devices=devices).key for devices in (1, 2, 3)}
    assert len(keys | {replace(job, devices=2, sync_batch_norm=True).key}) == 4


def test_one_kernel_trains_on_several_devices() -> None:
    choose = KernelDispatcher(engine_context())
    plain = dense_job(cell())
    divided = replace(plain, devices=2)
    assert choose(divided, "auto").name == "distributed"
    assert choose(divided, "distributed").options["kernel"] == "reference"
    for name in ("reference", "fused", "lockstep", "sparse", "compact"):
        with pytest.raises(UsageError, match=r"trains on one device, and engine\.devices is 2"):
            choose(divided, name)
    with pytest.raises(UsageError, match=r"'distributed' .* engine\.devices is 1"):
        choose(plain, "distributed")
    own = replace(plain.model, use="session/own")
    for changes in ({"model": own}, {"augment": (plain.data, own)}):
        (name,) = changes
        with pytest.raises(UsageError, match=f"the {name} 'session/own' is defined in this"):
            choose(replace(divided, **changes), "auto")
    # Jobs that go together are trained in one process.
    assert not description_of(kernel("distributed")).group_sizes


def test_a_recipe_sets_the_devices(tmp_path: Path) -> None:
    for engine in ({"devices": 2, "sync_batch_norm": True}, {"sync_batch_norm": True}, {}):
        context = StudyContext(recipe(engine=engine), data=tmp_path, store=tmp_path / "store")
        (only,) = context.recipe.cells
        assert only.devices == context.devices == engine.get("devices", 1)
        # On one device there is nothing to synchronise.
        assert only.sync_batch_norm == ("devices" in engine)
        again = StudyContext(context.recipe.resolved(), data=tmp_path, store=tmp_path / "store")
        assert again.recipe.digest == context.recipe.digest


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"devices": 0}, r"engine\.devices"),
        ({"devices": 17}, r"train\.batch: 16 examples are fewer than the 17"),
        (
            {"devices": 2, "kernel": "lockstep"},
            r"engine\.kernel: kernel 'lockstep' .* trains on one device",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(
    engine: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        go(tmp_path, recipe(engine=engine))
    assert not list((tmp_path / "store").rglob("outcome.json"))


def test_gpus_that_train_together_are_one_device_of_a_run() -> None:
    assert gpu_groups(["0", "1", "2"], 1) == ["0", "1", "2"]
    assert gpu_groups(["4", "5", "6", "7", "8"], 2) == ["4,5", "6,7"]
    assert gpu_groups([], 2) == []
    with pytest.raises(UsageError, match=r"engine\.devices = 4: .* this run has 2"):
        gpu_groups(["0", "1"], 4)
