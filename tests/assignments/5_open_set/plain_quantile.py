"""The quantile of the held-out scores, which promises a little too much."""

MARKS = {"q2": 0}
WORDS = {"q2": "asked to accept 85% of known wafers, you accept"}


# %% q2
def accepting_threshold(scores, share):
    return float(scores.quantile(share))
