"""Oracles and data of the hidden tests of assignment 2."""

import torch
from grading import seed


def joint(x, weights, means, covariances):
    """Return log π φ of each vector and component, (N, K)."""
    normal = torch.distributions.MultivariateNormal(means, covariances)
    return weights.log() + normal.log_prob(x[:, None])


def steps():
    """Return an E-step and an M-step that are right."""

    def e_step(x, *parameters):
        log_joint = joint(x, *parameters)
        return log_joint.softmax(1), log_joint.logsumexp(1)

    def m_step(x, responsibilities):
        counts = responsibilities.sum(0)
        means = responsibilities.T @ x / counts[:, None]
        gaps = x - means[:, None]
        scatters = (responsibilities.T[:, :, None] * gaps).mT @ gaps
        return counts / len(x), means, scatters / counts[:, None, None]

    return e_step, m_step


def mixture(k):
    """Return vectors, their responsibilities, the weights, means and covariances, and
    the log-likelihood, of the k-th seed.
    """
    generator = torch.Generator().manual_seed(seed(k))
    x = 2 * torch.randn(60, 3, generator=generator).double()
    roots = torch.randn(4, 3, 3, generator=generator).double()
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    means = torch.randn(4, 3, generator=generator).double()
    parameters = weights, means, torch.eye(3).double() + roots @ roots.mT
    responsibilities, log_p = steps()[0](x, *parameters)
    return x, responsibilities, parameters, float(log_p.sum())


def em_run(k, n_steps):
    """Return vectors of two clouds, means to start with, and what EM gives after so many
    steps. The vectors are many, so that no component collapses.
    """
    generator = torch.Generator().manual_seed(seed(k))
    x = torch.randn(500, 2, generator=generator).double() * torch.tensor(
        [2.0, 1.0]
    )
    x[:200] += torch.tensor([4.0, 1.0])
    means = x[[0, -1]]
    e_step, m_step = steps()
    state = (
        torch.full((2,), 0.5).double(),
        means,
        torch.eye(2).double().expand(2, 2, 2),
    )
    climb = []
    for _ in range(n_steps):
        responsibilities, log_p = e_step(x, *state)
        climb.append(float(log_p.mean()))
        state = m_step(x, responsibilities)
    return x, means, (*state, climb)
