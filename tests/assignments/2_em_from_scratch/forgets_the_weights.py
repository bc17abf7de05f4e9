"""The components are taken to be equally frequent."""

import torch

MARKS = {"q1": 1}
WORDS = {"q1": "forgets the weights of the components"}


# %% q1
def e_step(x, weights, means, covariances):
    normal = torch.distributions.MultivariateNormal(means, covariances)
    log_joint = normal.log_prob(x[:, None])
    return log_joint.softmax(1), log_joint.logsumexp(1)
