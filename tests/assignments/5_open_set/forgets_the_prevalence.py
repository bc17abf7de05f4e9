"""The costs are averaged over all wafers at hand, whatever the prevalence."""

import torch

MARKS = {"q3": 2}
WORDS = {"q3": "with a prevalence of 0.03 your cost is"}


# %% q3
def answers(logits, scores, threshold):
    return torch.where(scores > threshold, torch.tensor(-1), logits.argmax(1))


def expected_cost(to_known, labels, to_unknown, prevalence, costs):
    rejected = to_known == -1
    wrong = ~rejected & (to_known != labels)
    total = costs["rejected"] * rejected.sum() + costs["wrong"] * wrong.sum()
    total += costs["missed"] * (to_unknown != -1).sum()
    return float(total / (len(to_known) + len(to_unknown)))
