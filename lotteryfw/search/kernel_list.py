"""The kernels there are: the list that recipes are checked against and that the engine works from.

It is data without code, so that a recipe can be read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping

KERNEL_LIST: Mapping[str, tuple[str, ...]] = {
    "reference": ("reference", "mask_training"),
    "fused": ("fused", "fused_masks"),
    "sparse": ("sparse",),
    "compact": ("compact",),
    "lockstep": ("lockstep",),
    "distributed": ("distributed",),
}
"""By the name that a recipe uses, the modules of `lotteryfw.engine.kernels` that may train a job
under this name. Of several modules each trains jobs that the others cannot: "reference" and "fused"
train weights or scores. To add a kernel, write its module and add it here."""

KERNELS = ("auto", *KERNEL_LIST)
"""The names that a recipe may use: "auto" lets the engine choose for each job."""
