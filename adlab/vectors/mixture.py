"""Mixtures of Gaussians, fitted by expectation maximisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adlab._parameters import (
    Count,
    NonNegative,
)
from adlab.detector import Detector
from adlab.training import seeded
from adlab.vectors.base import VectorDetector
from adlab.vectors.gaussian import Gaussian, inverse_factors
from adlab.vectors.neighbours import k_means

_BLOCK = 2**16  # numbers at once, so that they stay in the processor's cache


def log_density(
    x: Tensor, means: Tensor, factors: Tensor, inverses: Tensor | None = None
) -> Tensor:
    """Logarithm of K Gaussian densities at N vectors.

    Args:
        x: (N, D).
        means: (K, D).
        factors: as of `cholesky_factors`: (K, D, D), or (1, D, D) that all share, or
            diagonal (K, D).
        inverses: as of `known_inverses`; None where they are still to be computed.

    Returns:
        (N, K).
    """
    inverses = _invert(factors) if inverses is None else inverses
    traced = type(x) is not Tensor  # and a trace must not count vectors
    distance = torch.cat(
        [
            _squared_distance(block, means, inverses)
            for block in ([x] if traced else _blocks(x))
        ]
    )
    scales = factors if factors.ndim == 2 else factors.diagonal(dim1=1, dim2=2)
    return -0.5 * (x.shape[1] * math.log(2 * math.pi) + distance) - scales.log().sum(1)


def _blocks(x: Tensor, n_numbers: int | None = None) -> tuple[Tensor, ...]:
    """Vectors, or what belongs to vectors of D numbers, in blocks: larger ones where D
    is, as a D × D matrix is read for each.
    """
    d = n_numbers or x.shape[1]
    return x.split(max(1, _BLOCK // d, min(d, 4 * _BLOCK // d)))


def _invert(factors: Tensor) -> Tensor:
    return 1 / factors if factors.ndim == 2 else inverse_factors(factors)


def _squared_distance(x: Tensor, means: Tensor, inverses: Tensor) -> Tensor:
    """Squared Mahalanobis distances (N, K): the squared lengths of L⁻¹(x − μ), by
    products of matrices. A centre is taken away first, as large numbers cancel.
    """
    centre = means.mean(0)
    x, means = x - centre, means - centre
    if inverses.ndim == 2:
        precisions = inverses.square()
        lengths = x.square() @ precisions.T + (means.square() * precisions).sum(1)
        return (lengths - 2 * x @ (means * precisions).T).clamp_min(0)
    if len(inverses) == 1:
        x, means = x @ inverses[0], means @ inverses[0]
        gaps = (x - mean for mean in means)
    else:
        pairs = zip(means, inverses, strict=True)
        gaps = (x @ inverse - mean @ inverse for mean, inverse in pairs)
    return torch.stack([gap.square().sum(1) for gap in gaps], 1)


def e_step(
    x: Tensor,
    weights: Tensor,
    means: Tensor,
    factors: Tensor,
    inverses: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Responsibilities γ (N, K) of the K components for the vectors (N, D), and log
    p(x), (N,). Factors and inverses are as for `log_density`.
    """
    log_joint = weights.log() + log_density(x, means, factors, inverses)
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
    where "diag".
    """
    # a component that nobody belongs to is no 0/0
    counts = responsibilities.sum(0).clamp_min(1e-15)
    means = responsibilities.T @ x / counts[:, None]
    covariances = _COVARIANCES[covariance_type](x, responsibilities, counts, means)
    diagonal = covariance_type == "diag"
    ridge = reg_covar * (1 if diagonal else torch.eye(x.shape[1]).to(x))
    return counts / len(x), means, covariances + ridge


def _full(x: Tensor, responsibilities: Tensor, counts: Tensor, means: Tensor) -> Tensor:
    """Σ γ (x − μ)(x − μ)ᵀ / Σ γ of each component, (K, D, D)."""
    pairs = zip(_blocks(x), _blocks(responsibilities, x.shape[1]), strict=True)
    return sum(_scatters(*pair, means) for pair in pairs) / counts[:, None, None]


def _scatters(x: Tensor, responsibilities: Tensor, means: Tensor) -> Tensor:
    centred = [x - mean for mean in means]
    weighted = zip(centred, responsibilities.T, strict=True)
    return torch.stack([(gap * gamma[:, None]).T @ gap for gap, gamma in weighted])


def _tied(x: Tensor, responsibilities: Tensor, counts: Tensor, means: Tensor) -> Tensor:
    """The covariance of all, (1, D, D), less that of the means of their components."""
    centre = x.mean(0)
    x, means = x - centre, means - centre
    return (x.T @ x - (counts[:, None] * means).T @ means)[None] / len(x)


def _diagonal(
    x: Tensor, responsibilities: Tensor, counts: Tensor, means: Tensor
) -> Tensor:
    """The variances (K, D): mean squares less squared means; what is but their rounding
    is zero.
    """
    centre = x.mean(0)
    pairs = zip(_blocks(x), _blocks(responsibilities, x.shape[1]), strict=True)
    squares = sum(gamma.T @ (part - centre).square() for part, gamma in pairs)
    squares = squares / counts[:, None]
    variances = squares - (means - centre).square()
    return torch.where(variances > 1e-13 * squares, variances, 0)


_COVARIANCES = {"full": _full, "tied": _tied, "diag": _diagonal}


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


def known_inverses(detector: Detector) -> Tensor | None:
    """What whitens vectors, the inverses L⁻ᵀ of a detector's factors `scale_`, if it is
    that of a module, whose trace cannot compute them.
    """
    if detector._constants is None:
        return None
    return detector._constant("inverses", lambda: _invert(detector.scale_))


@dataclass(eq=False, repr=False)
class GaussianMixture(VectorDetector):
    r"""A mixture of K Gaussians, fitted by expectation maximisation; the score is
    :math:`-\log p(x)`.

    EM climbs to a local optimum: it starts from k-means, and the best of `n_init`
    starts is kept. All training vectors are held in memory, in float64.

    Args:
        n_components: K, the number of Gaussians.
        covariance_type: "full" (one for each component), "tied" (one for all) or
            "diag".
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
    covariance_type: Literal["full", "tied", "diag"] = "full"
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
        if self.covariance_type != "diag" and x.shape[1] > Gaussian.max_features:
            raise ValueError(
                f"images: expected at most {Gaussian.max_features} features for covariances that are not "
                f'diagonal, got {x.shape[1]}; use covariance_type="diag" or Patchwise'
            )
        with seeded(self.seed):  # once more: to read a DataLoader draws random numbers
            runs = [self._climb(x, self._start(x)) for _ in range(self.n_init)]
        vars(self).update(max(runs, key=lambda run: run["history_"][-1]))

    def _start(self, x: Tensor) -> Tensor:
        """Responsibilities (N, K): each vector belongs to its cluster of k-means."""
        seed = int(torch.randint(2**31, ()))
        labels = torch.from_numpy(k_means(x, self.n_components, seed).labels_)
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
            batch.to(torch.float64),
            self.weights_,
            self.means_,
            self.scale_,
            known_inverses(self),
        )
        return -log_likelihood
