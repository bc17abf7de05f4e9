"""Continual learning: tasks that come one after another, learned by one network that
sees no old data again, or only little of it.

    task 1 ──▶ network ──▶ task 2 ──▶ network ──▶ …   each is then measured on all tasks

Trained on the next task alone, a network forgets the last one. Two remedies: elastic
weight consolidation (EWC) holds the weights that mattered to old tasks, and replay mixes
a few old samples into the new ones.

Sources: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural
networks"; Chaudhry et al. 2019, "On tiny episodic memories in continual learning".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from adlab._checks import as_array, as_tensor, check_number, check_vectors
from adlab._parameters import Count, NonNegative, Positive
from adlab.training import joined, resolve_device, seeded, single_precision
from adlab.vectors.base import VectorDetector

if TYPE_CHECKING:
    from typing_extensions import Self

# -- elastic weight consolidation


def fisher_diagonal(
    network: nn.Module,
    loss: Callable[..., Tensor],
    batches: Iterable[tuple[Tensor, ...]],
) -> Tensor:
    """The diagonal of the empirical Fisher information: the mean, over samples, of the
    squared gradient of a single sample's loss.

    It is not the square of a batch's gradient, in which the samples cancel: where the
    training has converged, that is zero. It is an estimate of the Fisher information
    where the loss of a sample is a negative log-likelihood, −log p; if it is c times
    that, it is c² times as large. The network is left in eval mode.

    Args:
        network: its weights that require a gradient count, P numbers in all.
        loss: maps what a batch holds to a scalar, as for `adlab.training.minimise`; it
            is called with one sample at a time.
        batches: tuples of tensors (B, …) on the device of the network.

    Returns:
        (P,), at least 0, in the order of `network.parameters()`.

    Raises:
        TypeError, ValueError: no weight, no sample, or batches that are no tuples.

    Source: Kirkpatrick et al. 2017; on what is empirical in it, Kunstner et al. 2019,
    "Limitations of the empirical Fisher approximation for natural gradient descent".
    """
    network.eval()
    weights = _weights(network)
    total, count = torch.zeros_like(_flat(weights)), 0
    for sample in _samples(batches):
        value = loss(*sample)
        gradient = torch.autograd.grad(value, weights, materialize_grads=True)
        total += _flat(gradient).square()
        count += 1
    if not count:
        raise ValueError("batches: expected at least one sample, got none")
    return total / count


def _samples(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Batches of one sample each."""
    for batch in batches:
        if not isinstance(batch, tuple | list):
            raise TypeError(
                f"batches: expected tuples of tensors, got {type(batch).__name__}"
            )
        yield from zip(*(part.split(1) for part in batch), strict=True)


def ewc_penalty(
    network: nn.Module, fisher: Tensor, strength: float
) -> Callable[[], Tensor]:
    """λ/2 · Σ F_i (θ_i − θ*_i)², where θ* are the weights that the network has now: to
    be added to the loss of the next task.

    If the losses are the means of −log p over N_old and N_new samples, λ = N_old / N_new
    is Bayes' rule, with a Gaussian of diagonal precision for what was learned before.
    After several tasks, `fisher` is the sum of theirs, each times its number of samples,
    θ* are the weights after the last, and λ = 1 / N_new.

    Args:
        network: just trained on the old task.
        fisher: F (P,), as `fisher_diagonal` gives it.
        strength: λ, at least 0; 0 is plain fine-tuning.

    Returns:
        A function without arguments that gives the penalty, a scalar, of the weights as
        they are when it is called.

    Raises:
        TypeError, ValueError: a Fisher information that does not fit the network or is
            negative, or λ out of its range.

    Source: Kirkpatrick et al. 2017, eq. 3; Huszár 2018, "Note on the quadratic penalties
    in elastic weight consolidation" (several tasks).
    """
    weights = _weights(network)
    anchor = _flat(weights).detach().clone()
    check_number("strength", strength, 0)
    fisher = as_tensor("fisher", fisher).to(anchor)
    bad = int((~(fisher >= 0)).sum())
    if fisher.shape != anchor.shape or bad:
        raise ValueError(
            f"fisher: expected shape {tuple(anchor.shape)} and numbers of at least 0, "
            f"got shape {tuple(fisher.shape)} and {bad} that are negative or NaN"
        )

    def penalty() -> Tensor:
        moved = _flat(weights) - anchor
        return strength / 2 * (fisher * moved.square()).sum()

    return penalty


def _flat(parts: Iterable[Tensor]) -> Tensor:
    """All numbers in one row; torch's own takes no weights that are channels last."""
    return torch.cat([part.reshape(-1) for part in parts])


def _weights(network: nn.Module) -> list[nn.Parameter]:
    weights = [w for w in network.parameters() if w.requires_grad]
    if not weights:
        raise ValueError(
            f"network: expected weights that require a gradient, got {type(network).__name__} without"
        )
    return weights


# -- replay


class Reservoir:
    """A memory of limited size, in which each item of a stream is kept with the same
    probability, however long the stream becomes.

    Args:
        capacity: number of items that it holds at most.
        seed: of the draws.

    `seen` is the number of items that were added.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """

    def __init__(self, capacity: int, seed: int = 0):
        check_number("capacity", capacity, 1, whole=True)
        check_number("seed", seed, 0, whole=True)
        self.capacity, self.seen = capacity, 0
        self._rng = np.random.default_rng(seed)
        self._kept: list[Tensor] = []

    def add(self, items: object) -> None:
        """Take the next items of the stream, (B, …), of the shape of the first ones.

        Raises:
            TypeError, ValueError: items of another type or shape.
        """
        items = as_tensor("items", items)
        expected = self._kept[0].shape if self._kept else items.shape[1:]
        if items.ndim == 0 or items.shape[1:] != expected:
            shape = ", ".join(["B", *map(str, expected)])
            raise ValueError(
                f"items: expected shape ({shape}), got {tuple(items.shape)}"
            )
        for item in items:
            self._add(item.clone())

    def _add(self, item: Tensor) -> None:
        self.seen += 1
        if len(self._kept) < self.capacity:
            self._kept.append(item)
        elif (place := int(self._rng.integers(self.seen))) < self.capacity:
            self._kept[place] = item

    @property
    def items(self) -> Tensor:
        """What is kept, (min(capacity, seen), …).

        Raises:
            ValueError: nothing was added.
        """
        if not self._kept:
            raise ValueError("items: expected at least one that was added, got none")
        return torch.stack(self._kept)


# -- a detector that goes on learning


@dataclass(eq=False, repr=False)
class ContinualAutoencoder(VectorDetector):
    """An autoencoder that learns one task after another: `fit` learns the first and
    forgets whatever was there, `fit_next` learns each of the others.

    The network has dense layers, so it takes small images or vectors, at best in
    [0, 1]. The score is the squared error of the reconstruction, summed over the pixels.

    Args:
        strategy: "fine-tune" trains on the new images alone; "ewc" adds the penalty of
            elastic weight consolidation; "replay" adds the images of a reservoir.
        strength: λ of EWC, for the sum of squared gradients over all old images against
            that of the loss over all new ones. If σ is the standard deviation of the
            residual of a pixel, 1 / (2σ²) is Bayes' rule.
        capacity: images that the reservoir holds, of all old tasks together.
        width: units of the layer on either side of the latent one.
        n_latent: numbers that an image is compressed to.
        epochs: passes through the images of each task.
        lr: Adam's step size.
        batch_size: images per step.
        seed: of the first weights, the order of the images and the reservoir.
        device: "auto", "cpu", "cuda", …

    After fitting, `network_`; `fisher_`, the sum of squared gradients of old images (zero
    but for EWC); `memory_`, the images for replay; `seen_`, how many of them passed; and
    `history_`, the mean loss of each epoch of the last task.

    Source: Kirkpatrick et al. 2017 and Huszár 2018 (EWC), Chaudhry et al. 2019 (replay).
    """

    strategy: Literal["fine-tune", "ewc", "replay"] = "fine-tune"
    strength: NonNegative = 100.0
    capacity: Count = 20
    width: Count = 32
    n_latent: Count = 8
    epochs: Count = 60
    lr: Positive = 1e-2
    batch_size: Count = field(default=32, kw_only=True)

    def fit_next(self, images: object) -> Self:
        """Learn the next task.

        Args:
            images: as for `fit`, of the same shape.

        Returns:
            The detector itself. Should fitting fail, it stays as it was.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        self._check_fitted()
        fresh = copy.deepcopy(self)
        with seeded(self.seed), single_precision():
            fresh._learn(joined(fresh._stream(self._read(images))))
        self.__dict__ = fresh.__dict__
        return self

    def _fit(self, images: object) -> None:
        x = joined(self._stream(images))
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build()
        self.network_.to(resolve_device(self.device))
        weights = _flat(self.network_.parameters())
        self.fisher_, self.memory_, self.seen_ = torch.zeros_like(weights), x[:0], 0
        self._learn(x)

    def _build(self) -> None:
        size = int(np.prod(self.input_shape_))
        self.network_ = nn.Sequential(
            nn.Linear(size, self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.n_latent),
            nn.Linear(self.n_latent, self.width),
            nn.ReLU(),
            nn.Linear(self.width, size),
        )

    def _learn(self, x: Tensor) -> None:
        penalty = ewc_penalty(self.network_, self.fisher_ / len(x), self.strength)
        self.history_ = self._optimise(
            self.network_,
            lambda batch: self._loss(batch) + penalty(),
            torch.cat([x, self.memory_]),
            check=check_vectors,
        )
        if self.strategy == "ewc":
            fisher = fisher_diagonal(self.network_, self._loss, [(x,)])
            self.fisher_ = self.fisher_ + len(x) * fisher
        elif self.strategy == "replay":
            self._remember(x)

    def _remember(self, x: Tensor) -> None:
        memory = Reservoir(self.capacity, self.seed + self.seen_)
        memory.add(self.memory_)
        memory.seen = self.seen_
        memory.add(x)
        self.memory_, self.seen_ = memory.items, memory.seen

    def _loss(self, batch: Tensor) -> Tensor:
        return self._score(batch).mean()

    def _score(self, batch: Tensor) -> Tensor:
        return (self.network_(batch) - batch).square().sum(1)


# -- measures


def average_score(scores: object) -> float:
    """The mean over all tasks after the last: (1/T) Σ_j A_{T,j}.

    Args:
        scores: A (T, T), T >= 2: A_{i,j} is the measure on task j after task i was
            learned, higher = better, as the AUROC.

    Raises:
        TypeError, ValueError: no finite (T, T).
    """
    return float(_check_square(scores)[-1].mean())


def forgetting(scores: object) -> np.ndarray:
    """By how much each task but the last is worse in the end than at its best before:
    max over i < T of A_{i,j}, minus A_{T,j}.

    Args and raises as `average_score`.

    Returns:
        float64 (T − 1,), negative for a task that is best in the end.

    Source: Chaudhry et al. 2018, "Riemannian walk for incremental learning", eq. 3.
    """
    matrix = _check_square(scores)[:, :-1]
    return matrix[:-1].max(0) - matrix[-1]


def backward_transfer(scores: object) -> float:
    """By how much tasks have become better since they were learned: the mean over j < T
    of A_{T,j} − A_{j,j}. Negative where they were forgotten.

    Args and raises as `average_score`. Source: Lopez-Paz & Ranzato 2017, "Gradient
    episodic memory for continual learning", eq. 3.
    """
    matrix = _check_square(scores)
    return float((matrix[-1] - matrix.diagonal())[:-1].mean())


def _check_square(scores: object) -> np.ndarray:
    matrix = as_array("scores", scores).astype(np.float64)
    if matrix.ndim != 2 or len(matrix) < 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(
            f"scores: expected shape (T, T) with T >= 2, got {matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix)).sum())
        raise ValueError(
            f"scores: expected finite values, got {bad} that are NaN or infinite"
        )
    return matrix
