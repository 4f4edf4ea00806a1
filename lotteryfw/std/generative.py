"""A generator and its discriminator: model, objective and a metric of generated images."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import Metric, ModelFamily, Objective, UsageError
from lotteryfw.std.models import check_images, scaled

if TYPE_CHECKING:
    from torch import Tensor, nn

GOODFELLOW = "Goodfellow et al. 2014, Generative Adversarial Nets, section 3"
LOGITS = 3
"""Outputs before the pixels: the discriminator's logits of the real image, and of the generated one
as the discriminator and as the generator learn from it."""
UNITS = 32


class Dcgan(ModelFamily):
    """A small generator of images and its discriminator, of which the generator is pruned.

    For every input x it generates an image g of random numbers, and returns d(x), d(g), d(g) and
    the pixels of g, where d is the discriminator's logit. The second output passes no gradient to
    the generator, the third none to the discriminator, so that one loss trains both. In evaluation
    the random numbers of a batch depend on its inputs alone: the same data give the same figures
    again, and each batch has images of its own. It needs the objective `adversarial`, and pixels in
    [0, 1].
    """

    use = "dcgan"
    formula = (
        "g: latent - dense, 2 × (upsample, conv 3×3), conv 3×3, sigmoid; "
        "d: 2 × conv 3×3 of stride 2, dense"
    )
    source = (
        "Radford et al. 2016, Unsupervised Representation Learning with DCGAN, section 3, "
        "with upsampling in the place of transposed convolutions, and without batch norm"
    )

    latent: Annotated[int, Field(ge=1)] = 32
    """Random numbers that an image is generated of, from N(0, 1)."""
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Multiplies the 32 and 64 channels of both networks."""

    def fixed_outputs(self, shape: tuple[int, ...]) -> int:
        return LOGITS + prod(shape)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(self.use, shape, least=4)
        channels, height, width = shape
        if height % 4 or width % 4:
            raise UsageError(f"{self.use} makes images of sides that 4 divides, not {list(shape)}")
        if classes != self.fixed_outputs(shape):
            raise UsageError(
                f"{self.use} has {self.fixed_outputs(shape)} outputs for such images, which the "
                f"objective 'adversarial' reads; this objective asks for {classes}"
            )
        units = scaled(UNITS, self.width)
        return _pair(channels, height // 4, width // 4, units, self.latent)

    def prunable(self, module: nn.Module) -> list[str]:
        """Return the generator's weights: the discriminator is only what it is trained against."""
        return [name for name in super().prunable(module) if name.startswith("generator.")]


def _pair(channels: int, height: int, width: int, units: int, latent: int) -> nn.Module:
    """Return both networks as one module, for images of four times this height and width."""
    import torch
    from torch import nn
    from torch.func import functional_call

    # no biases: a learned mask over weights that stay as they are has nothing else
    generator = nn.Sequential(
        nn.Linear(latent, 2 * units * height * width, bias=False),
        nn.ReLU(),
        nn.Unflatten(1, (2 * units, height, width)),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * units, units, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(units, units, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(units, channels, 3, padding=1, bias=False),
        nn.Sigmoid(),
    )
    # leaky, as the generator learns through it: a dead unit would pass no gradient
    discriminator = nn.Sequential(
        nn.Conv2d(channels, units, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(units, 2 * units, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * units * height * width, 1),
    )

    class Pair(nn.Module):
        """A generator and its discriminator."""

        def __init__(self) -> None:
            super().__init__()
            self.generator = generator
            self.discriminator = discriminator

        def forward(self, inputs: Tensor) -> Tensor:
            """Return [n, 3 + pixels]: three logits of the discriminator, and generated images."""
            generated = self.generator(self._random_numbers(inputs))
            # its parameters as constants: what deceives it must not train it
            fixed = {}
            for name, value in self.discriminator.named_parameters():
                fixed[name] = value.detach()
            logits = [
                self.discriminator(inputs),
                self.discriminator(generated.detach()),
                functional_call(self.discriminator, fixed, (generated,)),
            ]
            return torch.cat([*logits, generated.flatten(1)], 1)

        def _random_numbers(self, inputs: Tensor) -> Tensor:
            shape = (len(inputs), latent)
            if self.training:
                # from the stream of the step, as dropout draws
                return torch.randn(shape, device=inputs.device)
            # An evaluation must give the same figures twice, and its batches other images. A sum of
            # whole numbers is the same in any order, and so on every device.
            bits = inputs.detach().float().view(torch.int32)
            generator = torch.Generator().manual_seed(int(bits.sum(dtype=torch.int64)))
            return torch.randn(shape, generator=generator).to(inputs.device)

    return Pair()


class Adversarial(Objective):
    """Trains a discriminator to tell images from generated ones, and the generator to deceive it.

    The generator's part is the one that does not saturate. The sum of both is reported as the loss;
    it does not say how good the images are. The share of generated images that the discriminator
    takes for real ones is reported in place of an accuracy.
    """

    use = "adversarial"
    formula = "-log σ(d(x)) - log(1 - σ(d(g))) for d, - log σ(d(g)) for g"
    source = GOODFELLOW
    labels_are_classes = False
    figure_name = "share taken for real"

    def output_size(self, shape: tuple[int, ...], classes: int) -> int:
        return LOGITS + prod(shape)

    def loss(
        self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]
    ) -> Tensor:
        from torch.nn.functional import softplus

        real, generated, deceiving = outputs[:, 0], outputs[:, 1], outputs[:, 2]
        losses = softplus(-real) + softplus(generated) + softplus(-deceiving)
        return losses.mean() if reduction == "mean" else losses.sum()

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return outputs[:, 1] > 0


class MomentDistance(Metric):
    """Computes how far the mean and the covariance of output images are from those of the inputs.

    It is the Fréchet distance of two normal distributions over pixels. The images are the last
    outputs, as many as an input has numbers. The distance is that of independent images, so a
    network must not generate the same ones for every batch.
    """

    use = "moment_distance"
    formula = "|m - m'|² + tr(C + C' - 2 (C C')^½)"
    source = (
        "Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, section 2, on pixels"
    )
    unit = "number"
    needs_classes = False

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        import torch

        images = inputs.flatten(1)
        if outputs.shape[1] < images.shape[1]:
            raise UsageError(
                f"metric '{self.use}' compares images, and there are {outputs.shape[1]} outputs "
                f"for {images.shape[1]} pixels"
            )
        return torch.stack([outputs[:, -images.shape[1] :], images], 1)

    def result(self, values: Tensor) -> float:
        import torch

        # a covariance of hundreds of pixels is too ill-conditioned for float32
        made, real = values.double().unbind(1)
        if len(values) < 2:
            raise UsageError(f"metric '{self.use}' needs two examples at least")
        made_covariance, real_covariance = made.T.cov(), real.T.cov()
        # tr (C C')^½ is the sum of the roots of the eigenvalues of C^½ C' C^½, which is symmetric
        root = _root(made_covariance)
        product = root @ real_covariance @ root
        roots = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt()
        spread = made_covariance.trace() + real_covariance.trace() - 2 * roots.sum()
        return float((made.mean(0) - real.mean(0)).square().sum() + spread)


def _root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric matrix without negative eigenvalues."""
    import torch

    values, vectors = torch.linalg.eigh(matrix)
    # rounding may leave an eigenvalue of 0 just below it
    root: Tensor = vectors @ (values.clamp(min=0).sqrt()[:, None] * vectors.T)
    return root
