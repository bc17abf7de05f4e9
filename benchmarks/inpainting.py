"""Compare inpainting and copying on embedded data: `python benchmarks/inpainting.py`.

One U-Net, on random crops of 32 × 32 pixels: trained to inpaint with each loss and each
size of the hidden cells, and, as a control, to copy what it sees. Beside it the
autoencoder of chapter 3 with its budget, its map as it is and smoothed like the others.
Data and weights are drawn anew for each seed. Prints mean ± standard deviation over the
seeds.
"""

import argparse
import sys
import time
from collections.abc import Iterator

import torch
from shared import measure, print_table
from torch import Tensor

from adlab import data
from adlab.data import Splits
from adlab.inpainting import Inpainting, inpainting_loss, loss_map, smooth
from adlab.reconstruction import Autoencoder

LOSSES = {"l2": (0, 0), "l2 + ssim": (1, 0), "l2 + ssim + msgms": (1, 1)}
SIZES = (2, 4, 8, 16)
WINDOW = 11


class Copying(Inpainting):
    """The same network, crops and loss, but nothing is hidden."""

    def _loss(self, x: Tensor) -> Tensor:
        y = self.network_(x)
        return inpainting_loss(x, y, self.ssim_weight, self.gms_weight).mean()

    def _inpaint(self, batch: Tensor, cell_size: int) -> Tensor:
        return self.network_(batch)


def data_sets(seed: int) -> dict[str, Splits]:
    """About a hundred training images each, as in chapter 3."""
    return {
        "textures": data.load("textures", n_train=104, n_val=1, n_test=64, seed=seed),
        "nanofibres": data.load(
            "nanofibres", size=64, n_train=104, n_val=1, n_test=60, seed=seed
        ),
    }


def maps_of(detector: Inpainting, images: Tensor, score: str, sizes: tuple) -> Tensor:
    """The maps of a fitted detector, scored in another way than it was made for."""
    detector.score, detector.cell_sizes = score, sizes
    return detector.anomaly_map(images)


def rows(splits: Splits, seed: int, epochs: int) -> Iterator[tuple[str, Tensor, float]]:
    """Name, maps of the test images and seconds of training of each line."""
    train, test = splits.train.images, splits.test.images
    budget = {
        "widths": (8, 16, 32),
        "epochs": epochs,
        "smoothing": WINDOW,
        "seed": seed,
    }
    for loss in ("l2", "ssim"):
        small = {"widths": (8, 16), "n_latent": 2, "epochs": 8, "lr": 5e-3}
        network, seconds = timed(Autoencoder(loss, **small, seed=seed), train)
        own = network.anomaly_map(test)
        yield f"autoencoder, {loss}", own, seconds
        yield f"autoencoder, {loss}, smoothed", smooth(own, WINDOW), seconds
        full = smooth(loss_map(test, network.reconstruct(test)), WINDOW)
        yield f"autoencoder, {loss}, scored by full loss", full, seconds
    network, seconds = timed(Copying((2,), **budget), train)
    yield "U-Net that copies", maps_of(network, test, "loss", (2,)), seconds
    for loss, (ssim, gms) in LOSSES.items():
        network, seconds = timed(
            Inpainting(SIZES, ssim_weight=ssim, gms_weight=gms, **budget), train
        )
        yield f"{loss}, all sizes", maps_of(network, test, "loss", SIZES), seconds
        if gms:
            name = f"{loss}, scored by msgms"
            yield name, maps_of(network, test, "gms", SIZES), seconds
        else:
            network.ssim_weight = network.gms_weight = 1.0
            name = f"{loss}, scored by full loss"
            yield name, maps_of(network, test, "loss", SIZES), seconds
    for sizes in ((2,), (4,), (8,), (16,), (2, 4, 8)):
        maps = maps_of(network, test, "loss", sizes)
        yield f"all sizes, scored with {sizes}", maps, seconds
    for size in SIZES:
        network, seconds = timed(Inpainting((size,), **budget), train)
        name = f"trained and scored with {size}"
        yield name, maps_of(network, test, "loss", (size,)), seconds


def timed(detector: Inpainting | Autoencoder, images: Tensor) -> tuple:
    """The fitted detector and the CPU seconds it took."""
    start = time.process_time()
    return detector.fit(images), time.process_time() - start


def main() -> None:
    """Print one line a model and data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=12, help="passes through the training images"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, seconds = {}, {}
    for seed in range(options.seeds):
        for data_name, splits in data_sets(seed).items():
            for name, maps, elapsed in rows(splits, seed, options.epochs):
                key = (data_name, name)
                results.setdefault(key, []).append(measure(maps, splits.test))
                seconds.setdefault(key, []).append(elapsed)
                print(f"seed {seed}: {data_name}, {name}", file=sys.stderr)
    print(f"{options.epochs} epochs, {options.seeds} seeds")
    print_table(results, seconds)


if __name__ == "__main__":
    main()
