"""Synthetic anomalies: a foreign texture, pasted into a normal image through a random
mask. All is drawn from torch's generator.

    Perlin noise ──▶ threshold ──▶ mask ─┐
    foreign texture ─────────────────────┼▶ anomalous image, and where it is anomalous
    normal image ────────────────────────┘

Source: Zavrtanik, Kristan & Skočaj 2021, "DRAEM: a discriminatively trained
reconstruction embedding for surface anomaly detection", ICCV, section 3.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adlab._checks import check_number

SMALLEST_CELL = (
    8  # pixels of a cell of the noise: 32 cells a side at 256, as in the paper
)
LEVEL = 0.5  # noise above it is anomalous
SHORTEST_WAVE = 4  # pixels of a period of a procedural texture


# -- Perlin noise


def gradient_noise(gradients: Tensor, height: int, width: int) -> Tensor:
    """Perlin noise of given gradients: float32 (height, width) in [-1, 1].

    In each cell of the lattice four planes, one through each corner with the gradient
    of that corner, are blended smoothly. The noise is zero at the nodes, and no bend is
    seen where cells meet. Any size will do: a cell need not be a whole number of pixels.

    Args:
        gradients: unit vectors (rows + 1, columns + 1, 2), along y and x, at the nodes of
            a lattice of rows × columns cells.
        height, width: of the image, in pixels.

    Raises:
        TypeError, ValueError: gradients of another shape; a size that is none.

    Source: Perlin 2002, "Improving noise", with gradients of any direction.
    """
    if gradients.ndim != 3 or gradients.shape[2] != 2 or min(gradients.shape) < 2:
        raise ValueError(
            f"gradients: expected shape (rows + 1, columns + 1, 2), got {tuple(gradients.shape)}"
        )
    check_number("height", height, 1, whole=True)
    check_number("width", width, 1, whole=True)
    (row, y), (column, x) = (
        _places(n, size - 1)
        for n, size in zip((height, width), gradients.shape, strict=False)
    )

    def plane(down: int, right: int) -> Tensor:
        gradient = gradients[row + down][:, column + right]
        return gradient[..., 0] * (y[:, None] - down) + gradient[..., 1] * (x - right)

    top, bottom = (
        torch.lerp(plane(down, 0), plane(down, 1), _fade(x)) for down in (0, 1)
    )
    return math.sqrt(2) * torch.lerp(top, bottom, _fade(y)[:, None])


def _places(n: int, cells: int) -> tuple[Tensor, Tensor]:
    """Of n pixels along a lattice of so many cells: which cell, and where in it."""
    places = torch.arange(n) * (cells / n)
    return places.long(), places - places.floor()


def _fade(t: Tensor) -> Tensor:
    """From 0 to 1, with no slope and no curvature at both ends."""
    return t**3 * (t * (6 * t - 15) + 10)


def perlin_noise(height: int, width: int, rows: int, columns: int) -> Tensor:
    """Perlin noise of random gradients, over rows × columns cells: float32 (height,
    width) in [-1, 1].

    Raises:
        TypeError, ValueError: an argument that is no positive integer.
    """
    check_number("rows", rows, 1, whole=True)
    check_number("columns", columns, 1, whole=True)
    angles = 2 * torch.pi * torch.rand(rows + 1, columns + 1)
    gradients = torch.stack([angles.sin(), angles.cos()], -1)
    return gradient_noise(gradients, height, width)


def random_noise(height: int, width: int) -> Tensor:
    """Perlin noise whose numbers of cells along the two sides are drawn, each a power of
    two and none so large that a cell has less than 8 pixels.
    """
    rows, columns = (
        2 ** _integer(max(0, int(math.log2(max(1, side / SMALLEST_CELL)))))
        for side in (height, width)
    )
    return perlin_noise(height, width, rows, columns)


def _integer(high: int) -> int:
    """From 0 to high, both included."""
    return int(torch.randint(high + 1, ()))


# -- where


def noise_mask(height: int, width: int) -> Tensor:
    """Where random noise is above one half: bool (height, width). It is drawn again
    until that is somewhere.
    """
    mask = torch.zeros(height, width, dtype=torch.bool)
    while not mask.any():
        mask = random_noise(height, width) > LEVEL
    return mask


def rectangle_mask(height: int, width: int) -> Tensor:
    """A rectangle with sides of an eighth to a half of the image's, anywhere in it:
    bool (height, width).
    """
    rows, columns = _interval(height), _interval(width)
    return rows[:, None] & columns


def _interval(side: int) -> Tensor:
    length = max(1, side // 8 + _integer(side // 2 - side // 8))
    places = torch.arange(side) - _integer(side - length)
    return (places >= 0) & (places < length)


# -- what


def procedural_texture(channels: int, height: int, width: int) -> Tensor:
    """A texture of two random colours: stripes, bent and broken by noise, as in wood,
    marble or cloud: float32 (channels, height, width) in [0, 1].

    Direction, length of wave and strength of the noise are drawn.
    """
    y, x = torch.meshgrid(
        torch.arange(height) / height, torch.arange(width) / width, indexing="ij"
    )
    waves = (min(height, width) / SHORTEST_WAVE) ** torch.rand(())
    angle, phase, strength = torch.rand(3) * torch.tensor([math.pi, 1.0, 2.0])
    across = waves * (x * angle.cos() + y * angle.sin())
    bent = across + phase + strength * random_noise(height, width)
    share = (1 + (2 * torch.pi * bent).sin()) / 2
    first, second = torch.rand(2, channels, 1, 1)
    return torch.lerp(first, second, share)


def paste(images: Tensor, foreign: Tensor, masks: Tensor, opacity: Tensor) -> Tensor:
    """Images with a foreign texture in their masks: (1 - M) I + M ((1 - β) I + β A).

    Args:
        images, foreign: I and A, (N, C, H, W).
        masks: M, bool (N, H, W).
        opacity: β, (N,) in [0, 1]; with 1 the texture covers the image.

    Returns:
        (N, C, H, W).

    Source: Zavrtanik, Kristan & Skočaj 2021, eq. 2; in its released code β is one minus this.
    """
    share = opacity[:, None, None, None] * masks[:, None]
    return torch.lerp(images, foreign, share)
