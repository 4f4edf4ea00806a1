"""The criteria in whole runs: layer collapse, rounds against a plain loop, every search, the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lotteryfw_pai import GraSP, Snip, SynFlow
from torch import Tensor, nn

from lotteryfw import Run, load_ticket, run
from lotteryfw.testkit import trial

PLUGIN = Path(__file__).parents[1]
CODE = PLUGIN / "src" / "lotteryfw_pai" / "__init__.py"
TRAIN = {"length": "2it", "batch": 50, "optimizer": {"use": "sgd", "lr": 0.1}}


def trust() -> list[Path]:
    """The plugin's file, where the plugin is not installed."""
    from lotteryfw.registry import Registry

    installed = {plugin.distribution for plugin in Registry.load().plugins}
    return [] if "lotteryfw-pai" in installed else [CODE]


def go(folder: Path, **changes: Any) -> Run:
    table: dict[str, Any] = {
        "name": "pai", "data": "digits", "scope": "global", "initialiser": "kaiming_normal",
        "train": TRAIN, **changes,
    }  # fmt: skip
    done = run(
        table, out=folder / "run", store=folder / "store", data=folder, jobs=1, trust=trust()
    )
    assert set(done.statuses.values()) == {"done"}
    return done


def masks(done: Run, study: str, level: int) -> dict[str, Tensor]:
    (path,) = (done.path / "tickets").rglob(f"*{study}*/level-{level:02d}.safetensors")
    return dict(load_ticket(path).mask)


@pytest.mark.parametrize("criterion", [Snip, GraSP, SynFlow])
def test_they_keep_what_criteria_promise(criterion: type[Snip] | type[GraSP]) -> None:
    trial(criterion)


def test_synflow_in_100_rounds_collapses_no_layer_where_one_shot_magnitude_does(
    tmp_path: Path,
) -> None:
    """Tanaka et al. 2020, figure 1 and section 5: 99 % of a deep, narrow network are pruned.

    The second layer has the most inputs, so the smallest initial weights.
    """
    once = {"use": "at_init", "densities": [0.01], "train": False}
    done = go(
        tmp_path,
        model={"use": "mlp", "hidden": [200, 60, 60, 60, 60]},
        search=once,
        study=[
            {"name": "magnitude", "criterion": "large_final"},
            {"name": "one-round", "criterion": "synflow"},
            {"name": "rounds", "criterion": "synflow", "search": {**once, "rounds": 100}},
        ],
    )
    alive = {}
    for study in ("magnitude", "one-round", "rounds"):
        alive[study] = {name: int(mask.sum()) for name, mask in masks(done, study, 1).items()}
    assert len({sum(counts.values()) for counts in alive.values()}) == 1
    assert alive["magnitude"]["fc2.weight"] == 0
    # neither the criterion nor the budget alone prevents it: it is the rounds
    assert 0 in alive["one-round"].values()
    assert min(alive["rounds"].values()) > 0


def test_the_rounds_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Algorithm 1 of the paper, with autograd and a sort, on the network that the run began with."""
    rounds, density = 7, 0.05
    done = go(
        tmp_path,
        model={"use": "mlp", "hidden": [30, 20]},
        criterion="synflow",
        search={"use": "at_init", "densities": [density], "rounds": rounds},
    )
    (path,) = (done.path / "tickets").rglob("level-00.safetensors")
    initial = load_ticket(path).values
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10)
    ).double()
    layers = [network[1], network[3], network[5]]
    alive = [torch.ones_like(layer.weight, dtype=torch.bool) for layer in layers]
    size = sum(mask.numel() for mask in alive)
    for number in range(1, rounds + 1):
        for index, layer in enumerate(layers):
            weight = initial[f"fc{index + 1}.weight"].double().abs() * alive[index]
            layer.weight.data, layer.weight.grad = weight, None
            layer.bias.data = initial[f"fc{index + 1}.bias"].double().abs()
        network(torch.ones(1, 1, 8, 8, dtype=torch.float64)).sum().backward()
        scores = torch.cat([(layer.weight.grad * layer.weight).flatten() for layer in layers])
        order = scores.detach().masked_fill(~torch.cat([m.flatten() for m in alive]), -1).argsort()
        kept = torch.zeros(size, dtype=torch.bool)
        kept[order[-round(density ** (number / rounds) * size) :]] = True
        parts = kept.split([mask.numel() for mask in alive])
        alive = [part.reshape(mask.shape) for part, mask in zip(parts, alive, strict=True)]
    found = masks(done, "", 1)
    for index, mask in enumerate(alive):
        assert torch.equal(found[f"fc{index + 1}.weight"], mask)


CRITERIA = [{"use": "snip", "batch": 50}, {"use": "grasp", "batch": 50}, "synflow"]


@pytest.mark.parametrize(
    "search",
    [
        {"use": "imp", "levels": 2},
        {"use": "one_shot", "levels": 2},
        {"use": "at_init", "densities": [0.5, 0.2], "rounds": 2},
    ],
    ids=lambda search: search["use"],
)
def test_they_prune_in_every_search(search: dict[str, Any], tmp_path: Path) -> None:
    done = go(
        tmp_path,
        model={"use": "mlp", "hidden": [20, 10]},
        search=search,
        grid={"criterion": CRITERIA},
    )
    kept = [row.weights_kept for row in done.levels]
    assert len(kept) == 9
    for start in (0, 3, 6):
        assert kept[start : start + 3] == kept[:3]
        assert kept[start] > kept[start + 1] > kept[start + 2]


def test_the_recipes_quick_profile_runs(tmp_path: Path) -> None:
    done = run(
        PLUGIN / "recipes" / "pai.toml",
        profile="quick",
        sets=["train.length='20it'"],
        out=tmp_path / "run",
        store=tmp_path / "store",
        data=tmp_path,
        jobs=1,
        trust=trust(),
    )
    assert set(done.statuses.values()) == {"done"}
    assert len(done.statuses) == 5
