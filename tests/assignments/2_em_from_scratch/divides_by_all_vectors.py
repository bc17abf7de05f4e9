"""Means and covariances are divided by N, not by the share of the component."""

import torch

MARKS = {"q2": 0}
WORDS = {"q2": "divides by N, not by the sum of a component's responsibilities"}


# %% q2
def m_step(x, responsibilities):
    n = len(x)
    means = responsibilities.T @ x / n
    right = responsibilities.T @ x / responsibilities.sum(0)[:, None]
    gaps = x[:, None] - right
    scatters = torch.einsum("nk,nki,nkj->kij", responsibilities, gaps, gaps)
    return responsibilities.sum(0) / n, means, scatters / n
