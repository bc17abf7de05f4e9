"""All places share one mean and one covariance."""

import torch

MARKS = {"q1": 0}
WORDS = {"q1": "the means are not right"}


# %% q1
def fit_places(vectors, epsilon):
    h, w, d = vectors.shape[1:]
    rows = vectors.flatten(0, 2)
    covariance = rows.T.cov() + epsilon * torch.eye(d, dtype=rows.dtype)
    return rows.mean(0).expand(h, w, d), covariance.expand(h, w, d, d)
