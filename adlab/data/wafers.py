"""Wafers: generated defect maps of silicon wafers, normal or with one of twelve
patterns of defective dies.

A wafer is a disc cut into a grid of dies, and a pixel is a die. On a normal wafer, a
few dies fail here and there. Dies that fail together, in a pattern, tell of a fault in
the production. The twelve patterns are those of the course, after L. Frittoli, D.
Carrera, B. Rossi, P. Fragneto and G. Boracchi, "Deep Open-Set Recognition for Silicon
Wafer Production Monitoring", Pattern Recognition 124, 2022. They are drawn from what
their names say, not from data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adlab._checks import check_choice, check_number
from adlab.data.imageset import ImageSet, Splits, check_split_counts, set_of

OUTSIDE, WORKING, DEFECTIVE = 0.0, 0.5, 1.0  # the three values of a pixel
TRAIN, VAL, TEST, ANOMALIES, PATTERN_SET = range(
    5
)  # every wafer draws from its own random stream


def wafers(
    size: int = 64,
    n_train: int = 200,
    n_val: int = 80,
    n_test: int = 240,
    noise: float = 0.03,
    seed: int = 0,
) -> Splits:
    """Wafer defect maps; half of the test wafers (rounded down) have a pattern: the
    `PATTERNS` take turns.

    Pixels are 0 outside the wafer, 0.5 for a working and 1 for a defective die. The
    mask marks the dies that fail because of the pattern.

    Args:
        size: H = W from 32 to 256, the number of dies across the wafer.
        n_train, n_val, n_test: numbers of wafers, at least 1, 1 and 2.
        noise: in [0, 0.5], the mean share of dies that fail at random; a wafer has 0.5
            to 1.5 times as much.
        seed: of all that is random. The splits are independent, and more wafers leave
            the others as they are.

    Returns:
        Splits with images (N, 1, size, size) and masks; the normal test wafers come
        first.

    Raises:
        ValueError, TypeError: an option out of its range.
    """
    check_number("size", size, 32, 256, whole=True)
    check_split_counts(n_train, n_val, n_test)
    check_number("noise", noise, 0, 0.5)
    check_number("seed", seed, 0, whole=True)
    test = [("good", (TEST, i)) for i in range(n_test - n_test // 2)]
    test += [(PATTERNS[i % len(PATTERNS)], (ANOMALIES, i)) for i in range(n_test // 2)]
    return Splits(
        train=_image_set(
            [("good", (TRAIN, i)) for i in range(n_train)], size, noise, seed
        ),
        val=_image_set([("good", (VAL, i)) for i in range(n_val)], size, noise, seed),
        test=_image_set(test, size, noise, seed),
    )


def wafer_patterns(
    n_per_kind: int = 20,
    kinds: Sequence[str] | None = None,
    size: int = 64,
    noise: float = 0.03,
    seed: int = 0,
) -> ImageSet:
    """Wafer defect maps of the given kinds, to train and to test classifiers with.

    The wafers of a kind do not depend on which other kinds are asked for. For a test
    set, take another seed.

    Args:
        n_per_kind: number of wafers of each kind, at least 1.
        kinds: names among "good" and the `PATTERNS`. Default: all thirteen.
        size, noise: as in `wafers`.
        seed: of all that is random.

    Returns:
        An ImageSet of images (len(kinds) · n_per_kind, 1, size, size), kind after kind;
        label 0 is "good".

    Raises:
        ValueError, TypeError: an option out of its range; an unknown, a repeated or no
            kind.
    """
    check_number("n_per_kind", n_per_kind, 1, whole=True)
    check_number("size", size, 32, 256, whole=True)
    check_number("noise", noise, 0, 0.5)
    check_number("seed", seed, 0, whole=True)
    known = ("good", *PATTERNS)
    kinds = known if kinds is None else kinds
    if isinstance(kinds, str) or not isinstance(kinds, Sequence):
        raise TypeError(
            f"kinds: expected a list of names, got {type(kinds).__name__} {kinds!r}"
        )
    for kind in kinds:
        check_choice("kinds", kind, known)
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"kinds: expected at least one name and none twice, got {list(kinds)}"
        )
    wanted = [
        (kind, (PATTERN_SET, known.index(kind), i))
        for kind in kinds
        for i in range(n_per_kind)
    ]
    return _image_set(wanted, size, noise, seed)


def _image_set(
    wanted: list[tuple[str, tuple[int, ...]]], size: int, noise: float, seed: int
) -> ImageSet:
    """One wafer for each wanted kind and random stream."""
    return set_of(
        (*_wafer(kind, size, noise, np.random.SeedSequence(seed, spawn_key=key)), kind)
        for kind, key in wanted
    )


def _wafer(
    kind: str, size: int, noise: float, sequence: np.random.SeedSequence
) -> tuple[np.ndarray, np.ndarray]:
    """One wafer, float32 (S, S), and its mask, bool (S, S); the same random defects
    whatever the kind.
    """
    of_noise, of_pattern = (np.random.default_rng(child) for child in sequence.spawn(2))
    y, x = (np.mgrid[:size, :size] + 0.5) * 2 / size - 1  # the wafer has radius 1
    wafer = np.hypot(x, y) <= 1
    failed = of_noise.random((size, size)) < noise * of_noise.uniform(0.5, 1.5)
    mask = np.zeros((size, size), bool)
    if kind != "good":
        chance = _DRAW[kind](x, y, of_pattern) * of_pattern.uniform(
            0.75, 1
        )  # of failing, for each die
        mask = wafer & (of_pattern.random((size, size)) < chance)
    image = np.where(failed | mask, DEFECTIVE, WORKING) * wafer + OUTSIDE * ~wafer
    return image.astype(np.float32), mask


# -- patterns
# Each takes the coordinates of the dies, x and y in [-1, 1], and returns their chance
# of failing, all (S, S).


def _basketball(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The seams of a ball: two straight ones that cross, and two that curve away from
    the middle.
    """
    x, y = _turned(x, y, rng)
    reach = rng.uniform(1.15, 1.35)
    radius = reach - rng.uniform(0.36, 0.48)
    curved = np.abs(np.hypot(np.abs(x) - reach, y) - radius)
    return _line(np.minimum(np.minimum(np.abs(x), np.abs(y)), curved), x)


def _cluster_big(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A cloud about half as wide as the wafer."""
    return _cluster(x, y, rng, rng.uniform(0.36, 0.5))


def _cluster_small(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A cloud about a sixth as wide as the wafer."""
    return _cluster(x, y, rng, rng.uniform(0.13, 0.2))


def _cluster(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, radius: float
) -> np.ndarray:
    """A cloud with a lobed outline anywhere on the wafer, dense in the middle."""
    x, y = _moved(x, y, rng, 0.92 - radius)
    lobes = np.arange(2, 5)
    phases, heights = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0, 0.45, 3) / lobes
    waves = np.cos(lobes * np.arctan2(y, x)[..., None] + phases) @ heights
    return 0.95 * _inside(1 + waves - np.hypot(x, y) / radius, 0.35)


def _donut(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A thick ring around a working centre."""
    x, y = _moved(x, y, rng, 0.12)
    middle, width = rng.uniform(0.42, 0.54), rng.uniform(0.13, 0.18)
    return 0.85 * _inside(width - np.abs(np.hypot(x, y) - middle), 0.08)


def _fingerprints(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ridges of a finger: nested arches inside an oval."""
    x, y = _turned(*_moved(x, y, rng, 0.3), rng)
    length, breadth = rng.uniform(0.6, 0.7), rng.uniform(0.42, 0.5)
    arch = np.hypot(x, np.maximum(y, 0)) + 0.04 * np.sin(
        6 * y + rng.uniform(0, 2 * np.pi)
    )
    ridges = np.cos(2 * np.pi * arch / rng.uniform(0.17, 0.2)) > 0.1
    return 0.92 * ridges * (np.hypot(x / breadth, y / length) < 1)


def _grid(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Straight lines, equally far apart, along both axes: the fields of the exposure."""
    pitch = rng.uniform(0.24, 0.36)
    to_lines = [
        np.abs((axis + rng.uniform(0, pitch)) % pitch - pitch / 2) for axis in (x, y)
    ]
    return _line(np.minimum(*to_lines), x)


def _half_moon(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crescent along the edge: what a disc moved aside leaves uncovered."""
    x, y = _turned(x, y, rng)
    shift, radius = rng.uniform(0.35, 0.55), rng.uniform(0.92, 1.05)
    return 0.88 * _inside(np.hypot(x + shift, y) - radius, 0.08)


def _incomplete(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All dies beyond a straight line fail, as if a step of the process had stopped
    there.
    """
    x, y = _turned(x, y, rng)
    return 0.97 * (x > rng.uniform(0.05, 0.45))


def _ring(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A thin ring at the edge of the wafer."""
    x, y = _moved(x, y, rng, 0.03)
    return _line(np.abs(np.hypot(x, y) - rng.uniform(0.84, 0.92)), x, 0.055)


def _scratch(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thin, slightly curved line."""
    x, y = _turned(*_moved(x, y, rng, 0.45), rng)
    length, bend = rng.uniform(0.35, 0.75), rng.normal(0, 0.5)
    return _line(np.abs(y - bend * (x**2 - 0.1)), x) * (np.abs(x) < length)


def _slice(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice of pie: a sector from the centre to the edge."""
    x, y = _turned(x, y, rng)
    return 0.88 * (np.abs(np.arctan2(y, x)) < rng.uniform(0.22, 0.42))


def _zigzag(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A line that turns back and forth on its way across the wafer."""
    x, y = _turned(*_moved(x, y, rng, 0.2), rng)
    period, height = rng.uniform(0.4, 0.6), rng.uniform(0.16, 0.26)
    wave = (
        4 * np.abs((x / period + rng.random()) % 1 - 0.5) - 1
    )  # a triangle wave in [-1, 1]
    steepness = np.hypot(1, 4 * height / period)
    return _line(np.abs(y - height * wave) / steepness, x) * (np.abs(x) < 0.75)


_DRAW = {
    "BasketBall": _basketball,
    "ClusterBig": _cluster_big,
    "ClusterSmall": _cluster_small,
    "Donut": _donut,
    "Fingerprints": _fingerprints,
    "Grid": _grid,
    "HalfMoon": _half_moon,
    "Incomplete": _incomplete,
    "Ring": _ring,
    "Scratch": _scratch,
    "Slice": _slice,
    "ZigZag": _zigzag,
}
PATTERNS = tuple(_DRAW)


def _turned(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates turned by a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _moved(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates seen from a random point at most `reach` from the centre,
    uniformly drawn.
    """
    radius, angle = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    return x - radius * np.cos(angle), y - radius * np.sin(angle)


def _line(distance: np.ndarray, x: np.ndarray, half_width: float = 0.03) -> np.ndarray:
    """The chance of failing along a line, of at least one and a half dies: 0.9 up to
    half its width.
    """
    die = 2 / len(x)
    return 0.9 * (distance < max(half_width, 0.75 * die))


def _inside(level: np.ndarray, softness: float) -> np.ndarray:
    """1 deep inside a shape (level > 0), 0 outside, linear over the given softness."""
    return np.clip(level / softness, 0, 1)
