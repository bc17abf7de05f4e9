"""Measures of performance: how well do scores tell anomalies from normal data?

Higher scores mean more anomalous; label 1 (anomalous) is the positive class. A
threshold detects whatever scores above it, `scores > threshold`, as in
`adlab.decision`. Every measure is taken over the whole set at once, in float64, and
depends on the ranks of the scores only: they may have any range and sign.

Arguments are arrays or tensors. Each function raises `ValueError` where shapes differ,
values are not finite, labels are not 0 and 1 or a class it needs is missing, and
`TypeError` for what is no array of numbers.
"""

from typing import NamedTuple

import numpy as np

from adlab._checks import (
    check_flags,
    check_labels,
    check_masks,
    check_number,
    check_scores,
)

# -- verdicts


class Rates(NamedTuple):
    """How a set of verdicts fared: each in [0, 1]."""

    tpr: float
    fpr: float
    precision: float
    f1: float


def rates(verdicts: object, labels: object) -> Rates:
    """TPR, FPR, precision and F1 of verdicts (N,), true = called anomalous, against
    labels (N,).

    Precision is the share of true detections among all detections: NaN where nothing
    was detected (0/0). F1, the harmonic mean of precision and TPR, is 0 there. Both
    classes must be present.
    """
    verdicts = check_flags(verdicts, "verdicts")
    labels = check_labels(labels, len(verdicts), both=True)
    hits, false_alarms = np.sum(verdicts & labels), np.sum(verdicts & ~labels)
    detections = hits + false_alarms
    return Rates(
        tpr=float(hits / labels.sum()),
        fpr=float(false_alarms / (~labels).sum()),
        precision=float(hits / detections) if detections else float("nan"),
        f1=float(2 * hits / (detections + labels.sum())),
    )


def accuracy(verdicts: object, labels: object) -> float:
    """Share of verdicts (N,) that agree with the labels (N,), in [0, 1].

    It depends on the balance of the set: with 99 % normal data, "never an anomaly"
    reaches 0.99.
    """
    verdicts = check_flags(verdicts, "verdicts")
    return float(np.mean(verdicts == check_labels(labels, len(verdicts))))


# -- curves over all thresholds


def _amounts_above(scores: np.ndarray, *amounts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every distinct score, descending to -inf, and how much of each amount lies above
    it.
    """
    order = np.argsort(-scores)
    scores = scores[order]
    last_of_ties = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    totals = [np.cumsum(amount[order])[last_of_ties] for amount in amounts]
    return np.append(scores[last_of_ties], -np.inf), *(
        np.append(0, total) for total in totals
    )


def _detections(scores: object, labels: object) -> tuple[np.ndarray, ...]:
    """Thresholds, descending to -inf, with the true and the false detections at each:
    (K,) all.
    """
    scores = check_scores(scores)
    labels = check_labels(labels, len(scores), both=True)
    return _amounts_above(scores, labels, ~labels)


def roc_curve(
    scores: object, labels: object
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FPR, TPR and threshold at every distinct score (N,): three arrays (K + 1,), from
    (0, 0) to (1, 1).

    Thresholds are in the unit of the scores and fall from the highest score, which
    nothing exceeds, to -inf. Source: Fawcett, An introduction to ROC analysis, 2006.
    """
    thresholds, hits, false_alarms = _detections(scores, labels)
    return false_alarms / false_alarms[-1], hits / hits[-1], thresholds


def precision_recall_curve(
    scores: object, labels: object
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall (= TPR) and threshold at every distinct score (N,): three
    arrays (K + 1,).

    Thresholds fall to -inf. At the highest score recall is 0 and precision, 0/0, is 1
    by convention. Source: Davis and Goadrich, The relationship between precision-recall
    and ROC curves, 2006.
    """
    thresholds, hits, false_alarms = _detections(scores, labels)
    precision = np.append(1.0, hits[1:] / (hits + false_alarms)[1:])
    return precision, hits / hits[-1], thresholds


# -- numbers from scores


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, a tie counting one half: (N,) in
    [0, 1].
    """
    others = np.sort(others)
    below = np.searchsorted(others, scores, side="left")
    at_or_below = np.searchsorted(others, scores, side="right")
    return (below + at_or_below) / (2 * len(others))


def auroc(scores: object, labels: object) -> float:
    """Probability that an anomaly scores above a normal sample, a tie counting one
    half; in [0, 1].

    It equals the area under the ROC curve: 1 ranks perfectly, 0.5 as chance does.
    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.
    """
    scores = check_scores(scores)
    labels = check_labels(labels, len(scores), both=True)
    anomalies = np.sort(scores[labels])  # sorted queries read the memory in order
    return float(_share_below(anomalies, scores[~labels]).mean())


def average_precision(scores: object, labels: object) -> float:
    """Mean of the precision over the steps of recall, in (0, 1]; chance gives the share
    of anomalies.

    A sum of steps, not of trapezoids: between two points the precision does not run
    straight. Source: Davis and Goadrich, The relationship between precision-recall and
    ROC curves, 2006.
    """
    precision, recall, _ = precision_recall_curve(scores, labels)
    return float(np.sum(np.diff(recall) * precision[1:]))


def best_f1(scores: object, labels: object) -> tuple[float, float]:
    """The highest F1 of all thresholds, in (0, 1], and the highest threshold that
    reaches it.

    Chosen on the data it is measured on, it is optimistic: a bound, not what a decision
    rule achieves.
    """
    thresholds, hits, false_alarms = _detections(scores, labels)
    f1 = 2 * hits / (hits + false_alarms + hits[-1])
    best = np.argmax(f1)
    return float(f1[best]), float(thresholds[best])


def best_tpr_tnr(scores: object, labels: object) -> tuple[float, float, float]:
    """TPR and TNR, each in [0, 1], where their sum is largest, and a threshold that
    gives them.

    It is the highest score (TPR 0, TNR 1) where no threshold beats chance. Optimistic,
    as `best_f1` is. Source: Youden, 1950; used for images by Bergmann et al., MVTec AD,
    CVPR 2019.
    """
    fpr, tpr, thresholds = roc_curve(scores, labels)
    best = np.argmax(tpr - fpr)
    return float(tpr[best]), float(1 - fpr[best]), float(thresholds[best])


def fpr_at_tpr(scores: object, labels: object, tpr: float = 0.95) -> float:
    """The smallest FPR with which at least a share `tpr`, in (0, 1], of the anomalies
    is detected.

    With `tpr=0.95` it is known as FPR95; some authors call the normal class positive
    there, we do not.
    """
    check_number("tpr", tpr, 0, 1, open_low=True)
    fpr, reached, _ = roc_curve(scores, labels)
    return float(
        fpr[np.argmax(reached >= tpr - 1e-12)]
    )  # 0.1 * 3 asks for three in ten, not for four


# -- pixels and regions


def _check_maps(maps: object, masks: object) -> tuple[np.ndarray, np.ndarray]:
    maps = check_scores(maps, "maps", ndim=3)
    masks = check_masks(masks, maps.shape)
    if masks.all() or not masks.any():
        missing = "normal" if masks.all() else "anomalous"
        raise ValueError(
            f"masks: expected normal and anomalous pixels, got no {missing} pixel"
        )
    return maps, masks


def pixel_auroc(maps: object, masks: object) -> float:
    """AUROC over all pixels of all images: maps (N, H, W), masks (N, H, W); in [0, 1].

    Large anomalies dominate it, and it saturates as nearly all pixels are normal: see
    `pro`.
    """
    maps, masks = _check_maps(maps, masks)
    return auroc(maps.ravel(), masks.ravel())


def _regions(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The region of each pixel, 0 if normal, and by region what one pixel adds to the
    mean overlap.
    """
    from scipy import ndimage  # slow to import

    touching = np.zeros((3, 3, 3))
    touching[1] = (
        1  # the eight neighbours within an image, none in the images before and after
    )
    regions, n_regions = ndimage.label(masks, touching)
    sizes = np.bincount(regions.ravel())
    shares = np.append(0, 1 / (n_regions * sizes[1:]))
    return regions, shares


def pro_curve(
    maps: object, masks: object, max_fpr: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """FPR and per-region overlap at every distinct value of the maps: two arrays (K +
    1,), from (0, 0).

    The overlap is the detected share of an anomalous region, averaged over the regions:
    8-connected components of the masks (N, H, W). The FPR counts the normal pixels of
    all images together. The curve stops at its first point beyond `max_fpr`, in (0, 1]:
    the rest is never sorted. Source: Bergmann et al., Uninformed Students, CVPR 2020.
    """
    check_number("max_fpr", max_fpr, 0, 1, open_low=True)
    maps, masks = _check_maps(maps, masks)
    regions, shares = _regions(masks)
    normal = maps[~masks]
    beyond = (
        len(normal) - 1 - int(max_fpr * len(normal))
    )  # its rank: one false alarm more than allowed
    lowest = np.partition(normal, beyond)[beyond] if beyond >= 0 else -np.inf
    kept = np.flatnonzero(maps >= lowest)
    pixels = maps.ravel()[kept], shares[regions.ravel()[kept]], ~masks.ravel()[kept]
    _, overlap, false_alarms = _amounts_above(*pixels)
    return false_alarms / len(normal), np.minimum(overlap, 1)


def pro(maps: object, masks: object, max_fpr: float = 0.3) -> float:
    """Area under the per-region overlap curve up to `max_fpr`, divided by `max_fpr`; in
    [0, 1].

    Every region counts alike, however small. Maps and masks (N, H, W). Exact: all
    thresholds are used, equal scores enter together, and the curve is interpolated at
    the limit. Perfect maps give 1, constant maps `max_fpr / 2`. Source: Bergmann et
    al., Uninformed Students, CVPR 2020.
    """
    fpr, overlap = pro_curve(maps, masks, max_fpr)
    at_limit = np.interp(max_fpr, fpr, overlap)
    inside = fpr <= max_fpr
    fpr, overlap = np.append(fpr[inside], max_fpr), np.append(overlap[inside], at_limit)
    area = np.sum(np.diff(fpr) * (overlap[1:] + overlap[:-1]) / 2)
    return float(min(area / max_fpr, 1))  # rounding may lift a perfect 1


aupro = pro  # the name by which libraries know it


# -- open set


def oscr(known_scores: object, known_correct: object, unknown_scores: object) -> float:
    """Area under the open-set classification rate: are samples of known classes
    accepted and named rightly?

    Over all pairs of a known and an unknown sample, the share in which the known one
    was classified correctly and scores below the unknown one, a tie counting one half.
    Higher scores mean "unknown": known_scores (N,), known_correct bool (N,),
    unknown_scores (M,). In [0, accuracy]; it is the AUROC where all known samples are
    correct. Source: Dhamija et al., Reducing network agnostophobia, NeurIPS 2018.
    """
    known = check_scores(known_scores, "known_scores")
    correct = check_flags(known_correct, "known_correct", len(known))
    unknown = check_scores(unknown_scores, "unknown_scores")
    return float(np.mean(correct * _share_below(-known, -unknown)))
