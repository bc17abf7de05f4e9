"""To pass all pieces is taken for reporting them all."""

MARKS = {"q1": 2}
WORDS = {"q1": "to pass all costs 1.5"}


# %% q1
def expected_cost(fpr, tpr, prevalence, alarm, miss):
    return (1 - prevalence) * alarm * fpr + prevalence * miss * (1 - tpr)


def costs_without(prevalence, alarm, miss):
    return (1 - prevalence) * alarm, prevalence * miss
