"""Nanofibres: generated pictures of electrospun mats as a scanning electron microscope
(SEM) shows them.

Nothing here is a photograph. The pictures follow the running example of the course, D.
Carrera, F. Manganini, G. Boracchi and E. Lanzarone, "Defect Detection in SEM Images of
Nanofibrous Materials", IEEE Transactions on Industrial Informatics 13(2), 2017: thin
fibres cross each other at all depths; near ones are bright and sharp, deep ones dark
and blurred; the flanks of a fibre shine brighter than its middle (the edge effect).

A picture is drawn from the deepest fibre to the nearest. A defect is drawn into a
second rendering of the same fibres, and the noise is the same, so the mask is exact:
outside it, the two renderings are equal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from adlab._checks import check_number
from adlab.data.imageset import Splits, check_split_counts, set_of
from adlab.data.sem import (
    LAYERS,
    RADIUS,
    Fibres,
    draw_fibres,
    joined,
    one_of,
    record,
    render,
    some_of,
    step,
    waves,
    with_changed,
)

TRAIN, VAL, TEST, ANOMALIES = range(
    4
)  # every image draws from its own random stream (seed, stream, index)
NOTICEABLE = 0.04  # a grey value that changes by more belongs to the mask
SMALLEST = 20  # pixels of a mask


def nanofibres(
    size: int = 128,
    n_train: int = 100,
    n_val: int = 40,
    n_test: int = 80,
    contrast: float = 1.0,
    seed: int = 0,
) -> Splits:
    """SEM-like pictures of nanofibres; half of the test images (rounded down) have a
    defect.

    The kinds of defect take turns: a "bead" (droplets on a fibre), a "film" (a clot
    that fills the gaps between fibres), a "hole" (the upper fibres end at an irregular
    outline), a "thick" fibre and a "broken" one. The mask marks the pixels that the
    defect covers or changes by more than 4 % of the grey range; no other pixel changes.
    It does not depend on the contrast.

    Args:
        size: H = W from 32 to 512 pixels. Fibres are about 5 pixels thick at every
            size.
        n_train, n_val, n_test: numbers of images, at least 1, 1 and 2.
        contrast: in (0, 1], the share of the defect in its mixture with the clean
            picture: 1 replaces it.
        seed: of all that is random. The splits are independent, and more images leave
            the others as they are.

    Returns:
        Splits with images (N, 1, size, size) and masks; the normal test images come
        first.

    Raises:
        ValueError, TypeError: an option out of its range.
    """
    check_number("size", size, 32, 512, whole=True)
    check_split_counts(n_train, n_val, n_test)
    check_number("contrast", contrast, 0, 1, open_low=True)
    check_number("seed", seed, 0, whole=True)
    train = [_normal(size, _streams(seed, TRAIN, i)) for i in range(n_train)]
    val = [_normal(size, _streams(seed, VAL, i)) for i in range(n_val)]
    test = [_normal(size, _streams(seed, TEST, i)) for i in range(n_test - n_test // 2)]
    for i in range(n_test // 2):
        kind = KINDS[i % len(KINDS)]
        test.append(_anomalous(size, kind, contrast, _streams(seed, ANOMALIES, i)))
    return Splits(set_of(train), set_of(val), set_of(test))


def _streams(seed: int, stream: int, index: int) -> list[np.random.Generator]:
    """Three independent generators of one image: of its fibres, its defect and its
    noise.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, index))
    return [np.random.default_rng(child) for child in sequence.spawn(3)]


def _normal(
    size: int, streams: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, str]:
    """A normal picture, its empty mask and its kind."""
    picture = render(draw_fibres(size, streams[0]))
    return record(picture, streams[2]), np.zeros((size, size), bool), "good"


def _anomalous(
    size: int, kind: str, contrast: float, streams: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, str]:
    """A picture with a defect, its mask and its kind."""
    clean, spoiled, mask = _clean_and_spoiled(size, kind, streams)
    return record(clean + contrast * (spoiled - clean), streams[2]), mask, kind


def _clean_and_spoiled(
    size: int, kind: str, streams: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise-free pictures of the same fibres without and with a defect, and the mask
    where they differ.
    """
    fibres = draw_fibres(size, streams[0])
    clean, (spoiled, covered) = render(fibres), DEFECTS[kind](fibres, streams[1])
    changed = covered | (np.abs(spoiled - clean) > NOTICEABLE)
    mask = (
        gaussian_filter(changed.astype(np.float32), 0.8) > 0.5
    )  # no specks, no pinholes
    if mask.sum() < SMALLEST:  # other fibres hide the defect: draw again
        return _clean_and_spoiled(size, kind, streams)
    return clean, np.where(mask, spoiled, clean), mask


# -- defects
# Each takes the fibres and returns the spoiled picture and the pixels that the defect
# covers, both (S, S).


def _bead(fibres: Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One or two droplets on a near fibre: its radius swells like a ball or a spindle."""
    i, x = _near_place(fibres, rng)
    size = fibres.centre.shape[1]
    swelling = np.zeros(size)
    for start in [x, x + rng.choice([-1, 1]) * rng.uniform(24, 40)][
        : rng.integers(1, 3)
    ]:
        height = min(rng.uniform(5.5, 9.5), 0.14 * size)
        t = (np.arange(size) - start) / (
            height * rng.uniform(1.5, 2.6) * fibres.cosine[i]
        )
        swelling = np.maximum(
            swelling, height * np.maximum(1 - t**2, 0) ** rng.uniform(0.7, 1.4)
        )
    bright = fibres.brightness[i] * (1 + 0.015 * swelling)
    spoiled = with_changed(
        fibres, i, radius=fibres.radius[i] + swelling, brightness=bright
    )
    picture = render(spoiled)
    return picture, _visible(spoiled, picture, i, swelling > 1)


def _film(fibres: Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A membrane of clotted polymer between fibres: it climbs up on the lower, the
    upper sink into it.
    """
    size = fibres.centre.shape[1]
    level = _blob(fibres, rng)
    sunk = (
        0.75
        * step(_along(fibres, level) / 12)
        * (fibres.depth < rng.uniform(0.85, 1))[:, None]
    )
    upper = (fibres.depth >= LAYERS[1])[:, None]
    cover = np.zeros((size, size), np.float32)
    sheen = 0.03 * np.add.outer(*waves(2, size, rng))

    def membrane(below: np.ndarray) -> np.ndarray:
        relief = gaussian_filter(below, 2.2)
        edge = level + 30 * (relief - relief.mean())
        cover[:] = step(edge / 1.5)
        rim = np.exp(-((edge - 1.5) ** 2) / 3)
        return below + cover * (0.33 + 0.5 * relief + 0.15 * rim + sheen - below)

    wetted = replace(fibres, opacity=fibres.opacity - sunk * upper)
    picture = render(wetted, membrane)
    lit = render(wetted, lambda below: membrane(below) + cover)
    return picture, lit - picture > 0.5


def _hole(fibres: Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All but the deepest fibres end at an irregular outline, each a little sooner or
    later.
    """
    level = _blob(fibres, rng)
    beyond = _along(fibres, level) + rng.normal(
        0, 4, (len(fibres.depth), 1)
    )  # how far into the hole
    missing, fading = step(beyond / 4), step(beyond / 10)
    deep = (fibres.depth < 0.3)[:, None]
    spoiled = replace(
        fibres,
        opacity=np.where(deep, fibres.opacity, 1 - missing),
        radius=np.where(deep, fibres.radius, fibres.radius * (1 - 0.4 * fading)),
        brightness=fibres.brightness * (1 - 0.3 * fading),
    )
    picture = render(spoiled)
    return picture, (level > 0) & (picture < 0.2)


def _thick(fibres: Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One near fibre is several times as thick as the others."""
    i, _ = _near_place(fibres, rng)
    size = fibres.centre.shape[1]
    usual = fibres.radius[i].mean()
    thick = max(min(rng.uniform(3.0, 4.2) * RADIUS, size / 8), 2 * usual)
    spoiled = with_changed(fibres, i, radius=fibres.radius[i] * thick / usual)
    picture = render(spoiled)
    return picture, _visible(spoiled, picture, i, np.ones(size, bool))


def _broken(fibres: Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A near fibre has a gap; its ends bend away, thin out and fray into fibrils."""
    i, x = _near_place(fibres, rng)
    size = fibres.centre.shape[1]
    half_gap = min(rng.uniform(9, 14), size / 8)
    along = (np.arange(size) - x) / fibres.cosine[
        i
    ]  # position on the fibre, in pixels from the gap's middle
    to_gap = np.abs(along) - half_gap
    ends = []
    for side in (-1, 1):
        ends += _frayed_end(
            fibres, i, (half_gap - side * along).clip(-30, 20), half_gap, rng
        )
    spoiled = joined(
        some_of(fibres, slice(0, i)), *ends, some_of(fibres, slice(i + 1, None))
    )
    return render(spoiled), _visible(fibres, render(fibres), i, to_gap < 0)


def _frayed_end(
    fibres: Fibres, i: int, beyond: np.ndarray, reach: float, rng: np.random.Generator
) -> list[Fibres]:
    """Fibre i up to where `beyond`, (S,) in pixels, is 0, and three fibrils of about
    the given reach.
    """
    bent = (
        fibres.centre[i] + rng.choice([-1, 1]) * 0.012 * np.maximum(beyond + 14, 0) ** 2
    )
    taper = np.clip(0.75 - beyond / 24, 0.6, 1)
    parts = [
        one_of(
            fibres,
            i,
            centre=bent,
            radius=fibres.radius[i] * taper,
            opacity=step(-beyond),
        )
    ]
    for curl in rng.normal([-0.06, 0.0, 0.06], 0.02):
        length = rng.uniform(0.6, 1.1) * reach
        centre = bent + curl * np.maximum(beyond + 5, 0) ** 2
        cosine = 1 / np.hypot(1, np.gradient(centre))
        thin = np.clip(1.3 - 0.6 * beyond / length, 0.7, 1.3)
        opacity = step(beyond + 5) * step(length - beyond)
        parts.append(
            one_of(
                fibres, i, centre=centre, cosine=cosine, radius=thin, opacity=opacity
            )
        )
    return parts


DEFECTS = {
    "bead": _bead,
    "film": _film,
    "hole": _hole,
    "thick": _thick,
    "broken": _broken,
}
KINDS = tuple(DEFECTS)


def _near_place(fibres: Fibres, rng: np.random.Generator) -> tuple[int, int]:
    """A random near fibre and a random column where it is well inside the image, and
    not too oblique.
    """
    size = fibres.centre.shape[1]
    off = np.maximum(
        np.abs(fibres.centre / size - 0.5), np.abs(np.arange(size) / size - 0.5)
    )
    unfit = np.maximum(off - 0.32, 0) + np.maximum(0.85 - fibres.cosine, 0)
    nearness = fibres.depth + rng.uniform(0, 0.25, len(fibres.depth))
    i = int((nearness - 10 * unfit.min(1)).argmax())
    return i, int(rng.choice(np.flatnonzero(unfit[i] == unfit[i].min())))


def _blob(fibres: Fibres, rng: np.random.Generator) -> np.ndarray:
    """About how many pixels each pixel lies inside an irregular outline around a near
    fibre, (S, S).
    """
    i, x = _near_place(fibres, rng)
    size = fibres.centre.shape[1]
    middle = (x, fibres.centre[i, x]) if fibres.upright[i] else (fibres.centre[i, x], x)
    dy, dx = np.mgrid[:size, :size] - np.reshape(middle, (2, 1, 1))
    radius = min(rng.uniform(20, 29), 0.22 * size)
    harmonics = np.arange(2, 7)
    amplitudes, phases = (
        rng.uniform(0, 0.6, 5) / harmonics,
        rng.uniform(0, 2 * np.pi, 5),
    )
    waves = np.cos(harmonics * np.arctan2(dy, dx)[..., None] + phases) @ amplitudes
    return (radius * (1 + waves) - np.hypot(dy, dx)).astype(np.float32)


def _along(fibres: Fibres, field: np.ndarray) -> np.ndarray:
    """The values of a field (S, S) under the middle lines of the fibres, (n, S)."""
    size = len(field)
    rows, columns = (
        np.rint(fibres.centre).astype(int).clip(0, size - 1),
        np.arange(size),
    )
    return np.where(
        fibres.upright[:, None], field.T[rows, columns], field[rows, columns]
    )


def _visible(
    fibres: Fibres, picture: np.ndarray, i: int, part: np.ndarray
) -> np.ndarray:
    """The pixels of a picture, bool (S, S), that show the given part of fibre i, bool
    (S,).
    """
    lit = with_changed(fibres, i, brightness=fibres.brightness[i] + part)
    return render(lit) - picture > 0.5
