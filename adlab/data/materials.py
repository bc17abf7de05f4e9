"""Materials with captions: generated surfaces, flawless or with a drawn defect, and words
that say what is seen.

No picture is a photograph. A surface is a pattern of its material between two random
tones, under uneven light; its direction and its scale are random. A caption names the
material, sometimes the tone, and in most cases the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from adlab._checks import check_choice, check_number
from adlab.data.imageset import ImageSet, Splits, check_split_counts, generated, set_of

SIZE = 64  # side of an image, in pixels
Rng = np.random.Generator


# -- surfaces: each is a pattern (SIZE, SIZE), of any range


def _frame(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels, turned and shifted."""
    y, x = np.mgrid[:SIZE, :SIZE] + rng.uniform(0, 100, (2, 1, 1))
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _unit(field: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1."""
    return (field - field.mean()) / field.std()


def _noise(rng: Rng, sigma: float) -> np.ndarray:
    """Noise of one scale."""
    return _unit(gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma, mode="wrap"))


def _wood(rng: Rng) -> np.ndarray:
    """Bent stripes."""
    u, _ = _frame(rng)
    return np.sin(2 * np.pi * u / rng.uniform(5, 10) + 1.5 * _noise(rng, 8))


def _cloth(rng: Rng) -> np.ndarray:
    """Strands that go over and under each other."""
    u, v = (x / rng.uniform(5, 9) for x in _frame(rng))
    over = (np.floor(u) + np.floor(v)) % 2
    return np.where(over, np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v)))


def _tiles(rng: Rng) -> np.ndarray:
    """Squares with dark joints."""
    side = rng.uniform(12, 20)
    u, v = (abs((x / side) % 1 - 0.5) for x in _frame(rng))
    return -np.clip(np.maximum(u, v) * side - side / 2 + 1.5, 0, 1)


def _gauze(rng: Rng) -> np.ndarray:
    """Two crossing waves."""
    u, v = _frame(rng)
    period = rng.uniform(6, 11)
    return np.sin(2 * np.pi * u / period) + np.sin(2 * np.pi * v / period)


def _stone(rng: Rng) -> np.ndarray:
    """Noise of three scales."""
    return _noise(rng, 0.7) + _noise(rng, 2) + _noise(rng, 5)


def _carpet(rng: Rng) -> np.ndarray:
    """Noise of one scale, without what is coarser."""
    return _noise(rng, 1) - 0.7 * _noise(rng, 2.5)


def _leather(rng: Rng) -> np.ndarray:
    """Cells with dark borders."""
    points = rng.uniform(-8, SIZE + 8, (int(rng.integers(60, 140)), 2))
    pixels = np.argwhere(np.ones((SIZE, SIZE)))
    near, next_ = cKDTree(points).query(pixels, 2)[0].T
    return np.clip(next_ - near, 0, 3).reshape(SIZE, SIZE)


MATERIALS: dict[str, Callable[[Rng], np.ndarray]] = {
    "wood": _wood,
    "cloth": _cloth,
    "tiles": _tiles,
    "gauze": _gauze,
    "stone": _stone,
    "carpet": _carpet,
    "leather": _leather,
}


# -- defects: each gives how much of a pixel is covered, and by what, (SIZE, SIZE)


def _centre(rng: Rng) -> np.ndarray:
    """Where a defect is: each pixel's place seen from there, (2, SIZE, SIZE)."""
    return np.mgrid[:SIZE, :SIZE] - rng.uniform(14, SIZE - 14, (2, 1, 1))


def _scratch(surface: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A thin line, lighter or darker than all around."""
    y, x = _centre(rng)
    angle, length = rng.uniform(0, np.pi), rng.uniform(12, 26)
    along, across = (
        x * np.cos(angle) + y * np.sin(angle),
        y * np.cos(angle) - x * np.sin(angle) + rng.normal(0, 0.002) * x**2,
    )
    cover = np.clip(rng.uniform(1.1, 1.8) - abs(across), 0, 1) * (abs(along) < length)
    return cover, surface + rng.choice([-1, 1]) * rng.uniform(0.15, 0.35)


def _round(rng: Rng, low: float, high: float, border: float) -> np.ndarray:
    """How much of each pixel a roundish blob covers."""
    y, x = _centre(rng)
    wobble = 1 + 0.2 * np.cos(rng.integers(2, 5) * np.arctan2(y, x) + rng.uniform(0, 6))
    radius = rng.uniform(low, high) * wobble
    return np.clip((radius - np.hypot(x, y)) / border + 0.5, 0, 1)


def _stain(surface: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Darker with a soft border; the pattern shows through."""
    return _round(rng, 7, 14, 4), surface * rng.uniform(0.55, 0.8)


def _hole(surface: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Nearly black, with a sharp border."""
    return _round(rng, 2, 5, 1), surface * rng.uniform(0.1, 0.4)


def _twist(surface: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """The same surface, twice as fine and turned: no tone is new."""
    fine = np.rot90(surface)[::2, ::2]
    return _round(rng, 8, 14, 2), np.tile(fine, (2, 2))


DEFECTS = {"scratch": _scratch, "stain": _stain, "hole": _hole, "twist": _twist}


# -- pictures

KNOWN = tuple(name for name in MATERIALS if name != "leather")  # to captions
NAMED = tuple(kind for kind in DEFECTS if kind != "twist")  # in captions


def materials(
    material: str = "leather",
    kinds: Sequence[str] = NAMED,
    n_train: int = 100,
    n_val: int = 50,
    n_test: int = 80,
    seed: int = 0,
) -> Splits:
    """Images of one material; half of the test images (rounded down) have a defect, whose
    kinds take turns.

    Args:
        material: "wood", "cloth", "tiles", "gauze", "stone", "carpet" or "leather".
        kinds: of defects: "scratch", "stain", "hole" and "twist", a part of the same
            surface that is finer and turned.
        n_train, n_val, n_test: numbers of images, at least 1, 1 and 2.
        seed: of all that is random. The splits are independent, and more images leave
            the others as they are.

    Returns:
        Splits with images (N, 1, 64, 64) and masks; the normal test images come first.

    Raises:
        ValueError, TypeError: an option out of its range.
    """
    check_choice("material", material, MATERIALS)
    _check_kinds(kinds)
    check_split_counts(n_train, n_val, n_test)
    check_number("seed", seed, 0, whole=True)

    def draw(kind: str, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        return _picture(material, kind, rng)[:2]

    return generated(draw, kinds, (n_train, n_val, n_test), seed)


def _check_kinds(kinds: object) -> None:
    """Refuse what is not a sequence of kinds of defects."""
    if not isinstance(kinds, list | tuple) or not kinds:
        raise TypeError(f"kinds: expected a list of kinds of defects, got {kinds!r}")
    for kind in kinds:
        check_choice("kinds", kind, DEFECTS)


def _picture(
    material: str, kind: str, rng: Rng
) -> tuple[np.ndarray, np.ndarray, float]:
    """An image in [0, 1], its mask, and its tone without light and defect."""
    tone, contrast = rng.uniform(0.35, 0.7), rng.uniform(0.05, 0.12)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    light = 1 + rng.normal(0, 0.06) * y + rng.normal(0, 0.06) * x
    surface = (tone + contrast * _unit(MATERIALS[material](rng))) * light
    mask = np.zeros((SIZE, SIZE), bool)
    if kind != "good":
        cover, other = DEFECTS[kind](surface, rng)
        surface, mask = surface + cover * (other - surface), cover > 0.5
    noisy = surface + rng.normal(0, 0.015, surface.shape)
    return noisy.clip(0, 1).astype(np.float32), mask, tone


# -- captions

TEMPLATES = ("{}", "a photo of {}", "a picture of {}", "a close view of {}")
FLAWLESS = ("flawless {}", "perfect {}", "intact {}", "clean {}", "{} without a flaw")
DAMAGED = ("damaged {}", "defective {}", "{} with a flaw")
STATES = {
    "good": FLAWLESS,
    "scratch": (*DAMAGED, "scratched {}", "{} with a scratch"),
    "stain": (*DAMAGED, "stained {}", "{} with a stain"),
    "hole": (*DAMAGED, "pierced {}", "{} with a hole"),
}
AGES = ("{}", "{}", "new {}", "old {}")  # written of anything, and never seen
SHARES = {"tone": 0.4, "state": 0.75}  # of the captions that say it


def captioned(
    n: int, materials: Sequence[str] = KNOWN, seed: int = 0
) -> tuple[ImageSet, list[str]]:
    """Images of several materials, half of them with a defect, and a caption for each,
    as people may write it: "a photo of dark cloth with a hole", "new wood".

    Args:
        n: number of images.
        materials: each is drawn as often as any other.
        seed: of all that is random; more images leave the others as they are.

    Returns:
        An ImageSet (n, 1, 64, 64) and n captions. None speaks of a "twist", and none of
        leather, unless that is asked for.

    Raises:
        ValueError, TypeError: an option out of its range.
    """
    check_number("n", n, 1, whole=True)
    for material in materials:
        check_choice("materials", material, MATERIALS)
    check_number("seed", seed, 0, whole=True)
    pictures, captions = zip(
        *(_captioned(materials, _stream(seed, i)) for i in range(n)), strict=True
    )
    return set_of(pictures), list(captions)


def _stream(seed: int, index: int) -> Rng:
    """Random numbers of one picture; other ones than those of the splits, 0 to 3."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4, index)))


def _captioned(
    materials: Sequence[str], rng: Rng
) -> tuple[tuple[np.ndarray, np.ndarray, str], str]:
    """A picture with its mask and its kind, and what is written beneath it."""
    material = str(rng.choice(materials))
    kind = "good" if rng.random() < 0.5 else str(rng.choice(NAMED))
    image, mask, tone = _picture(material, kind, rng)
    return (image, mask, kind), _caption(material, kind, tone, rng)


def _caption(material: str, kind: str, tone: float, rng: Rng) -> str:
    """The material; at random its tone, an age and its state."""
    text = material
    if rng.random() < SHARES["tone"]:
        text = f"{'dark' if tone < 0.5 else 'bright'} {text}"
    text = rng.choice(AGES).format(text)
    if rng.random() < SHARES["state"]:
        text = rng.choice(STATES[kind]).format(text)
    return rng.choice(TEMPLATES).format(text)
