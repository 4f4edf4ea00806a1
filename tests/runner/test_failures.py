"""No failure is silent: whatever breaks is named with its distribution and level, and costs only its own cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import QUICK, command, environment
from support.runs import Watch, files, go, recipe

from lotteryfw import UsageError
from lotteryfw.engine import execute
from lotteryfw.engine.runtime import python_command
from lotteryfw.engine.worker import patience
from lotteryfw.runner import run_study as run_recipe
from lotteryfw.runner.executors import InProcess
from lotteryfw.runner.scheduler import Interrupted
from lotteryfw.search.jobs import Job
from lotteryfw.store import Store, failed_cells

PLUGIN = """
import os, sys
from dataclasses import replace
from lotteryfw import Analysis, AnalysisResult, Control, MaskCriterion, Schedule, SearchAlgorithm, hookimpl

class Exits(MaskCriterion):
    "Calls sys.exit at the second cut."
    use = "exits"
    def score(self, layer):
        if float(layer.mask.float().mean()) < 0.9:
            sys.exit(3)
        return layer.final.abs()

class Raises(MaskCriterion):
    "Raises at the second cut."
    use = "raises"
    def score(self, layer):
        if float(layer.mask.float().mean()) < 0.9:
            raise ZeroDivisionError("no luck")
        return layer.final.abs()

class Layers(SearchAlgorithm):
    "Calls sys.exit after its first level."
    use = "leaves"
    def search(self, lab):
        ticket = lab.dense()
        trained = yield from lab.train(ticket)
        lab.record(0, ticket, trained)
        sys.exit()

class Counts(Analysis):
    "How many weights there are at each level."
    use = "counts"
    def levels(self, lab, levels):
        yield from ()
        return [AnalysisResult(level, "kept_weights", float(sum(level.cut.kept.values()))) for level in levels]

class Breaks(Analysis):
    "Raises."
    use = "breaks_down"
    def levels(self, lab, levels):
        yield from ()
        raise ZeroDivisionError("no findings")

class Departs(Analysis):
    "Calls sys.exit."
    use = "departs"
    def levels(self, lab, levels):
        yield from ()
        sys.exit("bye")

class Tensors(Analysis):
    "Finds a tensor."
    use = "finds_tensors"
    def levels(self, lab, levels):
        import torch
        yield from ()
        return [AnalysisResult(levels[0], "norm", torch.ones(2))]

class Across(Analysis):
    "Raises across levels."
    use = "breaks_across"
    def across(self, levels):
        raise ZeroDivisionError("nothing across")

class Endless(Analysis):
    "Finds what is not finite."
    use = "endless"
    def levels(self, lab, levels):
        yield from ()
        return [AnalysisResult(levels[0], "ratio", float("inf"))]

class Waits(Analysis):
    "Waits for a training that breaks."
    use = "waits"
    def levels(self, lab, levels):
        request = lab.request(lab.dense())
        request._job = replace(request.job, objective=replace(request.job.objective, use="nobody/nothing"))
        request.origin = "another"
        yield (request,)
        return []

class WaitsForTwo(Analysis):
    "Waits for two trainings that break together."
    use = "waits_for_two"
    def levels(self, lab, levels):
        request, other = lab.request(lab.dense()), lab.request(lab.dense())
        broken = replace(request.job, schedule=replace(request.job.schedule, use="nobody/nothing"))
        request._job, other._job = broken, replace(broken, order_seed=broken.order_seed + 1)
        request.origin, other.origin = "one", "two"
        yield (request, other)
        return []

class Measures(Analysis):
    "The test loss of each ticket before its training."
    use = "measures"
    def levels(self, lab, levels):
        figures = yield from lab.evaluate_all([level.ticket for level in levels])
        return [AnalysisResult(level, "loss", one.loss) for level, one in zip(levels, figures)]

class BuildsNothing(Analysis):
    "Asks for the training of a ticket that cannot be made."
    use = "builds_nothing"
    def levels(self, lab, levels):
        request = lab.request(lab.dense())
        def build(request):
            raise ZeroDivisionError("no such ticket")
        request._build, request.origin = build, "another"
        yield (request,)
        return []

class Shatters(Control):
    "Raises."
    use = "shatters"
    formula = "none"
    source = "none"
    def mask(self, layer):
        raise ZeroDivisionError("no control")

class Ends(Schedule):
    "Ends the process."
    use = "ends"
    def factor(self, step, clock):
        if step == 20:
            os._exit(7)
        return 1.0

class ExitsOnTheWay(Schedule):
    "Calls sys.exit."
    use = "exits_on_the_way"
    def factor(self, step, clock):
        if step == 20:
            sys.exit(9)
        return 1.0

@hookimpl
def register_components():
    return [
        Exits, Raises, Layers, Counts, Breaks, Departs, Tensors, Across, Endless, Waits, WaitsForTwo,
        Measures, BuildsNothing, Shatters, Ends, ExitsOnTheWay,
    ]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> list[Path]:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return [tmp_path / "mine.py"]


def traces(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((folder / "errors").glob("*.txt")))


def line_of(watch: Watch, *parts: str) -> str:
    lines = [line for line in watch.warnings if all(part in line for part in parts)]
    assert lines, watch.warnings
    return lines[0]


def test_a_failing_criterion_is_named_with_its_distribution_and_level_and_leaves_its_traceback(
    tmp_path: Path, plugin: list[Path]
) -> None:
    done, watch = go(tmp_path, recipe(grid={"criterion": ["raises", "large_final"]}), trust=plugin)
    assert sorted(done.statuses.values()) == ["done", "failed"]
    line_of(watch, "criterion 'mine.py/raises' of mine.py==local", "no luck", "after level 1")
    assert [row.level for row in done.levels if row.axes["criterion"] == "raises"] == [0, 1]
    assert "in score\n" in traces(done.path)


def test_sys_exit_fails_its_cell_and_names_the_component(
    tmp_path: Path, plugin: list[Path]
) -> None:
    table = recipe(study=[
        {"name": "one", "criterion": "exits"},
        {"name": "two", "search": "leaves"},
        {"name": "three", "train": {**recipe()["train"], "schedule": "exits_on_the_way"}},
        {"name": "four"},
    ])  # fmt: skip
    done, watch = go(tmp_path, table, trust=plugin)
    assert sorted(done.statuses.values()) == ["done", "failed", "failed", "failed"]
    line_of(
        watch,
        "one/",
        "criterion 'exits' of mine.py==local",
        "in score() called sys.exit(3)",
        "after level 1",
    )
    line_of(
        watch,
        "two/",
        "search 'leaves' of mine.py==local",
        "in search() called sys.exit(None)",
        "after level 0",
    )
    line_of(
        watch,
        "three/",
        "schedule 'mine.py/exits_on_the_way' of mine.py==local",
        "in factor() called sys.exit(9)",
    )
    assert traces(done.path).count("SystemExit") >= 3


@pytest.mark.parametrize(("schedule", "words"), [
    ("exits_on_the_way", "in factor() called sys.exit(9)"),
    pytest.param("ends", "ended 3 times without an answer (exit code 7)", marks=pytest.mark.large),
])  # fmt: skip
def test_the_end_of_a_worker_process_fails_its_cell_alone(
    tmp_path: Path, plugin: list[Path], schedule: str, words: str
) -> None:
    train = recipe()["train"]
    studies = [
        {"name": "bad", "train": train | {"schedule": schedule}},
        {"name": "good", "train": train},
    ]
    done, watch = go(tmp_path, recipe(study=studies), trust=plugin, jobs=2)
    assert sorted(done.statuses.items()) == [("bad/seed=0", "failed"), ("good/seed=0", "done")]
    line = line_of(watch, "bad/", words)
    assert f"schedule 'mine.py/{schedule}' of mine.py==local" in line or "factor()" in line
    (event,) = watch.of("JobFailed")
    assert event.message in line
    assert event.key not in watch.trained


def test_an_analysis_that_breaks_loses_nobody_elses_findings(
    tmp_path: Path, plugin: list[Path]
) -> None:
    analyses = ["breaks_down", "departs", "finds_tensors", "waits", "breaks_across", "counts"]
    done, watch = go(tmp_path, recipe(analyses=analyses), trust=plugin)
    assert [finding.value for finding in done.findings if finding.analysis == "counts"]
    assert len(done.levels) == 3
    assert list(done.statuses.values()) == ["failed"]
    line_of(
        watch,
        "analysis 'breaks_down' of mine.py==local",
        "ZeroDivisionError: no findings",
        "level 2",
    )
    line_of(watch, "analysis 'departs' of mine.py==local", "in levels() called sys.exit('bye')")
    line_of(
        watch,
        "analysis 'finds_tensors' of mine.py==local",
        "'norm' must be a number or several, not a Tensor",
    )
    line_of(watch, "analysis 'waits' of mine.py==local", "nobody/nothing")
    line_of(watch, "analysis 'breaks_across' of mine.py==local", "study small", "nothing across")
    assert "no findings" in traces(done.path)
    assert "nothing across" in traces(done.path)


def test_a_target_that_breaks_is_not_said_to_be_an_analysis(
    tmp_path: Path, plugin: list[Path]
) -> None:
    target = {"name": "bad", "train": {"schedule": "exits_on_the_way"}}
    done, watch = go(tmp_path, recipe(target=[target], analyses=["mask_diagnostics"]), trust=plugin)
    assert list(done.statuses.values()) == ["failed"]
    line = line_of(watch, "schedule 'mine.py/exits_on_the_way' of mine.py==local")
    assert "analysis" not in line


@pytest.mark.parametrize("first", ["waits_for_two", "builds_nothing"])
def test_what_an_analysis_asked_for_in_vain_does_not_end_the_next_one(
    tmp_path: Path, plugin: list[Path], first: str
) -> None:
    """Its trainings are of one group, and fail together."""
    done, watch = go(tmp_path, recipe(analyses=[first, "measures"]), trust=plugin)
    assert len([finding for finding in done.findings if finding.analysis == "measures"]) == 3
    assert list(done.statuses.values()) == ["failed"]
    assert "analysis 'measures'" not in line_of(watch, f"analysis '{first}' of mine.py==local")


def test_a_control_that_breaks_loses_no_level_that_was_recorded_with_its_own(
    tmp_path: Path, plugin: list[Path]
) -> None:
    table = recipe(search={"use": "one_shot", "levels": 3}, controls=["shatters"])
    done, watch = go(tmp_path, table, trust=plugin)
    assert list(done.statuses.values()) == ["failed"]
    line_of(watch, "no control")
    assert [row.level for row in done.levels] == [0, 1, 2, 3]


def test_a_finding_that_is_not_finite_is_null_with_a_note(
    tmp_path: Path, plugin: list[Path]
) -> None:
    done, _ = go(tmp_path, recipe(analyses=["endless"]), trust=plugin)
    assert list(done.statuses.values()) == ["done"]
    text = (done.path / "analyses.jsonl").read_text()
    assert '"value": null' in text
    assert "not finite: inf" in text


def test_tracebacks_of_an_earlier_run_go(tmp_path: Path, plugin: list[Path]) -> None:
    table = recipe(criterion="raises")
    done, _ = go(tmp_path, table, trust=plugin)
    assert traces(done.path)
    (done.path / "errors" / "007.txt").write_text("of an earlier run")
    go(tmp_path, table, trust=plugin)
    assert "of an earlier run" not in traces(done.path)


def test_what_another_process_computed_meanwhile_is_said_to_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(InProcess):
        """Somebody else finishes every job while this process waits for its lock."""

        def submit(self, jobs: Sequence[Job]) -> None:
            execute(
                jobs, self._store, self._workshop, lambda done, of: False, lambda key, warning: None
            )
            super().submit(jobs)

    monkeypatch.setattr("lotteryfw.runner.study.InProcess", Late)
    _, watch = go(tmp_path)
    events = watch.of("JobFinished")
    assert len(events) == 3
    assert {(event.stored, event.seconds, event.steps) for event in events} == {(True, 0.0, 40)}


def workers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "lotteryfw.engine.worker", "-P", str(os.getpid())],
                           capture_output=True, text=True).stdout.split()  # fmt: skip
    return [int(number) for number in found]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGSTOP,
        pytest.param(signal.SIGTERM, marks=pytest.mark.large),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.large),
    ],
)
def test_a_worker_that_was_stopped_is_replaced_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("LOTTERYFW_HEARTBEAT", "5")
    table = recipe(seeds=[0, 1], train={**recipe()["train"], "length": "600it"})
    whole, _ = go(tmp_path, table, "whole")
    watch = Watch()
    hit: list[int] = []

    def strike(progress: object) -> None:
        if not hit:
            hit.append(workers()[0])
            os.kill(hit[0], number)

    watch.progress = strike  # type: ignore[method-assign]
    done = run_recipe(table, out=tmp_path / "hit", store=tmp_path / "b", jobs=2, device="cpu", data=tmp_path,
                      listener=watch)  # fmt: skip
    assert hit
    assert hit[0] not in workers()
    assert set(done.statuses.values()) == {"done"}
    assert files(done.path) == files(whole.path)
    how = "no sign of life" if number == signal.SIGSTOP else "exit code 0"
    line_of(watch, f"a worker process ended ({how}", "goes on from its last checkpoint")
    assert not Store(tmp_path / "b").gc(dry_run=True).objects


def test_a_time_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert patience() == 60.0
    for text in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("LOTTERYFW_HEARTBEAT", text)
        with pytest.raises(
            UsageError, match="LOTTERYFW_HEARTBEAT: must be a number of seconds above 0"
        ):
            patience()


@pytest.mark.parametrize("engine", ["", "engine = { devices = 2 }"])
def test_a_file_beside_the_recipe_takes_no_modules_place_in_workers_and_ranks(
    tmp_path: Path, engine: str
) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('not the standard library')")
    (tmp_path / "q.toml").write_text(QUICK.format(length="10it", more=engine))
    # as the installed command, which does not have the current folder on sys.path
    words = ["recipe", "q.toml", "--jobs", "2", "--out", "run", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-P", *command(*words)[1:]],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_worker_imports_from_where_the_run_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ä 'folder'"
    folder.mkdir()
    (folder / "of_the_run.py").write_text(
        "import json, sys\ndef main(): print(json.dumps([sys.argv[1:], sys.path]))"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    done = subprocess.run([*python_command("of_the_run"), "7"], capture_output=True, text=True)
    assert json.loads(done.stdout) == [["7"], sys.path], done.stderr


def test_a_cell_that_a_later_run_does_not_reach_keeps_its_reason(
    tmp_path: Path, plugin: list[Path]
) -> None:
    """Its traceback was deleted as that run began; a new one may have the name of the old."""
    table = recipe(criterion="raises")
    done, _ = go(tmp_path, table, trust=plugin)
    failed = failed_cells(done.manifest)
    assert [failure.traceback for failure in failed] == ["errors/001.txt", "errors/002.txt"][
        : len(failed)
    ]
    assert all("ZeroDivisionError: no luck" in failure.reason for failure in failed)
    with pytest.raises(Interrupted):
        run_recipe(
            table, out=done.path, store=tmp_path / "store", trust=plugin, jobs=1, device="cpu",
            on_start=lambda stop: stop(),
        )  # fmt: skip
    kept = failed_cells(done.manifest)
    assert [failure.reason for failure in kept] == [failure.reason for failure in failed]
    assert {failure.traceback for failure in kept} == {""}
