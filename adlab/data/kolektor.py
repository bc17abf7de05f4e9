"""KolektorSDD: photographs of the surfaces of commutators, some with a crack.

The folders `kos01` to `kos50` are the commutators, and hold `Part0.jpg` to `Part7.jpg`
with a mask beside each, `Part0_label.bmp`. There are no training and test folders, so a
split is drawn here: whole commutators, as surfaces of the same one look alike.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from adlab._checks import check_number
from adlab.data.files import image_files
from adlab.data.folders import data_root, read_splits
from adlab.data.imageset import Splits
from adlab.data.layouts import Sample, apart, by_mask

FOLDERS = ("kolektor-sdd", "KolektorSDD", ".")
PAGE = "its page, https://www.vicos.si/resources/kolektorsdd"


def kolektor_sdd(
    root: str | os.PathLike | None = None,
    size: int | tuple[int, int] | None = (640, 256),
    test_fraction: float = 0.5,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """KolektorSDD: 399 grey images of 50 commutators, 52 of them with a crack.

    It is not downloaded: get it from its page, agree to its licence (CC BY-NC-SA 4.0),
    and put the folders of the commutators into `root`/kolektor-sdd. Half of the
    commutators, drawn at random, are for the test, with all their images; of the others
    the normal images are for training and validation, and the defective ones are left
    out. The set holds some commutators twice: copies count as one, so that none is on
    both sides. Source: Tabernik, Šela, Skvarč and Skočaj 2020, "Segmentation-based
    deep-learning approach for surface-defect detection".

    Args:
        root: folder of all data sets; default as in `adlab.data.folders.data_root`.
        size: (H, W), or one number for both, to which images are resized; their own
            sizes differ.
        test_fraction: share of the commutators that is for the test, in (0, 1).
        val_fraction: share of the other normal images that is for validation, in (0,
            1).
        seed: of both draws.

    Returns:
        Splits of grey images with test masks; kinds are "good" and "defect".

    Raises:
        FileNotFoundError: it is not on disk; the message says where to get it and put
            it.
        ValueError, TypeError: an option out of its range, fewer than two different
            commutators, a file that cannot be read, a mask that is missing.
    """
    for name, value in ("test_fraction", test_fraction), ("val_fraction", val_fraction):
        check_number(name, value, 0, 1, open_low=True, open_high=True)
    check_number("seed", seed, 0, whole=True)
    items = _items(_find(root))
    groups = np.array(_group_copies(items))
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    if len(order) < 2:
        raise ValueError(
            f"root: expected at least two different commutators, got {len(order)}"
        )
    n_test = min(max(1, round(test_fraction * len(order))), len(order) - 1)
    samples = [
        sample._replace(split="test" if is_test else "train")
        for item, is_test in zip(items, np.isin(groups, order[:n_test]), strict=True)
        for sample in item
    ]
    return read_splits(samples, size, None, val_fraction, seed)


def _find(root: str | os.PathLike | None) -> Path:
    """The folder that holds the folders of the commutators."""
    root = data_root(root)
    for folder in (root / name for name in FOLDERS):
        if any(folder.glob("kos[0-9][0-9]")):
            return folder
    tried = ", ".join(str(root / name) for name in FOLDERS)
    raise FileNotFoundError(
        f"root: expected the folders kos01 to kos50 of KolektorSDD in {tried}. It is not downloaded: "
        f"get it from {PAGE}, agree to its licence, and put it at {root / FOLDERS[0]}; or name another "
        "folder with root= or ADLAB_DATA."
    )


def _items(folder: Path) -> list[list[Sample]]:
    """The images of each commutator, with their masks."""
    items = []
    for item in sorted(folder.glob("kos[0-9][0-9]")):
        files, masks = apart(image_files(item))
        items.append([by_mask(file, masks) for file in files])
    return items


def _group_copies(items: list[list[Sample]]) -> list[int]:
    """A number for each commutator, the same for those that share an image."""
    digests = [
        {hashlib.sha256(sample.file.read_bytes()).digest() for sample in item}
        for item in items
    ]
    groups = list(range(len(items)))
    for i, mine in enumerate(digests):
        for j in range(i):
            if mine & digests[j]:
                groups = [groups[j] if g == groups[i] else g for g in groups]
    return groups
