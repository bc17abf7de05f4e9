"""GeoTrans: a classifier learns which transformation was applied to a normal image, and
fails on others.

The labels cost nothing: we applied the transformations ourselves. A transformed copy is
made when a batch needs it, so T transformations of N images never stand in memory.

Source: Golan & El-Yaniv, Deep anomaly detection using geometric transformations,
NeurIPS 2018.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, pairwise, product
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, log_softmax, pad

from adlab._checks import check_choice, check_number
from adlab._methods import method
from adlab._parameters import Count, Positive, TwoOrMore
from adlab.detector import Detector
from adlab.training import seeded, split_by_pixels
from adlab.vectors import OfVectors

# -- transformations


def _shift(images: Tensor, dim: int, sign: int) -> Tensor:
    """Move by a quarter of the side; what comes in is the mirror image of the border."""
    quarter = images.shape[dim] // 4
    if quarter == 0:
        raise ValueError(
            f"images: expected H, W of at least 4 to shift them by a quarter, got {tuple(images.shape[2:])}"
        )
    if sign < 0:
        return _shift(images.flip(dim), dim, 1).flip(dim)
    border = images.narrow(dim, 0, quarter).flip(dim)
    return torch.cat([border, images.narrow(dim, 0, images.shape[dim] - quarter)], dim)


def _rotate(images: Tensor, turns: int) -> Tensor:
    if turns % 2 and images.shape[2] != images.shape[3]:
        raise ValueError(
            f"images: expected H = W to turn them by 90 degrees, got {tuple(images.shape[2:])}"
        )
    return torch.rot90(images, turns, (2, 3))


def _blur(images: Tensor) -> Tensor:
    """A Gaussian of about 1 pixel, by the binomial weights 1, 4, 6, 4, 1."""
    weights = torch.tensor([1.0, 4, 6, 4, 1], device=images.device) / 16
    kernel = (weights[:, None] * weights).expand(images.shape[1], 1, 5, 5)
    padded = pad(images, (2, 2, 2, 2), mode="replicate")
    return conv2d(padded, kernel, groups=images.shape[1])


_STEPS = {
    "identity": lambda images: images,
    "flip": lambda images: images.flip(3),
    "left": lambda images: _shift(images, 3, -1),
    "right": lambda images: _shift(images, 3, 1),
    "up": lambda images: _shift(images, 2, -1),
    "down": lambda images: _shift(images, 2, 1),
    "rot90": lambda images: _rotate(images, 1),
    "rot180": lambda images: _rotate(images, 2),
    "rot270": lambda images: _rotate(images, 3),
    "blur": _blur,
    "gamma": lambda images: images**2,
    "sharpen": lambda images: (2 * images - _blur(images)).clamp(0, 1),
}
_FLIPS, _TURNS = ("", "flip"), ("", "rot90", "rot180", "rot270")
_ACROSS, _ALONG = ("", "left", "right"), ("", "up", "down")
_SETS = {
    8: (_FLIPS, _TURNS),
    24: (_FLIPS, _ACROSS, _TURNS),
    72: (_FLIPS, _ACROSS, _ALONG, _TURNS),
    "non-geometric": (("", "blur"), ("", "gamma"), ("", "sharpen")),
}


def transformation_set(which: int | str = 72) -> tuple[str, ...]:
    """The names of a set of transformations.

    Args:
        which: 8 (flip × rotations), 24 (× shifts to left and right), 72 (× shifts up
            and down), or "non-geometric" (8: with and without blur, gamma correction
            and sharpening).

    Returns:
        T names for `transform`, the identity first.

    Raises:
        ValueError: no such set.
    """
    check_choice("which", which, _SETS)
    return tuple(
        " ".join(filter(None, steps)) or "identity" for steps in product(*_SETS[which])
    )


def transform(images: Tensor, name: str) -> Tensor:
    """Transform images.

    Args:
        images: float (N, C, H, W) in [0, 1].
        name: steps with spaces between, done from left to right, as "flip left rot90".
            The steps are identity; flip (left for right); left, right, up, down (by a
            quarter of the side, with reflection at the border); rot90, rot180, rot270
            (counter-clockwise); blur, gamma (squares the grey levels), sharpen.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: no such step; images that are not square, for rot90 and rot270, or
            with sides below 4 pixels, for shifts.
    """
    steps = name.split()
    for step in steps:
        check_choice("name", step, _STEPS)
    for step in steps:
        images = _STEPS[step](images)
    return images


def transform_each(images: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    """Transform each image by a transformation of its own.

    Args:
        images: (N, C, H, W).
        labels: int64 (N,), which of the names.
        names: T names, as of `transform`.

    Returns:
        (N, C, H, W).
    """
    result = torch.empty_like(images)
    for label in labels.unique().tolist():
        chosen = labels == label
        result[chosen] = transform(images[chosen], names[label])
    return result


# -- model


class _Block(nn.Module):
    """Two convolutions of 3 × 3 beside a shortcut; normalisation and ReLU come first."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(n_in), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
        )
        same = n_in == n_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.residual(y) + (x if self.shortcut is None else self.shortcut(y))


class WideResNet(nn.Module):
    """A residual network in three stages, each of half the resolution of the one
    before.

    Args:
        channels: C of the images.
        n_classes: T, the number of transformations.
        depth: number of layers, 10, 16, 22, …
        widths: channels of the three stages; (64, 128, 256) is the paper's factor 4.

    Source: Zagoruyko & Komodakis 2016, "Wide residual networks".
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        depth: int = 10,
        widths: Sequence[int] = (8, 16, 32),
    ):
        super().__init__()
        stem = min(16, widths[0])
        layers: list[nn.Module] = [nn.Conv2d(channels, stem, 3, 1, 1, bias=False)]
        for (n_in, n_out), stride in zip(
            pairwise((stem, *widths)), (1, 2, 2), strict=True
        ):
            layers.append(_Block(n_in, n_out, stride))
            layers += [_Block(n_out, n_out, 1) for _ in range((depth - 4) // 6 - 1)]
        last = [nn.BatchNorm2d(n_out), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers, *last)
        self.classify = nn.Linear(n_out, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, T) of images (N, C, H, W) in [0, 1]."""
        return self.classify(self.features(2 * images - 1))


# -- scores


def softmax_score(log_p: Tensor) -> Tensor:
    """A(s) = 1 − (1/T) Σᵢ [αᵢ]ᵢ: the probability that what was done is not given.

    Args:
        log_p: logarithms of the posteriors αᵢ of the T copies of an image, (N, T, T).

    Returns:
        (N,) in [0, 1]; 0 where all copies are recognised with certainty.
    """
    right = log_p.diagonal(dim1=1, dim2=2)
    return -torch.expm1(right).mean(1)  # 1 − p, exact where p is all but 1


def inverse_digamma(y: Tensor) -> Tensor:
    """The inverse of ψ: the x > 0 with ψ(x) = y, for any real y, by Newton's method.

    Source: Minka 2000, "Estimating a Dirichlet distribution", appendix C.
    """
    x = torch.where(y >= -2.22, y.exp() + 0.5, -1 / (y - torch.digamma(y.new_ones(()))))
    for _ in range(6):
        x = x - (torch.digamma(x) - y) / torch.polygamma(1, x)
    return x


def fit_dirichlet(log_p: Tensor, tol: float = 1e-12, max_iter: int = 1000) -> Tensor:
    r"""The maximum likelihood estimate of a Dirichlet distribution.

    The likelihood is stationary where :math:`\digamma(a_k) = \digamma(|a|) +
    \overline{\log p_k}` for all k, with :math:`|a| = \sum_k a_k`. So one number decides
    about all: |a|, which must equal the sum of what it yields. Newton's method finds
    it.

    Args:
        log_p: logarithms of N probability vectors of length K, (N, …, K); the
            dimensions between stand for independent distributions.
        tol: relative error of |a| at which to stop.
        max_iter: at most so many steps.

    Returns:
        a, float64 (…, K). Where the vectors do not vary, the likelihood has no maximum;
        |a| then stops at about K / tol.

    Source: Minka 2000, equation 9, whose fixed point this is.
    """
    mean_log = log_p.to(torch.float64).mean(0)
    gap = 1 - mean_log.exp().sum(-1, keepdim=True)  # zero if the vectors do not vary
    total = (mean_log.shape[-1] - 1) / (2 * gap.clamp_min(tol))  # the root of large s
    for _ in range(max_iter):
        alpha = inverse_digamma(torch.digamma(total) + mean_log)
        excess = alpha.sum(-1, keepdim=True) - total
        done = excess.abs() <= tol * total
        if bool(done.all()):
            break
        rates = torch.polygamma(1, alpha).reciprocal().sum(-1, keepdim=True)
        slope = torch.polygamma(1, total) * rates
        new = torch.where(slope < 1, total + excess / (1 - slope), 2 * total)
        total = torch.where(done, total, new)
    return alpha


def dirichlet_score(log_p: Tensor, alpha: Tensor) -> Tensor:
    """−Σᵢ log P(αᵢ | τᵢ), the i-th copy under the i-th Dirichlet distribution.

    Args:
        log_p: logarithms of the posteriors of the T copies of an image, (N, T, T).
        alpha: parameters of the T distributions, (T, T).

    Returns:
        (N,), higher = more anomalous.
    """
    log_constant = torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1)
    return -(((alpha - 1) * log_p).sum(-1) + log_constant).sum(-1)


# -- detector


@method("geotrans", "geometric transformations", chapter=9)
@dataclass(eq=False, repr=False)
class GeoTrans(Detector):
    """Geometric transformations: learn to recognise them on normal images, and score by
    how badly that goes.

    The training images are held in memory, their transformed copies are not.

    Args:
        transformations: 8, 24, 72 or "non-geometric" (see `transformation_set`), or at
            least two names of one's own (see `transform`).
        score: "softmax"; "dirichlet"; or a detector of vectors, as Gaussian(), which
            judges the classifier's features of the image itself (two steps).
        depth: of the classifier, see `WideResNet`.
        widths: channels of its three stages; small by default, (64, 128, 256) in the
            paper.
        epochs: passes through the images, each time under one random transformation; so
            200 show the classifier as many images as the paper does.
        batch_size: images per step, at most.
        lr: Adam's step size.
        val_fraction: share of the training images that the classifier does not see, for the
            second step: the Dirichlet distributions, or the detector of vectors. 0 fits
            them to the classifier's own training images, as the paper does.
        seed: of the split, the network, the order of the images and their
            transformations.
        device: "auto", "cpu", "cuda", …

    After fitting, `alpha_` (T, T) holds the Dirichlet parameters and `history_` the mean
    loss of each epoch. `score` may be changed between "softmax" and "dirichlet" at any
    time.

    Source: Golan & El-Yaniv, NeurIPS 2018; the softmax score is their equation 1, the
    Dirichlet score their equation 2 with its constant.
    """

    transformations: int | str | Sequence[str] = 72
    score: OfVectors | Literal["softmax", "dirichlet"] = "dirichlet"
    depth: int = 10
    widths: Sequence[int] = (8, 16, 32)
    epochs: Count = 200
    lr: Positive = 1e-3
    val_fraction: Annotated[
        float, partial(check_number, low=0, high=1, open_high=True)
    ] = 0.25
    batch_size: TwoOrMore = field(default=128, kw_only=True)

    def _check_arguments(self) -> None:
        _check_transformations(self.transformations)
        _check_network(self.depth, self.widths)

    @property
    def names(self) -> tuple[str, ...]:
        """The transformations, as `transform` takes them."""
        if isinstance(self.transformations, int | str):
            return transformation_set(self.transformations)
        return tuple(self.transformations)

    def _build(self) -> None:
        channels, n_classes = self.input_shape_[0], len(self.names)
        self.network_ = WideResNet(channels, n_classes, self.depth, self.widths)

    def _fit(self, images: object) -> None:
        x = torch.cat(list(self._stream(images)))
        with seeded(self.seed):  # once more: to read a DataLoader draws random numbers
            self._build()
            known, held_out = self._split(x)
        for name in self.names:  # before the work: refuses images of a wrong shape
            transform(x[:1], name)
        n_batches = math.ceil(len(known) / self.batch_size)
        self.history_ = self._optimise(
            self.network_,
            self._loss,
            known,
            batch_size=math.ceil(len(known) / n_batches),
            weight_decay=5e-4,
        )
        self._fit_scores(held_out)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Training images of the classifier, and those held out of them."""
        if self.val_fraction == 0:
            _check_enough(len(x), 2, "")
            return x, x
        n = round(self.val_fraction * len(x))
        _check_enough(
            min(n, len(x) - n),
            2,
            f" on both sides of val_fraction = {self.val_fraction:g}",
        )
        order = torch.randperm(len(x))
        return x[order[n:]], x[order[:n]]

    def _loss(self, batch: Tensor) -> Tensor:
        """Cross entropy, of the transformation that each image happens to get."""
        labels = torch.randint(len(self.names), (len(batch),)).to(batch.device)
        logits = self.network_(transform_each(batch, labels, self.names))
        return cross_entropy(logits, labels)

    def _fit_scores(self, held_out: Tensor) -> None:
        batches = split_by_pixels(held_out)
        with torch.no_grad():
            log_p = torch.cat([self._log_posteriors(batch) for batch in batches])
            self.alpha_ = fit_dirichlet(log_p)
            if isinstance(self.score, Detector):
                detector = copy.copy(self.score)
                detector.device = self.device
                self.detector_ = detector.fit(
                    torch.cat([self._features(batch) for batch in batches])
                )

    def _log_posteriors(self, batch: Tensor) -> Tensor:
        logits = [self.network_(transform(batch, name)) for name in self.names]
        return log_softmax(torch.stack(logits, 1).to(torch.float64), 2)

    def log_posteriors(self, images: object) -> Tensor:
        """What the classifier says: entry (n, i, j) is the logarithm of the probability
        that transformation j was applied, where i was.

        Returns:
            float32 (N, T, T).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._log_posteriors, images)

    def features(self, images: object) -> Tensor:
        """What the classifier's last layer reads, of the images as they are.

        Returns:
            float32 (N, D), where D is the last of the `widths`.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._features, images)

    def _features(self, batch: Tensor) -> Tensor:
        return self.network_.features(2 * batch - 1)

    def _score(self, batch: Tensor) -> Tensor:
        if isinstance(self.score, Detector):
            return self.detector_._score(self._features(batch))
        log_p = self._log_posteriors(batch)
        if self.score == "softmax":
            return softmax_score(log_p)
        return dirichlet_score(log_p, self.alpha_)


# -- checks


def _check_transformations(transformations: object) -> None:
    """Refuse what is no name of a set and no two or more names of different maps."""
    if isinstance(transformations, int | str):
        check_choice("transformations", transformations, _SETS)
        return
    if not isinstance(transformations, list | tuple) or not all(
        isinstance(name, str) for name in transformations
    ):
        raise TypeError(
            f"transformations: expected the name of a set, or several names, got {transformations!r}"
        )
    for step in " ".join(transformations).split():
        check_choice("transformations", step, _STEPS)
    if len(transformations) < 2:
        raise ValueError(
            f"transformations: expected at least 2, got {len(transformations)}"
        )
    _check_distinct(transformations)


def _check_distinct(names: Sequence[str]) -> None:
    """Two that do the same to noise are the same, and no classifier tells them apart."""
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    copies = [transform(noise, name) for name in names]
    for i, j in combinations(range(len(names)), 2):
        if torch.allclose(copies[i], copies[j], atol=1e-6):
            raise ValueError(
                f"transformations: expected different ones, got {names[i]!r} and {names[j]!r}, the same"
            )


def _check_network(depth: object, widths: object) -> None:
    check_number("depth", depth, 10, whole=True)
    if (depth - 4) % 6:
        raise ValueError(f"depth: expected 10, 16, 22, 28, …, got {depth}")
    if not isinstance(widths, list | tuple):
        raise TypeError(f"widths: expected 3 integers, got {type(widths).__name__}")
    if len(widths) != 3:
        raise ValueError(f"widths: expected 3 integers, got {len(widths)}")
    for width in widths:
        check_number("widths", width, 1, whole=True)


def _check_enough(n: int, least: int, where: str) -> None:
    if n < least:
        raise ValueError(f"images: expected at least {least}{where}, got {n}")
