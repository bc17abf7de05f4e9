"""Checks of chapter 19: a control chart, forgetting, and the parts of EWC."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared

# -- a control chart


def _stream(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float, float]:
    mean, slack = round(float(rng.normal()), 1), float(rng.choice([0.1, 0.3, 0.5]))
    return (mean + rng.normal(0.3, 1, 2 + 2 * size)).round(1), mean, slack


def _two_sided(scores: np.ndarray, mean: float, slack: float) -> np.ndarray:
    return np.maximum(_summed(scores, mean, slack), _summed(-scores, -mean, slack))


def _summed(
    scores: np.ndarray,
    mean: float,
    slack: float,
    floor: float = 0.0,
    start: float = 0.0,
) -> np.ndarray:
    total, sums = start, []
    for score in scores:
        total = max(floor, total + score - mean - slack)
        sums.append(total)
    return np.array(sums)


@compared(
    _stream,
    {
        "lets the sum fall below zero": partial(_summed, floor=-math.inf),
        "forgets the slack": lambda scores, mean, slack: _summed(scores, mean, 0),
        "forgets the mean": lambda scores, mean, slack: _summed(scores, 0, slack),
        "adds the slack": lambda scores, mean, slack: _summed(scores, mean, -slack),
        "adds what is positive of each score, so that the sum never falls": (
            lambda scores, mean, slack: np.cumsum(np.maximum(0, scores - mean - slack))
        ),
        "looks at falling scores, too": _two_sided,
        "starts with the first score, without the slack": (
            lambda scores, mean, slack: np.append(
                start := max(0, scores[0] - mean),
                _summed(scores[1:], mean, slack, start=start),
            )
        ),
    },
    samples=["scores"],
)
def cusum(scores: np.ndarray, mean: float, slack: float) -> np.ndarray:
    """Check a cumulative sum: of scores (N,), their normal mean and a slack, the sums
    S_t = max(0, S_{t-1} + s_t - mean - slack) from S_0 = 0, (N,), never started anew.
    """
    path = np.concatenate([[0], np.cumsum(scores - mean - slack)])
    return (path - np.minimum.accumulate(path))[1:]


# -- forgetting


def _matrix(rng: np.random.Generator, size: int) -> tuple[np.ndarray]:
    tasks = 2 + size // 2
    return (rng.random((tasks, tasks)).round(2),)


@compared(
    _matrix,
    {
        "has the wrong sign": lambda matrix: matrix[-1, :-1] - matrix[:-1, :-1].max(0),
        "takes the diagonal for the best before the end": lambda matrix: (
            matrix.diagonal() - matrix[-1]
        )[:-1],
        "counts the last row among those before the end, so that it is never negative": (
            lambda matrix: (matrix.max(0) - matrix[-1])[:-1]
        ),
        "has rows and columns the wrong way round": lambda matrix: (
            matrix[:-1, :-1].max(1) - matrix[:-1, -1]
        ),
        "takes the mean before the end, not the best": lambda matrix: (
            matrix[:-1, :-1].mean(0) - matrix[-1, :-1]
        ),
    },
)
def forgetting(matrix: np.ndarray) -> np.ndarray:
    """Check forgetting: of A (T, T), whose entry i, j is the measure on task j after task
    i, the best on each task before the last step, minus that after it; for all tasks but
    the last, (T - 1,).
    """
    last = len(matrix) - 1
    drops = [
        max(matrix[i, j] for i in range(last)) - matrix[last, j] for j in range(last)
    ]
    return np.array(drops)


# -- elastic weight consolidation


def _regression(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    n, d = 2 + size, 1 + size // 3
    x, y, w = rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=d)
    return tuple(torch.tensor(part.round(1)) for part in (x, y, w))


def _gradients(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (x @ w - y)[:, None] * x


@compared(
    _regression,
    {
        "squares the mean gradient, where the samples cancel": lambda x, y, w: (
            _gradients(x, y, w).mean(0).square()
        ),
        "forgets the square": lambda x, y, w: _gradients(x, y, w).mean(0),
        "takes the sum over samples, not the mean": lambda x, y, w: (
            _gradients(x, y, w).square().sum(0)
        ),
        "forgets the residual": lambda x, y, w: x.square().mean(0),
        "takes the gradient of the squared error, without the half": lambda x, y, w: (
            (2 * _gradients(x, y, w)).square().mean(0)
        ),
        "is the variance of the gradients": lambda x, y, w: _gradients(x, y, w).var(
            0, correction=0
        ),
    },
    samples=["x", "y"],
)
def squared_gradients(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Check the diagonal of the Fisher information of a regression: of inputs (N, D),
    answers (N,) and weights (D,), the mean over samples of the squared gradient of half of
    the squared error of a single sample, (D,).
    """
    total = torch.zeros_like(w)
    for row, answer in zip(x, y, strict=True):
        weights = w.clone().requires_grad_()
        loss = (weights @ row - answer) ** 2 / 2
        (gradient,) = torch.autograd.grad(loss, weights)
        total += gradient**2
    return total / len(x)


def _moved(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor, float]:
    weights, anchor = torch.tensor(rng.normal(size=(2, 1 + size)).round(1))
    fisher = torch.tensor(rng.exponential(size=1 + size).round(1))
    return weights, anchor, fisher, float(rng.choice([1.0, 3.0, 10.0]))


@compared(
    _moved,
    {
        "forgets the half": lambda weights, anchor, fisher, strength: (
            strength * (fisher * (weights - anchor).square()).sum()
        ),
        "forgets the Fisher information": lambda weights, anchor, fisher, strength: (
            strength / 2 * (weights - anchor).square().sum()
        ),
        "forgets the strength": lambda weights, anchor, fisher, strength: (
            (fisher * (weights - anchor).square()).sum() / 2
        ),
        "pulls the weights to zero, not to the old ones": (
            lambda weights, anchor, fisher, strength: (
                strength / 2 * (fisher * weights.square()).sum()
            )
        ),
        "takes the mean over the weights, not the sum": (
            lambda weights, anchor, fisher, strength: (
                strength / 2 * (fisher * (weights - anchor).square()).mean()
            )
        ),
        "squares the Fisher information, too": (
            lambda weights, anchor, fisher, strength: (
                strength / 2 * (fisher * (weights - anchor)).square().sum()
            )
        ),
        "takes absolute differences for squared ones": (
            lambda weights, anchor, fisher, strength: (
                strength / 2 * (fisher * (weights - anchor).abs()).sum()
            )
        ),
    },
    samples=["weights", "anchor", "fisher"],
)
def ewc_penalty(
    weights: Tensor, anchor: Tensor, fisher: Tensor, strength: float
) -> float:
    """Check the penalty of elastic weight consolidation: of weights, old weights and the
    diagonal of the Fisher information, (P,) each, and a strength, half of the strength
    times the sum of the squared differences, each times its Fisher information.
    """
    rows = zip(weights.tolist(), anchor.tolist(), fisher.tolist(), strict=True)
    return strength / 2 * math.fsum(f * (w - a) ** 2 for w, a, f in rows)
