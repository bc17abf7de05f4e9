"""The threshold where the two error rates are alike, without costs."""

import torch

MARKS = {"q4": 0}
WORDS = {"q4": "at the cheapest"}


# %% q4
def cheapest_threshold(known_scores, known_correct, stand_in_scores, prevalence, costs):
    every = torch.cat([known_scores, stand_in_scores]).sort().values
    gaps = [
        abs(
            float((known_scores > t).double().mean())
            - float((stand_in_scores <= t).double().mean())
        )
        for t in every
    ]
    return float(every[gaps.index(min(gaps))])
