"""Principal components: to score in a few of them, or by what they leave over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from adlab._methods import method
from adlab._parameters import (
    Count,
)
from adlab.detector import Localizer
from adlab.training import repeatable
from adlab.vectors.base import OfVectors, VectorDetector, fit_inside
from adlab.vectors.gaussian import Gaussian, Moments

EXACT = 1024  # features: up to here a covariance costs less than chunks of vectors


@dataclass(eq=False, repr=False)
class PCAReduced(VectorDetector):
    """Any detector of vectors, applied to a few principal components of them.

    The components are those of normal data. The largest keep most of the variance; the
    smallest are the directions in which normal data hardly ever move. The vectors pass
    by twice, first for the components; those that come but once are held in memory.

    Args:
        detector: what scores the components: any detector of vectors.
        n_components: how many, at most the number of directions in which the training
            vectors vary, so below N and at most D.
        keep: the components of "largest" or "smallest" variance.
        whiten: divide each component by its standard deviation. The squared Euclidean
            distance of the result is the Mahalanobis distance squared.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Jolliffe 2002, "Principal component analysis"; the smallest: Rippel, Mertens
    & Merhof 2021, "Modeling the distribution of normal data in pre-trained deep
    features for anomaly detection".
    """

    detector: OfVectors
    n_components: Count
    keep: Literal["largest", "smallest"] = "largest"
    whiten: bool = False

    def _fit(self, images: object) -> None:
        images, moments = repeatable(images), Moments()
        for x in self._stream(images):
            if x.shape[1] > Gaussian.max_features:
                raise ValueError(
                    f"images: expected at most {Gaussian.max_features} features for their principal "
                    f"components, got {x.shape[1]}; use Patchwise or PCAResidual"
                )
            moments.update(x)
        self.mean_, self.components_ = moments.mean, self._choose(moments.covariance())
        self.detector_ = fit_inside(
            self, (self._reduce(x) for x in self._stream(images))
        )

    def _choose(self, covariance: Tensor) -> Tensor:
        """The kept eigenvectors as columns (D, n_components), the largest first."""
        variances, vectors = torch.linalg.eigh(covariance)
        varies = variances > 1e-12 * variances[-1]
        variances, vectors = variances[varies].flip(0), vectors[:, varies].flip(1)
        if len(variances) < self.n_components:
            raise ValueError(
                f"images: expected vectors that vary in at least n_components = {self.n_components} "
                f"directions, got {len(variances)}"
            )
        vectors = vectors / variances.sqrt() if self.whiten else vectors
        n = self.n_components
        return vectors[:, :n] if self.keep == "largest" else vectors[:, -n:]

    def _reduce(self, x: Tensor) -> Tensor:
        return (x.to(torch.float64) - self.mean_) @ self.components_

    def _score(self, batch: Tensor) -> Tensor:
        return self.detector_._score(self._reduce(batch))


@method("pca", "PCA residual", chapter=1)
@dataclass(eq=False, repr=False)
class PCAResidual(VectorDetector, Localizer):
    """The score is the distance to the subspace of the first principal components of
    normal data.

    Images give a map as well: the squared residual of every pixel, summed over its
    channels. Memory does not grow with N. Up to D = 1024 the components are those of the
    covariance; beyond, scikit-learn's incremental PCA carries far more components along
    than are asked for, and so is exact for N up to 256, and close to it beyond.

    Args:
        n_components: dimension of the subspace, at most min(N, D).
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Jackson & Mudholkar 1979, "Control procedures for residuals associated with
    principal component analysis".
    """

    n_components: Count = 16

    def _fit(self, images: object) -> None:
        batches = self._stream(images)
        first = next(batches)
        exact = first.shape[1] <= EXACT
        find = self._by_covariance if exact else self._by_chunks
        mean, components = find(chain([first], batches))
        self.mean_, self.components_ = (
            mean.to(first.device),
            components.to(first.device),
        )

    def _by_covariance(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean (D,) and components (n_components, D) of all vectors at once."""
        moments = Moments()
        for x in batches:
            moments.update(x)
        self._check_size(moments.count, len(moments.mean))
        _, vectors = torch.linalg.eigh(moments.scatter)
        return moments.mean, vectors.mT.flip(0)[: self.n_components].contiguous()

    def _by_chunks(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """The same, where a covariance would be too large."""
        from sklearn.decomposition import IncrementalPCA

        size, pca = max(4 * self.n_components, 256), None
        for chunk in _regroup(batches, size):
            self._check_size(*chunk.shape)
            pca = pca or IncrementalPCA(min(size, *chunk.shape))
            pca.partial_fit(chunk.cpu().to(torch.float64).numpy())
        components = pca.components_[: self.n_components]
        return torch.from_numpy(pca.mean_), torch.from_numpy(components)

    def _check_size(self, n: int, d: int) -> None:
        if min(n, d) < self.n_components:
            raise ValueError(
                f"images: expected N and D of at least n_components = {self.n_components}, got {n}, {d}"
            )

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
    """The same rows in chunks of at least `size`; only fewer rows in all give a smaller
    one.
    """
    ready: list[Tensor] = []
    held: list[Tensor] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= size:
            if ready:
                yield torch.cat(ready)
            ready, held = held, []
    yield torch.cat(ready + held)
