"""Mask updates against plain loops, and the densities that their papers publish."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from lotteryfw_dynamic import AcDc, GradualPruning, RigL, Set, register_components
from pydantic import ValidationError
from torch import Tensor

from lotteryfw import (
    Clock,
    LayerInfo,
    LotteryError,
    MaskUpdate,
    Run,
    TrainingNetwork,
    UsageError,
    load_ticket,
    run,
    stream,
)
from lotteryfw.registry import Registry
from lotteryfw.report import report
from lotteryfw.testkit import trial

LAYERS = (
    LayerInfo("conv.weight", (6, 3, 3, 3)),
    LayerInfo("fc1.weight", (20, 54)),
    LayerInfo("fc2.weight", (5, 20), is_output=True),
)
CLOCK = Clock(total=1000, steps_per_epoch=50)


def network(step: int, masks: dict[str, Tensor] | None = None) -> TrainingNetwork:
    """A network with made-up weights and gradients, the same for one step."""

    def draw(what: str) -> dict[str, Tensor]:
        return {
            layer.name: torch.randn(layer.shape, generator=stream("test", what, step, layer.name))
            for layer in LAYERS
        }

    masks = masks or {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in LAYERS}
    weights = {name: value * masks[name] for name, value in draw("weights").items()}
    return TrainingNetwork(
        LAYERS,
        weights,
        masks,
        stream("test", "update", step),
        lambda: draw("gradients"),
        lambda layer, rng: torch.randn(layer.shape, generator=rng),
    )


def sparse(density: float = 0.3) -> dict[str, Tensor]:
    return {
        layer.name: torch.rand(layer.shape, generator=stream("test", "mask", layer.name)) < density
        for layer in LAYERS
    }


def played(update: MaskUpdate, masks: dict[str, Tensor] | None = None) -> dict[int, dict[str, int]]:
    """By step of a change: how many weights of each layer are alive after it, checked against its budgets."""
    net = network(0, masks)
    counts = {}
    for step in range(1, CLOCK.total):
        if not update.due(step, CLOCK):
            continue
        net = network(step, dict(net.masks))
        groups = update.budgets(step, CLOCK, LAYERS, net.kept)
        new = dict(net.masks) | update.update(step, CLOCK, net)
        for group in groups:
            assert sum(int(new[name].sum()) for name in group.layers) == group.keep
        net = network(step, new)
        counts[step] = net.kept
    return counts


def test_gradual_pruning_has_the_cubic_density_at_every_change() -> None:
    counts = played(GradualPruning(density=0.05, begin="100it", end="700it", every="60it"))
    assert list(counts) == list(range(160, 701, 60))
    for step, kept in counts.items():
        sparsity = 0.95 + (0 - 0.95) * (1 - (step - 100) / 600) ** 3  # equation 1, in sparsity
        for layer in LAYERS:
            assert kept[layer.name] == round((1 - sparsity) * layer.size)


def test_gradual_pruning_falls_from_the_density_that_the_training_begins_with() -> None:
    update = GradualPruning(initial=0.5, density=0.1, end="750it", every="100it")
    masks = {}
    for layer in LAYERS:
        # exactly half of each layer, whose sizes are even
        order = torch.randperm(layer.size, generator=stream("test", "half", layer.name))
        masks[layer.name] = (order < layer.size // 2).reshape(layer.shape)
    counts = played(update, masks)
    assert list(counts) == [*range(100, 701, 100), 750]
    for step, kept in counts.items():
        density = 0.1 + (0.5 - 0.1) * (1 - step / 750) ** 3  # equation 1, in density
        for layer in LAYERS:
            assert kept[layer.name] == round(density * layer.size)


def test_gradual_pruning_reaches_its_density_at_the_end_whatever_the_interval() -> None:
    counts = played(GradualPruning(density=0.1, end="75%", every="400it", budget="global"))
    assert list(counts) == [400, 750]
    assert sum(counts[750].values()) == round(0.1 * sum(layer.size for layer in LAYERS))


def test_ac_dc_has_the_published_phases_and_densities() -> None:
    update = AcDc(density=0.1, warmup="100it", phase="200it", last="850it")
    size = sum(layer.size for layer in LAYERS)
    totals = {step: sum(kept.values()) for step, kept in played(update).items()}
    sparse_size = round(0.1 * size)
    assert totals == {100: sparse_size, 300: size, 500: sparse_size, 700: size, 850: sparse_size}


def plain_rigl(net: TrainingNetwork, share: float) -> dict[str, set[int]]:
    """By layer: the living weights after one change, as a plain loop over single weights."""
    alive_after = {}
    gradients = net.gradients()
    for layer in net.layers:
        weight = net.weights[layer.name].flatten().tolist()
        slope = gradients[layer.name].flatten().tolist()
        alive = [
            i for i, is_alive in enumerate(net.masks[layer.name].flatten().tolist()) if is_alive
        ]
        count = min(round(share * len(alive)), layer.size - len(alive))
        dropped = sorted(alive, key=lambda i: abs(weight[i]))[:count]
        survivors = set(alive) - set(dropped)
        candidates = [i for i in range(layer.size) if i not in survivors]
        grown = sorted(candidates, key=lambda i: -abs(slope[i]))[:count]
        alive_after[layer.name] = survivors | set(grown)
    return alive_after


def test_rigl_drops_and_grows_what_a_plain_loop_does_over_five_updates() -> None:
    update = RigL(alpha=0.3, every="100it", end="75%")
    assert [step for step in range(1, 1000) if update.due(step, CLOCK)] == list(
        range(100, 750, 100)
    )
    masks = sparse()
    changed = 0
    for step in range(100, 600, 100):
        net = network(step, masks)
        expected = plain_rigl(net, 0.15 * (1 + cos(pi * step / 750)))
        masks = update.update(step, CLOCK, net)
        for layer in LAYERS:
            alive = set(masks[layer.name].flatten().nonzero().flatten().tolist())
            assert alive == expected[layer.name]
            changed += int((masks[layer.name] & ~net.masks[layer.name]).sum())
    assert changed > 100


def test_set_replaces_the_smallest_weights_by_others_at_random() -> None:
    update, net = Set(share=0.3), network(50, sparse())
    masks = update.update(50, CLOCK, net)
    for layer in LAYERS:
        before, after = net.masks[layer.name], masks[layer.name]
        count = round(0.3 * int(before.sum()))
        dropped, grown = before & ~after, after & ~before
        assert int(dropped.sum()) == int(grown.sum()) == count
        magnitude = net.weights[layer.name].abs()
        assert magnitude[dropped].max() <= magnitude[before & after].min()
    regrown = update.regrown(LAYERS[1], network(50))
    assert torch.equal(regrown, update.regrown(LAYERS[1], network(50)))
    assert regrown.std() > 0.5
    assert not Set(values="zero").regrown(LAYERS[1], net).any()


@pytest.mark.parametrize("update", [Set(), RigL(), Set(share=1.0)])
def test_dynamic_sparse_training_keeps_every_layers_density(update: MaskUpdate) -> None:
    masks = sparse()
    start = {name: int(mask.sum()) for name, mask in masks.items()}
    counts = played(update, masks)
    assert len(counts) > 5
    assert all(kept == start for kept in counts.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradualPruning(begin="80%"), "begin"),
        (lambda: GradualPruning(every="0it"), "every"),
        (lambda: RigL(every="0it"), "every"),
        (lambda: AcDc(warmup="90%"), "warmup"),
        (lambda: AcDc(warmup="0it"), r"warmup \(0it\) is no step of a training of 1000"),
    ],
)
def test_times_that_do_not_fit_the_training_are_refused(
    make: Callable[[], MaskUpdate], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make().due(100, CLOCK)


def test_options_are_checked_and_the_plugin_registers_its_updates() -> None:
    with pytest.raises(ValidationError, match="compresses nothing"):
        AcDc(density=1.0)
    with pytest.raises(ValidationError, match=r"initial = 0\.2 is below density = 0\.3"):
        GradualPruning(initial=0.2, density=0.3)
    assert register_components() == [GradualPruning, Set, RigL, AcDc]


# From a recipe to results

PLUGIN = Path(__file__).parents[1]
CODE = PLUGIN / "src" / "lotteryfw_dynamic" / "__init__.py"
WATCHED = '''
import torch
from pathlib import Path
from lotteryfw import MaskUpdate, hookimpl
from lotteryfw_dynamic import RigL

RIGL = RigL(alpha=0.4, every="7it", end="40it")


class Watched(MaskUpdate):
    """RigL, whose networks and masks are written into a folder."""

    use = "watched"
    folder: str

    def due(self, step, clock):
        return RIGL.due(step, clock)

    def budgets(self, step, clock, layers, kept):
        return RIGL.budgets(step, clock, layers, kept)

    def update(self, step, clock, net):
        masks = RIGL.update(step, clock, net)
        shown = {"weights": net.weights, "before": net.masks, "gradients": net.gradients(), "after": masks}
        torch.save({what: dict(tensors) for what, tensors in shown.items()}, Path(self.folder) / f"{step}.pt")
        return masks


@hookimpl
def register_components():
    return [Watched]
'''


def is_installed() -> bool:
    return any(plugin.distribution == "lotteryfw-dynamic" for plugin in Registry.load().plugins)


def recipe(update: object, density: float, length: int = 60) -> dict[str, Any]:
    return {
        "name": "real", "seeds": [3], "evaluate": {"every": "1it"},
        "data": {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5},
        "model": {"use": "mlp", "hidden": [12, 9]}, "initialiser": "kaiming_normal",
        "search": {"use": "during_training", "density": density, "dense": False},
        "train": {
            "length": f"{length}it", "batch": 16, "mask_update": update,
            "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9},
        },
    }  # fmt: skip


def trained(folder: Path, table: dict[str, Any], *files: Path) -> Run:
    trust = files or (() if is_installed() else (CODE,))
    done = run(
        table,
        out=folder / "run",
        store=folder / "store",
        data=folder,
        trust=trust,
        jobs=1,
        device="cpu",
    )
    assert set(done.statuses.values()) == {"done"}
    return done


def densities(done: Run) -> dict[int, float]:
    """By step, the density of the whole network, which the run evaluated at every step."""
    (line,) = (done.path / "curves.jsonl").read_text().splitlines()
    curve = json.loads(line)
    return dict(zip(curve["step"], curve["density"], strict=True))


def test_rigl_in_a_real_training_drops_and_grows_what_a_plain_loop_does(tmp_path: Path) -> None:
    file = tmp_path / "watched.py"
    file.write_text(WATCHED)
    table = recipe({"use": "watched", "folder": str(tmp_path)}, 0.3)
    done = trained(tmp_path, table, file)
    steps = sorted(int(path.stem) for path in tmp_path.glob("*.pt"))
    assert steps == [7, 14, 21, 28, 35]
    masks: dict[str, Tensor] = {}
    moved = 0
    for step in steps:
        seen = torch.load(tmp_path / f"{step}.pt")
        layers = tuple(
            LayerInfo(name, tuple(weight.shape)) for name, weight in seen["weights"].items()
        )
        for name, mask in masks.items():
            assert torch.equal(mask, seen["before"][name])  # nothing else has changed the mask
            assert not seen["weights"][name][~mask].any()
        net = replace(
            network(step), layers=layers, weights=seen["weights"], masks=seen["before"],
            _gradients=partial(seen.get, "gradients"),
        )  # fmt: skip
        expected = plain_rigl(net, 0.2 * (1 + cos(pi * step / 40)))
        masks = seen["after"]
        for name, mask in masks.items():
            assert set(mask.flatten().nonzero().flatten().tolist()) == expected[name]
            moved += int((mask ^ seen["before"][name]).sum())
    assert moved > 100
    (path,) = done.path.glob("tickets/**/level-01.safetensors")
    for name, mask in load_ticket(path).mask.items():
        assert torch.equal(mask, masks[name])


def test_gradual_pruning_has_the_cubic_density_at_every_step_of_a_real_training(
    tmp_path: Path,
) -> None:
    update = {
        "use": "gradual",
        "density": 0.1,
        "begin": "6it",
        "end": "46it",
        "every": "8it",
        "budget": "global",
    }
    done = trained(tmp_path, recipe(update, 1.0))
    measured = densities(done)
    assert list(measured) == list(range(61))
    size = done.levels[-1].weights_total
    for step, density in measured.items():
        # the last change at or before this step
        changed = min(46, 6 + max(0, step - 6) // 8 * 8)
        expected = 0.1 + 0.9 * (1 - (changed - 6) / 40) ** 3  # equation 1, in density
        assert density == pytest.approx(round(expected * size) / size, abs=1e-9)
    assert done.levels[-1].density == measured[60]


def test_ac_dc_has_the_published_density_at_every_step_of_a_real_training(tmp_path: Path) -> None:
    update = {"use": "ac_dc", "density": 0.2, "warmup": "10it", "phase": "8it", "last": "50it"}
    done = trained(tmp_path, recipe(update, 1.0))
    size = done.levels[-1].weights_total
    sparse_density = round(0.2 * size) / size
    for step, density in densities(done).items():
        compressed = step >= 50 or (step >= 10 and (step - 10) // 8 % 2 == 0)
        assert density == pytest.approx(sparse_density if compressed else 1.0, abs=1e-9)


@pytest.mark.parametrize("update", ["set", {"use": "rigl", "every": "5it"}])
def test_dynamic_sparse_training_keeps_its_density_in_a_real_training(
    update: object, tmp_path: Path
) -> None:
    done = trained(tmp_path, recipe(update, 0.3))
    assert len(set(densities(done).values())) == 1
    assert done.levels[-1].density == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"use": "rigl", "every": "0it"}, r"train.mask_update: rigl: every \(0it\) is no step"),
        ({"use": "gradual", "end": "100%"}, r"train.mask_update: gradual: begin"),
        ({"use": "rigl", "every": "90it"}, r"the mask_update 'rigl' never changes a mask"),
        ({"use": "ac_dc", "density": 1}, r"train.mask_update.*compresses nothing"),
        ({"use": "ac_dc", "warmup": "0it"}, r"train.mask_update: ac_dc: warmup \(0it\) is no step"),
    ],
)
def test_times_that_do_not_fit_are_refused_with_the_recipe(
    update: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LotteryError, match=message):
        trained(tmp_path, recipe(update, 1.0))
    assert not (tmp_path / "store" / "objects").exists()


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (GradualPruning, {}),
        (GradualPruning, {"budget": "global"}),
        (Set, {}),
        (Set, {"values": "zero"}),
        (RigL, {}),
        (AcDc, {}),
        (AcDc, {"budget": "layerwise"}),
    ],
)
def test_mask_updates_keep_what_they_promise(
    cls: type[MaskUpdate], options: dict[str, Any]
) -> None:
    trial(cls, options)


def test_its_recipe_runs_and_its_report_shows_how_the_masks_moved(tmp_path: Path) -> None:
    recipe_file = PLUGIN / "recipes" / "dynamic.toml"
    done = run(
        recipe_file, out=tmp_path / "run", store=tmp_path / "store", profile="quick", jobs=1, device="cpu",
        trust=() if is_installed() else (CODE,),
    )  # fmt: skip
    assert set(done.statuses.values()) == {"done"}
    rows = [row for row in done.levels if row.level == 1]
    assert {row.variant for row in rows} == {"ticket", "retrained", "random_mask"}
    assert all(row.density == pytest.approx(0.05, abs=0.001) for row in rows)
    report(done.path)
    page = (done.path / "report.html").read_text()
    assert "churn/fc1.weight" in page
