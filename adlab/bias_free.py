"""Networks without biases, and the checks that a network is one.

With zero weights, a bias alone can map every image to the same point; so can a bounded
activation, once it is saturated. A network that has neither maps a black image to zero,
and what it makes of others grows with their brightness.

Source: Ruff et al., Deep one-class classification, ICML 2018; propositions 2 and 3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adlab.training import batch_norms


def one_class_network(
    shape: Sequence[int], widths: Sequence[int] = (8, 4), n_features: int = 32
) -> nn.Sequential:
    """A network from images (N, C, H, W) to φ (N, n_features), without biases and with
    unbounded activations.

    Each level is a 5 × 5 convolution, batch norm without parameters, leaky ReLU and max
    pooling; a linear layer ends it. The default on 28 × 28 pixels is the LeNet of the
    paper, with 7272 weights.

    Args:
        shape: of an image, (C, H, W).
        widths: channels of each level.
        n_features: dimension of φ.
    """
    layers, channels, *size = [], *shape
    for width in widths:
        layers += [
            nn.Conv2d(channels, width, 5, padding=2, bias=False),
            nn.BatchNorm2d(width, eps=1e-4, affine=False),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
        ]
        channels, size = width, [n // 2 for n in size]
    flat = channels * math.prod(size)
    layers += [nn.Flatten(), nn.Linear(flat, n_features, bias=False)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # faster


def mirror_network(
    shape: Sequence[int], widths: Sequence[int], n_features: int
) -> nn.Sequential:
    """The decoder of the pre-training, from φ back to images; it is thrown away after."""
    sizes = [
        [max(n >> level, 1) for n in shape[1:]] for level in range(len(widths) + 1)
    ]
    channels = [shape[0], *widths]
    flat = channels[-1] * math.prod(sizes[-1])
    layers = [nn.Linear(n_features, flat), nn.Unflatten(1, (channels[-1], *sizes[-1]))]
    for level in reversed(range(len(widths))):
        layers += [
            nn.LeakyReLU(),
            nn.Upsample(sizes[level]),
            nn.Conv2d(channels[level + 1], channels[level], 5, padding=2),
        ]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


_BOUNDED = (
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,  # and ReLU6, which is one
    nn.Hardsigmoid,
    nn.Softsign,
    nn.Softmax,
    nn.Softmin,
)


def check_network(network: nn.Module) -> None:
    """Refuse a network that could map every image to the centre.

    Raises:
        TypeError: not an nn.Module.
        ValueError: a layer with a bias, or a bounded activation; the message names it.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network: expected an nn.Module or None, got {type(network).__name__}"
        )
    for name, module in network.named_modules():
        layer = f"{type(module).__name__} {name!r}"
        if getattr(module, "bias", None) is not None:
            raise ValueError(
                f"network: expected no bias, got one in {layer}; with zero weights a bias alone can put "
                "every image on the centre (bias=False; affine=False for a norm)"
            )
        if isinstance(module, _BOUNDED):
            raise ValueError(
                f"network: expected unbounded activations, got {layer}; a saturated feature is a constant, "
                "and a constant feature is a bias"
            )


def check_behaviour(network: nn.Module, images: Tensor) -> None:
    """Refuse a network that is not (B, C, H, W) to (B, n_features), or hides a bias or
    a bound where `check_network` cannot see it.

    The black image must be mapped to zero, and every feature must grow without limit
    with the brightness.

    Raises:
        ValueError: it does not.
    """
    probe = copy.deepcopy(network).eval()
    for norm in batch_norms(probe):
        norm.reset_running_stats()
    with torch.no_grad():
        output, black, bright = (probe(images * gain) for gain in (1, 0, 1e3))
    if output.ndim != 2 or len(output) != len(images):
        raise ValueError(
            f"network: expected features of shape ({len(images)}, n_features), got {tuple(output.shape)}"
        )
    if float(black.abs().max()) > 1e-6:
        raise ValueError(
            f"network: expected zero for a black image, got up to {float(black.abs().max()):.4g}; "
            "what does not depend on the image acts as a bias"
        )
    alive = output.norm(dim=0) > 1e-6  # those that are not are told by the collapse
    growth = (bright.norm(dim=0) / output.norm(dim=0))[alive]
    if bool((growth < 100).any()):
        raise ValueError(
            "network: expected features that grow with the image, got one only "
            f"{float(growth.min()):.3g} times as large for a thousand times the "
            "brightness; some activation or norm bounds it"
        )
