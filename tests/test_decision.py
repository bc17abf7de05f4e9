"""Decision rules: exact ranks, and what the thresholds promise, by simulation."""

import numpy as np
import pytest
import torch
from bad_input import MAPS, NAN, SCORES, refuses, spoiled
from scipy import stats

from adlab import decision
from adlab.decision import (
    bootstrap_threshold,
    quantile_threshold,
    sigma_threshold,
    tolerance_threshold,
)

# -- quantile


@pytest.mark.parametrize(
    ("n", "fpr", "rank"),
    [
        (99, 0.05, 95),
        (19, 0.05, 19),
        (100, 0.05, 96),
        (20, 0.05, 20),
        (9, 0.1, 9),
        (9, 1 - 0.9, 9),  # 1 - 0.9 < 0.1 in floating point
        (99, 0.29, 71),  # 100 * 0.29 < 29 in floating point
        (99, 0.07, 93),  # 100 * 0.07 > 7 in floating point
        (99, 1 - 0.95, 95),
        (999, 0.001, 999),
        (4, 0.5, 3),
        (1, 0.5, 1),
        (10, 0.99, 1),
        (10, 1 - 1e-12, 1),
    ],
)
def test_the_threshold_is_the_score_of_the_exact_rank(n, fpr, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    assert decision.quantile_threshold(scores, fpr) == rank


def test_all_ranks_of_99_scores():
    """With n + 1 = 100 the rank is 100 - 100 fpr, however fpr was computed."""
    scores = np.arange(1, 100)
    for percent in range(1, 100):
        for fpr in (percent / 100, 1 - (100 - percent) / 100):
            assert decision.quantile_threshold(scores, fpr) == 100 - percent


@pytest.mark.parametrize(
    ("fpr", "needed"), [(0.05, 19), (0.1, 9), (1 - 0.9, 9), (0.01, 99), (0.3, 3)]
)
def test_too_few_scores_are_refused_with_the_number_needed(fpr, needed):
    decision.quantile_threshold(np.arange(needed), fpr)
    with pytest.raises(
        ValueError, match=f"scores: expected at least {needed} normal scores"
    ):
        decision.quantile_threshold(np.arange(needed - 1), fpr)


@pytest.mark.parametrize(
    "draw", ["standard_normal", "standard_exponential", "standard_cauchy"]
)
@pytest.mark.parametrize(("n", "fpr"), [(19, 0.05), (30, 0.1), (50, 0.05)])
def test_a_new_normal_score_exceeds_the_threshold_as_rarely_as_promised(n, fpr, draw):
    """The exact probability is (n + 1 - rank) / (n + 1), whatever the distribution."""
    draws = 10_000
    samples = getattr(np.random.default_rng(1), draw)((draws, n + 1))
    alarms = [row[-1] > decision.quantile_threshold(row[:-1], fpr) for row in samples]
    exact = int((n + 1) * fpr + 1e-9) / (n + 1)
    error = np.sqrt(exact * (1 - exact) / draws)
    assert exact <= fpr
    assert abs(np.mean(alarms) - exact) < 4 * error


def test_ties_make_the_rule_only_safer():
    rng = np.random.default_rng(2)
    samples = rng.integers(0, 5, size=(10_000, 40))
    alarms = [row[-1] > decision.quantile_threshold(row[:-1], 0.1) for row in samples]
    assert np.mean(alarms) < 0.1


@pytest.mark.parametrize(("n", "fpr"), [(59, 0.05), (93, 0.05), (200, 0.1), (44, 0.1)])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_a_tolerance_threshold_is_the_lowest_that_binomial_counts_allow(
    n, fpr, confidence
):
    """The rate of the k-th smallest of n is above fpr where k or more of n scores are
    below the quantile 1 - fpr, and that number is binomial.
    """
    rank = tolerance_threshold(np.arange(1, n + 1), fpr, confidence)
    broken = stats.binom.sf(np.array([rank - 1, rank - 2]), n, 1 - fpr)
    assert broken[0] <= 1 - confidence + 1e-9 < broken[1] + 2e-9


def test_a_tolerance_threshold_keeps_its_promise_and_a_quantile_does_not():
    rng = np.random.default_rng(3)
    sets = rng.standard_exponential((4000, 150))
    for rule, low, high in (
        (lambda s: tolerance_threshold(s, 0.05, 0.9), 0, 0.1),
        (lambda s: quantile_threshold(s, 0.05), 0.3, 0.5),
    ):
        rates = np.exp([-rule(scores) for scores in sets])  # true rates of thresholds
        assert low <= (rates > 0.05).mean() <= high + 3 * (0.09 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("fpr", "confidence", "needed"),
    [(0.05, 0.95, 59), (0.1, 0.9, 22), (0.01, 0.95, 299)],
)
def test_too_few_scores_for_a_tolerance_threshold(fpr, confidence, needed):
    tolerance_threshold(np.arange(needed), fpr, confidence)
    with pytest.raises(ValueError, match=f"scores: expected at least {needed} normal"):
        tolerance_threshold(np.arange(needed - 1), fpr, confidence)


def test_thresholds_keep_the_unit_of_the_scores():
    scores = np.random.default_rng(3).normal(size=200)
    for moved, back in (
        (scores * 50 - 1000, lambda t: (t + 1000) / 50),
        (scores + 1e6, lambda t: t - 1e6),
    ):
        for rule in (
            lambda s: decision.quantile_threshold(s, 0.05),
            decision.sigma_threshold,
            lambda s: decision.bootstrap_threshold(s, 0.05, n_resamples=50).threshold,
        ):
            assert back(rule(moved)) == pytest.approx(rule(scores), abs=1e-7)


def test_a_float32_score_never_exceeds_itself():
    """The threshold is one of the scores; compared in float32 it must be equal to it,
    not below.
    """
    scores = torch.rand(19, generator=torch.Generator().manual_seed(0))
    threshold = decision.quantile_threshold(scores, 0.05)
    assert isinstance(threshold, float)
    assert not (scores > threshold).any()
    assert not (scores.numpy() > threshold).any()


# -- k sigma


def test_sigma_threshold_by_hand():
    assert decision.sigma_threshold([0.0, 2.0]) == pytest.approx(1 + 3 * np.sqrt(2))
    assert decision.sigma_threshold([1, 2, 3, 4], k=0) == 2.5
    assert decision.sigma_threshold([1, 2, 3], k=1.5) == pytest.approx(3.5)


def test_three_sigma_of_gaussian_scores_give_the_rate_of_the_book():
    scores = np.random.default_rng(4).normal(-40, 7, size=100_000)
    rate = stats.norm.sf(decision.sigma_threshold(scores), -40, 7)
    assert rate == pytest.approx(0.00135, abs=1e-4)


def test_three_sigma_of_skewed_scores_do_not():
    scores = np.random.default_rng(5).exponential(size=100_000)
    assert stats.expon.sf(decision.sigma_threshold(scores)) > 0.015


def test_sigma_threshold_needs_two_scores():
    with pytest.raises(
        ValueError, match="scores: expected at least 2 normal scores, got 1"
    ):
        decision.sigma_threshold([1.0])


# -- bootstrap


def normal_scores(n: int, seed: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_the_bootstrap_mean_is_close_to_the_sample_quantile():
    scores = normal_scores(2000)
    got = decision.bootstrap_threshold(scores, 0.1)
    assert got.threshold == pytest.approx(np.quantile(scores, 0.9), abs=0.02)
    assert got.low < got.threshold < got.high
    assert got._fields == ("threshold", "low", "high")


def test_the_bootstrap_depends_on_the_seed_alone():
    scores = normal_scores(100)
    first = decision.bootstrap_threshold(scores, 0.1, n_resamples=100, seed=3)
    np.random.seed(99)
    assert decision.bootstrap_threshold(scores, 0.1, n_resamples=100, seed=3) == first
    assert decision.bootstrap_threshold(scores, 0.1, n_resamples=100, seed=4) != first


def test_the_bootstrap_leaves_the_global_generator_alone():
    np.random.seed(0)
    want = np.random.random()
    np.random.seed(0)
    decision.bootstrap_threshold(normal_scores(20), 0.1, n_resamples=10)
    assert np.random.random() == want


def width(n: int, **options) -> float:
    got = decision.bootstrap_threshold(
        normal_scores(n), 0.1, n_resamples=200, **options
    )
    return got.high - got.low


def test_the_interval_narrows_with_more_scores_and_less_confidence():
    assert 0 < width(6400) < 0.5 * width(400)
    assert 0 < width(400, confidence=0.5) < 0.6 * width(400, confidence=0.95)


def test_the_interval_has_the_width_that_theory_gives():
    """Standard error of a quantile: sqrt(q (1 - q) / n) / density; 95 % are 3.92 of
    them.
    """
    z = stats.norm.ppf(0.9)
    error = np.sqrt(0.9 * 0.1 / 3000) / stats.norm.pdf(z)
    assert width(3000) == pytest.approx(3.92 * error, rel=0.3)


def test_the_interval_covers_the_true_quantile_about_as_often_as_it_says():
    truth = stats.norm.ppf(0.9)
    covered = 0
    for seed in range(100):
        got = decision.bootstrap_threshold(
            normal_scores(300, seed), 0.1, n_resamples=200, confidence=0.9
        )
        covered += got.low <= truth <= got.high
    assert 80 <= covered <= 98


def test_constant_scores_have_no_spread():
    assert decision.bootstrap_threshold([2.0] * 5, 0.1, n_resamples=10) == (2, 2, 2)


def test_bootstrap_threshold_needs_two_scores():
    with pytest.raises(
        ValueError, match="scores: expected at least 2 normal scores, got 1"
    ):
        decision.bootstrap_threshold([1.0], 0.1)


# -- bad input


WITH_NAN = spoiled(SCORES, NAN)


test_bad_input = refuses(
    (lambda: quantile_threshold(SCORES, 5), ValueError, "fpr…(0, 1)…5"),
    (lambda: quantile_threshold(SCORES, 0), ValueError, "fpr…(0, 1)…0"),
    (lambda: quantile_threshold(SCORES, 0.01), ValueError, "scores…99…8"),
    (lambda: quantile_threshold(WITH_NAN, 0.5), ValueError, "scores"),
    (lambda: sigma_threshold([1.0]), ValueError, "scores…at least 2…1"),
    (lambda: tolerance_threshold(SCORES, 0), ValueError, "fpr…(0, 1)…0"),
    (lambda: tolerance_threshold(SCORES, 0.1), ValueError, "scores…29…8"),
    (lambda: tolerance_threshold(SCORES, 0.1, 1), ValueError, "confidence…1"),
    (lambda: tolerance_threshold(WITH_NAN, 0.1), ValueError, "scores…NaN"),
    (lambda: sigma_threshold(SCORES, k=-3), ValueError, "k…-3"),
    (lambda: sigma_threshold(MAPS), ValueError, "scores…(N,)…(8, 6, 5)"),
    (lambda: bootstrap_threshold(SCORES, 1), ValueError, "fpr…1"),
    (lambda: bootstrap_threshold(SCORES, 0.1, 0), ValueError, "n_resamples…0"),
    (lambda: bootstrap_threshold(SCORES, 0.1, seed=-1), ValueError, "seed…-1"),
    (lambda: bootstrap_threshold(SCORES, 0.1, confidence=5), ValueError, "confidence"),
    (lambda: bootstrap_threshold("abc", 0.1), TypeError, "scores…str"),
)
