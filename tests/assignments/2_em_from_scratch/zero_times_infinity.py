"""0 log 0 is NaN, and the bound of a hard assignment with it."""

MARKS = {"q3": 3}
WORDS = {"q3": "where each vector belongs to one component alone, your bound is nan"}


# %% q3
def elbo(x, responsibilities, weights, means, covariances, e_step):
    posterior, log_p = e_step(x, weights, means, covariances)
    log_joint = posterior.log() + log_p[:, None]
    return float((responsibilities * (log_joint - responsibilities.log())).sum())
