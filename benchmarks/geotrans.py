"""GeoTrans, one class against the rest: `python benchmarks/geotrans.py`.

By default the embedded digits, 8 × 8 pixels. `--data fashion-mnist --root FOLDER` takes
the files of `adlab.data.load("fashion-mnist")`. One network a row and seed gives all
three scores: of the softmax, of the Dirichlet distributions, and of the two steps, a
Gaussian of the network's features. Split, network and order are drawn anew for each
seed. Prints mean ± standard deviation of the AUROC over the seeds.
"""

import argparse
import time

import numpy as np
import torch

from adlab import data, metrics
from adlab.data import ImageSet, Splits
from adlab.geotrans import GeoTrans, dirichlet_score, softmax_score
from adlab.vectors import Gaussian

# AUROC with 72 transformations, Dirichlet score and WRN-10-4 (Golan & El-Yaniv 2018)
PUBLISHED = {
    "fashion-mnist": [99.4, 97.6, 91.1, 89.9, 92.1, 93.4, 83.3, 98.9, 90.8, 99.2]
}


def load(options: argparse.Namespace, normal_class: int, seed: int) -> Splits:
    """The splits, cut down to the images asked for."""
    if options.data == "digits":
        splits = data.load("digits", normal_class=normal_class, seed=seed)
    else:
        splits = data.load(
            options.data, root=options.root, normal_class=normal_class, seed=seed
        )
    rng = np.random.default_rng(seed)
    train = splits.train[some(np.arange(len(splits.train)), options.train, rng)]
    labels = splits.test.labels.numpy()
    rows = [some(np.flatnonzero(labels == y), options.test, rng) for y in (0, 1)]
    return Splits(train, splits.val, splits.test[np.concatenate(rows)])


def some(rows: np.ndarray, n: int | None, rng: np.random.Generator) -> np.ndarray:
    """At most n of the rows, drawn at random."""
    return np.sort(rng.permutation(rows)[:n])


def measure(detector: GeoTrans, test: ImageSet) -> list[float]:
    """AUROC of the softmax score, the Dirichlet score and the two steps; recognised
    transformations of normal images.
    """
    two_steps = metrics.auroc(detector.anomaly_score(test), test.labels)
    log_p = detector.log_posteriors(test).double()
    right = (log_p.argmax(2) == torch.arange(log_p.shape[1]))[test.labels == 0]
    return [
        metrics.auroc(softmax_score(log_p), test.labels),
        metrics.auroc(dirichlet_score(log_p, detector.alpha_.cpu()), test.labels),
        two_steps,
        float(right.double().mean()),
    ]


def main() -> None:
    """Print one line a class and set of transformations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", choices=["digits", *PUBLISHED])
    parser.add_argument("--root", help="folder of the public data sets")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--sets", nargs="+", default=["8", "24", "72"])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--widths", type=int, nargs=3, default=[8, 16, 32])
    parser.add_argument("--train", type=int, help="at most so many training images")
    parser.add_argument(
        "--test", type=int, help="at most so many normal and so many anomalous images"
    )
    parser.add_argument("--val-fraction", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    options = parser.parse_args()
    print(vars(options))
    names = ["softmax", "Dirichlet", "two steps", "recognised"]
    print("class, set".ljust(20) + "".join(f"{name:>16}" for name in names) + "  CPU s")
    means: dict[str, list[np.ndarray]] = {}
    for normal_class in options.classes:
        for which in options.sets:
            mean = row(options, normal_class, which)
            means.setdefault(which, []).append(mean)
    for which, values in means.items():
        cells = "".join(f"{m:16.3f}" for m in np.mean(values, axis=0))
        print(f"mean{which:>14}  {cells}")


def row(options: argparse.Namespace, normal_class: int, which: str) -> np.ndarray:
    """Print the line of a class and a set of transformations; the means of its
    measures.
    """
    start, values = time.process_time(), []
    for seed in range(options.seeds):
        splits = load(options, normal_class, seed)
        detector = GeoTrans(
            int(which) if which.isdigit() else which,
            Gaussian(reg_covar=1e-2),
            widths=options.widths,
            epochs=options.epochs,
            lr=options.lr,
            val_fraction=options.val_fraction,
            seed=seed,
        ).fit(splits.train)
        values.append(measure(detector, splits.test))
    seconds = (time.process_time() - start) / options.seeds
    mean, std = np.mean(values, axis=0), np.std(values, axis=0)
    cells = "".join(f"{m:9.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True))
    published = PUBLISHED.get(options.data, {})
    note = f"  published {published[normal_class] / 100:.3f}" if published else ""
    print(f"{normal_class}{which:>17}  {cells}{seconds:7.1f}{note}", flush=True)
    return mean


if __name__ == "__main__":
    main()
