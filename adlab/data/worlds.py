"""Small generated worlds beyond products: an electrocardiogram, six frames of a video, a
depth map, and a plate with four bolts. Each has a kind of anomaly that shows in a single
patch, and one of which every patch is normal.

The heartbeat is a sum of Gaussians, one for each wave, as in McSharry et al. 2003, "A
dynamical model for generating synthetic electrocardiogram signals", IEEE TBME 50. The
extra bolt stands for the logical anomalies of Bergmann et al. 2022, "Beyond dents and
scratches", IJCV 130.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from adlab._checks import check_choice, check_number
from adlab.data.imageset import Splits, check_split_counts, generated

Drawn = tuple[np.ndarray, np.ndarray]  # an image in [0, 1] and its mask, both (H, W)


def worlds(
    world: str, n_train: int = 100, n_val: int = 50, n_test: int = 80, seed: int = 0
) -> Splits:
    """Images of one small world; half of the test images (rounded down) are anomalous:
    its two kinds take turns.

    Args:
        world: "heartbeats", the drawn curve of an electrocardiogram, 48 × 192, with an
            "ectopic" beat or an "irregular" rhythm; "traffic", six frames of a video side
            by side, 32 × 192, with a "stranger" or a car that goes the "wrong way";
            "depth", the depth map of a tilted plane, 64 × 64, with a "hole" or a "dent";
            "bolts", a plate with four bolts, 64 × 64, with a "crack" in one of them or a
            "fifth" one.
        n_train, n_val, n_test: numbers of images, at least 1, 1 and 2.
        seed: of all that is random. The splits are independent, and more images leave
            the others as they are.

    Returns:
        Splits with images (N, 1, H, W) and masks; the normal test images come first. The
        mask of an irregular rhythm is all of the image.

    Raises:
        ValueError, TypeError: an option out of its range.
    """
    check_choice("world", world, WORLDS)
    check_split_counts(n_train, n_val, n_test)
    check_number("seed", seed, 0, whole=True)
    draw, kinds = WORLDS[world]
    draw_one = partial(_picture, draw)
    return generated(draw_one, kinds, (n_train, n_val, n_test), seed)


def _picture(
    draw: Callable, kind: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    image, mask = draw(kind, rng)
    return image.clip(0, 1).astype(np.float32), mask


# -- heartbeats

WAVES = {"P": (-10, 0.12, 2.5), "Q": (-2.2, -0.12, 0.9), "R": (0, 1.0, 1.2)}
WAVES |= {
    "S": (2.4, -0.2, 1.0),
    "T": (11, 0.25, 3.5),
}  # place, height, width: in pixels
ECTOPIC = {"R": (0, 0.9, 4.0), "T": (12, -0.3, 5.0)}


def _beat(t: np.ndarray, waves: dict[str, tuple[float, float, float]]) -> np.ndarray:
    return sum(h * np.exp(-(((t - at) / w) ** 2) / 2) for at, h, w in waves.values())


def _heartbeats(kind: str, rng: np.random.Generator) -> Drawn:
    """A strip of paper: the curve is bright."""
    height, width = 48, 192
    gaps = np.full(9, rng.uniform(28, 44))  # between beats
    if kind == "irregular":
        gaps = rng.uniform(28, 44, 9)
    beats = rng.uniform(-28, 0) + gaps.cumsum()
    t = np.linspace(-0.5, width - 0.5, 8 * width).reshape(width, 8)
    strange = 2 if kind == "ectopic" else -1
    each = [
        _beat(t - at, ECTOPIC if i == strange else WAVES) for i, at in enumerate(beats)
    ]
    curve = 36 - 28 * sum(each) + rng.normal(0, 0.3, t.shape)
    rows = np.arange(height)[:, None]
    beside = np.maximum(rows - curve.max(1), curve.min(1) - rows).clip(0)
    mask = np.zeros((height, width), bool)
    if strange >= 0:
        mask[:, abs(t.mean(1) - beats[strange]) < 14] = True
    return np.exp(-(beside**2)), mask | (kind == "irregular")


# -- traffic


def _disc(shape: tuple[int, int], centre: np.ndarray, radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def _traffic(kind: str, rng: np.random.Generator) -> Drawn:
    """Two cars, each in a lane of its own, drive to the right."""
    size, n_frames, speed = 32, 6, 3
    starts = rng.uniform([(7, 4), (20, 4)], [(11, 12), (24, 12)])
    moves = np.array([speed, speed])
    radii = np.array([2.5, 2.5])
    if kind == "wrong way":
        starts[0, 1], moves[0] = size - starts[0, 1], -speed
    if kind == "stranger":
        radii[0] = 5.5
    frames, masks = [], []
    for k in range(n_frames):
        places = starts + np.stack([[0, 0], k * moves], 1)
        cars = [_disc((size, size), *car) for car in zip(places, radii, strict=True)]
        frames.append(0.3 + 0.5 * (cars[0] | cars[1]))
        masks.append(cars[0] & (kind != "good"))
    image = np.hstack(frames)
    return image + rng.normal(0, 0.02, image.shape), np.hstack(masks)


# -- depth


def _depth(kind: str, rng: np.random.Generator) -> Drawn:
    """A plane, tilted by chance, in front of a camera that measures distances."""
    size = 64
    y, x = (np.mgrid[:size, :size] - size / 2) / size
    image = 0.5 + rng.normal(0, 0.15) * y + rng.normal(0, 0.15) * x
    image += rng.normal(0, 0.003, image.shape)
    radius, depth = {"hole": (5, 0.3), "dent": (10, 0.03)}.get(kind, (1, 0))
    centre = rng.uniform(16, size - 16, 2)
    shape = np.exp(-(((np.mgrid[:size, :size].T - centre) / radius) ** 2).sum(2) / 2).T
    return image - depth * shape, (shape > 0.3) & (kind != "good")


# -- bolts


def _bolts(kind: str, rng: np.random.Generator) -> Drawn:
    """Bright bolts near the corners of a square, on a grey plate."""
    size = (64, 64)
    places = np.array([(18, 18), (18, 46), (46, 18), (46, 46)]) + rng.uniform(
        -3, 3, (4, 2)
    )
    if kind == "fifth":
        places = np.append(places, 32 + rng.uniform(-2, 2, (1, 2)), 0)
    image = np.full(size, 0.4)
    for place in places:
        image[_disc(size, place, 6)] = 0.2
        image[_disc(size, place, 4.5)] = 0.8
    mask = np.zeros(size, bool)
    if kind == "fifth":
        mask = _disc(size, places[-1], 6)
    if kind == "crack":
        across = _disc(size, places[0], 6)
        y, x = np.mgrid[: size[0], : size[1]] - places[0][:, None, None]
        mask = across & (abs(y - x * rng.uniform(-1, 1)) < 1.5)
        image[mask] = 0
    return image + rng.normal(0, 0.02, size), mask


WORLDS = {
    "heartbeats": (_heartbeats, ("ectopic", "irregular")),
    "traffic": (_traffic, ("stranger", "wrong way")),
    "depth": (_depth, ("hole", "dent")),
    "bolts": (_bolts, ("crack", "fifth")),
}
