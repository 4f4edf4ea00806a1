"""What a run trains on is what the data source promised, and what its key says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.idx_files import write_idx
from support.small import DATA, REGISTRY, cell, dense_job

from lotteryfw.api import fingerprints
from lotteryfw.api.data import Dataset, DatasetInfo, Subset
from lotteryfw.api.errors import ContractError, DataError, PluginError
from lotteryfw.api.kinds import DataSource
from lotteryfw.engine import EngineContext, load_dataset
from lotteryfw.runner import StudyContext
from lotteryfw.runner import run_study as run
from lotteryfw.std.synthetic import Synthetic
from lotteryfw.std.torchvision_sets import Mnist

FACTS = DatasetInfo((2, 3, 3), 4, train=2500, validation=8, test=4)


class Promising(DataSource):
    """Promises FACTS, and loads what it is made with."""

    use = "promising"
    _splits: Any = None
    _facts: Any = FACTS

    def facts(self, folder: Path) -> DatasetInfo:
        if isinstance(self._facts, Exception):
            raise self._facts
        return self._facts

    def load(self, folder: Path) -> Dataset:
        return self._splits


def parts(dtype: torch.dtype = torch.float32, **changes: Any) -> Dataset:
    sizes = (FACTS.train, FACTS.validation, FACTS.test)
    rows = [
        Subset(torch.ones((size, *FACTS.shape), dtype=dtype), torch.arange(size) % 4)
        for size in sizes
    ]
    return replace(Dataset(*rows), **changes)


def loaded(splits: Any, facts: Any = FACTS) -> Dataset:
    source = Promising()
    source._splits, source._facts = splits, facts
    return load_dataset(source, Path("unused"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_data_that_keeps_its_promise_is_loaded_as_it_is(dtype: torch.dtype) -> None:
    splits = parts(dtype, mean=(0.5, 0.25), std=(1.0, 2.0))
    assert loaded(splits) is splits


def test_a_part_of_another_size_or_shape_is_refused() -> None:
    whole = parts()
    less = Subset(whole.test.inputs[1:], whole.test.labels[1:])
    with pytest.raises(
        ContractError, match="data 'promising': test has 3 examples; its facts promise 4"
    ):
        loaded(replace(whole, test=less))
    flat = Subset(whole.validation.inputs.flatten(2), whole.validation.labels)
    with pytest.raises(
        ContractError,
        match=r"validation has inputs of shape \[2, 9\]; its facts promise \[2, 3, 3\]",
    ):
        loaded(replace(whole, validation=flat))
    with pytest.raises(
        ContractError, match=r"test has labels of shape \[4, 1\]; its facts promise"
    ):
        loaded(replace(whole, test=Subset(whole.test.inputs, whole.test.labels[:, None])))
    with pytest.raises(
        ContractError, match=r"mean is \(0.0, 0.0, 0.0\); .* one for each of 2 channels"
    ):
        loaded(replace(whole, mean=(0.0, 0.0, 0.0)))
    with pytest.raises(ContractError, match=r"std is \(0.0,\); .* must be positive"):
        loaded(replace(whole, std=(0.0,)))
    with pytest.raises(ContractError, match=r"load\(\) returned list, not Dataset"):
        loaded([whole])
    with pytest.raises(
        PluginError, match=r"data 'promising' broke in facts\(\): KeyError: 'train_x'"
    ):
        loaded(whole, KeyError("train_x"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_inputs_that_are_not_finite_are_refused_with_their_place(value: float) -> None:
    splits = parts()
    splits.train.inputs[2345, 1, 2, 0] = value
    with pytest.raises(
        DataError,
        match=rf"'promising': train has the input {value} at example 2345, .*\(1 of its 18",
    ):
        loaded(splits)


@pytest.mark.parametrize("value", [-100, -1, 3])
def test_labels_outside_the_classes_are_refused_where_they_are_read(
    value: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load_right = Synthetic.load

    def load_wrong(self: Synthetic, folder: Path) -> Dataset:
        splits = load_right(self, folder)
        splits.validation.labels[5] = value
        return splits

    monkeypatch.setattr(Synthetic, "load", load_wrong)
    bench = EngineContext(REGISTRY, tmp_path, "cpu")
    with pytest.raises(
        DataError,
        match=rf"synthetic': validation has label {value} at example 5 .*must lie in 0 … 2",
    ):
        bench.dataset_of(dense_job(cell(5)))
    reconstruction = dense_job(cell(5, objective="reconstruction"))
    assert bench.dataset_of(reconstruction).raw("validation")[1][5] == value
    recipe: dict[str, Any] = {
        "name": "wrong", "data": DATA, "model": {"use": "mlp", "hidden": [8]},
        "train": {"length": "20it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
    }  # fmt: skip
    with pytest.raises(DataError, match=r"as the objective '.*classification' reads them"):
        run(recipe, out=tmp_path / "run", store=tmp_path / "store", data=tmp_path, jobs=1)
    assert not (tmp_path / "run" / "levels.csv").exists()
    recipe["train"]["objective"] = "reconstruction"
    run(recipe, out=tmp_path / "other", store=tmp_path / "store", data=tmp_path, jobs=1)


@pytest.fixture
def two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two states of MNIST's files: the images are the same, the labels are not."""
    monkeypatch.setattr(Mnist, "published", replace(Mnist.published, examples=400, test=100))
    monkeypatch.setattr(fingerprints, "cache_folder", lambda: tmp_path / "hashes")
    rng = np.random.default_rng(0)
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        (folder / "MNIST/raw").mkdir(parents=True)
    for part, count in (("train", 400), ("t10k", 100)):
        images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        for folder in folders:
            raw = folder / "MNIST/raw"
            write_idx(raw / f"{part}-images-idx3-ubyte", images)
            write_idx(
                raw / f"{part}-labels-idx1-ubyte", rng.integers(10, size=count, dtype=np.uint8)
            )
    return folders


RECIPE = {
    "name": "files", "data": {"use": "mnist", "validation": 50}, "model": {"use": "mlp", "hidden": [8]},
    "search": {"use": "one_shot", "levels": 1},
    "train": {"length": "20it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
}  # fmt: skip


def figures(data: Path, store: Path, out: Path) -> str:
    run(RECIPE, out=out, store=store, data=data, jobs=1)
    lines = (out / "levels.csv").read_text().splitlines()
    seconds = lines[0].split(",").index("seconds") if "seconds" in lines[0] else None
    rows = [line.split(",") for line in lines]
    return str([[cell for place, cell in enumerate(row) if place != seconds] for row in rows])


def test_other_files_under_the_same_names_give_their_own_results(
    two_sets: tuple[Path, Path], tmp_path: Path
) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    shutil.copytree(two_sets[0], data)
    first = figures(data, store, tmp_path / "run1")
    assert (
        StudyContext(RECIPE, store=store, data=data).plan().stored
        == StudyContext(RECIPE, store=store, data=data).plan().unique
    )
    shutil.rmtree(data)
    shutil.copytree(two_sets[1], data)
    assert StudyContext(RECIPE, store=store, data=data).plan().stored == 0
    second = figures(data, store, tmp_path / "run2")
    assert second != first
    assert second == figures(two_sets[1], tmp_path / "fresh", tmp_path / "run3")
    assert first == figures(two_sets[0], store, tmp_path / "run4")  # elsewhere, and from the store


def test_files_that_changed_after_a_job_was_made_are_refused(two_sets: tuple[Path, Path]) -> None:
    data = {"use": "mnist", "validation": 50}
    job = replace(dense_job(cell(5, data=data)), fingerprint="0" * 64)
    with pytest.raises(
        DataError, match="data 'lotteryfw/mnist': its files changed while the study ran"
    ):
        EngineContext(REGISTRY, two_sets[0], "cpu").dataset_of(job)


def test_files_that_change_while_they_are_read_are_refused(
    two_sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Mnist.load

    def load_slowly(self: Mnist, folder: Path) -> Dataset:
        splits = read(self, folder)
        shutil.copytree(two_sets[1], folder, dirs_exist_ok=True)
        return splits

    monkeypatch.setattr(Mnist, "load", load_slowly)
    job = dense_job(cell(5, data={"use": "mnist", "validation": 50}))
    with pytest.raises(DataError, match="its files changed while they were read"):
        EngineContext(REGISTRY, two_sets[0], "cpu").dataset(job.data)
