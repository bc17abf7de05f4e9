"""What images of real sizes cost, and vectors beside scikit-learn: `python
benchmarks/sizes.py`.

Each row is two processes of its own, with one thread. Peaks are those of one beyond what
it has after its imports; images are made when they are asked for, and so are not among
it. Seconds are those of the processor in the other. Where two do the same work, both run in
turns in one process, and medians are compared.

Some are slow by what they compute. GeoTrans passes an image through its network once for
each of its 72 transformations, one after the other, so that its memory is that of one.
Inpainting passes it 9 times, for 3 sizes of cells and 3 masks: at 1024 × 1024 these are
5e11 operations. SPADE compares each place with each of five images; `max_grid` bounds it.

    python benchmarks/sizes.py padim dagmm    the rows whose names begin so
    python benchmarks/sizes.py                all of them, about half an hour
"""

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from shared import in_turns
from sklearn import decomposition, mixture, neighbors, svm
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.utils.data import Dataset

from adlab.bench.memory import Memory
from adlab.dagmm import DAGMM
from adlab.geotrans import GeoTrans
from adlab.inpainting import Inpainting
from adlab.padim import PaDiM
from adlab.spade import SPADE
from adlab.transfer import FeatureDetector
from adlab.vectors import (
    KNN,
    Gaussian,
    GaussianMixture,
    KernelSVDD,
    Patchwise,
    PCAResidual,
)


class Noise(Dataset):
    """Images that are made when they are asked for: smooth, so that they are not all
    alike.
    """

    def __init__(self, n: int, channels: int, size: int):
        self.n, self.channels, self.size = n, channels, size

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        coarse = torch.rand(1, self.channels, 32, 32, generator=generator)
        return torch.nn.functional.interpolate(
            coarse, (self.size, self.size), mode="bilinear"
        )[0]


# -- seconds and memory of what one process does


def fit(make: Callable, n: int, channels: int, size: int) -> Callable[[], object]:
    """Fit to n images."""
    return lambda: make().fit(Noise(n, channels, size))


def score(
    make: Callable, small: int, channels: int, size: int, n: int = 1
) -> Callable[[], object]:
    """The maps of n images; the detector was fitted to small ones, if it may be."""
    detector = make().fit(Noise(6, channels, small))
    images = Noise(n, channels, size)
    locates = hasattr(detector, "anomaly_map")
    return lambda: (detector.anomaly_map if locates else detector.anomaly_score)(images)


padim = {
    net: partial(PaDiM, f"{net}-random" if net != "texnet" else net)
    for net in ("resnet18", "texnet")
}
inpainting = partial(Inpainting, epochs=1)
geotrans = partial(GeoTrans, epochs=1)
COSTS = {
    f"padim {net}, fit, {n} images, 1024": partial(fit, padim[net], n, 3, 1024)
    for net in padim
    for n in (16,)
}
COSTS |= {
    f"dagmm, fit, {n} images, 128": partial(fit, partial(DAGMM, epochs=2), n, 1, 128)
    for n in (50, 200, 800)
}
COSTS |= {
    f"features {name}, fit, {n} images, 1024": partial(
        fit, partial(FeatureDetector, inner), n, 3, 1024
    )
    for name, inner in (("Gaussian", Gaussian("ledoit-wolf")), ("k-NN", KNN()))
    for n in (16, 64)
}
COSTS |= {
    "patchwise Gaussian, fit, 16 images, 1024": partial(
        fit, partial(Patchwise, Gaussian()), 16, 1, 1024
    ),
    "patchwise Gaussian, one map, 1024": partial(
        score, partial(Patchwise, Gaussian()), 1024, 1, 1024
    ),
    "spade resnet18, one map, 1024": partial(
        score, partial(SPADE, "resnet18-random"), 1024, 3, 1024
    ),
    "spade resnet18, max_grid 64, one map, 1024": partial(
        score, partial(SPADE, "resnet18-random", max_grid=64), 1024, 3, 1024
    ),
    "spade texnet, max_grid 64, one map, 1024": partial(
        score, partial(SPADE, max_grid=64), 1024, 3, 1024
    ),
    "inpainting, one map, 1024": partial(score, inpainting, 128, 1, 1024),
    "inpainting, eight maps, 1024": partial(score, inpainting, 128, 1, 1024, 8),
    "geotrans, score, 448": partial(score, geotrans, 448, 1, 448),
}


# -- beside scikit-learn, at equal results


def mixtures(n: int, d: int, covariance: str) -> tuple[object, object]:
    """Both from one start of k-means, for as many iterations."""
    options = {"covariance_type": covariance, "tol": 0.0, "max_iter": 20}
    reference = mixture.GaussianMixture(4, random_state=0, **options)
    return GaussianMixture(4, **options), reference


PEERS: dict[str, Callable[[int, int], tuple[object, object]]] = {
    f"mixture, {covariance}": partial(mixtures, covariance=covariance)
    for covariance in ("full", "tied", "diag")
}
PEERS |= {
    "k-NN": lambda n, d: (
        KNN(5),
        neighbors.NearestNeighbors(n_neighbors=5, algorithm="brute"),
    ),
    "kernel SVDD": lambda n, d: (
        KernelSVDD(0.1, 1 / d),
        svm.OneClassSVM(nu=0.1, gamma=1 / d, tol=1e-8),
    ),
    "PCA residual": lambda n, d: (
        PCAResidual(4),
        decomposition.PCA(4, svd_solver="covariance_eigh"),
    ),
}


def peers(name: str, n: int, d: int) -> None:
    """The rows of a detector: median seconds to fit to n vectors and to score as many."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, d)) for _ in range(2))
    ours, theirs = PEERS[name](n, d)
    score = next(
        getattr(theirs, name)
        for name in ("kneighbors", "score_samples", "transform")
        if hasattr(theirs, name)
    )
    turns = partial(in_turns, 5, clock=time.process_time)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = turns(lambda: ours.fit(x), lambda: theirs.fit(x))
    scored = turns(lambda: ours.anomaly_score(y), lambda: score(y))
    for what, (mine, reference) in (("fit", fit), ("score", scored)):
        title = f"{name}, {what}, ({n}, {d})"
        print(
            f"{title:48}{mine:8.3f} s{reference:8.3f} s{mine / reference:8.2f}",
            flush=True,
        )


SHAPES = [(2000, 8), (2000, 64), (2000, 512), (20000, 8), (20000, 64)]


def measure(name: str) -> None:
    """What the process of a row prints: seconds and MB."""
    work = COSTS[name]()
    memory, start = Memory(), time.process_time()
    work()
    print(time.process_time() - start, memory.peak())


def cost(name: str) -> None:
    """A row: with a fixed threshold glibc gives large blocks back, and what is in use
    shows; but to get them anew takes time.
    """
    seconds, _ = _measured(name, {})
    _, megabytes = _measured(name, {"MALLOC_MMAP_THRESHOLD_": str(2**20)})
    print(f"{name:48}{seconds:8.1f} s{megabytes:8.0f} MB", flush=True)


def _measured(name: str, settings: dict[str, str]) -> tuple[float, ...]:
    """Seconds and MB of a row in a process with such settings."""
    command = [sys.executable, __file__, "--measure", name]
    output = subprocess.check_output(command, env=os.environ | settings, text=True)
    return tuple(map(float, output.split()[-2:]))


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=[""], help="how their names begin")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        measure(options.measure)
        return
    for name in COSTS:
        if name.startswith(tuple(options.rows)):
            cost(name)
    for name in PEERS:
        if name.startswith(tuple(options.rows)):
            for shape in SHAPES:
                peers(name, *shape)


if __name__ == "__main__":
    main()
