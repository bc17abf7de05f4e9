"""Deep SVDD and Deep SAD: a network that maps normal images close to one point.

    image ──▶ network without biases ──▶ φ(s) ──▶ ‖φ(s) − c‖²

The centre c is fixed before the training, at the mean of what the network makes of
normal images. A network that could map every image to c would solve the task without
having learned anything: this is the collapse that the constraints forbid.

Sources: Ruff et al., Deep one-class classification, ICML 2018; Ruff et al., Deep
semi-supervised anomaly detection, ICLR 2020.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from adlab._checks import check_sides
from adlab._methods import method
from adlab._parameters import Count, Counts, Fraction, NonNegative, Positive, Whole
from adlab.bias_free import (
    check_behaviour,
    check_network,
    mirror_network,
    one_class_network,
)
from adlab.data import ImageSet
from adlab.detector import Detector, LabelledDetector
from adlab.training import resolve_device, seeded, update_batch_norm

# -- centre, radius, losses


def place_centre(features: Tensor, eps: float = 0.1) -> Tensor:
    """The mean of features (N, D), where no coordinate is closer to zero than eps: (D,).

    The smaller ones, zero itself among them, become ±eps: a weight of zero would reach
    a coordinate that is zero for any image.
    """
    centre = features.double().mean(0)
    edge = torch.where(centre < 0, -eps, eps)
    return torch.where(centre.abs() < eps, edge, centre).to(features.dtype)


def squared_distance(features: Tensor, centre: Tensor) -> Tensor:
    """‖φ − c‖² of features (N, D): (N,)."""
    return (features - centre).square().sum(1)


def one_class_loss(distance: Tensor) -> Tensor:
    """The mean of squared distances (N,)."""
    return distance.mean()


def soft_boundary_loss(distance: Tensor, radius: float | Tensor, nu: float) -> Tensor:
    """R² + mean(max(0, d − R²)) / ν, for squared distances d (N,)."""
    return radius**2 + (distance - radius**2).relu().mean() / nu


def best_radius(distance: Tensor, nu: float) -> float:
    """The R that minimises the soft-boundary loss: a share of at most ν of the squared
    distances (N,) is larger than R², which is their (1 − ν) quantile.
    """
    outside = math.floor(nu * len(distance) + 1e-9)
    kept = len(distance) - min(outside, len(distance) - 1)
    return math.sqrt(float(distance.double().kthvalue(kept).values))


def deep_sad_terms(
    distance: Tensor, target: int, eta: float = 1.0, eps: float = 1e-6
) -> Tensor:
    """What each image adds to the loss of Deep SAD, (N,): its squared distance d; η · d
    if it is known to be normal, η / d if anomalous.

    Args:
        distance: squared distances (N,).
        target: 0 not labelled, 1 normal, -1 anomalous.
        eta: η, the weight of labelled images.
        eps: added to d where it is divided by.

    Source: Ruff et al. 2020, eq. 7.
    """
    if target == 0:
        return distance
    return eta * (distance if target == 1 else 1 / (distance + eps))


def relative_spread(features: Tensor, centre: Tensor) -> float:
    """Root mean square distance of features (N, D) to their own mean, in units of ‖c‖.

    Zero where all images have become one point: a collapse, whatever the point.
    """
    features = features.double()
    scatter = (features - features.mean(0)).square().sum(1).mean().sqrt()
    return float(scatter / centre.double().norm())


class CollapseError(ArithmeticError):
    """The network maps all training images to one point: its scores would be noise."""


# -- detectors


@dataclass(eq=False, repr=False, kw_only=True)
class _OneClass(Detector):
    """What both detectors share: network, pre-training, centre, and the check for a
    collapse.
    """

    widths: Counts = (8, 4)
    n_features: Count = 32
    network: nn.Module | None = None
    pretrain_epochs: Whole = 20
    epochs: Whole = 50
    lr: Positive = 1e-3
    weight_decay: NonNegative = 1e-6
    smallest_spread = 1e-3  # of the training images; less is a collapse

    def _check_arguments(self) -> None:
        if self.network is not None:
            check_network(self.network)

    def _build(self) -> None:
        if self.network is None:
            self.network_ = one_class_network(
                self.input_shape_, self.widths, self.n_features
            )
        else:
            self.network_ = copy.deepcopy(self.network)

    def _fit(self, images: object) -> None:
        first = next(self._stream(images))
        self._check_size()
        with seeded(self.seed):  # once more: to read a DataLoader draws random numbers
            self._build()
        self.network_.to(resolve_device(self.device))
        check_behaviour(self.network_, first)
        self.pretrain_history_, self.history_ = [], []
        if self.pretrain_epochs:
            self._pretrain(images)
        update_batch_norm(self.network_, self._stream(images))
        self.centre_ = place_centre(self._features(images))
        if self.epochs:
            self._train(images)
            update_batch_norm(self.network_, self._stream(images))
        self._finish(self._features(images))

    def _check_size(self) -> None:
        if self.network is None:
            n_levels = len(self.widths)
            words = f"{2**n_levels} for {n_levels} levels"
            check_sides(self.input_shape_[1:], 2**n_levels, words)

    def _pretrain(self, images: object) -> None:
        """Train the network as the encoder of an autoencoder, with the squared error."""
        n_features = self._features(next(self._stream(images))).shape[1]
        with seeded(self.seed):
            decoder = mirror_network(self.input_shape_, self.widths, n_features)
        autoencoder = nn.Sequential(self.network_, decoder)

        def error(batch: Tensor) -> Tensor:
            return (autoencoder(batch) - batch).square().flatten(1).sum(1).mean()

        self.pretrain_history_ = self._optimise(
            autoencoder, error, images, epochs=self.pretrain_epochs
        )

    def _train(self, images: object) -> None:
        raise NotImplementedError

    def _features(self, images: object) -> Tensor:
        with torch.no_grad():
            self.network_.eval()
            return torch.cat([self.network_(batch) for batch in self._stream(images)])

    def _distance(self, batch: Tensor) -> Tensor:
        return squared_distance(self.network_(batch), self.centre_)

    def _finish(self, features: Tensor) -> None:
        """Refuse a collapse; `features` are those of all training images."""
        spread = relative_spread(features, self.centre_)
        if not spread > self.smallest_spread:
            raise CollapseError(
                f"network: expected representations that differ, got all training images within {spread:.2g} "
                f"of one point, in units of the centre's length; fewer epochs or less weight_decay may help, "
                "and images that are all alike cannot be learned from"
            )

    def represent(self, images: object) -> Tensor:
        """φ(s), float32 (N, n_features).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda batch: self.network_(batch), images)

    def _score(self, batch: Tensor) -> Tensor:
        return self._distance(batch)


@method("deep-svdd", "Deep SVDD", chapter=11, options={"objective": "one-class"})
@dataclass(eq=False, repr=False)
class DeepSVDD(_OneClass):
    """Deep support vector data description: the score is the squared distance of φ(s)
    to the centre; with the soft boundary, less the squared radius.

    Training images are streamed. Should the network map all of them to one point, `fit`
    raises a `CollapseError`.

    Args:
        objective: "one-class", the mean squared distance; or "soft-boundary", the
            smallest ball outside of which a share ν may lie.
        nu: ν in (0, 1), of the soft boundary; unused otherwise.
        warm_up: epochs, at least one, in which the soft boundary is trained as
            one-class: a radius means little before the distances have settled.
        widths: channels of each level of the network.
        n_features: dimension of φ.
        network: one's own, (B, C, H, W) to (B, n_features), without biases or bounded
            activations; it is copied. A detector with one cannot be saved.
        pretrain_epochs: passes as an autoencoder before the centre is placed.
        epochs: passes through the training images; 0 leaves the network as it was when
            the centre was placed, a control.
        lr: Adam's step size.
        weight_decay: λ.
        batch_size: images per step.
        seed: of the first weights and the order of the images.
        device: "auto", "cpu", "cuda", …

    After fitting, `network_` is φ, `centre_` c, `radius_` R of the soft boundary (0
    where one-class), `history_` and `pretrain_history_` the mean loss of each epoch.

    Source: Ruff et al., Deep one-class classification, ICML 2018; equations 3 and 4.
    """

    objective: Literal["one-class", "soft-boundary"] = "one-class"
    nu: Fraction = 0.1
    warm_up: Count = 10

    def _train(self, images: object) -> None:
        loss = self._one_class
        if self.objective == "soft-boundary":
            loss = self._soft_boundary(sum(map(len, self._stream(images))))
        self.history_ = self._optimise(self.network_, loss, images)

    def _one_class(self, batch: Tensor) -> Tensor:
        return one_class_loss(self._distance(batch))

    def _soft_boundary(self, n: int) -> Callable[[Tensor], Tensor]:
        """The loss of a batch. Whenever all n training images have passed, the radius
        is set anew, from the distances of all of them; in the warm-up, the loss is the
        one-class one.
        """
        passed, epoch, radius = [], 0, 0.0

        def loss(batch: Tensor) -> Tensor:
            nonlocal passed, epoch, radius
            distance = self._distance(batch)
            hard = epoch < self.warm_up
            value = (
                one_class_loss(distance)
                if hard
                else soft_boundary_loss(distance, radius, self.nu)
            )
            passed.append(distance.detach())
            if sum(map(len, passed)) >= n:
                radius = best_radius(torch.cat(passed), self.nu)
                passed, epoch = [], epoch + 1
            return value

        return loss

    def _finish(self, features: Tensor) -> None:
        super()._finish(features)
        distance = squared_distance(features, self.centre_)
        soft = self.objective == "soft-boundary"
        self.radius_ = best_radius(distance, self.nu) if soft else 0.0

    def _score(self, batch: Tensor) -> Tensor:
        return self._distance(batch) - self.radius_**2


@method("deep-sad", "Deep SAD", chapter=11, labelled=0.01)
@dataclass(eq=False, repr=False)
class DeepSAD(_OneClass, LabelledDetector):
    """Deep semi-supervised anomaly detection: Deep SVDD that also learns from a few
    labelled images. Known anomalies are pushed away from the centre.

    The score is the squared distance of φ(s) to the centre. Without labels, training is
    that of the one-class Deep SVDD; with η = 0 nearly so, as labelled images still
    count in the number of images and in the statistics of the batch norms.

    Args:
        eta: η, the weight of a labelled image; that of an unlabelled one is 1.
        widths, n_features, network, pretrain_epochs, epochs, lr, weight_decay,
            batch_size, seed, device: as of `DeepSVDD`.

    After fitting, `network_` is φ, `centre_` c, `history_` and `pretrain_history_` the
    mean loss of each epoch.

    Source: Ruff et al., Deep semi-supervised anomaly detection, ICLR 2020; equation 7.
    """

    eta: NonNegative = 1.0

    def _fit(self, images: object) -> None:
        next(self._stream(images))
        self._groups = self._group(self._labelled)
        super()._fit(images)
        del self._groups

    def _group(self, labelled: ImageSet | None) -> list[tuple[int, Tensor]]:
        """Targets and images of the labelled normals and of the labelled anomalies,
        those that there are.
        """
        if labelled is None or len(labelled) == 0:
            return []
        images = torch.cat(list(self._stream(labelled)))
        groups = [(1, images[labelled.labels == 0]), (-1, images[labelled.labels == 1])]
        return [(target, group) for target, group in groups if len(group)]

    def _train(self, images: object) -> None:
        n = sum(map(len, self._stream(images)))
        self.history_ = self._optimise(
            self.network_, lambda batch: self._loss(batch, n), images
        )

    def _loss(self, batch: Tensor, n: int) -> Tensor:
        """The loss estimated from a stratified batch: each group is drawn by itself and
        enters with its share of all images, so none is missed however small.
        """
        parts = [(0, n, batch)]
        for target, group in self._groups:
            size = max(1, round(len(batch) * len(group) / n))
            rows = torch.randint(len(group), (size,), device=group.device)
            parts.append((target, len(group), group[rows]))
        sizes = [len(part) for _, _, part in parts]
        distances = self._distance(torch.cat([part for *_, part in parts])).split(sizes)
        total = sum(count for _, count, _ in parts)
        return sum(
            count / total * deep_sad_terms(distance, target, self.eta).mean()
            for (target, count, _), distance in zip(parts, distances, strict=True)
        )
