"""DAGMM: an autoencoder and a Gaussian mixture of what it makes of the data, trained
together.

The compression network turns a sample s into z: a few latent numbers, and two that say
how well it was rebuilt. The estimation network says to which component of the mixture z
belongs, which takes the place of the E step of EM. The energy, the negative
log-likelihood of z, is the score.

Source: Zong et al., Deep autoencoding Gaussian mixture model for unsupervised anomaly
detection, ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adlab._methods import method
from adlab._parameters import Count, NonNegative, Positive, TwoOrMore, Whole
from adlab.detector import Detector
from adlab.training import resolve_device, seeded, split_by_pixels
from adlab.vectors import (
    check_vectors_or_images,
    cholesky_factors,
    e_step,
    known_inverses,
    m_step,
)

# -- model


class CompressionNetwork(nn.Module):
    """An autoencoder: of images with two convolutions, of vectors with two linear
    layers.

    Args:
        shape: of a sample, (C, H, W) or (D,).
        n_latent: numbers that a sample is compressed to.
        width: channels of the first convolution, half as many as of the second; or
            units.
    """

    def __init__(self, shape: Sequence[int], n_latent: int, width: int):
        super().__init__()
        layers = _convolutions if len(shape) == 3 else _linear
        self.encoder, self.decoder = layers(*shape, n_latent, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent representation (N, n_latent) and reconstruction, in the shape of x."""
        latent = self.encoder(x)
        return latent, self.decoder(latent)


def _linear(n_features: int, n_latent: int, width: int) -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(
        nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_latent)
    )
    decoder = nn.Sequential(
        nn.Linear(n_latent, width), nn.Tanh(), nn.Linear(width, n_features)
    )
    return encoder, decoder


def _convolutions(
    channels: int, height: int, width: int, n_latent: int, n_maps: int
) -> tuple[nn.Module, nn.Module]:
    half, quarter = (
        [math.ceil(size / step) for size in (height, width)] for step in (2, 4)
    )
    flat = 2 * n_maps * math.prod(quarter)
    encoder = nn.Sequential(
        nn.Conv2d(channels, n_maps, 3, 2, 1),
        nn.Tanh(),
        nn.Conv2d(n_maps, 2 * n_maps, 3, 2, 1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(flat, n_latent),
    )
    decoder = nn.Sequential(
        nn.Linear(n_latent, flat),
        nn.Tanh(),
        nn.Unflatten(1, (2 * n_maps, *quarter)),
        nn.Upsample(half),
        nn.Conv2d(2 * n_maps, n_maps, 3, padding=1),
        nn.Tanh(),
        nn.Upsample((height, width)),
        nn.Conv2d(n_maps, channels, 3, padding=1),
    )
    return encoder, decoder


def with_reconstruction_features(
    latent: Tensor, x: Tensor, reconstruction: Tensor
) -> Tensor:
    """z: the latent numbers, the relative distance ‖x − x′‖ / ‖x‖, and the cosine of x
    and x′.

    Args:
        latent: (N, n_latent).
        x: samples (N, …).
        reconstruction: x′, in the shape of x.

    Returns:
        float64 (N, n_latent + 2): the mixture is computed in double precision.
    """
    x, reconstruction = x.flatten(1), reconstruction.flatten(1)
    distance = (x - reconstruction).norm(dim=1) / x.norm(dim=1).clamp_min(1e-6)
    cosine = torch.cosine_similarity(x, reconstruction, dim=1)
    return torch.cat([latent, distance[:, None], cosine[:, None]], 1).double()


def estimation_network(n_features: int, n_components: int) -> nn.Module:
    """A network from z (N, n_features) to responsibilities γ (N, n_components), in
    float64.
    """
    return nn.Sequential(
        nn.Linear(n_features, 10),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(10, n_components),
        nn.Softmax(1),
    ).double()


# -- loss


def energy(
    z: Tensor,
    weights: Tensor,
    means: Tensor,
    factors: Tensor,
    inverses: Tensor | None = None,
) -> Tensor:
    """E(z) = −log Σ π φ(z), (N,): a negative log-likelihood, so higher = more
    anomalous. Factors and inverses are as for `adlab.vectors.log_density`.
    """
    _, log_likelihood = e_step(z, weights, means, factors, inverses)
    return -log_likelihood


def covariance_penalty(covariances: Tensor) -> Tensor:
    """Σ 1 / Σ_jj over the components and dimensions: large where a variance is small."""
    return (1 / covariances.diagonal(dim1=1, dim2=2)).sum()


# -- detector


@method("dagmm", "DAGMM", chapter=5)
@dataclass(eq=False, repr=False)
class DAGMM(Detector):
    """Deep autoencoding Gaussian mixture model, of images (N, C, H, W) or vectors (N,
    D).

    The score is the energy of z under a mixture that the trained networks give for the
    whole training set, so it does not depend on what else is scored. Vectors are
    standardised first. All training samples are held in memory.

    Args:
        n_components: K, of the mixture.
        n_latent: numbers that a sample is compressed to; the mixture sees two more.
        width: of the compression network.
        energy_weight: λ₁, of the mean energy beside the mean squared error (summed over
            pixels).
        penalty_weight: λ₂, of the covariance penalty.
        reg_covar: added to the diagonals of the covariances.
        epochs: passes through the training samples; 0 leaves the networks at their
            random start, a control.
        batch_size: at most; each batch has its own mixture in training, so large
            batches are steadier.
        lr: Adam's step size.
        seed: of the networks, the order of the samples and the dropout.
        device: "auto", "cpu", "cuda", …

    After fitting, `weights_` (K,), `means_` (K, D), `covariances_` (K, D, D) and their
    Cholesky factors `scale_` are the mixture, and `history_` is the mean loss of each
    epoch.

    Source: Zong et al., ICLR 2018; equations 4 to 7.
    """

    takes_vectors = True
    _check = staticmethod(check_vectors_or_images)

    n_components: Count = 2
    n_latent: Count = 2
    width: Count = 16
    energy_weight: NonNegative = 0.1
    penalty_weight: NonNegative = 0.005
    reg_covar: NonNegative = 1e-3
    epochs: Whole = 200
    lr: Positive = 1e-3
    batch_size: TwoOrMore = field(default=1024, kw_only=True)

    def _build(self) -> None:
        self.compression_ = CompressionNetwork(
            self.input_shape_, self.n_latent, self.width
        )
        self.estimation_ = estimation_network(self.n_latent + 2, self.n_components)

    def _fit(self, images: object) -> None:
        x = torch.cat(list(self._stream(images)))
        if len(x) < max(2, self.n_components):
            raise ValueError(
                f"images: expected at least {max(2, self.n_components)} samples, got {len(x)}"
            )
        self._standardise(x)
        with seeded(self.seed):  # once more: to read a DataLoader draws random numbers
            self._build()
        self._train(x)
        with torch.no_grad():
            z = torch.cat([self._represent(part) for part in split_by_pixels(x)])
            self.weights_, self.means_, self.covariances_, self.scale_ = self._mixture(
                z
            )

    def _standardise(self, x: Tensor) -> None:
        """Keep mean and deviation of vectors; images are in [0, 1] already."""
        if x.ndim == 2:
            deviation = x.std(0)
            self.mean_, self.deviation_ = (
                x.mean(0),
                torch.where(deviation > 0, deviation, 1),
            )

    def _train(self, x: Tensor) -> None:
        """By the numbers of the samples in each batch, which is thus no second copy."""
        networks = nn.ModuleList([self.compression_, self.estimation_])
        networks.to(resolve_device(self.device))
        n_batches = math.ceil(len(x) / self.batch_size)
        self.history_ = []
        if self.epochs:
            self.history_ = self._optimise(
                networks,
                lambda rows: self._loss(x, rows),
                torch.arange(len(x)),
                batch_size=math.ceil(len(x) / n_batches),
                check=lambda rows: rows,
            )
        networks.eval()

    def _loss(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        reconstruction, mean_energy, penalty = self.loss_terms(x, rows)
        return (
            reconstruction
            + self.energy_weight * mean_energy
            + self.penalty_weight * penalty
        )

    def loss_terms(
        self, batch: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squared error (summed over pixels), mean energy and covariance penalty
        of a batch, or of some `rows` of it.

        The mixture is that of all of them; but what the networks computed on the way to
        z is kept only if it is little, and else computed again for the gradient.
        """
        rows = torch.arange(len(batch)) if rows is None else rows
        parts = rows.split(len(split_by_pixels(batch)[0]))
        see = partial(self._see_rows, batch)
        if len(parts) > 1:
            see = partial(checkpoint, see, use_reentrant=False)
        seen = map(see, parts)
        z, errors = map(torch.cat, zip(*seen, strict=True))
        weights, means, covariances, factors = self._mixture(z)
        return (
            errors.mean(),
            energy(z, weights, means, factors).mean(),
            covariance_penalty(covariances),
        )

    def _see_rows(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._see(x[rows])

    def _see(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """What the mixture sees, z, and the squared error (summed over pixels)."""
        x, latent, reconstruction = self._compress(batch)
        errors = (x - reconstruction).flatten(1).square().sum(1)
        return with_reconstruction_features(latent, x, reconstruction), errors

    def _compress(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the network saw (vectors standardised), its latent numbers, and what it
        rebuilt.
        """
        x = (batch - self.mean_) / self.deviation_ if batch.ndim == 2 else batch
        return x.float(), *self.compression_(x.float())

    def _mixture(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, means, covariances and their factors from the estimated
        responsibilities.
        """
        weights, means, covariances = m_step(
            z, self.estimation_(z), reg_covar=self.reg_covar
        )
        return (
            weights,
            means,
            covariances,
            cholesky_factors(covariances, self.reg_covar),
        )

    def represent(self, images: object) -> Tensor:
        """What the mixture sees: z, float32 (N, n_latent + 2), latent numbers, relative
        distance and cosine.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._represent, images)

    def _represent(self, batch: Tensor) -> Tensor:
        return self._see(batch)[0]

    def _score(self, batch: Tensor) -> Tensor:
        mixture = self.weights_, self.means_, self.scale_, known_inverses(self)
        return energy(self._represent(batch), *mixture)
