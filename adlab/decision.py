"""Decision rules: thresholds learned from the scores of held-out normal data alone.

A threshold is in the raw unit of the scores, and the verdict is `scores > threshold`.
The scores must come from normal samples that the detector was not fitted to: those it
has seen score too low.

Each function raises `ValueError` where the scores are not a finite, non-empty (N,), too
few, or a number is out of its range, and `TypeError` for what is no array or no number.
"""

import math
from typing import NamedTuple

import numpy as np

from adlab._checks import check_number, check_scores

# 100 * 0.29 is 28.999999999999996 in floating point, and must count as 29
ROUNDING = 1e-9


def quantile_threshold(scores: object, fpr: float) -> float:
    """The threshold that a new normal sample exceeds with probability at most `fpr`, in
    (0, 1).

    It is the ceil((n + 1)(1 - fpr))-th smallest of the n normal scores (N,). As the new
    score is equally likely to take any of the n + 1 ranks among them, the bound holds
    for every distribution, and for every n >= 1 / fpr - 1; fewer scores raise
    `ValueError`. Source: split conformal prediction; Vovk, Gammerman and Shafer, 2005.
    """
    scores = check_scores(scores)
    return float(np.sort(scores)[_rank("scores", len(scores), fpr) - 1])


def fpr_distribution(n: int, fpr: float) -> tuple[int, int]:
    """The parameters (a, b) of the Beta distribution of the false positive rate that
    `quantile_threshold` has, over all draws of the n normal scores it is learned from.

    They are (n + 1 - rank, rank), whatever the continuous distribution of the scores.
    The mean, a / (a + b), is at most `fpr`; the rate of a single threshold can be more.
    Source: Wilks, Determination of sample sizes for setting tolerance limits, 1941.
    """
    check_number("n", n, 1, whole=True)
    rank = _rank("n", n, fpr)
    return n + 1 - rank, rank


def tolerance_threshold(scores: object, fpr: float, confidence: float = 0.95) -> float:
    """The lowest normal score that holds `fpr`, in (0, 1), with a `confidence` in (0, 1).

    Of all sets of n normal scores (N,) that one may have drawn, at most a share 1 -
    `confidence` gives a threshold whose own false positive rate is above `fpr`;
    `quantile_threshold` keeps it on average only. The k-th smallest score has a rate
    that is distributed as Beta(n + 1 - k, k), whatever the continuous distribution of
    the scores; k is the smallest for which that is at most `fpr` with the probability
    asked for. Too few scores raise `ValueError`: n >= log(1 - confidence) / log(1 -
    fpr). Source: Wilks, Determination of sample sizes for setting tolerance limits,
    1941.
    """
    from scipy.stats import beta  # slow to import, and needed here only

    for name, value in ("fpr", fpr), ("confidence", confidence):
        check_number(name, value, 0, 1, open_low=True, open_high=True)
    scores = np.sort(check_scores(scores))
    n = len(scores)
    ranks = np.arange(1, n + 1)
    holds = beta.cdf(fpr, n + 1 - ranks, ranks) >= confidence
    if not holds.any():
        needed = math.ceil(math.log1p(-confidence) / math.log1p(-fpr) - ROUNDING)
        raise ValueError(
            f"scores: expected at least {needed} normal scores to hold fpr={fpr} with "
            f"confidence={confidence}, got {n}"
        )
    return float(scores[holds.argmax()])


def _rank(name: str, n: int, fpr: float) -> int:
    """Which of n normal scores, from the smallest, is the threshold: 1 to n."""
    check_number("fpr", fpr, 0, 1, open_low=True, open_high=True)
    rank = math.ceil((n + 1) * (1 - fpr) - ROUNDING)
    if rank > n:
        needed = np.ceil(1 / fpr - ROUNDING) - 1
        raise ValueError(
            f"{name}: expected at least {needed:.10g} normal scores to guarantee fpr={fpr}, got {n}"
        )
    return max(rank, 1)


def sigma_threshold(scores: object, k: float = 3) -> float:
    """Mean plus `k` standard deviations of the normal scores (N,), N >= 2; k >= 0.

    For Gaussian scores k = 3 gives a false positive rate of 0.135 %. For others it
    promises little: at most 1 / (1 + k^2), so 10 % (Cantelli's inequality, with the
    true mean and deviation).
    """
    check_number("k", k, 0)
    scores = _check_several(scores)
    return float(scores.mean() + k * scores.std(ddof=1))


class BootstrapThreshold(NamedTuple):
    """A threshold and the ends of its confidence interval, in the unit of the scores."""

    threshold: float
    low: float
    high: float


def bootstrap_threshold(
    scores: object,
    fpr: float,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> BootstrapThreshold:
    """The (1 - fpr)-quantile of the normal scores (N,), N >= 2, and how far it can be
    trusted.

    The scores are drawn anew, with replacement, `n_resamples` times. The mean of the
    quantiles is the threshold; their percentiles bound the interval that holds a share
    `confidence`, in (0, 1). Unlike `quantile_threshold` this guarantees nothing for few
    scores, but it shows the uncertainty. Source: Efron and Tibshirani, An introduction
    to the bootstrap, 1993, chapter 13.
    """
    check_number("fpr", fpr, 0, 1, open_low=True, open_high=True)
    check_number("n_resamples", n_resamples, 1, whole=True)
    check_number("seed", seed, 0, whole=True)
    check_number("confidence", confidence, 0, 1, open_low=True, open_high=True)
    scores = _check_several(scores)
    rng = np.random.default_rng(seed)
    resamples = (rng.choice(scores, len(scores)) for _ in range(n_resamples))
    quantiles = [np.quantile(resample, 1 - fpr) for resample in resamples]
    low, high = np.quantile(quantiles, [(1 - confidence) / 2, (1 + confidence) / 2])
    return BootstrapThreshold(float(np.mean(quantiles)), float(low), float(high))


def _check_several(scores: object) -> np.ndarray:
    scores = check_scores(scores)
    if len(scores) < 2:
        raise ValueError(
            f"scores: expected at least 2 normal scores, got {len(scores)}"
        )
    return scores
