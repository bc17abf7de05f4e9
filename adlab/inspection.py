"""From a folder of normal images to verdicts on new ones: hold some out, learn from the
others, take the threshold from those held out.

It works for one process as for several, see `adlab.distributed`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from adlab import distributed
from adlab.data.files import ImageFolder
from adlab.data.layouts import Sample, find_samples
from adlab.decision import quantile_threshold
from adlab.detector import Detector, Localizer
from adlab.training import progress

CHUNK = 8  # images whose maps are held at a time


class Normal(NamedTuple):
    """What a fitted detector gives of normal images that it was not fitted to.

    `scores` are theirs, one each; half of all pixels of their maps are below `low`, and
    all below `high` (both 0, where the detector has no maps).
    """

    scores: list[float]
    low: float
    high: float


class Result(NamedTuple):
    """The score of a file, and its map (H, W), or None where the detector has none."""

    file: Path
    score: float
    map: Tensor | None


def find_images(paths: Sequence[Path]) -> list[Sample]:
    """The images of a folder, or of a table of files, in one of the layouts of
    `adlab.data.layouts`; or all images below a folder, or files, of unknown kind: "".

    Raises:
        FileNotFoundError: nothing there, no image in it, or a part of a layout is missing.
        ValueError: as of `adlab.data.layouts.find_samples`.
    """
    path = paths[0]
    if len(paths) > 1 or not (path.is_dir() or path.suffix.lower() == ".csv"):
        return [Sample(file, "") for file in ImageFolder(paths).files]
    try:
        return find_samples(path)
    except FileNotFoundError:
        if not path.is_dir() or (path / "train").is_dir():
            raise
        return [Sample(file, "") for file in ImageFolder(path).files]


def fit(
    detector: Detector,
    images: ImageFolder,
    held_out: Sequence[Path],
    digests: dict[Path, str],
) -> Detector:
    """Fit a detector to files, and let it remember which these were, and what it gives of
    others, held out: its `normal_` is a `Normal`.

    Args:
        detector: any.
        images: the files to learn from.
        held_out: the others.
        digests: of the files, see `digests_of`.

    Raises:
        ValueError: whatever `adlab.distributed.fit` refuses.

    Warns:
        UserWarning: all images held out have the same score.
    """
    distributed.fit(detector, Watched(images))
    detector.learned_ = sorted(digests[file] for file in images.files)
    results = list(inspect(detector, held_out, "held out"))
    scores = distributed.gather([result.score for result in results])
    if len(scores) > 1 and len(set(scores)) == 1:
        warnings.warn(
            f"held out: expected scores that differ as the images do, got {scores[0]:.3g} "
            f"for all {len(scores)} by {detector!r}; is an argument too extreme?",
            stacklevel=2,
        )
    maps = [result.map for result in results if result.map is not None]
    ranges = distributed.gather([(float(m.median()), float(m.max())) for m in maps])
    low, high = np.transpose(ranges or [(0, 0)])
    detector.normal_ = Normal(scores, float(np.median(low)), float(high.max()))
    return detector


def digest(file: Path) -> str:
    """Of the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digests_of(files: Sequence[Path]) -> dict[Path, str]:
    """Of the contents of files, each of which is read."""
    return {file: digest(file) for file in files}


def learned_from(detector: Detector, files: Sequence[Path]) -> list[Path]:
    """Those of the files that a detector was fitted to, or copies of them."""
    learned = set(getattr(detector, "learned_", []))
    return [file for file in files if digest(file) in learned]


def normal_of(detector: Detector) -> Normal:
    """What a detector remembers of the images held out.

    Raises:
        ValueError: nothing, as it was fitted otherwise.
    """
    if not hasattr(detector, "normal_"):
        raise ValueError(
            f"model: expected one that `adlab fit` wrote, with the scores of images held "
            f"out, got {detector!r} without any"
        )
    return Normal(*detector.normal_)


def inspect(
    detector: Detector, files: Sequence[Path], what: str = "inspecting"
) -> Iterator[Result]:
    """Results of the files that are for this process, in their order.

    Raises:
        NotFittedError, TypeError, ValueError, FileNotFoundError, FloatingPointError: as
            of `Detector.anomaly_score`.
    """
    files = distributed.share(files)
    if not files:  # more processes than images
        return
    images = ImageFolder(files, reading=detector.reading)
    with progress(len(files), "image", what) as bar:
        for rows in torch.arange(len(files)).split(CHUNK):
            part = Subset(images, rows.tolist())
            names = [files[i] for i in part.indices]
            for result in map(Result, names, *_scores_and_maps(detector, part)):
                yield result
                bar.update()


def _scores_and_maps(
    detector: Detector, images: Dataset
) -> tuple[list[float], Sequence[Tensor | None]]:
    if isinstance(detector, Localizer):
        scores, maps = detector.score_and_map(images)
        return scores.tolist(), maps
    return detector.anomaly_score(images).tolist(), [None] * len(images)


def hold_out(
    digests: dict[Path, str], fraction: float, seed: int
) -> tuple[list[Path], list[Path]]:
    """Files to learn from, and files held out, drawn at random; copies of an image are
    on the same side.

    Args:
        digests: of the files, two different ones at least, see `digests_of`.
        fraction: of the different ones, in (0, 1); at least one is held out.
        seed: of the draw.

    Raises:
        ValueError: too few different files.
    """
    files, contents = list(digests), np.array(list(digests.values()))
    drawn = np.random.default_rng(seed).permutation(np.unique(contents))
    chosen = np.isin(contents, drawn[: max(1, round(fraction * len(drawn)))])
    if chosen.all():
        raise ValueError(
            f"images: expected at least two different ones, as some are held out, got "
            f"{len(drawn)}"
        )
    learn, held = (np.flatnonzero(side) for side in (~chosen, chosen))
    return [files[i] for i in learn], [files[i] for i in held]


class Watched(Dataset):
    """The images of a folder, with a bar that shows how many have been read."""

    def __init__(self, folder: ImageFolder):
        self.dataset, self.reading = folder, folder.reading
        self.bar = progress(len(folder), "image", "learning")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        if self.bar.n == len(self):
            self.bar.reset()  # as it is read once more
        self.bar.update()
        return self.dataset[index]


def threshold(detector: Detector, fpr: float) -> float:
    """The threshold that a new normal image exceeds with probability at most `fpr`, see
    `adlab.decision.quantile_threshold`.

    Raises:
        TypeError, ValueError: a rate that is not in (0, 1), or too small for the number
            of images held out.
    """
    return quantile_threshold(normal_of(detector).scores, fpr)
