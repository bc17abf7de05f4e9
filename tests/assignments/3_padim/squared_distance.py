"""The root is forgotten."""

import torch

MARKS = {"q2": 1}
WORDS = {"q2": "the first distance is"}


# %% q2
def distance_map(vectors, means, covariances):
    gaps = vectors - means
    inverse = torch.linalg.inv(covariances)
    return torch.einsum("brci,rcij,brcj->brc", gaps, inverse, gaps)
