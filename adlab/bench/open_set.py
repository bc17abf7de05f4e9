"""Open-set recognition as the literature measures it: six digits known, four unknown."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlab import data, metrics
from adlab._checks import check_choice, check_number
from adlab.bench.rows import as_text, digest
from adlab.open_set import (
    SCORES,
    OpenMax,
    convolutional_classifier,
    logits_of,
    open_set_measures,
    random_shift,
    train_classifier,
)

# The known digits of the five splits that papers share (Neal et al. 2018, as listed in
# the code of Vaze et al. 2022)
SPLITS = (
    (2, 4, 5, 9, 8, 3),
    (3, 2, 6, 9, 4, 0),
    (5, 8, 3, 2, 4, 6),
    (3, 7, 8, 4, 0, 5),
    (6, 3, 4, 9, 8, 2),
)
DATA = ("mnist", "fashion-mnist", "kmnist")
DEFAULTS = {"epochs": 10, "per_class": 1000}


def run(
    name: str,
    options: dict[str, object],
    data_options: dict[str, object],
    seed: int,
    root: str | Path | None = None,
) -> list[dict[str, object]]:
    """Train one classifier on the known classes, and measure every score.

    Args:
        name: of a data set, one of `DATA`.
        options: `epochs`; `per_class`, training images of each class, None for all.
        data_options: `split`, the number of one of `SPLITS`.
        seed: of the network, the images and their order.
        root: folder of the public data sets.

    Returns:
        The measures of each score; unknown is the positive class.
    """
    check_choice("data", name, DATA)
    settings = DEFAULTS | options
    for option, value in settings.items():
        check_choice("option of 'open-set'", option, DEFAULTS)
        check_number(option, value, 1, whole=True)
    if set(data_options) != {"split"}:
        raise ValueError(f"data_options: expected split=, got {data_options}")
    check_choice("split", data_options["split"], range(len(SPLITS)))
    known = SPLITS[data_options["split"]]
    parts = _parts(name, known, settings["per_class"], seed, root)
    (images, labels), (test, test_labels), strange = parts

    start = time.perf_counter()
    network = convolutional_classifier(len(known), widths=(16, 32, 64), seed=seed)
    train_classifier(
        network,
        images,
        labels,
        epochs=settings["epochs"],
        augment=random_shift,
        seed=seed,
    )
    fitted = time.perf_counter()
    train_logits = logits_of(network, images)
    known_logits, strange_logits = (logits_of(network, x) for x in (test, strange))
    scored = time.perf_counter()
    correct = known_logits.argmax(1) == test_labels
    common = {
        "n_train": len(images),
        "n_test": len(test) + len(strange),
        "digest": digest(images, test, strange),
        "fit_seconds": fitted - start,
        "score_seconds": scored - fitted,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    scores = SCORES | {"openmax": OpenMax().fit(train_logits, labels)}
    return [
        common
        | {"settings": as_text(settings | {"score": score})}
        | _measures(function(known_logits), correct, function(strange_logits))
        for score, function in scores.items()
    ]


def _parts(
    name: str,
    known: tuple[int, ...],
    per_class: int,
    seed: int,
    root: str | Path | None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
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


def _labelled(classes: list[Tensor]) -> tuple[Tensor, Tensor]:
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
