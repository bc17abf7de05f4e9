"""The threshold is that of images which the detector has seen."""

import adlab

MARKS = {"q3": 1}
WORDS = {"q3": "your rule reports 1000 of 1000 normal images"}


# %% q3
def fit_with_promise(detector, train, val, fpr):
    scores = detector.fit(train).anomaly_score(train)
    return detector, adlab.decision.quantile_threshold(scores, fpr)
