"""The search `during_training`, from recipe to results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.mask_updates import FILE
from support.runs import DATA, Watch, files

from lotteryfw import Run, load_ticket
from lotteryfw.api.errors import RecipeError
from lotteryfw.engine import StoredOutcome
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry
from lotteryfw.runner import Interrupted, StudyContext
from lotteryfw.runner import run_study as run
from lotteryfw.store import Store

SEARCH = {"use": "during_training", "density": 0.4}
TRAIN = {
    "length": "40it",
    "batch": 16,
    "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9},
    "mask_update": "swap",
}


def recipe(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": "moved",
        "data": DATA,
        "model": {"use": "mlp", "hidden": [8, 6]},
        "search": SEARCH,
        "train": TRAIN,
        "evaluate": {"points": 4},
    }
    return plain | changes


def go(folder: Path, name: str, table: dict[str, Any], store: str = "", **options: Any) -> Run:
    return run(
        table, out=folder / name, store=folder / (store or f"store-{name}"), data=folder,
        device="cpu", **{"jobs": 1, "trust": [FILE], **options},
    )  # fmt: skip


FILES = {
    "ticket": "level-01.safetensors",
    "retrained": "level-01-retrained.safetensors",
    "random_mask": "level-01-random_mask.safetensors",
}


def faults(table: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as error:
        load_recipe(table, Registry.load([FILE]), data_folder=Path("unused"))
    return [str(fault) for fault in error.value.faults]


def test_it_records_what_the_training_ended_with_and_the_ticket_of_its_mask(tmp_path: Path) -> None:
    table = recipe(search={**SEARCH, "retrain": True}, controls=["random_mask"])
    done = go(tmp_path, "run", table)
    rows = {(row.variant, row.level): row for row in done.levels}
    assert set(rows) == {("ticket", 0), ("ticket", 1), ("retrained", 1), ("random_mask", 1)}
    assert rows["ticket", 0].density == 1
    densities = {rows[key].layer_densities for key in rows if key[1] == 1}
    assert len(densities) == 1
    assert rows["ticket", 1].density == pytest.approx(0.4, abs=0.02)
    keys = {row.key for row in rows.values()}
    assert len(keys) == 4

    tickets = {}
    for name in ("ticket", "retrained", "random_mask"):
        (path,) = done.path.glob(f"tickets/**/{FILES[name]}")
        tickets[name] = load_ticket(path)
    (path,) = done.path.glob("tickets/**/level-00.safetensors")
    dense = load_ticket(path)
    found, retrained = tickets["ticket"], tickets["retrained"]
    for name, mask in found.mask.items():
        assert torch.equal(mask, retrained.mask[name])
        assert not torch.equal(mask, tickets["random_mask"].mask[name])
        for ticket in (found, retrained, tickets["random_mask"]):
            expected = dense.values[name].where(ticket.mask[name], 0.0)
            assert torch.equal(ticket.values[name], expected)
    verified = Store(tmp_path / "store-run").verify()
    assert verified.damaged == ()
    assert not verified.problems


def test_the_curves_have_density_and_churn_of_every_layer_at_every_change(tmp_path: Path) -> None:
    done = go(tmp_path, "run", recipe())
    lines = [json.loads(line) for line in (done.path / "curves.jsonl").read_text().splitlines()]
    (curve,) = [line for line in lines if line["level"] == 1]
    (dense,) = [line for line in lines if line["level"] == 0]
    assert curve["step"] == sorted({*range(0, 40, 4), *range(0, 41, 10)})
    assert dense["step"] == list(range(0, 41, 10))
    assert "units" not in dense
    layers = ("fc1.weight", "fc2.weight", "fc3.weight")
    by_layer = {f"{figure}/{layer}" for figure in ("density", "churn") for layer in layers}
    assert set(curve["units"]) == {"density", "churn"} | by_layer
    changed = [value > 0 for value in curve["churn"]]
    assert changed == [step % 4 == 0 and 0 < step < 40 for step in curve["step"]]
    page = done.path / "report.html"
    if page.exists():
        assert "churn/fc1.weight" in page.read_text()


@pytest.mark.parametrize("rewind", ["to_init", "learning_rate"])
def test_weights_are_not_compared_with_values_that_the_training_never_had(
    rewind: str, tmp_path: Path
) -> None:
    """Level 1 reports the training that found its mask, and the ticket's values are others."""
    search = SEARCH | {"retrain": True}
    table = recipe(search=search, rewind=rewind, analyses=["mask_diagnostics"])
    done = go(tmp_path, "run", table)
    figures: dict[int, set[str]] = {0: set(), 1: set()}
    for finding in done.findings:
        figures[finding.level].add(finding.figure)
    assert figures[0] == {"density", "sign_agreement", "toward_zero", "away_from_zero"}
    assert figures[1] == {"density"}


def test_the_mask_may_go_back_to_a_step_of_its_own_training(tmp_path: Path) -> None:
    table = recipe(
        search={**SEARCH, "retrain": True, "dense": False},
        rewind={"use": "to_step", "step": "10it", "optimizer": "saved"},
    )
    done = go(tmp_path, "run", table)
    rows = {row.variant: row for row in done.levels}
    assert rows["ticket"].steps == 40
    assert rows["retrained"].steps == 30


def test_cells_of_a_grid_share_the_dense_training(tmp_path: Path) -> None:
    watch = Watch()
    table = recipe(grid={"train.mask_update": ["swap", {"use": "swap", "every": 10}]})
    done = go(tmp_path, "run", table, listener=watch)
    assert len(watch.trained) == 3
    assert len({row.key for row in done.levels}) == 3
    again = Watch()
    go(tmp_path, "again", table, store="store-run", listener=again)
    assert not again.trained


def test_it_is_planned_without_torch(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from lotteryfw.runner import StudyContext\n"
        "table, folder, file = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])\n"
        "plan = StudyContext(table, store=folder, data=folder, trust=[file]).plan()\n"
        "assert 'torch' not in sys.modules\n"
        "print(plan.asked, plan.unique, plan.steps, len(plan.unknown), len(plan.broken))\n"
    )
    table = recipe(search={**SEARCH, "retrain": True}, controls=["random_mask"])
    words = [sys.executable, "-c", program, json.dumps(table), str(tmp_path), str(FILE)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.split() == ["4", "4", "160", "0", "0"], done.stderr


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    table = recipe(search={**SEARCH, "retrain": True, "dense": False})
    whole, stops = go(tmp_path, "whole", table), []

    class Stopping(Watch):
        def progress(self, progress: Any) -> None:
            if progress.step == 17:
                stops[0]()

    with pytest.raises(Interrupted):
        go(tmp_path, "stopped", table, listener=Stopping(), on_start=stops.append)
    assert list((tmp_path / "store-stopped" / "scratch").rglob("state.json"))
    assert files(go(tmp_path, "stopped", table).path) == files(whole.path)


KILLED = """
import json, sys
from pathlib import Path
from lotteryfw.runner import run_study as run
run(json.loads(sys.argv[1]), out=sys.argv[2], store=Path(sys.argv[3]), jobs=1, device="cpu", data=Path(sys.argv[2]),
    trust=[Path(sys.argv[4])], checkpoint_seconds=0.05)
"""


def test_kill_9_in_a_training_then_the_same_command_gives_the_same_bits(tmp_path: Path) -> None:
    table = recipe(
        train={**TRAIN, "length": "600it", "mask_update": {"use": "swap", "every": 3}},
        search={**SEARCH, "dense": False},
    )
    whole = go(tmp_path, "whole", table)
    store = tmp_path / "k"
    words = [json.dumps(table), str(tmp_path / "killed"), str(store), str(FILE)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *words], start_new_session=True)
    while not list(store.glob("scratch/*/checkpoint-*/state.json")) and process.poll() is None:
        pass
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    assert files(go(tmp_path, "killed", table, store="k").path) == files(whole.path)


def test_what_does_not_fit_together_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    without = {key: value for key, value in TRAIN.items() if key != "mask_update"}
    (fault,) = faults(recipe(train=without))
    assert "train.mask_update: is required: the search 'during_training' changes its mask" in fault
    assert 'such as train.mask_update = "' in fault
    assert "swap" in fault
    (fault,) = faults(recipe(search="imp"))
    assert "train.mask_update: has no effect: the search 'imp' does not use it" in fault
    (fault,) = faults(recipe(train={**TRAIN, "mask_update": {"use": "swap", "every": 50}}))
    assert (
        "train.mask_update: the mask_update 'swap' never changes a mask in a training of 40"
        in fault
    )
    (fault,) = faults(recipe(train={**TRAIN, "mask_update": "swop"}))
    assert "train.mask_update" in fault
    assert "did you mean 'swap'" in fault
    (fault,) = faults(recipe(search={**SEARCH, "density": 0}))
    assert "search.density" in fault
    with pytest.raises(RecipeError, match=r"search: .*a density of 1e-09 leaves no weights of"):
        go(tmp_path, "none", recipe(search={**SEARCH, "density": 1e-9}))
    assert not (tmp_path / "store-none" / "objects").exists()


def test_without_a_plugin_that_has_one_the_remedy_says_so() -> None:
    without = {key: value for key, value in TRAIN.items() if key != "mask_update"}
    offers = Registry.load().offers("mask_update")
    if offers:
        pytest.skip("a plugin with mask updates is installed")
    with pytest.raises(RecipeError, match="no plugin that is installed has a mask_update"):
        load_recipe(recipe(train=without), Registry.load(), data_folder=Path("unused"))


def test_claims_are_held_against_the_density_that_the_budgets_end_with(tmp_path: Path) -> None:
    claim = {
        "text": "t", "source": "s", "higher": {}, "lower": {"variant": "retrained"}, "density": 0.4,
    }  # fmt: skip
    table = recipe(search={**SEARCH, "retrain": True}, claim=[claim])
    go(tmp_path, "right", table)
    with pytest.raises(RecipeError, match=r"no level of density 0\.2"):
        go(tmp_path, "wrong", {**table, "claim": [{**claim, "density": 0.2}]})


def test_a_faulty_update_ends_its_cell_by_name(tmp_path: Path) -> None:
    train = {**TRAIN, "mask_update": "broken_update"}
    done = go(tmp_path, "run", recipe(train=train))
    assert set(done.statuses.values()) == {"failed"}
    (report,) = (done.path / "errors").glob("*")
    assert "broken_update" in report.read_text()
    assert "keeps 64 weights in" in report.read_text()


def test_a_resolved_recipe_loads_to_the_same_cells() -> None:
    registry = Registry.load([FILE])
    first = load_recipe(recipe(), registry, data_folder=Path("unused"))
    second = load_recipe(first.resolved(), registry, data_folder=Path("unused"))
    assert [cell.mask_update for cell in first.cells] == [cell.mask_update for cell in second.cells]
    assert first.cells[0].mask_update is not None
    assert StudyContext(recipe(), trust=[FILE]).recipe.digest == first.digest


# Controls, under every rewind policy

HALVING = """
from lotteryfw import Group, MaskUpdate, hookimpl

class Halving(MaskUpdate):
    "Keeps the larger half of each layer after step 12, and once more the half of that after 24."
    use = "halving"
    def due(self, step, clock):
        return step in (12, 24)
    def budgets(self, step, clock, layers, kept):
        return [Group((name,), count // 2, count / 2) for name, count in kept.items()]
    def update(self, step, clock, net):
        masks = {}
        for name, mask in net.masks.items():
            size = net.weights[name].abs().masked_fill(~mask, -1).flatten()
            new = mask.new_zeros(mask.numel())
            new[size.argsort(descending=True)[: int(mask.sum()) // 2]] = True
            masks[name] = new.reshape(mask.shape)
        return masks

@hookimpl
def register_components():
    return [Halving]
"""


def end_weights(run: Run, folder: Path, variant: str = "ticket", level: int = 0) -> dict[str, Any]:
    """Return the weights that a training of a run ended with."""
    (row,) = (row for row in run.levels if (row.variant, row.level) == (variant, level))
    return dict(StoredOutcome(Store(folder), row.key).tensors().values)


@pytest.mark.parametrize(
    ("rewind", "steps"),
    [
        ("to_init", 0),
        ({"use": "to_step", "step": "6it"}, 6),
        ({"use": "to_step", "step": "18it"}, 18),
        ("learning_rate", 40),
        ({"use": "fine_tune", "length": "5it"}, 40),
    ],
)
def test_a_control_keeps_the_last_value_of_what_an_update_removed(
    tmp_path: Path, rewind: Any, steps: int
) -> None:
    """The last values are restated by trainings that stop there, and by the steps of the updates."""
    plugin = tmp_path / "halving.py"
    plugin.write_text(HALVING)
    options: dict[str, Any] = {"store": "store", "trust": [plugin]}

    def trained(name: str, length: int, update: str | None = "halving") -> dict[str, Any]:
        """Train to a step, and return the weights there."""
        train = {**TRAIN, "length": f"{length}it", "mask_update": update}
        search: dict[str, Any] = {"use": "during_training", "dense": False}
        if update is None:
            del train["mask_update"]
            search = {"use": "imp", "levels": 0}
        # a faster kernel rounds in another order
        engine = {"kernel": "reference"}
        table = recipe(train=train, search=search, plugins=[str(plugin)], engine=engine)
        run = go(tmp_path, name, table, **options)
        return end_weights(run, tmp_path / "store", level=int(update is not None))

    table = recipe(
        train={**TRAIN, "mask_update": "halving"},
        search={"use": "during_training", "dense": False, "retrain": True},
        controls=["random_mask"],
        rewind=rewind,
        plugins=[str(plugin)],
    )
    done = go(tmp_path, "run", table, **options)
    tickets = {}
    for name in ("ticket", "random_mask"):
        (path,) = done.path.glob(f"tickets/**/{FILES[name]}")
        tickets[name] = load_ticket(path)

    whole = load_ticket(next(go(tmp_path, "init", recipe(
        train={k: v for k, v in TRAIN.items() if k != "mask_update"},
        search={"use": "imp", "levels": 0},
    )).path.rglob("level-00.safetensors"))).values  # fmt: skip
    at_12 = trained("at-12", 12, None)
    # the second change is due at step 24, so a training to there ends before it
    at_24 = trained("at-24", 24) if steps >= 24 else {}
    last = trained("last", steps, "halving" if steps > 12 else None) if steps else whole
    control = tickets["random_mask"]
    for name, mask in control.mask.items():
        expected = last[name].clone()
        if steps >= 12:
            removed = expected == 0
            expected[removed] = at_12[name][removed]
            if at_24:
                in_second = removed & (at_24[name] != 0)
                expected[in_second] = at_24[name][in_second]
        assert bool((control.values[name][mask] != 0).all())
        assert torch.equal(control.values[name][mask], expected[mask])
        assert not torch.equal(mask, tickets["ticket"].mask[name])


@pytest.mark.parametrize("rewind", ["learning_rate", {"use": "to_step", "step": "2it"}])
def test_a_weight_that_no_mask_had_starts_from_its_first_value(tmp_path: Path, rewind: Any) -> None:
    table = recipe(
        search={**SEARCH, "dense": True}, controls=["random_mask"], rewind=rewind,
        train={**TRAIN, "mask_update": {"use": "swap", "every": 39}},
    )  # fmt: skip
    done = go(tmp_path, "run", table)
    (path,) = done.path.glob(f"tickets/**/{FILES['random_mask']}")
    control = load_ticket(path)
    (path,) = done.path.glob("tickets/**/level-00.safetensors")
    first = load_ticket(path).values
    for name, mask in control.mask.items():
        assert bool((control.values[name][mask] != 0).all())
        # the network began with 40 % of its weights, and little changed since
        unmoved = control.values[name][mask] == first[name][mask]
        assert 0.2 < float(unmoved.float().mean()) < 0.9
