"""From scores to masks.

The rules that every author would have to remember are applied here: budgets are exact, removed
weights stay removed, ties are drawn from a named stream, unusable scores are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import ContractError
from lotteryfw.api.layers import Group

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


def budget(kept: int, rate: float, times: int = 1) -> int:
    """Return how many weights stay after pruning `round(rate * kept)` of them, `times` times.

    The rule of the lottery-ticket papers, and of `torch.nn.utils.prune`: whole weights, rounded at
    every cut.

    >>> budget(30_000, 0.2), budget(30_000, 0.2, times=2), budget(1, 0.2)
    (24000, 19200, 1)
    """
    for _ in range(times):
        kept -= round(rate * kept)
    return kept


def cut(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    groups: Sequence[Group],
    ties: Callable[[tuple[str, ...]], torch.Generator],
) -> dict[str, Tensor]:
    """Return the masks after a cut: in every group the `keep` weights of largest score stay.

    `scores` [s] floating point and `masks` [s] bool by layer; the result has the layers of `masks`,
    and is never alive where `masks` is dead. Of weights that tie at a group's threshold, a draw
    from `ties(group.layers)` decides which stay. Raises ContractError for scores that are not
    finite or a scope that asks for more than is alive.
    """
    import torch

    result = {name: mask.clone() for name, mask in masks.items()}
    for group in groups:
        for name in group.layers:
            # A weight that is removed already needs no score, so only those of living weights count.
            bad = int((~torch.isfinite(scores[name]) & masks[name]).sum())
            if bad:
                raise ContractError(
                    f"{bad} of {int(masks[name].sum())} scores of layer {name} are NaN or infinite"
                )
        # The layers of a group compete with each other, so they are compared as one vector.
        alive = torch.cat([masks[name].reshape(-1) for name in group.layers])
        score = torch.cat([scores[name].reshape(-1) for name in group.layers])
        indices = alive.nonzero().squeeze(1)
        kept = torch.zeros_like(alive)
        chosen = best(score[indices], group.keep, partial(ties, group.layers))
        kept[indices[chosen]] = True
        parts = torch.split(kept, [masks[name].numel() for name in group.layers])
        for name, part in zip(group.layers, parts, strict=True):
            result[name] = part.reshape(masks[name].shape)
    return result


def best(scores: Tensor, keep: int, ties: Callable[[], torch.Generator]) -> Tensor:
    """Return the indices [keep] int64, ascending, of the `keep` largest of `scores` [n], finite.

    Ties are drawn from `ties()`. It selects and never sorts: `numpy.partition` on the CPU takes a
    tenth of the time of `torch.topk`, which takes on a GPU a hundredth of that of `torch.kthvalue`.
    """
    import torch

    if not 0 <= keep <= scores.numel():
        raise ContractError(f"{keep} weights to keep of {scores.numel()} that are alive")
    if keep == 0 or keep == scores.numel():
        return torch.arange(keep, device=scores.device)
    threshold = _kth_largest(scores, keep)
    # At most `keep - 1` scores are above the threshold; equal ones fill the rest of the budget.
    chosen = scores > threshold
    tied = (scores == threshold).nonzero().squeeze(1)
    wanted = keep - int(chosen.sum())
    # The stream is asked for only where chance decides, so cuts without ties draw nothing.
    if wanted < tied.numel():
        tied = tied[torch.randperm(tied.numel(), generator=ties())[:wanted].to(tied.device)]
    chosen[tied] = True
    return chosen.nonzero().squeeze(1)


def _kth_largest(scores: Tensor, k: int) -> Tensor:
    import numpy as np
    import torch

    # numpy has no bfloat16, and nothing on a GPU; torch's own selection serves these.
    index = scores.numel() - k
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.partition(scores.numpy(), index)[index : index + 1])[0]
    return _last_of_topk(scores, k)


def _last_of_topk(scores: Tensor, k: int) -> Tensor:
    """Return the `k`-th largest of `scores` [n] as a 0-d tensor.

    It is the least of the top `k`, and the largest of it and the rest: the fewer are selected.
    """
    import torch

    rest = scores.numel() - k + 1
    if k <= rest:
        return torch.topk(scores, k, sorted=False).values.min()
    return torch.topk(scores, rest, largest=False, sorted=False).values.max()


def check_tensor(value: object, shape: tuple[int, ...], what: str) -> Tensor:
    """Return `value` if it is a float tensor of `shape`.

    Raises ContractError, which says what was returned instead.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise ContractError(f"{what} returned {type(value).__name__}, not a tensor")
    if tuple(value.shape) != shape:
        raise ContractError(
            f"{what} returned shape {list(value.shape)}; the layer's shape is {list(shape)}"
        )
    if not value.dtype.is_floating_point:
        raise ContractError(f"{what} returned dtype {value.dtype}; floating point is needed")
    return value.detach()


def require_finite(
    value: Tensor, what: str, used: Tensor | None = None, shown: Iterable[Tensor] = ()
) -> None:
    """Raise ContractError for weights that a component made NaN or infinite.

    `used` [s] bool are those that the network gets; None: all. `shown` are the tensors that the
    component made them of: where these are not finite, a training diverged, which is found as that.
    """
    import torch

    finite = torch.isfinite(value)
    if used is not None:
        finite |= ~used
    if bool(finite.all()) or not all(bool(torch.isfinite(one).all()) for one in shown):
        return
    count, bad = value.numel(), int((~finite).sum())
    raise ContractError(
        f"{what} returned NaN or infinity for {bad:,} of {count:,} values; all must be finite"
    )


def straight_through(mask: Tensor, surrogate: Tensor) -> Tensor:
    """Return the values of `mask` [s] bool as float [s], with the gradient of `surrogate` [s].

    Bengio et al. 2013, Estimating or Propagating Gradients Through Stochastic Neurons, section 4.
    """
    passed: Tensor = _straight_through().apply(mask, surrogate)
    return passed


@cache
def _straight_through() -> Any:
    """The autograd function, made once torch is there."""
    import torch

    class StraightThrough(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, mask: Tensor, surrogate: Tensor) -> Tensor:
            # from bool itself it takes four times as long
            return mask.view(torch.uint8).to(surrogate.dtype)

        @staticmethod
        def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor]:
            return None, slopes[0]

    return StraightThrough


def top(scores: Tensor, keep: int) -> Tensor:
    """Return [n] bool: the `keep` largest of `scores` [n], of ties those of lowest index.

    Nothing leaves the device. On a GPU a stable sort takes less time than a selection of the
    threshold and a count of its ties (`benchmarks/gpu.py --only edge_popup`).
    """
    import torch

    order = torch.sort(scores, descending=True, stable=True).indices
    return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, order[:keep], True)


FindBracket = Callable[
    ["NDArray[np.float32]", "np.float32", "np.float32"],
    "tuple[NDArray[np.bool_], NDArray[np.intp], int]",
]


def _find_bracket(
    scores: NDArray[np.float32], low: np.float32, high: np.float32
) -> tuple[NDArray[np.bool_], NDArray[np.intp], int]:
    """Return which scores are above `high`, the indices of those from `low` up to `high`, and a count.

    The count is of the scores above.
    """
    import numpy as np

    above = scores > high
    # No second comparison: what is above is at least `low`, too.
    inside = np.flatnonzero((scores >= low) ^ above)
    return above, inside, int(np.count_nonzero(above))


class IncrementalTopK:
    """Selects the `keep` largest of scores that are ranked again and again and change little.

    It is exact, and equal to a stable sort: of ties at the threshold those of lowest index are
    kept. The threshold of the last call gives a narrow bracket; only scores inside it are looked at
    closely, and it is widened until it holds the new threshold (timed by
    benchmarks/thresholds.py). Elsewhere than on the CPU it selects anew, without waiting.
    """

    def __init__(
        self, keep: int, tie_order: Tensor | None = None, find_bracket: FindBracket | None = None
    ):
        """Select `keep` of the scores of each call.

        `tie_order` [n] int64 is what ties go by, ascending, in the place of indices. `find_bracket`
        is a faster function for the CPU that does what `_find_bracket` does.
        """
        self._keep = keep
        self._tie_order = None if tie_order is None else tie_order.numpy()
        self._find_bracket = find_bracket or _find_bracket
        self._last: tuple[float, float] | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        """Return [s] bool for `scores` [s] float32, finite.

        On another device than the CPU ties go to the first, whatever their order. Raises
        ContractError on the CPU for more to keep than there are.
        """
        import numpy as np
        import torch

        if scores.device.type != "cpu":
            return top(scores.detach().reshape(-1), self._keep).reshape(scores.shape)
        flat = scores.detach().reshape(-1).numpy()
        if not 0 <= self._keep <= flat.size:
            raise ContractError(f"{self._keep} to keep of {flat.size} scores")
        # An empty bracket has no threshold to remember.
        if self._keep in (0, flat.size):
            return torch.full(scores.shape, self._keep > 0, dtype=torch.bool)
        kept, inside = self._bracket(flat)
        candidates, wanted = flat[inside], self._keep - int(np.count_nonzero(kept))
        index = candidates.size - wanted
        threshold = np.partition(candidates, index)[index]
        kept[inside[candidates > threshold]] = True
        ties = wanted - int(np.count_nonzero(candidates > threshold))
        tied = inside[candidates == threshold]
        if self._tie_order is not None and ties < tied.size:
            # Places differ, so that any sort gives one order.
            tied = tied[np.argsort(self._tie_order[tied])]
        kept[tied[:ties]] = True
        self._remember(float(threshold), inside.size, flat.size)
        return torch.from_numpy(kept).reshape(scores.shape)

    def _bracket(self, flat: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Return which scores lie above the bracket, and the indices of those inside.

        The threshold is inside.
        """
        import numpy as np

        # Without a last call everything is inside.
        centre, width = self._last or (0.0, np.inf)
        while width < np.inf:
            # beyond float32 a bracket has no end
            with np.errstate(over="ignore"):
                high, low = np.float32(centre + width), np.float32(centre - width)
            above, inside, count = self._find_bracket(flat, low, high)
            if 0 < self._keep - count <= inside.size:
                return above, inside
            # Doubling would need twice as many passes over the scores after a jump.
            width = 4 * width if width > 0 else np.inf
        return np.zeros(flat.size, dtype=bool), np.arange(flat.size)

    def _remember(self, threshold: float, candidates: int, size: int) -> None:
        """Set the next bracket: wide enough for the last drift, narrow enough for few candidates."""
        # A thousandth of the threshold: scores move by about a learning rate in one step.
        if self._last is None:
            self._last = threshold, abs(threshold) / 1000 or 1e-6
            return
        centre, width = self._last
        drift = abs(threshold - centre)
        self._last = threshold, max(2 * drift, width / 2 if candidates > size // 500 else width)
