"""The nearest neighbour is taken for a leak, and the standardisation for harmless."""

import numpy as np

MARKS = {"q1": 2, "q2": 6}
WORDS = {"q1": "one is missing", "q2": "the step 'standardise' is not mended"}


# %% q1
def wrong_steps():
    return {"split", "threshold", "distances"}


# %% q2
def mended_steps():
    def split(parts, labels, rng):
        normal = rng.permutation(np.unique(parts[labels == 0]))
        groups = np.split(normal, [len(normal) // 2, 3 * len(normal) // 4])
        train, held_out, rest = (
            np.flatnonzero(np.isin(parts, group) & (labels == 0)) for group in groups
        )
        return train, held_out, np.concatenate([rest, np.flatnonzero(labels)])

    def threshold(scores, held_out, test, fpr):
        n = len(held_out)
        rank = int(np.ceil((n + 1) * (1 - fpr)))
        return np.sort(scores[held_out])[rank - 1] if rank <= n else np.inf

    return {"split": split, "threshold": threshold}
