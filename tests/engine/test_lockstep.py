"""Lockstep groups: the reference's results, whoever else is in the group, whatever stops or kills it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small import DATA, describe, engine_context, execute_one, kernel, make
from support.trainings import OPTIMIZERS, jobs_of, minus_zero, run_training

from lotteryfw import load_ticket
from lotteryfw.api.errors import UsageError
from lotteryfw.api.steps import Clock
from lotteryfw.engine import KernelDispatcher, Stopped, StoredOutcome, execute, group_key
from lotteryfw.engine.kernels.lockstep import Group
from lotteryfw.engine.train import TrainingGroup
from lotteryfw.runner import Interrupted
from lotteryfw.runner import run_study as run
from lotteryfw.runner.executors import InProcess
from lotteryfw.search.jobs import Job, Train, state_key
from lotteryfw.store import Store

torch.set_num_threads(1)
ELEMENTWISE = [name for name in OPTIMIZERS if name != "rmsprop"]
ODD = {**DATA, "shape": [1, 5, 7]}
NO_TICK = lambda done, of: False  # noqa: E731


def trained(jobs: Sequence[Train], folder: Path) -> list[StoredOutcome]:
    """The outcomes of jobs that were run in one group in a new store."""
    store = Store(folder)
    execute(jobs, store, engine_context(), NO_TICK, lambda key, warning: None)
    return [StoredOutcome(store, job.key) for job in jobs]


def bits(outcome: StoredOutcome) -> Any:
    """Everything that has to be equal to the bit."""
    tensors = {name: value.numpy().tobytes() for name, value in outcome.tensors().encoded().items()}
    return (
        outcome.diverged_at,
        None if outcome.diverged_at is not None else outcome.metrics,
        tensors,
    )


def after(jobs: Sequence[Train]) -> list[dict[str, torch.Tensor]]:
    """The weights of a group's members after all steps."""
    group = Group(jobs, engine_context())
    for step in range(jobs[0].start, jobs[0].start + jobs[0].steps):
        group.update(step, 1.0)
    return [dict(member.state().values) for member in group.members]


def alone_by_reference(job: Train) -> dict[str, torch.Tensor]:
    job = replace(job, kernel=kernel("reference"))
    return dict(run_training(TrainingGroup([job], engine_context())).member.state().values)


def logits(values: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Outputs of the chain with these weights, computed in float64."""
    x = inputs.flatten(1).double()
    for number in range(1, 4):
        x = x @ values[f"fc{number}.weight"].double().t() + values[f"fc{number}.bias"].double()
        x = x.relu() if number < 3 else x
    return x


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_members_agree_with_the_reference_after_100_steps(optimizer: str, shared: bool) -> None:
    jobs = jobs_of(3, 100, shared=shared, optimizer=OPTIMIZERS[optimizer])
    (inputs, _), *_ = engine_context().dataset(jobs[0].data).batches("validation")
    for job, values in zip(jobs, after(jobs), strict=True):
        truth = logits(alone_by_reference(job), inputs)
        assert float((truth - logits(values, inputs)).abs().max()) <= 5e-5 * max(
            1.0, float(truth.abs().max())
        )


@pytest.mark.parametrize(
    "options", [{"weight_decay": 0.5, "no_decay": ["norm"]}, {"no_decay": ["fc1.*"]}]
)
def test_an_optimizer_is_built_over_the_names_and_shapes_of_a_network(
    options: dict[str, Any],
) -> None:
    jobs = jobs_of(2, 50, optimizer={"use": "sgd", "lr": 0.1, **options})
    assert KernelDispatcher(engine_context())(jobs[0], "auto").name == "lockstep"
    for job, values in zip(jobs, after(jobs), strict=True):
        for name, value in alone_by_reference(job).items():
            torch.testing.assert_close(values[name], value, rtol=1e-4, atol=1e-5)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_they_agree_for_any_shape_density_batch_and_optimizer(data: st.DataObject) -> None:
    optimizer = OPTIMIZERS[data.draw(st.sampled_from(ELEMENTWISE))]
    if "adam" in optimizer["use"]:
        optimizer = optimizer | {
            "eps": 1e-2
        }  # else it blows the rounding of a gradient near zero up to a whole step
    jobs = jobs_of(
        data.draw(st.integers(1, 5)), 4, shared=data.draw(st.booleans()), optimizer=optimizer,
        density=data.draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])), frozen=data.draw(st.sampled_from([0.0, 1.0])),
        model={"use": "mlp", "hidden": data.draw(st.lists(st.integers(2, 9), max_size=3)),
               "bias": data.draw(st.booleans())},
        batch=data.draw(st.integers(2, 40)),
    )  # fmt: skip
    for job, values in zip(jobs, after(jobs), strict=True):
        for name, value in alone_by_reference(job).items():
            torch.testing.assert_close(values[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_frozen_weights_stay_bit_constant(optimizer: str) -> None:
    jobs = [
        *jobs_of(2, optimizer=OPTIMIZERS[optimizer]),
        minus_zero(jobs_of(3, optimizer=OPTIMIZERS[optimizer])[2]),
    ]
    for job, values in zip(jobs, after(jobs), strict=True):
        for name, mask in job.mask.items():
            assert (
                values[name][~mask].numpy().tobytes() == job.values[name][~mask].numpy().tobytes()
            )
            assert not torch.equal(values[name][mask], job.values[name][mask])


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": OPTIMIZERS["sgd"]},
        {"optimizer": OPTIMIZERS["momentum"], "model": {"use": "mlp", "hidden": [13, 5]}},
        {
            "optimizer": OPTIMIZERS["adam"],
            "batch": 17,
            "data": {**DATA, "examples": 5005},
        },  # 1001 to validate
        {
            "optimizer": OPTIMIZERS["adamw"],
            "augment": (make("augmentation", "flip"), make("augmentation", "crop")),
        },
        {
            "optimizer": OPTIMIZERS["momentum"],
            "model": {"use": "mlp", "hidden": [33, 21]},
            "batch": 15,
        },
        {"optimizer": OPTIMIZERS["sgd"], "model": {"use": "mlp", "hidden": [37, 19]}, "batch": 21},
        {
            "optimizer": OPTIMIZERS["adam"],
            "model": {"use": "mlp", "hidden": [29, 27]},
            "batch": 19,
            "data": ODD,
        },
    ],
    ids=["sgd", "momentum", "adam", "augmented", "odd", "odd, sgd", "odd inputs"],
)
def test_a_member_has_the_same_bits_in_any_company(changes: dict[str, Any], tmp_path: Path) -> None:
    jobs = jobs_of(7, **changes)
    seven = [bits(outcome) for outcome in trained(jobs, tmp_path / "7")]
    assert len({json.dumps(metrics.curve.validation_loss) for _, metrics, _ in seven}) == 7
    for order in ([0], [6], [2, 0, 5], [5, 4], [6, 5, 4, 3, 2, 1, 0]):
        found = trained([jobs[place] for place in order], tmp_path / "-".join(map(str, order)))
        assert [bits(outcome) for outcome in found] == [seven[place] for place in order]


def test_sharing_batches_changes_no_bit(tmp_path: Path) -> None:
    same = jobs_of(3, shared=True)
    mixed = trained([*same, jobs_of(1)[0]], tmp_path / "mixed")[:3]
    assert list(map(bits, mixed)) == list(map(bits, trained(same, tmp_path / "same")))


def test_one_member_diverges_alone(tmp_path: Path) -> None:
    jobs = jobs_of(4)
    jobs[1] = replace(
        jobs[1], values={name: value * 1e25 for name, value in jobs[1].values.items()}
    )
    found = trained(jobs, tmp_path / "with")
    assert [outcome.diverged_at is not None for outcome in found] == [False, True, False, False]
    without = trained([jobs[0], *jobs[2:]], tmp_path / "without")
    assert [bits(found[place]) for place in (0, 2, 3)] == list(map(bits, without))


def test_stopped_and_gone_on_in_parts_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    jobs = [
        replace(job, snapshots=frozenset({10 + 3 * number}))
        for number, job in enumerate(jobs_of(4, 60))
    ]
    whole = list(map(bits, trained(jobs, tmp_path / "whole")))
    store, said = Store(tmp_path / "parts"), []
    with pytest.raises(Stopped, match="step 23"):
        execute(
            jobs, store, engine_context(), lambda done, of: done == 23, lambda key, warning: None
        )
    with pytest.raises(Stopped):  # two of them get further than the others, and one is done
        execute(
            jobs[:2],
            store,
            engine_context(),
            lambda done, of: done == 41,
            lambda key, warning: None,
        )
    execute_one(jobs[3], store, engine_context(), NO_TICK)
    execute(
        jobs,
        store,
        engine_context(),
        NO_TICK,
        lambda key, warning: said.append(key),
        checkpoint_seconds=0.0,
    )
    assert sorted(said) == sorted(job.key for job in jobs)
    assert [bits(StoredOutcome(store, job.key)) for job in jobs] == whole
    for number, job in enumerate(jobs):
        at, other = (
            Store(tmp_path / name).path(state_key(job.key, 10 + 3 * number))
            for name in ("whole", "parts")
        )
        assert at is not None
        assert other is not None
        for file in ("values", "optimizer"):
            assert (at / f"{file}.safetensors").read_bytes() == (
                other / f"{file}.safetensors"
            ).read_bytes()
    assert not any((tmp_path / "parts" / "scratch").iterdir())


def test_a_state_kept_on_the_way_is_the_references(tmp_path: Path) -> None:
    """And a group that starts from kept optimizer states goes on as if nothing had been between."""
    jobs = [
        replace(job, snapshots=frozenset({15})) for job in jobs_of(3, optimizer=OPTIMIZERS["adam"])
    ]
    whole = trained(jobs, tmp_path / "whole")
    rest = []
    for job, outcome in zip(jobs, whole, strict=True):
        network, state = outcome.state(15)
        values = network.values
        rest.append(
            replace(
                job, start=15, steps=25, values=values, optimizer_state=state, snapshots=frozenset()
            )
        )
    assert group_key(rest[0]) == group_key(rest[1]) != group_key(jobs[0])
    for outcome, other in zip(whole, trained(rest, tmp_path / "rest"), strict=True):
        assert bits(outcome)[2] == bits(other)[2]


def test_what_is_stored_is_not_trained_again_and_locks_are_taken_in_one_order(
    tmp_path: Path,
) -> None:
    jobs, taken = jobs_of(4), []

    class Watched(Store):
        def lock(self, key: str, timeout: float = -1) -> AbstractContextManager[None]:
            taken.append(key)
            return super().lock(key, timeout)

    store = Watched(tmp_path)
    execute_one(jobs[2], store, engine_context(), NO_TICK)
    before = store.path(jobs[2].key).stat().st_mtime_ns  # type: ignore[union-attr]
    taken.clear()
    said: list[str] = []
    execute(jobs, store, engine_context(), NO_TICK, lambda key, warning: said.append(key))
    assert taken == sorted(job.key for job in jobs)
    assert said[0] == jobs[2].key
    assert sorted(said) == taken
    assert store.path(jobs[2].key).stat().st_mtime_ns == before  # type: ignore[union-attr]


def test_who_may_go_together() -> None:
    one, other = jobs_of(2)
    assert group_key(one) == group_key(other) is not None
    apart: list[Job] = [
        replace(one, steps=39), replace(one, batch=15), replace(one, start=1, steps=39), replace(one, total=41),
        replace(one, device="cuda"), replace(one, evaluate_every=6), replace(one, optimizer_state={}),
        *jobs_of(1, optimizer=OPTIMIZERS["adam"]), *jobs_of(1, model={"use": "mlp", "hidden": [8, 7]}),
    ]  # fmt: skip
    assert group_key(one) not in [group_key(job) for job in apart]
    assert group_key(replace(one, kernel=kernel("fused"))) is None
    counts = [{"0.step": torch.tensor(float(step)), "0.exp_avg": torch.zeros(2)} for step in (3, 4)]
    early, late = (replace(one, optimizer_state=state) for state in counts)
    assert group_key(early) != group_key(late), "Adam's count of steps is the group's"


def test_it_is_chosen_for_small_chains_and_refuses_what_it_cannot_do() -> None:
    choose, (job,) = KernelDispatcher(engine_context()), jobs_of(1)
    assert choose(job, "auto") == kernel("lockstep")
    assert choose(jobs_of(1, 2, model={"use": "mlp", "hidden": [2000, 100]})[0], "auto") == kernel(
        "fused"
    )
    for unfit, why in (
        (replace(job, batch=1), "no batches of one example"),
        (jobs_of(1, model={"use": "mlp", "hidden": [8, 1]})[0], "'fc2' has a side of one unit"),
        (jobs_of(1, optimizer=OPTIMIZERS["rmsprop"])[0], "no RMSprop"),
    ):
        assert choose(unfit, "auto") == kernel("fused")
        with pytest.raises(UsageError, match=rf"kernel 'lockstep' cannot train this: .*{why}"):
            choose(unfit, "lockstep")


# Whole studies


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small", "data": DATA, "model": {"use": "mlp", "hidden": [8, 6]}, "seeds": [0, 1, 2, 3, 4, 5],
        "search": {"use": "imp", "levels": 2}, "engine": {"kernel": "lockstep"}, "evaluate": {"points": 4},
        "train": {"length": "40it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}},
    } | changes  # fmt: skip


def files(path: Path) -> dict[str, bytes]:
    """What has to be bit-identical: levels.csv and the tickets."""
    found = [path / "levels.csv", *sorted((path / "tickets").rglob("*.safetensors"))]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in found}


def go(folder: Path, name: str, table: dict[str, Any], store: str = "", **given: Any) -> Path:
    given = {"jobs": 1, "device": "cpu", "data": folder, **given}
    return run(table, out=folder / name, store=folder / (store or f"store-{name}"), **given).path


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Job]]]:
    """The groups in the order of their submission, to an executor that says it has two places."""
    groups: list[list[Job]] = []

    class Watched(InProcess):
        capacity = 2

        def submit(self, jobs: Sequence[Job]) -> None:
            groups.append(list(jobs))
            super().submit(jobs)

    monkeypatch.setattr("lotteryfw.runner.study.InProcess", Watched)
    return groups


def test_waiting_jobs_are_spread_over_the_places(
    tmp_path: Path, handed_out: list[list[Job]]
) -> None:
    go(tmp_path, "run", recipe())
    assert [len(group) for group in handed_out] == [3] * 6  # three levels
    assert all(len({group_key(job) for job in group}) == 1 for group in handed_out)


def test_a_group_has_a_size_at_most(tmp_path: Path, handed_out: list[list[Job]]) -> None:
    go(tmp_path, "run", recipe(seeds=list(range(40)), search={"use": "imp", "levels": 1}))
    assert sorted(len(group) for group in handed_out)[-3:] == [16, 16, 16]


def test_searches_then_long_trainings_then_the_others(
    tmp_path: Path, handed_out: list[list[Job]]
) -> None:
    studies = [
        {"name": name, "train": {"length": length}}
        for name, length in (("short", "20it"), ("long", "60it"))
    ]
    table = recipe(engine={"kernel": "fused"}, seeds=[0, 1], controls=["reinit"], study=studies,
                   search={"use": "imp", "levels": 1})  # fmt: skip
    go(tmp_path, "run", table)
    assert [job.steps for group in handed_out for job in group] == [60] * 4 + [20] * 4 + [
        60
    ] * 2 + [20] * 2  # type: ignore[union-attr]


def test_processes_and_company_change_no_bit_of_a_study(tmp_path: Path) -> None:
    table = recipe(controls=["reinit"])
    one = go(tmp_path, "one", table)
    assert files(go(tmp_path, "two", table, jobs=2)) == files(one)
    alone = {path.name: go(tmp_path, f"seed-{path.name[-1]}", table | {"seeds": [int(path.name[-1])]})
             for path in sorted((one / "tickets").iterdir())[:2]}  # fmt: skip
    for name, folder in alone.items():
        for ticket in (folder / "tickets" / name).iterdir():
            assert ticket.read_bytes() == (one / "tickets" / name / ticket.name).read_bytes()


def test_a_study_stopped_within_a_group_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, stops = go(tmp_path, "whole", recipe()), []

    class Watch:
        def event(self, event: Any) -> None: ...
        def warning(self, message: str) -> None: ...
        def progress(self, progress: Any) -> None:
            if progress.step == 17:
                stops[0]()

    with pytest.raises(Interrupted):
        go(tmp_path, "stopped", recipe(), listener=Watch(), on_start=stops.append)
    assert len(list((tmp_path / "store-stopped" / "scratch").rglob("state.json"))) == 6
    assert files(go(tmp_path, "stopped", recipe())) == files(whole)


@pytest.mark.large
def test_a_worker_killed_within_a_group_loses_nothing(tmp_path: Path) -> None:
    table = recipe(
        train={**recipe()["train"], "length": "600it"}, search={"use": "imp", "levels": 1}
    )
    whole, killed = go(tmp_path, "whole", table), []

    class Watch:
        def event(self, event: Any) -> None: ...
        def warning(self, message: str) -> None: ...
        def progress(self, progress: Any) -> None:
            if not killed and progress.step:
                found = subprocess.run(["pgrep", "-f", "lotteryfw.engine.worker", "-P", str(os.getpid())],
                                       capture_output=True, text=True).stdout.split()  # fmt: skip
                killed.append(int(found[0]))
                os.kill(killed[0], signal.SIGKILL)

    hit = go(tmp_path, "hit", table, jobs=2, listener=Watch(), checkpoint_seconds=0.1)
    assert killed
    assert files(hit) == files(whole)


KILLED = """
import json, sys
from pathlib import Path
from lotteryfw.runner import run_study as run
run(json.loads(sys.argv[1]), out=sys.argv[2], store=Path(sys.argv[3]), jobs=1, device="cpu", data=Path(sys.argv[2]),
    checkpoint_seconds=0.05)
"""


def test_kill_9_within_a_group_then_the_same_command_gives_the_same_bits(tmp_path: Path) -> None:
    table = recipe(
        train={**recipe()["train"], "length": "1500it"}, search={"use": "imp", "levels": 1}
    )
    whole = go(tmp_path, "whole", table)
    command = [
        sys.executable,
        "-c",
        KILLED,
        json.dumps(table),
        str(tmp_path / "killed"),
        str(tmp_path / "k"),
    ]
    process = subprocess.Popen(command, start_new_session=True)
    while (
        not list((tmp_path / "k").glob("scratch/*/checkpoint-*/state.json"))
        and process.poll() is None
    ):
        pass
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (
        "the run was over before it could be killed: make it longer"
    )
    assert files(go(tmp_path, "killed", table, store="k")) == files(whole)


def test_on_digits_it_keeps_what_the_reference_keeps(tmp_path: Path) -> None:
    """A short chain of cuts, through the command line."""
    text = """
name = "chain"
seeds = [0, 1]
data = "digits"
model = { use = "mlp", hidden = [32, 16] }
search = { use = "imp", levels = 3 }
engine = { kernel = "lockstep" }
[train]
length = "60it"
batch = 60
optimizer = { use = "sgd", lr = 0.1, momentum = 0.9 }
"""
    (tmp_path / "chain.toml").write_text(text)
    command = ["recipe", "chain.toml", "--jobs", "1", "--device", "cpu", "--out", "lockstep"]
    done = subprocess.run([sys.executable, "-c", "from lotteryfw.cli import main; main()", *command], cwd=tmp_path,
                          env={**os.environ, "LOTTERYFW_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    truth = go(tmp_path, "reference", tomllib.loads(text) | {"engine": {"kernel": "reference"}})
    tickets = sorted((truth / "tickets").rglob("*.safetensors"))
    assert len(tickets) == 8
    for path in tickets:
        one, other = load_ticket(path), load_ticket(tmp_path / "lockstep" / path.relative_to(truth))
        for name, mask in one.mask.items():
            assert torch.equal(mask, other.mask[name])
    kernels = [
        json.loads(file.read_text())["job"]["kernel"]["name"]
        for file in (tmp_path / "store").rglob("outcome.json")
    ]
    assert set(kernels) == {"lockstep"}


def test_augmentations_are_part_of_the_shape_of_a_group() -> None:
    flip = (describe(make("augmentation", "flip"), Clock(1, 1)),)
    (job,) = jobs_of(1)
    assert group_key(replace(job, augment=flip)) != group_key(job)
