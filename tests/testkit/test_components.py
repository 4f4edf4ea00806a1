"""Every registered component keeps its kind's promises; and the trials that say so notice each kind of broken one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lotteryfw import (
    LATEST,
    Augmentation,
    Clock,
    Component,
    ContractError,
    DataError,
    Dataset,
    DatasetInfo,
    DataSource,
    Group,
    Initialiser,
    Lab,
    Layer,
    LayerInfo,
    LotteryError,
    Mask0Action,
    Mask1Action,
    MaskCriterion,
    MaskedLayer,
    MaskedNetwork,
    MaskSearch,
    ModelFamily,
    Need,
    Optimizer,
    Parametrization,
    RewindPoint,
    RewindPolicy,
    Schedule,
    Scope,
    Search,
    SearchAlgorithm,
    Subset,
    straight_through,
)
from lotteryfw.api.errors import PluginError, UsageError
from lotteryfw.api.kinds import kinds
from lotteryfw.registry import RegisteredComponent, Registry
from lotteryfw.testkit import Skipped, check_plugin, trial
from lotteryfw.testkit.trials import TRIALS

OFFERS = {f"{offer.kind} {offer.full_name}": offer for offer in Registry.load().offers()}
OURS = {name: offer for name, offer in OFFERS.items() if offer.distribution == "lotteryfw"}
REQUIRED: dict[str, dict[str, Any]] = {
    "rewind lotteryfw/to_step": {"step": "500it", "optimizer": "saved"},
    "optimizer lotteryfw/sgd": {"lr": 0.1, "momentum": 0.9},
    "schedule lotteryfw/multistep": {"milestones": ["50%", "300ep", 15_000], "warmup": "2ep"},
    "data lotteryfw/image_folder": {"path": "pictures", "validation": 2},
    "data lotteryfw/imagenet": {"path": "imagenet"},
    "model lotteryfw/vgg16": {"width": 0.25, "affine": False},
    "model lotteryfw/vgg19": {"width": 0.25},
    "model lotteryfw/resnet18": {"width": 0.25, "affine": False, "bias": False},
    "model lotteryfw/wide_resnet": {"depth": 10, "widen": 1},
    "model lotteryfw/torchvision": {"name": "resnet18", "affine": False, "bias": False},
}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder that holds a small image_folder."""
    rng = np.random.default_rng(0)
    for part, images in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    folder / f"{number}.png"
                )
    monkeypatch.setenv("LOTTERYFW_DATA", str(tmp_path))


@pytest.mark.parametrize("name", OFFERS)
def test_every_component_passes_its_trial(name: str, request: pytest.FixtureRequest) -> None:
    if name == "data lotteryfw/image_folder":
        request.getfixturevalue("pictures")
    trial(OFFERS[name].cls, REQUIRED.get(name))


def test_every_kind_has_a_trial_and_a_component() -> None:
    assert TRIALS.keys() == kinds().keys() == {offer.kind for offer in OURS.values()}


@pytest.mark.parametrize("offer", OURS.values(), ids=OURS)
def test_ours_say_what_they_do_and_where_it_comes_from(offer: RegisteredComponent) -> None:
    assert offer.cls.summary()
    assert offer.cls.source
    assert offer.cls.formula


# What the trials notice. Each class is right but for one thing; the message says that thing.


COUNTER = count(1)
"""What something that is not repeatable depends on."""


def same(layer: Layer) -> Tensor:
    return layer.final.clone()


def drifting(layer: Layer) -> Tensor:
    return torch.rand(layer.info.shape, generator=layer.rng)


def into_input(layer: Layer) -> Tensor:
    return layer.final.abs_()


LEAF_FAULTS: dict[str, tuple[Callable[[Layer], Any], str]] = {
    "not a tensor": (lambda layer: 0.5, "returned float, not a tensor"),
    "wrong shape": (lambda layer: layer.final.flatten(), r"a linear layer returned shape \[48\], not \[6, 8\]"),
    "integers": (lambda layer: layer.final.long(), "returned dtype torch.int64, not floating point"),
    "NaN": (lambda layer: layer.final.log(), "values that are NaN or infinite where they are read"),
    "global stream": (lambda layer: torch.rand(layer.info.shape), "used a global random stream"),
    "numpy's stream": (lambda layer: layer.final * float(np.random.rand()), "used a global random stream"),
    "a memory": (lambda layer: layer.final + next(COUNTER), "gave two results for equal inputs and streams"),
    "changes what it reads": (into_input, "changed layer.final, which it is shown to read only"),
    "raises": (lambda layer: layer.finl, "on a linear layer raised AttributeError: 'Layer' object has no attribute 'finl'"),
    "breaks on nothing": (lambda layer: layer.final - layer.final[layer.mask].max(), "a layer with no living weight raised"),
}  # fmt: skip
LAYER_KINDS: dict[type[Component], str] = {
    MaskCriterion: "score",
    Mask1Action: "kept_values",
    Mask0Action: "masked_values",
}


def component(kind: type[Component], **members: Any) -> type[Any]:
    """A component class of this kind, called "broken", with these methods and class attributes."""
    module = {"__module__": __name__, "__doc__": "Does something.", "use": "broken"}
    hints = {
        "__annotations__": {
            name: ClassVar[Any] for name, value in members.items() if not callable(value)
        }
    }
    return type("Broken", (kind,), {**module, **hints, **members})


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("fault", LEAF_FAULTS)
def test_a_broken_criterion_or_action_is_noticed(kind: type[Component], fault: str) -> None:
    method, message = LEAF_FAULTS[fault]
    broken = component(kind, **{LAYER_KINDS[kind]: lambda self, layer: method(layer)})
    with pytest.raises(
        ContractError, match=rf"{kind.kind} 'broken': {LAYER_KINDS[kind]}\(\) .*{message}"
    ):
        trial(broken)


@pytest.mark.parametrize("kind", [Mask1Action, Mask0Action])
def test_actions_give_float32_where_criteria_may_give_more(kind: type[Component]) -> None:
    trial(component(MaskCriterion, score=lambda self, layer: layer.final.double()))
    with pytest.raises(ContractError, match=r"returned torch.float64, not float32"):
        trial(component(kind, **{LAYER_KINDS[kind]: lambda self, layer: layer.final.double()}))


def test_a_gradient_must_be_asked_for() -> None:
    score = {"score": lambda self, layer: (layer.final * layer.gradient).abs()}
    trial(component(MaskCriterion, needs=frozenset({Need.GRADIENT}), **score))
    with pytest.raises(ContractError, match=r"needs = frozenset\(\{Need.GRADIENT\}\)"):
        trial(component(MaskCriterion, **score))


@pytest.mark.parametrize("dead", [drifting, same], ids=["drawn anew", "w_f"])
def test_frozen_weights_that_drift_are_noticed(dead: Callable[[Layer], Tensor]) -> None:
    def moving(self: Any, layer: Layer) -> Tensor:
        return dead(layer) + 0.1

    with pytest.raises(
        ContractError,
        match=r"masked_values\(\) moves frozen weights: at level 2, .* 12 of 12 weights",
    ):
        trial(component(Mask0Action, masked_values=moving))
    trial(
        component(
            Mask0Action,
            masked_values=lambda self, layer: moving(self, layer).where(layer.cut, layer.init),
        )
    )


def test_an_action_that_changes_what_kept_weights_restart_from_works_on_a_copy() -> None:
    dead = {"masked_values": lambda self, layer: torch.zeros(layer.info.shape)}
    trial(component(Mask0Action, kept=lambda self, layer, alive: alive * 2, **dead))
    with pytest.raises(ContractError, match=r"kept\(\) on a linear layer changed its input"):
        trial(component(Mask0Action, kept=lambda self, layer, alive: alive.mul_(2), **dead))


Kept = Mapping[str, int]
SCOPE_FAULTS: dict[str, tuple[Callable[[Kept, int], Any], str]] = {
    "too many": (
        lambda kept, times: [Group((n,), k + 1, k + 1) for n, k in kept.items()],
        "keeps 433 of 432 living",
    ),
    "fractions": (
        lambda kept, times: [Group((n,), k * 0.8, k * 0.8) for n, k in kept.items()],
        "counts are int",
    ),
    "twice": (
        lambda kept, times: [Group(tuple(kept), 9, 9), Group(("fc1.weight",), 9, 9)],
        "fc1.weight in two groups",
    ),
    "unknown": (
        lambda kept, times: [Group(("fc9.weight",), 0, 0)],
        "names no layer of the network: fc9.weight",
    ),
    "grows": (
        lambda kept, times: [Group((n,), min(k, times), times) for n, k in kept.items()],
        r"keeps \d+ weights after 2 cuts, more than",
    ),
    "floors": (
        lambda kept, times: [
            Group((n,), int(k * 0.8**times), k * 0.8**times) for n, k in kept.items()
        ],
        "after 2 cuts made as one, but .* after 2 cuts in a row",
    ),
    "requested": (
        lambda kept, times: [Group((n,), k // 2, k) for n, k in kept.items()],
        "far from its `requested`",
    ),
    "raises": (
        lambda kept, times: [kept["fc1"]],
        "groups.. on a whole network with times = 1 raised KeyError: 'fc1'",
    ),
    "changes kept": (lambda kept, times: kept.clear(), "raised AttributeError"),
}


@pytest.mark.parametrize("fault", SCOPE_FAULTS)
def test_a_broken_scope_is_noticed(fault: str) -> None:
    groups, message = SCOPE_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Scope, groups=lambda self, layers, kept, times: groups(kept, times)))


REWIND_FAULTS: dict[str, tuple[Callable[[Clock], Any], str]] = {
    "a number": (lambda clock: 0, "returned int, not a RewindPoint"),
    "outside": (
        lambda clock: RewindPoint(clock.total + 1, 0),
        "has weights = 20001, which is no step of the training",
    ),
    "a fraction": (
        lambda clock: RewindPoint(0, clock.total / 2),
        "has schedule = 10000.0, which is no step",
    ),
    "negative": (
        lambda clock: RewindPoint(LATEST, 0, steps=-1),
        "has steps = -1, which is no length",
    ),
    "no state": (
        lambda clock: RewindPoint(0, 0, optimizer="saved"),
        "a state is saved at the steps 1, 2, …",
    ),
}


@pytest.mark.parametrize("fault", REWIND_FAULTS)
def test_a_broken_rewind_policy_is_noticed(fault: str) -> None:
    point, message = REWIND_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(RewindPolicy, point=lambda self, clock: point(clock)))


def nothing(lab: Lab) -> Search[None]:
    yield from lab.train(lab.dense())


def not_a_generator(lab: Lab) -> None:
    lab.train(lab.dense())


def endless(lab: Lab) -> Search[None]:
    while True:
        yield from lab.train(lab.dense())


def strange_question(lab: Lab) -> Search[None]:
    yield lab.dense()


def backwards(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(1, dense, trained)
    ticket = lab.prune(dense, trained)
    lab.record(0, ticket, (yield from lab.train(ticket)))


def twice(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, dense, trained)
    lab.record(0, dense, trained)


def anothers_training(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, lab.prune(dense, trained), trained)


def different_each_time(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, dense, trained)
    yield from lab.train(lab.prune(dense, trained, times=next(COUNTER)))


def broken_inside(lab: Lab) -> Search[None]:
    trained = yield from lab.train(lab.dense())
    lab.record(0, trained.tickt, trained)


SEARCH_FAULTS: dict[Callable[[Lab], Any], str] = {
    nothing: "records no level",
    not_a_generator: "is no generator: it needs `yield from",
    endless: "asked 1000 times and has not ended",
    strange_question: "yields Ticket; ask with",
    backwards: r"keeps more weights at level 1 \(120\) than at level 0 \(96\)",
    twice: "records level 0 twice",
    anothers_training: "records a ticket with another one's training",
    different_each_time: "asked for other jobs when it was played again",
    broken_inside: "raised AttributeError: 'Trained' object has no attribute 'tickt'",
}


@pytest.mark.parametrize("search", SEARCH_FAULTS, ids=lambda search: search.__name__)
def test_a_broken_search_is_noticed(search: Callable[[Lab], Any]) -> None:
    with pytest.raises(
        ContractError, match=rf"search 'broken': search\(\) .*{SEARCH_FAULTS[search]}"
    ):
        trial(component(SearchAlgorithm, search=lambda self, lab: search(lab)))


def learning(lab: Lab) -> Search[None]:
    ticket = lab.learn_mask(0.5)
    learned = yield from lab.train(ticket)
    lab.record(1, lab.extract_ticket(ticket, learned), learned)


def not_learning(lab: Lab) -> Search[None]:
    lab.record(0, lab.dense(), (yield from lab.train(lab.dense())))


def another_arm(lab: Lab) -> Search[None]:
    dense = lab.dense()
    lab.record(0, dense, (yield from lab.train(dense)), variant="mine")


def test_a_search_says_whether_it_learns_masks_and_which_arms_it_has() -> None:
    def search(
        play: Callable[[Lab], Any], kind: type[SearchAlgorithm] = SearchAlgorithm, **said: Any
    ) -> type[Any]:
        return component(kind, search=lambda self, lab: play(lab), **said)

    trial(search(learning, MaskSearch))
    trial(search(learning, required={"parametrization": "tries one out"}))
    with pytest.raises(ContractError, match="masks learned, so its class must be a MaskSearch"):
        trial(search(learning))
    with pytest.raises(
        ContractError, match=r"has a parametrization, but search.. has no mask learned"
    ):
        trial(search(not_learning, MaskSearch))
    trial(search(another_arm, variants=("mine",)))
    with pytest.raises(
        ContractError, match="records under the variant mine, which is not in its `variants`"
    ):
        trial(search(another_arm))


# Of a parametrization: what is right about all, and for each fault one method that is not.


def positive(net: MaskedNetwork) -> dict[str, Tensor]:
    return {name: (edges.scores > 0) & edges.allowed for name, edges in net.edges.items()}


def without_rng(net: MaskedNetwork) -> dict[str, Tensor]:
    return {
        name: (torch.rand(edges.info.shape) < 0.5) & edges.allowed
        for name, edges in net.edges.items()
    }


def remembered(net: MaskedNetwork) -> dict[str, Tensor]:
    found: dict[str, Tensor] = net.memory.setdefault("masks", positive(net))
    return found


def scores_changed(net: MaskedNetwork) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: edges.scores.sub_(0.1) > 9 for name, edges in net.edges.items()}


def passed(edges: MaskedLayer, mask: Tensor) -> Tensor:
    return edges.weights * straight_through(mask, edges.scores)


def redrawn(
    self: Any, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    for name, edges in net.edges.items():
        edges.weights.copy_(torch.where(masks[name], edges.weights, net.draw(edges.info, rng)))


def scores_moved(
    self: Any, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    for edges in net.edges.values():
        edges.scores.mul_(0.5)


def drawn_from_anywhere(
    self: Any, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    for edges in net.edges.values():
        edges.weights.add_(next(COUNTER))


PARAMETRIZATION_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "initial's shape": (
        {"initial": lambda self, layer, rng: torch.zeros(3)},
        r"initial.. on conv1.weight .* shape",
    ),
    "initial's dtype": (
        {"initial": lambda self, layer, rng: torch.zeros(layer.shape).double()},
        "not float32",
    ),
    "initial draws": (
        {"initial": lambda self, layer, rng: torch.rand(layer.shape)},
        "used a global random stream",
    ),
    "no dict": (
        {"masks": lambda self, net: list(positive(net).values())},
        "masks.. on a whole .* returned list",
    ),
    "a layer left out": (
        {"masks": lambda self, net: dict(list(positive(net).items())[1:])},
        "no mask for conv1.weight",
    ),
    "floats": (
        {"masks": lambda self, net: {n: m.float() for n, m in positive(net).items()}},
        "not torch.bool",
    ),
    "flat": (
        {"masks": lambda self, net: {n: m.flatten() for n, m in positive(net).items()}},
        r"not \[16, 3, 3, 3\]",
    ),
    "removed edges": (
        {"masks": lambda self, net: {n: e.scores > 0 for n, e in net.edges.items()}},
        "masks.. on a network with few edges left keeps .* of conv1.weight that were removed for good",
    ),
    "scores changed": ({"masks": lambda self, net: scores_changed(net)}, "changed edges.scores"),
    "sampled elsewhere": (
        {"sampled": lambda self, net, rng: without_rng(net)},
        "sampled.. .*global random stream",
    ),
    "memory decides": (
        {"masks": lambda self, net: remembered(net)},
        "another mask of conv1.weight when net.memory",
    ),
    "weights leak": (
        {"weight": lambda self, edges, mask: edges.weights * edges.scores},
        "is not 0 for .* masked",
    ),
    "no gradient": (
        {"weight": lambda self, edges, mask: edges.weights * mask},
        "weight.. on .* has no gradient",
    ),
    "NaN gradient": (
        {
            "weight": lambda self, edges, mask: (
                passed(edges, mask) + 0 * (edges.scores * 0).sqrt() * mask
            )
        },
        "a gradient that is NaN",
    ),
    "weights written": (
        {
            "weight": lambda self, edges, mask: (
                edges.weights.mul_(mask) * straight_through(mask, edges.scores)
            )
        },
        "changed edges.weights",
    ),
    "more than allowed": (
        {"expected": lambda self, edges, mask: 1e9},
        "expected.. on .* is 1000000000.0; 432 edges",
    ),
    "expected text": (
        {"expected": lambda self, edges, mask: "half"},
        "returned 'half', not a finite number",
    ),
    "draws": (
        {"draws": lambda self: 1.5},
        "draws.. returned 1.5, not a whole number of at least 0",
    ),
    "refresh": (
        {"refresh": lambda self: 0},
        "refresh.. returned 0, not a whole number of at least 1",
    ),
    "scores moved": ({"after_step": scores_moved}, "after_step.. on .* changed edges.scores"),
    "redrawn anyhow": ({"after_step": drawn_from_anywhere}, "after_step.. on .* gave two results"),
    "raises": (
        {"masks": lambda self, net: net.egdes},
        "masks.. on a whole network raised AttributeError",
    ),
}


def parametrization(**methods: Any) -> type[Any]:
    right = {
        "initial": lambda self, layer, rng: torch.rand(layer.shape, generator=rng) - 0.5,
        "masks": lambda self, net: positive(net),
        "weight": lambda self, edges, mask: passed(edges, mask),
    }
    return component(Parametrization, **(right | methods))


@pytest.mark.parametrize("fault", PARAMETRIZATION_FAULTS)
def test_a_broken_parametrization_is_noticed(fault: str) -> None:
    methods, message = PARAMETRIZATION_FAULTS[fault]
    with pytest.raises(ContractError, match=rf"parametrization 'broken': .*{message}"):
        trial(parametrization(**methods))


def test_a_parametrization_may_redraw_weights_after_a_step() -> None:
    trial(parametrization())
    trial(parametrization(after_step=redrawn))


class Net(nn.Module):
    """A network that is right, with room for faults."""

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__()
        self.hidden = nn.Linear(shape[0] * shape[1] * shape[2], 5)
        self.output = nn.Linear(5, classes)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(x.flatten(1)).relu())


class Sampling(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(1)


class Narrow(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


class Shouting(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no") if self.training else ValueError


HIDDEN_OUTPUT = ["hidden.weight", "output.weight"]


def unseeded(shape: tuple[int, ...], classes: int) -> nn.Module:
    net = Net(shape, classes)
    nn.init.constant_(net.hidden.bias, next(COUNTER))
    return net


MODEL_FAULTS: dict[str, tuple[Callable[..., Any], list[str], str]] = {
    "not a module": (
        lambda shape, classes: Net,
        HIDDEN_OUTPUT,
        "returned type, not a torch.nn.Module",
    ),
    "names nothing": (Net, [], "names no parameter"),
    "unknown name": (Net, ["hidden.wait"], "names no parameter of the network: hidden.wait"),
    "twice": (Net, ["hidden.weight", *HIDDEN_OUTPUT], "names a parameter twice"),
    "output first": (
        Net,
        HIDDEN_OUTPUT[::-1],
        "ends with hidden.weight, which has 5 outputs for 7 classes",
    ),
    "unused": (Net, ["unused.weight", *HIDDEN_OUTPUT], "does not depend on unused.weight"),
    "wrong logits": (
        Narrow,
        HIDDEN_OUTPUT,
        r"returned \[4, 2\] for inputs \[4, 1, 28, 28\], not logits \[4, 7\]",
    ),
    "raises": (Shouting, HIDDEN_OUTPUT, "the network broke in training mode: RuntimeError: no"),
    "samples": (Sampling, HIDDEN_OUTPUT, "in evaluation mode it gave two results"),
    "unseeded": (unseeded, HIDDEN_OUTPUT, "gave two networks under one seed"),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_broken_model_is_noticed(fault: str) -> None:
    build, names, message = MODEL_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(
            component(
                ModelFamily,
                build=lambda self, s, c: build(s, c),
                prunable=lambda self, module: names,
            )
        )


def test_a_model_may_refuse_some_inputs_but_not_all() -> None:
    def colours_only(self: Any, shape: tuple[int, ...], classes: int) -> nn.Module:
        if shape[0] != 3:
            raise LotteryError("colours only")
        return Net(shape, classes)

    def never(self: Any, shape: tuple[int, ...], classes: int) -> nn.Module:
        raise LotteryError("not today")

    trial(component(ModelFamily, build=colours_only, prunable=lambda self, module: HIDDEN_OUTPUT))
    with pytest.raises(ContractError, match="takes no images at all: not today; not today"):
        trial(component(ModelFamily, build=never))


Rng = torch.Generator


def test_a_broken_initialiser_is_noticed() -> None:
    def weight(self: Any, layer: LayerInfo, rng: Rng) -> Tensor:
        return torch.randn(layer.shape, generator=rng)

    trial(component(Initialiser, weight=weight))
    with pytest.raises(
        ContractError, match=r"weight\(\) on conv1.weight used a global random stream"
    ):
        trial(component(Initialiser, weight=lambda self, layer, rng: torch.randn(layer.shape)))
    with pytest.raises(
        ContractError, match=r"weight\(\) on conv1.weight returned shape \[16, 27\]"
    ):
        trial(
            component(
                Initialiser,
                weight=lambda self, layer, rng: torch.zeros(layer.shape[0], layer.fan_in),
            )
        )
    with pytest.raises(
        ContractError, match=r"bias\(\) on conv1.weight returned torch.float64, not float32"
    ):
        trial(
            component(
                Initialiser,
                weight=weight,
                bias=lambda self, layer, rng: torch.zeros(layer.shape[0]).double(),
            )
        )


def test_a_broken_augmentation_is_noticed() -> None:
    with pytest.raises(
        ContractError, match=r"returned shape \[4, 1, 28, 27\], not \[4, 1, 28, 28\]"
    ):
        trial(component(Augmentation, apply=lambda self, images, rng: images[..., 1:]))
    with pytest.raises(ContractError, match="changed its input"):
        trial(component(Augmentation, apply=lambda self, images, rng: images.mul_(0.5)))
    with pytest.raises(ContractError, match="used a global random stream"):
        trial(component(Augmentation, apply=lambda self, images, rng: images + torch.rand(1)))


def source(load: Callable[[], Dataset], facts: DatasetInfo | None = None) -> type[DataSource]:
    said = facts or DatasetInfo((4,), 3, train=9, validation=3, test=3)
    return component(DataSource, facts=lambda self, folder: said, load=lambda self, folder: load())


def splits(rng: Rng | None = None, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Dataset:
    rng = rng or torch.Generator().manual_seed(0)
    parts = [
        Subset(torch.randn(n, 4, generator=rng).to(dtype), torch.arange(n) % 3) for n in (9, 3, 3)
    ]
    return Dataset(*parts, std=(std,))


def leaking() -> Dataset:
    whole = splits()
    return Dataset(whole.train, Subset(whole.train.inputs[:3], whole.train.labels[:3]), whole.test)


ENTROPY = torch.Generator().manual_seed(0)
DATA_FAULTS: dict[str, tuple[type[DataSource], str]] = {
    "sizes": (
        source(splits, DatasetInfo((4,), 3, 8, 3, 3)),
        "train has 9 examples; its facts promise 8",
    ),
    "classes": (
        source(splits, DatasetInfo((4,), 2, 9, 3, 3)),
        r"train has label 2 at example 2 \(3 such.*promise 2 classes, so labels must lie in 0 … 1",
    ),
    "changing": (source(lambda: splits(ENTROPY)), r"load\(\) gave two results"),
    "dtype": (
        source(lambda: splits(dtype=torch.float64)),
        "inputs torch.float64 and labels torch.int64",
    ),
    "std": (source(lambda: splits(std=0.0)), "inputs are divided by it, so it must be positive"),
    "leak": (source(leaking), "has 3 of 3 validation examples in train, too"),
    "nothing": (source(lambda: None), r"load\(\) returned NoneType, not Dataset"),  # type: ignore[arg-type,return-value]
}


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_a_broken_data_source_is_noticed(fault: str) -> None:
    trial(source(splits))
    cls, message = DATA_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(cls)


def test_absent_data_is_a_skip_and_no_failure() -> None:
    def absent() -> Dataset:
        raise DataError("broken is not there: look elsewhere")

    with pytest.raises(Skipped, match="is not there: look elsewhere"):
        trial(source(absent))


class Counting(torch.optim.SGD):
    """Remembers something that its state does not hold."""

    steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            for value in group["params"]:
                value.data -= group["lr"] / self.steps * value.grad


class Headstrong(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for value in group["params"]:
                value.data -= 0.1 * value.grad


class Hoarding(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for value in group["params"]:
                self.state[value]["history"] = [1, 2]


OPTIMIZER_FAULTS: dict[str, tuple[Callable[[list[Tensor]], Any], str]] = {
    "no optimizer": (lambda ps: None, "returned NoneType, not a torch.optim.Optimizer"),
    "half": (lambda ps: torch.optim.SGD(ps[:1], lr=0.1), "does not hold each of the parameters"),
    "still": (lambda ps: torch.optim.SGD(ps, lr=0.0), "left every parameter where it was"),
    "wild": (lambda ps: torch.optim.SGD(ps, lr=1e30), "made parameters NaN or infinite"),
    "rate": (lambda ps: torch.optim.SGD(ps, lr=torch.tensor(0.1)), "`lr` is no number"),
    "forgetful": (
        lambda ps: Counting(ps, lr=0.1),
        "a saved and restored optimizer takes another step",
    ),
    "headstrong": (
        lambda ps: Headstrong(ps, lr=0.1),
        "with lr = 0 the optimizer still moves parameters",
    ),
    "hoarding": (lambda ps: Hoarding(ps, lr=0.1), "keeps 'history' as list; it cannot be saved"),
}


@pytest.mark.parametrize("fault", OPTIMIZER_FAULTS)
def test_a_broken_optimizer_is_noticed(fault: str) -> None:
    build, message = OPTIMIZER_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Optimizer, build=lambda self, parameters: build(list(parameters))))


SCHEDULE_FAULTS: dict[str, tuple[Callable[[int, Clock], Any], str]] = {
    "negative": (lambda step, clock: 1 - 2 * step / clock.total, r"is -0\.0\d+ at step"),
    "infinite": (lambda step, clock: float("inf"), "is inf at step 0"),
    "tensor": (
        lambda step, clock: torch.ones(()),
        r"is tensor\(1.\) at step 0; a finite number ≥ 0 is needed",
    ),
    "nothing": (lambda step, clock: 0.0, "is 0 at every step"),
    "impure": (lambda step, clock: 1 / next(COUNTER), "gave two results for step"),
    "raises": (lambda step, clock: 1 / step, "raised ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", SCHEDULE_FAULTS)
def test_a_broken_schedule_is_noticed(fault: str) -> None:
    factor, message = SCHEDULE_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Schedule, factor=lambda self, step, clock: factor(step, clock)))


# What all kinds have in common


class Powered(MaskCriterion):
    """Keeps large powers."""

    use = "powered"
    power: float

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs() ** self.power


def test_options_without_a_default_are_asked_for_and_wrong_ones_explained() -> None:
    trial(Powered, {"power": 2})
    with pytest.raises(
        UsageError,
        match=r"criterion 'powered' has options without a default: power; .*\"power\": …",
    ):
        trial(Powered)
    with pytest.raises(UsageError, match="criterion 'powered': power must be a number, got 'two'"):
        trial(Powered, {"power": "two"})
    with pytest.raises(UsageError, match=r"has no option 'powr'.*did you mean 'power'"):
        trial(Powered, {"power": 2, "powr": 3})
    with pytest.raises(UsageError, match="is no component class"):
        trial(Component)


def test_what_every_component_must_have() -> None:
    score = {"score": lambda self, layer: layer.final.abs()}
    with pytest.raises(ContractError, match="has no summary; write a docstring"):
        trial(component(MaskCriterion, __doc__=None, **score))
    with pytest.raises(ContractError, match="it has no name"):
        trial(component(MaskCriterion, use="", **score))
    with pytest.raises(ContractError, match="it is not frozen"):
        trial(component(MaskCriterion, model_config={"frozen": False}, **score))


class Opaque(MaskCriterion):
    """Has an option that cannot be written into a job."""

    use = "opaque"
    where: complex = 1j

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs()


class Infinite(Opaque):
    """Has an option that JSON cannot hold."""

    use = "infinite"
    where: float = float("inf")


def test_options_must_survive_as_plain_data() -> None:
    trial(Opaque)  # "1j" is text that pydantic reads back
    with pytest.raises(
        ContractError, match="cannot be built again from its own options as plain data"
    ):
        trial(Infinite)


PLUGIN = """
from lotteryfw import MaskCriterion, hookimpl

class Good(MaskCriterion):
    "Keeps the large."
    use = "good"
    def score(self, layer):
        return layer.final.abs()

class Bad(MaskCriterion):
    "Keeps nothing sensible."
    use = "bad"
    def score(self, layer):
        return layer.final[0]

class Asking(MaskCriterion):
    "Keeps the large."
    use = "asking"
    power: float
    def score(self, layer):
        return layer.final.abs()

@hookimpl
def register_components():
    return [Good, Bad, Asking]
"""


def test_check_plugin_tells_which_component_broke_and_why(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    verdicts = {verdict.offer.name: verdict for verdict in check_plugin(str(file))}
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == {
        "good": "passed", "bad": "failed", "asking": "skipped"
    }  # fmt: skip
    assert str(verdicts["good"]) == "passed: criterion mine.py/good"
    assert (
        "failed: criterion mine.py/bad: criterion 'bad': score() on a linear layer returned shape"
        in str(verdicts["bad"])
    )
    assert "options without a default: power" in str(verdicts["asking"])
    assert [verdict.failed for verdict in verdicts.values()].count(True) == 1


def test_check_plugin_says_when_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'lotteryfv'.*did you mean 'lotteryfw'"):
        check_plugin("lotteryfv")
    with pytest.raises(UsageError, match="there is no plugin file"):
        check_plugin(str(tmp_path / "absent.py"))
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    with pytest.raises(PluginError, match="nowhere_to_be_found"):
        check_plugin(str(tmp_path / "broken.py"))
