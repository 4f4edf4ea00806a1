"""The tensors of a network, and the names that they have in a file."""

from __future__ import annotations

import torch

from lotteryfw.api.network_state import NetworkState


def numbered(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([float(number)]) for number, name in enumerate(names)}


def test_a_state_comes_back_from_its_encoded_form() -> None:
    state = NetworkState(
        values=numbered("fc1.weight", "fc1.bias", "bn.running_mean"),
        masks=numbered("fc1.weight"),
        scores=numbered("fc1.weight", "fc2.weight"),
        extra={"selected": numbered("fc1.weight"), "last": numbered("fc2.weight")},
    )
    encoded = state.encoded()
    assert len(encoded) == 8
    assert NetworkState.decoded(encoded) == state


def test_a_state_of_weights_alone_keeps_the_names_of_parameters() -> None:
    values = numbered("fc1.weight", "fc1.bias")
    assert NetworkState(values).encoded() == values
    assert NetworkState.decoded(values) == NetworkState(values)


def test_a_copy_shares_no_memory() -> None:
    state = NetworkState(numbered("fc1.weight"), scores=numbered("fc1.weight"))
    copy = state.copied()
    state.values["fc1.weight"].fill_(7)
    state.scores["fc1.weight"].fill_(7)
    assert copy == NetworkState(numbered("fc1.weight"), scores=numbered("fc1.weight"))
