from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lotteryfw import Scope
from lotteryfw.api.errors import LotteryError
from lotteryfw.api.layers import LayerInfo
from lotteryfw.search.top_k import budget
from lotteryfw.std.scopes import Erk, Global, Layerwise

LENET = (
    LayerInfo("fc1.weight", (300, 784)),
    LayerInfo("fc2.weight", (100, 300)),
    LayerInfo("fc3.weight", (10, 100), is_output=True),
)
FULL = {layer.name: layer.size for layer in LENET}


def keeps(groups: list) -> dict[str, int]:
    return {group.layers[0]: group.keep for group in groups}


def test_layerwise_gives_the_papers_rates() -> None:
    groups = Layerwise(rate=0.2, output_rate=0.1).groups(LENET, FULL, times=1)
    assert keeps(groups) == {"fc1.weight": 188160, "fc2.weight": 24000, "fc3.weight": 900}
    assert [group.layers for group in groups] == [("fc1.weight",), ("fc2.weight",), ("fc3.weight",)]


def test_layerwise_output_follows_rate_unless_told() -> None:
    assert keeps(Layerwise(rate=0.5).groups(LENET, FULL, 1))["fc3.weight"] == 500


def test_layerwise_named_rates_first_match_wins_over_output() -> None:
    scope = Layerwise(rate=0.2, output_rate=0.1, rates={"fc3": 0.5, "fc*": 0.4, "fc1.weight": 0.9})
    assert keeps(scope.groups(LENET, FULL, 1)) == {
        "fc1.weight": 141120,
        "fc2.weight": 18000,
        "fc3.weight": 500,
    }


@given(kept=st.integers(0, 5000), rate=st.floats(0, 0.99), times=st.integers(0, 6))
def test_layerwise_several_cuts_at_once_leave_what_as_many_cuts_leave(
    kept: int, rate: float, times: int
) -> None:
    scope, layer = Layerwise(rate=rate), LayerInfo("w", (50, 100))
    (at_once,) = scope.groups([layer], {"w": kept}, times)
    stepwise = kept
    for _ in range(times):
        (group,) = scope.groups([layer], {"w": stepwise}, 1)
        stepwise = group.keep
    assert at_once.keep == stepwise
    assert at_once.requested == pytest.approx(kept * (1 - rate) ** times)


def test_global_is_one_budget_that_does_not_count_what_is_excluded() -> None:
    (group,) = Global(rate=0.2, exclude=["fc3"]).groups(LENET, FULL, times=2)
    assert group.layers == ("fc1.weight", "fc2.weight")
    assert group.keep == budget(235200 + 30000, 0.2, times=2)
    assert group.requested == pytest.approx(265200 * 0.64)


def test_global_may_exclude_everything() -> None:
    assert Global(exclude=["*"]).groups(LENET, FULL, 1) == []


@pytest.mark.parametrize("scope", [Layerwise(rates={"conv*": 0.1}), Global(exclude=["conv*"])])
def test_a_pattern_that_matches_nothing_is_refused(scope: Layerwise | Global) -> None:
    with pytest.raises(LotteryError, match=r"conv\*.*fc1\.weight, fc2\.weight, fc3\.weight"):
        scope.groups(LENET, FULL, 1)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("scope", [Layerwise, Global, Erk])
def test_rates_lie_in_0_to_1(scope: type, rate: float) -> None:
    with pytest.raises(ValidationError):
        scope(rate=rate)
    with pytest.raises(ValidationError):
        Layerwise(rates={"fc1": rate})


def densities(layers: tuple[LayerInfo, ...], total: int) -> dict[str, float]:
    """The textbook's loop: layers whose density would exceed 1 become dense, the others share the rest."""
    dense: set[str] = set()
    while True:
        # Exact: a density of 1 is not above 1.
        raw = {a.name: Fraction(sum(a.shape), a.size) for a in layers if a.name not in dense}
        left = total - sum(a.size for a in layers if a.name in dense)
        epsilon = left / sum(raw[a.name] * a.size for a in layers if a.name not in dense)
        over = {name for name, value in raw.items() if epsilon * value > 1}
        if not over:
            return {
                a.name: 1.0 if a.name in dense else float(epsilon * raw[a.name]) for a in layers
            }
        dense |= over


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.98])
def test_erk_densities_are_the_papers(rate: float) -> None:
    layers = (
        *LENET,
        LayerInfo("conv.weight", (64, 3, 3, 3)),
        LayerInfo("conv2.weight", (128, 64, 3, 3)),
    )
    sizes = {layer.name: layer.size for layer in layers}
    counts = keeps(Erk(rate=rate).groups(layers, sizes, 1))
    for name, density in densities(layers, budget(sum(sizes.values()), rate)).items():
        assert counts[name] == pytest.approx(density * sizes[name], abs=1), name


shapes = st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple)


@given(data=st.data(), rate=st.floats(0, 0.999), times=st.integers(0, 5))
def test_erk_counts_sum_exactly_and_fit(data: st.DataObject, rate: float, times: int) -> None:
    layers = [
        LayerInfo(f"l{i}", shape)
        for i, shape in enumerate(data.draw(st.lists(shapes, min_size=1, max_size=6)))
    ]
    kept = {layer.name: data.draw(st.integers(0, layer.size)) for layer in layers}
    groups = Erk(rate=rate).groups(layers, kept, times)
    assert [group.layers for group in groups] == [(layer.name,) for layer in layers]
    assert sum(group.keep for group in groups) == budget(sum(kept.values()), rate, times)
    assert all(0 <= group.keep <= kept[group.layers[0]] for group in groups)
    assert sum(group.requested for group in groups) == pytest.approx(
        sum(kept.values()) * (1 - rate) ** times
    )


@given(kept=st.integers(0, 100))
def test_erk_does_nothing_at_rate_0(kept: int) -> None:
    counts = {"fc1.weight": 235200 - kept, "fc2.weight": kept, "fc3.weight": kept // 2}
    assert keeps(Erk(rate=0).groups(LENET, counts, 1)) == counts


# Where a mask is learned: the same scopes at a density.


densities_of_masks = st.floats(0.001, 1)


@given(density=densities_of_masks, rate=st.floats(0, 0.9))
def test_layerwise_gives_every_layer_the_density_whatever_its_rate(
    density: float, rate: float
) -> None:
    groups = Layerwise(rate=0.2, output_rate=rate or 0.1).at(LENET, density)
    assert keeps(groups) == {name: round(density * size) for name, size in FULL.items()}
    assert [group.requested for group in groups] == [
        pytest.approx(density * size) for size in FULL.values()
    ]


def test_layers_of_rate_0_are_left_whole() -> None:
    assert keeps(Layerwise(output_rate=0).at(LENET, 0.5)) == {
        "fc1.weight": 117600,
        "fc2.weight": 15000,
    }
    assert keeps(Layerwise(rates={"fc1": 0}).at(LENET, 0.5)) == {
        "fc2.weight": 15000,
        "fc3.weight": 500,
    }
    assert Layerwise(rate=0).at(LENET, 0.5) == []


@given(density=densities_of_masks)
def test_global_gives_the_density_to_all_that_it_does_not_exclude(density: float) -> None:
    (group,) = Global().at(LENET, density)
    assert (group.layers, group.keep) == (tuple(FULL), round(density * 266200))
    (group,) = Global(exclude=["fc3"]).at(LENET, density)
    assert (group.layers, group.keep) == (("fc1.weight", "fc2.weight"), round(density * 265200))
    assert Global(exclude=["*"]).at(LENET, density) == []


@given(data=st.data(), density=densities_of_masks)
def test_erk_gives_the_density_to_the_whole_network_exactly(
    data: st.DataObject, density: float
) -> None:
    layers = [
        LayerInfo(f"l{i}", shape)
        for i, shape in enumerate(data.draw(st.lists(shapes, min_size=1, max_size=6)))
    ]
    groups, total = Erk().at(layers, density), sum(layer.size for layer in layers)
    assert sum(group.keep for group in groups) == round(density * total)
    counts = keeps(groups)
    assert all(0 <= counts[layer.name] <= layer.size for layer in layers)
    for name, share in densities(tuple(layers), round(density * total)).items():
        size = next(layer.size for layer in layers if layer.name == name)
        assert counts[name] == pytest.approx(share * size, abs=1)


@pytest.mark.parametrize("scope", [Layerwise(rates={"conv*": 0.1}), Global(exclude=["conv*"])])
def test_a_pattern_that_matches_nothing_is_refused_at_a_density_too(
    scope: Layerwise | Global,
) -> None:
    with pytest.raises(LotteryError, match=r"conv\*.*fc1\.weight, fc2\.weight, fc3\.weight"):
        scope.at(LENET, 0.5)


def test_a_scope_that_knows_only_rates_says_so() -> None:
    class Fifth(Layerwise):
        use = "fifth"
        at = Scope.at

    with pytest.raises(LotteryError, match="scope 'fifth' cannot share out a density"):
        Fifth().at(LENET, 0.5)
