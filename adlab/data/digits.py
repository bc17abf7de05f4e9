"""Real handwritten digits, one class against the rest, embedded through scikit-learn.

The 1797 images come with scikit-learn (`sklearn.datasets.load_digits`): the test part
of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998 (CC BY 4.0). Each pixel counts the ink, 0 to 16, of a block of
4 × 4 in a scan of 32 × 32. No two images are the same; the same 13 writers wrote the
digits of all splits.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from adlab._checks import check_choice, check_number
from adlab.data.imageset import ImageSet, Splits


def digits(
    normal_class: int = 3, size: int = 8, balanced: bool = False, seed: int = 0
) -> Splits:
    """One digit is normal, the nine others are anomalies.

    Of the about 180 images of the normal digit, half are for training, a quarter for
    validation and the rest for the test, where all images of the other digits join
    them.

    Args:
        normal_class: the normal digit, 0 to 9.
        size: H = W; 8 is native, more is a bilinear enlargement; at most 256.
        balanced: whether the test has only as many anomalies as normal images, drawn at
            random.
        seed: of the split.

    Returns:
        Splits with images (N, 1, size, size) and no masks; the kind of an anomaly is
        its digit, e.g. "7".

    Raises:
        ValueError, TypeError: an option out of its range.
    """
    check_number("normal_class", normal_class, 0, 9, whole=True)
    check_number("size", size, 8, 256, whole=True)
    check_choice("balanced", balanced, (False, True))
    check_number("seed", seed, 0, whole=True)
    rng = np.random.default_rng(seed)
    source = load_digits()
    normal = rng.permutation(np.flatnonzero(source.target == normal_class))
    anomalous = rng.permutation(np.flatnonzero(source.target != normal_class))
    train, val, held_out = np.split(normal, [len(normal) // 2, 3 * len(normal) // 4])
    if balanced:
        anomalous = anomalous[: len(held_out)]
    test = np.concatenate([held_out, np.sort(anomalous)])
    return Splits(
        *(_image_set(source, rows, normal_class, size) for rows in (train, val, test))
    )


def _image_set(
    source: object, rows: np.ndarray, normal_class: int, size: int
) -> ImageSet:
    """The given rows of scikit-learn's digits, as images of size × size in [0, 1]."""
    images = torch.from_numpy(source.images[rows]).to(torch.float32)[:, None] / 16
    images = interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False
    ).clamp(0, 1)
    targets = source.target[rows]
    kinds = ["good" if target == normal_class else str(target) for target in targets]
    return ImageSet(images, labels=targets != normal_class, kinds=kinds)
