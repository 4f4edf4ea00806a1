"""What a training step costs on sparse products, against the plain masked dense step, as weights or inputs get sparse.

    python benchmarks/sparse_step.py [--rounds 15] [--batch 128]

LeNet-300-100 (784-300-100-10), SGD at rate 0.1, random masks of one density in every layer, random uint8 images
gathered by index, in one process of one thread. Ways to take the same step: eager autograd that zeroes masked weights
after the update; and for each back end that is here, `SparseMlp` with every layer on sparse products and with every
layer on dense ones. The second table has a network of all weights over images of which a share of the pixels is not 0
(in MNIST 19 %), with the first layer on dense products and on those of the inputs that are not 0, which are numba's.
Ways take turns, 20 steps each; a median over the rounds is printed, and the ratio to eager is the median of the rounds'
ratios.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lotteryfw.engine.kernels.optimizer_rules import UpdateRule
from lotteryfw.engine.kernels.sparse.backends import Backend, backends, loops_of
from lotteryfw.engine.kernels.sparse.sparse_mlp import SparseMlp, warm_up

WIDTHS, RATE, EXAMPLES, STEPS = (784, 300, 100, 10), 0.1, 20_000, 20
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.087, 0.036, 0.012)
SHARES = (1.0, 0.5, 0.3, 0.19, 0.1)
WAYS = {"sparse": 1.1, "dense": 0.0}
"""The density that a layer is dense from."""
Step = Callable[[Tensor], object]


def eager(module: nn.Module, masks: list[Tensor], images: Tensor, labels: Tensor) -> Step:
    """One step as anyone would write it."""
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, fused=True)
    dead = [(layer.weight, ~mask) for layer, mask in zip(linears(module), masks, strict=True)]

    def step(chosen: Tensor) -> None:
        loss = cross_entropy(module(images[chosen].float().div_(255)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for weight, masked in dead:
                weight.masked_fill_(masked, 0.0)

    return step


def chain(
    module: nn.Module, masks: list[Tensor], images: Tensor, labels: Tensor, batch: int, dense_from: float,
    backend: Backend, sparse_inputs: bool = False,
) -> Step:  # fmt: skip
    """One step of the sparse kernel."""
    weights = [layer.weight.detach() for layer in linears(module)]
    biases = [layer.bias.detach() for layer in linears(module)]
    trained = SparseMlp(
        weights, masks, biases, UpdateRule("sgd"), batch, dense_from, loops_of(backend), sparse_inputs
    )  # fmt: skip
    return lambda chosen: trained.step(images, labels, chosen, RATE)


def linears(module: nn.Module) -> list[nn.Linear]:
    """Its Linear layers in order."""
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def masked_lenet(density: float) -> tuple[nn.Module, list[Tensor]]:
    """A fresh network and the masks that have been applied to it."""
    first, second, third, classes = WIDTHS
    module = nn.Sequential(
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, third),
        nn.ReLU(),
        nn.Linear(third, classes),
    )
    masks = [torch.rand(layer.weight.shape) < density for layer in linears(module)]
    for layer, mask in zip(linears(module), masks, strict=True):
        # A product with 0 would leave -0.0, which is no 0 to the kernel.
        layer.weight.data.masked_fill_(~mask, 0.0)
    return module, masks


def rounds(steps: dict[str, Step], count: int, batch: int) -> dict[str, list[float]]:
    """Milliseconds per step of each way, one number a round; the first round is left out."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(count + 1):
        chosen = [torch.randperm(EXAMPLES)[:batch] for _ in range(STEPS)]
        for name, step in steps.items():
            started = time.perf_counter()
            for batch_of_indices in chosen:
                step(batch_of_indices)
            times[name].append((time.perf_counter() - started) * 1000 / STEPS)
    return {name: column[1:] for name, column in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for backend in backends():
        warm_up(loops_of(backend))
    images = torch.randint(0, 256, (EXAMPLES, WIDTHS[0]), dtype=torch.uint8)
    labels = torch.randint(0, WIDTHS[-1], (EXAMPLES,))
    versions = ", ".join(f"{name} {version(name)}" for name in backends())
    print(
        f"{platform.machine()}, {versions}, batch {given.batch}, one thread; ms per step (times faster than eager)"
    )
    ways = {
        f"{backend} {way}": (backend, start)
        for backend in backends()
        for way, start in WAYS.items()
    }
    print_head("density", ways)
    for density in DENSITIES:
        module, masks = masked_lenet(density)
        steps = {
            name: chain(module, masks, images, labels, given.batch, start, of)
            for name, (of, start) in ways.items()
        }
        steps["eager"] = eager(module, masks, images, labels)
        print_row(density, rounds(steps, given.rounds, given.batch))

    if "numba" not in backends():
        return
    print()
    print_head("share", ["numba dense", "numba inputs"])
    for share in SHARES:
        module, masks = masked_lenet(1.0)
        lit = images.where(torch.rand(images.shape) < share, 0)
        steps = {
            "numba dense": chain(module, masks, lit, labels, given.batch, 0.0, "numba"),
            "numba inputs": chain(module, masks, lit, labels, given.batch, 0.0, "numba", True),
            "eager": eager(module, masks, lit, labels),
        }
        print_row(share, rounds(steps, given.rounds, given.batch))


def print_head(what: str, ways: Iterable[str]) -> None:
    print(f"{what:>8} {'eager':>8} " + " ".join(f"{name:>16}" for name in ways))


def print_row(share: float, times: dict[str, list[float]]) -> None:
    """Print the median time of every way, and how many times faster than eager it is."""
    slow = times.pop("eager")
    cells = []
    for fast in times.values():
        ratio = statistics.median(one / other for one, other in zip(slow, fast, strict=True))
        cells.append(f"{statistics.median(fast):.3f} ({ratio:4.1f}×)")
    row = " ".join(f"{cell:>16}" for cell in cells)
    print(f"{share:8.1%} {statistics.median(slow):8.3f} {row}", flush=True)


if __name__ == "__main__":
    main()
