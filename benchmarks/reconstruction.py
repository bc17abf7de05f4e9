"""Compare reconstruction and density on embedded data: `python benchmarks/reconstruction.py`.

Every autoencoder has the same network and the same budget: as many random patches of
64 × 64 pixels. Beside them stand the densities of chapters 4 and 5. Data and weights are
drawn anew for each seed. Prints mean ± standard deviation over the seeds.
"""

import argparse
import time
from collections.abc import Callable

import torch
from shared import measure, print_table
from torch import Tensor
from torch.nn.functional import interpolate

from adlab import data
from adlab.dagmm import DAGMM
from adlab.data import ImageSet, Splits
from adlab.detector import Localizer
from adlab.reconstruction import Autoencoder, VariationalAutoencoder
from adlab.vectors import Gaussian, GaussianMixture, Patchwise

LOSSES = [
    "l2",
    "ssim",
    "ms-ssim",
    "cw-ssim",
    {"l2": 1, "ssim": 0.1},
    {"cw-ssim": 1, "ms-ssim": 1},
]
SCORES = ["reconstruction", "reconstruction-probability", "elbo"]


def data_sets(seed: int) -> dict[str, Splits]:
    """About a hundred training images each, as in chapter 3."""
    return {
        "nanofibres": data.load(
            "nanofibres", n_train=100, n_val=1, n_test=80, seed=seed
        ),
        "textures": data.load("textures", n_train=104, n_val=1, n_test=128, seed=seed),
    }


class LatentMixture(Localizer):
    """Chapter 4: a mixture of the latent vectors of an autoencoder, at every place of an image."""

    any_size = True

    def __init__(self, autoencoder: Autoencoder, *, seed: int = 0):
        super().__init__(seed=seed)
        self.autoencoder = autoencoder

    def _fit(self, images: Tensor) -> None:
        next(self._stream(images))  # remembers the shape of an image
        self.network_ = self.autoencoder.fit(images).network_
        with torch.no_grad():
            latents = self._latents(images)
        self.mixture_ = GaussianMixture(3, seed=self.seed).fit(_rows(latents))

    def _latents(self, images: Tensor) -> Tensor:
        return self.network_.encode(images)

    def _map(self, batch: Tensor) -> Tensor:
        latents = self._latents(batch)
        n, _, height, width = latents.shape
        scores = self.mixture_.anomaly_score(_rows(latents)).view(n, 1, height, width)
        return interpolate(scores, batch.shape[2:], mode="bilinear")[:, 0]


def _rows(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2)


def models(seed: int, epochs: int) -> dict[str, Callable[[], Localizer]]:
    """Name to what makes the detector; the scores of the variational autoencoder share one network."""
    budget = {
        "widths": (8, 16),
        "n_latent": 2,
        "epochs": epochs,
        "lr": 5e-3,
        "seed": seed,
    }
    makers = {}
    for loss in LOSSES:
        name = (
            loss
            if isinstance(loss, str)
            else " + ".join(f"{w:g} {n}" for n, w in loss.items())
        )
        makers[name] = lambda loss=loss: Autoencoder(loss, **budget)
    makers["variational"] = lambda: VariationalAutoencoder(**budget)
    makers["latents of l2 + mixture of 3"] = lambda: LatentMixture(
        Autoencoder("l2", **budget), seed=seed
    )
    for name, density in {
        "Gaussian": Gaussian(),
        "mixture of 3": GaussianMixture(3, seed=seed),
        "DAGMM": DAGMM(3, 1, epochs=epochs, lr=1e-2, seed=seed),
        "DAGMM, untrained": DAGMM(3, 1, epochs=0, seed=seed),
    }.items():
        makers[f"patch statistics + {name}"] = lambda density=density: Patchwise(
            density, 20, 5, "statistics", seed=seed
        )
    return makers


def rows(name: str, detector: Localizer, test: ImageSet) -> dict[str, list[float]]:
    """One row of results a score."""
    if not isinstance(detector, VariationalAutoencoder):
        return {name: measure(detector.anomaly_map(test.images), test)}
    results = {}
    for score in SCORES:
        detector.score = score
        results[f"{name}, {score}"] = measure(detector.anomaly_map(test.images), test)
    return results


def main() -> None:
    """Print one line a model and data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=8, help="passes through the training images"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    options = parser.parse_args()
    results, seconds = {}, {}
    for seed in range(options.seeds):
        for data_name, splits in data_sets(seed).items():
            for name, make in models(seed, options.epochs).items():
                start = time.perf_counter()
                detector = make().fit(splits.train.images)
                elapsed = time.perf_counter() - start
                for row, values in rows(name, detector, splits.test).items():
                    results.setdefault((data_name, row), []).append(values)
                    seconds.setdefault((data_name, row), []).append(elapsed)
    print(f"{options.epochs} epochs, {options.seeds} seeds")
    print_table(results, seconds)


if __name__ == "__main__":
    main()
