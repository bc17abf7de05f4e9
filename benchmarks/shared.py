"""What several benchmarks have in common."""

import time
from collections.abc import Callable

import numpy as np
from torch import Tensor

from adlab import metrics
from adlab.data import ImageSet

MEASURES = ["image (max)", "image (mean)", "pixels", "PRO"]


def in_turns(
    repetitions: int,
    *functions: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds of each function, run one after the other, again and again."""
    seconds = []
    for repetition in range(repetitions + 1):  # the first is to warm up
        for function in functions:
            start = clock()
            function()
            seconds.append(clock() - start)
        if repetition == 0:
            seconds.clear()
    return np.median(np.reshape(seconds, (repetitions, -1)), axis=0).tolist()


def measure(maps: Tensor, test: ImageSet) -> list[float]:
    """Image AUROC by the max and by the mean of the map, pixel AUROC, PRO."""
    pixels = maps.flatten(1)
    return [
        metrics.auroc(pixels.amax(1), test.labels),
        metrics.auroc(pixels.mean(1), test.labels),
        metrics.pixel_auroc(maps, test.masks),
        metrics.pro(maps, test.masks),
    ]


def print_table(
    values: dict[tuple[str, str], list[list[float]]],
    seconds: dict[tuple[str, str], list[float]],
) -> None:
    """A line for each data set and model: mean ± standard deviation over the seeds of
    what `measure` gave, and mean seconds to fit.
    """
    titles = "".join(f"{name:>16}" for name in MEASURES)
    print(f"{'data':12}{'model':44}{titles}{'fit, s':>9}")
    for (data, model), rows in values.items():
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = "".join(f"{m:9.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True))
        print(f"{data:12}{model:44}{cells}{np.mean(seconds[data, model]):9.1f}")
