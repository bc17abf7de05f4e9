"""Random changes of images (N, C, H, W) that leave normal ones normal, each image its
own; drawn from torch's generator.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_crop(images: Tensor, size: int) -> Tensor:
    """One square of every image, at a random place: (N, C, H, W) to (N, C, size,
    size).
    """
    rows, columns = (
        torch.randint(n - size + 1, (len(images),)).tolist() for n in images.shape[2:]
    )
    places = zip(images, rows, columns, strict=True)
    return torch.stack([x[:, i : i + size, j : j + size] for x, i, j in places])
