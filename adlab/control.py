"""Control charts: has the process changed, and how long does it take to notice?

    scores, one after another ──▶ statistic ──▶ alarm where it is above a limit

Shewhart's chart looks at each score by itself, as the thresholds of `adlab.decision`
do. Page's cumulative sum (CUSUM) adds up by how much scores are too high, and so
notices a small change that lasts.

The average run length (ARL) is the mean number of scores up to the first alarm, that
one included: ARL₀ of a process that has not changed, ARL₁ of one that has. The formulas
hold for independent scores.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

from adlab._checks import check_number, check_scores
from adlab.decision import fpr_distribution

STATES = 400  # of the Markov chain
HIGHEST = 20  # limit up to which so many states suffice
LONGEST = 1e9  # run length up to which they and float64 do

# -- charts


def cusum(
    scores: object, mean: float = 0.0, slack: float = 0.5, limit: float | None = None
) -> np.ndarray:
    """The one-sided cumulative sum, S_t = max(0, S_{t-1} + s_t − mean − slack), from
    S_0 = 0.

    Args:
        scores: (N,), in the order of time.
        mean: of the scores of the unchanged process, in their unit.
        slack: at least 0, in the unit of the scores; half of the smallest shift that
            should be noticed is best against that shift.
        limit: at least 0; above it there is an alarm, and the next sum starts from 0.
            None: it is never started anew.

    Returns:
        float64 (N,), the statistic after each score, at least 0.

    Raises:
        TypeError, ValueError: no finite (N,), or a number out of its range.

    Source: Page 1954, "Continuous inspection schemes"; on the slack, Moustakides 1986,
    "Optimal stopping times for detecting changes in distributions".
    """
    check_number("mean", mean)
    check_number("slack", slack, 0)
    if limit is not None:
        check_number("limit", limit, 0)
    highest = math.inf if limit is None else limit
    steps = check_scores(scores) - mean - slack

    def add(total: float, step: float) -> float:
        return max(0.0, step if total > highest else total + step)

    return np.array(list(accumulate(steps.tolist(), add, initial=0.0))[1:])


def alarm_times(statistic: object, limit: float) -> np.ndarray:
    """The steps, from 0, at which a statistic (N,) is above its limit: int64 (A,).

    Raises:
        TypeError, ValueError: no finite (N,), or a limit that is no number.
    """
    check_number("limit", limit)
    return np.flatnonzero(check_scores(statistic, "statistic") > limit)


# -- average run lengths


def shewhart_run_length(rate: float) -> float:
    """The ARL of a chart with a known threshold, 1 / rate.

    Args:
        rate: in (0, 1], the probability that a score is above the threshold: the false
            positive rate for ARL₀, the true positive rate for ARL₁.

    Raises:
        TypeError, ValueError: a rate out of its range.
    """
    check_number("rate", rate, 0, 1, open_low=True)
    return 1 / rate


def quantile_run_length(n: int, fpr: float) -> float:
    """The mean ARL₀ of charts whose threshold is each the `quantile_threshold` of n
    normal scores of their own: n / (n − rank), infinite if the threshold is the largest
    of them.

    A threshold has its own false positive rate p, and its chart the ARL₀ 1 / p. The mean
    is longer than 1 / fpr, but a few thresholds that are much too high make it so: with
    n = 99 and fpr = 0.05 it is 24.75, and 44 % of the charts have less than 20. See
    `adlab.decision.fpr_distribution`.

    Args:
        n: number of normal scores, of any continuous distribution.
        fpr: in (0, 1), which the threshold promises.

    Raises:
        TypeError, ValueError: fpr out of its range, or too few scores for it.
    """
    a, b = fpr_distribution(n, fpr)
    return (a + b - 1) / (a - 1) if a > 1 else math.inf


def cusum_run_length(limit: float, slack: float = 0.5, shift: float = 0.0) -> float:
    """The ARL of `cusum` for scores that are Gaussian with standard deviation 1.

    The statistic is rounded to 400 values from 0 to the limit, which makes it a Markov
    chain with known probabilities of each step. Exact to 0.1 % for a limit of up to 10,
    and to 1 % beyond.

    Args:
        limit: in [0, 20], in standard deviations.
        slack: at least 0, in standard deviations.
        shift: of the mean of the scores, in standard deviations; 0 gives ARL₀.

    Raises:
        TypeError, ValueError: a number out of its range, or a run length above 1e9.

    Source: Brook & Evans 1972, "An approach to the probability distribution of CUSUM
    run length".
    """
    check_number("limit", limit, 0, HIGHEST)
    check_number("slack", slack, 0)
    check_number("shift", shift)
    length = _mean_time_to_leave(_steps(limit, slack - shift))
    if not 1 <= length < LONGEST:
        raise ValueError(
            f"limit: expected one with a run length below {LONGEST:g}, got {limit} "
            f"with slack {slack} and shift {shift}"
        )
    return length


def _mean_time_to_leave(stay: np.ndarray) -> float:
    """Steps that a Markov chain, started in its first state, makes on average, the one
    that leaves its states (S, S) included.
    """
    try:
        times = np.linalg.solve(np.eye(len(stay)) - stay, np.ones(len(stay)))
    except np.linalg.LinAlgError:  # it never leaves
        return math.inf
    return float(times[0])


def _steps(limit: float, drift: float) -> np.ndarray:
    """Probabilities that the statistic goes from each value to each, without an alarm:
    (STATES, STATES); `drift` is by how much it falls on average.
    """
    from scipy.special import ndtr

    width = limit / (STATES - 0.5)
    values = width * np.arange(STATES)
    below = ndtr(values + width / 2 - values[:, None] + drift)
    return np.diff(below, prepend=0)


def cusum_limit(run_length: float, slack: float = 0.5) -> float:
    """The limit at which `cusum` has this ARL₀, for scores that are Gaussian with
    standard deviation 1.

    Args:
        run_length: that of a limit of 0, 1 / (1 − Φ(slack)), or more; at most 1e6.
        slack: in [0, 3], in standard deviations.

    Returns:
        The limit, in [0, 20].

    Raises:
        TypeError, ValueError: a number out of its range, or no limit up to 20 has this
            run length.
    """
    from scipy.optimize import brentq

    check_number("run_length", run_length, 1, 1e6)
    check_number("slack", slack, 0, 3)

    def excess(limit: float) -> float:
        return math.log(cusum_run_length(limit, slack) / run_length)

    high = next((h for h in range(1, HIGHEST + 1) if excess(h) >= 0), None)
    if high is None or excess(0) > 0:
        end = 0 if high else HIGHEST
        raise ValueError(
            f"run_length: expected {'at most' if end else 'at least'} "
            f"{cusum_run_length(end, slack):.4g} with slack {slack}, got {run_length}"
        )
    return float(brentq(excess, 0, high))
