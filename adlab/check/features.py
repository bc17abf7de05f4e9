"""Checks of chapters 6 to 8: features of a network, and distances among them."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared

# -- chapter 6


def _layers(rng: np.random.Generator, size: int) -> tuple[list[Tensor]]:
    n = 1 + size // 3
    shapes = [(n, 1 + i, 1 + size // (1 + i), 2) for i in range(1 + size // 3)]
    return ([torch.tensor(rng.normal(size=shape).round(1)) for shape in shapes],)


@compared(
    _layers,
    {
        "takes the maximum over the positions": lambda features: torch.cat(
            [layer.amax((2, 3)) for layer in features], 1
        ),
        "takes the sum over the positions": lambda features: torch.cat(
            [layer.sum((2, 3)) for layer in features], 1
        ),
        "averages over the channels, not over the positions": lambda features: (
            torch.cat([layer.mean(1).flatten(1) for layer in features], 1)
        ),
        "takes the last layer only": lambda features: features[-1].mean((2, 3)),
        "takes the first layer only": lambda features: features[0].mean((2, 3)),
        "has the layers in reverse order": lambda features: torch.cat(
            [layer.mean((2, 3)) for layer in features[::-1]], 1
        ),
    },
)
def pool(features: list[Tensor]) -> Tensor:
    """Check the pooling of features: of a list of maps (N, C, H, W), one a layer, the means
    of all channels, one layer after the other, (N, sum of C).
    """
    columns = [
        [channel.mean() for layer in features for channel in layer[i]]
        for i in range(len(features[0]))
    ]
    return torch.tensor(columns, dtype=torch.float64)


def _neighbours(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, int]:
    d = 1 + size // 3
    train, test = rng.normal(size=(1 + size, d)), rng.normal(size=(size, d))
    k = int(rng.integers(1, 2 + size))
    return torch.tensor(train.round(1)), torch.tensor(test.round(1)), k


def _nearest(train: Tensor, test: Tensor, k: int) -> Tensor:
    """Distances to the k nearest, (N, k)."""
    return (test[:, None] - train).norm(dim=2).sort(dim=1).values[:, :k]


@compared(
    _neighbours,
    {
        "takes the k-th distance, not the mean of the k": lambda train, test, k: (
            _nearest(train, test, k)[:, -1]
        ),
        "takes the nearest only, whatever k is": lambda train, test, k: _nearest(
            train, test, 1
        ).mean(1),
        "averages squared distances": lambda train, test, k: (
            _nearest(train, test, k).square().mean(1)
        ),
        "takes the k farthest": lambda train, test, k: _nearest(
            train, test, len(train)
        )[:, -k:].mean(1),
        "takes the sum of the distances": lambda train, test, k: _nearest(
            train, test, k
        ).sum(1),
        "leaves out the nearest, as if it were the vector itself": (
            lambda train, test, k: _nearest(train, test, k + 1)[:, 1:].mean(1)
        ),
    },
    samples=["test"],
)
def knn_score(train: Tensor, test: Tensor, k: int) -> Tensor:
    """Check the score of the nearest neighbours: of train (N, D), test (B, D) and k, the
    mean Euclidean distance to the k nearest training vectors, (B,).
    """
    return _nearest(train, test, k).mean(1)


# -- chapter 7


def _grids(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, float]:
    shape = (1 + size // 4, 1 + size // 5, 1 + size // 3)
    train = rng.normal(2, 1, (2 + size, *shape)).round(1)
    test = rng.normal(2, 2, (1 + size // 3, *shape)).round(1)
    return torch.tensor(train), torch.tensor(test), float(rng.choice([0.1, 0.5]))


def _mahalanobis(
    train: Tensor, test: Tensor, reg_covar: float, correction: int = 1
) -> Tensor:
    """Place by place, by solving instead of inverting."""
    result = test.new_empty(test.shape[:3])
    for i, j in np.ndindex(*test.shape[1:3]):
        x = train[:, i, j] - train[:, i, j].mean(0)
        covariance = x.T @ x / (len(x) - correction)
        covariance = covariance + reg_covar * torch.eye(x.shape[1])
        gap = test[:, i, j] - train[:, i, j].mean(0)
        result[:, i, j] = (gap * torch.linalg.solve(covariance, gap.T).T).sum(1).sqrt()
    return result


def _same_everywhere(train: Tensor, test: Tensor, reg_covar: float) -> Tensor:
    """All places as if they were one."""
    one = train.reshape(-1, 1, 1, train.shape[3])
    return _mahalanobis(one, test.reshape(-1, 1, 1, test.shape[3]), reg_covar).view(
        test.shape[:3]
    )


def _standardised(train: Tensor, test: Tensor, reg_covar: float) -> Tensor:
    variance = train.var(0) + reg_covar
    return ((test - train.mean(0)) ** 2 / variance).sum(3).sqrt()


@compared(
    _grids,
    {
        "forgets the correlations: only the diagonal counts": _standardised,
        "has one mean and covariance for all places": _same_everywhere,
        "divides the covariance by N, not by N - 1": partial(
            _mahalanobis, correction=0
        ),
        "forgets the covariance": lambda train, test, reg_covar: (
            test - train.mean(0)
        ).norm(dim=3),
        "forgets to subtract the mean": lambda train, test, reg_covar: _mahalanobis(
            train, test + train.mean(0), reg_covar
        ),
    },
    samples=["test"],
)
def mahalanobis_map(train: Tensor, test: Tensor, reg_covar: float) -> Tensor:
    """Check the map of PaDiM: of train (N, H, W, D), test (B, H, W, D) and reg_covar, the
    Mahalanobis distance at every place, (B, H, W). The covariance is taken with N - 1,
    and reg_covar is added to its diagonal.
    """
    return _mahalanobis(train, test, reg_covar)


def _galleries(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Some far from the origin, where large numbers cancel."""
    d, far = 1 + size // 3, rng.choice([0, 1000])
    x, gallery = rng.normal(far, 1, (size, d)), rng.normal(far, 1, (1 + size, d))
    return torch.tensor(x.round(1)), torch.tensor(gallery.round(1))


@compared(
    _galleries,
    {
        "returns the squared distance: take the root": lambda x, gallery: (
            _nearest(gallery, x, 1)[:, 0] ** 2
        ),
        "takes the farthest": lambda x, gallery: _nearest(gallery, x, len(gallery))[
            :, -1
        ],
        "takes the mean over the gallery": lambda x, gallery: _nearest(
            gallery, x, len(gallery)
        ).mean(1),
        "looks for the nearest of x from the gallery: swap them": lambda x, gallery: (
            _nearest(x, gallery, 1)[:, 0]
        ),
        "returns the index, not the distance": lambda x, gallery: (
            (x[:, None] - gallery).norm(dim=2).argmin(1)
        ),
    },
    samples=["x"],
)
def distance_to_nearest(x: Tensor, gallery: Tensor) -> Tensor:
    """Check the distance of SPADE: of x (M, D) and a gallery (G, D), the Euclidean distance
    of each x to the nearest row of the gallery, (M,).
    """
    rows = [[float((a - b).norm()) for b in gallery] for a in x]
    return torch.tensor([min(row) for row in rows], dtype=torch.float64)


# -- chapter 8


def _students(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    b, m, d = 1 + size // 4, 2 + size // 3, 1 + size // 2
    predictions = rng.normal(size=(b, m, d, 1 + size // 4, 1)).round(1)
    target = rng.normal(size=(b, d, 1 + size // 4, 1)).round(1)
    return torch.tensor(predictions), torch.tensor(target)


def _error(predictions: Tensor, target: Tensor) -> Tensor:
    return (predictions.mean(1) - target).square().sum(1)


def _variance(predictions: Tensor, correction: int = 0) -> Tensor:
    return predictions.var(1, correction=correction).sum(1)


@compared(
    _students,
    {
        "averages the errors of the students, not their predictions": (
            lambda predictions, target: (
                (predictions - target[:, None]).square().sum(2).mean(1),
                _variance(predictions),
            )
        ),
        "divides the variance by M - 1, not by M": lambda predictions, target: (
            _error(predictions, target),
            _variance(predictions, 1),
        ),
        "averages over the features, not sums": lambda predictions, target: (
            _error(predictions, target) / target.shape[1],
            _variance(predictions) / target.shape[1],
        ),
        "takes the distance of the students from the teacher for the variance": (
            lambda predictions, target: (
                _error(predictions, target),
                (predictions - target[:, None]).square().sum(2).mean(1),
            )
        ),
        "returns the variance before the error": lambda predictions, target: (
            _variance(predictions),
            _error(predictions, target),
        ),
        "takes the root of the error": lambda predictions, target: (
            _error(predictions, target).sqrt(),
            _variance(predictions),
        ),
    },
    samples=["predictions", "target"],
)
def error_and_variance(predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check the two terms of students and teacher: of predictions (B, M, D, H, W) of M
    students and the target (B, D, H, W), the squared distance of the students' mean from
    the target, and the mean squared distance of the students from their mean, (B, H, W).
    """
    mean = sum(predictions.unbind(1)) / predictions.shape[1]
    gaps = [(each - mean).square().sum(1) for each in predictions.unbind(1)]
    return (mean - target).square().sum(1), sum(gaps) / len(gaps)
