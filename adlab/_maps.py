"""From the maps of a network's features to a smooth map of the image's size."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d


def shrink(features: Tensor, max_grid: int | None) -> Tensor:
    """Feature maps of at most so many rows and columns.

    Args:
        features: (B, C, h, w).
        max_grid: larger maps are averaged over squares, the smallest that will do;
            None leaves them as they are.

    Returns:
        (B, C, h', w').
    """
    side = 1 if max_grid is None else -(-max(features.shape[2:]) // max_grid)
    return features if side == 1 else avg_pool2d(features, side, ceil_mode=True)


def enlarge_and_blur(maps: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Enlarge maps bilinearly, then smooth them with a Gaussian.

    Both are linear and act on rows and columns one after the other, so each is one
    matrix, and so are the two together.

    Args:
        maps: (B, h, w).
        height, width: H and W of the result.
        sigma: standard deviation of the Gaussian, in pixels of the result; 0 for none.

    Returns:
        (B, H, W). A constant map stays constant: the border is mirrored.
    """
    rows = _matrix(maps.shape[1], height, sigma).to(maps)
    columns = _matrix(maps.shape[2], width, sigma).to(maps)
    return rows @ maps @ columns.T


@lru_cache(maxsize=8)
def _matrix(n: int, n_new: int, sigma: float) -> Tensor:
    """What enlarging and blurring does to the n unit vectors: float64 (n_new, n)."""
    places = (np.arange(n_new) + 0.5) * n / n_new - 0.5
    enlarged = np.stack([np.interp(places, range(n), unit) for unit in np.eye(n)], 1)
    if sigma == 0:
        return torch.from_numpy(enlarged)
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(enlarged, sigma, axis=0))


def smooth(maps: Tensor, window: int) -> Tensor:
    """Means over squares around every pixel, as far as they lie in the image: (N, H,
    W), window odd.
    """
    return avg_pool2d(maps[:, None], window, 1, window // 2, count_include_pad=False)[
        :, 0
    ]
