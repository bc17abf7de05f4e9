"""Detectors of random vectors, the last step of almost every method in the book.

They take feature vectors (N, D), or images (N, C, H, W), each flattened to one vector.
`Patchwise` applies any of them to the patches of an image instead, and so says where.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import fold, pad, unfold

from adlab._checks import (
    as_tensor,
    check_images,
    check_number,
    check_vectors,
)
from adlab._methods import method
from adlab._parameters import (
    Count,
    Fraction,
    ImageScore,
    NonNegative,
    Positive,
    TwoOrMore,
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


def check_vector_detector(name: str, detector: object) -> None:
    """Refuse an argument that is no detector of vectors."""
    if not (isinstance(detector, Detector) and detector.takes_vectors):
        raise TypeError(
            f"{name}: expected a detector of vectors, as Gaussian(), got {type(detector).__name__}"
        )


OfVectors = Annotated[Detector, check_vector_detector]


def fit_inside(outer: Detector, vectors: Iterable[Tensor]) -> Detector:
    """A copy of `outer.detector`, fitted to vectors on the device of `outer`."""
    detector = copy.copy(outer.detector)
    detector.device = outer.device
    return detector.fit(vectors)


# -- Gaussian


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
        batch = Moments(self.diagonal, self.last)
        batch.count, batch.mean = len(x), x.mean(0)
        centred = x - batch.mean
        batch.scatter = (
            (centred**2).sum(0)
            if self.diagonal
            else torch.einsum("b...i,b...j->...ij", self._rows(centred), centred)
        )
        return self.merge(batch)

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
        if self.count < 2:
            raise ValueError(
                f"images: expected at least 2 vectors to estimate a covariance, got {self.count}"
            )
        return self.scatter / (self.count - 1)


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


def _repeatable(images: object) -> object:
    """Data to run through twice: what comes but once, as a generator, is held in
    memory.
    """
    return list(images) if isinstance(images, Iterator) else images


@dataclass(eq=False, repr=False)
class Gaussian(VectorDetector):
    r"""One Gaussian; the score is the Mahalanobis distance
    :math:`\sqrt{(x-\mu)^T\Sigma^{-1}(x-\mu)}`.

    Args:
        covariance_type: "full" (D×D, so D up to a few thousands), "diagonal" (every
            entry on its own), or "ledoit-wolf" (full, shrunk as `ledoit_wolf` says; it
            runs through the images twice, and holds them if they come but once).
        reg_covar: added to the diagonal of the covariance, in squared units of the
            data; without it the full covariance is singular as soon as N ≤ D.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Mahalanobis 1936, "On the generalised distance in statistics".
    """

    max_features = 8192  # D×D in float64 takes half a gigabyte here

    covariance_type: Literal["full", "diagonal", "ledoit-wolf"] = "full"
    reg_covar: NonNegative = 1e-6

    def _fit(self, images: object) -> None:
        shrunk = self.covariance_type == "ledoit-wolf"
        images = _repeatable(images) if shrunk else images
        moments = Moments(diagonal=self.covariance_type == "diagonal")
        for x in self._stream(images):
            self._check_size(x.shape[1])
            moments.update(x)
        self.mean_ = moments.mean
        covariance = moments.covariance()
        if shrunk:
            covariance = ledoit_wolf(self._stream(images), moments)
        self.scale_ = self._factor(covariance)

    def _check_size(self, n_features: int) -> None:
        if self.covariance_type != "diagonal" and n_features > self.max_features:
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


@dataclass(eq=False, repr=False)
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

    n_components: Count = 1
    covariance_type: Literal["full", "tied", "diagonal"] = "full"
    reg_covar: NonNegative = 1e-6
    tol: NonNegative = 1e-3
    max_iter: Count = 100
    n_init: Count = 1

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
        seed = int(torch.randint(2**31, ()))
        labels = torch.from_numpy(_k_means(x, self.n_components, seed).labels_)
        return torch.eye(self.n_components).to(x)[labels.to(x.device, torch.int64)]

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


def _k_means(x: Tensor, n_clusters: int, seed: int) -> object:
    """scikit-learn's k-means, fitted to vectors (N, D) from one start."""
    from sklearn import cluster

    return cluster.KMeans(n_clusters, n_init=1, random_state=seed).fit(x.cpu().numpy())


@method("knn", "nearest neighbour, pixels", chapter=1)
@dataclass(eq=False, repr=False)
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

    k: Count = 1

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


@dataclass(eq=False, repr=False)
class KMeans(VectorDetector):
    """The score is the Euclidean distance to the nearest of K cluster centres.

    A summary of `KNN`: it scores against K centres instead of N vectors. The training
    vectors are held in memory while it fits, and forgotten then.

    Args:
        n_clusters: K, at most N.
        seed: of the start.
        device: "auto", "cpu", "cuda", …; scikit-learn clusters on the CPU.

    Source: Lloyd 1982, "Least squares quantization in PCM"; the start of Arthur &
    Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
    """

    n_clusters: Count = 8

    def _fit(self, images: object) -> None:
        x = torch.cat([batch.to(torch.float64) for batch in self._stream(images)])
        if len(x) < self.n_clusters:
            raise ValueError(
                f"images: expected at least n_clusters = {self.n_clusters}, got {len(x)}"
            )
        model = _k_means(x, self.n_clusters, self.seed % 2**32)
        self.centres_ = torch.from_numpy(model.cluster_centers_).to(x)

    def _score(self, batch: Tensor) -> Tensor:
        exact = "donot_use_mm_for_euclid_dist"  # small distances keep their digits
        distances = torch.cdist(batch.to(self.centres_), self.centres_, 2, exact)
        return distances.amin(1)


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
        images, moments = _repeatable(images), Moments()
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

    n_components: Count = 16

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


# -- the smallest ball


@method("oc-svm", "kernel SVDD", chapter=11)
@dataclass(eq=False, repr=False)
class KernelSVDD(VectorDetector):
    r"""Support vector data description: the smallest ball around most of the data, in
    the feature space of the Gaussian kernel :math:`k(x, y) = \exp(-\gamma\|x - y\|^2)`.

    The centre is :math:`a = \sum_i \alpha_i \phi(x_i)` over the support vectors. The
    score is the squared distance to it less the squared radius, so it is positive
    outside. For this kernel the ball is that of the one-class SVM, which scikit-learn
    solves. All training vectors are held in memory, and time grows with N².

    Args:
        nu: ν in (0, 1): at most this share of the training vectors lies outside, and at
            least this share are support vectors.
        gamma: γ, in inverse squared units of the data; "scale" is 1 / (D · variance).
            Towards 0 the ball becomes one in the space of the data itself; where γ is
            large, every vector gets a ball of its own.
        seed: unused, here as in every detector.
        device: unused: scikit-learn solves on the CPU.

    After fitting, `support_` (S, D) are the support vectors, `weights_` (S,) their α
    (they sum to 1), `radius_` is R, and `gamma_` the number γ.

    Source: Tax & Duin 2004, "Support vector data description"; Schölkopf et al. 2001,
    "Estimating the support of a high-dimensional distribution".
    """

    nu: Fraction = 0.1
    gamma: Positive | Literal["scale"] = "scale"

    def _fit(self, images: object) -> None:
        from sklearn.svm import OneClassSVM

        x = torch.cat([batch.double().cpu() for batch in self._stream(images)])
        self.gamma_ = self._gamma(x)
        svm = OneClassSVM(nu=self.nu, gamma=self.gamma_, tol=1e-8)
        svm.random_state = self.seed % 2**32  # else it draws from NumPy's global state
        svm.fit(x.numpy())
        total = self.nu * len(x)  # what its coefficients sum to
        self.support_ = x[torch.from_numpy(svm.support_).long()]
        self.weights_ = torch.from_numpy(svm.dual_coef_[0]) / total
        similarity = self._similarity(self.support_)
        self.norm_ = float(self.weights_ @ similarity)  # ‖a‖²
        edge = float(svm.offset_[0]) / total  # ⟨φ(x), a⟩ on the sphere
        self.radius_ = math.sqrt(max(1 + self.norm_ - 2 * edge, 0))

    def _gamma(self, x: Tensor) -> float:
        if self.gamma != "scale":
            return float(self.gamma)
        variance = float(x.var(correction=0))
        return 1 / (x.shape[1] * variance) if variance > 0 else 1.0

    def _similarity(self, x: Tensor) -> Tensor:
        """⟨φ(x), a⟩ = Σ α k(x_i, x), (N,)."""
        gaps = torch.cdist(
            x, self.support_, compute_mode="donot_use_mm_for_euclid_dist"
        )
        return torch.exp(-self.gamma_ * gaps.square()) @ self.weights_

    def _squared_distance(self, x: Tensor) -> Tensor:
        """‖φ(x) − a‖², where k(x, x) = 1."""
        x = x.to(self.support_)
        return (1 - 2 * self._similarity(x) + self.norm_).clamp_min(0)

    def distance(self, images: object) -> Tensor:
        """Distance to the centre in feature space: float32 (N,), at most √2.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda x: self._squared_distance(x).sqrt(), images)

    def _score(self, batch: Tensor) -> Tensor:
        return self._squared_distance(batch) - self.radius_**2


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


@dataclass(eq=False, repr=False)
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

    detector: OfVectors
    patch_size: TwoOrMore = 8
    stride: Count = 4
    features: Literal["pixels", "statistics"] = "pixels"
    image_score: ImageScore = "max"
    batch_size: Count = field(default=16, kw_only=True)

    def _check_arguments(self) -> None:
        check_number("stride", self.stride, 1, self.patch_size, whole=True)

    def _fit(self, images: object) -> None:
        self.detector_ = fit_inside(
            self, (self._patches(batch) for batch in self._stream(images))
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
