"""Checks of chapter 15: means over the cells of a grid, and factors of channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared


def _maps(rng: np.random.Generator, size: int) -> tuple[Tensor, int]:
    shape = 1 + size // 4, 1 + size // 3, 2 + size, 3 + size // 2
    k = 1 + int(rng.integers(1 + size // 2))
    return torch.tensor(rng.normal(size=shape).round(1)), k


def _first(i: int, side: int, k: int) -> int:
    return i * side // k


def _after(i: int, side: int, k: int) -> int:
    return -(-(i + 1) * side // k)


def _over_cells(
    features: Tensor,
    k: int,
    summary: Callable[[Tensor], Tensor] = lambda cell: cell.mean((2, 3)),
    after: Callable[[int, int, int], int] = _after,
) -> Tensor:
    """A summary of each cell, (B, C, k, k)."""
    height, width = features.shape[2:]
    cells = [
        summary(
            features[
                :,
                :,
                _first(i, height, k) : after(i, height, k),
                _first(j, width, k) : after(j, width, k),
            ]
        )
        for i, j in np.ndindex(k, k)
    ]
    return torch.stack(cells, 2).unflatten(2, (k, k))


@compared(
    _maps,
    {
        "takes the maximum of a cell": partial(
            _over_cells, summary=lambda cell: cell.amax((2, 3))
        ),
        "takes the sum over a cell": partial(
            _over_cells, summary=lambda cell: cell.sum((2, 3))
        ),
        "leaves out the places that two cells share where k does not divide a side": (
            partial(_over_cells, after=lambda i, side, k: (i + 1) * side // k)
        ),
        "has rows and columns of cells the wrong way round": lambda features, k: (
            _over_cells(features, k).mT
        ),
        "averages over all places, whatever k is": lambda features, k: features.mean(
            (2, 3), keepdim=True
        ).expand(-1, -1, k, k),
    },
)
def cell_means(features: Tensor, k: int) -> Tensor:
    """Check a level of a pyramid: of maps (B, C, h, w) and a number of cells k along each
    side, at most as many as places, the means (B, C, k, k). Cell i of a side of h places
    goes from ⌊i h / k⌋ up to, and without, ⌈(i + 1) h / k⌉.
    """
    b, channels, height, width = features.shape
    result = torch.empty(b, channels, k, k, dtype=torch.float64)
    for n, c, i, j in np.ndindex(b, channels, k, k):
        rows = range(_first(i, height, k), _after(i, height, k))
        columns = range(_first(j, width, k), _after(j, width, k))
        cell = [float(features[n, c, y, x]) for y in rows for x in columns]
        result[n, c, i, j] = math.fsum(cell) / len(cell)
    return result


def _squeezed(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    n, channels, hidden = size, 2 + size // 2, 1 + size // 3
    shapes = (n, channels), (hidden, channels), (channels, hidden)
    means, first, second = (
        torch.tensor(rng.normal(size=shape).round(1)) for shape in shapes
    )
    return means, first, second


@compared(
    _squeezed,
    {
        "forgets the sigmoid": lambda means, first, second: (
            (means @ first.T).relu() @ second.T
        ),
        "has no ReLU between the matrices": lambda means, first, second: (
            means @ first.T @ second.T
        ).sigmoid(),
        "has a sigmoid between the matrices, too": lambda means, first, second: (
            (means @ first.T).sigmoid() @ second.T
        ).sigmoid(),
        "has a softmax for the sigmoid, so that channels compete": (
            lambda means, first, second: ((means @ first.T).relu() @ second.T).softmax(
                1
            )
        ),
        "multiplies the channels, where the factors were asked for": (
            lambda means, first, second: (
                means * ((means @ first.T).relu() @ second.T).sigmoid()
            )
        ),
    },
    samples=["means"],
)
def channel_factors(means: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Check the factors of squeeze and excitation: of the means of channels (N, C) and two
    matrices W₁ (R, C) and W₂ (C, R), σ(W₂ max(0, W₁ z)) for each row z, (N, C).
    """
    rows = []
    for z in means.numpy():
        hidden = [max(0.0, math.fsum(w * z)) for w in first.numpy()]
        heights = [math.fsum(w * hidden) for w in second.numpy()]
        rows.append([1 / (1 + math.exp(-height)) for height in heights])
    return torch.tensor(rows, dtype=torch.float64)
