"""Weights that a parametrization changes in place after a step, on all their ways: outcome, checkpoint, ticket, cycles.

Tried with IteRand of plugins/lotteryfw-strong, loaded as a trusted file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import small
from support.paths import ROOT
from support.trainings import run_training
from torch import Tensor
from torch.nn.functional import cross_entropy

from lotteryfw import load_ticket
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import stream
from lotteryfw.api.tickets import Trained
from lotteryfw.engine import KernelDispatcher, Stopped, StoredOutcome
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.registry import Registry
from lotteryfw.runner import run_study as run
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab
from lotteryfw.search.records import Record
from lotteryfw.store import Store

PLUGIN = ROOT / "plugins" / "lotteryfw-strong" / "src" / "lotteryfw_strong" / "__init__.py"
REGISTRY = Registry.load([PLUGIN])
ITERAND = {"use": "lotteryfw_strong/iterand", "period": 4, "rate": 0.5}
NAMES = ("fc1.weight", "fc2.weight", "fc3.weight")
STEPS = 22
"""Not a whole number of periods: the last redraw lies before the last step."""


@pytest.fixture(autouse=True)
def _with_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(small, "REGISTRY", REGISTRY)


def desk(rewind: Any = "learning_rate", **search: Any) -> CellLab:
    found = {"use": "iterative_edge_popup", "density": 0.3, "cycles": 2} | search
    iterand = REGISTRY.create("parametrization", ITERAND)
    cell = small.cell(STEPS, search=found, rewind=rewind, parametrization=iterand)
    return CellLab(
        cell, small.describe, Path("unused"), "cpu", KernelDispatcher(small.engine_context())
    )


def weights(values: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The bits of the network's own weights."""
    return {name: value.numpy().tobytes() for name, value in values.items() if name in NAMES}


def performed(job: Train, store: Store) -> StoredOutcome:
    small.execute_one(job, store, small.engine_context(), lambda done, of: False)
    return StoredOutcome(store, job.key)


def searched(lab: CellLab, store: Store) -> tuple[list[Record], list[Train]]:
    """What the cell's search records, its jobs done, and those jobs."""
    search, jobs = lab.cell.search.search(lab), []
    asked = next(search)
    while True:
        now = [request.job for request in asked]
        jobs += now
        try:
            asked = search.send([performed(job, store) for job in now])
        except StopIteration:
            return lab.records, jobs


def test_the_outcome_is_that_of_a_plain_loop_of_edge_popup_and_redraws(tmp_path: Path) -> None:
    lab = desk()
    job = lab.job(lab.learn_mask(0.3))
    ours = performed(job, Store(tmp_path)).tensors()

    splits, draw = (
        small.make("data", small.DATA).load(Path()),
        small.make("initialiser", "glorot_normal").weight,
    )
    values = {name: value.clone() for name, value in job.values.items()}
    scores = {name: job.scores[name].clone().requires_grad_() for name in NAMES}
    loop = torch.optim.SGD(scores.values(), lr=0.1, momentum=0.9, fused=True)

    def best(name: str) -> Tensor:
        keep = round(0.3 * scores[name].numel())
        order = scores[name].detach().flatten().sort(descending=True, stable=True).indices
        return (
            torch.zeros(len(order), dtype=torch.bool)
            .index_fill(0, order[:keep], True)
            .view(scores[name].shape)
        )

    for step in range(STEPS):
        epoch, place = divmod(step, 20)
        order = torch.randperm(330, generator=stream(0, "order", epoch))[
            place * 16 : (place + 1) * 16
        ]
        through = splits.train.inputs[order].flatten(1)
        for name in NAMES:
            part = best(name) + scores[name] - scores[name].detach()
            through = through.relu() if name != NAMES[0] else through
            through = through @ (values[name] * part).T + values[name.replace("weight", "bias")]
        loop.zero_grad()
        cross_entropy(through, splits.train.labels[order]).backward()
        loop.step()
        if (step + 1) % 4 == 0:
            rng = stream(0, "after step", step)
            for layer in lab.layers:
                chosen = torch.rand(layer.shape, generator=rng) < 0.5
                fresh = draw(layer, rng)
                values[layer.name][chosen & ~best(layer.name)] = fresh[chosen & ~best(layer.name)]
    assert weights(ours.values) != weights(job.values)
    for name in NAMES:
        assert torch.equal(ours.values[name], values[name])
        torch.testing.assert_close(ours.scores[name], scores[name].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [3, 4, 13])
def test_a_training_stopped_around_a_redraw_goes_on_bit_identically(
    tmp_path: Path, stop: int
) -> None:
    lab = desk()
    job = lab.job(lab.learn_mask(0.3))
    straight = performed(job, Store(tmp_path / "straight"))
    store = Store(tmp_path / "stopped")
    with pytest.raises(Stopped):
        small.execute_one(job, store, small.engine_context(), lambda done, of: done >= stop)
    resumed = performed(job, store)
    for name, value in straight.tensors().encoded().items():
        assert torch.equal(resumed.tensors().encoded()[name], value), name
    assert resumed.metrics == straight.metrics


def test_the_best_weights_so_far_are_those_of_their_step() -> None:
    lab = desk()
    group = TrainingGroup([lab.job(lab.learn_mask(0.3))], small.engine_context())
    at_step: dict[int, dict[str, bytes]] = {}

    def look(now: Training) -> None:
        at_step[now.step] = weights(now.member.state().values)

    training = run_training(group, at_step=look)
    assert at_step[4] != at_step[3]
    assert weights(training.best.values) == at_step[training.best_step]


def test_the_ticket_found_has_the_weights_as_they_ended(tmp_path: Path) -> None:
    records, _ = searched(desk(), Store(tmp_path))
    for record in records:
        ended = record.trained.weights()
        for name, mask in record.ticket.mask.items():
            assert torch.equal(record.ticket.values[name], ended[name] * mask)


def test_the_ticket_found_has_the_buffers_as_they_ended() -> None:
    """Or batch norm would compute with other statistics than those of the accuracy on record."""
    lab = desk()
    ticket = lab.learn_mask(0.3)
    job = lab.job(ticket)
    # The bias stands for a running mean.
    ended = {**job.values, "fc1.bias": torch.full((8,), 0.5)}
    network = NetworkState(ended, scores=job.scores)
    outcome: Any = SimpleNamespace(diverged_at=None, tensors=lambda: network)
    assert torch.equal(
        lab.extract_ticket(ticket, Trained(ticket, outcome)).values["fc1.bias"], ended["fc1.bias"]
    )


def test_a_cycle_goes_on_with_the_weights_of_the_one_before(tmp_path: Path) -> None:
    _, (first, second) = searched(desk(), Store(tmp_path))
    ended = StoredOutcome(Store(tmp_path), first.key).tensors().values
    assert weights(second.values) == weights(ended) != weights(first.values)


def test_going_back_to_a_step_brings_its_weights_back(tmp_path: Path) -> None:
    _, (first, second) = searched(desk(rewind={"use": "to_step", "step": "10it"}), Store(tmp_path))
    training = run_training(TrainingGroup([first], small.engine_context()), until=10)
    assert (
        weights(second.values) == weights(training.member.state().values) != weights(first.values)
    )


def test_going_back_to_the_start_brings_the_first_weights_back(tmp_path: Path) -> None:
    _, (first, second) = searched(desk(rewind="to_init"), Store(tmp_path))
    assert weights(second.values) == weights(first.values)


def test_edges_removed_for_good_keep_their_weights(tmp_path: Path) -> None:
    _, (_, second) = searched(desk(pruning="hard"), Store(tmp_path))
    ended = StoredOutcome(Store(tmp_path), second.key).tensors().values
    for name, allowed in second.mask.items():
        assert int((~allowed).sum()) > 0
        assert torch.equal(ended[name][~allowed], second.values[name][~allowed])
        assert not torch.equal(ended[name], second.values[name])


def test_every_cycle_draws_anew(tmp_path: Path) -> None:
    _, (first, second) = searched(desk(), Store(tmp_path))
    assert first.mask_seed != second.mask_seed
    fresh = replace(second, mask_seed=first.mask_seed)
    ended = [performed(job, Store(tmp_path)).tensors().values for job in (second, fresh)]
    assert weights(ended[0]) != weights(ended[1])


def test_the_runs_folder_has_the_changed_weights(tmp_path: Path) -> None:
    recipe = {
        "name": "redrawn", "seeds": [0], "data": small.DATA, "model": {"use": "mlp", "hidden": [8, 6]},
        "search": {"use": "edge_popup", "density": 0.3}, "parametrization": ITERAND,
        "train": {"length": f"{STEPS}it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}},
    }  # fmt: skip
    done = run(
        recipe, out=tmp_path / "run", store=tmp_path / "store", trust=[PLUGIN], jobs=1, device="cpu"
    )
    (path,), (row,) = done.path.glob("tickets/*/level-01.safetensors"), done.levels
    ticket, ended = (
        load_ticket(path),
        StoredOutcome(Store(tmp_path / "store"), row.key).tensors().values,
    )
    for name, mask in ticket.mask.items():
        assert torch.equal(ticket.values[name], ended[name] * mask)
