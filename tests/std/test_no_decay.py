"""`no_decay`: parameters without weight decay, by class, name or pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import Watch, go, recipe
from support.small import cell, dense_job, engine_context, kernel
from torch import nn

from lotteryfw import Optimizer, load_ticket
from lotteryfw.api.errors import RecipeError, UsageError
from lotteryfw.engine import KernelDispatcher
from lotteryfw.std.optimizers import Adam, AdamW, Sgd

OPTIMIZERS = [
    Sgd(lr=0.1, weight_decay=0.1, momentum=0.9, no_decay=["bias", "norm"]),
    Adam(lr=0.1, weight_decay=0.1, no_decay=["bias", "norm"]),
    AdamW(lr=0.1, weight_decay=0.1, no_decay=["bias", "norm"]),
]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.use)
def test_biases_and_norms_do_not_decay_and_weights_do(optimizer: Optimizer) -> None:
    parameters = dict(network().named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    built = optimizer.build(parameters)
    for value in parameters.values():
        # the loss is flat, so that whatever moves has decayed
        value.grad = torch.zeros_like(value)
    built.step()
    moved = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "2.weight"}


def test_names_and_patterns_name_parameters() -> None:
    parameters = dict(network().named_parameters())

    def exempt(*no_decay: str) -> int:
        built = Sgd(lr=0.1, weight_decay=0.1, no_decay=list(no_decay)).build(parameters)
        groups = [group for group in built.param_groups if not group["weight_decay"]]
        return sum(len(group["params"]) for group in groups)

    assert exempt("0.weight") == 1
    assert exempt("1.*") == 2
    assert exempt("bias", "0.*") == 4
    assert exempt("*") == 6
    with pytest.raises(UsageError, match="no parameter is called 'fc9"):
        exempt("fc9.*")


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, no_decay=["bias"]), Adam(no_decay=["bias"])])
def test_without_weight_decay_there_is_one_group(optimizer: Optimizer) -> None:
    assert len(optimizer.build(dict(network().named_parameters())).param_groups) == 1


def test_a_kernel_with_a_rule_of_its_own_says_why_it_does_not_apply() -> None:
    table = {"use": "sgd", "lr": 0.1, "weight_decay": 0.01}
    choose = KernelDispatcher(engine_context())
    plain, exempt = (
        dense_job(cell(optimizer=optimizer))
        for optimizer in (table, table | {"no_decay": ["bias"]})
    )
    assert choose(plain, "lockstep").name == "lockstep"
    for name in ("lockstep", "sparse"):
        with pytest.raises(UsageError, match="the optimizer has 2 groups of them"):
            choose(exempt, name)
    assert choose(exempt, "auto") != kernel("lockstep")
    assert plain.key != exempt.key


def run_of(folder: Path, name: str, **options: Any) -> tuple[Any, Watch]:
    optimizer = {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, **options}
    train = recipe()["train"] | {"optimizer": optimizer}
    rewind = {"use": "to_step", "step": "10it", "optimizer": "saved"}
    return go(folder, recipe(train=train, rewind=rewind), name)


def test_a_study_trains_and_saves_the_state_of_two_groups(tmp_path: Path) -> None:
    first, _ = run_of(tmp_path, "plain")
    second, _ = run_of(tmp_path, "two", no_decay=["bias"])
    values = []
    for result in (first, second):
        assert set(result.statuses.values()) == {"done"}
        (file,) = (result.path / "tickets").rglob("level-02.safetensors")
        values.append(load_ticket(file).values["fc1.bias"])
    # rewound to step 10 of two dense runs, one of which decayed its biases
    assert not torch.equal(*values)


def test_a_pattern_without_a_parameter_is_refused_before_the_run(tmp_path: Path) -> None:
    message = r"train\.optimizer: optimizer 'sgd': no_decay: no parameter is called 'fc9\.\*'"
    with pytest.raises(RecipeError, match=message):
        run_of(tmp_path, "wrong", no_decay=["fc9.*"])
