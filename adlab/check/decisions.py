"""Checks of chapters 1 and 2: a first score, measures of performance, a threshold."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared

# -- chapter 1


def _pixels(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, float]:
    shape = (1, 1 + size // 2, 1 + size // 3)
    train = rng.random((2 + size, *shape)).round(1)
    test = rng.random((1 + size // 2, *shape)).round(1)
    return torch.tensor(train), torch.tensor(test), float(rng.choice([0.1, 0.5]))


def _deviations(
    train: Tensor,
    test: Tensor,
    reg_covar: float,
    power: float = 0.5,
    correction: int = 1,
) -> Tensor:
    """From the mean, with their sign; the variance to some power is divided by."""
    spread = (train.var(0, correction=correction) + reg_covar) ** power
    return ((test - train.mean(0)) / spread)[:, 0]


@compared(
    _pixels,
    {
        "forgets the absolute value": _deviations,
        "divides by the variance, not by its root": lambda *given: _deviations(
            *given, power=1
        ).abs(),
        "divides the variance by N, not by N - 1": lambda *given: _deviations(
            *given, correction=0
        ).abs(),
        "forgets to divide by the deviation": lambda *given: _deviations(
            *given, power=0
        ).abs(),
        "forgets reg_covar": lambda train, test, reg_covar: _deviations(
            train, test, 0
        ).abs(),
    },
    samples=["test"],
)
def pixel_gaussian(train: Tensor, test: Tensor, reg_covar: float) -> Tensor:
    """Check the map of a Gaussian for every pixel: of train (N, 1, H, W), test (B, 1, H, W)
    and reg_covar, how many deviations each pixel lies from its mean, (B, H, W). The
    deviation is the root of the variance, taken with N - 1, plus reg_covar.
    """
    return _deviations(train, test, reg_covar).abs()


# -- chapter 2


def _labelled(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of any range with many ties, or hardly any, and labels of both classes."""
    labels = np.append([0, 1], rng.integers(0, 2, 2 * size - 2))
    scores = rng.normal(size=2 * size).round(int(rng.integers(0, 3)))
    return scores + rng.choice([0, 10, -5]), rng.permutation(labels)


def _share_won(scores: np.ndarray, labels: np.ndarray, tie: float = 0.5) -> float:
    gaps = scores[labels == 1][:, None] - scores[labels == 0]
    return float(np.mean((gaps > 0) + tie * (gaps == 0)))


def _at_best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    detected = scores >= np.append(np.unique(scores), np.inf)[:, None]
    return float((detected == (labels == 1)).mean(1).max())


@compared(
    _labelled,
    {
        "counts ties as wins": partial(_share_won, tie=1),
        "counts ties as losses": partial(_share_won, tie=0),
        "takes low scores for anomalous": lambda scores, labels: _share_won(
            -scores, labels
        ),
        "counts each tie as a whole win and a whole loss": partial(_share_won, tie=2),
        "is the accuracy at the best threshold": _at_best_threshold,
    },
    samples=["scores", "labels"],
)
def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Check an AUROC: of scores (N,) and labels (N,) of both classes, the share of pairs in
    which the anomaly scores higher than the normal sample, a tie counting one half.
    """
    return _share_won(scores, labels)


def _precision_and_recall(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """At every distinct score, descending, after the start at precision 1 and recall 0."""
    detected = scores >= np.unique(scores)[::-1, None]
    hits = (detected & (labels == 1)).sum(1)
    precision, recall = hits / detected.sum(1), hits / np.sum(labels == 1)
    return np.append(1, precision), np.append(0, recall)


def _area(scores: np.ndarray, labels: np.ndarray) -> float:
    precision, recall = _precision_and_recall(scores, labels)
    return float(np.sum(np.diff(recall) * precision[1:]))


def _area_of_trapezoids(scores: np.ndarray, labels: np.ndarray) -> float:
    precision, recall = _precision_and_recall(scores, labels)
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def _one_by_one(scores: np.ndarray, labels: np.ndarray) -> float:
    """Ties are in the order in which they come."""
    ranks = np.argsort(np.argsort(-scores, kind="stable"))
    return _area(-ranks, labels)


@compared(
    _labelled,
    {
        "takes trapezoids for steps": _area_of_trapezoids,
        "lets tied scores enter one by one": _one_by_one,
        "takes low scores for anomalous": lambda scores, labels: _area(-scores, labels),
        "takes the normal class for positive": lambda scores, labels: _area(
            scores, 1 - labels
        ),
        "is the AUROC": _share_won,
    },
    samples=["scores", "labels"],
)
def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Check an average precision: of scores (N,) and labels (N,) of both classes, the sum
    of the precision over the steps of recall, at every distinct score.
    """
    return _area(scores, labels)


def _normal_scores(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    fpr = float(rng.choice([0.5, 0.25, 0.2, 0.1]))
    n = round(1 / fpr) - 1 + int(rng.integers(0, 2 * size))
    return rng.gamma(1, size=n).round(int(rng.integers(0, 3))), fpr


def _smallest(scores: np.ndarray, rank: float) -> float:
    """The score of that rank, which is rounded up; NaN if there is none."""
    k = max(math.ceil(rank - 1e-9), 1)
    return float(np.sort(scores)[k - 1]) if k <= len(scores) else math.nan


@compared(
    _normal_scores,
    {
        "interpolates between scores: that promises nothing": lambda scores, fpr: (
            np.quantile(scores, 1 - fpr)
        ),
        "forgets that the new score is one of n + 1": lambda scores, fpr: _smallest(
            scores, len(scores) * (1 - fpr)
        ),
        "takes the quantile of the n scores, which promises nothing of a new one": lambda scores, fpr: (
            np.quantile(scores, 1 - fpr, method="higher")
        ),
        "takes the lower end of the scores": lambda scores, fpr: _smallest(
            scores, (len(scores) + 1) * fpr
        ),
        "is mean plus three deviations, whatever fpr is": lambda scores, fpr: (
            scores.mean() + 3 * scores.std(ddof=1)
        ),
    },
    samples=["scores"],
)
def quantile_threshold(scores: np.ndarray, fpr: float) -> float:
    """Check a threshold with a promise: of normal scores (n,) and fpr, the score that a new
    one exceeds with probability at most fpr, the ceil((n + 1)(1 - fpr))-th smallest.
    """
    return _smallest(scores, (len(scores) + 1) * (1 - fpr))


def _maps(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Maps with ties, and masks with regions that touch at corners."""
    shape = (1 + size // 4, 3 + size // 2, 4)
    masks = rng.random(shape) < 0.3
    masks[0, 0, :2], masks[0, 2, 1] = (False, True), True
    maps = (rng.random(shape) + 0.3 * masks).round(int(rng.integers(1, 3)))
    return maps, masks, float(rng.choice([0.3, 0.5, 1]))


def _overlap_area(
    maps: np.ndarray,
    masks: np.ndarray,
    max_fpr: float,
    corners: bool = True,
    divide: bool = True,
    by_region: bool = True,
) -> float:
    """The area under the curve of the mean overlap over the FPR."""
    from scipy import ndimage  # slow to import

    touching = ndimage.generate_binary_structure(2, 2 if corners else 1)
    touching = np.stack([0 * touching, touching, 0 * touching])
    regions, n_regions = ndimage.label(masks, touching)
    regions = regions if by_region else masks.astype(int)
    parts = [regions == k for k in range(1, 1 + (n_regions if by_region else 1))]
    detected = [maps >= t for t in np.append(np.inf, np.unique(maps)[::-1])]
    fpr = np.array([d[~masks].mean() for d in detected])
    overlap = np.array([np.mean([d[part].mean() for part in parts]) for d in detected])
    area = _trapezoids_up_to(fpr, overlap, max_fpr)
    return area / max_fpr if divide else area


def _trapezoids_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """The area under y(x), cut at the limit, where y is interpolated."""
    inside = x <= limit
    y = np.append(y[inside], np.interp(limit, x, y))
    x = np.append(x[inside], limit)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@compared(
    _maps,
    {
        "lets every pixel count alike, not every region": partial(
            _overlap_area, by_region=False
        ),
        "parts regions that touch at corners": partial(_overlap_area, corners=False),
        "forgets to divide by max_fpr": partial(_overlap_area, divide=False),
        "takes the whole curve, whatever max_fpr is": lambda maps, masks, max_fpr: (
            _overlap_area(maps, masks, 1)
        ),
        "takes max_fpr for 0.3, whatever it is": lambda maps, masks, max_fpr: (
            _overlap_area(maps, masks, 0.3)
        ),
        "takes low values for anomalous": lambda maps, masks, max_fpr: _overlap_area(
            -maps, masks, max_fpr
        ),
    },
)
def pro(maps: np.ndarray, masks: np.ndarray, max_fpr: float) -> float:
    """Check a PRO: of maps (N, H, W), masks bool (N, H, W) and max_fpr, the area under the
    mean overlap of the 8-connected regions over the FPR of all normal pixels, up to
    max_fpr (interpolated there), and divided by it.
    """
    return _overlap_area(maps, masks, max_fpr)
