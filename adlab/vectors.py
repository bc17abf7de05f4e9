"""Detectors of random vectors, the last step of almost every method in the book.

They take feature vectors (N, D), or images (N, C, H, W), each flattened to one vector. `Patchwise`
applies any of them to the patches of an image instead, and so says where.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from adlab._checks import as_tensor, check_choice, check_images, check_number, check_vectors
from adlab.detector import Detector, Localizer


def _check_vectors_or_images(data: object) -> Tensor:
    data = as_tensor("images", data)
    return check_images(data) if data.ndim == 4 else check_vectors(data, "images")


class VectorDetector(Detector):
    """A detector whose `_score` gets vectors: it takes (N, D) as well as images (N, C, H, W)."""

    _check = staticmethod(_check_vectors_or_images)

    def _stream(self, images: object) -> Iterator[Tensor]:
        for batch in super()._stream(images):
            yield batch.flatten(1)


# -- Gaussian -----------------------------------------------------------------------------------


class Moments:
    """Mean and covariance of vectors that pass by once, in float64; memory does not grow with their number.

    Two parts gathered apart and merged equal the whole (Chan, Golub & LeVeque 1979, "Updating formulae
    and a pairwise algorithm for computing sample variances").

    Args:
        diagonal: keep the variances only, D numbers instead of D×D.
    """

    def __init__(self, diagonal: bool = False):
        self.diagonal = diagonal
        self.count = 0
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def update(self, x: Tensor) -> Moments:
        """Take in vectors (B, …, D); the dimensions between stand for independent Gaussians."""
        x = x.to(torch.float64)
        batch = Moments(self.diagonal)
        batch.count, batch.mean = len(x), x.mean(0)
        centred = x - batch.mean
        batch.scatter = (
            (centred**2).sum(0) if self.diagonal else torch.einsum("b...i,b...j->...ij", centred, centred)
        )
        return self.merge(batch)

    def merge(self, other: Moments) -> Moments:
        """Take in all that another one has seen."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.mean, self.scatter = other.count, other.mean, other.scatter
            return self
        total = self.count + other.count
        gap = other.mean - self.mean
        outer = gap**2 if self.diagonal else gap[..., :, None] * gap[..., None, :]
        self.scatter = self.scatter + other.scatter + outer * (self.count * other.count / total)
        self.mean = self.mean + gap * (other.count / total)
        self.count = total
        return self

    def covariance(self) -> Tensor:
        """The unbiased estimate: (…, D, D), or the variances (…, D) where diagonal.

        Raises:
            ValueError: fewer than two vectors were seen.
        """
        if self.count < 2:
            raise ValueError(
                f"images: expected at least 2 vectors to estimate a covariance, got {self.count}"
            )
        return self.scatter / (self.count - 1)


class Gaussian(VectorDetector):
    r"""One Gaussian; the score is the Mahalanobis distance :math:`\sqrt{(x-\mu)^T\Sigma^{-1}(x-\mu)}`.

    Args:
        covariance_type: "full" (D×D, so D up to a few thousands) or "diagonal" (every entry on its own).
        reg_covar: added to the diagonal of the covariance, in squared units of the data; without it
            the covariance is singular as soon as N ≤ D.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Mahalanobis 1936, "On the generalised distance in statistics".
    """

    max_features = 8192  # D×D in float64 takes half a gigabyte here

    def __init__(
        self, covariance_type: str = "full", reg_covar: float = 1e-6, *, seed: int = 0, device: str = "auto"
    ):
        check_choice("covariance_type", covariance_type, ("full", "diagonal"))
        check_number("reg_covar", reg_covar, 0)
        super().__init__(seed=seed, device=device)
        self.covariance_type, self.reg_covar = covariance_type, reg_covar

    def _fit(self, images: object) -> None:
        moments = Moments(diagonal=self.covariance_type == "diagonal")
        for x in self._stream(images):
            self._check_size(x.shape[1])
            moments.update(x)
        self.mean_ = moments.mean
        self.scale_ = self._factor(moments.covariance())

    def _check_size(self, n_features: int) -> None:
        if self.covariance_type == "full" and n_features > self.max_features:
            raise ValueError(
                f"images: expected at most {self.max_features} features for a full covariance, "
                f'got {n_features}; use covariance_type="diagonal", PCAResidual or Patchwise'
            )

    def _factor(self, covariance: Tensor) -> Tensor:
        """The Cholesky factor L of Σ = LLᵀ, or the standard deviations where diagonal."""
        if self.covariance_type == "diagonal":
            variance = covariance + self.reg_covar
            bad = bool((variance <= 0).any())
            factor = variance.sqrt()
        else:
            covariance.diagonal().add_(self.reg_covar)
            factor, info = torch.linalg.cholesky_ex(covariance)
            unexplained = factor.diagonal() ** 2 / covariance.diagonal()  # by the features before it: 1 − R²
            bad = bool(info) or (self.reg_covar == 0 and bool((unexplained < 1e-10).any()))
        if bad:
            raise ValueError(
                f"images: expected features that vary independently, got a singular covariance; "
                f"raise reg_covar above {self.reg_covar:g} or bring more images"
            )
        return factor

    def _whiten(self, x: Tensor) -> Tensor:
        """L⁻¹(x − μ): standard normal if x is Gaussian; its length is the Mahalanobis distance."""
        centred = x.to(torch.float64) - self.mean_
        if self.covariance_type == "diagonal":
            return centred / self.scale_
        return torch.linalg.solve_triangular(self.scale_, centred.T, upper=False).T

    def _score(self, batch: Tensor) -> Tensor:
        return self._whiten(batch).norm(dim=1)


class PixelGaussian(Localizer):
    """A Gaussian of its own for every pixel: the map counts standard deviations from the mean image.

    It needs images that are aligned, and sees each pixel alone.

    Args:
        reg_covar: added to every variance, in squared grey levels.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    def __init__(
        self, reg_covar: float = 1e-4, image_score: str = "max", *, seed: int = 0, device: str = "auto"
    ):
        check_number("reg_covar", reg_covar, 0)
        check_choice("image_score", image_score, ("max", "mean"))
        super().__init__(seed=seed, device=device)
        self.reg_covar, self.image_score = reg_covar, image_score

    def _fit(self, images: object) -> None:
        self.gaussian_ = Gaussian("diagonal", self.reg_covar, device=self.device).fit(self._stream(images))

    def _map(self, batch: Tensor) -> Tensor:
        """Root mean square over the channels of the standardised pixel."""
        return self.gaussian_._whiten(batch.flatten(1)).view(batch.shape).square().mean(1).sqrt()


# -- neighbours and subspaces -------------------------------------------------------------------


class KNN(VectorDetector):
    """The score is the mean Euclidean distance to the k nearest training vectors.

    It remembers all training vectors: memory grows with N, and so does the time to score.

    Args:
        k: number of neighbours, at most N.
        seed: unused, here as in every detector.
        device: unused: scikit-learn searches on the CPU.

    Source: Ramaswamy, Rastogi & Shim 2000, "Efficient algorithms for mining outliers from large data sets".
    """

    def __init__(self, k: int = 1, *, seed: int = 0, device: str = "auto"):
        check_number("k", k, 1, whole=True)
        super().__init__(seed=seed, device=device)
        self.k = k

    def _fit(self, images: object) -> None:
        self.vectors_ = torch.cat([x.cpu() for x in self._stream(images)])
        if len(self.vectors_) < self.k:
            raise ValueError(f"images: expected at least k = {self.k}, got {len(self.vectors_)}")

    def _score(self, batch: Tensor) -> Tensor:
        from sklearn.neighbors import NearestNeighbors

        index = NearestNeighbors(n_neighbors=self.k, algorithm="brute").fit(self.vectors_.cpu().numpy())
        distances, _ = index.kneighbors(batch.cpu().numpy())
        return torch.from_numpy(distances).mean(1)


class PCAResidual(VectorDetector, Localizer):
    """The score is the distance to the subspace of the first principal components of normal data.

    Images give a map as well: the squared residual of every pixel, summed over its channels.
    Memory does not grow with N: scikit-learn's incremental PCA.

    Args:
        n_components: dimension of the subspace, at most min(N, D).
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Jackson & Mudholkar 1979, "Control procedures for residuals associated with principal
    component analysis".
    """

    def __init__(self, n_components: int = 16, *, seed: int = 0, device: str = "auto"):
        check_number("n_components", n_components, 1, whole=True)
        super().__init__(seed=seed, device=device)
        self.n_components = n_components

    def _fit(self, images: object) -> None:
        from sklearn.decomposition import IncrementalPCA

        pca = IncrementalPCA(self.n_components)
        for chunk in _regroup(self._stream(images), max(4 * self.n_components, 256)):
            if min(chunk.shape) < self.n_components:
                n, d = chunk.shape
                raise ValueError(
                    f"images: expected N and D of at least n_components = {self.n_components}, got {n}, {d}"
                )
            pca.partial_fit(chunk.cpu().to(torch.float64).numpy())
        device = chunk.device
        self.mean_ = torch.from_numpy(pca.mean_).to(device)
        self.components_ = torch.from_numpy(pca.components_).to(device)

    def _residual(self, x: Tensor) -> Tensor:
        centred = x.to(torch.float64) - self.mean_
        return centred - centred @ self.components_.T @ self.components_

    def _score(self, batch: Tensor) -> Tensor:
        return self._residual(batch).norm(dim=1)

    def _map(self, batch: Tensor) -> Tensor:
        if len(self.input_shape_) != 3:
            raise ValueError(
                f"images: expected (N, C, H, W) for a map, got vectors of {self.input_shape_[0]} features"
            )
        return self._residual(batch).view(-1, *self.input_shape_).square().sum(1)


def _regroup(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows in chunks of at least `size`; only fewer rows in all give a smaller one."""
    ready: list[Tensor] = []
    held: list[Tensor] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= size:
            if ready:
                yield torch.cat(ready)
            ready, held = held, []
    yield torch.cat(ready + held)


# -- patches ------------------------------------------------------------------------------------


class Patchwise(Localizer):
    """Any detector of vectors, applied to the patches of an image: it says where.

    All patches of all training images are pooled, as if the texture were stationary. A pixel's score
    is the mean score of the patches that cover it. Images of any size at least that of a patch will do.

    Args:
        detector: what scores a patch, a vector of C · patch_size² numbers.
        patch_size: side of a patch, in pixels.
        stride: step from patch to patch, at most patch_size.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    any_size = True
    batch_size = 16

    def __init__(
        self,
        detector: VectorDetector,
        patch_size: int = 8,
        stride: int = 4,
        image_score: str = "max",
        *,
        seed: int = 0,
        device: str = "auto",
    ):
        if not isinstance(detector, VectorDetector):
            raise TypeError(
                f"detector: expected a VectorDetector, as Gaussian(), got {type(detector).__name__}"
            )
        check_number("patch_size", patch_size, 1, whole=True)
        check_number("stride", stride, 1, patch_size, whole=True)
        check_choice("image_score", image_score, ("max", "mean"))
        super().__init__(seed=seed, device=device)
        self.detector, self.patch_size, self.stride = detector, patch_size, stride
        self.image_score = image_score

    def _fit(self, images: object) -> None:
        detector = copy.copy(self.detector)
        detector.device = self.device
        self.detector_ = detector.fit(self._patches(batch) for batch in self._stream(images))

    def _stream(self, images: object) -> Iterator[Tensor]:
        for batch in super()._stream(images):
            if min(batch.shape[2:]) < self.patch_size:
                size = tuple(batch.shape[2:])
                raise ValueError(
                    f"images: expected H, W of at least patch_size = {self.patch_size}, got {size}"
                )
            yield batch

    def _patches(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) to (B · patches, C · patch_size²)."""
        return F.unfold(batch, self.patch_size, stride=self.stride).transpose(1, 2).flatten(0, 1)

    def _map(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        padded = self._pad(batch)
        scores = self.detector_._score(self._patches(padded)).to(batch)
        scores = scores.view(len(batch), 1, -1).expand(-1, self.patch_size**2, -1)
        size = {"output_size": padded.shape[2:], "kernel_size": self.patch_size, "stride": self.stride}
        total, count = F.fold(scores, **size), F.fold(torch.ones_like(scores), **size)
        return (total / count)[:, 0, :height, :width]

    def _pad(self, batch: Tensor) -> Tensor:
        """Mirror the lower and right border until whole steps of the stride reach it."""
        pads = [
            math.ceil((n - self.patch_size) / self.stride) * self.stride + self.patch_size - n
            for n in batch.shape[2:]
        ]
        return F.pad(batch, (0, pads[1], 0, pads[0]), mode="reflect")
