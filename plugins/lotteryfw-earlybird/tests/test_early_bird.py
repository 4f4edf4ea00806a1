"""Early-Bird tickets: distances of masks by hand, the moment of drawing, and the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lotteryfw_earlybird import DRAWN, EarlyBird, SettledMasks, mask_distance
from torch import Tensor

from lotteryfw import LotteryError, Run, load_ticket, run
from lotteryfw.registry import Registry
from lotteryfw.testkit import trial

PLUGIN = Path(__file__).parents[1]
CODE = PLUGIN / "src" / "lotteryfw_earlybird" / "__init__.py"


def is_installed() -> bool:
    return any(plugin.distribution == "lotteryfw-earlybird" for plugin in Registry.load().plugins)


def go(folder: Path, search: dict[str, Any], name: str = "run", **changes: Any) -> Run:
    table: dict[str, Any] = {
        "name": "early",
        "data": {"use": "synthetic", "examples": 600, "classes": 4, "shape": [1, 6, 6], "noise": 0.6},
        "model": {"use": "mlp", "hidden": [16]},
        "scope": "global",
        "rewind": "learning_rate",
        "search": {"use": "early_bird"} | search,
        "train": {"length": "12ep", "batch": 40, "optimizer": {"use": "sgd", "lr": 0.05}},
        "evaluate": {"every": "1ep"},
        "engine": {"kernel": "reference"},
    } | changes  # fmt: skip
    trust = () if is_installed() else (CODE,)
    if trust:
        table["plugins"] = [str(CODE)]
    return run(
        table, out=folder / name, store=folder / "store", data=folder, jobs=1, device="cpu",
        trust=trust,
    )  # fmt: skip


def masks_of(*rows: str) -> list[dict[str, Tensor]]:
    """Masks of two layers from texts such as "1100 10"."""
    masks = []
    for row in rows:
        parts = [torch.tensor([char == "1" for char in part]) for part in row.split()]
        masks.append(dict(zip(("a", "b"), parts, strict=True)))
    return masks


def test_the_distance_is_the_share_of_entries_that_differ_over_all_layers() -> None:
    one, same, swapped, inverted = masks_of("1100 10", "1100 10", "1010 10", "0011 01")
    assert mask_distance(one, same) == 0
    assert mask_distance(one, swapped) == pytest.approx(2 / 6)
    assert mask_distance(one, inverted) == 1


def test_nothing_is_drawn_before_the_queue_is_full_or_while_any_of_its_masks_is_far() -> None:
    far, near = masks_of("0011 10", "1100 10")
    settled = SettledMasks(window=3, distance=0.1)
    # the first mask leaves the queue of three with the fourth
    answers = [settled.settled_with(masks) for masks in (far, near, near, near)]
    assert answers == [False, False, False, True]


def dense_masks(folder: Path, density: float, epochs: int) -> list[dict[str, Tensor]]:
    """The masks after each epoch, restated: trainings to that epoch, and the largest weights."""
    from lotteryfw.engine import StoredOutcome
    from lotteryfw.store import Store

    masks = []
    for epoch in range(1, epochs + 1):
        train = {"length": f"{epoch}ep", "batch": 40, "optimizer": {"use": "sgd", "lr": 0.05}}
        done = go(folder, {"use": "imp", "levels": 0}, f"to-{epoch}", train=train)
        weights = StoredOutcome(Store(folder / "store"), done.levels[0].key).tensors().values
        layers = {name: value for name, value in weights.items() if name.endswith("weight")}
        sizes = torch.cat([value.abs().flatten() for value in layers.values()])
        keep = round(density * sizes.numel())
        threshold = sizes.sort(descending=True).values[keep - 1]
        masks.append({name: value.abs() >= threshold for name, value in layers.items()})
    return masks


def test_the_ticket_is_drawn_at_the_first_epoch_at_which_a_plain_loop_finds_settled_masks(
    tmp_path: Path,
) -> None:
    search = {"density": 0.3, "distance": 0.05, "window": 3}
    done = go(tmp_path, search)
    expected = dense_masks(tmp_path, 0.3, 12)
    first = None
    for epoch in range(3, 13):
        newest = expected[epoch - 1]
        earlier = expected[epoch - 3 : epoch - 1]
        if first is None and all(mask_distance(newest, mask) <= 0.05 for mask in earlier):
            first = epoch
    assert first is not None
    assert 3 <= first < 12
    lines = [json.loads(line) for line in (done.path / "curves.jsonl").read_text().splitlines()]
    (drawn,) = (line for line in lines if line["variant"] == DRAWN)
    (row,) = (row for row in done.levels if row.variant == DRAWN)
    steps_per_epoch = row.steps
    assert drawn["step"][-1] == first * steps_per_epoch

    (path,) = done.path.glob("tickets/**/level-01.safetensors")
    ticket = load_ticket(path)
    for name, mask in ticket.mask.items():
        assert torch.equal(mask, expected[first - 1][name])


def test_masks_that_never_settle_are_drawn_at_the_end(tmp_path: Path) -> None:
    done = go(tmp_path, {"density": 0.3, "distance": 0.0, "dense": False})
    assert {(row.variant, row.level) for row in done.levels} == {(DRAWN, 1), ("ticket", 1)}
    again = go(tmp_path, {"density": 0.3, "distance": 0.0, "dense": False}, "again")
    assert [row.test_loss for row in again.levels] == [row.test_loss for row in done.levels]


def test_a_rewind_policy_that_needs_a_step_of_the_dense_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match="goes back to step 5 of the dense training"):
        go(tmp_path, {"dense": False}, rewind={"use": "to_step", "step": "5it"})


@pytest.mark.parametrize("options", [{}, {"density": 0.2, "window": 2, "every": "100it"}])
def test_the_search_keeps_what_it_promises(options: dict[str, Any]) -> None:
    trial(EarlyBird, options)


def test_its_recipe_runs_and_judges_its_claims(tmp_path: Path) -> None:
    done = run(
        PLUGIN / "recipes" / "early_bird.toml", out=tmp_path / "run", store=tmp_path / "store",
        profile="quick", jobs=1, device="cpu", trust=() if is_installed() else (CODE,),
    )  # fmt: skip
    assert set(done.statuses.values()) == {"done"}
    variants = {row.variant for row in done.levels if row.level == 1}
    assert variants == {"ticket", DRAWN, "random_mask"}
