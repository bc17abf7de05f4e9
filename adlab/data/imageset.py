"""What a data set is: images with labels, masks and kinds, split into train, val and
test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adlab._checks import check_images, check_labels, check_masks, check_number
from adlab.data.files import Reading, check_reading


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and what is known of them.

    Args:
        images: float32 (N, C, H, W) in [0, 1], C = 1 or 3, N = 0 for none; bytes
            (uint8) are divided by 255.
        labels: int64 (N,), 0 normal, 1 anomalous. Default: all normal.
        masks: bool (N, H, W), true where a pixel is anomalous, or None where the data
            has no masks.
        kinds: N names, "good" for a normal image. Default: "good" or "anomaly" after
            the label.
        reading: how its files were read, so that others can be read in the same way;
            None where it comes from no files.

    Raises:
        ValueError, TypeError: an argument of another shape, type or range, or a mask
            that marks pixels of a normal image.
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    kinds: list[str] | None = field(default=None, repr=False)
    reading: Reading | None = None

    def __post_init__(self) -> None:
        check_reading(self.reading)
        images = check_images(self.images, least=0)
        n, _, height, width = images.shape
        labels = torch.zeros(n) if self.labels is None else self.labels
        labels = torch.from_numpy(check_labels(labels, n)).to(torch.int64)
        masks = self.masks
        if masks is not None:
            masks = torch.from_numpy(check_masks(masks, (n, height, width)))
            marked = int((masks.flatten(1).any(1) & (labels == 0)).sum())
            if marked:
                raise ValueError(
                    f"masks: expected no marked pixel in a normal image, got {marked} such images"
                )
        kinds = self.kinds
        if kinds is None:
            kinds = ["anomaly" if label else "good" for label in labels.tolist()]
        if len(kinds) != n:
            raise ValueError(
                f"kinds: expected {n} names, one an image; got {len(kinds)}"
            )
        for name, value in [
            ("images", images),
            ("labels", labels),
            ("masks", masks),
            ("kinds", list(kinds)),
        ]:
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: object) -> ImageSet:
        """The images at `index` (a number, a slice, a list of numbers or a mask), again
        an ImageSet.
        """
        rows = np.arange(len(self))[index].reshape(-1).tolist()
        masks = None if self.masks is None else self.masks[rows]
        kinds = [self.kinds[i] for i in rows]
        return ImageSet(
            self.images[rows], self.labels[rows], masks, kinds, self.reading
        )

    def of_kind(self, *kinds: str) -> ImageSet:
        """The images of the given kinds.

        Raises:
            ValueError: a kind that no image has; the message lists those present.
        """
        for kind in kinds:
            if kind not in self.kinds:
                raise ValueError(
                    f"kinds: expected some of {sorted(set(self.kinds))}, got {kind!r}"
                )
        return self[[i for i, kind in enumerate(self.kinds) if kind in kinds]]

    def __repr__(self) -> str:
        n, channels, height, width = self.images.shape
        size, anomalous = f"{channels}×{height}×{width}", int(self.labels.sum())
        masks = "with masks" if self.masks is not None else "no masks"
        return f"ImageSet({n} images of {size}, {anomalous} anomalous, {masks})"


def check_split_counts(n_train: object, n_val: object, n_test: object) -> None:
    """How many images of each split to generate: a test needs both kinds."""
    counts = {"n_train": (n_train, 1), "n_val": (n_val, 1), "n_test": (n_test, 2)}
    for name, (number, least) in counts.items():
        check_number(name, number, least, whole=True)


def set_of(pictures: Iterable[tuple[np.ndarray, np.ndarray, str]]) -> ImageSet:
    """The set of some generated pictures, float32 (H, W), their masks and kinds."""
    images, masks, kinds = zip(*pictures, strict=True)
    return ImageSet(
        torch.from_numpy(np.stack(images)[:, None]),
        np.array([kind != "good" for kind in kinds]),
        np.stack(masks),
        list(kinds),
    )


def generated(
    draw: Callable[[str, np.random.Generator], tuple[np.ndarray, np.ndarray]],
    kinds: Sequence[str],
    counts: tuple[int, int, int],
    seed: int,
) -> Splits:
    """Splits of drawn pictures, each from a random stream of its own, so that more images
    leave the others as they are; half of the test (rounded down) is anomalous, and the
    kinds take turns.

    Args:
        draw: from a kind, "good" or one of `kinds`, and random numbers to an image (H, W)
            and its mask.
        kinds: of anomalies.
        counts: numbers of images for training, validation and test.
        seed: of all that is random.
    """
    n_train, n_val, n_test = counts
    odd = [kinds[i % len(kinds)] for i in range(n_test // 2)]
    wanted = [["good"] * n_train, ["good"] * n_val, ["good"] * (n_test - len(odd)), odd]
    train, val, good, anomalous = (
        [(kind, np.random.SeedSequence(seed, spawn_key=(part, i))) for i, kind in row]
        for part, row in enumerate(map(enumerate, wanted))
    )
    return Splits(
        *(
            set_of(
                (*draw(kind, np.random.default_rng(key)), kind) for kind, key in rows
            )
            for rows in (train, val, good + anomalous)
        )
    )


def misalign(
    image_set: ImageSet, angle: float = 10, shift: int = 4, seed: int = 0
) -> ImageSet:
    """Images as they come where nobody aligns them: each turned about its middle, and
    cut out with a shift, at random. What lies beyond a border repeats the border.

    Args:
        image_set: its masks move along.
        angle: the largest, in degrees, to either side.
        shift: the largest, in pixels, up or down and left or right.
        seed: of angles and shifts.

    Returns:
        An ImageSet of the same size, labels and kinds.

    Raises:
        TypeError, ValueError: no ImageSet, or a number out of its range.

    Source: as Defard et al. 2021 made their Rd-MVTec AD, with 10 degrees.
    """
    from torchvision.transforms import InterpolationMode, functional

    if not isinstance(image_set, ImageSet):
        raise TypeError(
            f"image_set: expected an ImageSet, got {type(image_set).__name__}"
        )
    check_number("angle", angle, 0, 180)
    check_number("shift", shift, 0, whole=True)
    check_number("seed", seed, 0, whole=True)
    rng = np.random.default_rng(seed)
    n, channels, height, width = image_set.images.shape
    masks = (
        torch.zeros(n, height, width) if image_set.masks is None else image_set.masks
    )
    both = torch.cat([image_set.images, masks[:, None].float()], 1)
    margin = shift + max(height, width) // 2  # more than a corner can turn by
    both = torch.nn.functional.pad(both, [margin] * 4, mode="replicate")
    moved = []
    for picture in both:
        turn = float(rng.uniform(-angle, angle))
        picture = functional.rotate(picture, turn, InterpolationMode.BILINEAR)
        row, column = margin + rng.integers(-shift, shift + 1, 2)
        moved.append(picture[:, row : row + height, column : column + width])
    moved = torch.stack(moved)
    return ImageSet(
        moved[:, :channels].clamp(0, 1),
        image_set.labels,
        None if image_set.masks is None else moved[:, channels] > 0.5,
        image_set.kinds,
        image_set.reading,
    )


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set split for anomaly detection: `train` and `val` are normal only, `test`
    has both.

    `optimal_score`, where the two distributions are known, maps images (N, C, H, W) to
    the Neyman–Pearson score (N,): no detector can beat it.

    Raises:
        TypeError: a part that is no ImageSet.
        ValueError: anomalies in train or val, or no image in train or test.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    optimal_score: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            part = getattr(self, name)
            if not isinstance(part, ImageSet):
                raise TypeError(
                    f"{name}: expected an ImageSet, got {type(part).__name__}"
                )
        for name in ("train", "test"):
            if not len(getattr(self, name)):
                raise ValueError(f"{name}: expected at least one image, got none")
        for name in ("train", "val"):
            anomalies = int(getattr(self, name).labels.sum())
            if anomalies:
                raise ValueError(
                    f"{name}: expected normal images only, got {anomalies} anomalous"
                )
