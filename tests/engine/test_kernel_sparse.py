"""The sparse kernel against autograd and torch.optim on the same network, dense and masked."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lotteryfw.engine.checkpoint import load_optimizer, optimizer_tensors
from lotteryfw.engine.kernels.optimizer_rules import UpdateRule
from lotteryfw.engine.kernels.sparse.backends import backends, loops_of
from lotteryfw.engine.kernels.sparse.loops import LONG_TILE, TILE, whole_tiles
from lotteryfw.engine.kernels.sparse.sparse_mlp import SparseMlp, warm_up

RULES = {
    "sgd": (UpdateRule("sgd"), 0.1, torch.optim.SGD, {}),
    "sgd with decay": (UpdateRule("sgd", weight_decay=0.01), 0.1, torch.optim.SGD, {"weight_decay": 0.01}),
    "momentum": (
        UpdateRule("sgd", momentum=0.9, dampening=0.3, weight_decay=1e-3),
        0.03, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 1e-3},
    ),
    "nesterov": (
        UpdateRule("sgd", momentum=0.8, nesterov=True), 0.03, torch.optim.SGD, {"momentum": 0.8, "nesterov": True},
    ),
    "adam": (UpdateRule("adam"), 1.2e-3, torch.optim.Adam, {}),
    "adam with decay": (
        UpdateRule("adam", beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.01),
        1.2e-3, torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.01},
    ),
    "adamw": (UpdateRule("adamw", weight_decay=0.05), 1.2e-3, torch.optim.AdamW, {"weight_decay": 0.05}),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True, params=[*backends(), "sparse inputs"])
def loops(request):
    """Every test runs on every set of loops that is here, and with sparse inputs, which are numba's."""
    torch.set_num_threads(1)
    Problem.sparse_inputs = request.param == "sparse inputs"
    Problem.loops = loops_of("numba" if Problem.sparse_inputs else request.param)
    warm_up(Problem.loops)


class Problem:
    """A data set with something to learn, masked starting weights, and the batches of every step."""

    loops = None
    sparse_inputs = False

    def __init__(
        self, widths, density, batch, *, biases=True, dense=(), dead=True, dtype=torch.uint8, seed=0,
        lit=1.0, frozen=0.0,
    ):  # fmt: skip
        """A share `lit` of the inputs is not 0; masked weights are `frozen` times what they were."""
        rng = torch.Generator().manual_seed(seed)
        self.batch, self._rng = batch, rng
        self.inputs = torch.randint(0, 256, (200, widths[0]), generator=rng, dtype=torch.uint8)
        if dtype == torch.float32:
            self.inputs = torch.randn(200, widths[0], generator=rng)
        if lit < 1:
            self.inputs[torch.rand(200, widths[0], generator=rng) >= lit] = 0
        teacher = torch.randn(widths[0], widths[-1], generator=rng)
        self.labels = (self.inputs.float() @ teacher).argmax(1)
        self.weights, self.masks, self.biases = [], [], []
        for number, (before, after) in enumerate(pairwise(widths)):
            mask = torch.rand(after, before, generator=rng) < density
            if dead and after > 2 and before > 2:
                mask[1], mask[:, 1] = False, False
            self.masks.append(None if number in dense else mask)
            weight = torch.randn(after, before, generator=rng) / math.sqrt(
                max(1.0, before * density)
            )
            self.weights.append(
                weight if number in dense else weight.where(mask, weight * frozen + 0.0)
            )
            self.biases.append(0.1 * torch.randn(after, generator=rng) if biases else None)

    def batches(self, steps):
        rng = torch.Generator().manual_seed(1)
        return [torch.randperm(200, generator=rng)[: self.batch] for _ in range(steps)]

    def chain(self, update, dense_from=1.1):
        return SparseMlp(
            self.weights, self.masks, self.biases, update, self.batch, dense_from, self.loops, self.sparse_inputs
        )  # fmt: skip

    def plain(self, rule):
        return Plain(self, rule)


class Plain:
    """The reference: autograd, torch.optim, masked weights put back to 0 after every update."""

    def __init__(self, problem, rule):
        _, self.rate, optimizer, options = RULES[rule]
        self._problem = problem
        self.weights = [weight.clone().requires_grad_() for weight in problem.weights]
        self.biases = [
            None if bias is None else bias.clone().requires_grad_() for bias in problem.biases
        ]
        self.parameters = [
            part
            for pair in zip(self.weights, self.biases, strict=True)
            for part in pair
            if part is not None
        ]
        self.optimizer = optimizer(self.parameters, lr=self.rate, **options)

    def logits(self, inputs) -> Tensor:
        x = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            x = linear(x, weight, bias)
            x = x.relu() if number < len(self.weights) else x
        return x

    def step(self, chosen) -> float:
        loss = cross_entropy(
            self.logits(self._problem.inputs[chosen]), self._problem.labels[chosen]
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for weight, start, mask in zip(
                self.weights, self._problem.weights, self._problem.masks, strict=True
            ):
                if mask is not None:
                    weight.copy_(weight.where(mask, start))
        return loss.item()


def both(
    problem: Problem, rule: str, steps: int, dense_from: float = 1.1
) -> tuple[SparseMlp, Plain]:
    """The two after the same steps; every step's loss was the same."""
    chain, plain = problem.chain(RULES[rule][0], dense_from), problem.plain(rule)
    for chosen in problem.batches(steps):
        expected = plain.step(chosen)
        assert chain.step(problem.inputs, problem.labels, chosen, plain.rate) == pytest.approx(
            expected, abs=2e-5
        )
    return chain, plain


def apart(problem: Problem, chain: SparseMlp, plain: Plain) -> float:
    """The largest difference of a logit over the whole data set."""
    with torch.no_grad():
        return float(
            (chain.products.forward(problem.inputs) - plain.logits(problem.inputs)).abs().max()
        )


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("rule", RULES)
def test_hundred_steps_are_the_references(rule, density):
    problem = Problem((60, 30, 20, 5), density, batch=60)
    chain, plain = both(problem, rule, 100)
    assert apart(problem, chain, plain) < 5e-5
    started = problem.chain(RULES[rule][0])
    assert apart(problem, started, plain) > 1e-2, (
        "the training moved nothing: the test says nothing"
    )
    for weight, mask in zip(chain.products.weights(), problem.masks, strict=True):
        assert not weight[~mask].any()


@pytest.mark.parametrize("batch", [1, 7, 16, 60, 128])
@pytest.mark.parametrize(
    ("widths", "dense"),
    [((20, 4), ()), ((20, 15, 4), (1,)), ((20, 15, 10, 4), (0, 2)), ((20, 15, 12, 10, 4), ())],
)
def test_any_batch_and_depth_and_mix_of_dense_layers(batch, widths, dense):
    problem = Problem(widths, 0.3, batch, dense=dense, biases=len(widths) != 3)
    chain, plain = both(problem, "momentum", 100)
    assert apart(problem, chain, plain) < 5e-5


@pytest.mark.parametrize("rule", ["nesterov", "adam with decay", "adamw"])
def test_a_masked_layer_on_dense_products_trains_the_same(rule):
    problem = Problem((30, 20, 12, 4), 0.5, batch=32)
    chain, plain = both(problem, rule, 100, dense_from=0.0)
    assert apart(problem, chain, plain) < 5e-5
    for weight, mask in zip(chain.products.weights(), problem.masks, strict=True):
        assert not weight[~mask].any()


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_layer_without_a_living_weight(rule, empty):
    problem = Problem((20, 12, 10, 4), 0.4, batch=20)
    problem.masks[empty][:] = False
    problem.weights[empty].zero_()
    chain, plain = both(problem, rule, 50)
    assert apart(problem, chain, plain) < 5e-5


def test_nothing_alive_and_no_bias():
    problem = Problem((20, 12, 4), 0.0, batch=20, biases=False)
    chain, _ = both(problem, "adam", 3)
    assert not chain.products.forward(problem.inputs).any()
    assert chain.products.biases() == [None, None]


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    batch=st.integers(1, 70),
    rule=st.sampled_from(["momentum", "nesterov", "sgd with decay"]),
    biases=st.booleans(),
    dense_from=st.sampled_from([0.0, 0.3, 1.1]),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    lit=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_shape(widths, density, batch, rule, biases, dense_from, dtype, lit, seed):
    problem = Problem(
        widths, density, batch, biases=biases, dtype=dtype, dead=False, seed=seed, lit=lit
    )
    chain, plain = both(problem, rule, 4, dense_from)
    assert apart(problem, chain, plain) < 5e-5
    for ours, theirs in zip(chain.products.biases(), plain.biases, strict=True):
        assert (ours is None and theirs is None) or torch.allclose(ours, theirs.detach(), atol=1e-5)


@pytest.mark.parametrize("outputs", [37, 70])
@pytest.mark.parametrize("density", [1.1, 0.5])
@pytest.mark.parametrize("rule", RULES)
def test_most_inputs_are_0(rule, density, outputs):
    """The outputs fill no whole tiles, short or long, and 61 inputs no whole words of bytes."""
    problem = Problem((61, outputs, 20, 5), density, batch=60, lit=0.2, dead=False)
    # More steps would let what rounding leaves apart grow, of wide layers first.
    chain, plain = both(problem, rule, 40, 0.0)
    assert apart(problem, chain, plain) < 5e-5
    for ours, theirs, mask in zip(
        chain.products.weights(), plain.weights, problem.masks, strict=True
    ):
        torch.testing.assert_close(ours, theirs.detach(), atol=2e-4, rtol=1e-3)
        assert not ours[~mask].any()


@pytest.mark.parametrize("rule", ["sgd", "nesterov", "adam"])
def test_masked_weights_may_be_frozen_at_any_value(rule):
    """Every layer is then multiplied densely, however few weights its mask keeps."""
    problem = Problem((30, 20, 12, 4), 0.1, batch=32, lit=0.3, frozen=1.0)
    chain, plain = both(problem, rule, 100)
    assert apart(problem, chain, plain) < 5e-5
    for weight, start, mask in zip(
        chain.products.weights(), problem.weights, problem.masks, strict=True
    ):
        assert start[~mask].any()
        assert torch.equal(weight[~mask], start[~mask])


@pytest.mark.parametrize("rule", RULES)
def test_state_is_torchs(rule):
    problem = Problem((20, 12, 4), 0.3, batch=20, dense=(1,))
    chain, plain = both(problem, rule, 5)
    alive = [
        problem.masks[0],
        torch.ones(12, dtype=torch.bool),
        torch.ones(4, 12, dtype=torch.bool),
    ]
    alive.append(torch.ones(4, dtype=torch.bool))
    ours, theirs = chain.optimizer.state(), optimizer_tensors(plain.optimizer)
    assert set(ours) == set(theirs)
    for label, value in ours.items():
        index, _, name = label.partition(".")
        assert value.dtype == theirs[label].dtype
        if name == "step":
            assert value == theirs[label]
        else:
            living = alive[int(index)]
            torch.testing.assert_close(value[living], theirs[label][living], atol=1e-6, rtol=1e-4)
            assert not value[~living].any()


@pytest.mark.parametrize("rule", RULES)
def test_a_state_goes_on_bit_for_bit(rule):
    problem = Problem((20, 12, 10, 4), 0.3, batch=20, dense=(1,))
    update, rate, *_ = RULES[rule]
    whole = problem.chain(update)
    batches = problem.batches(12)
    for chosen in batches[:6]:
        whole.step(problem.inputs, problem.labels, chosen, rate)
    problem.weights, problem.biases = whole.products.weights(), whole.products.biases()
    second = problem.chain(update)
    second.optimizer.load(whole.optimizer.state())
    for chosen in batches[6:]:
        losses = [
            chain.step(problem.inputs, problem.labels, chosen, rate) for chain in (whole, second)
        ]
        assert losses[0] == losses[1]
    assert all(map(torch.equal, whole.products.weights(), second.products.weights()))
    second.optimizer.load({})
    assert second.optimizer.state() == {}, "an empty state is that of an optimizer without a step"


def test_our_state_goes_on_in_torch():
    problem = Problem((20, 12, 4), 0.3, batch=20)
    chain, plain = both(problem, "adam", 5)
    load_optimizer(plain.optimizer, chain.optimizer.state())
    for chosen in problem.batches(5):
        loss = chain.step(problem.inputs, problem.labels, chosen, plain.rate)
        assert loss == pytest.approx(plain.step(chosen), abs=1e-5)
    assert apart(problem, chain, plain) < 5e-5


@pytest.mark.parametrize("dense_from", [0.0, 1.1])
def test_what_another_kernel_remembers_of_masked_weights_moves_nothing(dense_from):
    problem = Problem((20, 12, 4), 0.5, batch=20)
    chain, plain = both(problem, "momentum", 5, dense_from)
    theirs = optimizer_tensors(plain.optimizer)
    assert theirs["0.momentum_buffer"][~problem.masks[0]].any()
    chain.optimizer.load(theirs)
    chain.step(problem.inputs, problem.labels, problem.batches(1)[0], plain.rate)
    for weight, mask in zip(chain.products.weights(), problem.masks, strict=True):
        assert not weight[~mask].any()


def test_same_bits_every_time():
    problem = Problem((60, 30, 20, 5), 0.2, batch=60, dense=(1,))
    runs = []
    for _ in range(2):
        chain = problem.chain(UpdateRule("adam"))
        losses = [
            chain.step(problem.inputs, problem.labels, chosen, 1e-3)
            for chosen in problem.batches(20)
        ]
        runs.append((losses, chain.products.forward(problem.inputs), *chain.products.weights()))
    assert runs[0][0] == runs[1][0]
    assert all(map(torch.equal, runs[0][1:], runs[1][1:]))


def test_what_was_given_is_left_alone():
    problem = Problem((20, 12, 4), 0.5, batch=20, dense=(1,))
    before = [tensor.clone() for tensor in (*problem.weights, *problem.biases)]
    chain = problem.chain(UpdateRule("sgd"))
    chain.step(problem.inputs, problem.labels, problem.batches(1)[0], 0.1)
    chain.products.weights()[0].zero_()
    assert chain.products.weights()[0].any()
    assert all(map(torch.equal, before, (*problem.weights, *problem.biases)))


def test_divergence_shows_in_the_loss():
    problem = Problem((20, 12, 4), 0.5, batch=20)
    chain = problem.chain(UpdateRule("sgd"))
    losses = [
        chain.step(problem.inputs, problem.labels, chosen, 1e25) for chosen in problem.batches(8)
    ]
    assert not math.isfinite(losses[-1])
    assert not chain.products.forward(problem.inputs).isfinite().all()


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_a_divergence_leaves_nothing_behind(rule):
    """What a product is written over may be infinite, and is not to enter it as 0 times infinity."""
    problem = Problem((20, 12, 10, 4), 0.5, batch=20, dense=(1,))
    update, rate, *_ = RULES[rule]
    used, fresh = problem.chain(update), problem.chain(update)
    for chosen in problem.batches(8):
        used.step(problem.inputs, problem.labels, chosen, 1e25)
    assert not used.products.forward(problem.inputs).isfinite().all()
    used.products.load(problem.weights, problem.biases)
    used.optimizer.load({})
    for chosen in problem.batches(4):
        losses = [
            chain.step(problem.inputs, problem.labels, chosen, rate) for chain in (used, fresh)
        ]
        assert losses[0] == losses[1]
    assert all(map(torch.equal, used.products.weights(), fresh.products.weights()))


def test_images_keep_their_shape_and_the_sweep_its_last_examples():
    problem = Problem((36, 12, 4), 0.5, batch=20)
    chain = problem.chain(UpdateRule("sgd"))
    images = problem.inputs.repeat(4, 1)[:700].reshape(700, 1, 6, 6)
    logits = chain.products.forward(images)
    assert logits.shape == (700, 4)
    torch.testing.assert_close(
        logits, problem.plain("sgd").logits(images.flatten(1)).detach(), atol=1e-5, rtol=1e-5
    )


@given(count=st.integers(1, 300))
def test_a_width_is_whole_tiles(count):
    """The loops write whole tiles without a look at where an array ends."""
    width = whole_tiles(count)
    assert count <= width < count + LONG_TILE
    assert width % (TILE if width < LONG_TILE else LONG_TILE) == 0


def test_a_batch_of_another_length_is_refused():
    problem = Problem((20, 4), 0.5, batch=20)
    with pytest.raises(ValueError, match="19 examples were chosen; every step takes 20"):
        problem.chain(UpdateRule("sgd")).step(problem.inputs, problem.labels, torch.arange(19), 0.1)


def test_compiled_loops_are_kept_by_the_state_of_the_files_they_share() -> None:
    # numba compares the loop's own file alone, and a stale loop may write past the end of arrays
    from lotteryfw.engine.kernels.sparse import numba_inputs, numba_loops

    for loop in (numba_loops.sgd, numba_inputs._forward_tiles):
        assert loop.py_func.__qualname__.endswith(f"-{numba_loops._shared_digest()}")
