"""Densities are multiplied and divided, and logarithms taken last."""

import torch

MARKS = {"q1": 0}
WORDS = {"q1": "multiplies densities that are rounded to 0: take logarithms first"}


# %% q1
def e_step(x, weights, means, covariances):
    normal = torch.distributions.MultivariateNormal(means, covariances)
    joint = weights * normal.log_prob(x[:, None]).exp()
    p = joint.sum(1)
    return joint / p[:, None], p.log()
