"""Control charts: the statistic by a loop, run lengths by tables, integrals, simulation."""

import math

import numpy as np
import pytest
from bad_input import MAPS, NAN, SCORES, refuses, spoiled
from scipy import stats

from adlab.control import (
    alarm_times,
    cusum,
    cusum_limit,
    cusum_run_length,
    quantile_run_length,
    shewhart_run_length,
)
from adlab.decision import fpr_distribution, quantile_threshold

NORMAL = np.random.default_rng(0).normal(size=200)

# -- charts


@pytest.mark.parametrize("limit", [None, 0, 1.5, 4])
def test_the_sum_is_that_of_a_plain_loop(limit):
    expected, total = [], 0.0
    for score in NORMAL:
        total = max(0.0, total + score - 0.1 - 0.25)
        expected.append(total)
        if limit is not None and total > limit:
            total = 0.0
    found = cusum(NORMAL, mean=0.1, slack=0.25, limit=limit)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_sum_is_the_height_above_the_lowest_point_so_far():
    path = np.concatenate([[0], np.cumsum(NORMAL - 0.5)])
    height = path - np.minimum.accumulate(path)
    np.testing.assert_allclose(cusum(NORMAL), height[1:], atol=1e-12)


def test_a_small_lasting_shift_is_noticed_though_no_score_stands_out():
    scores = np.r_[np.zeros(20), np.ones(20)]
    assert not alarm_times(scores, 3).size
    assert alarm_times(cusum(scores), 3).tolist() == list(range(26, 40))
    assert alarm_times(cusum(scores, limit=3), 3).tolist() == [26, 33]


# -- an estimated threshold


@pytest.mark.parametrize(("n", "fpr"), [(99, 0.05), (50, 0.1), (300, 0.02)])
def test_the_rate_of_a_learned_threshold_is_beta_distributed(n, fpr):
    """Exponential scores here; with the rank off by one the test fails."""
    draws = np.random.default_rng(1).exponential(size=(2000, n))
    rates = [math.exp(-quantile_threshold(row, fpr)) for row in draws]
    assert stats.kstest(rates, stats.beta(*fpr_distribution(n, fpr)).cdf).pvalue > 1e-3
    lengths = 1 / np.array(rates)
    error = lengths.std() / math.sqrt(len(lengths))
    assert abs(lengths.mean() - quantile_run_length(n, fpr)) < 4 * error
    assert quantile_run_length(n, fpr) > shewhart_run_length(fpr)
    assert np.median(lengths) < quantile_run_length(n, fpr)


def test_a_threshold_at_the_largest_score_has_no_finite_mean():
    assert quantile_run_length(19, 0.05) == math.inf
    assert quantile_run_length(39, 0.05) == 39
    assert quantile_run_length(10**6, 0.05) == pytest.approx(20, rel=1e-4)


def test_the_mean_hides_the_charts_that_are_worse_than_promised():
    assert quantile_run_length(99, 0.05) == 24.75
    worse = stats.beta(*fpr_distribution(99, 0.05)).sf(0.05)
    assert worse == pytest.approx(0.44, abs=0.005)


# -- CUSUM


@pytest.mark.parametrize(
    ("limit", "shift", "expected"),
    [
        (4, 0, 336),
        (4, 0.5, 26.6),
        (4, 1, 8.38),
        (4, 2, 3.34),
        (5, 0, 930),
        (5, 0.5, 38.0),
        (5, 1, 10.4),
        (5, 2, 4.01),
    ],
)
def test_run_lengths_are_those_of_published_tables(limit, shift, expected):
    """Slack 0.5. Montgomery, Introduction to statistical quality control, table 9.3, has
    two sides: without a shift, half of the run length of one.
    """
    assert cusum_run_length(limit, 0.5, shift) == pytest.approx(expected, rel=3e-3)


def by_integral_equation(limit, slack, shift, n=80):
    """L(u) = 1 + L(0) Φ(k − δ − u) + ∫ L(y) φ(y − u + k − δ) dy, at Gauss's nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    nodes, weights = (nodes + 1) * limit / 2, weights * limit / 2
    start, drift = np.r_[0, nodes], slack - shift
    kernel = np.zeros((n + 1, n + 1))
    kernel[:, 0] = stats.norm.cdf(drift - start)
    kernel[:, 1:] = weights * stats.norm.pdf(nodes - start[:, None] + drift)
    return np.linalg.solve(np.eye(n + 1) - kernel, np.ones(n + 1))[0]


@pytest.mark.parametrize(
    "case", [(4, 0.5, 0), (10, 0.5, 0), (8, 0.25, 1), (5, 1, -0.2)]
)
def test_run_lengths_solve_the_integral_equation(case):
    assert cusum_run_length(*case) == pytest.approx(by_integral_equation(*case), 5e-4)


def test_run_lengths_are_those_of_simulated_charts():
    scores = np.random.default_rng(2).normal(1, 1, size=20_000)
    alarms = alarm_times(cusum(scores, limit=4), 4)
    lengths = np.diff(alarms, prepend=-1)
    error = lengths.std() / math.sqrt(len(lengths))
    assert abs(lengths.mean() - cusum_run_length(4, shift=1)) < 4 * error


def test_a_limit_of_zero_is_a_threshold():
    rate = stats.norm.sf(0.5)
    assert cusum_run_length(0, 0.5) == pytest.approx(shewhart_run_length(rate))


@pytest.mark.parametrize(("length", "slack"), [(370, 0.5), (1e6, 3), (4, 0.5)])
def test_the_limit_has_the_run_length_it_was_asked_for(length, slack):
    assert cusum_run_length(cusum_limit(length, slack), slack) == pytest.approx(length)


def test_the_sum_notices_a_small_shift_sooner_and_a_large_one_later():
    threshold = stats.norm.isf(1 / 370)
    limit = cusum_limit(370)
    for shift, sooner in ((1, True), (4, False)):
        single = shewhart_run_length(stats.norm.sf(threshold - shift))
        assert (cusum_run_length(limit, 0.5, shift) < single) == sooner


# -- bad input

test_bad_input = refuses(
    (lambda: cusum(MAPS), ValueError, "scores…(N,)…(8, 6, 5)"),
    (lambda: cusum(spoiled(SCORES, NAN)), ValueError, "scores…finite…1"),
    (lambda: cusum(SCORES, mean="0"), TypeError, "mean…str"),
    (lambda: cusum(SCORES, slack=-1), ValueError, "slack…-1"),
    (lambda: cusum(SCORES, limit=-1), ValueError, "limit…-1"),
    (lambda: alarm_times(MAPS, 1), ValueError, "statistic…(N,)…(8, 6, 5)"),
    (lambda: alarm_times(SCORES, NAN), ValueError, "limit…nan"),
    (lambda: shewhart_run_length(0), ValueError, "rate…(0, 1]…0"),
    (lambda: quantile_run_length(0, 0.1), ValueError, "n…[1, inf)…0"),
    (lambda: quantile_run_length(18, 0.05), ValueError, "n…at least 19…18"),
    (lambda: fpr_distribution(9.0, 0.1), TypeError, "n…integer…9.0"),
    (lambda: fpr_distribution(9, 1), ValueError, "fpr…(0, 1)…1"),
    (lambda: cusum_run_length(21), ValueError, "limit…[0, 20]…21"),
    (lambda: cusum_run_length(20, 2), ValueError, "limit…1e+09…20…slack 2"),
    (lambda: cusum_run_length(1, 50), ValueError, "limit…1e+09…1…slack 50"),
    (lambda: cusum_run_length(4, -1), ValueError, "slack…-1"),
    (lambda: cusum_run_length(4, shift=NAN), ValueError, "shift…nan"),
    (lambda: cusum_limit(3), ValueError, "run_length…at least 3.241…3"),
    (lambda: cusum_limit(1e5, 0), ValueError, "run_length…at most…1"),
    (lambda: cusum_limit(100, 4), ValueError, "slack…[0, 3]…4"),
    (lambda: cusum_limit(700, 3), ValueError, "run_length…at least 740.8…700"),
    (lambda: cusum_limit(1e7), ValueError, "run_length…[1, 1000000.0]…1"),
)
