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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from adlab import metrics
from adlab._checks import (
    as_tensor,
    check_choice,
    check_flags,
    check_number,
    check_scores,
    check_vectors,
)
from adlab._parameters import Fraction
from adlab.decision import ROUNDING, quantile_threshold
from adlab.detector import Detector
from adlab.training import _progress, resolve_device, seeded, stream

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
        labels = _check_classes(labels, len(logits), n_classes).to(logits.device)
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
        return score(_logits(self.classifier, batch))

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
        classes = _logits(self.classifier, batch).argmax(1)
        unknown = self._score(batch).float() > self.threshold_
        return classes.masked_fill(unknown, UNKNOWN)


def logits_of(
    classifier: nn.Module,
    images: object,
    batch_size: int = 256,
    device: str | torch.device = "auto",
) -> Tensor:
    """The logits of images, in eval mode and without gradients.

    Args:
        classifier: maps images (B, C, H, W) to logits (B, L).
        images: as for every detector.
        batch_size: images at a time.
        device: see `adlab.training.resolve_device`.

    Returns:
        float32 (N, L).

    Raises:
        TypeError, ValueError: bad images; or what the classifier gives is no (B, L), or
            already normalised to (log-)probabilities, in which the largest logit and
            the energy are lost.
    """
    device = resolve_device(device)
    with torch.no_grad():
        batches = stream(images, batch_size)
        rows = [_logits(classifier, batch.to(device)).cpu() for batch in batches]
    return torch.cat(rows).float()


def _logits(classifier: nn.Module, batch: Tensor) -> Tensor:
    """Logits of a batch in eval mode; the mode of the classifier stays as it was."""
    training = classifier.training
    logits = classifier.to(batch.device).eval()(batch)
    classifier.train(training)
    logits = check_vectors(logits, "classifier")
    if logits.shape[1] < 2 or len(logits) != len(batch):
        raise ValueError(
            f"classifier: expected logits ({len(batch)}, L), L >= 2, got {tuple(logits.shape)}"
        )
    one = torch.ones(len(logits), device=logits.device, dtype=logits.dtype)
    for name, sums in [("probabilities", logits), ("log-probabilities", logits.exp())]:
        if bool((sums >= 0).all()) and torch.allclose(sums.sum(1), one, atol=1e-4):
            raise ValueError(
                f"classifier: expected logits, got {name}; leave out its last softmax"
            )
    return logits


# -- a good closed-set classifier


def convolutional_classifier(
    n_classes: int,
    channels: int = 1,
    widths: Sequence[int] = (8, 16, 32),
    seed: int = 0,
) -> nn.Sequential:
    """A small network from images (B, channels, H, W) of any size to logits (B, L).

    The features are standardised before the last layer (LayerNorm), so that an image
    has no large logits merely because there is much in it.

    Args:
        n_classes: L >= 2.
        channels: 1 or 3.
        widths: channels of each stage: a convolution of 3 × 3, batch normalisation,
            ReLU, and a maximum over 2 × 2. The mean over all places follows.
        seed: of the initial weights.

    Raises:
        TypeError, ValueError: an argument out of its range.
    """
    check_number("n_classes", n_classes, 2, whole=True)
    check_choice("channels", channels, (1, 3))
    layers = []
    with seeded(seed):
        for before, width in zip([channels, *widths], widths, strict=False):
            check_number("widths", width, 1, whole=True)
            layers += [
                nn.Conv2d(before, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        head = nn.Linear([channels, *widths][-1], n_classes)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(head.in_features)]
    return nn.Sequential(*layers, head)


def random_symmetry(images: Tensor) -> Tensor:
    """Each image (N, C, H, H) turned by a multiple of 90° and perhaps mirrored, at
    random.

    Raises:
        ValueError: images that are not square.
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"images: expected square ones (N, C, H, H), got {tuple(images.shape)}"
        )
    turns = torch.randint(4, (len(images),))
    mirrored = torch.rand(len(images)) < 0.5
    rows = [
        image.rot90(int(k), (1, 2)).flip(2) if m else image.rot90(int(k), (1, 2))
        for image, k, m in zip(images, turns, mirrored, strict=True)
    ]
    return torch.stack(rows)


def random_shift(images: Tensor, reach: int = 2) -> Tensor:
    """Each image (N, C, H, W) moved by up to `reach` pixels along both axes, at random;
    zeros enter.

    Raises:
        TypeError, ValueError: `reach` is no non-negative integer.
    """
    check_number("reach", reach, 0, whole=True)
    height, width = images.shape[2:]
    offsets = torch.randint(2 * reach + 1, (len(images), 2)).tolist()
    padded = pad(images, [reach] * 4)
    rows = [
        image[:, y : y + height, x : x + width]
        for image, (y, x) in zip(padded, offsets, strict=True)
    ]
    return torch.stack(rows)


def train_classifier(
    network: nn.Module,
    images: object,
    labels: object,
    *,
    epochs: int = 20,
    augment: Callable[[Tensor], Tensor] | None = None,
    schedule: str = "cosine",
    label_smoothing: float = 0.0,
    lr: float = 0.05,
    weight_decay: float = 1e-4,
    batch_size: int = 32,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> list[float]:
    """Train a classifier with cross-entropy, in place, and leave it in eval mode.

    The knobs are those that make a closed-set classifier a good one. Optimised by
    stochastic gradient descent with Nesterov's momentum of 0.9.

    Args:
        network: maps images (B, C, H, W) to logits (B, L).
        images: (N, C, H, W), as for every detector; held in memory.
        labels: (N,), classes 0 to L - 1.
        epochs: passes through the images, each in a new random order.
        augment: maps a batch to a randomly changed one of the same classes, as
            `random_symmetry`.
        schedule: of the step size: "constant", or "cosine", falling to 0 at the end.
        label_smoothing: in [0, 1): the share of a label that is spread over all classes.
        lr: step size, at the start.
        weight_decay: L2 penalty.
        batch_size: images per step.
        seed: of the order and the augmentation.
        device: see `adlab.training.resolve_device`.

    Returns:
        The mean loss of each epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
        TypeError, ValueError: bad images or labels, or a number out of its range.

    Source: Vaze et al., ICLR 2022.
    """
    check_number("epochs", epochs, 1, whole=True)
    check_number("label_smoothing", label_smoothing, 0, 1, open_high=True)
    check_number("lr", lr, 0, open_low=True)
    check_number("weight_decay", weight_decay, 0)
    check_number("batch_size", batch_size, 1, whole=True)
    check_choice("schedule", schedule, ("constant", "cosine"))
    device = resolve_device(device)
    images = torch.cat(list(stream(images)))
    n_classes = logits_of(network, images[:1], device=device).shape[1]
    labels = _check_classes(labels, len(images), n_classes)
    optimizer = torch.optim.SGD(
        network.parameters(), lr, 0.9, weight_decay=weight_decay, nesterov=True
    )
    n_steps = (
        epochs * math.ceil(len(images) / batch_size) if schedule == "cosine" else 0
    )

    def step_size(step: int) -> float:
        return (1 + math.cos(math.pi * step / n_steps)) / 2 if n_steps else 1.0

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, step_size)

    def step(rows: Tensor) -> float:
        """One step down the loss of these rows; returns the loss, summed over them."""
        batch, classes = images[rows], labels[rows].to(device)
        logits = network((augment(batch) if augment else batch).to(device))
        loss = cross_entropy(logits, classes, label_smoothing=label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return float(loss.detach()) * len(rows)

    history = []
    with seeded(seed), _progress(epochs) as bar:
        for epoch in range(epochs):
            network.train()
            order = torch.randperm(len(images)).split(batch_size)
            history.append(sum(step(rows) for rows in order) / len(images))
            if not math.isfinite(history[-1]):
                raise FloatingPointError(
                    f"loss: expected a finite value, got {history[-1]} in epoch {epoch + 1}"
                )
            bar.set_postfix_str(f"loss {history[-1]:.4g}", refresh=False)
            bar.update()
    network.eval()
    return history


# -- checks


def _check_logits(logits: object) -> Tensor:
    """Logits as finite float64 (N, L), L >= 2."""
    tensor = check_vectors(logits, "logits")
    if tensor.shape[1] < 2:
        raise ValueError(
            f"logits: expected shape (N, L) with L >= 2, got {tuple(tensor.shape)}"
        )
    return tensor.double()


def _check_classes(labels: object, n: int, n_classes: int) -> Tensor:
    """Classes as int64 (n,), each from 0 to n_classes - 1."""
    tensor = as_tensor("labels", labels).cpu()
    if tensor.shape != (n,):
        raise ValueError(
            f"labels: expected shape ({n},), one class a sample; got {tuple(tensor.shape)}"
        )
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise TypeError(f"labels: expected whole numbers, got {tensor.dtype}")
    if bool((tensor < 0).any()) or bool((tensor >= n_classes).any()):
        raise ValueError(
            f"labels: expected classes from 0 to {n_classes - 1}, "
            f"got from {int(tensor.min())} to {int(tensor.max())}"
        )
    return tensor.long()
