"""A quantile of NumPy, which interpolates and promises nothing."""

MARKS = {"q2": 0}
WORDS = {"q2": "interpolates between scores: that promises nothing"}


# %% q2
def quantile_threshold(scores, fpr):
    import numpy as np

    return np.quantile(scores, 1 - fpr)
