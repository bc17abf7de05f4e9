"""The costs of both mistakes are added as if every second piece were faulty."""

MARKS = {"q1": 1}
WORDS = {"q1": "your cost is 2, expected 1.4"}


# %% q1
def expected_cost(fpr, tpr, prevalence, alarm, miss):
    return alarm * fpr + miss * (1 - tpr)


def costs_without(prevalence, alarm, miss):
    return prevalence * miss, (1 - prevalence) * alarm
