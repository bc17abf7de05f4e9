"""Open-set recognition: a classifier that may answer "unknown".

A classifier of L known classes maps an image to L logits, and names the class of the
largest. Asked about a class it never saw, it names one of its own all the same. Each
score of this file looks at the logits alone and says how little they look like those of
a known class: higher = unknown. So any classifier can be used, as it is, and nothing is
computed that it did not compute anyway.

Sources: Scheirer et al., Toward open set recognition, TPAMI 2013; Vaze et al., Open-set
recognition: a good closed-set classifier is all you need, ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from adlab import metrics
from adlab._checks import (
    check_choice,
    check_classes,
    check_flags,
    check_number,
    check_scores,
    check_vectors,
)
from adlab._parameters import Fraction
from adlab.classifier import batch_logits
from adlab.decision import ROUNDING, quantile_threshold
from adlab.detector import Detector

UNKNOWN = -1  # the answer beside the classes 0, …, L - 1

# -- scores


def msp_score(logits: object) -> Tensor:
    """One minus the maximum softmax probability, in [0, 1).

    It is the sum of all other probabilities, and computed as such: as a difference, all
    confident answers would be rounded to the same 0. The same number added to all
    logits changes nothing.

    Args:
        logits: (N, L), L >= 2.

    Returns:
        float64 (N,), higher = unknown.

    Raises:
        TypeError, ValueError: no finite (N, L).

    Source: Hendrycks and Gimpel, A baseline for detecting misclassified and
    out-of-distribution examples, ICLR 2017.
    """
    ordered = _check_logits(logits).sort(1, descending=True).values
    others = (ordered[:, 1:] - ordered[:, :1]).exp().sum(1)
    return others / (1 + others)


def max_logit_score(logits: object) -> Tensor:
    """Minus the largest logit.

    Args, returns and raises as `msp_score`. Source: Vaze et al., ICLR 2022.
    """
    return -_check_logits(logits).amax(1)


def energy_score(logits: object, temperature: float = 1.0) -> Tensor:
    """The energy of the logits, E = −T log Σ exp(l / T): a smooth minus maximum, of
    either sign.

    For T → 0 it becomes `max_logit_score`; for T → ∞ it ranks as minus the mean logit.

    Args:
        logits: (N, L), L >= 2.
        temperature: T > 0.

    Returns:
        float64 (N,), higher = unknown.

    Raises:
        TypeError, ValueError: no finite (N, L), or T not positive.

    Source: Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020.
    """
    check_number("temperature", temperature, 0, open_low=True)
    return -temperature * (_check_logits(logits) / temperature).logsumexp(1)


SCORES = {"msp": msp_score, "max-logit": max_logit_score, "energy": energy_score}


class OpenMax:
    """A softmax with one answer more: "unknown".

    Each class has a mean vector of logits, and a Weibull distribution of the largest
    distances to it. Where a sample is far from the mean of a class, that class hands
    over a part of its logit to "unknown". A negative logit has nothing to hand over and
    stays as it is; in the original formula it would rise.

    So the score depends on where zero is among the logits, which the cross-entropy
    leaves open: it does not see a number that is added to all of them. Where the mean
    logit of a class for itself is negative, little could be handed over. Then the mean
    of all training logits counts as zero.

    Args:
        tail_size: how many of the largest distances of a class the Weibull is fitted
            to, at least 2; to be far below the number of samples of a class.
        alpha: how many classes, those with the largest logits, are revised, the first
            most; default: all.

    After fitting, `means_` (L, L), `shapes_` and `scales_` (L,), all float64, and
    `level_`, the logit that counts as zero.

    Source: Bendale and Boult, Towards open set deep networks, CVPR 2016.
    """

    def __init__(self, tail_size: int = 20, alpha: int | None = None):
        check_number("tail_size", tail_size, 2, whole=True)
        if alpha is not None:
            check_number("alpha", alpha, 1, whole=True)
        self.tail_size, self.alpha = tail_size, alpha

    def fit(self, logits: object, labels: object) -> OpenMax:
        """Learn from the training samples that are classified correctly.

        Args:
            logits: (N, L), L >= 2.
            labels: (N,), classes 0 to L - 1.

        Returns:
            Itself.

        Raises:
            TypeError, ValueError: bad logits or labels, fewer than `tail_size` correct
                samples of a class, equal distances, or `alpha` above L.
        """
        logits = _check_logits(logits)
        n_classes = logits.shape[1]
        labels = check_classes(labels, len(logits), n_classes).to(logits.device)
        if self.alpha is not None:
            check_number("alpha", self.alpha, 1, n_classes, whole=True)
        correct = logits.argmax(1) == labels
        groups = [logits[correct & (labels == c)] for c in range(n_classes)]
        tails = [self._tail(c, group) for c, group in enumerate(groups)]
        fits = torch.tensor([fit_weibull(tail) for tail in tails], dtype=torch.float64)
        self.means_ = torch.stack([group.mean(0) for group in groups])
        buried = bool((self.means_.diagonal() < 0).any())
        self.level_ = float(logits.mean()) if buried else 0.0
        self.shapes_, self.scales_ = fits.to(logits.device).T
        return self

    def _tail(self, c: int, group: Tensor) -> np.ndarray:
        """The largest distances of a class to its mean."""
        if len(group) < self.tail_size:
            raise ValueError(
                f"labels: expected at least tail_size={self.tail_size} correctly "
                f"classified samples of each class, got {len(group)} of class {c}"
            )
        distances = (group - group.mean(0)).norm(dim=1)
        tail = distances.topk(self.tail_size).values.cpu().numpy()
        if np.ptp(tail) < 1e-9 * max(tail.max(), 1e-300):
            raise ValueError(
                f"logits: expected samples of class {c} at different distances from "
                f"their mean, got all {tail.max():.4g}"
            )
        return tail

    def weibull_cdf(self, logits: object) -> Tensor:
        """How far out in the tail of each class a sample lies: the Weibull's
        distribution function of its distance, float64 (N, L) in [0, 1].
        """
        logits = self._check(logits)
        distances = (logits[:, None] - self.means_).norm(dim=2)
        return -torch.expm1(-((distances / self.scales_) ** self.shapes_))

    def recalibrate(self, logits: object) -> Tensor:
        """Logits with that of "unknown" as one more column at the end, float64 (N,
        L + 1).
        """
        far, logits = self.weibull_cdf(logits), self._check(logits)
        n_classes = logits.shape[1]
        alpha = self.alpha or n_classes
        rank = logits.argsort(1, descending=True).argsort(1)  # 0 for the largest
        share = far * (alpha - rank).clamp_min(0) / alpha
        handed_over = share * (logits - self.level_).clamp_min(0)
        unknown = handed_over.sum(1, keepdim=True) + self.level_
        return torch.cat([logits - handed_over, unknown], 1)

    def __call__(self, logits: object) -> Tensor:
        """The log-odds of "unknown" against all classes: float64 (N,), higher =
        unknown.

        Where no logit is revised, it is the energy at T = 1, plus `level_`.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: no finite (N, L).
        """
        revised = self.recalibrate(logits)
        return revised[:, UNKNOWN] - revised[:, :UNKNOWN].logsumexp(1)

    def _check(self, logits: object) -> Tensor:
        if not hasattr(self, "means_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                "openmax: expected a fitted one, got none; call fit(logits, labels) first"
            )
        logits = _check_logits(logits)
        if logits.shape[1] != len(self.means_):
            raise ValueError(
                f"logits: expected shape (N, {len(self.means_)}), got {tuple(logits.shape)}"
            )
        return logits.to(self.means_.device)


def fit_weibull(distances: object) -> tuple[float, float]:
    """Shape and scale of the Weibull distribution that makes the distances (N,) most
    likely.

    It starts at zero, as a distance does: with its start left free, the likelihood may
    have no maximum.

    Raises:
        ValueError: distances that are not positive, or all the same.
    """
    from scipy.stats import weibull_min  # slow to import

    distances = check_scores(distances, "distances")
    if distances.min() <= 0 or np.ptp(distances) < 1e-9 * distances.max():
        raise ValueError(
            "distances: expected positive and different ones, "
            f"got from {distances.min():.4g} to {distances.max():.4g}"
        )
    shape, _, scale = weibull_min.fit(distances, floc=0)
    return float(shape), float(scale)


# -- measures


class OpenSetMeasures(NamedTuple):
    """How an open-set classifier fares over all thresholds, each in [0, 1]; unknown is
    the positive class.
    """

    accuracy: float  # of the classifier on known samples, when none is rejected
    auroc: float
    oscr: float
    fpr95: float  # share of known samples rejected where 95 % of the unknown are
    fpr95_known: float  # of the unknown accepted where 95 % of the known are


def open_set_measures(
    known_scores: object, known_correct: object, unknown_scores: object
) -> OpenSetMeasures:
    """Measure scores, higher = unknown.

    Two numbers go by the name of FPR95. With "unknown" as the positive class, as
    everywhere here, it is `fpr95`; papers on out-of-distribution detection often call
    the known class positive and report `fpr95_known`.

    Args:
        known_scores: (N,).
        known_correct: bool (N,), whether the classifier named the right class.
        unknown_scores: (M,).

    Raises:
        TypeError, ValueError: arguments of other shapes or not finite.
    """
    known = check_scores(known_scores, "known_scores")
    correct = check_flags(known_correct, "known_correct", len(known))
    unknown = check_scores(unknown_scores, "unknown_scores")
    scores = np.concatenate([known, unknown])
    is_unknown = np.repeat([False, True], [len(known), len(unknown)])
    return OpenSetMeasures(
        accuracy=float(correct.mean()),
        auroc=metrics.auroc(scores, is_unknown),
        oscr=metrics.oscr(known, correct, unknown),
        fpr95=metrics.fpr_at_tpr(scores, is_unknown, 0.95),
        fpr95_known=metrics.fpr_at_tpr(-scores, ~is_unknown, 0.95),
    )


# -- from closed set to open set


@dataclass(eq=False, repr=False)
class OpenSetClassifier(Detector):
    """A closed-set classifier, and a score with a threshold beside it.

    `fit` takes images of known classes that the classifier was not trained on, without
    labels: it computes the threshold from their scores, and nothing else. The
    classifier is not changed. It cannot be written to a file by `save`, as its class is
    the reader's own.

    Args:
        classifier: maps images (B, C, H, W) to logits (B, L), not to probabilities.
        score: "msp", "max-logit", "energy", or what maps logits (B, L) to scores (B,),
            higher = unknown, as a fitted `OpenMax`.
        fpr: the share of known images that may be called unknown, in (0, 1).
        seed: not used; of every detector.
        device: "auto", "cpu", "cuda", …

    After fitting, `threshold_` is in the unit of the score.

    Source: Vaze et al., ICLR 2022.
    """

    classifier: nn.Module
    score: str | Callable[[Tensor], Tensor] = "max-logit"
    fpr: Fraction = 0.05

    def _check_arguments(self) -> None:
        if not isinstance(self.classifier, nn.Module):
            raise TypeError(
                f"classifier: expected a network, got {type(self.classifier).__name__}"
            )
        if not callable(self.score):
            check_choice("score", self.score, SCORES)

    def _fit(self, images: object) -> None:
        with torch.no_grad():
            scores = torch.cat([self._score(batch) for batch in self._stream(images)])
        needed = math.ceil(1 / self.fpr - ROUNDING) - 1
        if len(scores) < needed:
            raise ValueError(
                f"images: expected at least {needed} for fpr={self.fpr}, got {len(scores)}"
            )
        self.threshold_ = quantile_threshold(scores.float(), self.fpr)

    def _score(self, batch: Tensor) -> Tensor:
        score = self.score if callable(self.score) else SCORES[self.score]
        return score(batch_logits(self.classifier, batch))

    def predict(self, images: object) -> Tensor:
        """Name the class of each image, or `UNKNOWN`, which is -1.

        Args:
            images: as for `fit`.

        Returns:
            int64 (N,).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._predict, images).long()

    def _predict(self, batch: Tensor) -> Tensor:
        classes = batch_logits(self.classifier, batch).argmax(1)
        unknown = self._score(batch).float() > self.threshold_
        return classes.masked_fill(unknown.to(classes.device), UNKNOWN)


# -- checks


def _check_logits(logits: object) -> Tensor:
    """Logits as finite float64 (N, L), L >= 2."""
    tensor = check_vectors(logits, "logits")
    if tensor.shape[1] < 2:
        raise ValueError(
            f"logits: expected shape (N, L) with L >= 2, got {tuple(tensor.shape)}"
        )
    return tensor.double()
