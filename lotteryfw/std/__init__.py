"""The built-in components.

They come in through lotteryfw's own entry point and see only its public API, as any plugin does.

Each follows one pattern: `use`, `formula`, `source`, the options, then the methods that its kind
asks for.
"""

from __future__ import annotations

from lotteryfw import Component, hookimpl
from lotteryfw.std import (
    analyses,
    augmentations,
    connectivity,
    controls,
    criteria,
    digits,
    factory,
    frozen_weights,
    generative,
    image_folder,
    imagenet,
    initialisers,
    joint_training,
    mask0,
    mask1,
    metrics,
    models,
    objectives,
    optimizers,
    parametrizations,
    penalties,
    resnets,
    rewind,
    schedules,
    scopes,
    searches,
    synthetic,
    synthetic_text,
    text_models,
    torchvision_models,
    torchvision_sets,
)

MODULES = (
    searches,
    joint_training,
    criteria,
    scopes,
    mask1,
    mask0,
    rewind,
    parametrizations,
    frozen_weights,
    models,
    resnets,
    torchvision_models,
    text_models,
    factory,
    generative,
    initialisers,
    digits,
    torchvision_sets,
    imagenet,
    image_folder,
    synthetic,
    synthetic_text,
    augmentations,
    objectives,
    penalties,
    optimizers,
    schedules,
    metrics,
    controls,
    analyses,
    connectivity,
)


@hookimpl
def register_components() -> list[type[Component]]:
    """Return every component class that these modules define."""
    components: list[type[Component]] = []
    for module in MODULES:
        for item in vars(module).values():
            # a class that a module only imports is registered by the one that defines it
            is_component = isinstance(item, type) and issubclass(item, Component)
            # a class without a name is the base of others
            if is_component and item.use and item.__module__ == module.__name__:
                components.append(item)
    return components
