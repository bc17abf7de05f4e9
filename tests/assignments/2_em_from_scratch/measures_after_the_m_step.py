"""The log-likelihood is that of the parameters after the M-step."""

import torch

MARKS = {"q4": 2}
WORDS = {"q4": "the first mean log-likelihood is"}


# %% q4
def em(x, means, n_steps, e_step, m_step):
    k, d = means.shape
    state = torch.full((k,), 1 / k).to(x), means, torch.eye(d).to(x).expand(k, d, d)
    climb = []
    for _ in range(n_steps):
        responsibilities, _ = e_step(x, *state)
        state = m_step(x, responsibilities)
        climb.append(float(e_step(x, *state)[1].mean()))
    return *state, climb
