"""The network of inpainting, of synthetic anomalies and of segmentation: images to images
of their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad

from adlab._checks import check_counts, check_number


class UNet(nn.Module):
    """A fully convolutional network with skip connections: images (N, C, H, W) of any
    size to images of that size.

    Each level has two 3 × 3 convolutions with ReLU. On the way down a maximum over 2 × 2
    pixels comes between levels; on the way up, enlargement, and what the level had on
    the way down is put beside it. A linear convolution ends it.

    Args:
        channels: of the images.
        widths: channels of each level, from fine to coarse.
        outputs: channels of what comes out; None for as many as go in.
        batch_norm: whether each ReLU has a batch normalisation before it.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Ronneberger, Fischer & Brox 2015, "U-Net: convolutional networks for
    biomedical image segmentation"; padded, so that sizes are kept.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        outputs: int | None = None,
        batch_norm: bool = False,
    ):
        super().__init__()
        check_number("channels", channels, 1, whole=True)
        check_counts("widths", widths)
        outputs = channels if outputs is None else outputs
        check_number("outputs", outputs, 1, whole=True)
        inside = (channels, *widths[:-1])
        self.factor = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(
            double_convolution(before, width, batch_norm)
            for before, width in zip(inside, widths, strict=True)
        )
        self.up = self._way_up(widths, batch_norm)
        self.last = nn.Conv2d(widths[0], outputs, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same size."""
        height, width = x.shape[2:]
        x = pad(x, (0, -width % self.factor, 0, -height % self.factor))
        return self.last(self._decode(self._encode(x)))[..., :height, :width]

    def _way_up(self, widths: Sequence[int], batch_norm: bool) -> nn.ModuleList:
        return nn.ModuleList(
            double_convolution(coarse + fine, fine, batch_norm)
            for fine, coarse in pairwise(widths)
        )

    def _encode(self, x: Tensor) -> list[Tensor]:
        """The features of each level, from fine to coarse."""
        features = []
        for level in self.down:
            x = level(max_pool2d(x, 2) if features else x)
            features.append(x)
        return features

    def _decode(self, features: list[Tensor]) -> Tensor:
        """The features of the finest level, from those of all."""
        x = features.pop()
        for level, skip in zip(reversed(self.up), reversed(features), strict=True):
            x = level(torch.cat([interpolate(x, scale_factor=2), skip], 1))
        return x


def in_strips(network: UNet, images: Tensor) -> Tensor:
    """What a network gives of images (N, C, H, W), one strip of rows after the other.

    The features of a strip fit into memory that is there already; those of a large image
    are laid into new memory each time, which costs as much as the convolutions. Each
    strip is seen with a margin, as wide as a pixel's view.
    """
    rows, margin = 64 * network.factor, 6 * network.factor
    strips = []
    for top in range(0, images.shape[2], rows):
        start = max(0, top - margin)
        strip = network(images[:, :, start : top + rows + margin])
        strips.append(strip[:, :, top - start :][:, :, :rows])
    return torch.cat(strips, 2)


def double_convolution(inside: int, outside: int, batch_norm: bool) -> nn.Sequential:
    """Two 3 × 3 convolutions, each with ReLU, and before that a batch normalisation
    where it is asked for.

    Args:
        inside, outside: channels of what goes in and comes out.
        batch_norm: then the convolutions have no bias.
    """
    layers: list[nn.Module] = []
    for channels in (inside, outside):
        layers.append(nn.Conv2d(channels, outside, 3, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(outside)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
