"""Why some rows stay below published figures: `python benchmarks/gaps.py`.

    python benchmarks/gaps.py mnist      the mixture and the kernel SVDD
    python benchmarks/gaps.py corners    inpainting on the bottles of MVTec AD
    python benchmarks/gaps.py students   students of a ResNet-18 on the same

MNIST: one digit against the rest, on those where the gap is widest; every row changes the
settings of one of the two methods. Prints the AUROC of each digit and the mean. Bottles:
where the maps of a short training are highest, and how the maximum and the mean of a map
rank the images; the same for students, and for their maps smoothed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adlab import data, metrics
from adlab._maps import enlarge_and_blur
from adlab.bench.methods import make_detector
from adlab.detector import Detector
from adlab.inpainting import Inpainting
from adlab.vectors import GaussianMixture, KernelSVDD, PCAReduced


def detectors() -> Iterator[tuple[str, Detector]]:
    """Name and detector of each row."""
    for directions in (15, 30, 60, 100):
        for k in (3, 10):
            mixture = GaussianMixture(k, reg_covar=1e-2)
            name = f"mixture of {k} on {directions} components"
            yield name, PCAReduced(mixture, directions)
    for nu in (0.01, 0.1):
        for gamma in ("scale", 0.01, 0.03, 0.06):
            yield f"kernel SVDD, nu {nu}, gamma {gamma}", KernelSVDD(nu, gamma)


def corners(root: str | None, epochs: int) -> None:
    """Print how often a map is highest in a corner, and the AUROC of images."""
    options = {"category": "bottle", "size": 146, "crop": 128, "root": root}
    splits = data.load("mvtec-ad", **options)
    detector = Inpainting(patch_size=64, epochs=epochs, seed=0)
    detector.fit(splits.train.images)
    height, width = splits.test.images.shape[2:]
    for detector.score in ("loss", "gms"):
        maps = detector.anomaly_map(splits.test.images)
        rows, columns = np.divmod(maps.flatten(1).argmax(1).numpy(), width)
        from_ends = [
            np.minimum(i, n - 1 - i) / n for i, n in ((rows, height), (columns, width))
        ]
        in_corner = np.maximum(*from_ends) < 1 / 6
        areas = [
            metrics.auroc(scores, splits.test.labels)
            for scores in (maps.amax((1, 2)), maps.mean((1, 2)))
        ]
        print(
            f"{detector.score}: highest in a corner in {in_corner.sum()} of {len(maps)} "
            f"images, AUROC by maximum {areas[0]:.3f}, by mean {areas[1]:.3f}"
        )


def students(root: str | None, weights: Path) -> None:
    """Print the AUROC of images and pixels, for maps smoothed ever more."""
    splits = data.load("mvtec-ad", category="bottle", root=root)
    layers = ["layer1", "layer2", "layer3"]
    options = {"backbone": "resnet18", "layers": layers}
    detector = make_detector("student-teacher", options, weights, seed=0)
    detector.fit(splits.train.images)
    test = splits.test
    for detector.term in ("both", "error"):
        maps = detector.anomaly_map(test.images)
        for sigma in (0, 2, 4, 8):
            smooth = enlarge_and_blur(maps, *maps.shape[1:], sigma)
            scores = smooth.amax((1, 2)), smooth.mean((1, 2))
            areas = [metrics.auroc(score, test.labels) for score in scores]
            pixels = metrics.pixel_auroc(smooth, test.masks)
            print(
                f"{detector.term}, sigma {sigma}: AUROC by maximum {areas[0]:.3f}, "
                f"by mean {areas[1]:.3f}, pixels {pixels:.3f}",
                flush=True,
            )


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["mnist", "corners", "students"])
    parser.add_argument("--epochs", type=int, default=12, help="of inpainting")
    parser.add_argument("--weights", type=Path, help="of the ResNet-18")
    parser.add_argument("--root", help="folder of the public data sets")
    parser.add_argument("--digits", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=2000)
    options = parser.parse_args()
    if options.part == "corners":
        corners(options.root, options.epochs)
        return
    if options.part == "students":
        students(options.root, options.weights)
        return
    rows: dict[str, list[float]] = {}
    for digit in options.digits:
        splits = data.load("mnist", normal_class=digit, root=options.root)
        order = np.random.default_rng(0).permutation(len(splits.test))
        test = splits.test[order[: options.test]]
        for name, detector in detectors():
            scores = detector.fit(splits.train.images[: options.train])
            area = metrics.auroc(scores.anomaly_score(test.images), test.labels)
            rows.setdefault(name, []).append(area)
    print(f"{'':40}" + "".join(f"{digit:>8}" for digit in options.digits) + "    mean")
    for name, areas in rows.items():
        cells = "".join(f"{area:8.3f}" for area in [*areas, np.mean(areas)])
        print(f"{name:40}{cells}")


if __name__ == "__main__":
    main()
