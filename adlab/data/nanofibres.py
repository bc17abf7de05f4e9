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

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from adlab._checks import check_number
from adlab.data.imageset import ImageSet, Splits

TRAIN, VAL, TEST, ANOMALIES = range(
    4
)  # every image draws from its own random stream (seed, stream, index)
RADIUS = 2.4  # typical radius of a fibre, in pixels: a larger image shows more fibres, not larger ones
FIBRES_PER_PIXEL = 0.4  # of image side
BACKGROUND = 0.06  # grey value below all fibres
SHADOW = 4.0  # how far a fibre darkens what lies below it, in pixels
RIM = 1.8  # width of the bright flanks, in pixels: the edge effect
BATCH = 8  # fibres whose profiles are computed at once
LAYERS = (0.35, 0.7)  # depths where the middle and the upper layer begin
BLURS = (
    1.1,
    0.6,
    0.5,
)  # in pixels, after each layer; the lowest is blurred three times
PAD = (
    96  # the canvas reaches this far beyond the image, so that no fibre needs clipping
)
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
    for name, number, low in [
        ("n_train", n_train, 1),
        ("n_val", n_val, 1),
        ("n_test", n_test, 2),
    ]:
        check_number(name, number, low, whole=True)
    check_number("contrast", contrast, 0, 1, open_low=True)
    check_number("seed", seed, 0, whole=True)
    train = [_normal(size, _streams(seed, TRAIN, i)) for i in range(n_train)]
    val = [_normal(size, _streams(seed, VAL, i)) for i in range(n_val)]
    test = [_normal(size, _streams(seed, TEST, i)) for i in range(n_test - n_test // 2)]
    for i in range(n_test // 2):
        kind = KINDS[i % len(KINDS)]
        test.append(_anomalous(size, kind, contrast, _streams(seed, ANOMALIES, i)))
    return Splits(_image_set(train), _image_set(val), _image_set(test))


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
    picture = _render(_draw_fibres(size, streams[0]))
    return _record(picture, streams[2]), np.zeros((size, size), bool), "good"


def _anomalous(
    size: int, kind: str, contrast: float, streams: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, str]:
    """A picture with a defect, its mask and its kind."""
    clean, spoiled, mask = _clean_and_spoiled(size, kind, streams)
    return _record(clean + contrast * (spoiled - clean), streams[2]), mask, kind


def _clean_and_spoiled(
    size: int, kind: str, streams: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise-free pictures of the same fibres without and with a defect, and the mask
    where they differ.
    """
    fibres = _draw_fibres(size, streams[0])
    clean, (spoiled, covered) = _render(fibres), DEFECTS[kind](fibres, streams[1])
    changed = covered | (np.abs(spoiled - clean) > NOTICEABLE)
    mask = (
        gaussian_filter(changed.astype(np.float32), 0.8) > 0.5
    )  # no specks, no pinholes
    if mask.sum() < SMALLEST:  # other fibres hide the defect: draw again
        return _clean_and_spoiled(size, kind, streams)
    return clean, np.where(mask, spoiled, clean), mask


def _image_set(pictures: list[tuple[np.ndarray, np.ndarray, str]]) -> ImageSet:
    """The set of some pictures with their masks and kinds."""
    images, masks, kinds = zip(*pictures, strict=True)
    labels = np.array([kind != "good" for kind in kinds])
    return ImageSet(
        torch.from_numpy(np.stack(images)[:, None]),
        labels,
        np.stack(masks),
        list(kinds),
    )


# -- fibres


@dataclass(frozen=True)
class _Fibres:
    """n fibres, the deepest first, each a curve along one axis of an image of side S.

    A fibre crosses the columns of the image, or the rows where it is `upright`: at
    column x, its middle is at row `centre[x]`.
    """

    upright: np.ndarray  # bool (n,)
    depth: np.ndarray  # (n,) from 0, the deepest, to 1, the nearest
    centre: np.ndarray  # (n, S), in pixels
    cosine: (
        np.ndarray
    )  # (n, S), of the angle between fibre and axis: distance = rows times cosine
    radius: np.ndarray  # (n, S), in pixels
    opacity: np.ndarray  # (n, S), 0 where the fibre is missing
    brightness: np.ndarray  # (n, S), grey value of the middle


def _draw_fibres(size: int, rng: np.random.Generator) -> _Fibres:
    """A random mat: fibres of all directions, gently curved, at all depths."""
    n = round(FIBRES_PER_PIXEL * size * rng.uniform(0.95, 1.05))
    depth = np.linspace(0, 1, n, dtype=np.float32)
    centre, cosine = _curves(n, size, rng)
    radius = _column(RADIUS * np.exp(rng.normal(0, 0.17, n)))
    brightness = _column((0.13 + 0.6 * depth**1.5) * rng.normal(1, 0.08, n))
    return _Fibres(
        upright=rng.random(n) < 0.5,
        depth=depth,
        centre=centre,
        cosine=cosine,
        radius=radius * (1 + 0.06 * _waves(n, size, rng)),
        opacity=np.ones((n, size), np.float32),
        brightness=brightness * (1 + 0.08 * _waves(n, size, rng)),
    )


def _column(values: np.ndarray) -> np.ndarray:
    """One value a fibre, (n,), as float32 (n, 1)."""
    return values.astype(np.float32)[:, None]


def _curves(
    n: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Middle lines a + b t + c t² + d sin(k t + p) and the cosines of their angles,
    each (n, size).

    The offset a reaches as far as a line of slope b can still touch the image, so that
    fibres are equally dense everywhere.
    """
    t = np.arange(size, dtype=np.float32) - size / 2
    slope = np.tan(rng.uniform(-np.pi / 4, np.pi / 4, n))
    reach = size * (1 + np.abs(slope)) / 2 + RADIUS
    a, b = _column(size / 2 + reach * rng.uniform(-1, 1, n)), _column(slope)
    c, d = (
        _column(rng.normal(0, 0.0011, n).clip(-0.5 / size, 0.5 / size)),
        _column(rng.normal(0, 2.5, n)),
    )
    k, p = (
        _column(2 * np.pi / rng.uniform(70, 200, n)),
        _column(rng.uniform(0, 2 * np.pi, n)),
    )
    rows = a + b * t + c * t**2 + d * np.sin(k * t + p)
    slopes = b + 2 * c * t + d * k * np.cos(k * t + p)
    return rows, 1 / np.sqrt(1 + slopes**2)


def _waves(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Slow variations along n fibres, (n, size) in [-1, 1]."""
    k, phase = (
        _column(2 * np.pi / rng.uniform(40, 160, n)),
        _column(rng.uniform(0, 2 * np.pi, n)),
    )
    return np.sin(k * np.arange(size, dtype=np.float32) + phase)


# -- rendering


def _render(
    fibres: _Fibres, film: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """The noise-free picture, float32 (S, S), layer by layer: the deeper, the more
    often blurred.

    A film, if any, is laid over the two lower layers.
    """
    size = fibres.centre.shape[1]
    canvas = np.full((size + 2 * PAD, size + 2 * PAD), BACKGROUND, np.float32)
    image = canvas[PAD:-PAD, PAD:-PAD]
    ends = [0, *np.searchsorted(fibres.depth, LAYERS), len(fibres.depth)]
    for layer, blur in enumerate(BLURS):
        for first in range(ends[layer], ends[layer + 1], BATCH):
            _paint(
                canvas, _some(fibres, slice(first, min(first + BATCH, ends[layer + 1])))
            )
        if film is not None and layer == 1:
            image[:] = film(image)
        image[:] = gaussian_filter(image, blur)
    return image.copy()


def _paint(canvas: np.ndarray, fibres: _Fibres) -> None:
    """Paint fibres, and their shadows on what lies below, into the bands of pixels
    around their middles.
    """
    size, stride = fibres.centre.shape[1], canvas.shape[1]
    width = min(int(((fibres.radius + SHADOW) / fibres.cosine).max()) + 1, PAD // 2)
    middle = np.rint(fibres.centre).clip(
        -width, size + width
    )  # what leaves the image runs along its border
    steps = np.arange(-width, width + 1, dtype=np.float32)[:, None]
    distance = (steps + (middle - fibres.centre)[:, None]) * fibres.cosine[
        :, None
    ]  # (n, 2 width + 1, S)
    row, column = np.where(fibres.upright, [[1], [stride]], [[stride], [1]])[..., None]
    lines = (middle.astype(int) + PAD) * row + (np.arange(size) + PAD) * column
    places = lines[:, None] + steps.astype(int) * row[:, None]
    flat = canvas.reshape(-1)
    for place, kept, added in zip(places, *_profile(distance, fibres), strict=True):
        flat[place] = flat.take(place) * kept + added


def _profile(distance: np.ndarray, fibres: _Fibres) -> tuple[np.ndarray, np.ndarray]:
    """What a fibre keeps of the light from below, and what it adds, at a distance from
    its middle line.
    """
    radius, opacity, brightness = (
        curve[:, None] for curve in (fibres.radius, fibres.opacity, fibres.brightness)
    )
    slant = np.where(fibres.upright, 0.16, -0.1)[:, None, None].astype(
        np.float32
    )  # detector: upper right
    inside = radius - np.abs(distance)
    light = (1 - 0.5 * opacity) - (0.5 / SHADOW * opacity) * inside.clip(-SHADOW, 0)
    cover = opacity * (inside + 0.5).clip(0, 1)
    flank = np.maximum(
        RIM, 0.45 * radius
    )  # its width grows with a thick body, which looks round then
    grey = (
        1.2 * brightness
        - (0.32 * brightness / flank) * np.minimum(inside, flank)
        + (slant * brightness / radius) * distance
    )
    return light * (1 - cover), cover * grey


def _record(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the detector records of a noise-free picture, float32 (S, S) in [0, 1].

    The gain drifts (charging) from image to image, over the image and from line to
    line; shot noise, its variance growing with the grey value, and fine Gaussian noise
    come on top.
    """
    size = len(picture)
    waves = np.cos(np.pi * np.outer(np.arange(size) + 0.5, np.arange(3)) / size)
    charging = waves @ rng.normal(0, 0.03, (3, 3)) @ waves.T + rng.normal(
        0, 0.008, (size, 1)
    )
    sigma = np.sqrt(0.0012 * picture + 0.012**2)
    noise = sigma * rng.standard_normal(picture.shape, np.float32)
    return (picture * (1 + charging) + noise).clip(0, 1).astype(np.float32)


# -- defects
# Each takes the fibres and returns the spoiled picture and the pixels that the defect
# covers, both (S, S).


def _bead(fibres: _Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
    spoiled = _with(fibres, i, radius=fibres.radius[i] + swelling, brightness=bright)
    picture = _render(spoiled)
    return picture, _visible(spoiled, picture, i, swelling > 1)


def _film(fibres: _Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A membrane of clotted polymer between fibres: it climbs up on the lower, the
    upper sink into it.
    """
    size = fibres.centre.shape[1]
    level = _blob(fibres, rng)
    sunk = (
        0.75
        * _step(_along(fibres, level) / 12)
        * (fibres.depth < rng.uniform(0.85, 1))[:, None]
    )
    upper = (fibres.depth >= LAYERS[1])[:, None]
    cover = np.zeros((size, size), np.float32)
    sheen = 0.03 * np.add.outer(*_waves(2, size, rng))

    def membrane(below: np.ndarray) -> np.ndarray:
        relief = gaussian_filter(below, 2.2)
        edge = level + 30 * (relief - relief.mean())
        cover[:] = _step(edge / 1.5)
        rim = np.exp(-((edge - 1.5) ** 2) / 3)
        return below + cover * (0.33 + 0.5 * relief + 0.15 * rim + sheen - below)

    wetted = replace(fibres, opacity=fibres.opacity - sunk * upper)
    picture = _render(wetted, membrane)
    lit = _render(wetted, lambda below: membrane(below) + cover)
    return picture, lit - picture > 0.5


def _hole(fibres: _Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All but the deepest fibres end at an irregular outline, each a little sooner or
    later.
    """
    level = _blob(fibres, rng)
    beyond = _along(fibres, level) + rng.normal(
        0, 4, (len(fibres.depth), 1)
    )  # how far into the hole
    missing, fading = _step(beyond / 4), _step(beyond / 10)
    deep = (fibres.depth < 0.3)[:, None]
    spoiled = replace(
        fibres,
        opacity=np.where(deep, fibres.opacity, 1 - missing),
        radius=np.where(deep, fibres.radius, fibres.radius * (1 - 0.4 * fading)),
        brightness=fibres.brightness * (1 - 0.3 * fading),
    )
    picture = _render(spoiled)
    return picture, (level > 0) & (picture < 0.2)


def _thick(fibres: _Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One near fibre is several times as thick as the others."""
    i, _ = _near_place(fibres, rng)
    size = fibres.centre.shape[1]
    usual = fibres.radius[i].mean()
    thick = max(min(rng.uniform(3.0, 4.2) * RADIUS, size / 8), 2 * usual)
    spoiled = _with(fibres, i, radius=fibres.radius[i] * thick / usual)
    picture = _render(spoiled)
    return picture, _visible(spoiled, picture, i, np.ones(size, bool))


def _broken(fibres: _Fibres, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
    spoiled = _joined(
        _some(fibres, slice(0, i)), *ends, _some(fibres, slice(i + 1, None))
    )
    return _render(spoiled), _visible(fibres, _render(fibres), i, to_gap < 0)


def _frayed_end(
    fibres: _Fibres, i: int, beyond: np.ndarray, reach: float, rng: np.random.Generator
) -> list[_Fibres]:
    """Fibre i up to where `beyond`, (S,) in pixels, is 0, and three fibrils of about
    the given reach.
    """
    bent = (
        fibres.centre[i] + rng.choice([-1, 1]) * 0.012 * np.maximum(beyond + 14, 0) ** 2
    )
    taper = np.clip(0.75 - beyond / 24, 0.6, 1)
    parts = [
        _fibre(
            fibres,
            i,
            centre=bent,
            radius=fibres.radius[i] * taper,
            opacity=_step(-beyond),
        )
    ]
    for curl in rng.normal([-0.06, 0.0, 0.06], 0.02):
        length = rng.uniform(0.6, 1.1) * reach
        centre = bent + curl * np.maximum(beyond + 5, 0) ** 2
        cosine = 1 / np.hypot(1, np.gradient(centre))
        thin = np.clip(1.3 - 0.6 * beyond / length, 0.7, 1.3)
        opacity = _step(beyond + 5) * _step(length - beyond)
        parts.append(
            _fibre(
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


def _near_place(fibres: _Fibres, rng: np.random.Generator) -> tuple[int, int]:
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


def _blob(fibres: _Fibres, rng: np.random.Generator) -> np.ndarray:
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


def _along(fibres: _Fibres, field: np.ndarray) -> np.ndarray:
    """The values of a field (S, S) under the middle lines of the fibres, (n, S)."""
    size = len(field)
    rows, columns = (
        np.rint(fibres.centre).astype(int).clip(0, size - 1),
        np.arange(size),
    )
    return np.where(
        fibres.upright[:, None], field.T[rows, columns], field[rows, columns]
    )


def _step(x: np.ndarray) -> np.ndarray:
    """0 below -1/2, 1 above 1/2, linear between."""
    return np.clip(x + 0.5, 0, 1)


def _visible(
    fibres: _Fibres, picture: np.ndarray, i: int, part: np.ndarray
) -> np.ndarray:
    """The pixels of a picture, bool (S, S), that show the given part of fibre i, bool
    (S,).
    """
    lit = _with(fibres, i, brightness=fibres.brightness[i] + part)
    return _render(lit) - picture > 0.5


def _some(fibres: _Fibres, index: slice) -> _Fibres:
    """The fibres of a slice."""
    return _Fibres(*(getattr(fibres, part.name)[index] for part in fields(fibres)))


def _fibre(fibres: _Fibres, i: int, **curves: np.ndarray) -> _Fibres:
    """Fibre i alone, with some of its curves, (S,) each, changed."""
    curves = {name: curve.astype(np.float32)[None] for name, curve in curves.items()}
    return replace(_some(fibres, slice(i, i + 1)), **curves)


def _with(fibres: _Fibres, i: int, **curves: np.ndarray) -> _Fibres:
    """The fibres, with some curves of fibre i changed."""
    return _joined(
        _some(fibres, slice(0, i)),
        _fibre(fibres, i, **curves),
        _some(fibres, slice(i + 1, None)),
    )


def _joined(*parts: _Fibres) -> _Fibres:
    """The fibres of all parts, one part after the other."""
    return _Fibres(
        *(
            np.concatenate([getattr(p, part.name) for p in parts])
            for part in fields(_Fibres)
        )
    )
