"""Finished requests are answered by their origin: it must decide the key, and nothing is built for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from support import small
from support.runs import files, go, recipe
from support.small import DATA, cell, make

from lotteryfw import MaskCriterion, MaskSearch, Need, SearchAlgorithm
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import seed_of
from lotteryfw.api.tickets import Trained
from lotteryfw.engine import KernelDispatcher, engine_version
from lotteryfw.engine.kernels import dispatch
from lotteryfw.runner import recorder
from lotteryfw.runner.scheduler import Scheduler
from lotteryfw.search import context
from lotteryfw.search.initial_state import _seeded
from lotteryfw.search.jobs import Spec
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest
from lotteryfw.store import Store
from lotteryfw.testkit.fake_lab import FakeOutcome

CONTROLS = ("untrained", "reinit", "random_mask", "random_mask_reinit")


class Steepest(MaskCriterion):
    """Keeps the weights of steepest loss."""

    use = "steepest"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer: Any) -> Any:
        return layer.gradient.abs()


class Unusual(SearchAlgorithm):
    """Prunes one ticket after two trainings of it, and records tickets with trainings of others."""

    use = "unusual"

    def search(self, lab: CellLab) -> Any:
        dense = lab.dense()
        probe = yield from lab.train(lab.as_is(dense))
        whole = yield from lab.train(dense)
        for before, other in ((probe, whole), (whole, probe)):
            ticket = lab.prune(dense, before)
            lab.record(1, ticket, (yield from lab.train(ticket)))
            lab.record(2, ticket, other)
            lab.record(3, lab.prune_randomly(dense, other), before)


class Learner(MaskSearch):
    """Learns a mask, trains the ticket that it makes, and has that one compared with controls."""

    use = "learner"

    def search(self, lab: CellLab) -> Any:
        ticket = lab.learn_mask(0.3)
        learned = yield from lab.train(ticket)
        found = lab.extract_ticket(ticket, learned)
        trained = yield from lab.train(found)
        lab.record(1, found, trained)
        lab.record(2, found, learned)
        again = lab.continue_mask(ticket, learned, 0.2, hard=True)
        lab.record(3, lab.extract_ticket(again, (yield from lab.train(again))), learned)


OWN = (Steepest, Unusual, Learner)
GRADIENT = """
from lotteryfw import MaskCriterion, Need, hookimpl


class Steepest(MaskCriterion):
    \"\"\"Keeps the weights of steepest loss.\"\"\"

    use = "steepest"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer):
        return layer.gradient.abs()


@hookimpl
def register_components():
    return [Steepest]
"""

# Origins decide keys

PRUNING: dict[str, list[Any]] = {
    "search": [
        {"use": "imp", "levels": 2}, {"use": "one_shot", "levels": 2}, {"use": "random_pruning", "levels": 2},
    ],
    "rewind": [
        "to_init", {"use": "to_step", "step": 5}, {"use": "to_step", "step": 5, "optimizer": "saved"},
        {"use": "fine_tune", "length": 7}, "learning_rate",
    ],
}  # fmt: skip
LEARNING: dict[str, list[Any]] = {
    "search": [
        {"use": "edge_popup", "density": 0.3}, {"use": "iterative_edge_popup", "density": 0.3, "cycles": 2},
        {"use": "iterative_edge_popup", "density": 0.3, "cycles": 2, "pruning": "hard"},
        {"use": "iterative_edge_popup", "density": 0.2, "cycles": 2},
    ],
    "rewind": ["to_init", {"use": "to_step", "step": 5}, "learning_rate"],
}  # fmt: skip
OTHERS: list[dict[str, Any]] = [
    {"criterion": "movement"}, {"criterion": "random"}, {"scope": "global"},
    {"scope": {"use": "layerwise", "rate": 0.3}}, {"mask1": "reinit"}, {"mask1": "constant"}, {"mask0": "init"},
    {"model": {"use": "mlp", "hidden": [9, 6]}}, {"initialiser": "kaiming_normal"}, {"data": {**DATA, "noise": 0.6}},
    {"optimizer": "adam"}, {"schedule": "cosine"}, {"batch": 17}, {"seed": 1}, {"evaluate_every": 10},
    {"steps": 30}, {"kernel": "reference"}, {"kernel": "sparse"}, {"sparse_below": 0.9},
    {"sparse_below": 0.01}, {"augment": "noise"},
]  # fmt: skip


def grid(axes: dict[str, list[Any]], **fixed: Any) -> Iterator[dict[str, Any]]:
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True)) | fixed


def variants(which: str) -> list[dict[str, Any]]:
    """Cells that differ in one ingredient or in a few."""
    if which == "pruning":
        unusual = PRUNING | {"search": [Unusual()], "rewind": ["to_init", "learning_rate"]}
        return [*grid(PRUNING), *OTHERS, *grid(PRUNING, criterion=Steepest()), *grid(unusual)]
    own = LEARNING | {"search": [Learner()], "rewind": ["to_init", "learning_rate"]}
    plain = {"search": LEARNING["search"][1], "rewind": "to_init"}
    parts = [
        {"scores": "kaiming_uniform"},
        {"mask_optimizer": "adam"},
        {"parametrization": {"use": "top_k", "rank": "signed"}},
    ]
    changed = [change for change in OTHERS if not change.keys() & {"criterion", "kernel"}]
    return [*grid(LEARNING), *grid(own), *(plain | change for change in [*parts, *changed])]


def made(which: str, changes: dict[str, Any]) -> Any:
    given = dict(changes)
    kinds = {"scores": "initialiser", "mask_optimizer": "optimizer"}
    for slot, kind in kinds.items():
        if slot in given:
            given[slot] = make(kind, given[slot])
    if given.pop("augment", None):
        given["augment"] = (make("augmentation", "flip"),)
    if which == "learning":
        given["parametrization"] = make("parametrization", given.get("parametrization", "top_k"))
    return cell(**given)


def requests(lab: CellLab) -> Iterator[JobRequest]:
    """Every job that a cell asks for, its controls included; outcomes are made up."""
    search = lab.cell.search.search(lab)
    asked = next(search)
    try:
        while True:
            yield from asked
            asked = search.send([FakeOutcome(request.job) for request in asked])
    except StopIteration:
        pass
    for record in lab.records:
        if record.variant == "ticket":
            yield from (
                lab.request(lab.control(make("control", name), record)) for name in CONTROLS
            )


@pytest.fixture
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry knows the criterion of this file."""
    plain = small.describe

    def describe(component: Any, clock: Any) -> Any:
        if isinstance(component, OWN):
            return Spec(component.kind, f"here/{component.use}", "here==1", {})
        return plain(component, clock)

    monkeypatch.setattr(small, "describe", describe)


@pytest.mark.usefixtures("_known")
@pytest.mark.parametrize("which", ["pruning", "learning"])
def test_equal_origins_are_equal_keys_whatever_a_cell_is_made_of(which: str) -> None:
    keys: dict[str, str] = {}
    kinds, chooser = set(), KernelDispatcher(small.engine_context())
    for changes in variants(which):
        of = made(which, changes)
        for request in requests(
            CellLab(
                of, small.describe, Path("unused"), "cpu", chooser, engine=engine_version("here")
            )
        ):
            assert request.decides
            kinds.add(request.kind)
            assert keys.setdefault(request.origin, request.key) == request.key, changes
    assert len(keys) > 100
    assert kinds == ({"training", "probe"} if which == "pruning" else {"training"})


def test_the_engines_state_is_part_of_an_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    def origin() -> str:
        lab = CellLab(cell(), small.describe, Path("unused"), "cpu", engine=engine_version("here"))
        return lab.request(lab.dense()).origin

    before = origin()
    assert origin() == before
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "version", lambda name: "0.1")
        older = origin()
        patch.setattr(dispatch, "find_spec", lambda name: None if name == "numba" else name)
        assert len({before, older, origin()}) == 3
    assert engine_version("here") != engine_version("there")


def test_where_bits_may_differ_the_second_time_origins_do_not_answer() -> None:
    labs = [
        CellLab(cell(), small.describe, Path("unused"), device, engine=engine)
        for device, engine in (("cuda", "e"), ("cpu", ""), ("cpu", "e"))
    ]
    assert [lab.request(lab.dense()).decides for lab in labs] == [False, False, True]


# Studies

STUDIES: dict[str, dict[str, Any]] = {
    "pruned": recipe(controls=list(CONTROLS), rewind={"use": "to_step", "step": "10it"}),
    "random": recipe(search={"use": "random_pruning", "levels": 2}),
    "learned": recipe(
        search={"use": "iterative_edge_popup", "density": 0.4, "cycles": 2}, parametrization="top_k",
        controls=["random_mask"], rewind={"use": "to_step", "step": "10it"},
    ),
    "gradient": recipe(criterion="steepest"),
}  # fmt: skip


@pytest.fixture(scope="module", params=STUDIES)
def finished(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "steepest.py").write_text(GRADIENT)
    done, watch = again(folder, request.param)
    assert watch.trained
    assert set(done.statuses.values()) == {"done"}
    return folder, request.param


def again(folder: Path, name: str, out: str = "run") -> Any:
    return go(folder, STUDIES[name], out, trust=[folder / "steepest.py"])


def test_the_known_key_is_that_of_the_job_when_it_is_built(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    def ask(scheduler: Scheduler, request: JobRequest, waiter: Any) -> bool:
        nonlocal compared
        known = scheduler._store.alias(request.origin)
        assert request.decides
        assert known is not None
        if not request._known_key:  # the first time that it is asked for
            assert known == request.job.key
            compared += 1
        return plain(scheduler, request, waiter)

    plain = Scheduler.ask
    monkeypatch.setattr(Scheduler, "ask", ask)
    done, watch = again(*finished, "anew")
    assert not watch.trained
    assert compared >= 3
    assert set(done.statuses.values()) == {"done"}


def test_a_rerun_builds_no_network_and_hashes_no_tensor(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(finished[0] / "run")

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a finished study needs no tensors")

    monkeypatch.setattr(context, "cached_initial_state", refuse)
    monkeypatch.setattr(recorder, "save_ticket", refuse)
    monkeypatch.setattr("lotteryfw.search.requests.JobFactory.build_training", refuse)
    monkeypatch.setattr("lotteryfw.search.requests.JobFactory.build_probe", refuse)
    monkeypatch.setattr("lotteryfw.store.tensors.load", refuse)
    monkeypatch.setattr("lotteryfw.runner.context.StudyContext.validate_models", lambda *_: None)
    monkeypatch.setattr("lotteryfw.engine.runtime.EngineContext.dataset", lambda *_: None)
    done, watch = again(*finished)
    assert not watch.warnings
    assert set(done.statuses.values()) == {"done"}
    assert files(finished[0] / "run") == before


@pytest.mark.parametrize("lost", ["level-01.safetensors", "level-02.safetensors"])
def test_one_ticket_that_is_gone_is_made_again_alone(
    finished: tuple[Path, str], tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "store", "steepest.py"):
        copy = shutil.copytree if (finished[0] / name).is_dir() else shutil.copy
        copy(finished[0] / name, tmp_path / name)
    before = files(tmp_path / "run")
    (ticket,) = (tmp_path / "run" / "tickets").rglob(lost)
    ticket.unlink()
    saved = []
    plain = recorder.save_ticket
    monkeypatch.setattr(
        recorder, "save_ticket", lambda path, *rest: (saved.append(path.name), plain(path, *rest))
    )
    _, watch = again(tmp_path, finished[1])
    assert not watch.trained
    assert saved == [lost]
    assert files(tmp_path / "run") == before


def test_weights_that_turn_out_damaged_are_trained_again_in_the_same_run(tmp_path: Path) -> None:
    one, first = go(tmp_path, recipe())
    before = files(one.path)
    dense = next(row.key for row in one.levels if row.level == 0)
    later = [row.key for row in one.levels if row.level > 0]
    store = Store(tmp_path / "store")
    weights = tmp_path / "store" / "objects" / dense[:2] / dense / "tensors.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    for key in later:
        store.remove(key)
    two, second = go(tmp_path, recipe())
    assert sorted(second.trained) == sorted(first.trained)
    assert [line for line in second.warnings if dense in line]
    assert files(two.path) == before


def test_a_chain_of_hundreds_of_rounds_is_made_when_its_last_ticket_is_looked_at() -> None:
    # a rate so small that every one of the rounds still removes a weight
    gentle = cell(
        scope={"use": "layerwise", "rate": 0.002}, model={"use": "mlp", "hidden": [64, 64]}
    )
    lab = CellLab(gentle, small.describe, Path("unused"), "cpu")
    ticket = lab.dense()

    class Later:
        """The outcome of a training, made up when it is looked at."""

        key, diverged_at = "", None

        def __init__(self, ticket: Any):
            self.ticket = ticket

        def tensors(self) -> Any:
            values = {name: value * 0.999 for name, value in self.ticket.values.items()}
            return NetworkState(values)

    for _ in range(600):
        ticket = lab.prune(ticket, Trained(ticket, Later(ticket)))
    assert ticket.level == 600
    assert sum(ticket.cut.kept.values()) < sum(ticket.cut.sizes.values())
    assert ticket.source._parent is None


def test_the_cpus_stream_is_the_one_that_manual_seed_gives_and_is_put_back() -> None:
    before = torch.get_rng_state()
    with _seeded(1, "a"):
        drawn = torch.randn(5)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(1, "a"))
        assert torch.equal(drawn, torch.randn(5))
