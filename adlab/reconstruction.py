"""Reconstruction: a network that can rebuild only what is normal, and the residual as
the score.

    image ──▶ encoder ──▶ few numbers ──▶ decoder ──▶ reconstruction

The residual is what is left of the image when its reconstruction is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from adlab import similarity
from adlab._checks import check_choice, check_counts, check_number, check_sides
from adlab._methods import method
from adlab._parameters import Count, ImageScore, Positive, TwoOrMore
from adlab.augmentation import random_crop
from adlab.detector import Localizer
from adlab.training import seeded

# -- the network


class ConvolutionalAutoencoder(nn.Module):
    """A fully convolutional autoencoder: images (N, C, H, W) of any size to
    reconstructions of that size.

    Each level of the encoder is a 3 × 3 convolution, ReLU and max pooling; at the end a
    1 × 1 convolution leaves `n_latent` channels. The decoder goes back by
    convolution, ReLU and enlargement, and ends in a linear convolution. Without levels
    it is linear, pixel by pixel.

    Args:
        channels: of the images.
        widths: channels of each level of the encoder, from fine to coarse; the decoder
            mirrors them.
        n_latent: channels of the latent representation; None leaves the last level as
            it is.
        factors: by what each level shrinks height and width: one even number, or one a
            level. Beyond 2, the convolution has a stride; the decoder enlarges by the
            same factors in the same order.
        upsampling: "nearest", each value repeated; or "transposed", a transposed
            convolution.
        padding_mode: what the convolutions see beyond the border, "zeros", "reflect" or
            "replicate".

    Raises:
        ValueError, TypeError: an argument out of its range.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (16, 32),
        n_latent: int | None = 4,
        factors: int | Sequence[int] = 2,
        upsampling: str = "nearest",
        padding_mode: str = "zeros",
    ):
        super().__init__()
        check_number("channels", channels, 1, whole=True)
        check_counts("widths", widths, empty=True)
        factors = _check_factors(factors, len(widths))
        check_choice("upsampling", upsampling, ("nearest", "transposed"))
        check_choice("padding_mode", padding_mode, ("zeros", "reflect", "replicate"))
        if n_latent is not None or not widths:
            check_number("n_latent", n_latent, 1, whole=True)
        self.factor = math.prod(factors)
        self.encoder = _encoder(channels, widths, n_latent, factors, padding_mode)
        self.decoder = _decoder(
            channels, widths, n_latent, factors, padding_mode, upsampling
        )
        self.to(memory_format=torch.channels_last)  # much faster on a CPU

    def encode(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to latents (N, n_latent, ⌈H / factor⌉, ⌈W / factor⌉)."""
        rows, columns = (-n % self.factor for n in x.shape[2:])
        return self.encoder(
            pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x
        )

    def decode(self, z: Tensor, size: Sequence[int]) -> Tensor:
        """Latents to images of the given height and width."""
        return self.decoder(z)[..., : size[0], : size[1]]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of the same shape."""
        return self.decode(self.encode(x), x.shape[2:])


def _encoder(
    channels: int,
    widths: list[int],
    n_latent: int | None,
    factors: list[int],
    padding_mode: str,
) -> nn.Sequential:
    layers, inside = [], channels
    for width, factor in zip(widths, factors, strict=True):
        convolution = nn.Conv2d(
            inside, width, 3, factor // 2, 1, padding_mode=padding_mode
        )
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
        inside = width
    return nn.Sequential(
        *layers, *([nn.Conv2d(inside, n_latent, 1)] if n_latent else [])
    )


def _decoder(
    channels: int,
    widths: list[int],
    n_latent: int | None,
    factors: list[int],
    padding_mode: str,
    upsampling: str,
) -> nn.Sequential:
    layers, inside = [], n_latent or widths[-1]
    for width, factor in zip(reversed(widths), factors, strict=True):
        if upsampling == "nearest":
            convolution = nn.Conv2d(
                inside, width, 3, padding=1, padding_mode=padding_mode
            )
            layers += [convolution, nn.ReLU(), nn.Upsample(scale_factor=factor)]
        else:  # 3 is no multiple of the stride: neighbouring pixels get unequal shares
            layers += [
                nn.ConvTranspose2d(inside, width, 3, factor, 1, factor - 1),
                nn.ReLU(),
            ]
        inside = width
    return nn.Sequential(
        *layers, nn.Conv2d(inside, channels, 3, padding=1, padding_mode=padding_mode)
    )


def _check_factors(factors: int | Sequence[int], depth: int) -> list[int]:
    factors = list(factors) if isinstance(factors, Sequence) else [factors] * depth
    if len(factors) != depth:
        raise ValueError(
            f"factors: expected {depth} numbers, one a level; got {len(factors)}"
        )
    for factor in factors:
        check_number("factors", factor, 2, whole=True)
        if factor % 2:
            raise ValueError(f"factors: expected even numbers, got {factor}")
    return factors


# -- losses

# name -> smallest side of an image; the loss (N, …), (N, …) -> (N,); the same for every
# pixel -> (N, H, W)
_RANGE = {"data_range": 1.0}  # images are in [0, 1]
_MULTI = _RANGE | {
    "scales": 3
}  # 11 pixels at the coarsest of three scales are 44, less than a patch
LOSSES: dict[str, tuple[int, Callable[..., Tensor], Callable[..., Tensor]]] = {
    "l2": (1, similarity.mse, similarity.mse_map),
    "ssim": (
        11,
        lambda x, y: 1 - similarity.ssim(x, y, **_RANGE),
        lambda x, y: 1 - similarity.ssim_map(x, y, **_RANGE),
    ),
    "ms-ssim": (
        44,
        lambda x, y: 1 - similarity.ms_ssim(x, y, **_MULTI),
        lambda x, y: 1 - similarity.ms_ssim_map(x, y, **_MULTI),
    ),
    "cw-ssim": (
        30,
        lambda x, y: 1 - similarity.cw_ssim(x, y, **_RANGE),
        lambda x, y: 1 - similarity.cw_ssim_map(x, y, **_RANGE),
    ),
}


def _check_loss(loss: object, patch_size: int) -> None:
    """Refuse what is neither the name of a loss nor names with positive weights, or
    needs larger patches.
    """
    if not isinstance(loss, str | dict) or not loss:
        raise TypeError(
            f"loss: expected a name, or a dict of names to weights, got {type(loss).__name__} {loss!r}"
        )
    for name, weight in _weights(loss).items():
        check_choice("loss", name, LOSSES)
        check_number(f"loss[{name!r}]", weight, 0, open_low=True)
        if patch_size < LOSSES[name][0]:
            raise ValueError(
                f"patch_size: expected at least {LOSSES[name][0]} pixels for {name!r}, got {patch_size}"
            )


def _weights(loss: str | dict[str, float]) -> dict[str, float]:
    return {loss: 1.0} if isinstance(loss, str) else loss


def loss_value(loss: str | dict[str, float], x: Tensor, y: Tensor) -> Tensor:
    """The weighted sum of losses of reconstructions y of images x: (N, C, H, W) twice,
    to (N,).
    """
    return sum(
        weight * LOSSES[name][1](x, y) for name, weight in _weights(loss).items()
    )


def loss_map(loss: str | dict[str, float], x: Tensor, y: Tensor) -> Tensor:
    """The same for every pixel: (N, H, W), the residual."""
    return sum(
        weight * LOSSES[name][2](x, y) for name, weight in _weights(loss).items()
    )


# -- detectors


@dataclass(eq=False, repr=False, kw_only=True)
class _Reconstruction(Localizer):
    """What both detectors share: a network trained on random patches, applied to whole
    images.
    """

    any_size = True

    widths: Annotated[Sequence[int], partial(check_counts, empty=True)] = (16, 32)
    n_latent: Count = 4
    patch_size: TwoOrMore = 64
    epochs: Count = 30
    lr: Positive = 4e-3
    image_score: ImageScore = "max"
    batch_size: Count = 8

    def reconstruct(self, images: object) -> Tensor:
        """What the network makes of images.

        Args:
            images: as for `fit`, of any height and width that can be scored.

        Returns:
            float32 (N, C, H, W), about in [0, 1].

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda batch: self.network_(batch), images)

    def _fit(self, images: object) -> None:
        words = f"patch_size = {self.patch_size}"
        self._check_sides(images, self.patch_size, words)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build()
        self.history_ = self._optimise(
            self.network_,
            lambda batch: self._loss(random_crop(batch, self.patch_size)).mean(),
            images,
        )

    def _loss(self, patches: Tensor) -> Tensor:
        raise NotImplementedError


@method("autoencoder", "autoencoder", chapter=3, options={"loss": "l2"})
@dataclass(eq=False, repr=False)
class Autoencoder(_Reconstruction):
    """An autoencoder of normal images: the score is what it cannot rebuild, measured by
    its training loss.

    It is trained with Adam on random patches, one an image and step, and applied to
    whole images of any size that the loss can measure. The map is the loss of every
    pixel.

    Args:
        loss: "l2" (the mean squared error); "ssim", "ms-ssim" (three scales) or
            "cw-ssim", each one minus the similarity; or a sum, {"l2": 1, "ssim": 0.1}.
        widths: channels of each level of the encoder; each level halves height and
            width.
        n_latent: channels of the latent representation. Too many, and it rebuilds
            anomalies as well.
        patch_size: side of a training patch, in pixels: at least 11 for "ssim", 30 for
            "cw-ssim", 44 for "ms-ssim", and at most that of the training images.
        epochs: passes through the training images.
        lr: Adam's step size.
        image_score: "max" or "mean" of the map.
        seed: of the first weights, the patches and their order.
        device: "auto", "cpu", "cuda", …

    Images of 28 × 28 pixels, as of MNIST, need patch_size=28, and a network that sees
    all of a digit through few numbers: widths=(8, 16, 32, 32), n_latent=8 and
    image_score="mean" give an AUROC of 0.96 there, the default widths 0.66.

    After `fit`: `network_`, a `ConvolutionalAutoencoder`, and `history_`, the mean loss
    of each epoch.

    Source: Bergmann et al. 2019, "Improving unsupervised defect segmentation by
    applying structural similarity to autoencoders" (SSIM); Bionda et al. 2022, "Deep
    autoencoders for anomaly detection in textured images using CW-SSIM".
    """

    loss: str | dict[str, float] = "l2"

    def _check_arguments(self) -> None:
        _check_loss(self.loss, self.patch_size)

    def _build(self) -> None:
        self.network_ = ConvolutionalAutoencoder(
            self.input_shape_[0], self.widths, self.n_latent
        )

    def _loss(self, patches: Tensor) -> Tensor:
        return loss_value(self.loss, patches, self.network_(patches))

    def _map(self, batch: Tensor) -> Tensor:
        smallest = max(LOSSES[name][0] for name in _weights(self.loss))
        check_sides(batch.shape, smallest, f"{smallest} pixels")
        return loss_map(self.loss, batch, self.network_(batch))


# -- variational


class VariationalNetwork(ConvolutionalAutoencoder):
    """The same network, but its encoder gives a Gaussian for each latent: a mean and a
    log-variance.
    """

    def __init__(self, channels: int, widths: Sequence[int], n_latent: int):
        super().__init__(channels, widths, n_latent)
        self.encoder[-1] = nn.Conv2d(self.encoder[-1].in_channels, 2 * n_latent, 1)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents of images (N, C, H, W), each (N,
        n_latent, h, w).
        """
        return super().encode(x).chunk(2, dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the latents: nothing is drawn."""
        return self.posterior(x)[0]


def sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Draws of a Gaussian as a function of its parameters, so that gradients reach
    them: all of one shape.

    Args:
        noise: drawn from the standard Gaussian.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", eq. 4.
    """
    return mean + (log_variance / 2).exp() * noise


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of each latent's Gaussian from the standard one, of the same shape,
    at least 0.
    """
    return (mean**2 + log_variance.exp() - log_variance - 1) / 2


def negative_log_likelihood(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """-log of the Gaussian density of each pixel of x, with mean y and standard
    deviation sigma.
    """
    return ((x - y) / sigma) ** 2 / 2 + math.log(sigma * math.sqrt(2 * math.pi))


def negative_elbo(network: VariationalNetwork, x: Tensor, sigma: float) -> Tensor:
    """Upper bound of -log p(x), (N,): summed over pixels, and over latents, with one
    draw an image.
    """
    mean, log_variance = network.posterior(x)
    y = network.decode(sample(mean, log_variance, torch.randn_like(mean)), x.shape[2:])
    parts = negative_log_likelihood(x, y, sigma), kl_divergence(mean, log_variance)
    return sum(part.flatten(1).sum(1) for part in parts)


@method("vae", "variational autoencoder", chapter=3)
@dataclass(eq=False, repr=False)
class VariationalAutoencoder(_Reconstruction):
    """A variational autoencoder of normal images: each latent is a Gaussian, pulled
    towards the standard one.

    Trained like `Autoencoder`, by the evidence lower bound (ELBO). Scoring draws the
    same noise for every image, from the seed: a score depends on nothing but the image.

    Args:
        score: what the map shows. "reconstruction": the squared error when the latents
            are their means. "reconstruction-probability": -log p(x | z), the mean over
            draws of z. "elbo": the same plus the KL divergence, each latent's share
            spread over the pixels it stands for, so that the map sums to -ELBO. The
            last two in nats.
        sigma: standard deviation of the pixels about the reconstruction, in grey
            levels. The larger, the more the KL divergence counts.
        n_samples: draws of z, for the last two scores.
        widths, n_latent, patch_size, epochs, lr, image_score, seed, device: as for
            `Autoencoder`.

    After `fit`: `network_`, a `VariationalNetwork`, and `history_`, the mean -ELBO of
    each epoch.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes"; An & Cho 2015,
    "Variational autoencoder based anomaly detection using reconstruction probability"
    (there the decoder estimates sigma as well).
    """

    score: Literal["reconstruction", "elbo", "reconstruction-probability"] = (
        "reconstruction"
    )
    sigma: Positive = 0.1
    n_samples: Count = 8

    def _build(self) -> None:
        self.network_ = VariationalNetwork(
            self.input_shape_[0], self.widths, self.n_latent
        )

    def _loss(self, patches: Tensor) -> Tensor:
        return negative_elbo(self.network_, patches, self.sigma)

    def _map(self, batch: Tensor) -> Tensor:
        if self.score == "reconstruction":
            return similarity.mse_map(batch, self.network_(batch))
        mean, log_variance = self.network_.posterior(batch)
        improbability = self._improbability(batch, mean, log_variance)
        if self.score == "reconstruction-probability":
            return improbability
        return improbability + self._spread(
            kl_divergence(mean, log_variance), batch.shape[2:]
        )

    def _improbability(
        self, batch: Tensor, mean: Tensor, log_variance: Tensor
    ) -> Tensor:
        """Mean of -log p(x | z) over draws of z, (B, H, W); the draws are the same for
        every image.
        """
        shape = (self.n_samples, *mean.shape[1:])
        noise = self._constant(shape, lambda: torch.randn(shape)).to(mean)
        draws = (
            self.network_.decode(sample(mean, log_variance, e), batch.shape[2:])
            for e in noise
        )
        return (
            sum(negative_log_likelihood(batch, y, self.sigma).sum(1) for y in draws)
            / self.n_samples
        )

    def _spread(self, latents: Tensor, size: Sequence[int]) -> Tensor:
        """The sum over latent channels, shared among the pixels of each place: (B, H,
        W).
        """
        factor = self.network_.factor
        shares = latents.sum(1) / factor**2
        return shares.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[
            :, : size[0], : size[1]
        ]
