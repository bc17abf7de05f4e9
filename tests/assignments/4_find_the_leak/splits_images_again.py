"""The split is drawn anew, but photographs of one part still go both ways."""

import numpy as np

MARKS = {"q2": 6}
WORDS = {"q2": "parts are both trained on and tested on"}


# %% q2
def mended_steps():
    def split(parts, labels, rng):
        order = rng.permutation(len(parts))
        normal = order[labels[order] == 0]
        half, quarter = len(normal) // 2, len(normal) // 4
        test = np.concatenate([normal[half + quarter :], np.flatnonzero(labels)])
        return normal[:half], normal[half : half + quarter], test

    def standardise(images, train):
        known = images[train]
        return (images - known.mean(0)) / (known.std(0) + 1e-6)

    def threshold(scores, held_out, test, fpr):
        n = len(held_out)
        rank = int(np.ceil((n + 1) * (1 - fpr)))
        return np.sort(scores[held_out])[rank - 1] if rank <= n else np.inf

    return {"split": split, "standardise": standardise, "threshold": threshold}
