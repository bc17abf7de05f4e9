"""Oracles and data of the hidden tests of assignment 5."""

import math

import torch
from grading import answer, seed


def drawn(k):
    """Return a generator of the k-th seed."""
    return torch.Generator().manual_seed(seed(k))


def check_promise(accepting_threshold, share=0.85, n=39, draws=4000):
    """Assert that a new score is accepted as often as promised, and not much oftener."""
    scores = torch.rand(draws, n, generator=drawn(2)).double()
    limits = torch.tensor(
        [float(answer(accepting_threshold, row, share)) for row in scores]
    )
    accepted = limits.clamp(0, 1)  # of a new score, uniform in [0, 1]
    rate, slack = accepted.mean(), 4 * accepted.std() / math.sqrt(draws)
    assert rate > share - slack, (
        f"asked to accept {share:.0%} of known wafers, you accept {rate:.1%}"
    )
    assert rate < share + 1 / (n + 1) + slack, (
        f"asked to accept {share:.0%} of known wafers, you accept {rate:.1%}; a smaller "
        "threshold would do"
    )


def check_answers(answers):
    """Assert the class where the score is at most the threshold, -1 elsewhere."""
    generator = drawn(3)
    logits = torch.randn(60, 5, generator=generator)
    scores = torch.randint(7, (60,), generator=generator).double()
    found = torch.as_tensor(answer(answers, logits, scores, 3.0))
    expected = [
        -1 if score > 3 else max(range(5), key=row.__getitem__)
        for row, score in zip(logits.tolist(), scores.tolist(), strict=True)
    ]
    assert found.tolist() == expected, (
        f"{sum(a != b for a, b in zip(found.tolist(), expected, strict=False))} of 60 "
        "answers are not right; is a score that equals the threshold accepted?"
    )


def check_cost(expected_cost):
    """Assert the cost, with a prevalence that is not that of the samples."""
    generator = drawn(4)
    labels = torch.randint(4, (200,), generator=generator)
    to_known = torch.where(
        torch.rand(200, generator=generator) < 0.7, labels, -1
    )
    mistaken = torch.rand(200, generator=generator) < 0.1
    to_known = torch.where(mistaken, (labels + 1) % 4, to_known)
    to_unknown = torch.randint(-1, 4, (50,), generator=generator)
    costs = {"wrong": 3.0, "rejected": 2.0, "missed": 30.0}
    found = float(
        answer(expected_cost, to_known, labels, to_unknown, 0.03, costs)
    )
    of_known = sum(
        2.0 if said == -1 else 3.0 * (said != label)
        for said, label in zip(to_known.tolist(), labels.tolist(), strict=True)
    )
    missed = sum(said != -1 for said in to_unknown.tolist())
    expected = 0.97 * of_known / 200 + 0.03 * 30 * missed / 50
    assert abs(found - expected) < 1e-6, (
        f"with a prevalence of 0.03 your cost is {found:.4f}, expected {expected:.4f}"
    )


def cost_at(
    threshold, known_scores, known_correct, stand_ins, prevalence, costs
):
    """Return the expected cost of one threshold."""
    of_known = torch.where(
        known_scores > threshold,
        costs["rejected"],
        torch.where(known_correct, 0.0, costs["wrong"]),
    ).mean()
    missed = (stand_ins <= threshold).double().mean()
    return float(
        (1 - prevalence) * of_known + prevalence * costs["missed"] * missed
    )


def check_least(cheapest_threshold, *case):
    """Assert that no threshold is cheaper."""
    found = float(answer(cheapest_threshold, *case))
    candidates = [-math.inf, math.inf, *case[0].tolist(), *case[2].tolist()]
    least = min(cost_at(each, *case) for each in candidates)
    cost = cost_at(found, *case)
    assert cost < least + 1e-9, (
        f"at your threshold {found:.4g} a wafer costs {cost:.4f}; at the cheapest "
        f"{least:.4f}"
    )


def case(k, prevalence, costs):
    """Return scores that overlap, with prevalence and costs."""
    generator = drawn(k)
    known = torch.randn(150, generator=generator).double()
    correct = torch.rand(150, generator=generator) > 0.3 * (known > 0)
    stand_ins = 2 + torch.randn(60, generator=generator).double()
    return known, correct, stand_ins, prevalence, costs


def check_cheapest(cheapest_threshold):
    """With costs for which the best threshold lies among the scores."""
    for k, prevalence in ((5, 0.02), (6, 0.1), (7, 0.4)):
        costs = {"wrong": 2.0, "rejected": 1.0, "missed": 10.0}
        check_least(cheapest_threshold, *case(k, prevalence, costs))


def check_extremes(cheapest_threshold):
    """With costs for which it is cheapest to accept, or to reject, all wafers."""
    for k, missed in ((8, 0.0), (9, 1e4)):
        costs = {"wrong": 0.5, "rejected": 1.0, "missed": missed}
        check_least(cheapest_threshold, *case(k, 0.3, costs))
