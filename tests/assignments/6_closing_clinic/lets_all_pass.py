"""The threshold lies above all scores that are known, so that nothing is reported."""

import math

from adlab.vectors import KNN

MARKS = {"q2": 2}
WORDS = {"q2": "lamp: with 0% false alarms and 0% found, a piece costs 2.00"}


# %% q2
def examine(train, held_out, returned, terms):
    return KNN(1).fit(train), math.inf
