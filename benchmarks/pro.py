"""Time the pixel-level metrics on 50 maps of 224 x 224: `python benchmarks/pro.py`."""

import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from adlab.metrics import pixel_auroc, pro


def maps_and_masks(
    n: int = 50, size: int = 224, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random maps, float32 (N, H, W), that are higher on blobs; every fifth
    image is good.
    """
    rng = np.random.default_rng(seed)
    shape = (n, size, size)
    blobs = gaussian_filter(rng.normal(size=shape), (0, 10, 10))
    masks = blobs > np.quantile(blobs, 0.95)
    masks[::5] = False
    noise = gaussian_filter(rng.normal(size=shape), (0, 4, 4))
    return (noise / noise.std() + 1.5 * masks).astype(np.float32), masks


def median_seconds(function: Callable[[], float], repeats: int = 7) -> float:
    """Median wall time of a call, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one line a function: its value, its time, and that of scikit-learn's AUROC
    over it.
    """
    maps, masks = maps_and_masks()
    functions = {
        "adlab pro": lambda: pro(maps, masks),
        "adlab pixel_auroc": lambda: pixel_auroc(maps, masks),
        "sklearn roc_auc_score": lambda: roc_auc_score(masks.ravel(), maps.ravel()),
    }
    seconds = {name: median_seconds(function) for name, function in functions.items()}
    slowest = seconds["sklearn roc_auc_score"]
    print(f"{'function':24}{'value':>8}{'seconds':>9}{'faster by':>11}")
    for name, function in functions.items():
        print(
            f"{name:24}{function():8.4f}{seconds[name]:9.3f}{slowest / seconds[name]:10.1f}x"
        )


if __name__ == "__main__":
    main()
