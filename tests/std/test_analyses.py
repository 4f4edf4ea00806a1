"""The built-in analyses against counts made by hand, and through a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recipes import changed

from lotteryfw.api.metrics import Curve, Metrics
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.tickets import MaskStats, RewindPoint, Ticket, TicketState
from lotteryfw.runner import run_study as run
from lotteryfw.search.stored_tickets import Loaded
from lotteryfw.std.analyses import DyingEdges, MaskDiagnostics, MaskOverlap, WeightScatter

SMALL = changed(
    seeds=[0],
    model={"use": "mlp", "hidden": [8]},
    search={"use": "imp", "levels": 2},
    evaluate={"points": 2},
)
CURVE = Curve(
    (0, 10),
    (None, 0.5),
    (1.0, 0.5),
    (0.3, 0.8),
    {"dying_ratio": (1.0, 0.4), "turnover": (0.0, 0.25)},
)


class Outcome:
    """A training with these weights."""

    key = ""
    diverged_at = None
    metrics = Metrics(10, 10, 0.5, 0.8, 0.5, 0.8, 0.5, 0.8, 0.5, 0.8, CURVE)

    def __init__(self, allowed: torch.Tensor, **tensors: torch.Tensor):
        self._allowed = {"fc": allowed}
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for label, tensor in tensors.items():
            part, _, name = label.rpartition("__")
            parts.setdefault(part, {})[name] = tensor
        values, scores = parts.pop("", {}), parts.pop("scores", {})
        self._network = NetworkState(values, scores=scores, extra=parts)

    def tensors(self) -> NetworkState:
        return self._network

    def mask(self) -> dict[str, torch.Tensor]:
        return self._allowed

    def state(self, step: int) -> Any:
        raise AssertionError("nobody asks for a state")


def recorded(
    level: int, mask: list[int], init: list[float], outcome: Outcome, **place: Any
) -> LevelResult:
    alive = torch.tensor(mask, dtype=torch.bool)
    report = MaskStats(sum(mask), {"fc": sum(mask)}, {"fc": len(mask)})
    state = TicketState({"fc": alive}, {"fc": torch.tensor(init)}, report)
    parent = level - 1 if level else None
    ticket = Ticket.derived(Loaded("", lambda: state), level, RewindPoint(0, 0), parent=parent)
    said = {"study": "s", "cell": "c", "axes": {}, "seed": 0, "variant": "ticket"} | place
    return LevelResult(**said, level=level, cut=report, outcome=outcome, _ticket=lambda: ticket)


class Lab:
    """The lab of a cell each of whose levels reports the training of its ticket, or none does."""

    def __init__(self, *, reports_own: bool = True):
        self._reports_own = reports_own

    def is_training_of(self, ticket: Any, trained: Any) -> bool:
        return self._reports_own


def search(
    analysis: Any, levels: list[LevelResult], *, reports_own: bool = True
) -> dict[tuple[int, str, str], Any]:
    """What an analysis that asks for no jobs finds: by level, figure and layer."""
    generator = analysis.levels(Lab(reports_own=reports_own), levels)
    with pytest.raises(StopIteration) as end:
        next(generator)
    found: list[AnalysisResult] = end.value.value
    return {(each.level.level, each.figure, each.layer): each.value for each in found}


def trained(mask: list[int], final: list[float]) -> Outcome:
    return Outcome(torch.tensor(mask, dtype=torch.bool), fc=torch.tensor(final))


def test_signs_and_movement_are_counted_over_kept_weights() -> None:
    init, final = [1.0, -1.0, 2.0, -2.0], [0.5, 2.0, 3.0, -1.0]
    level = recorded(0, [1, 1, 1, 0], init, trained([1, 1, 1, 0], final))
    found = search(MaskDiagnostics(), [level])
    assert found[0, "sign_agreement", ""] == pytest.approx(2 / 3)
    assert found[0, "toward_zero", "fc"] == pytest.approx(1 / 3)
    assert found[0, "away_from_zero", ""] == pytest.approx(2 / 3)
    assert found[0, "density", "fc"] == 0.75


def test_of_another_training_than_the_tickets_own_only_densities_are_told() -> None:
    level = recorded(1, [1, 0], [1.0, 1.0], trained([1, 0], [0.5, 1.0]))
    assert search(MaskDiagnostics(), [level], reports_own=False) == {(1, "density", "fc"): 0.5}
    assert (1, "sign_agreement", "") in search(MaskDiagnostics(), [level])


def test_of_no_weights_no_share_is_told() -> None:
    init, final = torch.tensor([1.0, 1.0]), torch.tensor([-0.5, 2.0])
    masks = {"fc": torch.tensor([True, True]), "empty": torch.tensor([False, False])}
    report = MaskStats(2, {"fc": 2, "empty": 0}, {"fc": 2, "empty": 2})
    state = TicketState(masks, {"fc": init, "empty": init}, report)
    outcome = Outcome(masks["fc"], fc=final, empty=init)

    def level(number: int) -> LevelResult:
        """The same masks at every level: nothing is cut."""
        alive = recorded(number, [1, 1], [1.0, 1.0], outcome)
        point, parent = RewindPoint(0, 0), number - 1 if number else None
        ticket = Ticket.derived(Loaded("", lambda: state), number, point, parent=parent)
        return replace(alive, cut=report, _ticket=lambda: ticket)

    found = search(MaskDiagnostics(), [level(0), level(1)])
    of_empty = {figure: value for (_, figure, layer), value in found.items() if layer == "empty"}
    assert of_empty == {"density": 0.0}
    assert found[0, "sign_agreement", ""] == found[0, "sign_agreement", "fc"] == 0.5
    assert (1, "cut_toward_zero", "") not in found
    assert found[1, "kept_toward_zero", ""] == 0.5


def test_of_weights_that_were_not_trained_only_densities_are_told() -> None:
    mask, raw, rescaled = [1, 1, 0, 0], [1.0, -1.0, 2.0, -2.0], [2.0, -2.0, 0.0, 0.0]
    allowed = torch.ones(4, dtype=torch.bool)
    learning = Outcome(
        allowed, fc=torch.tensor(raw), scores__fc=torch.ones(4), selected__fc=allowed
    )
    found = recorded(1, mask, rescaled, learning)
    assert search(MaskDiagnostics(), [found]) == {(1, "density", "fc"): 0.5}

    after = recorded(1, mask, rescaled, trained(mask, [1.0, 3.0, 0.0, 0.0]), variant="trained")
    both = search(MaskDiagnostics(), [found, after])
    assert both[1, "toward_zero", ""] == both[1, "away_from_zero", ""] == 0.5
    assert both[1, "sign_agreement", "fc"] == 0.5


def test_what_a_search_measures_beside_its_tickets_has_no_movement_of_its_own() -> None:
    level = recorded(1, [1, 1], [1.0, 1.0], trained([1, 1], [0.5, 0.5]), variant="thresholded")
    assert search(MaskDiagnostics(), [level]) == {}


def test_what_was_cut_is_told_by_the_training_before_the_cut() -> None:
    dense = recorded(
        0, [1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0], trained([1, 1, 1, 1], [0.1, 0.2, 2.0, 0.5])
    )
    ticket = recorded(
        1, [0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0], trained([0, 0, 1, 1], [0.0, 0.0, 3.0, 3.0])
    )
    found = search(MaskDiagnostics(), [dense, ticket])
    assert found[1, "cut_toward_zero", ""] == 1.0
    assert found[1, "kept_toward_zero", ""] == 0.5


def test_overlap_is_told_beside_its_chance() -> None:
    one = recorded(
        1, [1, 1, 0, 0], [1.0] * 4, trained([1] * 4, [1.0] * 4), cell="a", axes={"criterion": "x"}
    )
    two = recorded(
        1, [1, 0, 1, 0], [1.0] * 4, trained([1] * 4, [1.0] * 4), cell="b", axes={"criterion": "y"}
    )
    far = recorded(
        1,
        [1, 0, 1, 0],
        [1.0] * 4,
        trained([1] * 4, [1.0] * 4),
        cell="c",
        axes={"criterion": "y"},
        seed=1,
    )
    none = recorded(
        1, [0] * 4, [1.0] * 4, trained([1] * 4, [1.0] * 4), cell="d", axes={"criterion": "z"}
    )
    found = {
        (each.level.cell, each.against, each.figure): each.value
        for each in MaskOverlap().across([one, two, far])
    }
    # of a mask that keeps nothing there is no share
    assert not list(MaskOverlap().across([none, one]))
    assert found == {
        ("a", "b", "overlap"): 0.5, ("a", "b", "chance"): 0.5, ("b", "c", "overlap"): 1.0, ("b", "c", "chance"): 0.5,
    }  # fmt: skip


def test_a_scatter_holds_one_sample_of_the_training_before_the_first_cut() -> None:
    dense = recorded(
        0,
        [1] * 6,
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        trained([1] * 6, [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
    )
    ticket = recorded(1, [0, 1, 0, 1, 0, 1], [0.0] * 6, trained([0, 1] * 3, [0.0] * 6))

    class Seeded(Lab):
        seed = 0

    generator = WeightScatter(sample=4).levels(Seeded(), [dense, ticket])  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as end:
        next(generator)
    found = {each.figure: each.value for each in end.value.value}
    assert len(found["w_i"]) == 4
    for before, after, kept in zip(found["w_i"], found["w_f"], found["kept"], strict=True):
        assert after == 10 * before
        assert kept == float(before % 2 == 0)


def test_dying_edges_add_up_over_cycles_with_and_without_those_removed() -> None:
    def cycle(level: int, allowed: list[int], selected: list[int]) -> LevelResult:
        ever = torch.tensor(selected, dtype=torch.bool)
        outcome = Outcome(
            torch.tensor(allowed, dtype=torch.bool), fc=torch.ones(4), selected__fc=ever
        )
        return recorded(level, selected, [1.0] * 4, outcome)

    found = search(
        DyingEdges(), [cycle(1, [1, 1, 1, 1], [1, 1, 0, 0]), cycle(2, [1, 0, 1, 0], [1, 0, 1, 0])]
    )
    assert found[1, "dying_ratio", ""] == found[1, "dying_ratio_with_removed", ""] == 0.5
    assert found[2, "dying_ratio", ""] == 0.25
    assert found[2, "dying_ratio_allowed", ""] == 0.0
    assert found[2, "dying_ratio_with_removed", ""] == 0.5
    # the second cycle alone selected two of the four
    assert found[1, "dying_ratio_of_cycle", ""] == found[2, "dying_ratio_of_cycle", ""] == 0.5
    assert found[2, "turnover", ""] == 0.25
    assert {figure for _, figure, _ in found} == set(DyingEdges.figures)


def test_of_a_run_that_learns_a_mask_the_trained_arm_says_what_moved(tmp_path: Path) -> None:
    recipe = SMALL | {
        "search": {"use": "supermask", "train_weights": True},
        "parametrization": {"use": "bernoulli", "rescale": "dynamic"},
        "analyses": ["mask_diagnostics"],
    }
    done = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    figures = {
        variant: {finding.figure for finding in done.findings if finding.variant == variant}
        for variant in ("ticket", "trained")
    }
    assert figures["ticket"] == {"density"}
    assert figures["trained"] == {"density", "sign_agreement", "toward_zero", "away_from_zero"}
    assert figures["trained"] < set(MaskDiagnostics.figures)


def test_a_run_writes_what_its_analyses_found(tmp_path: Path) -> None:
    recipe = SMALL | {
        "analyses": ["mask_diagnostics", "mask_overlap"],
        "grid": {"criterion": ["large_final", "random"]},
    }
    done = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "analyses.jsonl").read_text().splitlines()
    ]
    assert lines == done.folder.read_findings()
    assert {line["analysis"] for line in lines} == {"mask_diagnostics", "mask_overlap"}
    assert {line["cell"] for line in lines} == set(done.statuses)
    assert {line["unit"] for line in lines} == {"share"}
    again = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    assert again.folder.read_findings() == lines


def test_a_finding_that_says_no_unit_is_a_number_and_one_of_another_is_refused() -> None:
    level = recorded(0, [1], [1.0], trained([1], [1.0]))
    assert AnalysisResult(level, "norm", 0.5).unit == "number"
    with pytest.raises(
        ValueError, match=r"the unit of 'norm' is \"share\" or \"number\", not 'percent'"
    ):
        AnalysisResult(level, "norm", 0.5, unit="percent")  # type: ignore[arg-type]


BROKEN = '''
from lotteryfw import Analysis, hookimpl

class Breaks(Analysis):
    """Breaks."""
    use = "breaks"
    def levels(self, lab, levels):
        yield from ()
        raise RuntimeError("no such luck")

@hookimpl
def register_components():
    return [Breaks]
'''


def test_an_analysis_that_breaks_is_named_and_costs_no_level(tmp_path: Path) -> None:
    plugin = tmp_path / "breaks.py"
    plugin.write_text(BROKEN)
    recipe = SMALL | {"analyses": ["breaks"], "plugins": [str(plugin)]}
    done = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1, trust=[plugin])
    assert set(done.statuses.values()) == {"failed"}
    assert done.levels
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert "analysis 'breaks' of breaks.py" in events
    assert "RuntimeError: no such luck" in events


@pytest.mark.parametrize("rounds", [1, 2])
def test_of_pruning_at_initialisation_there_is_no_training_before_the_cut(
    rounds: int, tmp_path: Path
) -> None:
    recipe = SMALL | {
        "search": {"use": "at_init", "densities": [0.5], "rounds": rounds},
        "analyses": ["mask_diagnostics", "weight_scatter"],
    }
    done = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    found = {(line.level, line.figure) for line in done.findings}
    assert (1, "sign_agreement") in found
    for figure in ("cut_toward_zero", "kept_toward_zero", "w_i"):
        assert (1, figure) not in found
