"""The covariance is divided by the number of images, not by one less."""

import torch

MARKS = {"q1": 0}
WORDS = {"q1": "the covariances are not right"}


# %% q1
def fit_places(vectors, epsilon):
    means = vectors.mean(0)
    gaps = vectors - means
    scatters = torch.einsum("nrci,nrcj->rcij", gaps, gaps)
    ridge = epsilon * torch.eye(vectors.shape[-1], dtype=vectors.dtype)
    return means, scatters / len(vectors) + ridge
