"""Open-set recognition on random splits into known and unknown classes: `python benchmarks/open_set.py`.

Wafer maps: "good" and eight random patterns are known, four patterns unknown. MNIST, if
`--root` (or ADLAB_DATA) holds it: six known digits, four unknown. The same network and
images in all rows of a data set; splits, images, weights and order are drawn anew for
each split. Unknown is the positive class. Prints mean ± standard deviation over the
splits.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlab.augmentation import random_shift, random_symmetry
from adlab.classifier import convolutional_classifier, logits_of, train_classifier
from adlab.data.wafers import PATTERNS, wafer_patterns
from adlab.open_set import (
    SCORES,
    OpenMax,
    OpenSetMeasures,
    energy_score,
    open_set_measures,
)

Split = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # train, test (known), unknown


def wafer_split(seed: int, n_train: int = 60, n_test: int = 50) -> Split:
    """Images and classes to train with, the same to test with, and unknown images."""
    patterns = [str(p) for p in np.random.default_rng(seed).permutation(PATTERNS)]
    known, unknown = ["good", *patterns[:8]], patterns[8:]

    def draw(kinds: list[str], n: int, part: int) -> Tensor:
        return wafer_patterns(n, kinds, size=32, seed=3 * seed + part).images

    classes = torch.arange(len(known))
    return (
        draw(known, n_train, 0),
        classes.repeat_interleave(n_train),
        draw(known, n_test, 1),
        classes.repeat_interleave(n_test),
        draw(unknown, 2 * n_test, 2),
    )


def mnist_split(seed: int, root: Path, n_train: int = 250, n_test: int = 300) -> Split:
    """The same of MNIST: `n_train` training and `n_test` test images of each class."""
    from torchvision.datasets import MNIST

    rng = np.random.default_rng(seed)
    digits = rng.permutation(10).tolist()

    def draw(data: MNIST, classes: list[int], n: int) -> Tensor:
        targets = data.targets.numpy()
        rows = [rng.choice(np.flatnonzero(targets == c), n, False) for c in classes]
        return data.data[np.concatenate(rows)][:, None] / 255

    train, test = (MNIST(root, train=flag) for flag in (True, False))
    classes = torch.arange(6)
    return (
        draw(train, digits[:6], n_train),
        classes.repeat_interleave(n_train),
        draw(test, digits[:6], n_test),
        classes.repeat_interleave(n_test),
        draw(test, digits[6:], n_test),
    )


def measure(split: Split, seed: int, **training: object) -> dict[str, OpenSetMeasures]:
    """Train once, and measure every score."""
    images, labels, known, known_labels, unknown = split
    network = convolutional_classifier(int(labels.max()) + 1, seed=seed)
    train_classifier(network, images, labels, seed=seed, **training)
    train_logits, known_logits, unknown_logits = (
        logits_of(network, part) for part in (images, known, unknown)
    )
    correct = known_logits.argmax(1) == known_labels
    scores = SCORES | {
        "energy, T = 0.2": partial(energy_score, temperature=0.2),
        "energy, T = 5": partial(energy_score, temperature=5),
    }
    results = {
        name: open_set_measures(score(known_logits), correct, score(unknown_logits))
        for name, score in scores.items()
    }
    try:
        openmax = OpenMax(20).fit(train_logits, labels)
    except ValueError:  # a class with too few correct samples, after a short training
        return results | {"OpenMax": OpenSetMeasures(*[float("nan")] * 5)}
    scores = openmax(known_logits), correct, openmax(unknown_logits)
    return results | {"OpenMax": open_set_measures(*scores)}


def cells(values: list[list[float]]) -> str:
    """Mean ± standard deviation of each column."""
    pairs = zip(np.mean(values, 0), np.std(values, 0), strict=True)
    return "".join(f"   {mean:.3f} ± {std:.3f}" for mean, std in pairs)


def table_of_lengths(
    name: str, splits: list[Split], lengths: list[int], augment: Callable
) -> None:
    """Every score after the longest training; accuracy and AUROC after each."""
    options = {"augment": augment}
    results = {
        epochs: [measure(s, i, epochs=epochs, **options) for i, s in enumerate(splits)]
        for epochs in lengths
    }
    print(f"\n{name}: scores after {lengths[-1]} epochs, {len(splits)} splits")
    print(f"{'':18}" + "".join(f"   {n:13}" for n in OpenSetMeasures._fields))
    for score in results[lengths[-1]][0]:
        print(f"{score:18}" + cells([run[score] for run in results[lengths[-1]]]))
    print(f"\n{name}: AUROC over the length of the training")
    names = [*SCORES, "OpenMax"]
    print(f"{'epochs':8}" + "".join(f"   {n:13}" for n in ("accuracy", *names)))
    for epochs, runs in results.items():
        rows = [[r["msp"].accuracy, *(r[n].auroc for n in names)] for r in runs]
        print(f"{epochs:<8}" + cells(rows), flush=True)
    for score in SCORES:
        pairs = [
            [
                (results[e][i][score].accuracy, results[e][i][score].auroc)
                for e in lengths
            ]
            for i in range(len(splits))
        ]
        within = [np.corrcoef(np.transpose(p))[0, 1] for p in pairs]
        print(
            f"correlation of accuracy and AUROC, {score:10}"
            + cells([[w] for w in within])
        )


def table_of_knobs(
    name: str, splits: list[Split], epochs: int, augment: Callable
) -> None:
    """What each knob of the training gives."""
    knobs = {
        "constant step": {"schedule": "constant"},
        "cosine": {},
        "cosine, smoothing": {"label_smoothing": 0.1},
        "cosine, augmented": {"augment": augment},
        "all three": {"augment": augment, "label_smoothing": 0.1},
    }
    print(f"\n{name}: AUROC over the knobs of the training, {epochs} epochs")
    names = [*SCORES, "OpenMax"]
    print(f"{'':18}" + "".join(f"   {n:13}" for n in ("accuracy", *names)))
    for knob, options in knobs.items():
        runs = [measure(s, i, epochs=epochs, **options) for i, s in enumerate(splits)]
        rows = [[r["msp"].accuracy, *(r[n].auroc for n in names)] for r in runs]
        print(f"{knob:18}" + cells(rows), flush=True)


def main() -> None:
    """Print three tables a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=5, help="number of random splits")
    parser.add_argument("--root", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--only", choices=("wafers", "mnist"), help="one data set")
    options = parser.parse_args()
    start = time.process_time()
    if options.only != "mnist":
        splits = [wafer_split(seed) for seed in range(options.splits)]
        table_of_lengths("wafers", splits, [1, 3, 10, 30], random_symmetry)
        table_of_knobs("wafers", splits, 10, random_symmetry)
    if options.only != "wafers":
        from adlab.data.folders import data_root

        root = data_root(options.root)
        splits = [mnist_split(seed, root) for seed in range(options.splits)]
        table_of_lengths("MNIST", splits, [1, 3, 9], random_shift)
        table_of_knobs("MNIST", splits, 3, random_shift)
    print(f"\n{(time.process_time() - start) / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main()
