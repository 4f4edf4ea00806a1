import inspect
import subprocess
import sys

import pytest

from lotteryfw.api.kinds import kinds
from lotteryfw.std import register_components

COMPONENTS = register_components()

DEFAULTS = {
    "search": "imp", "criterion": "large_final", "scope": "layerwise", "mask1": "rewind", "mask0": "zero",
    "rewind": "to_init", "initialiser": "glorot_normal", "objective": "classification", "schedule": "constant",
}  # fmt: skip

OFFERED = {
    "search": "at_init imp one_shot random_pruning during_training joint_training supermask edge_popup iterative_edge_popup",
    "criterion": "large_final small_final large_init small_init large_init_large_final small_init_small_final "
    "magnitude_increase movement random large_final_same_sign large_final_diff_sign magnitude_increase_same_sign "
    "magnitude_increase_diff_sign",
    "scope": "layerwise global erk",
    "mask1": "rewind reinit reinit_empirical reshuffle constant",
    "mask0": "zero init init_zero init_zero_all init_zero_reshuffle init_zero_reverse",
    "rewind": "to_init to_step learning_rate fine_tune",
    "model": "mlp lenet_300_100 conv2 conv4 conv6 conv8 vgg11 vgg13 vgg16 vgg19 resnet20 resnet32 resnet44 resnet56 "
    "resnet110 resnet18 resnet34 wide_resnet torchvision embedding_mlp factory dcgan",
    "initialiser": "glorot_normal glorot_uniform kaiming_normal kaiming_uniform signed_constant constant "
    "pytorch_default",
    "data": "digits mnist fashion_mnist cifar10 cifar100 svhn imagenet image_folder synthetic synthetic_text",
    "augmentation": "flip crop random_resized_crop",
    "optimizer": "sgd adam adamw rmsprop",
    "schedule": "constant multistep cosine",
    "parametrization": "bernoulli top_k frozen_weights",
    "objective": "classification reconstruction l1 group_lasso distillation adversarial",
    # they come with the plugin lotteryfw-dynamic
    "mask_update": "",
    "control": "invert layer_shuffle random_mask random_mask_reinit reinit signs_only untrained",
    "metric": "top_k nll ece mean_class_accuracy worst_class_accuracy moment_distance",
    "analysis": "mask_diagnostics mask_overlap weight_scatter dying_edges linear_mode_connectivity error_barrier "
    "stability_to_pruning stability_to_data_order",
}


def test_everything_is_offered_once() -> None:
    offered = {kind: sorted(cls.use for cls in COMPONENTS if cls.kind == kind) for kind in kinds()}
    assert offered == {kind: sorted(OFFERED[kind].split()) for kind in kinds()}


def test_one_default_for_each_kind_that_has_one() -> None:
    assert {cls.kind: cls.use for cls in COMPONENTS if cls.default} == DEFAULTS
    assert sum(cls.default for cls in COMPONENTS) == len(DEFAULTS)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda cls: f"{cls.kind}-{cls.use}")
def test_says_what_it_is(component: type) -> None:
    assert not inspect.isabstract(component)
    assert component.use
    assert component.formula
    assert component.source
    assert component.summary()


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda cls: f"{cls.kind}-{cls.use}")
def test_options_explain_themselves(component: type) -> None:
    unexplained = [name for name, field in component.model_fields.items() if not field.description]
    assert unexplained == []


def test_registering_does_not_import_torch() -> None:
    code = "import sys, lotteryfw.std as std; std.register_components(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
