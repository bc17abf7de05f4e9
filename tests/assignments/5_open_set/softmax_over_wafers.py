"""The softmax runs over the wafers, not over the classes."""

MARKS = {"q1": 2}
WORDS = {"q1": "over the samples"}


# %% q1
def msp_score(logits):
    return 1 - logits.softmax(0).amax(1)


def energy_score(logits, temperature):
    return -temperature * (logits / temperature).logsumexp(1)
