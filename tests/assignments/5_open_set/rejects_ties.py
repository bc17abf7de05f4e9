"""A score that equals the threshold is called unknown."""

import torch

MARKS = {"q3": 3}
WORDS = {"q3": "is a score that equals the threshold accepted?"}


# %% q3
def answers(logits, scores, threshold):
    return torch.where(scores >= threshold, torch.tensor(-1), logits.argmax(1))


def expected_cost(to_known, labels, to_unknown, prevalence, costs):
    rejected = to_known == -1
    wrong = ~rejected & (to_known != labels)
    of_known = costs["rejected"] * rejected + costs["wrong"] * wrong
    of_unknown = costs["missed"] * (to_unknown != -1)
    cost = (1 - prevalence) * of_known.double().mean()
    return float(cost + prevalence * of_unknown.double().mean())
