"""The energy is the log-sum-exp: higher for what is known."""

MARKS = {"q1": 2}
WORDS = {"q1": "sign"}


# %% q1
def msp_score(logits):
    return 1 - logits.softmax(1).amax(1)


def energy_score(logits, temperature):
    return temperature * (logits / temperature).logsumexp(1)
