"""Data and oracles of the hidden tests of assignment 1."""

from functools import lru_cache
from math import ceil

import torch
from grading import answer, fresh, seed
from scipy.stats import betabinom

CHANCE = 1e-5  # that a right answer is taken for a wrong one, for each promise


@lru_cache
def fibres():
    """Return normal training images, test images, and the kind of each of these."""
    data = fresh("adlab.data").load(
        "nanofibres", seed=seed(1), n_val=1, n_test=400
    )
    return data.train.images, data.test.images, data.test.kinds


@lru_cache
def scores(make_detector):
    """Return the scores of the test images by a detector of one's own."""
    train, test, _ = fibres()
    detector = answer(make_detector)
    detector.fit(train)
    found = torch.as_tensor(detector.anomaly_score(test))
    assert found.shape == (len(test),) and bool(found.isfinite().all()), (
        "your detector does not give one finite score an image"
    )
    return found


def aurocs(make_detector):
    """Return the AUROC of each kind of defect against the normal images."""
    found, kinds = scores(make_detector), fibres()[2]
    by_kind = {
        kind: found[torch.tensor([each == kind for each in kinds])]
        for kind in sorted(set(kinds))
    }
    good = by_kind.pop("good")
    return {
        kind: share_won(own[:, None] - good) for kind, own in by_kind.items()
    }


def share_won(gaps):
    """Return the share of pairs in which the defect has the higher score."""
    return float(((gaps > 0) + 0.5 * (gaps == 0)).double().mean())


class Nearest:
    """A detector that is 0 on what it has seen: the distance to the nearest image."""

    def fit(self, images):
        """Keep the images."""
        self.images = torch.as_tensor(images)
        return self

    def anomaly_score(self, images):
        """Return the distance of each image to the nearest one that was kept."""
        return torch.cdist(
            torch.as_tensor(images).flatten(1), self.images.flatten(1)
        ).amin(1)


def normal(k, n):
    """Return n normal images of noise, (n, 1, 6, 6), of the k-th seed."""
    generator = torch.Generator().manual_seed(seed(k))
    return torch.rand(n, 1, 6, 6, generator=generator)


def usual(n_val, fpr, n):
    """Return the least and the largest number of n normal images that a threshold
    reports by right, the rank of which among n_val held-out scores is the right one.

    The rank of a new score among the others is uniform, so the number that lie above
    the k-th smallest of n_val is beta-binomial.
    """
    k = ceil((n_val + 1) * (1 - fpr) - 1e-9)
    law = betabinom(n, n_val + 1 - k, k)
    return int(law.ppf(CHANCE)), int(law.isf(CHANCE))
