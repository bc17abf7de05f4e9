"""A Gaussian: mean and covariance of vectors, in one pass, and the Mahalanobis
distance to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adlab._parameters import (
    ImageScore,
    NonNegative,
)
from adlab.detector import Localizer
from adlab.training import repeatable
from adlab.vectors.base import VectorDetector


class Moments:
    """Mean and covariance of vectors that pass by once, in float64; memory does not
    grow with their number.

    Two parts gathered apart and merged equal the whole (Chan, Golub & LeVeque 1979,
    "Updating formulae and a pairwise algorithm for computing sample variances").

    Args:
        diagonal: keep the variances only, D numbers instead of D×D.
        last: keep only the last so many rows of the covariance; None for all D.
    """

    def __init__(self, diagonal: bool = False, last: int | None = None):
        self.diagonal = diagonal
        self.last = last
        self.count = 0
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def update(self, x: Tensor) -> Moments:
        """Take in vectors (B, …, D); the dimensions between stand for independent
        Gaussians.
        """
        x = x.to(torch.float64)
        if self.count == 0:
            self.mean, self.scatter = x.mean(0), self._nothing(x[0])
        before = x - self.mean
        self.count += len(x)
        self.mean = self.mean + before.sum(0) / self.count
        self._add(before, x - self.mean)
        return self

    def _nothing(self, x: Tensor) -> Tensor:
        """The scatter before the first vector."""
        shape = x.shape if self.diagonal else (*self._rows(x).shape, x.shape[-1])
        return x.new_zeros(shape)

    def _add(self, before: Tensor, after: Tensor) -> None:
        """Add what vectors (B, …, D) scatter: Σ (x − old mean)(x − new mean)ᵀ. In place,
        as a scatter may fill a large part of the memory.
        """
        if self.diagonal:
            self.scatter.add_((before * after).sum(0))
            return
        left, right = (x.reshape(len(x), -1, x.shape[-1]) for x in (before, after))
        products = self.scatter.view(-1, *self.scatter.shape[-2:])
        products.baddbmm_(self._rows(left).permute(1, 2, 0), right.transpose(0, 1))

    def _rows(self, x: Tensor) -> Tensor:
        """Those entries whose rows of the covariance are kept."""
        return x if self.last is None else x[..., -self.last :]

    def merge(self, other: Moments) -> Moments:
        """Take in all that another one has seen."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.mean = other.count, other.mean
            self.scatter = other.scatter.clone()  # as it will be changed in place
            return self
        total = self.count + other.count
        gap = other.mean - self.mean
        left, right = (
            (gap, gap)
            if self.diagonal
            else (self._rows(gap)[..., :, None], gap[..., None, :])
        )
        self.scatter += other.scatter
        self.scatter.addcmul_(left, right, value=self.count * other.count / total)
        self.mean = self.mean + gap * (other.count / total)
        self.count = total
        return self

    def covariance(self) -> Tensor:
        """The unbiased estimate: (…, D, D), or its `last` rows (…, last, D), or the
        variances (…, D) where diagonal.

        Raises:
            ValueError: fewer than two vectors were seen.
        """
        self.check_enough()
        return self.scatter / (self.count - 1)

    def check_enough(self) -> None:
        """Refuse fewer than the two vectors that a covariance needs."""
        if self.count < 2:
            raise ValueError(
                f"images: expected at least 2 vectors to estimate a covariance, got {self.count}"
            )


def ledoit_wolf(batches: Iterable[Tensor], moments: Moments) -> Tensor:
    r"""The covariance :math:`(1 - \lambda) S + \lambda m I`, shrunk towards a sphere of
    the same mean variance m.

    S is the covariance divided by N, m = tr S / D, and λ is the estimate of the weight
    that comes closest to the true covariance: large where the vectors are few for
    their dimension. What it gives is regular for any N ≥ 2.

    Args:
        batches: the vectors, (B, D) each, once more.
        moments: theirs.

    Returns:
        float64 (D, D).

    Source: Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional
    covariance matrices".
    """
    n, biased = moments.count, moments.scatter / moments.count
    target = biased.trace() / len(biased) * torch.eye(len(biased)).to(biased)
    fourth = sum(((x - moments.mean) ** 2).sum(1).square().sum() for x in batches)
    noise = (fourth / n - biased.square().sum()) / n  # of S: E‖S − Σ‖²
    weight = (noise / (biased - target).square().sum().clamp_min(1e-300)).clamp(0, 1)
    return (1 - weight) * biased + weight * target


def inverse_factors(factors: Tensor) -> Tensor:
    """L⁻ᵀ of Cholesky factors L (…, D, D): it whitens rows, which a runtime multiplies
    in float64 without transposing them, for which onnxruntime 1.23 has no kernel.
    """
    unit = torch.eye(factors.shape[-1]).to(factors).expand_as(factors)
    return torch.linalg.solve_triangular(factors.mT, unit, upper=True).contiguous()


@dataclass(eq=False, repr=False)
class Gaussian(VectorDetector):
    r"""One Gaussian; the score is the Mahalanobis distance
    :math:`\sqrt{(x-\mu)^T\Sigma^{-1}(x-\mu)}`.

    Args:
        covariance_type: "full" (D×D, so D up to a few thousands), "diag" (every
            entry on its own), or "ledoit-wolf" (full, shrunk as `ledoit_wolf` says; it
            runs through the images twice, and holds them if they come but once).
        reg_covar: added to the diagonal of the covariance, in squared units of the
            data; without it the full covariance is singular as soon as N ≤ D.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Mahalanobis 1936, "On the generalised distance in statistics".
    """

    max_features = 8192  # D×D in float64 takes half a gigabyte here

    covariance_type: Literal["full", "diag", "ledoit-wolf"] = "full"
    reg_covar: NonNegative = 1e-6

    def _fit(self, images: object) -> None:
        shrunk = self.covariance_type == "ledoit-wolf"
        images = repeatable(images) if shrunk else images
        moments = Moments(diagonal=self.covariance_type == "diag")
        for x in self._stream(images):
            self._check_size(x.shape[1])
            moments.update(x)
        self.mean_ = moments.mean
        covariance = moments.covariance()
        if shrunk:
            covariance = ledoit_wolf(self._stream(images), moments)
        self.scale_ = self._factor(covariance)

    def _check_size(self, n_features: int) -> None:
        if self.covariance_type != "diag" and n_features > self.max_features:
            raise ValueError(
                f"images: expected at most {self.max_features} features for a full covariance, "
                f'got {n_features}; use covariance_type="diag", PCAResidual or Patchwise'
            )

    def _factor(self, covariance: Tensor) -> Tensor:
        """The Cholesky factor L of Σ = LLᵀ, or the standard deviations where diagonal."""
        if self.covariance_type == "diag":
            variance = covariance + self.reg_covar
            bad = bool((variance <= 0).any())
            factor = variance.sqrt()
        else:
            covariance.diagonal().add_(self.reg_covar)
            factor, info = torch.linalg.cholesky_ex(covariance)
            unexplained = (
                factor.diagonal() ** 2 / covariance.diagonal()
            )  # by the features before it: 1 − R²
            bad = bool(info) or (
                self.reg_covar == 0 and bool((unexplained < 1e-10).any())
            )
        if bad:
            raise ValueError(
                f"images: expected features that vary independently, got a singular covariance; "
                f"raise reg_covar above {self.reg_covar:g} or bring more images"
            )
        return factor

    def _whiten(self, x: Tensor) -> Tensor:
        """L⁻¹(x − μ): standard normal if x is Gaussian; its length is the Mahalanobis
        distance.
        """
        centred = x.to(torch.float64) - self.mean_
        if self.covariance_type == "diag":
            return centred / self.scale_
        if self._constants is not None:  # see `known_inverses`
            inverse = self._constant("inverse", lambda: inverse_factors(self.scale_))
            return centred @ inverse
        return torch.linalg.solve_triangular(self.scale_, centred.T, upper=False).T

    def _score(self, batch: Tensor) -> Tensor:
        return self._whiten(batch).norm(dim=1)


@dataclass(eq=False, repr=False)
class PixelGaussian(Localizer):
    """A Gaussian of its own for every pixel: the map counts standard deviations from
    the mean image.

    It needs images that are aligned, and sees each pixel alone.

    Args:
        reg_covar: added to every variance, in squared grey levels.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    reg_covar: NonNegative = 1e-4
    image_score: ImageScore = "max"

    def _fit(self, images: object) -> None:
        self.gaussian_ = Gaussian("diag", self.reg_covar, device=self.device).fit(
            self._stream(images)
        )

    def _map(self, batch: Tensor) -> Tensor:
        """Root mean square over the channels of the standardised pixel."""
        return (
            self.gaussian_._whiten(batch.flatten(1))
            .view(batch.shape)
            .square()
            .mean(1)
            .sqrt()
        )
