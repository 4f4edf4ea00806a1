"""Networks whose auxiliary heads add to the loss of a training."""

from __future__ import annotations

import pytest
import torch
from support.small import make
from torch import Tensor
from torch.nn.functional import cross_entropy

from lotteryfw import AuxiliaryOutputs, UsageError
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.training_loss import training_loss
from lotteryfw.std.torchvision_models import TorchvisionModel


def test_the_loss_adds_each_head_times_the_weight() -> None:
    main, first, second = (torch.randn(5, 3) for _ in range(3))
    labels = torch.tensor([0, 1, 2, 0, 1])
    objective = make("objective", "classification")

    def loss_of(head: Tensor) -> Tensor:
        loss: Tensor = objective.loss(head, torch.zeros(5), labels, "mean")
        return loss

    loss = training_loss(loss_of, AuxiliaryOutputs(main, (first, second), 0.3))
    expected = cross_entropy(main, labels) + 0.3 * (
        cross_entropy(first, labels) + cross_entropy(second, labels)
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(training_loss(loss_of, main), cross_entropy(main, labels))


def test_heads_speak_in_training_alone() -> None:
    network = TorchvisionModel(name="googlenet").build((3, 32, 32), 4)
    x = torch.rand(2, 3, 32, 32)
    outputs = network.train()(x)
    assert isinstance(outputs, AuxiliaryOutputs)
    assert (len(outputs.auxiliary), outputs.weight) == (2, 0.3)
    assert all(head.shape == (2, 4) for head in (outputs.main, *outputs.auxiliary))
    assert isinstance(network.eval()(x), Tensor)
    # the heads of bf16 become float32 like the main one
    tensors = dict(network.state_dict())
    reduced = Arithmetic("bf16").training_outputs(network.train(), tensors, x)
    assert isinstance(reduced, AuxiliaryOutputs)
    assert {head.dtype for head in (reduced.main, *reduced.auxiliary)} == {torch.float32}


def test_the_weight_is_an_option_and_0_removes_the_heads() -> None:
    network = TorchvisionModel(name="googlenet", auxiliary=1).build((3, 32, 32), 4)
    assert network.train()(torch.rand(2, 3, 32, 32)).weight == 1
    network = TorchvisionModel(name="googlenet", auxiliary=0).build((3, 32, 32), 4)
    assert isinstance(network.train()(torch.rand(2, 3, 32, 32)), Tensor)
    assert not [name for name, _ in network.named_parameters() if name.startswith("aux")]


def test_the_head_of_inception_needs_the_papers_images() -> None:
    with torch.device("meta"):
        network = TorchvisionModel(name="inception_v3").build((3, 299, 299), 4)
        outputs = network.train()(torch.zeros(2, 3, 299, 299))
        assert outputs.weight == 0.4
        assert outputs.auxiliary[0].shape == (2, 4)
        small = TorchvisionModel(name="inception_v3").build((3, 75, 75), 4)
        assert isinstance(small.train()(torch.zeros(2, 3, 75, 75)), Tensor)
    with pytest.raises(UsageError, match="at least 299 pixels a side, not 75×75"):
        TorchvisionModel(name="inception_v3", auxiliary=0.4).build((3, 75, 75), 4)
