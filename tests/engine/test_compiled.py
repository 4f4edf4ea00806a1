"""`engine.compile`: trainings whose forward passes `torch.compile` has made a program of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import files, go, recipe
from support.small import cell, dense_job, engine_context, kernel

from lotteryfw.api.errors import UsageError
from lotteryfw.engine import KernelDispatcher
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.search.jobs import Train

STEPS = 20


def compiled_job(**changes: Any) -> Train:
    job = dense_job(cell(STEPS, **changes))
    return replace(job, kernel=kernel("reference"), compiled=True)


def trained(job: Train) -> tuple[list[float], Reference]:
    reference = Reference(job, engine_context())
    return [float(reference.update(step, 1.0)) for step in range(STEPS)], reference


def test_the_key_has_it_only_where_it_is_true() -> None:
    job = compiled_job()
    plain = replace(job, compiled=False)
    assert "compiled" not in plain.source
    assert job.source["compiled"] is True
    assert job.key != plain.key


def test_kernels_that_compute_by_themselves_are_not_chosen_beside_it() -> None:
    choose = KernelDispatcher(engine_context())
    job = compiled_job()
    assert choose(replace(job, compiled=False), "auto").name in ("lockstep", "fused")
    assert choose(job, "auto").name == "reference"
    with pytest.raises(UsageError, match=r"without torch\.compile, and engine.compile is true"):
        choose(job, "lockstep")


@pytest.mark.large
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here"
)
def test_compiled_trainings_agree_with_plain_ones() -> None:
    job = compiled_job()
    losses, ours = trained(job)
    plain_losses, plain = trained(replace(job, compiled=False))
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    for name, value in ours.network.parameters.items():
        torch.testing.assert_close(value, plain.network.parameters[name], rtol=1e-3, atol=1e-5)
    # The compiled program is what ran: no warning says otherwise, and it is called once a step.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def broken(forward: Callable[..., Any]) -> Callable[..., Any]:
    """What `torch.compile` returns on a machine without a compiler."""

    def call(*_: Any) -> Any:
        raise RuntimeError("no compiler was found\nset one")

    return call


def test_without_a_compiler_the_training_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    job = compiled_job()
    losses, plain = trained(replace(job, compiled=False))
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(RuntimeWarning, match="runs as it is: RuntimeError: no compiler") as caught:
        ours_losses, ours = trained(job)
    assert len(caught) == 1
    assert ours_losses == losses
    for name, value in ours.network.parameters.items():
        assert torch.equal(value, plain.network.parameters[name])


def test_an_error_of_the_network_is_not_taken_for_the_compilers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    reference = Reference(compiled_job(), engine_context())

    def fail(*_: Any) -> Any:
        raise ValueError("these inputs cannot be read")

    reference.network.module.register_forward_hook(fail)
    with pytest.raises(ValueError, match="these inputs cannot be read"):
        reference.update(0, 1.0)


def test_a_recipe_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Callable[..., Any]] = []

    def recorded(forward: Callable[..., Any]) -> Callable[..., Any]:
        made.append(forward)
        return forward

    monkeypatch.setattr(torch, "compile", recorded)
    plain, _ = go(tmp_path, recipe(engine={"kernel": "reference"}), "plain")
    assert not made
    done, watch = go(tmp_path, recipe(engine={"kernel": "reference", "compile": True}), "compiled")
    assert len(made) == len(watch.trained) == 3
    assert files(done.path)["curves.jsonl"] == files(plain.path)["curves.jsonl"]
