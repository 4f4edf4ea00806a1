"""The redraws of IteRand and the signs of sign_flip, against plain statements of both, and in whole runs."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lotteryfw_strong import IteRand, SignFlip, register_components
from pydantic import ValidationError

from lotteryfw import Group, LayerInfo, MaskedLayer, MaskedNetwork, load_ticket, run, stream
from lotteryfw.testkit import trial
from lotteryfw.testkit.fixtures import NETS, make_net

PLUGIN = Path(__file__).parents[1]
CODE = PLUGIN / "src" / "lotteryfw_strong" / "__init__.py"


def weights(net: MaskedNetwork) -> dict[str, torch.Tensor]:
    return {name: edges.weights.clone() for name, edges in net.edges.items()}


def redrawn(net: MaskedNetwork, how: IteRand, step: int) -> dict[str, torch.Tensor]:
    """By layer, bool: what `after_step` changes in the net, in place."""
    before = weights(net)
    how.after_step(step, net, how.masks(net), stream("test", step))
    return {name: edges.weights != before[name] for name, edges in net.edges.items()}


@pytest.mark.parametrize("options", [{}, {"period": 1, "rate": 1.0}])
def test_iterand_keeps_what_parametrizations_promise(options: dict[str, Any]) -> None:
    trial(IteRand, options)  # the second redraws in every step of the trial


def test_sign_flip_keeps_what_parametrizations_promise() -> None:
    trial(SignFlip)
    assert register_components() == [IteRand, SignFlip]


def published_mask(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """The selection of the published code: what is not below the k-th smallest score."""
    place = 1 + round(sparsity * (scores.numel() - 1))
    return scores >= sorted(scores.flatten().tolist())[place - 1]


@pytest.mark.parametrize("sparsity", [0.5, 0.6, 0.7])
def test_iterand_selects_and_starts_as_in_the_published_code(sparsity: float) -> None:
    info = LayerInfo("conv.weight", (8, 6, 3, 3))
    scores = IteRand().initial(info, stream("test", "scores"))
    bound = (6 / 54) ** 0.5
    assert float(scores.abs().max()) <= bound
    assert float(scores.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    everything = torch.ones(info.shape, dtype=torch.bool)
    expected = published_mask(scores, sparsity)
    # a scope's budget is round(density · n), the published rank one weight off at times
    keep = int(expected.sum())
    assert abs(keep - round((1 - sparsity) * info.size)) <= 1
    edges = MaskedLayer(info, torch.ones(info.shape), scores, everything)
    net = MaskedNetwork({info.name: edges}, (Group((info.name,), keep, keep),), make_net().draw)
    assert torch.equal(IteRand().masks(net)[info.name], expected)
    by_magnitude = IteRand(rank="abs").masks(net)[info.name]
    assert int(by_magnitude.sum()) == keep
    assert not torch.equal(by_magnitude, expected)


@pytest.mark.parametrize("how", [IteRand(), IteRand(rank="abs"), SignFlip()], ids=str)
@pytest.mark.parametrize("what", NETS)
def test_masks_are_the_largest_scores_of_each_budget_by_a_stable_sort(
    how: IteRand | SignFlip, what: str
) -> None:
    net = NETS[what]()
    masks = how.masks(net)
    for group in net.budgets:
        places = [
            (name, place)
            for name in group.layers
            for place in net.edges[name].allowed.flatten().nonzero()[:, 0]
        ]
        is_signed = isinstance(how, IteRand) and how.rank == "signed"

        def rank(place: tuple[str, int], is_signed: bool = is_signed) -> float:
            score = float(net.edges[place[0]].scores.flatten()[place[1]])
            return -score if is_signed else -abs(score)

        ranked = sorted(places, key=rank)
        kept = {(name, int(place)) for name, place in ranked[: group.keep]}
        assert kept == {
            (n, int(place)) for n in group.layers for place in masks[n].flatten().nonzero()[:, 0]
        }


def test_iterand_replaces_a_share_of_what_is_left_out_just_then() -> None:
    how, net = IteRand(period=1, rate=0.25), make_net(0.9)
    changed, selected = redrawn(net, how, 0), how.masks(net)
    for name, edges in net.edges.items():
        free = edges.allowed & ~selected[name]
        assert not (changed[name] & ~free).any()
        expected = 0.25 * int(free.sum())
        assert abs(int(changed[name].sum()) - expected) < 5 * expected**0.5


def test_the_redraw_follows_the_scores_after_the_update_not_the_masks_before_it() -> None:
    how, net = IteRand(period=1, rate=1.0), make_net()
    stale = {name: torch.zeros_like(mask) for name, mask in how.masks(net).items()}
    before, selected = weights(net), how.masks(net)
    how.after_step(0, net, stale, stream("test"))
    for name, edges in net.edges.items():
        assert torch.equal(edges.weights[selected[name]], before[name][selected[name]])
        assert (edges.weights != before[name])[~selected[name]].all()


def test_iterand_draws_from_its_stream_and_from_the_initialiser_alone() -> None:
    how, net, state = IteRand(period=1, rate=1.0), make_net(), torch.get_rng_state()
    changed = redrawn(net, how, 0)
    assert torch.equal(torch.get_rng_state(), state)
    rng = stream("test", 0)
    for name, edges in net.edges.items():
        torch.rand(edges.info.shape, generator=rng)
        assert torch.equal(edges.weights[changed[name]], net.draw(edges.info, rng)[changed[name]])


def test_iterand_redraws_after_every_period_and_never_in_between() -> None:
    how, net = IteRand(period=3, rate=1.0), make_net()
    moved = [
        any(bool(part.any()) for part in redrawn(net, how, step).values()) for step in range(7)
    ]
    assert moved == [False, False, True, False, False, True, False]


def test_without_a_density_nothing_is_left_out() -> None:
    net = make_net(0.5)
    whole = MaskedNetwork(net.edges, (), net.draw)
    assert not any(
        bool(part.any()) for part in redrawn(whole, IteRand(period=1, rate=1.0), 0).values()
    )
    for name, mask in SignFlip().masks(whole).items():
        assert torch.equal(mask, net.edges[name].allowed)


def test_sign_flip_keeps_every_magnitude_to_the_bit_and_flips_where_the_score_is_below_zero() -> (
    None
):
    how, net = SignFlip(), make_net()
    for edges in net.edges.values():
        edges.scores.view(-1)[:2] = torch.tensor([0.0, -0.0])
        mask = torch.rand(edges.info.shape, generator=stream("mask")) < 0.7
        weight = how.weight(edges, mask)
        assert torch.equal(weight.abs(), edges.weights.abs() * mask)
        assert torch.equal(
            weight[mask], torch.where(edges.scores < 0, -edges.weights, edges.weights)[mask]
        )


def test_the_slope_of_a_sign_is_one_for_every_score() -> None:
    how, net = SignFlip(), make_net()
    mask = how.masks(net)
    for name, edges in net.edges.items():
        edges.scores.requires_grad_()
        upstream = torch.randn(edges.info.shape, generator=stream("slope"))
        (how.weight(edges, mask[name]) * upstream).sum().backward()
        assert torch.equal(edges.scores.grad, upstream * edges.weights)


def test_sign_flip_starts_from_the_signs_as_they_were_drawn() -> None:
    for edges in make_net().edges.values():
        scores = SignFlip().initial(edges.info, stream("scores"))
        assert 0 <= float(scores.min()) < float(scores.max()) <= edges.info.fan_in**-0.5


@pytest.mark.parametrize("options", [{"period": 0}, {"rate": 0}, {"rate": 1.5}, {"perod": 3}])
def test_iterand_refuses_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IteRand(**options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the plugin's recipe, by the command line, as its README says."""
    place = tmp_path_factory.mktemp("strong")
    trust = [] if _is_installed() else ["--trust", str(CODE)]
    told = [str(PLUGIN / "recipes" / "strong.toml"), "--profile", "quick", "--jobs", "1", "--quiet"]
    folders = ["--out", str(place / "run"), "--store", str(place / "store")]
    command = [
        sys.executable,
        "-c",
        "from lotteryfw.cli import main; main()",
        "recipe",
        *told,
        *folders,
        *trust,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "run"


def _is_installed() -> bool:
    from lotteryfw.registry import Registry

    return any(plugin.distribution == "lotteryfw-strong" for plugin in Registry.load().plugins)


def test_its_recipe_finds_networks_that_read_digits_without_training_a_weight(ran: Path) -> None:
    with (ran / "levels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["variant"] == "ticket"]
    assert [float(row["density"]) for row in rows] == [0.5, 0.5, 0.5, 1.0]
    assert all(float(row["test_accuracy"]) > 0.5 for row in rows)


def test_its_tickets_hold_the_weights_that_the_networks_computed_with(ran: Path) -> None:
    tickets = {
        path.parent.name: load_ticket(path) for path in ran.glob("tickets/*/level-01.safetensors")
    }
    plain, iterand, half, whole = (
        next(ticket for name, ticket in tickets.items() if part in name)
        for part in ("top_k", "iterand", "half__parametrization=sign_flip", "signs__")
    )
    for name, mask in whole.mask.items():
        drawn = plain.values[name].abs().max()  # signed constants: one magnitude a layer
        assert mask.all()
        for ticket in (plain, iterand, half, whole):
            values = ticket.values[name][ticket.mask[name]]
            assert torch.equal(values.abs(), drawn.expand_as(values))
        both = plain.mask[name] & whole.mask[name]
        assert (plain.values[name][both] != whole.values[name][both]).any(), "no sign was flipped"


def test_runs_of_it_repeat_bit_for_bit(tmp_path: Path) -> None:
    recipe = {
        "name": "again", "seeds": [0], "data": {"use": "synthetic", "examples": 300}, "initialiser": "kaiming_normal",
        "model": {"use": "mlp", "hidden": [12]}, "search": {"use": "edge_popup", "density": 0.4},
        "parametrization": {"use": "iterand", "period": 4, "rate": 0.5},
        "train": {"length": "20it", "batch": 20, "optimizer": {"use": "sgd", "lr": 0.1}},
    }  # fmt: skip
    trust = () if _is_installed() else (CODE,)
    files = []
    for name in ("one", "two"):
        done = run(
            recipe, out=tmp_path / name, store=tmp_path / f"store-{name}", trust=trust, jobs=1
        )
        files.append(
            [path.read_bytes() for path in sorted(done.path.glob("tickets/**/*.safetensors"))]
        )
    assert files[0] == files[1]
    assert files[0]
