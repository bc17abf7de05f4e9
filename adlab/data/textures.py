"""Real textures: crops of photographs, with blobs of another real texture as anomalies.

The photographs, 512 × 512 and grey, come with scikit-image (`skimage.data.brick`,
`grass` and `gravel`; all three are in the public domain, CC0) and need no network.
"""

from __future__ import annotations

import numpy as np
import skimage.data
import torch

from adlab._checks import check_choice, check_number
from adlab.data.imageset import ImageSet, Splits

TEXTURES = ("brick", "grass", "gravel")
BLOCK = 128  # the photograph is cut into 4 × 4 blocks of this side, and a crop never leaves its block
# Every row and every column of blocks holds two of train, one of val and one of test,
# so that the perspective of the brick wall is the same in all three.
BLOCKS = np.array([np.roll(["train", "val", "train", "test"], row) for row in range(4)])
BORDER = 2.0  # width of a blob's soft border, in pixels


def textures(
    texture: str = "brick",
    size: int = 64,
    n_train: int = 256,
    n_val: int = 64,
    n_test: int = 128,
    contrast: float = 1.0,
    seed: int = 0,
) -> Splits:
    """Crops of one photograph; half of the test crops (rounded down) have a blob of
    another texture.

    Train, val and test are cut from disjoint blocks of the photograph, and no two crops
    are the same. The blob has an irregular outline and a soft border; its texture is
    one of the two others, in turn, and is given the mean and the standard deviation of
    the crop: brightness alone says little. The masks are true where the blob covers
    more than half of a pixel, whatever the contrast.

    Args:
        texture: the normal one: "brick", "grass" or "gravel".
        size: H = W of a crop, from 16 to 112 pixels.
        n_train, n_val, n_test: numbers of images, at least 1, 1 and 2.
        contrast: in (0, 1], the share of the blob in its mixture with the normal
            texture: 1 replaces it.
        seed: of all that is random. The three splits do not depend on the sizes of one
            another.

    Returns:
        Splits with images (N, 1, size, size), test masks, and kinds named after the
        foreign texture.

    Raises:
        ValueError, TypeError: an option out of its range, or more images than there are
            distinct crops.
    """
    check_choice("texture", texture, TEXTURES)
    check_number("size", size, 16, 112, whole=True)
    check_number("contrast", contrast, 0, 1, open_low=True)
    check_number("seed", seed, 0, whole=True)
    rngs = [
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
    ]
    train = _crops(texture, "train", size, n_train, rngs[0])
    val = _crops(texture, "val", size, n_val, rngs[1])
    test = _crops(texture, "test", size, n_test, rngs[2])
    return Splits(
        _image_set(train),
        _image_set(val),
        _with_blobs(test, texture, contrast, rngs[2]),
    )


def photograph(texture: str) -> np.ndarray:
    """The whole photograph of a texture, float64 (512, 512) in [0, 1]; an unknown name
    raises ValueError.
    """
    check_choice("texture", texture, TEXTURES)
    return getattr(skimage.data, texture)() / 255


def _crops(
    texture: str, part: str, size: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """`n` different crops (n, size, size) from the blocks of one part, uniformly drawn."""
    offsets = BLOCK - size + 1
    blocks = np.argwhere(part == BLOCKS)
    available = len(blocks) * offsets**2
    check_number(f"n_{part}", n, 2 if part == "test" else 1, available, whole=True)
    drawn = rng.choice(available, n, replace=False)
    block, row, column = np.unravel_index(drawn, (len(blocks), offsets, offsets))
    corners = blocks[block] * BLOCK + np.stack([row, column], axis=1)
    photo = photograph(texture)
    return np.stack([photo[y : y + size, x : x + size] for y, x in corners])


def _image_set(images: np.ndarray, **known: object) -> ImageSet:
    return ImageSet(torch.from_numpy(images[:, None].astype(np.float32)), **known)


def _with_blobs(
    crops: np.ndarray, texture: str, contrast: float, rng: np.random.Generator
) -> ImageSet:
    """The test set: crops (N, H, W), the second half of them with a foreign blob each."""
    masks = np.zeros(crops.shape, bool)
    kinds = ["good"] * len(crops)
    photos = {name: photograph(name) for name in TEXTURES if name != texture}
    for i in range(len(crops) - len(crops) // 2, len(crops)):
        kinds[i] = list(photos)[i % 2]
        foreign = _match(_random_crop(photos[kinds[i]], crops.shape[1], rng), crops[i])
        blob = _blob(crops.shape[1], rng)
        masks[i] = blob > 0.5
        crops[i] += contrast * blob * (foreign - crops[i])
    labels = np.array([kind != "good" for kind in kinds])
    return _image_set(crops, labels=labels, masks=masks, kinds=kinds)


def _random_crop(photo: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    row, column = rng.integers(0, photo.shape[0] - size + 1, size=2)
    return photo[row : row + size, column : column + size]


def _match(foreign: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """`foreign` with the mean and the standard deviation of `crop`."""
    standard = (foreign - foreign.mean()) / foreign.std()
    return np.clip(crop.mean() + crop.std() * standard, 0, 1)


def _blob(size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel a random blob covers, (size, size) in [0, 1].

    Its outline, in polar coordinates about its centre, is a mean radius times one plus
    a few harmonics.
    """
    harmonics = np.arange(2, 6)
    centre = rng.uniform(0.25, 0.75, 2) * size
    radius = rng.uniform(0.12, 0.22) * size
    amplitudes = rng.uniform(0, 0.5, len(harmonics)) / harmonics
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    y, x = np.mgrid[:size, :size] + 0.5 - centre[:, None, None]
    waves = np.cos(harmonics * np.arctan2(y, x)[..., None] + phases)
    outline = radius * (1 + waves @ amplitudes)
    return np.clip((outline - np.hypot(x, y)) / BORDER + 0.5, 0, 1)
