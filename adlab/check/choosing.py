"""Checks of chapter 17: p-values, what no other row beats, how many images a difference
needs, and a coreset.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
from torch import Tensor, tensor

from adlab.check.engine import compared


def _normal_and_new(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    return rng.integers(5, size=size).astype(float), rng.integers(6, size=size + 1) / 1


def _counts(normal: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many normal scores are at least as high as each, (M,)."""
    return (normal >= scores[:, None]).sum(1)


@compared(
    _normal_and_new,
    {
        "does not count the new image itself, so that p can be 0": lambda normal, s: (
            _counts(normal, s) / len(normal)
        ),
        "adds one to the count, and not to n": lambda normal, s: (
            (1 + _counts(normal, s)) / len(normal)
        ),
        "leaves out normal scores that are equal": lambda normal, s: (
            (1 + (normal > s[:, None]).sum(1)) / (len(normal) + 1)
        ),
        "counts lower scores, so that a high score has a high p": lambda normal, s: (
            (1 + (normal <= s[:, None]).sum(1)) / (len(normal) + 1)
        ),
    },
    samples=["scores"],
)
def p_values(normal: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Check p-values: of n held-out normal scores (n,) and new scores (M,), for each new
    one (1 + the number of normal scores at least as high) / (n + 1), (M,).
    """
    n = len(normal)
    higher = [sum(1 for a in normal if a >= s) for s in scores]
    return np.array([(1 + count) / (n + 1) for count in higher])


def _rows(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    return tuple(rng.integers(1, 5, size=size) / 1 for _ in range(2))


def _front(no_worse: np.ndarray, better: np.ndarray) -> np.ndarray:
    return ~(no_worse & better).any(1)


def _against(x: np.ndarray) -> np.ndarray:
    """Entry (i, j): by how much row j is above row i."""
    return x - x[:, None]


@compared(
    _rows,
    {
        "keeps a row that another beats in one of the two and equals in the other": (
            lambda cost, quality: _front(_against(cost) < 0, _against(quality) > 0)
        ),
        "drops rows that are equal in both": lambda cost, quality: (
            ((_against(cost) <= 0) & (_against(quality) >= 0)).sum(1) == 1
        ),
        "takes a high cost for good": lambda cost, quality: _front(
            (_against(cost) >= 0) & (_against(quality) >= 0),
            (_against(cost) > 0) | (_against(quality) > 0),
        ),
        "takes a low quality for good": lambda cost, quality: _front(
            (_against(cost) <= 0) & (_against(quality) <= 0),
            (_against(cost) < 0) | (_against(quality) < 0),
        ),
        "marks the rows that are beaten": lambda cost, quality: (
            ~_front(
                (_against(cost) <= 0) & (_against(quality) >= 0),
                (_against(cost) < 0) | (_against(quality) > 0),
            )
        ),
    },
    samples=["cost", "quality"],
)
def pareto(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Check the Pareto front: of costs and qualities (N,), true for each row that no other
    beats, (N,). A row beats another if it costs no more and is no worse, and one of the two
    is strict.
    """
    rows = list(zip(cost, quality, strict=True))
    beaten = [
        any(c <= a and q >= b and (c < a or q > b) for c, q in rows) for a, b in rows
    ]
    return 1.0 - np.array(beaten)


Z = statistics.NormalDist().inv_cdf
BOTH = Z(0.975) + Z(0.8)


def _differences(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    return rng.normal(size=size + 1).round(1), float(rng.choice([0.02, 0.1, 0.5]))


@compared(
    _differences,
    {
        "forgets the square": lambda d, e: BOTH * d.std(ddof=1) / e,
        "takes the quantile of 5 % on one side only": lambda d, e: (
            ((Z(0.95) + Z(0.8)) * d.std(ddof=1) / e) ** 2
        ),
        "forgets the power": lambda d, e: (Z(0.975) * d.std(ddof=1) / e) ** 2,
        "divides the variance by n, and not by n - 1": lambda d, e: (
            (BOTH * d.std() / e) ** 2
        ),
        "takes the mean square of the differences for their variance": lambda d, e: (
            BOTH**2 * np.mean(d**2) / e**2
        ),
        "counts twice, as for two groups that are not paired": lambda d, e: (
            2 * (BOTH * d.std(ddof=1) / e) ** 2
        ),
    },
)
def images_needed(differences: np.ndarray, effect: float) -> float:
    """Check how many pairs a mean difference needs to be found by a test at 5 % on both
    sides in 80 % of all tries: of differences (n,), ((z₀.₉₇₅ + z₀.₈) s / effect)², where
    s² is their variance with n - 1 below. It is not rounded.
    """
    s = statistics.stdev([float(d) for d in differences])
    return (BOTH * s / effect) ** 2


def _points(rng: np.random.Generator, size: int) -> tuple[Tensor, int]:
    x = tensor(rng.normal(size=(2 + size, 1 + size // 3)))
    return x, 1 + int(rng.integers(len(x)))


def _chosen(x: Tensor, n: int, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """Rows, the first and then by a rule from the squared distances to those chosen."""
    rows = [0]
    while len(rows) < n:
        far = rule((x[:, None] - x[rows]).square().sum(2))
        far[rows] = -math.inf
        rows.append(int(far.argmax()))
    return tensor(rows)


@compared(
    _points,
    {
        "takes the vector that is nearest to those chosen": lambda x, n: _chosen(
            x, n, lambda squared: -squared.amin(1)
        ),
        "adds the distances to all that are chosen": lambda x, n: _chosen(
            x, n, lambda squared: squared.sqrt().sum(1)
        ),
        "looks at the last one chosen only": lambda x, n: _chosen(
            x, n, lambda squared: squared[:, -1].clone()
        ),
        "takes the largest distance to those chosen, not the smallest": (
            lambda x, n: _chosen(x, n, lambda squared: squared.amax(1))
        ),
        "takes the first rows as they come": lambda x, n: tensor(range(n)),
    },
)
def coreset(x: Tensor, n: int) -> Tensor:
    """Check a greedy coreset: of vectors (N, D), the rows (n,) that are chosen, the first,
    row 0, and then each time the one whose distance to the nearest chosen so far is largest.
    """
    rows = [0]
    while len(rows) < n:
        others = [i for i in range(len(x)) if i not in rows]
        gaps = [min(math.dist(x[i], x[j]) for j in rows) for i in others]
        rows.append(others[int(np.argmax(gaps))])
    return tensor(rows)
