"""Checks of chapters 13 and 14: the focal loss, squashing, and routing."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared


def _probabilities(rng: np.random.Generator, size: int) -> tuple[Tensor, float]:
    return torch.tensor(rng.uniform(0.1, 0.9, size).round(1)), float(rng.integers(4))


def _summands(q: Tensor, gamma: float) -> Tensor:
    return -((1 - q) ** gamma) * q.log()


@compared(
    _probabilities,
    {
        "weighs by the probability of being right, not of being wrong": (
            lambda q, gamma: (-(q**gamma) * q.log()).mean()
        ),
        "is the cross-entropy, whatever gamma is": lambda q, gamma: -q.log().mean(),
        "is a sum, not a mean": lambda q, gamma: _summands(q, gamma).sum(),
        "is below zero: minus is missing": lambda q, gamma: -_summands(q, gamma).mean(),
    },
    samples=["q"],
)
def focal_loss(q: Tensor, gamma: float) -> float:
    """Check the focal loss: of the probabilities q (N,) of the right answers, their mean
    -(1 - q)^γ log q.
    """
    terms = [-((1 - p) ** gamma) * math.log(p) for p in q.tolist()]
    return math.fsum(terms) / len(terms)


def _vectors(rng: np.random.Generator, size: int) -> tuple[Tensor]:
    shape = 1 + size // 2, 1 + size // 3
    s = (10 ** rng.uniform(-1, 1, (shape[0], 1)) * rng.normal(size=shape)).round(1)
    if size > 1:
        s[0] = 0
    return (torch.tensor(s),)


def _lengths(s: Tensor) -> Tensor:
    return s.norm(dim=1, keepdim=True)


@compared(
    _vectors,
    {
        "divides by a length that may be zero": lambda s: (
            _lengths(s) ** 2 / (1 + _lengths(s) ** 2) * s / _lengths(s)
        ),
        "does not square the length": lambda s: s / (1 + _lengths(s)),
        "does not divide by the length, so a long vector stays long": lambda s: (
            _lengths(s) ** 2 / (1 + _lengths(s) ** 2) * s
        ),
        "makes all vectors one long": lambda s: s / _lengths(s).clamp_min(1e-12),
        "squashes each number, not the vector": lambda s: s * s.abs() / (1 + s**2),
        "takes one length for all vectors together": lambda s: (
            s.norm() / (1 + s.norm() ** 2) * s
        ),
    },
    samples=["s"],
)
def squash(s: Tensor) -> Tensor:
    """Check squashing: of vectors (N, D), some of them zero, as many of the same
    directions, of length n² / (1 + n²) where it was n.
    """
    rows = []
    for row in s.tolist():
        square = math.fsum(x * x for x in row)
        factor = math.sqrt(square) / (1 + square)
        rows.append([factor * x for x in row])
    return torch.tensor(rows, dtype=torch.float64)


def _votes(rng: np.random.Generator, size: int) -> tuple[Tensor, int]:
    shape = 1, 1 + size // 2, 1 + (1 + size) // 2, 1 + size // 3
    return torch.tensor(rng.normal(size=shape).round(1)), 1 + (size - 1) % 4


def _routed(
    votes: Tensor, n_iterations: int, over: int = 2, summed: bool = True
) -> Tensor:
    """The shares, by the formulas; `over` is the axis on which they sum to one."""
    logits = torch.zeros(votes.shape[:3], dtype=votes.dtype)
    for _ in range(n_iterations - 1):
        s = (logits.softmax(over)[..., None] * votes).sum(1)
        square = (s * s).sum(2, keepdim=True)
        above = square.sqrt() / (1 + square) * s
        agreement = (votes * above[:, None]).sum(3)
        logits = logits + agreement if summed else agreement
    return logits.softmax(over)


def _agreement(image: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """û · v of each pair of capsules below and above, (I, J)."""
    below, above, _ = image.shape
    agreement = np.zeros((below, above))
    for j in range(above):
        s = sum(shares[i, j] * image[i, j] for i in range(below))
        v = math.sqrt(s @ s) / (1 + s @ s) * s
        agreement[:, j] = image[:, j] @ v
    return agreement


@compared(
    _votes,
    {
        "shares sum to one over the capsules below, not over those above": partial(
            _routed, over=1
        ),
        "forgets what it had: agreement is added to b": partial(_routed, summed=False),
        "does one iteration too many: 1 shares alike": lambda votes, n_iterations: (
            _routed(votes, n_iterations + 1)
        ),
    },
)
def route(votes: Tensor, n_iterations: int) -> Tensor:
    """Check the shares of routing by agreement: of votes (B, I, J, D), I capsules below
    for J above, and a number of iterations, the shares c (B, I, J) of the last; 1 shares
    alike.
    """
    b, below, above = votes.shape[:3]
    shares = np.zeros((b, below, above))
    for n, image in enumerate(votes.numpy()):
        logits = np.zeros((below, above))
        for step in range(n_iterations):
            powers = np.exp(logits)
            shares[n] = powers / powers.sum(1, keepdims=True)
            if step < n_iterations - 1:
                logits += _agreement(image, shares[n])
    return torch.tensor(shares)
