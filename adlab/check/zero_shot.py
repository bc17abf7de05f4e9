"""Checks of chapter 18: the contrastive loss, the probability by two texts, and from
windows to places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared


def _vectors(rng: np.random.Generator, *shape: int) -> Tensor:
    """Unit vectors, (…, D)."""
    drawn = rng.normal(size=shape)
    return torch.tensor(drawn / np.linalg.norm(drawn, axis=-1, keepdims=True))


def _pairs(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, float]:
    shape = 1 + size, 2 + size // 2
    return _vectors(rng, *shape), _vectors(rng, *shape), float(rng.integers(2, 9))


def _one_way(images: Tensor, texts: Tensor, scale: float) -> Tensor:
    """The cross-entropy of the own text among all, a mean over the images."""
    logits = scale * images @ texts.T
    return (logits.logsumexp(1) - logits.diagonal()).mean()


@compared(
    _pairs,
    {
        "asks only which text belongs to an image, not which image to a text": _one_way,
        "asks only which image belongs to a text, not which text to an image": (
            lambda images, texts, scale: _one_way(texts, images, scale)
        ),
        "forgets the scale": lambda images, texts, scale: (
            (_one_way(images, texts, 1) + _one_way(texts, images, 1)) / 2
        ),
        "divides by the scale": lambda images, texts, scale: (
            (_one_way(images, texts, 1 / scale) + _one_way(texts, images, 1 / scale))
            / 2
        ),
        "adds the two directions, without the half": lambda images, texts, scale: (
            _one_way(images, texts, scale) + _one_way(texts, images, scale)
        ),
        "is a sum over the pairs, not a mean": lambda images, texts, scale: (
            len(images)
            * (_one_way(images, texts, scale) + _one_way(texts, images, scale))
            / 2
        ),
    },
)
def contrastive_loss(images: Tensor, texts: Tensor, scale: float) -> float:
    """Check the loss of a joint embedding: of unit vectors of images and of texts, (N, D)
    each, whose rows belong together, and a factor for the cosines, the mean of two
    cross-entropies: of the own text among all texts, and of the own image among all.
    """
    cosines = [[math.fsum(z * t) for t in texts.numpy()] for z in images.numpy()]
    total, n = 0.0, len(cosines)
    for i in range(n):
        for others in (cosines[i], [row[i] for row in cosines]):
            powers = [math.exp(scale * (c - cosines[i][i])) for c in others]
            total += math.log(math.fsum(powers)) / (2 * n)
    return total


def _texts(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor, float]:
    d = 2 + size // 2
    two = _vectors(rng, 2, d)
    return _vectors(rng, size, d), two[0], two[1], float(rng.integers(2, 9))


def _probability(
    vectors: Tensor, normal: Tensor, anomalous: Tensor, scale: float
) -> Tensor:
    return (scale * vectors @ (anomalous - normal)).sigmoid()


@compared(
    _texts,
    {
        "gives the probability of the normal text": lambda v, n, a, scale: _probability(
            v, a, n, scale
        ),
        "forgets the scale": lambda v, n, a, scale: _probability(v, n, a, 1),
        "divides by the scale": lambda v, n, a, scale: _probability(v, n, a, 1 / scale),
        "gives the difference of the scaled cosines, which is no probability": (
            lambda v, n, a, scale: scale * v @ (a - n)
        ),
        "gives the cosine with the anomalous text alone": lambda v, n, a, scale: v @ a,
        "competes over the images, not over the two texts": lambda v, n, a, scale: (
            scale * v @ a
        ).softmax(0),
    },
    samples=["vectors"],
)
def anomaly_probability(
    vectors: Tensor, normal: Tensor, anomalous: Tensor, scale: float
) -> Tensor:
    """Check the score by two texts: of unit vectors of images (N, D) and of two texts,
    (D,) each, and a factor for the cosines, the softmax of the anomalous text, (N,).
    """
    rows = []
    for z in vectors.numpy():
        powers = [
            math.exp(scale * math.fsum(z * text.numpy()))
            for text in (normal, anomalous)
        ]
        rows.append(powers[1] / math.fsum(powers))
    return torch.tensor(rows, dtype=torch.float64)


def _windows(rng: np.random.Generator, size: int) -> tuple[Tensor, int]:
    shape = 1 + size // 4, 1 + size // 3, 2 + size // 2
    return torch.tensor(rng.uniform(0.1, 1, shape).round(2)), int(rng.integers(1, 4))


def _harmonic(values: Sequence[float]) -> float:
    return len(values) / math.fsum(1 / value for value in values)


def _arithmetic(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _over(
    values: Tensor, side: int, mean: Callable[[Sequence[float]], float]
) -> Tensor:
    """At each place a mean of the windows that it lies in, (B, H, W)."""
    b, h, w = values.shape
    places = torch.empty(b, h + side - 1, w + side - 1, dtype=torch.float64)
    for n, i, j in np.ndindex(*places.shape):
        rows = range(max(0, i - side + 1), min(h, i + 1))
        columns = range(max(0, j - side + 1), min(w, j + 1))
        places[n, i, j] = mean([float(values[n, y, x]) for y in rows for x in columns])
    return places


@compared(
    _windows,
    {
        "takes the arithmetic mean": partial(_over, mean=_arithmetic),
        "takes the lowest of the windows": partial(_over, mean=min),
        "takes the highest of the windows": partial(_over, mean=max),
        "divides by the square of the side at the border, too": lambda values, side: (
            side**2 / _over(values, side, mean=lambda v: math.fsum(1 / x for x in v))
        ),
        "sums the inverses, and forgets to invert the sum": partial(
            _over, mean=lambda v: math.fsum(1 / x for x in v)
        ),
    },
)
def over_windows(values: Tensor, side: int) -> Tensor:
    """Check what a place gets of windows: of the values (B, h, w) of all windows of side ×
    side places, all above zero, the harmonic mean at each place over the windows that it
    lies in, (B, h + side - 1, w + side - 1).
    """
    return _over(values, side, _harmonic)
