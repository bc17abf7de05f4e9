"""A closed-set classifier: a network from images to logits, one for each known class.

Source: Vaze et al., Open-set recognition: a good closed-set classifier is all you need,
ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from adlab._checks import check_choice, check_classes, check_number, check_vectors
from adlab.training import minimise, resolve_device, seeded, stream


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
            `adlab.augmentation.random_symmetry`.
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
    labels = check_classes(labels, len(images), n_classes)
    optimizer = torch.optim.SGD(
        network.parameters(), lr, 0.9, weight_decay=weight_decay, nesterov=True
    )
    n_steps = epochs * math.ceil(len(images) / batch_size)

    def cosine(step: int) -> float:
        return (1 + math.cos(math.pi * step / n_steps)) / 2

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(images)).split(batch_size):
            batch = augment(images[rows]) if augment else images[rows]
            yield batch.to(device), labels[rows].to(device)

    def loss(batch: Tensor, classes: Tensor) -> Tensor:
        return cross_entropy(network(batch), classes, label_smoothing=label_smoothing)

    falling = LambdaLR(optimizer, cosine) if schedule == "cosine" else None
    with seeded(seed):
        return minimise(
            network, loss, batches, optimizer, epochs=epochs, schedule=falling
        )


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
        rows = [batch_logits(classifier, batch.to(device)).cpu() for batch in batches]
    return torch.cat(rows).float()


def batch_logits(classifier: nn.Module, batch: Tensor) -> Tensor:
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
