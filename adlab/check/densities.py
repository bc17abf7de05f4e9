"""Checks of chapters 3 to 5: similarity, and densities with latent variables."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared

WINDOW, SIGMA = 11, 1.5  # of SSIM

# -- chapter 3


def _image_pairs(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, float]:
    data_range = float(rng.choice([1, 2, 255]))
    shape = (1 + size // 4, 1, WINDOW + size // 3, WINDOW)
    x, y = torch.tensor(rng.random((2, *shape)).round(1)) * data_range
    return x, 0.5 * (x + y), data_range


def _ssim(
    x: Tensor,
    y: Tensor,
    data_range: float,
    flat: bool = False,
    root: float = 2,
    constants: float = 1,
) -> Tensor:
    """The mean over all whole windows, each cut out and weighed by itself."""
    steps = torch.arange(WINDOW).double() - WINDOW // 2
    line = (
        torch.ones(WINDOW).double() if flat else torch.exp(-(steps**2) / 2 / SIGMA**2)
    )
    weights = (line[:, None] * line / line.sum() ** 2).flatten()
    a, b = (
        image.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1).flatten(-2) for image in (x, y)
    )
    mean_a, mean_b = a @ weights, b @ weights
    gap_a, gap_b = a - mean_a[..., None], b - mean_b[..., None]
    c1, c2 = (constants * (k * data_range) ** root for k in (0.01, 0.03))
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * (gap_a * gap_b) @ weights + c2) / (
        (gap_a**2 + gap_b**2) @ weights + c2
    )
    return (luminance * structure).mean((1, 2, 3))


@compared(
    _image_pairs,
    {
        "forgets the constants C1 and C2": partial(_ssim, constants=0),
        "forgets to square K L in the constants": partial(_ssim, root=1),
        "takes the data range for 1, whatever it is": lambda x, y, data_range: _ssim(
            x, y, 1
        ),
        "weighs all pixels of a window alike": partial(_ssim, flat=True),
    },
    samples=["x", "y"],
)
def ssim(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """Check an SSIM: of images x and y (N, 1, H, W) and their data range, the mean over all
    whole windows of 11 by 11 pixels, weighed by a Gaussian of 1.5 pixels, (N,).
    """
    return _ssim(x, y, data_range)


def _latents(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    mean, log_variance = torch.tensor(
        rng.normal(size=(2, size, 1 + size // 3)).round(1)
    )
    return mean, log_variance


@compared(
    _latents,
    {
        "takes the log-variance for the variance": lambda mean, log_variance: (
            (mean**2 + log_variance - log_variance.abs().log() - 1) / 2
        ),
        "takes the log-variance for the logarithm of the deviation": (
            lambda mean, log_variance: (
                (mean**2 + (2 * log_variance).exp() - 2 * log_variance - 1) / 2
            )
        ),
        "forgets the mean": lambda mean, log_variance: (
            (log_variance.exp() - log_variance - 1) / 2
        ),
        "does not square the mean": lambda mean, log_variance: (
            (mean + log_variance.exp() - log_variance - 1) / 2
        ),
        "is not 0 where it should be: the 1 is missing": lambda mean, log_variance: (
            (mean**2 + log_variance.exp() - log_variance) / 2
        ),
    },
    samples=["mean", "log_variance"],
)
def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Check the KL divergence of Gaussians from the standard one: of the mean and the
    log-variance (N, D) of every latent, (N, D).
    """
    deviation = (log_variance / 2).exp()
    gaussian = torch.distributions.Normal(mean, deviation)
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    return torch.distributions.kl_divergence(gaussian, standard)


def _latents_and_noise(rng: np.random.Generator, size: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(rng.normal(size=(3, size, 1 + size // 3)).round(1)))


@compared(
    _latents_and_noise,
    {
        "takes the variance for the deviation": lambda mean, log_variance, noise: (
            mean + log_variance.exp() * noise
        ),
        "takes the log-variance for the deviation": lambda mean, log_variance, noise: (
            mean + log_variance * noise
        ),
        "forgets the mean": lambda mean, log_variance, noise: (
            (log_variance / 2).exp() * noise
        ),
        "forgets the noise": lambda mean, log_variance, noise: mean,
        "adds the noise as it is": lambda mean, log_variance, noise: mean + noise,
    },
    samples=["mean", "log_variance", "noise"],
)
def sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Check the reparametrisation: of mean, log-variance and standard Gaussian noise, each
    (N, D), draws of the Gaussian, (N, D).
    """
    return mean + log_variance.exp().sqrt() * noise


# -- chapter 4


def _mixture(rng: np.random.Generator, size: int) -> tuple[Tensor, ...]:
    """Vectors, some of them far from all components, where densities are rounded to 0."""
    k, d = 1 + size // 2, 1 + size // 3
    x = rng.normal(size=(size, d)) * rng.choice([1, 100])
    roots = rng.normal(size=(k, d, d)).round(1)
    covariances = np.eye(d) + roots @ roots.swapaxes(1, 2)
    parts = x.round(1), rng.dirichlet(np.full(k, 5)), rng.normal(size=(k, d)).round(1)
    return *map(torch.tensor, parts), torch.tensor(covariances)


def _log_joint(
    x: Tensor, weights: Tensor, means: Tensor, covariances: Tensor
) -> Tensor:
    gaps = x[:, None] - means
    solved = torch.linalg.solve(covariances, gaps.permute(1, 2, 0)).permute(2, 0, 1)
    scales = torch.logdet(covariances) + x.shape[1] * math.log(2 * math.pi)
    return weights.log() - ((gaps * solved).sum(2) + scales) / 2


def _responsibilities(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    return log_joint.softmax(1), log_joint.logsumexp(1)


def _rounded_to_zero(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    joint = log_joint.exp()
    return joint / joint.sum(1, keepdim=True), joint.sum(1).log()


def _without_determinant(
    x: Tensor, weights: Tensor, means: Tensor, covariances: Tensor
) -> tuple[Tensor, Tensor]:
    log_joint = _log_joint(x, weights, means, covariances)
    return _responsibilities(log_joint + covariances.logdet() / 2)


@compared(
    _mixture,
    {
        "forgets the weights of the components": (
            lambda x, weights, means, covariances: _responsibilities(
                _log_joint(x, torch.ones_like(weights), means, covariances)
            )
        ),
        "forgets the determinants of the covariances": _without_determinant,
        "takes the likelihood for its logarithm": lambda *given: (
            _log_joint(*given).softmax(1),
            _log_joint(*given).exp().sum(1),
        ),
        "returns the joint densities: they do not sum to 1": lambda *given: (
            _log_joint(*given).exp(),
            _log_joint(*given).logsumexp(1),
        ),
        "normalises over the vectors, not over the components": lambda *given: (
            _log_joint(*given).softmax(0),
            _log_joint(*given).logsumexp(1),
        ),
        "multiplies densities that are rounded to 0: take logarithms first": (
            lambda *given: _rounded_to_zero(_log_joint(*given))
        ),
    },
    samples=["x"],
)
def e_step(
    x: Tensor, weights: Tensor, means: Tensor, covariances: Tensor
) -> tuple[Tensor, Tensor]:
    """Check the E-step of a mixture of Gaussians: of x (N, D), weights (K,), means (K, D)
    and covariances (K, D, D), the responsibilities (N, K) and log p(x), (N,).
    """
    return _responsibilities(_log_joint(x, weights, means, covariances))


def _shared_vectors(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    k, d, n = 1 + size // 2, 1 + size // 3, size + 1
    responsibilities = rng.dirichlet(np.ones(k), size=n)
    return torch.tensor(rng.normal(2, 1, (n, d)).round(1)), torch.tensor(
        responsibilities
    )


def _moments(
    x: Tensor, responsibilities: Tensor, centred: bool = True, correction: float = 0
) -> tuple[Tensor, Tensor, Tensor]:
    counts = responsibilities.sum(0)
    means = responsibilities.T @ x / counts[:, None]
    gaps = x[:, None] - means * centred
    scatters = torch.einsum("nk,nki,nkj->kij", responsibilities, gaps, gaps)
    covariances = scatters / (counts - correction)[:, None, None]
    return counts / len(x), means, covariances


def _over_all(x: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights, means, covariances = _moments(x, responsibilities)
    return weights, weights[:, None] * means, weights[:, None, None] * covariances


@compared(
    _shared_vectors,
    {
        "divides by N, not by the sum of a component's responsibilities": _over_all,
        "forgets to subtract the means in the covariances": partial(
            _moments, centred=False
        ),
        "returns counts for weights: divide by N": lambda x, responsibilities: (
            responsibilities.sum(0),
            *_moments(x, responsibilities)[1:],
        ),
        "subtracts 1 from the counts in the covariances": partial(
            _moments, correction=1
        ),
        "gives each vector to one component only": lambda x, responsibilities: _moments(
            x, (responsibilities == responsibilities.amax(1, keepdim=True)).double()
        ),
    },
    samples=["x", "responsibilities"],
)
def m_step(x: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check the M-step of a mixture of Gaussians: of x (N, D) and responsibilities (N, K),
    the weights (K,), means (K, D) and covariances (K, D, D), to which nothing is added.
    """
    return _moments(x, responsibilities)


# -- chapter 5


def _rebuilt(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    n, d = 1 + size // 2, 1 + size
    x, reconstruction = rng.normal(1, 1, (2, n, d)).round(1) + 0.05
    latent = rng.normal(size=(n, 1 + size // 4)).round(1)
    return torch.tensor(latent), torch.tensor(x), torch.tensor(reconstruction)


def _joined(latent: Tensor, distance: Tensor, cosine: Tensor) -> Tensor:
    return torch.cat([latent, distance[:, None], cosine[:, None]], 1)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).norm(dim=1)


@compared(
    _rebuilt,
    {
        "forgets to divide the distance by the length of x": (
            lambda latent, x, reconstruction: _joined(
                latent, _distance(x, reconstruction), _cosine(x, reconstruction)
            )
        ),
        "divides the distance by the length of the reconstruction": (
            lambda latent, x, reconstruction: _joined(
                latent,
                _distance(x, reconstruction) / reconstruction.norm(dim=1),
                _cosine(x, reconstruction),
            )
        ),
        "squares the relative distance": lambda latent, x, reconstruction: _joined(
            latent,
            (_distance(x, reconstruction) / x.norm(dim=1)) ** 2,
            _cosine(x, reconstruction),
        ),
        "takes one minus the cosine": lambda latent, x, reconstruction: _joined(
            latent,
            _distance(x, reconstruction) / x.norm(dim=1),
            1 - _cosine(x, reconstruction),
        ),
        "takes the scalar product for the cosine": lambda latent, x, reconstruction: (
            _joined(
                latent,
                _distance(x, reconstruction) / x.norm(dim=1),
                (x * reconstruction).sum(1),
            )
        ),
        "puts the cosine before the distance": lambda latent, x, reconstruction: (
            _joined(
                latent,
                _cosine(x, reconstruction),
                _distance(x, reconstruction) / x.norm(dim=1),
            )
        ),
    },
    samples=["latent", "x", "reconstruction"],
)
def with_reconstruction_features(
    latent: Tensor, x: Tensor, reconstruction: Tensor
) -> Tensor:
    """Check what the mixture of DAGMM sees: of latent (N, L), x (N, D) and its
    reconstruction (N, D), the latents, the distance of the two relative to the length of
    x, and their cosine, (N, L + 2).
    """
    relative = _distance(x, reconstruction) / x.norm(dim=1)
    return _joined(latent, relative, _cosine(x, reconstruction))


def _covariances(rng: np.random.Generator, size: int) -> tuple[Tensor]:
    k, d = 1 + size // 2, 1 + size // 3
    roots = rng.normal(size=(k, d, d)).round(1)
    return (torch.tensor(np.eye(d) + roots @ roots.swapaxes(1, 2)),)


@compared(
    _covariances,
    {
        "takes the trace of the inverse": lambda covariances: (
            torch.linalg.inv(covariances).diagonal(dim1=1, dim2=2).sum()
        ),
        "takes all entries of the covariances, not the diagonals": (
            lambda covariances: (1 / covariances).sum()
        ),
        "is one over the sum, not the sum of one over each": lambda covariances: (
            1 / covariances.diagonal(dim1=1, dim2=2).sum()
        ),
        "is the mean over components": lambda covariances: (
            (1 / covariances.diagonal(dim1=1, dim2=2)).sum(1).mean()
        ),
    },
    samples=["covariances"],
)
def covariance_penalty(covariances: Tensor) -> Tensor:
    """Check the penalty of DAGMM: of covariances (K, D, D), the sum of one over each entry
    of their diagonals, a number.
    """
    return sum(1 / entry for each in covariances for entry in each.diag())
