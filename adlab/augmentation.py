"""Random changes of images (N, C, H, W) that leave normal ones normal, each image its
own; drawn from torch's generator.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from adlab._checks import check_number


def random_crop(images: Tensor, size: int) -> Tensor:
    """One square of every image, at a random place: (N, C, H, W) to (N, C, size,
    size).
    """
    rows, columns = (
        torch.randint(n - size + 1, (len(images),)).tolist() for n in images.shape[2:]
    )
    places = zip(images, rows, columns, strict=True)
    return torch.stack([x[:, i : i + size, j : j + size] for x, i, j in places])


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
