"""Several devices in one machine: a pretend pair of GPUs, whose worker processes compute on the CPU.

A worker is told which GPU is its own as on a machine that has them, by CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import Watch, files, go, recipe

from lotteryfw import Augmentation
from lotteryfw.api.errors import UsageError
from lotteryfw.engine import GpuError, gpus, pick_device, visible_gpus
from lotteryfw.runner import study
from lotteryfw.runner.device_slots import DeviceSlot, device_slots
from lotteryfw.runner.workers import Workers, _Worker

PLUGIN = '''
import os
from pathlib import Path

from lotteryfw import Augmentation, hookimpl


class Placed(Augmentation):
    """Changes nothing; notes the process and its GPU, and fails on one of them."""

    use = "placed"
    folder: str
    bad: str = ""
    error: str = ""

    def apply(self, images, rng):
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        Path(self.folder, f"{gpu}-{os.getpid()}").touch()
        if gpu and gpu in self.bad.split(","):
            if self.error:
                raise RuntimeError(self.error)
            os._exit(3)
        return images


@hookimpl
def register_components():
    return [Placed]
'''
BROKEN = "CUDA error: unspecified launch failure"


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs cells on two pretend GPUs, with options of the plugin."""
    plugin = tmp_path / "placed_plugin.py"
    plugin.write_text(PLUGIN)
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def run(
        name: str = "run", pair: bool = True, cells: int = 2, **options: Any
    ) -> tuple[Any, Watch]:
        if pair:
            monkeypatch.setattr(study, "visible_gpus", lambda device: ("0", "1"))
        else:
            monkeypatch.undo()
        placing = {k: options.pop(k) for k in ("bad", "error") if k in options}
        table = recipe(
            seeds=list(range(cells)),
            search={"use": "imp", "levels": 1},
            engine={"kernel": "reference"},
        )
        augment = {"use": "placed", "folder": str(notes), **placing}
        table["train"] = table["train"] | {"augment": [augment]}
        return go(tmp_path, table, name, jobs=None, trust=[plugin], **options)

    run.notes = notes  # type: ignore[attr-defined]
    return run


def processes_by_gpu(notes: Path) -> dict[str, set[str]]:
    by_gpu = defaultdict(set)
    for note in notes.iterdir():
        gpu, _, process = note.name.partition("-")
        by_gpu[gpu].add(process)
    return dict(by_gpu)


def test_every_gpu_gets_a_process_and_keys_do_not_name_it(placed: Any, tmp_path: Path) -> None:
    done, watch = placed()
    assert set(done.statuses.values()) == {"done"}
    assert {gpu: len(processes) for gpu, processes in processes_by_gpu(placed.notes).items()} == {
        "0": 1,
        "1": 1,
    }
    assert not watch.warnings
    # The same store: nothing is computed again, wherever the next run happens to compute.
    again, second = placed("again", pair=False)
    assert set(again.statuses.values()) == {"done"}
    assert not second.trained
    alone, _ = placed("alone", pair=False, store=tmp_path / "other")
    assert files(alone.path) == files(done.path)


@pytest.mark.large
def test_several_processes_share_a_gpu(placed: Any) -> None:
    done, _ = placed(cells=4, jobs_per_device=2)
    assert set(done.statuses.values()) == {"done"}
    by_gpu = processes_by_gpu(placed.notes)
    assert {gpu: len(processes) for gpu, processes in by_gpu.items()} == {"0": 2, "1": 2}


@pytest.mark.parametrize("error", [BROKEN, ""], ids=["a device error", "a process that dies"])
def test_a_gpu_that_fails_gives_its_jobs_to_the_others(error: str, placed: Any) -> None:
    done, watch = placed(cells=3, bad="1", error=error)
    assert set(done.statuses.values()) == {"done"}
    text = "\n".join(watch.warnings)
    assert "what it worked on goes on from its last checkpoint" in text
    assert ("unspecified launch failure" if error else "exit code 3") in text
    # It may have been given one job, and no more before the others were done.
    assert "GPU 1 gets no more jobs in this run" in text or len(watch.warnings) == 1


def test_an_error_that_the_job_causes_fails_its_cell_and_no_gpu(placed: Any) -> None:
    done, watch = placed(bad="0,1", error="CUDA error: device-side assert triggered\nCompile with")
    assert set(done.statuses.values()) == {"failed"}
    assert "device-side assert triggered" in str(watch.events)
    assert not [text for text in watch.warnings if "gets no more jobs" in text]


@pytest.mark.large
def test_where_all_gpus_fail_the_cells_say_why(placed: Any) -> None:
    done, watch = placed(bad="0,1", error=BROKEN)
    assert set(done.statuses.values()) == {"failed"}
    assert "unspecified launch failure" in str(watch.of("CellFinished"))
    # The last GPU that is left stays in service.
    assert sum("gets no more jobs" in text for text in watch.warnings) <= 1


class Breaking(Augmentation):
    """Fails as CUDA does."""

    use = "breaking"

    def apply(self, images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        raise RuntimeError(BROKEN)


def test_a_gpu_that_fails_in_the_runs_own_process_ends_the_run(tmp_path: Path) -> None:
    table = recipe(seeds=[0, 1])
    table["train"] = table["train"] | {"augment": ["breaking"]}
    with pytest.raises(GpuError, match=r"launch failure; .*the same command goes on"):
        go(tmp_path, table, components=[Breaking])


# Names of devices


def see(count: int, monkeypatch: pytest.MonkeyPatch, visible: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv(gpus.VISIBLE, raising=False)
    else:
        monkeypatch.setenv(gpus.VISIBLE, visible)


def test_a_name_stands_for_all_visible_gpus_or_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    see(3, monkeypatch)
    assert [pick_device(name) for name in ("auto", "cpu", "cuda", "cuda:2")] == [
        "cuda", "cpu", "cuda", "cuda",
    ]  # fmt: skip
    assert visible_gpus("cuda") == visible_gpus("auto") == ("0", "1", "2")
    assert visible_gpus("cuda:2") == ("2",)
    assert visible_gpus("cpu") == ()


def test_visible_devices_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    see(2, monkeypatch, "GPU-8932f937, 5")
    assert visible_gpus("cuda") == ("GPU-8932f937", "5")
    assert visible_gpus("cuda:1") == ("5",)
    # CUDA takes the list up to the first name that is no GPU.
    see(1, monkeypatch, "3,7")
    assert visible_gpus("cuda") == ("3",)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda:2", 2, "device 'cuda:2': this torch sees cuda:0 to cuda:1"),
        ("cuda:1", 1, "device 'cuda:1': this torch sees cuda:0 alone"),
        ("cuda", 0, "device 'cuda': this torch sees no CUDA device; use --device cpu or auto"),
        ("cuda:0", 0, "device 'cuda:0': this torch sees no CUDA device"),
        ("cuda:", 2, "no device is called 'cuda:'; did you mean"),
        ("cuda:x", 2, "no device is called 'cuda:x'; did you mean"),
        ("gpu", 2, "no device is called 'gpu'; did you mean 'cpu'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    name: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(count, monkeypatch)
    with pytest.raises(UsageError, match="^" + message):
        pick_device(name)


def test_auto_is_the_cpu_where_no_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    see(0, monkeypatch)
    assert pick_device("auto") == "cpu"
    assert visible_gpus("auto") == ()


def test_numbers_of_processes_that_cannot_be_are_refused(placed: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="jobs and jobs_per_device say the same in two ways"):
        go(tmp_path, jobs=2, jobs_per_device=2)
    with pytest.raises(
        UsageError, match="jobs_per_device: is for GPUs, and this run is on the CPU"
    ):
        go(tmp_path, jobs=None, jobs_per_device=2)


@pytest.mark.parametrize("name", ["jobs", "jobs_per_device"])
@pytest.mark.parametrize("number", [-1, 0, 1.5, "2", True])
def test_a_number_of_processes_is_an_integer_of_at_least_one(
    tmp_path: Path, name: str, number: Any
) -> None:
    numbers = {"jobs": None, name: number}
    with pytest.raises(UsageError, match=f"^{name}: must be an integer of at least 1, not "):
        go(tmp_path, **numbers)


# The load


def test_processes_are_spread_evenly() -> None:
    assert [slot.processes for slot in device_slots(5, ("0", "1"))] == [3, 2]
    assert [slot.gpu for slot in device_slots(1, ("0", "1"))] == ["0"]
    assert device_slots(3, ())[0].gpu is None


def executor(*slots: DeviceSlot) -> Workers:
    """An executor that starts no process."""
    workers = object.__new__(Workers)
    workers._slots, workers._workers = slots, []
    return workers


def add(workers: Workers, slot: DeviceSlot, *keys: str) -> None:
    workers._workers.append(_Worker(None, None, slot, list(keys)))  # type: ignore[arg-type]


def test_the_least_loaded_device_takes_the_next_group() -> None:
    first, second = DeviceSlot("0", 2), DeviceSlot("1", 2)
    workers = executor(first, second)
    assert workers._least_loaded() is first
    add(workers, first, "a")
    assert workers._least_loaded() is second
    add(workers, second, "b")
    assert workers._least_loaded() is first
    add(workers, second)  # has nothing to do: no process need be started there
    assert workers._least_loaded() is second
    second.in_service = False
    assert workers._least_loaded() is first
    add(workers, first, "c")
    assert workers._least_loaded() is None
