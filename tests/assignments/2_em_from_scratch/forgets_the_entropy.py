"""The bound is taken for Q: the logarithm of the responsibilities is left out."""

MARKS = {"q3": 1}
WORDS = {"q3": "after an E-step your bound is"}


# %% q3
def elbo(x, responsibilities, weights, means, covariances, e_step):
    posterior, log_p = e_step(x, weights, means, covariances)
    log_joint = posterior.log() + log_p[:, None]
    return float((responsibilities * log_joint).sum())
