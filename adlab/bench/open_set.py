"""Open-set recognition as the literature measures it: six digits known, four unknown;
or on wafers, nine kinds known, four patterns unknown.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adlab import data, metrics
from adlab._checks import check_choice, check_number
from adlab._methods import method
from adlab.augmentation import random_shift, random_symmetry
from adlab.bench.memory import Memory
from adlab.bench.rows import as_text, digest
from adlab.classifier import convolutional_classifier, logits_of, train_classifier
from adlab.data.wafers import PATTERNS, wafer_patterns
from adlab.open_set import SCORES, OpenMax, open_set_measures

if TYPE_CHECKING:
    from adlab.bench.run import Run

# The known digits of the five splits that papers share (Neal et al. 2018, as listed in
# the code of Vaze et al. 2022)
SPLITS = (
    (2, 4, 5, 9, 8, 3),
    (3, 2, 6, 9, 4, 0),
    (5, 8, 3, 2, 4, 6),
    (3, 7, 8, 4, 0, 5),
    (6, 3, 4, 9, 8, 2),
)
DATA = ("mnist", "fashion-mnist", "kmnist", "wafers")
DERIVED = ("score",)
Labelled = tuple[Tensor, Tensor]  # images and their classes


def check(run: Run) -> None:
    """Refuse what is no data set of this task, and what the task cannot use."""
    check_choice("data", run.data, DATA)
    for name in ("max_train", "max_test", "labelled", "weights"):
        if getattr(run, name) is not None:
            raise ValueError(
                f"{name}: expected none for 'open-set', got {getattr(run, name)}"
            )


def defaults(run: Run) -> dict[str, object]:
    """Passes, and training images of each class."""
    if run.data == "wafers":
        return {"epochs": 30, "per_class": 60}
    return {"epochs": 10, "per_class": 1000}


def settings(run: Run) -> dict[str, object]:
    """All that the result depends on beside the data and the seed."""
    return defaults(run) | {"score": "max-logit"} | run.options


def cases(name: str) -> list[dict[str, object]]:
    """The data options of every split."""
    return [{"split": number} for number in range(len(SPLITS))]


@method("open-set", "classifier", chapter=12, task="open-set")
def execute(run: Run, root: str | Path | None, device: str) -> list[dict[str, object]]:
    """Train one classifier on the known classes, and measure every score.

    Args:
        run: its options are `epochs` and `per_class`, training images of each class; of
            its data, `split` is the number of one of `SPLITS`, of wafers that of a
            draw.
        root: folder of the public data sets.
        device: see `adlab.training.resolve_device`.

    Returns:
        The measures of each score; unknown is the positive class.
    """
    memory, known = Memory(), defaults(run)
    options = known | run.options
    for option, value in options.items():
        check_choice("option of 'open-set'", option, known)
        check_number(option, value, 1, whole=True)
    if set(run.data_options) != {"split"}:
        raise ValueError(f"data_options: expected split=, got {run.data_options}")
    split, per_class = run.data_options["split"], options["per_class"]
    check_choice("split", split, range(len(SPLITS)))
    parts = (
        _wafers(split, per_class, run.seed)
        if run.data == "wafers"
        else _digits(run.data, SPLITS[split], per_class, run.seed, root)
    )
    (images, labels), (test, test_labels), strange = parts

    start = time.perf_counter()
    n_classes = int(labels.max()) + 1
    network = convolutional_classifier(n_classes, widths=(16, 32, 64), seed=run.seed)
    train_classifier(
        network,
        images,
        labels,
        epochs=options["epochs"],
        augment=random_symmetry if run.data == "wafers" else random_shift,
        seed=run.seed,
        device=device,
    )
    fitted = time.perf_counter()
    train_logits, known_logits, strange_logits = (
        logits_of(network, x, device=device).cpu() for x in (images, test, strange)
    )
    scored = time.perf_counter()
    correct = known_logits.argmax(1) == test_labels
    common = {
        "n_train": len(images),
        "n_test": len(test) + len(strange),
        "digest": digest(images, test, strange),
        "fit_seconds": fitted - start,
        "score_seconds": scored - fitted,
        "peak_memory_mb": memory.peak(),
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    scores = SCORES | {"openmax": OpenMax().fit(train_logits, labels)}
    return [
        common
        | {"settings": as_text(options | {"score": score})}
        | _measures(function(known_logits), correct, function(strange_logits))
        for score, function in scores.items()
    ]


def _wafers(split: int, per_class: int, seed: int) -> tuple[Labelled, Labelled, Tensor]:
    """Wafers that are good or of one of eight patterns, to train and to test with, and
    those of the four other patterns. As many to test as to train.
    """
    patterns = [str(p) for p in np.random.default_rng(split).permutation(PATTERNS)]
    known, unknown = ["good", *patterns[:8]], patterns[8:]
    train, test, strange = (
        wafer_patterns(per_class, kinds, size=32, seed=3 * seed + part).images
        for part, kinds in enumerate((known, known, unknown))
    )
    classes = torch.arange(len(known)).repeat_interleave(per_class)
    return (train, classes), (test, classes), strange


def _digits(
    name: str,
    known: tuple[int, ...],
    per_class: int,
    seed: int,
    root: str | Path | None,
) -> tuple[Labelled, Labelled, Tensor]:
    """Images and classes to train with and to test with, and images of other classes."""
    rng = np.random.default_rng(seed)
    train, test, strange = [], [], []
    for c in (*known, *sorted(set(range(10)) - set(known))):
        splits = data.load(name, normal_class=c, root=root)
        own = splits.test.images[splits.test.labels == 0]
        if c in known:
            rows = rng.permutation(len(splits.train))[:per_class]
            train.append(splits.train.images[rows])
            test.append(own)
        else:
            strange.append(own)
    return _labelled(train), _labelled(test), torch.cat(strange)


def _labelled(classes: list[Tensor]) -> Labelled:
    sizes = torch.tensor([len(images) for images in classes])
    return torch.cat(classes), torch.arange(len(classes)).repeat_interleave(sizes)


def _measures(known: Tensor, correct: Tensor, unknown: Tensor) -> dict[str, float]:
    found = open_set_measures(known, correct, unknown)
    scores = np.concatenate([known, unknown])
    is_unknown = np.repeat([0, 1], [len(known), len(unknown)])
    return {
        "image_auroc": found.auroc,
        "average_precision": metrics.average_precision(scores, is_unknown),
        "best_f1": metrics.best_f1(scores, is_unknown)[0],
        "accuracy": found.accuracy,
        "oscr": found.oscr,
        "fpr95": found.fpr95,
    }
