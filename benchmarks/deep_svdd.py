"""Deep SVDD and Deep SAD on MNIST, one digit against the rest: `python benchmarks/deep_svdd.py`.

For each normal digit and seed, one network is pre-trained as an autoencoder, and all
three methods start from it. Deep SAD sees a few labelled anomalies, all of one digit,
another one for each seed; its AUROC is given over all test images, as published, and
over those of the other eight digits, which it never saw. Kernel SVDD on the pixels
stands beside. Every run is printed as it comes, then mean ± standard deviation over the
seeds, in %.
"""

import argparse
import os
import time

import numpy as np
import torch
from torch import Tensor

from adlab import data, metrics
from adlab.data import ImageSet, Splits
from adlab.deep_svdd import DeepSAD, DeepSVDD
from adlab.detector import Detector
from adlab.vectors import KernelSVDD

# Ruff et al. 2018, Table 1
PUBLISHED = {
    "soft-boundary": [97.8, 99.6, 89.5, 90.3, 93.8, 85.8, 98.0, 92.7, 92.9, 94.9],
    "one-class": [98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5],
}


def pick(images: Tensor, n: int, seed: int) -> Tensor:
    """At most n images, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed)
    return images[torch.randperm(len(images), generator=generator)[:n]]


def known_anomalies(digit: int, n: int, seed: int, root: str | None) -> ImageSet:
    """Labelled training images of one other digit."""
    source = data.load("mnist", normal_class=digit, root=root, download=False)
    return ImageSet(pick(source.train.images, n, seed), torch.ones(n))


def fits(
    train: Tensor, known: ImageSet, options: argparse.Namespace, seed: int
) -> dict[str, Detector]:
    """Name to fitted detector."""
    shared = {"lr": 1e-3, "batch_size": 50, "seed": seed}
    start = DeepSVDD(pretrain_epochs=options.pretrain, epochs=0, **shared).fit(train)
    shared |= {
        "network": start.network_,
        "pretrain_epochs": 0,
        "epochs": options.epochs,
    }
    return {
        "kernel": KernelSVDD(0.1).fit(train[:1000]),
        "start": start,
        "soft-boundary": DeepSVDD("soft-boundary", 0.1, 5, **shared).fit(train),
        "one-class": DeepSVDD(**shared).fit(train),
        "Deep SAD": DeepSAD(**shared).fit(train, known),
    }


def measure(detectors: dict[str, Detector], test: ImageSet, seen: str) -> dict:
    """AUROC of each in %, and that of Deep SAD where the digit it knows is left out."""
    scores = {name: model.anomaly_score(test) for name, model in detectors.items()}
    areas = {name: metrics.auroc(s, test.labels) for name, s in scores.items()}
    unseen = torch.tensor([kind != seen for kind in test.kinds])
    for name in ("one-class", "Deep SAD"):
        areas[f"{name}, unseen"] = metrics.auroc(
            scores[name][unseen], test.labels[unseen]
        )
    return {name: 100 * area for name, area in areas.items()}


def run(splits: Splits, digit: int, seed: int, options: argparse.Namespace) -> dict:
    """All methods on one digit."""
    seen = (digit + 1 + seed) % 10
    n_known = max(1, round(options.labelled * options.images))
    known = known_anomalies(seen, n_known, seed, options.root)
    train = pick(splits.train.images, options.images, seed)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(splits.test), generator=generator)[: options.test]
    test = splits.test[rows.tolist()]
    return measure(fits(train, known, options, seed), test, str(seen))


def table(rows: dict[int, list[dict]]) -> None:
    """Print mean ± standard deviation of each digit, and the means over the digits."""
    names = list(next(iter(rows.values()))[0])
    print(f"{'digit':7}" + "".join(f"{name:>20}" for name in names))
    means = []
    for digit, runs in rows.items():
        values = np.array([[row[name] for name in names] for row in runs])
        means.append(values.mean(0))
        cells = zip(values.mean(0), values.std(0), strict=True)
        print(f"{digit:<7}" + "".join(f"{m:13.1f} ± {s:4.1f}" for m, s in cells))
    print(f"{'mean':7}" + "".join(f"{m:20.1f}" for m in np.mean(means, axis=0)))
    for name, values in PUBLISHED.items():
        mean = np.mean([values[digit] for digit in rows])
        print(f"published, {name}, the same digits: {mean:.1f}")


def main() -> None:
    """Print one line a run, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.environ.get("ADLAB_DATA"))
    parser.add_argument("--images", type=int, default=1500, help="for training")
    parser.add_argument("--test", type=int, default=2000, help="of the 10000")
    parser.add_argument("--pretrain", type=int, default=5, help="epochs")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--labelled", type=float, default=0.01, help="share, Deep SAD")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--digits", type=int, nargs="+", default=range(10))
    options = parser.parse_args()
    rows: dict[int, list[dict]] = {}
    for seed in range(options.seeds):
        for digit in options.digits:
            start = time.process_time()
            splits = data.load(
                "mnist", normal_class=digit, root=options.root, download=False
            )
            row = run(splits, digit, seed, options)
            rows.setdefault(digit, []).append(row)
            cells = " ".join(f"{name} {area:.2f};" for name, area in row.items())
            seconds = time.process_time() - start
            print(f"seed {seed}, {digit}: {cells} {seconds:.0f} s of CPU", flush=True)
    table(rows)


if __name__ == "__main__":
    main()
