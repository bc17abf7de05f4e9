"""Detectors of random vectors, the last step of almost every method in the book.

They take feature vectors (N, D), or images (N, C, H, W), each flattened to one vector.
`Patchwise` applies any of them to the patches of an image instead, and so says where.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import fold, pad, unfold

from adlab._checks import (
    as_tensor,
    check_choice,
    check_images,
    check_number,
    check_vectors,
)
from adlab.detector import Detector, Localizer


def _check_vectors_or_images(data: object) -> Tensor:
    data = as_tensor("images", data)
    return check_images(data) if data.ndim == 4 else check_vectors(data, "images")


class VectorDetector(Detector):
    """A detector whose `_score` gets vectors: it takes (N, D) as well as images (N, C,
    H, W).
    """

    takes_vectors = True
    _check = staticmethod(_check_vectors_or_images)

    def _stream(self, images: object) -> Iterator[Tensor]:
        for batch in super()._stream(images):
            yield batch.flatten(1)


# -- Gaussian


class Moments:
    """Mean and covariance of vectors that pass by once, in float64; memory does not
    grow with their number.

    Two parts gathered apart and merged equal the whole (Chan, Golub & LeVeque 1979,
    "Updating formulae and a pairwise algorithm for computing sample variances").

    Args:
        diagonal: keep the variances only, D numbers instead of D×D.
    """

    def __init__(self, diagonal: bool = False):
        self.diagonal = diagonal
        self.count = 0
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def update(self, x: Tensor) -> Moments:
        """Take in vectors (B, …, D); the dimensions between stand for independent
        Gaussians.
        """
        x = x.to(torch.float64)
        batch = Moments(self.diagonal)
        batch.count, batch.mean = len(x), x.mean(0)
        centred = x - batch.mean
        batch.scatter = (
            (centred**2).sum(0)
            if self.diagonal
            else torch.einsum("b...i,b...j->...ij", centred, centred)
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
        self.scatter = (
            self.scatter + other.scatter + outer * (self.count * other.count / total)
        )
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
    r"""One Gaussian; the score is the Mahalanobis distance
    :math:`\sqrt{(x-\mu)^T\Sigma^{-1}(x-\mu)}`.

    Args:
        covariance_type: "full" (D×D, so D up to a few thousands) or "diagonal" (every
            entry on its own).
        reg_covar: added to the diagonal of the covariance, in squared units of the
            data; without it the covariance is singular as soon as N ≤ D.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Mahalanobis 1936, "On the generalised distance in statistics".
    """

    max_features = 8192  # D×D in float64 takes half a gigabyte here

    def __init__(
        self,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        *,
        seed: int = 0,
        device: str = "auto",
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
        if self.covariance_type == "diagonal":
            return centred / self.scale_
        return torch.linalg.solve_triangular(self.scale_, centred.T, upper=False).T

    def _score(self, batch: Tensor) -> Tensor:
        return self._whiten(batch).norm(dim=1)


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

    def __init__(
        self,
        reg_covar: float = 1e-4,
        image_score: str = "max",
        *,
        seed: int = 0,
        device: str = "auto",
    ):
        check_number("reg_covar", reg_covar, 0)
        check_choice("image_score", image_score, ("max", "mean"))
        super().__init__(seed=seed, device=device)
        self.reg_covar, self.image_score = reg_covar, image_score

    def _fit(self, images: object) -> None:
        self.gaussian_ = Gaussian("diagonal", self.reg_covar, device=self.device).fit(
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


# -- Gaussian mixture

_BLOCK = 2048  # vectors at once, so that they stay in the processor's cache


def log_density(x: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Logarithm of K Gaussian densities at N vectors.

    Args:
        x: (N, D).
        means: (K, D).
        factors: as of `cholesky_factors`: (K, D, D), or (1, D, D) that all share, or
            diagonal (K, D).

    Returns:
        (N, K).
    """
    distance = torch.cat(
        [_squared_distance(block, means, factors) for block in x.split(_BLOCK)]
    )
    scales = factors if factors.ndim == 2 else factors.diagonal(dim1=1, dim2=2)
    return -0.5 * (x.shape[1] * math.log(2 * math.pi) + distance) - scales.log().sum(1)


def _squared_distance(x: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Squared Mahalanobis distances (N, K): the squared lengths of L⁻¹(x − μ)."""
    centred = (x - means[:, None]).mT
    if factors.ndim == 2:
        whitened = centred / factors[:, :, None]
    else:
        whitened = torch.linalg.solve_triangular(factors, centred, upper=False)
    return whitened.square().sum(1).T


def e_step(
    x: Tensor, weights: Tensor, means: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    """Responsibilities γ (N, K) of the K components for the vectors (N, D), and log
    p(x), (N,).
    """
    log_joint = weights.log() + log_density(x, means, factors)
    log_likelihood = log_joint.logsumexp(1)
    return (log_joint - log_likelihood[:, None]).exp(), log_likelihood


def m_step(
    x: Tensor,
    responsibilities: Tensor,
    covariance_type: str = "full",
    reg_covar: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K,), means (K, D) and covariances that suit the responsibilities (N, K)
    best.

    Covariances are (K, D, D) where "full", (1, D, D) where "tied", the variances (K, D)
    where "diagonal".
    """
    # a component that nobody belongs to is no 0/0
    counts = responsibilities.sum(0).clamp_min(1e-15)
    means = responsibilities.T @ x / counts[:, None]
    diagonal = covariance_type == "diagonal"
    blocks = zip(x.split(_BLOCK), responsibilities.split(_BLOCK), strict=True)
    scatter = sum(_scatter(*block, means, diagonal) for block in blocks)
    if covariance_type == "tied":
        covariances = scatter.sum(0, keepdim=True) / len(x)
    else:
        covariances = scatter / counts.view(-1, *[1] * (scatter.ndim - 1))
    ridge = reg_covar * (1 if diagonal else torch.eye(x.shape[1]).to(x))
    return counts / len(x), means, covariances + ridge


def _scatter(
    x: Tensor, responsibilities: Tensor, means: Tensor, diagonal: bool
) -> Tensor:
    """Σ γ (x − μ)(x − μ)ᵀ of each component, (K, D, D); where diagonal, its diagonals
    (K, D).
    """
    centred = x - means[:, None]
    weighted = centred * responsibilities.T[:, :, None]
    return (weighted * centred).sum(1) if diagonal else weighted.mT @ centred


def cholesky_factors(covariances: Tensor, reg_covar: float = 0) -> Tensor:
    """The lower triangular L of covariances Σ = LLᵀ (K, D, D); of variances, the
    standard deviations (K, D).

    Args:
        covariances: as `m_step` gives them.
        reg_covar: what was added to their diagonal. If 0, they must be regular by more
            than rounding.

    Raises:
        ValueError: a singular covariance; the message names its component.
    """
    if covariances.ndim == 2:
        factors, bad = covariances.clamp_min(0).sqrt(), (covariances <= 0).any(1)
    else:
        factors, info = torch.linalg.cholesky_ex(covariances)
        pivots, variances = (
            matrix.diagonal(dim1=1, dim2=2) for matrix in (factors, covariances)
        )
        bad = (info > 0) | (
            pivots**2 < (1e-10 if reg_covar == 0 else 0) * variances
        ).any(1)
    if bool(bad.any()):
        raise ValueError(
            f"images: expected vectors that vary independently in every component, got a singular covariance "
            f"in component {int(bad.nonzero()[0])}; raise reg_covar above {reg_covar:g} or use fewer of them"
        )
    return factors


class GaussianMixture(VectorDetector):
    r"""A mixture of K Gaussians, fitted by expectation maximisation; the score is
    :math:`-\log p(x)`.

    EM climbs to a local optimum: it starts from k-means, and the best of `n_init`
    starts is kept. All training vectors are held in memory, in float64.

    Args:
        n_components: K, the number of Gaussians.
        covariance_type: "full" (one for each component), "tied" (one for all) or
            "diagonal".
        reg_covar: added to the diagonals of the covariances, in squared units of the
            data; it keeps a component from collapsing onto a single vector, where the
            likelihood is unbounded.
        tol: EM stops when the mean log-likelihood changes by less.
        max_iter: at most so many EM steps.
        n_init: number of starts.
        seed: of the starts.
        device: "auto", "cpu", "cuda", …

    After fitting, `weights_` (K,), `means_` (K, D), `covariances_` and their Cholesky
    factors `scale_` (as of `m_step`) are the mixture; `history_` is the mean
    log-likelihood before each EM step, and `converged_` says whether it settled.

    Source: Dempster, Laird & Rubin 1977, "Maximum likelihood from incomplete data via
    the EM algorithm".
    """

    def __init__(
        self,
        n_components: int = 1,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        *,
        seed: int = 0,
        device: str = "auto",
    ):
        check_number("n_components", n_components, 1, whole=True)
        check_choice("covariance_type", covariance_type, ("full", "tied", "diagonal"))
        check_number("reg_covar", reg_covar, 0)
        check_number("tol", tol, 0)
        check_number("max_iter", max_iter, 1, whole=True)
        check_number("n_init", n_init, 1, whole=True)
        super().__init__(seed=seed, device=device)
        self.n_components, self.covariance_type, self.reg_covar = (
            n_components,
            covariance_type,
            reg_covar,
        )
        self.tol, self.max_iter, self.n_init = tol, max_iter, n_init

    def _fit(self, images: object) -> None:
        x = torch.cat([batch.to(torch.float64) for batch in self._stream(images)])
        if len(x) < self.n_components:
            raise ValueError(
                f"images: expected at least n_components = {self.n_components} vectors, got {len(x)}"
            )
        if self.covariance_type != "diagonal" and x.shape[1] > Gaussian.max_features:
            raise ValueError(
                f"images: expected at most {Gaussian.max_features} features for covariances that are not "
                f'diagonal, got {x.shape[1]}; use covariance_type="diagonal" or Patchwise'
            )
        runs = [self._climb(x, self._start(x)) for _ in range(self.n_init)]
        vars(self).update(max(runs, key=lambda run: run["history_"][-1]))

    def _start(self, x: Tensor) -> Tensor:
        """Responsibilities (N, K): each vector belongs to its cluster of k-means."""
        from sklearn.cluster import KMeans

        seed = int(torch.randint(2**31, ()))
        labels = KMeans(self.n_components, n_init=1, random_state=seed).fit_predict(
            x.cpu().numpy()
        )
        return torch.eye(self.n_components).to(x)[
            torch.from_numpy(labels).to(x.device, torch.int64)
        ]

    def _climb(self, x: Tensor, responsibilities: Tensor) -> dict[str, object]:
        """EM from the given responsibilities: what is learned, by name."""
        mixture, history, converged = self._mixture(x, responsibilities), [], False
        while not converged and len(history) < self.max_iter:
            responsibilities, log_likelihood = e_step(x, *mixture[:3])
            mixture = self._mixture(x, responsibilities)
            history.append(float(log_likelihood.mean()))
            converged = len(history) > 1 and abs(history[-1] - history[-2]) < self.tol
        learned = dict(
            zip(("weights_", "means_", "scale_", "covariances_"), mixture, strict=True)
        )
        return learned | {"history_": history, "converged_": converged}

    def _mixture(
        self, x: Tensor, responsibilities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, means, Cholesky factors and covariances of one M step."""
        weights, means, covariances = m_step(
            x, responsibilities, self.covariance_type, self.reg_covar
        )
        return (
            weights,
            means,
            cholesky_factors(covariances, self.reg_covar),
            covariances,
        )

    def _score(self, batch: Tensor) -> Tensor:
        _, log_likelihood = e_step(
            batch.to(torch.float64), self.weights_, self.means_, self.scale_
        )
        return -log_likelihood


# -- neighbours and subspaces


class KNN(VectorDetector):
    """The score is the mean Euclidean distance to the k nearest training vectors.

    It remembers all training vectors: memory grows with N, and so does the time to
    score.

    Args:
        k: number of neighbours, at most N.
        seed: unused, here as in every detector.
        device: unused: scikit-learn searches on the CPU.

    Source: Ramaswamy, Rastogi & Shim 2000, "Efficient algorithms for mining outliers
    from large data sets".
    """

    def __init__(self, k: int = 1, *, seed: int = 0, device: str = "auto"):
        check_number("k", k, 1, whole=True)
        super().__init__(seed=seed, device=device)
        self.k = k

    def _fit(self, images: object) -> None:
        self.vectors_ = torch.cat([x.cpu() for x in self._stream(images)])
        if len(self.vectors_) < self.k:
            raise ValueError(
                f"images: expected at least k = {self.k}, got {len(self.vectors_)}"
            )

    def _score(self, batch: Tensor) -> Tensor:
        from sklearn.neighbors import NearestNeighbors

        index = NearestNeighbors(n_neighbors=self.k, algorithm="brute").fit(
            self.vectors_.cpu().numpy()
        )
        distances, _ = index.kneighbors(batch.cpu().numpy())
        return torch.from_numpy(distances).mean(1)


class PCAResidual(VectorDetector, Localizer):
    """The score is the distance to the subspace of the first principal components of
    normal data.

    Images give a map as well: the squared residual of every pixel, summed over its
    channels. Memory does not grow with N: scikit-learn's incremental PCA, which carries
    far more components along than are asked for, and so is exact for N or D up to 256,
    and close to it beyond.

    Args:
        n_components: dimension of the subspace, at most min(N, D).
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Jackson & Mudholkar 1979, "Control procedures for residuals associated with
    principal component analysis".
    """

    def __init__(self, n_components: int = 16, *, seed: int = 0, device: str = "auto"):
        check_number("n_components", n_components, 1, whole=True)
        super().__init__(seed=seed, device=device)
        self.n_components = n_components

    def _fit(self, images: object) -> None:
        from sklearn.decomposition import IncrementalPCA

        size, pca = max(4 * self.n_components, 256), None
        for chunk in _regroup(self._stream(images), size):
            if min(chunk.shape) < self.n_components:
                n, d = chunk.shape
                raise ValueError(
                    f"images: expected N and D of at least n_components = {self.n_components}, got {n}, {d}"
                )
            pca = pca or IncrementalPCA(min(size, *chunk.shape))
            pca.partial_fit(chunk.cpu().to(torch.float64).numpy())
        device = chunk.device
        self.mean_ = torch.from_numpy(pca.mean_).to(device)
        self.components_ = torch.from_numpy(pca.components_[: self.n_components]).to(
            device
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


# -- patches


def patch_statistics(patches: Tensor) -> Tensor:
    """Three numbers a channel: mean, log of the standard deviation, log of the mean
    squared gradient.

    Args:
        patches: (M, C, p, p) with p at least 2.

    Returns:
        float (M, 3C).
    """
    floor = 1e-6  # of a grey level squared: a flat patch has no variance, and zero no logarithm
    down, right = patches.diff(dim=2), patches.diff(dim=3)
    gradient = (down**2).mean((2, 3)) + (right**2).mean((2, 3))
    variance = patches.var((2, 3), correction=0)
    return torch.cat(
        [patches.mean((2, 3)), (variance + floor).log() / 2, (gradient + floor).log()],
        1,
    )


_FEATURES = {
    "pixels": lambda patches: patches.flatten(1),
    "statistics": patch_statistics,
}


class Patchwise(Localizer):
    """Any detector of vectors, applied to the patches of an image: it says where.

    All patches of all training images are pooled, as if the texture were stationary. A
    pixel's score is the mean score of the patches that cover it. Images of any size at
    least that of a patch will do.

    Args:
        detector: what scores the vector of a patch: any `VectorDetector`, or a DAGMM.
        patch_size: side of a patch, in pixels.
        stride: step from patch to patch, at most patch_size.
        features: the vector of a patch: its C · patch_size² "pixels", or its 3C
            `patch_statistics`.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    any_size = True
    batch_size = 16

    def __init__(
        self,
        detector: Detector,
        patch_size: int = 8,
        stride: int = 4,
        features: str = "pixels",
        image_score: str = "max",
        *,
        seed: int = 0,
        device: str = "auto",
    ):
        if not (isinstance(detector, Detector) and detector.takes_vectors):
            raise TypeError(
                f"detector: expected one of vectors, as Gaussian(), got {type(detector).__name__}"
            )
        check_number("patch_size", patch_size, 2, whole=True)
        check_choice("features", features, _FEATURES)
        check_number("stride", stride, 1, patch_size, whole=True)
        check_choice("image_score", image_score, ("max", "mean"))
        super().__init__(seed=seed, device=device)
        self.detector, self.patch_size, self.stride = detector, patch_size, stride
        self.features, self.image_score = features, image_score

    def _fit(self, images: object) -> None:
        detector = copy.copy(self.detector)
        detector.device = self.device
        self.detector_ = detector.fit(
            self._patches(batch) for batch in self._stream(images)
        )

    def _stream(self, images: object) -> Iterator[Tensor]:
        for batch in super()._stream(images):
            if min(batch.shape[2:]) < self.patch_size:
                size = tuple(batch.shape[2:])
                raise ValueError(
                    f"images: expected H, W of at least patch_size = {self.patch_size}, got {size}"
                )
            yield batch

    def _patches(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) to the vectors of all patches, (B · patches, D)."""
        pixels = (
            unfold(batch, self.patch_size, stride=self.stride)
            .transpose(1, 2)
            .flatten(0, 1)
        )
        shape = (batch.shape[1], self.patch_size, self.patch_size)
        return _FEATURES[self.features](pixels.unflatten(1, shape))

    def _map(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        padded = self._pad(batch)
        scores = self.detector_._score(self._patches(padded)).to(batch)
        scores = scores.view(len(batch), 1, -1).expand(-1, self.patch_size**2, -1)
        size = {
            "output_size": padded.shape[2:],
            "kernel_size": self.patch_size,
            "stride": self.stride,
        }
        total, count = fold(scores, **size), fold(torch.ones_like(scores), **size)
        return (total / count)[:, 0, :height, :width]

    def _pad(self, batch: Tensor) -> Tensor:
        """Mirror the lower and right border until whole steps of the stride reach it."""
        pads = [
            math.ceil((n - self.patch_size) / self.stride) * self.stride
            + self.patch_size
            - n
            for n in batch.shape[2:]
        ]
        return pad(batch, (0, pads[1], 0, pads[0]), mode="reflect")
