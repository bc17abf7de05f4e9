"""The threshold is the plain quantile of the held-out scores, which promises too much;
the standardisation includes what is held out.
"""

import numpy as np

MARKS = {"q2": 3}
WORDS = {"q2": "asked for 10% false alarms, you give"}


# %% q2
def mended_steps():
    def split(parts, labels, rng):
        normal = rng.permutation(np.unique(parts[labels == 0]))
        groups = np.split(normal, [len(normal) // 2, 3 * len(normal) // 4])
        train, held_out, rest = (
            np.flatnonzero(np.isin(parts, group) & (labels == 0)) for group in groups
        )
        return train, held_out, np.concatenate([rest, np.flatnonzero(labels)])

    def standardise(images, train):
        return (images - images[train].mean(0)) / (images.std(0) + 1e-6)

    def threshold(scores, held_out, test, fpr):
        return np.quantile(scores[held_out], 1 - fpr)

    return {"split": split, "standardise": standardise, "threshold": threshold}
