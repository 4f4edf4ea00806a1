"""What torch is set to while a job runs, by `engine.deterministic` and on the CPU; nothing stays so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import recipe
from support.small import cell, dense_job

from lotteryfw import Augmentation, NetworkCriterion, Probe
from lotteryfw.engine import configure_torch
from lotteryfw.engine.arithmetic import algorithms_of
from lotteryfw.runner import StudyContext, run_study
from lotteryfw.search.numerics import numerics

seen: set[tuple[bool, bool]] = set()
"""What the augmentation below saw: whether algorithms must repeat, and whether they are tried."""
denormals: list[float] = []
"""What it saw of the smallest float32 numbers."""


def smallest() -> float:
    """Return a denormal number as this thread computes with it."""
    return float(torch.tensor(1e-39) * 1)


class Watching(Augmentation):
    """Changes nothing, and notes how cuDNN is set while a job runs."""

    use = "watching"
    fails: bool = False

    def apply(self, images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        seen.add((torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark))
        denormals.append(smallest())
        if self.fails:
            raise ValueError("no such image")
        return images


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    configure_torch()
    seen.clear()
    denormals.clear()
    yield
    assert smallest() > 0
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def watched(deterministic: bool | None, fails: bool = False) -> dict[str, object]:
    table = recipe(engine={} if deterministic is None else {"deterministic": deterministic})
    table["train"] = table["train"] | {"augment": [{"use": "watching", "fails": fails}]}
    return table


@pytest.mark.parametrize("deterministic", [None, True, False])
def test_a_job_sets_cudnn_for_itself_alone(deterministic: bool | None, tmp_path: Path) -> None:
    done = run_study(
        watched(deterministic), out=tmp_path / "run", store=tmp_path / "store", data=tmp_path,
        components=[Watching], jobs=1, device="cpu",
    )  # fmt: skip
    assert set(done.statuses.values()) == {"done"}
    assert seen == ({(False, True)} if deterministic is False else {(True, False)})


def test_a_job_that_fails_leaves_the_settings_as_they_were(tmp_path: Path) -> None:
    done = run_study(
        watched(False, fails=True), out=tmp_path / "run", store=tmp_path / "store", data=tmp_path,
        components=[Watching], jobs=1, device="cpu",
    )  # fmt: skip
    assert set(done.statuses.values()) == {"failed"}
    assert seen == {(False, True)}


def test_the_key_has_it_only_where_it_is_false() -> None:
    plain = dense_job(cell(10))
    assert "deterministic" not in plain.source
    assert replace(plain, deterministic=False).source["deterministic"] is False
    assert replace(plain, deterministic=False).key != plain.key


def test_the_origin_of_a_ticket_has_it_too(tmp_path: Path) -> None:
    """Else results would be found by their origins that were computed in the other way."""
    keys = []
    for deterministic in (True, False):
        table = recipe(engine={"deterministic": deterministic}, evaluate={"metrics": ["nll"]})
        done = run_study(
            table, out=tmp_path / str(deterministic), store=tmp_path / "store", data=tmp_path,
            jobs=1, device="cpu",
        )  # fmt: skip
        keys.append({row.key for row in done.levels})
        (first, *_) = StudyContext(table, data=tmp_path, store=tmp_path / "store").recipe.cells
        assert first.deterministic is deterministic
    assert not keys[0] & keys[1]


@pytest.mark.parametrize("fails", [False, True])
def test_denormal_numbers_are_zeros_in_a_job_alone(fails: bool, tmp_path: Path) -> None:
    run_study(
        watched(None, fails), out=tmp_path / "run", store=tmp_path / "store", data=tmp_path,
        components=[Watching], jobs=1, device="cpu",
    )  # fmt: skip
    assert denormals
    assert set(denormals) == {0.0}


class SeesDenormals(NetworkCriterion):
    """Keeps whatever comes first, and notes what a probe computes with."""

    use = "sees_denormals"

    def scores(self, probe: Probe) -> Mapping[str, torch.Tensor]:
        denormals.append(smallest())
        return {layer.name: torch.zeros(layer.shape) for layer in probe.layers}


def test_denormal_numbers_are_zeros_in_a_probe(tmp_path: Path) -> None:
    table = recipe(criterion="sees_denormals", search={"use": "at_init", "densities": [0.5]})
    run_study(
        table, out=tmp_path / "run", store=tmp_path / "store", data=tmp_path,
        components=[SeesDenormals], jobs=1, device="cpu",
    )  # fmt: skip
    assert set(denormals) == {0.0}


def test_a_setting_of_the_caller_stays() -> None:
    torch.set_flush_denormal(True)
    try:
        with algorithms_of(dense_job(cell(10))):
            assert smallest() == 0
        assert smallest() == 0
    finally:
        torch.set_flush_denormal(False)
    with algorithms_of(replace(dense_job(cell(10)), device="cuda")):
        assert smallest() > 0


def test_keys_of_the_cpu_alone_say_how_denormal_numbers_count() -> None:
    assert numerics("cpu")["denormals"] == "zero"
    assert numerics("cuda").keys() == {"torch", "device"}


def _precisions() -> list[Any]:
    """The places where torch lets float32 be rounded, of the versions that have them."""
    backends = torch.backends
    modules = [
        backends, backends.mkldnn, backends.cuda.matmul, backends.cudnn,
        *(getattr(backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn")),
        *(getattr(backends.cudnn, name, None) for name in ("conv", "rnn")),
    ]  # fmt: skip
    return [module for module in modules if hasattr(module, "fp32_precision")]


def _product() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=generator) for _ in range(2))
    return left @ right


@pytest.mark.parametrize("value", ["bf16", "tf32"])
def test_the_precision_that_a_session_set_is_set_back(value: str) -> None:
    for module in _precisions():
        # not every one takes every value
        with contextlib.suppress(RuntimeError):
            module.fp32_precision = value
    configure_torch()
    assert {module.fp32_precision for module in _precisions()} <= {"none", "ieee"}
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_matrix_products_that_a_session_set_are_set_back() -> None:
    expected = _product()
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.enabled = False
    torch.backends.cudnn.enabled = False
    configure_torch()
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled
    assert torch.equal(_product(), expected)


@pytest.mark.parametrize(
    ("device", "variable"),
    [
        ("cpu", "MKL_CBWR"),
        ("cpu", "ONEDNN_DEFAULT_FPMATH_MODE"),
        ("cpu", "DNNL_DEFAULT_FPMATH_MODE"),
        ("cuda", "NVIDIA_TF32_OVERRIDE"),
    ],
)
def test_variables_that_change_the_arithmetic_are_in_keys_where_they_are_set(
    device: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    other = "cuda" if device == "cpu" else "cpu"
    plain, plain_elsewhere = numerics(device), numerics(other)
    monkeypatch.setenv(variable, "1")
    assert numerics(device) == {**plain, variable: "1"}
    assert numerics(other) == plain_elsewhere
    # an empty variable sets nothing
    monkeypatch.setenv(variable, "")
    assert numerics(device) == plain
