"""The sparse kernel: a plain MLP whose cost falls with the density of its masks and inputs."""

from lotteryfw.engine.kernels.sparse.kernel import KERNEL

__all__ = ["KERNEL"]
