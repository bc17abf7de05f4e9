"""The pieces sent back are learned as well, so that their scores are zero."""

import math

import torch

from adlab.vectors import KNN

MARKS = {"q2": 4}
WORDS = {"q2": "wall: with 100% false alarms"}


# %% q2
def examine(train, held_out, returned, terms):
    detector = KNN(1).fit(torch.cat([train, returned]))
    good, bad = map(detector.anomaly_score, (held_out, returned))
    best = math.inf, None
    for threshold in [-math.inf, *good.tolist(), *bad.tolist()]:
        fpr = float((good > threshold).float().mean())
        tpr = float((bad > threshold).float().mean())
        cost = (1 - terms["prevalence"]) * terms["alarm"] * fpr
        cost += terms["prevalence"] * terms["miss"] * (1 - tpr)
        best = min(best, (cost, threshold))
    return detector, best[1]
