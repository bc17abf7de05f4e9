"""Checks of chapter 16: attention, and the density of a mixture."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared


def _tokens(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    n, m, d, e = 1 + size // 2, 1 + (1 + size) // 2, 1 + size // 3, 1 + size // 4
    scale = rng.choice([1, 1, 1, 30])  # where e to the power is infinite
    shapes = ((n, d), (m, d), (m, e))
    drawn = [torch.tensor(rng.normal(size=shape).round(1)) for shape in shapes]
    return scale * drawn[0], scale * drawn[1], drawn[2]


def _attention(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float = 0.5, over: int = 1
) -> Tensor:
    alike = queries @ keys.T / queries.shape[1] ** scale
    return alike.softmax(over) @ values


def _overflowing(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    powers = (queries @ keys.T / math.sqrt(queries.shape[1])).exp()
    return powers / powers.sum(1, keepdim=True) @ values


@compared(
    _tokens,
    {
        "forgets to divide by the root of d": partial(_attention, scale=0),
        "divides by d, not by its root": partial(_attention, scale=1),
        "takes the softmax over the queries, not over the keys": partial(
            _attention, over=0
        ),
        "takes no softmax": lambda queries, keys, values: (
            queries @ keys.T / math.sqrt(queries.shape[1]) @ values
        ),
        "returns the weights, not the means of the values": (
            lambda queries, keys, values: (
                queries @ keys.T / math.sqrt(queries.shape[1])
            ).softmax(1)
        ),
        "computes powers of e that are infinite: use softmax": _overflowing,
    },
)
def attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Check attention: of queries (N, d), keys (M, d) and values (M, e), for each query the
    mean of the values, weighted by the softmax of its products with the keys, divided by
    √d, (N, e).
    """
    rows = []
    for query in queries.tolist():
        alike = [
            math.fsum(a * b for a, b in zip(query, key, strict=True))
            / math.sqrt(len(query))
            for key in keys.tolist()
        ]
        powers = [math.exp(each - max(alike)) for each in alike]
        shares = torch.tensor(powers, dtype=torch.float64) / math.fsum(powers)
        rows.append(shares @ values)
    return torch.stack(rows)


def _mixture(rng: np.random.Generator, size: int) -> tuple[Tensor, ...]:
    """Tokens, some of them far from all components, where densities are rounded to 0."""
    k, d = 1 + size // 2, 1 + size // 3
    z = (rng.normal(size=(size, d)) * rng.choice([1, 1, 100])).round(1)
    weights, means = rng.dirichlet(np.full(k, 5)), rng.normal(size=(k, d)).round(1)
    deviations = rng.uniform(0.5, 2, (k, d)).round(1)
    return tuple(map(torch.tensor, (z, weights, means, deviations)))


def _log_joint(
    z: Tensor,
    weights: Tensor,
    means: Tensor,
    deviations: Tensor,
    constants: int | None = None,
) -> Tensor:
    """Log w_k + log N_k, (N, K); so many times half log 2π, D times by default."""
    gaps = ((z[:, None] - means) / deviations).square().sum(2)
    times = z.shape[1] if constants is None else constants
    scales = deviations.log().sum(1) + times * math.log(2 * math.pi) / 2
    return weights.log() - gaps / 2 - scales


def _mean_of_logarithms(
    z: Tensor, weights: Tensor, means: Tensor, deviations: Tensor
) -> Tensor:
    log_joint = _log_joint(z, weights, means, deviations)
    return ((log_joint - weights.log()) * weights).sum(1)


@compared(
    _mixture,
    {
        "takes the mean of the logarithms, not the logarithm of the sum": (
            _mean_of_logarithms
        ),
        "counts log 2 pi once, not once a dimension": lambda *given: _log_joint(
            *given, constants=1
        ).logsumexp(1),
        "forgets the weights": lambda z, weights, means, deviations: _log_joint(
            z, torch.ones_like(weights), means, deviations
        ).logsumexp(1),
        "takes the deviations for variances": lambda z, weights, means, deviations: (
            _log_joint(z, weights, means, deviations.sqrt()).logsumexp(1)
        ),
        "returns -log p(z): minus is too much": lambda *given: (
            -_log_joint(*given).logsumexp(1)
        ),
        "adds densities that are rounded to 0: use logsumexp": lambda *given: (
            _log_joint(*given).exp().sum(1).log()
        ),
    },
    samples=["z"],
)
def mixture_log_density(
    z: Tensor, weights: Tensor, means: Tensor, deviations: Tensor
) -> Tensor:
    """Check the log-density of a mixture of Gaussians with diagonal covariances: of z
    (N, D), weights (K,), means and standard deviations (K, D), log p(z), (N,).
    """
    parts = [
        (torch.distributions.Normal(mean, deviation).log_prob(z).sum(1) + weight.log())
        for weight, mean, deviation in zip(weights, means, deviations, strict=True)
    ]
    return torch.logsumexp(torch.stack(parts), 0)
