"""Studies from recipe to run folder: sharing, resuming, stopping, dying, and what goes wrong in between."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import NINE, Watch, files, go, recipe

from lotteryfw import UsageError, load_ticket
from lotteryfw.api.errors import RecipeError
from lotteryfw.runner import Interrupted, StudyContext, cores
from lotteryfw.runner import run_study as run
from lotteryfw.store import Store

torch.set_num_threads(1)


def test_nine_criteria_share_one_dense_run(tmp_path: Path) -> None:
    done, watch = go(tmp_path, recipe(grid={"criterion": NINE}, search={"use": "imp", "levels": 1}))
    assert len(done.levels) == 18
    dense = {row.key for row in done.levels if row.level == 0}
    assert len(dense) == 1
    assert (
        len(watch.trained) == len(set(watch.trained)) == len({row.key for row in done.levels}) <= 10
    )


def test_two_criteria_that_give_one_mask_share_its_training(tmp_path: Path) -> None:
    still = {
        **recipe()["train"],
        "optimizer": {"use": "sgd", "lr": 1e-30},
    }  # nothing moves: w_i = w_f
    done, watch = go(
        tmp_path, recipe(grid={"criterion": ["large_init", "large_final"]}, train=still)
    )
    assert len({row.key for row in done.levels if row.level == 2}) == 1
    assert len(watch.trained) == 3


def test_one_epoch_and_its_steps_are_one_experiment(tmp_path: Path) -> None:
    in_steps = recipe(rewind={"use": "to_step", "step": "20it"})
    train = {**recipe()["train"], "length": "2ep"}  # 330 // 16 = 20 steps an epoch
    in_epochs = recipe(rewind={"use": "to_step", "step": "1ep"}, train=train)
    one, first = go(tmp_path, in_steps, "one")
    two, second = go(tmp_path, in_epochs, "two")
    assert first.trained
    assert not second.trained
    assert [row.key for row in one.levels] == [row.key for row in two.levels]


def test_every_rewind_point_comes_out_of_one_dense_training(tmp_path: Path) -> None:
    points = [{"use": "to_step", "step": step} for step in ("5it", "10it", "50%")]
    done, watch = go(tmp_path, recipe(grid={"rewind": points}, search={"use": "imp", "levels": 1}))
    dense = {row.key for row in done.levels if row.level == 0}
    assert len(dense) == 1
    assert watch.trained.count(*dense) == 1
    assert {row.steps for row in done.levels if row.level == 1} == {35, 30, 20}


def test_a_second_run_trains_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    table = recipe(seeds=[0, 1], controls=["reinit", "random_mask", "random_mask_reinit"])
    one, first = go(tmp_path, table, "one")
    two, second = go(tmp_path, table, "two")
    assert first.trained
    assert not second.trained
    assert files(one.path) == files(two.path)
    fresh, third = go(tmp_path, table, "three", store=tmp_path / "other-store")
    assert sorted(third.trained) == sorted(first.trained)
    assert files(fresh.path) == files(one.path)


def test_a_stop_leaves_no_spooled_jobs_behind(tmp_path: Path) -> None:
    stops: list[Any] = []
    watch = Watch()
    watch.event = lambda event: stops[0]() if getattr(event, "level", 0) == 1 else None  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        run(recipe(controls=["reinit"]), out=tmp_path / "run", store=tmp_path / "s", jobs=1, device="cpu",
            data=tmp_path, listener=watch, on_start=stops.append)  # fmt: skip
    assert not list((tmp_path / "s" / "spool").iterdir())


def test_worker_processes_give_the_same_bits_as_one(tmp_path: Path) -> None:
    table = recipe(seeds=[0, 1], controls=["reinit"], rewind={"use": "to_step", "step": "10it"})
    one, _ = go(tmp_path, table, "one")
    two, watch = go(tmp_path, table, "two", store=tmp_path / "other", jobs=2)
    assert watch.trained
    assert files(one.path) == files(two.path)
    assert set(two.statuses.values()) == {"done"}


def test_findings_stand_in_the_order_of_the_recipe_whatever_ended_first(tmp_path: Path) -> None:
    searches = [
        {"use": "imp", "levels": levels} for levels in (3, 1, 2)
    ]  # the first to begin is the last to end
    table = recipe(
        grid={"search": searches}, analyses=["weight_scatter", "mask_overlap", "mask_diagnostics"]
    )
    one, watch = go(tmp_path, table, "one")
    two, _ = go(tmp_path, table, "two", store=tmp_path / "other", jobs=2)
    again, _ = go(tmp_path, table, "again")
    cells = list(dict.fromkeys(row.cell for row in one.levels))
    assert [event.cell for event in watch.of("CellFinished")] != cells
    assert files(one.path) == files(two.path) == files(again.path)
    order = [(cells.index(line.cell), line.level) for line in one.findings]
    assert order == sorted(order)
    first = [line.analysis for line in one.findings if (line.cell, line.level) == (cells[0], 1)]
    assert list(dict.fromkeys(first)) == ["weight_scatter", "mask_diagnostics", "mask_overlap"]


def test_controls_are_at_every_level_beside_the_ticket(tmp_path: Path) -> None:
    done, _ = go(
        tmp_path,
        recipe(controls=["reinit", "random_mask"], scope={"use": "layerwise", "rate": 0.5}),
    )
    variants = {(row.variant, row.level): row for row in done.levels}
    assert set(variants) == {
        ("ticket", 0),
        *((variant, level) for variant in ("ticket", "reinit", "random_mask") for level in (1, 2)),
    }
    for level in (1, 2):
        densities = {
            variants[variant, level].layer_densities
            for variant in ("ticket", "reinit", "random_mask")
        }
        assert len(densities) == 1
        assert (
            len({variants[variant, level].key for variant in ("ticket", "reinit", "random_mask")})
            == 3
        )
    folder = done.path / "tickets" / "small__seed=0"
    ticket, reinit, random_ = (
        load_ticket(folder / f"level-02{suffix}.safetensors")
        for suffix in ("", "-reinit", "-random_mask")
    )
    for name, mask in ticket.mask.items():
        assert torch.equal(mask, reinit.mask[name])
        assert not torch.equal(mask, random_.mask[name])
        assert int(mask.sum()) == int(random_.mask[name].sum())
        assert not torch.equal(ticket.values[name][mask], reinit.values[name][mask])


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, _ = go(tmp_path, name="whole")
    stops: list[Any] = []
    watch = Watch()
    watch.progress = lambda one: stops[0]() if one.step == 17 else None  # type: ignore[method-assign]
    given = {"store": tmp_path / "b", "jobs": 1, "device": "cpu", "data": tmp_path}
    with pytest.raises(Interrupted):
        run(recipe(), out=tmp_path / "stopped", listener=watch, on_start=stops.append, **given)  # type: ignore[arg-type]
    assert list((tmp_path / "b" / "scratch").rglob("state.json"))  # the half training was kept
    assert not list((tmp_path / "b").glob("spool/*"))
    again, _ = go(tmp_path, name="stopped", store=tmp_path / "b")
    assert files(again.path) == files(whole.path)


KILLED = """
import sys
from pathlib import Path
from lotteryfw.runner import run_study as run
import json
table, out, store, jobs = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
run(table, out=out, store=Path(store), jobs=jobs, device="cpu", data=Path(out), checkpoint_seconds=0.05)
"""


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.large), 2])
def test_kill_9_at_random_moments_then_the_same_command_gives_the_same_bits(
    tmp_path: Path, jobs: int
) -> None:
    table = recipe(seeds=[0, 1], train={**recipe()["train"], "length": "400it"})
    whole, _ = go(tmp_path, table, "whole")
    out, store = tmp_path / "killed", tmp_path / "killed-store"
    command = [sys.executable, "-c", KILLED, json.dumps(table), str(out), str(store), str(jobs)]
    moments, kills = random.Random(jobs), 0
    for _ in range(12):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=2.0 + 3.0 * moments.random())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        if process.returncode == 0 or kills == 3:
            break
    assert kills, "the run was over before it could be killed: make it longer"
    done, _ = go(tmp_path, table, "killed", store=store)
    assert files(done.path) == files(whole.path)
    assert Store(store).verify().damaged == ()


@pytest.mark.large
def test_a_killed_worker_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    table = recipe(seeds=[0, 1], train={**recipe()["train"], "length": "600it"})
    whole, _ = go(tmp_path, table, "whole")
    watch = Watch()
    killed: list[int] = []

    def strike(progress: object) -> None:
        if not killed:
            found = subprocess.run(["pgrep", "-f", "lotteryfw.engine.worker", "-P", str(os.getpid())],
                                   capture_output=True, text=True).stdout.split()  # fmt: skip
            killed.append(int(found[0]))
            os.kill(killed[0], signal.SIGKILL)

    watch.progress = strike  # type: ignore[method-assign]
    done = run(
        table,
        out=tmp_path / "hit",
        store=tmp_path / "b",
        jobs=2,
        device="cpu",
        data=tmp_path,
        listener=watch,
    )
    assert killed
    assert set(done.statuses.values()) == {"done"}
    assert files(done.path) == files(whole.path)


def test_a_diverging_cell_ends_alone(tmp_path: Path) -> None:
    table = recipe(grid={"train.optimizer.lr": [0.1, 1e30]})
    done, watch = go(tmp_path, table)
    assert sorted(done.statuses.values()) == ["diverged", "done"]
    assert len([row for row in done.levels if row.status == "done"]) == 3
    assert any("diverged" in told and "step 10" in told for told in watch.warnings)
    _, again = go(tmp_path, table, "again")
    assert not again.trained  # that it diverges is known


def test_what_diverges_is_a_row_and_its_neighbours_stay(tmp_path: Path) -> None:
    """Learning rates near the edge: of one-shot tickets some diverge; the same command again gives the same rows."""
    table = recipe(
        search={"use": "one_shot", "levels": 4}, controls=["reinit"], scope={"use": "layerwise", "rate": 0.5},
        criterion={"use": "doomed"}, mask1="rewind_to_doom",
    )  # fmt: skip
    plugin = tmp_path / "doom.py"
    plugin.write_text(DOOM)
    one, watch = go(tmp_path, table, "one", trust=[plugin])
    two, again = go(tmp_path, table, "two", trust=[plugin])
    assert watch.trained
    assert not again.trained
    assert files(one.path) == files(two.path)
    tickets = {row.level: row.status for row in one.levels if row.variant == "ticket"}
    assert tickets == {0: "done", 1: "done", 2: "diverged", 3: "diverged", 4: "diverged"}
    assert [row.level for row in one.levels if row.variant == "reinit"] == [1]
    assert list(one.statuses.values()) == ["diverged"]
    chain, _ = go(
        tmp_path, table | {"search": {"use": "imp", "levels": 4}}, "chain", trust=[plugin]
    )
    assert [row.status for row in chain.levels if row.variant == "ticket"] == [
        "done",
        "done",
        "diverged",
    ]


DOOM = """
import torch
from lotteryfw import MaskCriterion, Mask1Action, hookimpl

class Doomed(MaskCriterion):
    "Keeps large weights."
    use = "doomed"
    def score(self, layer):
        return layer.final.abs()

class Blow(Mask1Action):
    "Restarts the second and later levels from numbers whose products are infinite."
    use = "rewind_to_doom"
    def kept_values(self, layer):
        few = layer.mask.float().mean() < 0.3
        return layer.rewound * (1e30 if few else 1.0)

@hookimpl
def register_components():
    return [Doomed, Blow]
"""


def test_a_search_that_asks_for_nonsense_ends_its_cell_with_a_hint(tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(ODD)
    searches = ["forgets_from", "asks_for_text", "swaps", {"use": "imp", "levels": 1}]
    done, watch = go(tmp_path, recipe(grid={"search": searches}), trust=[plugin])
    assert sorted(done.statuses.values()) == ["done", "failed", "failed", "failed"]
    told = "\n".join(watch.warnings)
    for part in (
        "asked for a generator",
        "yield from lab.train(ticket)",
        "asked for a tuple",
        "an int, a Ticket and a Trained belong there",
    ):
        assert part in told


ODD = """
from lotteryfw import SearchAlgorithm, hookimpl

class ForgetsFrom(SearchAlgorithm):
    "Yields a generator."
    use = "forgets_from"
    def search(self, lab):
        yield lab.train(lab.dense())

class AsksForText(SearchAlgorithm):
    "Yields text."
    use = "asks_for_text"
    def search(self, lab):
        yield ("x",)

class Swaps(SearchAlgorithm):
    "Swaps arguments."
    use = "swaps"
    def search(self, lab):
        ticket = lab.dense()
        trained = yield from lab.train(ticket)
        lab.record("0", trained, ticket)

@hookimpl
def register_components():
    return [ForgetsFrom, AsksForText, Swaps]
"""


def test_two_runs_share_one_store_at_once(tmp_path: Path) -> None:
    table = recipe(seeds=[0, 1], train={**recipe()["train"], "length": "300it"})
    whole, _ = go(tmp_path, table, "whole")
    commands = [
        [
            sys.executable,
            "-c",
            KILLED,
            json.dumps(table),
            str(tmp_path / name),
            str(tmp_path / "shared"),
            jobs,
        ]
        for name, jobs in (("a", "1"), ("b", "2"))
    ]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(whole.path)
    assert not list((tmp_path / "shared" / "spool").iterdir())


def test_stopping_a_finished_run_again_damages_nothing(tmp_path: Path) -> None:
    table = recipe(seeds=[0, 1], analyses=["mask_diagnostics", "mask_overlap"])
    done, _ = go(tmp_path, table)
    before, keys = files(done.path), done.manifest["keys"]
    stops: list[Any] = []
    watch = Watch()
    watch.event = lambda event: stops[0]() if type(event).__name__ == "LevelFinished" else None  # type: ignore[method-assign]
    with contextlib.suppress(Interrupted):
        run(table, out=done.path, store=tmp_path / "store", jobs=1, device="cpu", data=tmp_path, listener=watch,
            on_start=stops.append)  # fmt: skip
    assert files(done.path) == before
    assert done.manifest["keys"] == keys
    assert Store(tmp_path / "store").gc(dry_run=True).objects == 0


def test_a_folder_with_another_study_is_not_written_over(tmp_path: Path) -> None:
    done, _ = go(tmp_path)
    before = files(done.path)
    with pytest.raises(UsageError, match="holds the run of another study"):
        go(tmp_path, recipe(search={"use": "imp", "levels": 1}))
    assert files(done.path) == before


def test_a_re_initialised_control_starts_from_the_beginning(tmp_path: Path) -> None:
    rewind = {"use": "to_step", "step": "10it", "optimizer": "saved"}
    done, _ = go(tmp_path, recipe(rewind=rewind, controls=["reinit", "random_mask"]))
    steps = {row.variant: row.steps for row in done.levels if row.level == 1}
    assert steps == {"ticket": 30, "random_mask": 30, "reinit": 40}


def test_a_damaged_object_is_set_aside_and_computed_again(tmp_path: Path) -> None:
    one, _ = go(tmp_path)
    key = one.levels[1].key
    victim = tmp_path / "store" / "objects" / key[:2] / key / "tensors.safetensors"
    text = bytearray(victim.read_bytes())
    text[-1] ^= 1
    victim.write_bytes(bytes(text))
    two, watch = go(tmp_path, name="two")
    assert watch.trained == [key]
    assert any("damaged" in told for told in watch.warnings)
    assert files(one.path) == files(two.path)


BROKEN = """
from lotteryfw import MaskCriterion, ModelFamily, hookimpl

class Breaks(MaskCriterion):
    "Raises."
    use = "breaks"
    def score(self, layer):
        raise ZeroDivisionError("no luck")

class Shape(MaskCriterion):
    "Gives a wrong shape."
    use = "wrong_shape"
    def score(self, layer):
        return layer.final.abs().flatten()

class Whole(MaskCriterion):
    "Gives a wrong dtype."
    use = "wrong_dtype"
    def score(self, layer):
        return layer.final.abs() > 0

class Nan(MaskCriterion):
    "Gives NaN."
    use = "not_a_number"
    def score(self, layer):
        return layer.final * float("nan")

@hookimpl
def register_components():
    return [Breaks, Shape, Whole, Nan]

@hookimpl
def level_finished(event):
    raise RuntimeError("a tracker that breaks")
"""


def test_a_component_that_breaks_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    names = ["breaks", "wrong_shape", "wrong_dtype", "not_a_number", "large_final"]
    done, watch = go(tmp_path, recipe(grid={"criterion": names}), trust=[plugin])
    assert list(done.statuses.values()).count("failed") == 4
    assert len([row for row in done.levels if row.axes["criterion"] == "large_final"]) == 3
    told = "\n".join(watch.warnings)
    for part in (
        "ZeroDivisionError: no luck", "shape [128]; the layer's shape is [8, 16]", "dtype torch.bool",
        "scores of layer fc1.weight are NaN or infinite", "broken.py", "level_finished", "a tracker that breaks",
    ):  # fmt: skip
        assert part in told
    assert told.count("a tracker that breaks") == 1


SENSITIVE = """
from lotteryfw import MaskCriterion, Need, hookimpl

class Sensitive(MaskCriterion):
    "Keeps the weights whose removal would change the loss most, to first order."
    use = "sensitive"
    needs = frozenset({Need.GRADIENT})
    def score(self, layer):
        return (layer.gradient * layer.final).abs()

@hookimpl
def register_components():
    return [Sensitive]
"""


def test_a_criterion_gets_the_gradient_it_needs(tmp_path: Path) -> None:
    plugin = tmp_path / "sensitive.py"
    plugin.write_text(SENSITIVE)
    table = recipe(grid={"criterion": ["sensitive", "large_final"]})
    one, watch = go(tmp_path, table, trust=[plugin])
    assert set(one.statuses.values()) == {"done"}
    assert (
        len(watch.trained) == 8
    )  # one dense run, two levels each, and a gradient after each of one's three
    masks = [
        load_ticket(path).mask["fc1.weight"]
        for path in sorted(one.path.rglob("level-01.safetensors"))
    ]
    assert not torch.equal(*masks)
    two, _ = go(tmp_path, table, "two", trust=[plugin], store=tmp_path / "other", jobs=2)
    assert files(one.path) == files(two.path)


def test_a_layer_that_collapses_is_an_event(tmp_path: Path) -> None:
    _, watch = go(tmp_path, recipe(scope={"use": "layerwise", "rate": 0.5, "rates": {"fc3": 0.99}}))
    assert [(event.level, event.layer) for event in watch.of("LayerCollapsed")] == [
        (1, "fc3.weight"),
        (2, "fc3.weight"),
    ]


def test_a_rate_that_leaves_no_weights_is_refused_before_any_training(tmp_path: Path) -> None:
    watch = Watch()
    for scope in ({"use": "layerwise", "rate": 0.9}, {"use": "global", "rate": 0.9}):
        table = recipe(scope=scope, search={"use": "imp", "levels": 24})
        with pytest.raises(
            RecipeError, match=r"scope: .*leaves no weights at level \d.*lower the rate"
        ):
            run(
                table, out=tmp_path / "run", store=tmp_path / "store", data=tmp_path, listener=watch
            )
    assert not watch.events


def test_plan_says_what_is_asked_unique_and_stored_without_torch(tmp_path: Path) -> None:
    table = recipe(grid={"criterion": ["large_final", "random"]}, controls=["reinit"], seeds=[0, 1])
    context = StudyContext(table, store=tmp_path / "store", data=tmp_path)
    before = context.plan()
    assert (before.cells, before.asked, before.unique, before.stored) == (4, 20, 18, 0)
    assert before.seconds is None
    _, watch = go(tmp_path, table)
    assert len(watch.trained) <= before.unique
    after = context.plan()
    assert (after.unique, after.stored, after.steps_to_do) == (18, 18, 0)
    longer = StudyContext(
        table | {"search": {"use": "imp", "levels": 4}}, store=tmp_path / "store", data=tmp_path
    ).plan()
    assert (longer.unique, longer.stored) == (34, 18)
    assert longer.seconds is not None


def test_the_resolved_recipe_repeats_the_run(tmp_path: Path) -> None:
    one, _ = go(
        tmp_path, recipe(grid={"mask1": ["rewind", {"use": "constant", "keep_sign": False}]})
    )
    two, watch = go(tmp_path, one.path / "resolved.toml", "two")
    assert not watch.trained
    assert (one.path / "levels.csv").read_bytes() == (two.path / "levels.csv").read_bytes()


def test_a_thousand_stored_levels_replay_fast(tmp_path: Path) -> None:
    """Not a timing: a guard against replay doing work in proportion to training."""
    table = recipe(seeds=list(range(5)), search={"use": "imp", "levels": 20})
    go(tmp_path, table)
    started = time.monotonic()
    _, watch = go(tmp_path, table, "again")
    assert not watch.trained
    assert time.monotonic() - started < 30


def test_threads_of_one_core_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for number in range(4):
        place = tmp_path / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text("0,2\n" if number % 2 == 0 else "1,3\n")
    assert cores(tmp_path) == 2
    assert cores(tmp_path / "nothing said") == 4
