"""The task of a detector: fit to normal images, score the test images, measure."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from adlab import data, metrics
from adlab._checks import check_choice, check_number
from adlab._methods import methods
from adlab.bench.memory import Memory
from adlab.bench.methods import (
    count_numbers,
    digest_of_file,
    make_detector,
    options_of,
)
from adlab.bench.rows import digest
from adlab.data import ImageSet, Splits
from adlab.decision import quantile_threshold
from adlab.detector import Detector, Localizer

if TYPE_CHECKING:
    from adlab.bench.run import Run

DERIVED = ()
_TENSORS = ("images", "labels", "masks")


def check(run: Run) -> None:
    """Refuse a share of labelled images where the method does not learn from any."""
    if run.labelled is None:
        return
    if not methods()[run.method].labelled:
        raise ValueError(
            f"labelled: expected none for {run.method!r}, got {run.labelled}"
        )
    check_number("labelled", run.labelled, 0, 1, open_low=True, open_high=True)


def defaults(run: Run) -> dict[str, object]:
    """The options of the method at their defaults."""
    return options_of(methods()[run.method])


def settings(run: Run) -> dict[str, object]:
    """All that the result depends on beside the data and the seed."""
    method = methods()[run.method]
    found = dict(method.options) | run.options
    if method.labelled:
        found["labelled"] = _share(run)
    if run.weights is not None:
        found["weights"] = f"{run.weights.name} {digest_of_file(run.weights)}"
    for name in ("max_train", "max_test"):
        if getattr(run, name) is not None:
            found[name] = getattr(run, name)
    return found


def cases(name: str) -> list[dict[str, object]]:
    """The data options of every class or category of a data set."""
    axis, values = data.cases(name)
    return [{axis: value} for value in values] if axis else [{}]


def execute(run: Run, root: str | Path | None, device: str) -> list[dict[str, object]]:
    """The one row of measures of a run."""
    detector = make_detector(
        run.method, run.options, run.weights, seed=run.seed, device=device
    )
    splits = load(run, root)
    if methods()[run.method].masks:
        splits, labelled = hold_out_marked(run, splits)
    else:
        labelled = load_labelled(run, len(splits.train), root)
    return [measure(detector, splits, labelled)]


def load(run: Run, root: str | Path | None = None) -> Splits:
    """The data of a run."""
    splits = _load(run, run.data_options, root)
    rng = np.random.default_rng(run.seed)
    train = splits.train[_some(len(splits.train), run.max_train, rng)]
    labels = splits.test.labels.numpy()
    share = 1 if run.max_test is None else run.max_test / len(labels)
    test = [
        rows[_some(len(rows), None if share >= 1 else round(share * len(rows)), rng)]
        for rows in (np.flatnonzero(labels == label) for label in (0, 1))
    ]
    return Splits(train, splits.val, splits.test[np.sort(np.concatenate(test))])


def _load(run: Run, options: Mapping[str, object], root: str | Path | None) -> Splits:
    """With the folder and the seed, where the data set takes them."""
    known = inspect.signature(data.loader(run.data)).parameters
    more = {"root": root, "seed": run.seed}
    return data.load(run.data, **{n: more[n] for n in more if n in known} | options)


def load_labelled(
    run: Run, n_train: int, root: str | Path | None = None
) -> ImageSet | None:
    """Anomalies with labels for a semi-supervised method, None for all others. They are
    training images of as many other classes as it says, in numbers as equal as may be;
    with one, of another for each seed.
    """
    method = methods()[run.method]
    if not method.labelled:
        return None
    before = [n for n, d in data.DATA_SETS.items() if d.split_before]
    check_choice(f"data of {run.method!r}", run.data, before)
    if "normal_class" not in run.data_options:
        raise ValueError(
            f"data_options: expected normal_class= for {run.method!r}, got {run.data_options}"
        )
    n, kinds = count_labelled(n_train, _share(run)), method.labelled_kinds
    rng = np.random.default_rng(run.seed)
    parts = [
        _of_class(run, (run.seed + kind) % 9, len(range(kind, n, kinds)), root, rng)
        for kind in range(kinds)
    ]
    return ImageSet(torch.cat(parts), torch.ones(n))


def hold_out_marked(run: Run, splits: Splits) -> tuple[Splits, ImageSet]:
    """For a method that learns from masks: anomalies, drawn at random from the test
    images, and the splits without them.
    """
    test, n = splits.test, count_labelled(len(splits.train), _share(run))
    if test.masks is None:
        raise ValueError(
            f"data of {run.method!r}: expected some with masks, got {run.data!r}"
        )
    anomalous = np.flatnonzero(test.labels.numpy())
    if n >= len(anomalous):
        raise ValueError(
            f"labelled: expected fewer than the {len(anomalous)} anomalies of the test, "
            f"got {n}"
        )
    known = anomalous[_some(len(anomalous), n, np.random.default_rng(run.seed))]
    others = np.setdiff1d(np.arange(len(test)), known)
    return replace(splits, test=test[others]), test[known]


def _of_class(
    run: Run, kind: int, n: int, root: str | Path | None, rng: np.random.Generator
) -> torch.Tensor:
    """Training images of one of the nine classes that are not normal."""
    other = (run.data_options["normal_class"] + 1 + kind) % 10
    images = _load(run, run.data_options | {"normal_class": other}, root).train.images
    if n > len(images):
        raise ValueError(
            f"labelled: expected at most {len(images)} images of class {other}, got {n}"
        )
    return images[_some(len(images), n, rng)]


def _share(run: Run) -> float:
    """Of labelled images among all: as asked for, or as the method declares it."""
    return methods()[run.method].labelled if run.labelled is None else run.labelled


def count_labelled(n_unlabelled: int, share: float) -> int:
    """How many labelled images, beside those without a label, make a share of all."""
    return max(1, round(share / (1 - share) * n_unlabelled))


def _some(n: int, most: int | None, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(n)[:most])


def measure(
    detector: Detector, splits: Splits, labelled: ImageSet | None = None
) -> dict[str, object]:
    """Fit to the training images, score the test images; what came of it and what it
    cost. `score_seconds` is the time of the maps where there are any. With labelled
    images, the balanced accuracy stands beside, see `balanced_accuracy`.
    """
    memory = Memory()
    known = () if labelled is None else (labelled,)
    start = time.perf_counter()
    detector.fit(splits.train.images, *known)
    fitted = time.perf_counter()
    test = splits.test
    maps = detector.anomaly_map(test.images) if _locates(detector, test) else None
    mapped = time.perf_counter()
    scores = detector.anomaly_score(test.images)
    scored = time.perf_counter()
    found = {
        "image_auroc": metrics.auroc(scores, test.labels),
        "average_precision": metrics.average_precision(scores, test.labels),
        "best_f1": metrics.best_f1(scores, test.labels)[0],
    }
    if maps is not None:
        found["pixel_auroc"] = metrics.pixel_auroc(maps, test.masks)
        found["pro"] = metrics.pro(maps, test.masks)
    if known:
        usual = detector.anomaly_score(splits.val.images)
        found["accuracy"] = balanced_accuracy(usual, scores, test.labels)
    return found | {
        "n_train": len(splits.train),
        "n_test": len(test),
        "digest": digest(
            *(
                getattr(part, name)
                for part in (splits.train, test, *known)
                for name in _TENSORS
            )
        ),
        "fit_seconds": fitted - start,
        "score_seconds": (mapped if maps is not None else scored) - fitted,
        "peak_memory_mb": memory.peak(),
        "parameters": count_numbers(detector),
    }


def balanced_accuracy(usual: object, scores: object, labels: object) -> float:
    """Mean of the shares of normal and of anomalous images that are called so: the
    accuracy on a test half of each, in [0, 1].

    Args:
        usual: scores of held-out normal images, one in twenty of which may exceed the
            threshold.
        scores, labels: (N,) each, of the test.
    """
    threshold = quantile_threshold(usual, 0.05)
    found = metrics.rates(np.asarray(scores) > threshold, labels)
    return (found.tpr + 1 - found.fpr) / 2


def _locates(detector: Detector, test: ImageSet) -> bool:
    return isinstance(detector, Localizer) and test.masks is not None
