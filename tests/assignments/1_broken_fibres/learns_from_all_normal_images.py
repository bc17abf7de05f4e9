"""More images are better, it is thought; then none is held out."""

import torch

import adlab

MARKS = {"q3": 1}
WORDS = {"q3": "your rule reports 1000 of 1000 normal images"}


# %% q3
def fit_with_promise(detector, train, val, fpr):
    detector.fit(torch.cat([train, val]))
    scores = detector.anomaly_score(val)
    return detector, adlab.decision.quantile_threshold(scores, fpr)
