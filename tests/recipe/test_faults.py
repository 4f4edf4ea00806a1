"""Each mistake in a recipe gives one fault, which says where, what, and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from support.recipes import BASE, CLAIM, CYCLES, IEP, changed, faults, learned, load, train

from lotteryfw.api.errors import RecipeError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry


def _along(**rises_along: Any) -> dict[str, Any]:
    """Return a claim about values along one key."""
    return {"text": "t", "source": "s", "of": {}, "rises_along": rises_along}


ONE_FAULT = {
    "unknown key": (changed(sedes=[1]), "recipe: sedes: unknown key (did you mean 'seeds'"),
    "unknown table": (changed(studdy=[]), "recipe: studdy: unknown key (did you mean 'study'"),
    "unknown component": (
        changed(data="sinthetic"),
        "recipe: data: there is no data source 'sinthetic'; did you mean 'synthetic'",
    ),
    "component of another kind": (
        changed(scope="reinit"),
        "recipe: scope: 'reinit' is not a scope, it is a mask-1 action;",
    ),
    "no component at all": (
        changed(scope=3),
        "recipe: scope: must be the name of a scope, or a table with `use`, got 3",
    ),
    "unknown option": (
        changed(search={"use": "imp", "level": 3}),
        "recipe: search.level: the search 'imp' has no option 'level' (did you mean 'levels'?)",
    ),
    "out of range": (
        train(optimizer={"use": "adam", "lr": -1}),
        "recipe: train.optimizer.lr: must be > 0, got -1",
    ),
    "wrong type": (
        train(optimizer={"use": "adam", "lr": "x"}),
        "recipe: train.optimizer.lr: must be a number, got 'x'",
    ),
    "option missing": (
        train(schedule="multistep"),
        "recipe: train.schedule.milestones: is required",
    ),
    "data missing": (changed(data=None), "recipe: data: is required (known: "),
    "optimizer missing": (
        train(optimizer=None),
        "recipe: train.optimizer: is required (known: adam, ",
    ),
    "length missing": (train(length=None), "recipe: train.length: is required"),
    "train missing a key": (
        train(lenght="3ep"),
        "recipe: train.lenght: unknown key (did you mean 'length'?)",
    ),
    "train no table": (changed(train=3), "recipe: train: must be a table, got 3"),
    "name missing": (changed(name=None), "recipe: name: is required"),
    "odd name": (
        changed(name="A b"),
        "recipe: name: 'A b' is not a valid name: use lower-case letters, digits, - and _",
    ),
    "no length": (
        train(length="50x"),
        "recipe: train.length: '50x' is not a length; lengths are written",
    ),
    "length in percent": (
        train(length="50%"),
        "recipe: train.length: '50%': a percentage of the training cannot be",
    ),
    "length of nothing": (train(length="0ep"), "recipe: train.length: '0ep' is less than one step"),
    "batch of nothing": (train(batch=0), "recipe: train.batch: must be >= 1, got 0"),
    "batch as text": (train(batch="60"), "recipe: train.batch: must be an integer, got '60'"),
    "boolean where a component has an integer": (
        changed(search={"use": "imp", "levels": True}),
        "recipe: search.levels: must be an integer, got true",
    ),
    "text where a component has an integer": (
        changed(search={"use": "imp", "levels": "2"}),
        "recipe: search.levels: must be an integer, got '2'",
    ),
    "boolean where a component has a number with a bound": (
        changed(scope={"rate": True}),
        "recipe: scope.rate: must be a number, got true",
    ),
    "target that is the study itself": (
        changed(target=[{"name": "same", "train": {"batch": 20, "length": "200it"}}]),
        "recipe: target[0]: changes nothing: its trainings would be the study's own",
    ),
    "metric of a study with a fault": (
        train(batch=0)
        | {"evaluate": {"metrics": ["nll"]}, "claim": [CLAIM | {"metric": "metric.nll"}]},
        "recipe: train.batch: must be >= 1, got 0",
    ),
    "option of a component that belongs in train": (
        changed(grid={"mask_update.density": [0.1, 0.2]}),
        "recipe: grid.mask_update.density: is not a key that a grid can vary "
        "(did you mean 'train.mask_update'",
    ),
    "component that belongs in train": (
        changed(grid={"mask_optimizer": ["sgd", "adam"]}),
        "recipe: grid.mask_optimizer: is not a key that a grid can vary "
        "(did you mean 'train.mask_optimizer'",
    ),
    "a fraction where a component has an integer": (
        changed(search={"use": "imp", "levels": 2.0}),
        "recipe: search.levels: must be an integer, got 2.0",
    ),
    "text where a component has a number": (
        train(optimizer={"use": "adam", "lr": "1e-3"}),
        "recipe: train.optimizer.lr: must be a number, got '1e-3'",
    ),
    "text in a component's list": (
        changed(model={"use": "mlp", "hidden": ["30"]}),
        "recipe: model.hidden[0]: must be an integer, got '30'",
    ),
    "text where a grid gives an integer": (
        changed(grid={"search.levels": [1, "2"]}),
        "recipe: grid.search.levels[1]: must be an integer, got '2'",
    ),
    "an analysis twice": (
        changed(analyses=["mask_overlap", {"use": "mask_overlap"}]),
        "recipe: analyses[1]: 'mask_overlap' is listed twice, and its figures would have one name",
    ),
    "batch too large": (
        train(batch=601),
        "recipe: train.batch: a batch of 601 is more than the 600 training examples of",
    ),
    "augmentation": (
        train(augment=["flp"]),
        "recipe: train.augment[0]: there is no augmentation 'flp'; did you mean",
    ),
    "augmentation's option": (
        train(augment=["flip", {"use": "crop", "padding": 0}]),
        "recipe: train.augment[1].padding: must be >= 1, got 0",
    ),
    "seed": (changed(seeds=[0, -1]), "recipe: seeds[1]: must be >= 0, got -1"),
    "seed beyond the limit": (
        changed(seeds=[2**63]),
        "recipe: seeds[0]: 2^63 is beyond the limit of 2^63 - 1 (set LOTTERYFW_MAX_SEED",
    ),
    "seed twice": (changed(seeds=[0, 0]), "recipe: seeds: 0 is listed twice"),
    "no seeds": (changed(seeds=[]), "recipe: seeds: must be at least 1 long, got []"),
    "control": (
        changed(controls=["reinti"]),
        "recipe: controls[0]: there is no control 'reinti'; did you mean 'reinit'?",
    ),
    "conflict": (
        changed(evaluate={"points": 3, "every": "1ep"}),
        "recipe: evaluate: `points` and `every` say the same",
    ),
    "rewind beyond the end": (
        changed(rewind={"use": "to_step", "step": "900it"}),
        "recipe: rewind.step: points at step 900, outside the training of 200 steps",
    ),
    "rewind to the end": (
        changed(rewind={"use": "to_step", "step": "100%"}),
        "recipe: rewind.step: points at step 200, where the training of 200 steps ends: nothing is left to train",
    ),
    "rewind to the end of a cycle": (
        learned(search=IEP, rewind={"use": "to_step", "step": "40it"}),
        "recipe: rewind.step: points at step 40, where a cycle of 40 steps ends: nothing is left to train",
    ),
    "rewind to the end of a shorter cycle": (  # 67, 67 and 66 steps
        learned(search=IEP | {"cycles": 3}, rewind={"use": "to_step", "step": "66it"}),
        "recipe: rewind.step: points at step 66, where a cycle of 66 steps ends",
    ),
    "grid's rewind beyond a cycle": (
        learned(search=IEP, grid={"rewind": ["to_init", {"use": "to_step", "step": "41it"}]}),
        "recipe: grid.rewind[1].step: points at step 41, outside a cycle of 40 steps",
    ),
    "grid's step beyond a cycle": (
        learned(search=IEP, rewind={"use": "to_step"}, grid={"rewind.step": ["39it", "100it"]}),
        "recipe: grid.rewind.step[1]: points at step 100, outside a cycle of 40 steps",
    ),
    "cycle of nothing": (
        learned(search=IEP | {"cycle": "0it"}, **CYCLES),
        "recipe: search.cycle: '0it' is less than one step",
    ),
    "more cycles than steps": (
        learned(search=IEP | {"cycles": 201}, **CYCLES),
        "recipe: search: a training of 200 steps is too short for 201 cycles: each needs at least one step",
    ),
    "densities and a density": (
        learned(search=IEP | {"densities": [0.5, 0.1], "density": 0.1, "cycles": 2}, **CYCLES),
        "recipe: search: `densities` says each cycle's density: leave density and cycles out, or `densities`",
    ),
    "no rewind policy for several cycles": (
        learned(search=IEP),
        "recipe: rewind: is required: the search 'iterative_edge_popup' learns masks in cycles",
    ),
    "grid of nothing": (
        changed(grid={"criterion": []}),
        "recipe: grid.criterion: must be at least 1 long, got []",
    ),
    "grid of no list": (
        changed(grid={"criterion": "random"}),
        "recipe: grid.criterion: must be a list, got 'random'",
    ),
    "grid value": (
        changed(grid={"criterion": ["random", "randm"]}),
        "recipe: grid.criterion[1]: there is no criterion",
    ),
    "grid value's option": (
        changed(grid={"scope": [{"use": "layerwise", "rate": 2}]}),
        "recipe: grid.scope[0].rate: must be <",
    ),
    "grid option": (
        changed(grid={"search.levels": [1, -1]}),
        "recipe: grid.search.levels[1]: must be >= 0, got -1",
    ),
    "grid path": (
        changed(grid={"trian.batch": [1]}),
        "recipe: grid.trian.batch: is not a key that a grid can vary (did you",
    ),
    "grid key": (
        changed(grid={"train.batchh": [1]}),
        "recipe: grid.train.batchh[0]: unknown key (did you mean 'batch'?)",
    ),
    "grid of a component's name": (
        changed(grid={"model.use": ["mlp", "lenet_300_100"]}),
        "recipe: grid.model.use: is not a key that a grid can vary (vary `model` itself)",
    ),
    "grid of an optimizer's name": (
        changed(grid={"train": {"optimizer": {"use": ["adam", "sgd"]}}}),
        "recipe: grid.train.optimizer.use: is not a key that a grid can vary (vary `train.optimizer`",
    ),
    "grid's name of the base's component": (
        train(optimizer={"use": "adam", "lr": 5e-3})
        | {"grid": {"train.optimizer": [{"use": "sgd", "lr": 0.1}, "adam"]}},
        "recipe: grid.train.optimizer[1]: does not have `train.optimizer`'s lr = 0.005 (write it ",
    ),
    "grid's options of the base's component": (
        changed(scope={"rate": 0.35, "rates": {"fc*": 0.1}}, grid={"scope": [{"rate": 0.3}]}),
        "recipe: grid.scope[0]: does not have `scope`'s rates = {'fc*': 0.1} (write it here, or va",
    ),
    "grid's options of another component than the default": (
        changed(scope="global", grid={"scope": [{"rate": 0.3}, "layerwise"]}),
        "recipe: grid.scope[0]: does not have `scope`'s use = 'global' (write the `use` that",
    ),
    "length that a grid replaces": (
        train(length="foo") | {"grid": {"train.length": ["100it", "200it"]}},
        "recipe: train.length: 'foo' is not a length",
    ),
    "option that a grid replaces": (
        changed(scope={"rate": -1}, grid={"scope.rate": [0.1, 0.2]}),
        "recipe: scope.rate: must be >= 0, got -1",
    ),
    "axis in two spellings": (
        changed(grid={"scope.rate": [0.2], "scope": {"rate": [0.3, 0.4]}}),
        "recipe: grid.scope.rate: is there twice",
    ),
    "axis in two other spellings": (
        changed(grid={"train.optimizer": {"lr": [0.2]}, "train": {"optimizer.lr": [0.3, 0.4]}}),
        "recipe: grid.train.optimizer.lr: is there twice",
    ),
    "study's axis in two spellings": (
        changed(
            study=[{"name": "a", "grid": {"scope": {"rate": [0.3, 0.4]}, "scope.rate": [0.2]}}]
        ),
        "recipe: studies.a.grid.scope.rate: is there twice",
    ),
    "grid twice": (
        changed(grid={"search.levels": [1, 1]}),
        "recipe: grid.search.levels: '1' is listed twice",
    ),
    "study without name": (changed(study=[{"seeds": [1]}]), "recipe: study[0].name: is required"),
    "study twice": (
        changed(study=[{"name": "a"}, {"name": "a"}]),
        "recipe: study[1].name: there is a study 'a' already",
    ),
    "study's key": (
        changed(study=[{"name": "a", "sedes": [1]}]),
        "recipe: studies.a.sedes: unknown key (did you mean 'seeds",
    ),
    "study's option": (
        changed(study=[{"name": "a", "search": {"levels": -1}}, {"name": "b"}]),
        "recipe: studies.a.search.levels: must be >= 0, got -1",
    ),
    "study's grid": (
        changed(study=[{"name": "a", "grid": {"criterion": ["randm"]}}]),
        "recipe: studies.a.grid.criterion[0]: there is no criterion 'randm'",
    ),
    "not a number": (
        train(optimizer={"use": "adam", "lr": float("nan")}),
        "recipe: train.optimizer.lr: must be a finite number, got nan",
    ),
    "a study's not a number": (
        changed(study=[{"name": "a", "train": {"optimizer": {"lr": float("nan")}}}, {"name": "b"}]),
        "recipe: studies.a.train.optimizer.lr: must be a finite number, got nan",
    ),
    "a grid's not a number": (
        changed(grid={"train.optimizer.lr": [0.1, float("nan")]}),
        "recipe: grid.train.optimizer.lr[1]: must be a finite number, got nan",
    ),
    "measured at no distance": (
        changed(evaluate={"every": "0it"}),
        "recipe: evaluate.every: must be at least one step, got '0it'",
    ),
    "measured more often than a step": (
        changed(evaluate={"every": "0.1%"}),
        "recipe: evaluate.every: must be at least one step, got '0.1%'",
    ),
    "milestone beyond the end": (
        train(schedule={"use": "multistep", "milestones": ["200it", "999ep"]}),
        "recipe: train.schedule.milestones[1]: '999ep' is 29970 steps; the training has only 200",
    ),
    "warmup beyond the end": (
        train(schedule={"warmup": "201it"}),
        "recipe: train.schedule.warmup: '201it' is 201 steps; the training has only 200",
    ),
    "grid's schedule beyond the end": (
        changed(grid={"train.schedule": ["constant", {"use": "cosine", "warmup": "201it"}]}),
        "recipe: grid.train.schedule[1].warmup: '201it' is 201 steps",
    ),
    "option of what a grid replaces": (
        changed(
            criterion={"use": "large_final", "x": 1}, grid={"criterion": ["random", "large_final"]}
        ),
        "recipe: criterion.x: the criterion 'large_final' has no option 'x'",
    ),
    "optimizer that a grid replaces": (
        train(optimizer={"use": "adam", "lr": -1})
        | {"grid": {"train.optimizer": [{"use": "adam", "lr": 0.1}]}},
        "recipe: train.optimizer.lr: must be > 0, got -1",
    ),
    "augmentation that a grid replaces": (
        train(augment=["flip", "flp"]) | {"grid": {"train.augment": [[], ["flip"]]}},
        "recipe: train.augment[1]: there is no augmentation 'flp'",
    ),
    "infinity": (
        train(optimizer={"use": "adam", "lr": float("inf")}),
        "recipe: train.optimizer.lr: must be a finite number",
    ),
    "metric": (
        changed(claim=[CLAIM | {"metric": "accuracy"}]),
        "recipe: claim[0].metric: there is no metric 'accuracy'; did you mean 'test_accuracy'",
    ),
    "metric of an analysis that is not asked for": (
        changed(claim=[CLAIM | {"metric": "dying_edges.turnover"}], analyses=["mask_diagnostics"]),
        "recipe: claim[0].metric: the study 'small' asks for no analysis 'dying_edges' (add 'dying_edges' to its",
    ),
    "metric of no analysis": (
        changed(claim=[CLAIM | {"metric": "dying_edge.turnover"}], analyses=["dying_edges"]),
        "recipe: claim[0].metric: the study 'small' asks for no analysis 'dying_edge' (did you mean 'dying_edges'",
    ),
    "claim of no form": (
        changed(claim=[CLAIM | {"expect": None}]),
        "recipe: claim[0]: say either `higher` and `lower`, or `higher` and `lower` and `tolerance`",
    ),
    "claim of two forms": (
        changed(claim=[CLAIM | {"higher": {}, "lower": {}}]),
        "recipe: claim[0]: say either `higher`",
    ),
    "claim's density": (
        changed(claim=[CLAIM | {"density": [0.5, 0.1]}]),
        "recipe: claim[0].density: must be [lowest, highest], or one density",
    ),
    "claim's percentage": (
        changed(claim=[CLAIM | {"density": [0, 50]}]),
        "recipe: claim[0].density[1]: must be <= 1, got 50",
    ),
    "claim's study": (
        changed(claim=[CLAIM | {"study": "b"}], study=[{"name": "a"}]),
        "recipe: claim[0].study: there is no study 'b' (known: a)",
    ),
    "claim's missing study": (
        changed(claim=[CLAIM], study=[{"name": "a"}, {"name": "b"}]),
        "recipe: claim[0].study: is required where there are several studies (known: a, b)",
    ),
    "claim's axis": (
        changed(claim=[CLAIM | {"of": {"criterio": "x"}}]),
        "recipe: claim[0].of.criterio: is not a key that a",
    ),
    "claim's value": (
        changed(claim=[CLAIM | {"of": {"criterion": "randm"}}]),
        "recipe: claim[0].of.criterion: there is no",
    ),
    "claim's variant": (
        changed(claim=[CLAIM | {"of": {"variant": "reint"}}]),
        "recipe: claim[0].of.variant: there is no variant 'reint' (did you mean 'reinit'",
    ),
    "claim's control that the study has not": (
        changed(claim=[CLAIM | {"of": {"variant": "reinit"}}]),
        "recipe: claim[0].of.variant: the study 'small' has no control 'reinit' (add 'reinit' to",
    ),
    "claim's axis that the study has not": (
        changed(claim=[CLAIM | {"of": {"scope.rate": 0.2}}], grid={"scope.rates": [{"fc1": 0.1}]}),
        "recipe: claim[0].of.scope.rate: the study 'small' has no axis 'scope.rate' (did you mean",
    ),
    "claim's value that no cell has": (
        changed(
            claim=[CLAIM | {"of": {"criterion": "movement"}}],
            grid={"criterion": ["large_final", "random"]},
        ),
        "recipe: claim[0].of.criterion: the study 'small' has no cell with criterion = movement (k",
    ),
    "claim's repeated value that no cell has": (
        changed(
            claim=[CLAIM | {"for_each": {"criterion": ["random", "movement"]}}],
            grid={"criterion": ["large_final", "random"]},
        ),
        "recipe: claim[0].for_each.criterion[1]: the study 'small' has no cell with criterion = mo",
    ),
    "claim's trend over a value that no cell has": (
        changed(
            claim=[
                {"text": "t", "source": "s", "of": {}}
                | {"rises_along": {"criterion": ["random", "movement"]}}
            ],
            grid={"criterion": ["large_final", "random"]},
        ),
        "recipe: claim[0].rises_along.criterion[1]: the study 'small' has no cell with criterion = mo",
    ),
    "claim's figure": (
        changed(
            claim=[CLAIM | {"metric": "mask_diagnostics.sign_agrement"}],
            analyses=["mask_diagnostics"],
        ),
        "recipe: claim[0].metric: the analysis 'mask_diagnostics' has no figure 'sign_agrement' (d",
    ),
    "claim's side's study": (
        changed(claim=[CLAIM | {"study": "a", "of": {"study": "b"}}], study=[{"name": "a"}]),
        "recipe: claim[0].of.study: there is no study 'b' (known: a)",
    ),
    "claim's side's metric": (
        changed(claim=[CLAIM | {"of": {"metric": "accuracy"}}]),
        "recipe: claim[0].of.metric: there is no metric 'accuracy'; did you mean 'test_accuracy'",
    ),
    "claim's side's density": (
        changed(claim=[CLAIM | {"of": {"density": [0.5, 0.1]}}]),
        "recipe: claim[0].of.density: must be [lowest, highest], or one density",
    ),
    "claim's misspelt key": (
        changed(claim=[CLAIM | {"of": {"varient": "reinit"}}]),
        "recipe: claim[0].of.varient: is not a key that a grid can vary (did you mean 'variant'?)",
    ),
    "claim's trend over densities that are text": (
        changed(claim=[_along(density=["a", 0.1])]),
        "recipe: claim[0].rises_along.density[0]: must be [lowest, highest], or one density, got 'a'",
    ),
    "claim's trend over text of two letters": (
        changed(claim=[_along(density=[0.1, "cd"])]),
        "recipe: claim[0].rises_along.density[1]: must be [lowest, highest], or one density, got 'cd'",
    ),
    "claim's trend over a list of three densities": (
        changed(claim=[_along(density=[[0.1, 0.2, 0.3], 0.4])]),
        "recipe: claim[0].rises_along.density[0]: must be at most 2 long, got [0.1, 0.2, 0.3]",
    ),
    "claim's trend over booleans": (
        changed(claim=[_along(density=[0.1, True])]),
        "recipe: claim[0].rises_along.density[1]: must be [lowest, highest], or one density, got true",
    ),
    "claim's trend over a variant that is no text": (
        changed(claim=[_along(variant=["ticket", 2])]),
        "recipe: claim[0].rises_along.variant[1]: must be a string, got 2",
    ),
    "claim's trend over a study that is no text": (
        changed(claim=[_along(study=["small", {}])]),
        "recipe: claim[0].rises_along.study[1]: must be a string, got {}",
    ),
    "claim's trend over a metric that is no text": (
        changed(claim=[_along(metric=["test_loss", 2])]),
        "recipe: claim[0].rises_along.metric[1]: must be a string, got 2",
    ),
    "claim's trend over a metric that is not there": (
        changed(claim=[_along(metric=["test_loss", "metric.x"])]),
        "recipe: claim[0].rises_along.metric[1]: the study 'small' measures no 'x'",
    ),
    "claim's trend over a place that is none": (
        changed(claim=[_along(at=["last level", "foo"])]),
        "recipe: claim[0].rises_along.at[1]: must be 'every level', 'best level' or 'last level', ",
    ),
    "claim's trend over one value twice": (
        changed(claim=[_along(density=[0.8, 0.5, [0.8, 0.8]])]),
        "recipe: claim[0].rises_along.density[2]: is the same as rises_along.density[0]",
    ),
    "claim's trend over a component twice": (
        changed(
            claim=[_along(criterion=["random", {"use": "random"}])],
            grid={"criterion": ["large_final", "random"]},
        ),
        "recipe: claim[0].rises_along.criterion[1]: is the same as rises_along.criterion[0]",
    ),
    "claim's trend along a key that its side has": (
        changed(claim=[_along(density=[0.8, 0.5]) | {"of": {"density": 1.0}}]),
        "recipe: claim[0].of.density: has no effect: `rises_along` has the key, too",
    ),
    "claim repeated over what every side says": (
        changed(claim=[CLAIM | {"for_each": {"density": [0.8, 0.64]}, "of": {"density": 1.0}}]),
        "recipe: claim[0].for_each.density: has no effect: no side of the claim takes it",
    ),
    "claim repeated over what its trend says": (
        changed(claim=[_along(density=[0.8, 0.5]) | {"for_each": {"density": [0.8, 0.64]}}]),
        "recipe: claim[0].for_each.density: has no effect: no side of the claim takes it",
    ),
    "claim repeated for a side that it has not": (
        changed(claim=[CLAIM | {"for_each": {"like.density": [0.8, 0.64]}}]),
        "recipe: claim[0].for_each.like.density: has no effect: no side of the claim takes it",
    ),
    "claim repeated over one value twice": (
        changed(claim=[CLAIM | {"for_each": {"density": [0.8, 0.64, 0.8]}}]),
        "recipe: claim[0].for_each.density[2]: is the same as for_each.density[0]",
    ),
    "claim repeated over one component twice": (
        changed(
            claim=[CLAIM | {"for_each": {"of.criterion": ["random", {"use": "random"}]}}],
            grid={"criterion": ["large_final", "random"]},
        ),
        "recipe: claim[0].for_each.of.criterion[1]: is the same as for_each.of.criterion[0]",
    ),
    "claim whose text has no such key": (
        changed(claim=[CLAIM | {"text": "at {densty}", "for_each": {"density": [0.8, 0.64]}}]),
        "recipe: claim[0].text: {densty} is no key of `for_each` (did you mean 'density'?)",
    ),
    "claim of two equal sides": (
        changed(claim=[{"text": "t", "source": "s", "higher": {}, "lower": {}}]),
        "recipe: claim[0].lower: is the same side as `higher`",
    ),
    "claim of sides that are equal as they are resolved": (
        changed(
            claim=[
                {"text": "t", "source": "s", "of": {}, "metric": "test_loss"}
                | {"rises_with": {"metric": "test_loss", "density": [0, 1]}}
            ],
        ),
        "recipe: claim[0].rises_with: is the same side as `of`",
    ),
    "claim of sides that a repetition makes equal": (
        changed(
            claim=[
                {"text": "t", "source": "s", "higher": {"density": 0.5}, "lower": {}}
                | {"for_each": {"lower.density": [0.2, 0.5]}}
            ],
        ),
        "recipe: claim[0].for_each.lower.density[1]: is the same side as `higher`",
    ),
    "claim's tolerance without a reason": (
        changed(claim=[CLAIM | {"tolerance_reason": None}]),
        "recipe: claim[0]: `tolerance` needs its reason: say it in `tolerance_reason`",
    ),
}


def test_a_profile_that_leaves_out_a_claims_cells_makes_it_untested(tmp_path: Path) -> None:
    small = {"grid": {"criterion": ["random"]}}
    recipe = changed(
        claim=[CLAIM | {"of": {"criterion": "large_final"}}],
        grid={"criterion": ["large_final", "random"]},
        profiles={"small": small},
    )
    registry = Registry.load()
    loaded = load_recipe(recipe, registry, data_folder=tmp_path, profile="small")
    reason = "the study 'small' has no cell with criterion = large_final"
    assert loaded.claims[0].untested == reason
    # what is resolved runs by itself, without the profile
    again = load_recipe(loaded.resolved(), registry, data_folder=tmp_path)
    assert again.claims == loaded.claims
    # a name that does not exist at all is a mistake in any profile
    recipe["claim"] = [CLAIM | {"of": {"criterion": "large_finl"}}]
    with pytest.raises(RecipeError, match="large_finl"):
        load_recipe(recipe, registry, data_folder=tmp_path, profile="small")


def test_chosen_studies_run_alone_and_claims_about_others_are_untested(tmp_path: Path) -> None:
    studies = [
        {"name": "one", "grid": {"criterion": ["large_final", "random"]}},
        {"name": "two", "criterion": "random"},
    ]
    about_one = CLAIM | {"study": "one", "of": {"criterion": "random"}}
    about_two = CLAIM | {"study": "two", "of": {}}
    recipe = changed(study=studies, claim=[about_one, about_two])
    registry = Registry.load()
    loaded = load_recipe(recipe, registry, data_folder=tmp_path, studies=["two"])
    assert {cell.study for cell in loaded.cells} == {"two"}
    assert [study["name"] for study in loaded.resolved()["study"]] == ["two"]
    left_out = "this run leaves out the study 'one'"
    assert [claim.untested for claim in loaded.claims] == [left_out, ""]
    # in the recipe's order, whatever that of the names
    both = load_recipe(recipe, registry, data_folder=tmp_path, studies=["two", "one"])
    assert both.cells == load_recipe(recipe, registry, data_folder=tmp_path).cells
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, registry, data_folder=tmp_path, studies=["twoo"])
    expected = "--study: twoo: there is no such study (did you mean 'two'?)"
    assert [str(fault) for fault in caught.value.faults] == [expected]


def test_of_chosen_studies_alone_the_faults_are_told(tmp_path: Path) -> None:
    """A length that `--set` gives them may be too short for another study's schedule."""
    late = {"schedule": {"use": "multistep", "milestones": ["900it"]}}
    recipe = changed(study=[{"name": "one"}, {"name": "late", "train": late}])
    registry = Registry.load()
    assert load_recipe(recipe, registry, data_folder=tmp_path, studies=["one"]).cells
    for studies in ([], ["late"], ["one", "late"]):
        with pytest.raises(RecipeError) as caught:
            load_recipe(recipe, registry, data_folder=tmp_path, studies=studies)
        (fault,) = caught.value.faults
        assert "studies.late.train.schedule.milestones[0]" in str(fault)


def test_claims_are_repeated_for_each_combination_of_values(tmp_path: Path) -> None:
    claim = {
        "text": "{higher.criterion} beats {lower.criterion} at {density}",
        "source": "s",
        "for_each": {
            "higher.criterion": ["large_final", "movement"],
            "lower.criterion": ["random"],
            "density": [0.5, 0.1],
        },
        "higher": {},
        "lower": {"density": 1.0},
    }
    grid = {"criterion": ["large_final", "movement", "random"]}
    recipe = changed(claim=[claim], grid=grid)
    claims = load_recipe(recipe, Registry.load(), data_folder=tmp_path).claims
    assert [one.text for one in claims] == [
        "large_final beats random at 50 %",
        "large_final beats random at 10 %",
        "movement beats random at 50 %",
        "movement beats random at 10 %",
    ]
    sides = claims[1].sides()
    assert (sides["higher"].axes, sides["higher"].density) == (
        {"criterion": "large_final"},
        (0.1, 0.1),
    )
    # what a side says itself counts
    assert (sides["lower"].axes, sides["lower"].density) == ({"criterion": "random"}, (1.0, 1.0))


@pytest.mark.parametrize("key", ["for_each", "rises_along"])
def test_none_among_the_values_of_a_claim_is_one_fault(key: str) -> None:
    """In a recipe from Python: TOML has no null."""
    values = {"metric": ["test_loss", None]}
    claim = _along(**values) if key == "rises_along" else CLAIM | {"for_each": values}
    assert faults(changed(claim=[claim])) == [
        f"recipe: claim[0].{key}.metric[1]: must be a string, a number, a boolean, a list or a "
        "table, got a NoneType"
    ]


def test_a_side_takes_the_value_that_for_each_has_for_it_alone() -> None:
    claim = {
        "text": "{criterion} is not {higher.criterion}",
        "source": "s",
        "higher": {},
        "lower": {},
        "for_each": {"higher.criterion": ["large_final"], "criterion": ["random"]},
    }
    (loaded,) = load(changed(claim=[claim], grid={"criterion": ["large_final", "random"]})).claims
    sides = loaded.sides()
    assert sides["higher"].axes == {"criterion": "large_final"}
    assert sides["lower"].axes == {"criterion": "random"}


def test_a_claim_of_the_extended_recipe_may_be_about_a_study_that_is_replaced(
    tmp_path: Path,
) -> None:
    parent, child = tmp_path / "parent.toml", tmp_path / "child.toml"
    claims = [CLAIM | {"study": "a"}]
    parent.write_text(tomli_w.dumps(changed(study=[{"name": "a"}, {"name": "b"}], claim=claims)))
    child.write_text('extends = "parent.toml"\n[[study]]\nname = "c"\n')
    (claim,) = load(child).claims
    assert claim.untested == "there is no study 'a'"
    # a claim of its own has no such excuse
    child.write_text(child.read_text() + tomli_w.dumps({"claim": claims}))
    assert faults(child) == [f"{child}: claim[0].study: there is no study 'a' (known: c)"]


def test_the_recipe_these_start_from_is_right() -> None:
    assert faults(BASE) == []


@pytest.mark.parametrize("case", ONE_FAULT)
def test_one_mistake_gives_one_fault(case: str) -> None:
    recipe, expected = ONE_FAULT[case]
    found = faults(recipe)
    # where the whole of `train` is unusable, its required keys are missing as well
    assert found[0].startswith(expected), found
    assert len(found) == (4 if case == "train no table" else 1), found
