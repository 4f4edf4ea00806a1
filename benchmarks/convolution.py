"""What leaving out dead channels gains on Conv-4, and how many channels pruning really kills.

    python benchmarks/convolution.py [--rounds 5] [--batch 16] [--steps 60] [--only precision]

First table: Conv-4 on 3×32×32 images, SGD with momentum; the given share of each convolution's channels has neither
incoming nor outgoing weights. Whole steps and steps of the living part (`LiveNetwork`, what the compact kernel trains) take
turns; medians over the rounds of processor time, which waits for nobody, and of the rounds' ratios.

Second table: Conv-4 on the embedded 8×8 digits, Glorot weights, biases 0, Adam; 24 levels of magnitude pruning by 20 %,
rewound to the start, in each layer or over all of them, beside random masks of one density in every layer. At each
density: living channels of the four convolutions and units of the two hidden layers, the multiply-adds left, and what
the network of that density learns in so many steps.

Third table (`--only precision` for it alone): Conv-4 and ResNet-20 at batch 128, the reference kernel in float32 and
bf16, contiguous and channels-last, beside a bare loop of the same work; medians over the rounds of processor time.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise, product
from pathlib import Path

import torch
from gpu_parts.convs import Loop, _table
from gpu_parts.report import Report
from gpu_parts.trainings import prepare, training_step
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lotteryfw.engine.kernels.dead_units import LiveNetwork, shrinkable_layers
from lotteryfw.engine.kernels.mask_constraint import MaskConstraint
from lotteryfw.std.digits import Digits
from lotteryfw.std.models import Conv4

DEAD = (0.0, 0.0625, 0.125, 0.1875, 0.25, 0.5, 0.75, 0.875)
LEVELS, RATE, SHOWN = 24, 0.2, (0, 7, 10, 13, 17, 21, 24)
Tensors = dict[str, Tensor]


def weights_of(module: nn.Module) -> Tensors:
    """Copies of the weights, without the biases."""
    return {
        name: value.detach().clone()
        for name, value in module.named_parameters()
        if name.endswith("weight")
    }


def shrunk(module: nn.Module, mask: Tensors, shape: tuple[int, ...]) -> LiveNetwork:
    """The living part of a module, whose masked weights become 0."""
    layers = shrinkable_layers(module, shape)
    assert not isinstance(layers, str), layers
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, alive in mask.items():
            parameters[name].mul_(alive)
    return LiveNetwork(layers, parameters, mask)


def trainer(
    module: nn.Module, used: Callable[[], Tensors], mask: Tensors
) -> Callable[[Tensor, Tensor], None]:
    """A step of the module with the parameters that `used` gives."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    frozen = MaskConstraint(mask, dict(module.named_parameters()))

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(functional_call(module, used(), (x,)), y).backward()
        optimizer.step()
        frozen.apply()

    return step


def structured(module: nn.Module, share: float) -> Tensors:
    """Masks under which that share of each convolution's channels is dead."""
    mask = {
        name: torch.ones_like(weight, dtype=torch.bool)
        for name, weight in weights_of(module).items()
    }
    layers = list(mask.values())
    for here, above in pairwise(layers[:5]):
        dead = torch.randperm(len(here))[: round(share * len(here))]
        here[dead] = False
        above[:, dead] = False
    return mask


def gains(rounds: int, batch: int) -> None:
    """Prints the first table."""
    print(f"Conv-4, 3×32×32, batch {batch}: ms per step")
    print(f"{'dead channels':>13} {'work left':>10} {'whole':>8} {'living part':>12} {'gain':>6}")
    x, y = torch.rand(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    for share in DEAD:
        module = Conv4().build((3, 32, 32), 10)
        mask = structured(module, share)
        part = shrunk(module, mask, (3, 32, 32))
        steps = {
            "whole": trainer(module, lambda module=module: dict(module.named_parameters()), mask),  # type: ignore[misc]
            "part": trainer(module, part.parameters, mask),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds + 1):
            for name, step in steps.items():
                started = time.process_time()
                step(x, y)
                times[name].append(1000 * (time.process_time() - started))
        whole, living = times["whole"][1:], times["part"][1:]
        gain = statistics.median(one / other for one, other in zip(whole, living, strict=True))
        row = f"{share:13.1%} {part.work():10.1%} {statistics.median(whole):8.1f} {statistics.median(living):12.1f}"
        print(f"{row} {gain:5.2f}×", flush=True)


def largest(scores: Tensors, keep: int) -> Tensors:
    """The masks of the `keep` largest of all these scores."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    least = flat.topk(keep).values[-1]
    return {name: score >= least for name, score in scores.items()}


def levels(start: Tensors, cut: Callable[[Tensors, float], Tensors], train: Callable[[Tensors], Tensors]) -> Iterator[
    tuple[int, Tensors]
]:  # fmt: skip
    """Each level's masks, by iterative pruning of what `train` makes of the masks before."""
    mask = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in start.items()}
    for level in range(LEVELS + 1):
        yield level, mask
        after = train(mask)
        scores = {
            name: weight.abs().masked_fill(~mask[name], -1.0) for name, weight in after.items()
        }
        mask = cut(scores, (1 - RATE) ** (level + 1))


def layerwise(scores: Tensors, density: float) -> Tensors:
    """The largest of each layer."""
    return {
        name: largest({name: score}, round(density * score.numel()))[name]
        for name, score in scores.items()
    }


def overall(scores: Tensors, density: float) -> Tensors:
    """The largest of all layers."""
    return largest(scores, round(density * sum(score.numel() for score in scores.values())))


class Digits8:
    """Conv-4 from one start on the digits, trained for so many steps under any mask."""

    def __init__(self, steps: int):
        self._steps = steps
        self._splits = Digits().load(Path("unused"))
        self.module = Conv4().build((1, 8, 8), 10)
        for part in self.module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)
        self._start = {
            name: value.detach().clone() for name, value in self.module.named_parameters()
        }
        self.start = weights_of(self.module)

    def living(self, mask: Tensors) -> tuple[list[int], float]:
        """Units of each layer that live at the start, and the share of multiply-adds that is left."""
        self._rewind()
        part = shrunk(self.module, mask, (1, 8, 8))
        units = [len(value) for name, value in part.parameters().items() if name.endswith("weight")]
        return units, part.work()

    def train(self, mask: Tensors) -> Tensors:
        """The weights after a training under a mask, which is exactly that of the living part."""
        self._rewind()
        part = shrunk(self.module, mask, (1, 8, 8))
        optimizer = torch.optim.Adam(self.module.parameters(), lr=2e-3)
        frozen = MaskConstraint(mask, dict(self.module.named_parameters()))
        data, rng = self._splits.train, torch.Generator().manual_seed(0)
        for _ in range(self._steps):
            chosen = torch.randint(0, len(data.labels), (32,), generator=rng)
            optimizer.zero_grad()
            x = data.inputs[chosen].float() / 255
            cross_entropy(
                functional_call(self.module, part.parameters(), (x,)), data.labels[chosen]
            ).backward()
            optimizer.step()
            frozen.apply()
        return weights_of(self.module)

    def accuracy(self) -> float:
        """The accuracy on the test set of what was trained last."""
        with torch.no_grad():
            found = self.module(self._splits.test.inputs.float() / 255).argmax(1)
        return float((found == self._splits.test.labels).float().mean())

    def _rewind(self) -> None:
        with torch.no_grad():
            for name, value in self.module.named_parameters():
                value.copy_(self._start[name])


def deaths(steps: int) -> None:
    """Prints the second table."""
    net = Digits8(steps)
    sizes = " ".join(f"{len(weight):>4}" for weight in net.start.values())
    print(
        f"\nConv-4 on 8×8 digits, {steps} steps a level: living units of each layer (whole: {sizes})"
    )
    print(
        f"{'masks':>10} {'density':>8} {'living channels':>20} {'units':>10} {'work left':>10} {'accuracy':>9}"
    )
    random = {name: torch.rand(weight.shape) for name, weight in net.start.items()}
    ways = {
        "layerwise": levels(net.start, layerwise, net.train),
        "global": levels(net.start, overall, net.train),
        "random": ((level, layerwise(random, (1 - RATE) ** level)) for level in range(LEVELS + 1)),
    }
    for way, masks in ways.items():
        for level, mask in masks:
            if level not in SHOWN:
                continue
            units, work = net.living(mask)
            net.train(mask)
            channels, others = (
                " ".join(f"{count:>4}" for count in part) for part in (units[:4], units[4:6])
            )
            alive = torch.cat([each.flatten() for each in mask.values()])
            row = f"{way:>10} {float(alive.float().mean()):8.2%} {channels:>20} {others:>10} {work:10.1%}"
            print(f"{row} {net.accuracy():9.1%}", flush=True)


def precisions(rounds: int) -> None:
    """Prints the third table."""
    print("\nbatch 128, 3×32×32: ms per step")
    print(f"{'network':>10} {'precision':>10} {'memory':>14} {'ours':>8} {'bare':>8} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        report = Report("cpu", tiny=False, folder=Path(folder))
        for model, precision, memory_format in product(
            ("conv4", "resnet20"), ("float32", "bf16"), ("contiguous", "channels_last")
        ):
            table = _table(report, {"use": model}, [])
            job, engine_context = prepare(report, table)
            job = replace(job, precision=precision, memory_format=memory_format)
            loop = Loop(
                report, {"use": model}, memory_format == "channels_last", precision == "bf16"
            )
            steps = {"ours": training_step(job, engine_context), "bare": loop.step}
            times: dict[str, list[float]] = {name: [] for name in steps}
            for _ in range(rounds + 1):
                for name, step in steps.items():
                    started = time.process_time()
                    step()
                    times[name].append(1000 * (time.process_time() - started))
            ours, bare = times["ours"][1:], times["bare"][1:]
            ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
            row = f"{model:>10} {precision:>10} {memory_format:>14} {statistics.median(ours):8.0f}"
            print(f"{row} {statistics.median(bare):8.0f} {ratio:6.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", choices=["precision"], help="print one table alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{platform.machine()}, torch {version('torch')}, one thread")
    if given.only is None:
        gains(given.rounds, given.batch)
        deaths(given.steps)
    precisions(given.rounds)


if __name__ == "__main__":
    main()
