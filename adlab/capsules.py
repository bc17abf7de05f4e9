"""Capsules: neurons that are vectors, whose length says how sure and whose direction says
how; and a capsule network that learns from normal images and a few anomalies.

    image ──▶ convolution ──▶ primary capsules u_i ──▶ votes û_ij = W_ij u_i
          ──▶ routing ──▶ z_n, z_a ──▶ ‖z_a‖ - ‖z_n‖ + ‖s - decoder(z_n)‖²

Sources: Sabour, Frosst & Hinton 2017, "Dynamic routing between capsules"; Piciarelli,
Mishra & Foresti 2021, "Supervised anomaly detection with highly imbalanced datasets using
capsule networks", IJPRAI.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from adlab._checks import check_number, check_sides
from adlab._methods import method
from adlab._parameters import Count, Counts, NonNegative, Positive
from adlab.detector import LabelledDetector
from adlab.training import seeded

NORMAL, ANOMALOUS = 0, 1  # the two capsules at the end


# -- capsules


def squash(s: Tensor, eps: float = 1e-8) -> Tensor:
    """Vectors (…, D) shortened to a length below one: ‖s‖² / (1 + ‖s‖²) · s / ‖s‖.

    The direction stays; a short vector is squared away, a long one comes near to one.
    At zero the gradient is that of √eps · s, where the formula as written gives NaN.

    Source: Sabour, Frosst & Hinton 2017, eq. 1.
    """
    square = s.square().sum(-1, keepdim=True)
    return (square + eps).sqrt() / (1 + square) * s


def route(votes: Tensor, n_iterations: int = 3) -> tuple[Tensor, Tensor]:
    """Routing by agreement: each capsule below sends its vote to the capsules above in
    shares c, and sends more to those whose other votes agree with its own.

        c_i = softmax_j(b_i)    v_j = squash(Σ_i c_ij û_ij)    b_ij += û_ij · v_j

    The shares of one capsule below sum to one *over the capsules above*. Gradients pass
    through the last iteration only.

    Args:
        votes: û, (B, I, J, D), of I capsules below for J above.
        n_iterations: 1 shares alike.

    Returns:
        v, (B, J, D), and c, (B, I, J).

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Sabour, Frosst & Hinton 2017, procedure 1.
    """
    check_number("n_iterations", n_iterations, 1, whole=True)
    if votes.ndim != 4:
        raise ValueError(f"votes: expected (B, I, J, D), got {tuple(votes.shape)}")
    fixed = votes.detach()
    logits = votes.new_zeros(votes.shape[:3])
    for _ in range(n_iterations - 1):
        above = _combined(fixed, logits.softmax(2))
        logits = logits + torch.einsum("bijd,bjd->bij", fixed, above)
    shares = logits.softmax(2)
    return _combined(votes, shares), shares


def _combined(votes: Tensor, shares: Tensor) -> Tensor:
    return squash(torch.einsum("bij,bijd->bjd", shares, votes))


def margin_loss(
    lengths: Tensor,
    classes: Tensor,
    present: float = 0.9,
    absent: float = 0.1,
    weight: float = 0.5,
) -> Tensor:
    """Σ_k T_k max(0, m⁺ - ‖v_k‖)² + λ (1 - T_k) max(0, ‖v_k‖ - m⁻)², (N,).

    Args:
        lengths: ‖v_k‖ (N, K) in [0, 1).
        classes: (N,), the k with T_k = 1.
        present, absent: m⁺ and m⁻; a longer, and a shorter, vector costs nothing.
        weight: λ, of the classes that are absent.

    Source: Sabour, Frosst & Hinton 2017, eq. 4.
    """
    short = relu(present - lengths).square()
    long = weight * relu(lengths - absent).square()
    right = torch.arange(lengths.shape[1], device=lengths.device) == classes[:, None]
    return torch.where(right, short, long).sum(1)


# -- the network


class CapsuleNetwork(nn.Module):
    """From images (B, C, H, W) to a capsule for each class, and back from the first of
    them: a convolution with ReLU; a strided one whose channels, at each place, are taken
    together as capsules; a matrix for each pair of capsules below and above; routing; and
    a decoder of fully connected layers.

    Args:
        shape: (C, H, W) of the images, H and W at least 2 · kernel_size - 1.
        n_filters: channels of the first convolution.
        n_primary: primary capsules at each place.
        primary_dim, dim: D of the primary capsules, and of those at the end.
        n_classes: capsules at the end.
        n_iterations: of the routing.
        kernel_size: of both convolutions; the second has stride 2.
        widths: of the hidden layers of the decoder.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Sabour, Frosst & Hinton 2017, section 4.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        n_filters: int = 32,
        n_primary: int = 4,
        primary_dim: int = 8,
        dim: int = 16,
        n_classes: int = 2,
        n_iterations: int = 3,
        kernel_size: int = 9,
        widths: tuple[int, ...] = (128,),
    ):
        super().__init__()
        _check_fits(shape, kernel_size, "shape")
        self.shape, self.n_iterations = tuple(shape), n_iterations
        self.primary_dim = primary_dim
        self.first = nn.Conv2d(shape[0], n_filters, kernel_size)
        self.second = nn.Conv2d(n_filters, n_primary * primary_dim, kernel_size, 2)
        rows, columns = ((n - 2 * kernel_size + 1) // 2 + 1 for n in self.shape[1:])
        below = rows * columns * n_primary
        self.weight = nn.Parameter(
            0.01 * torch.randn(below, n_classes, dim, primary_dim)
        )
        self.decoder = _decoder([dim, *widths], self.shape)

    def primary(self, images: Tensor) -> Tensor:
        """Primary capsules (B, I, D): the channels of one place, in groups of D."""
        maps = self.second(relu(self.first(images)))
        at_places = maps.permute(0, 2, 3, 1)  # or groups would mix places, not channels
        return squash(at_places.reshape(len(images), -1, self.primary_dim))

    def forward(self, images: Tensor) -> Tensor:
        """The capsules at the end, (B, K, D)."""
        votes = torch.einsum("ijed,bid->bije", self.weight, self.primary(images))
        return route(votes, self.n_iterations)[0]

    def decode(self, capsules: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] from vectors (B, D)."""
        return self.decoder(capsules)


def _check_fits(shape: Sequence[int], kernel_size: int, name: str) -> None:
    """Both convolutions must have a place to stand."""
    least = 2 * kernel_size - 1
    check_sides(shape, least, f"{least} for kernel_size = {kernel_size}", name)


def _decoder(widths: list[int], shape: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    last = nn.Linear(widths[-1], math.prod(shape))
    return nn.Sequential(*layers, last, nn.Sigmoid(), nn.Unflatten(1, shape))


# -- the detector


@method("capsules", "capsules", chapter=14, labelled=0.01, labelled_kinds=9)
@dataclass(eq=False, repr=False)
class CapsuleAnomaly(LabelledDetector):
    """A capsule network with one capsule for normal images and one for anomalies, trained
    on many of the former and few of the latter.

    Trained with Adam on the margin loss and on the squared error of what the decoder
    makes of the normal capsule, for all images. The score is ‖z_a‖ - ‖z_n‖ + the squared
    error; the first difference lies in (-1, 1), the error is a mean over pixels, and far
    smaller.

    Args:
        score: "sum" of both terms; or one of them: "difference", or "reconstruction".
        n_filters, n_primary, primary_dim, dim, kernel_size, widths: of the
            `CapsuleNetwork`; 256, 32, 8, 16, 9 and (512, 1024) in the paper.
        n_iterations: of the routing.
        reconstruction_weight: of the squared error in the loss: 0.0005 times the number
            of pixels of MNIST, as in the paper.
        epochs: passes through the training images.
        lr: Adam's step size.
        batch_size: images per step.
        seed: of the first weights and the order.
        device: "auto", "cpu", "cuda", …

    Images are at least 2 · kernel_size - 1 pixels high and wide. All training images are
    held in memory. Without known anomalies there is nothing to tell them from: all images
    then make z_n long, and only the reconstruction says something.

    After `fit`: `network_`, a `CapsuleNetwork`, and `history_`, the mean loss of each
    epoch.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Piciarelli, Mishra & Foresti 2021, "Supervised anomaly detection with highly
    imbalanced datasets using capsule networks", IJPRAI.
    """

    score: Literal["sum", "difference", "reconstruction"] = "sum"
    n_filters: Count = 32
    n_primary: Count = 4
    primary_dim: Count = 8
    dim: Count = 16
    n_iterations: Count = 3
    kernel_size: Count = 9
    widths: Counts = (128,)
    reconstruction_weight: NonNegative = 0.392
    epochs: Count = 10
    lr: Positive = 1e-3
    batch_size: Count = field(default=32, kw_only=True)

    def _build(self) -> None:
        self.network_ = CapsuleNetwork(
            tuple(self.input_shape_),
            self.n_filters,
            self.n_primary,
            self.primary_dim,
            self.dim,
            n_iterations=self.n_iterations,
            kernel_size=self.kernel_size,
            widths=tuple(self.widths),
        )

    def _fit(self, images: object) -> None:
        next(self._stream(images))
        _check_fits(self.input_shape_, self.kernel_size, "images")
        images, labels = self._examples(images)
        with seeded(self.seed):
            self._build()
        self.history_ = self._learn(self.network_, self._loss, images, labels)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        capsules = self.network_(images)
        margin = margin_loss(capsules.norm(dim=2), labels)
        return (
            margin + self.reconstruction_weight * self._error(images, capsules)
        ).mean()

    def _error(self, images: Tensor, capsules: Tensor) -> Tensor:
        """The mean squared error of what the normal capsules say, (B,)."""
        decoded = self.network_.decode(capsules[:, NORMAL])
        return (decoded - images).square().flatten(1).mean(1)

    def capsules(self, images: object) -> Tensor:
        """z_n and z_a, float32 (N, 2, dim).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda batch: self.network_(batch), images)

    def terms(self, images: object) -> tuple[Tensor, Tensor]:
        """The two terms of the score, each (N,): ‖z_a‖ - ‖z_n‖, and the squared error.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        difference, error = self._apply_all(self._terms, images)
        return difference, error

    def _terms(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        capsules = self.network_(batch)
        lengths = capsules.norm(dim=2)
        difference = lengths[:, ANOMALOUS] - lengths[:, NORMAL]
        return difference, self._error(batch, capsules)

    def _score(self, batch: Tensor) -> Tensor:
        difference, error = self._terms(batch)
        if self.score == "sum":
            return difference + error
        return difference if self.score == "difference" else error
