"""Fibres as a scanning electron microscope shows them: drawn, rendered, recorded.

Thin fibres cross each other at all depths; near ones are bright and sharp, deep ones
dark and blurred; the flanks of a fibre shine brighter than its middle (the edge effect).
A picture is drawn from the deepest fibre to the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.ndimage import gaussian_filter

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


@dataclass(frozen=True)
class Fibres:
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


def draw_fibres(size: int, rng: np.random.Generator) -> Fibres:
    """A random mat: fibres of all directions, gently curved, at all depths."""
    n = round(FIBRES_PER_PIXEL * size * rng.uniform(0.95, 1.05))
    depth = np.linspace(0, 1, n, dtype=np.float32)
    centre, cosine = _curves(n, size, rng)
    radius = _column(RADIUS * np.exp(rng.normal(0, 0.17, n)))
    brightness = _column((0.13 + 0.6 * depth**1.5) * rng.normal(1, 0.08, n))
    return Fibres(
        upright=rng.random(n) < 0.5,
        depth=depth,
        centre=centre,
        cosine=cosine,
        radius=radius * (1 + 0.06 * waves(n, size, rng)),
        opacity=np.ones((n, size), np.float32),
        brightness=brightness * (1 + 0.08 * waves(n, size, rng)),
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


def waves(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Slow variations along n fibres, (n, size) in [-1, 1]."""
    k, phase = (
        _column(2 * np.pi / rng.uniform(40, 160, n)),
        _column(rng.uniform(0, 2 * np.pi, n)),
    )
    return np.sin(k * np.arange(size, dtype=np.float32) + phase)


def render(
    fibres: Fibres, film: Callable[[np.ndarray], np.ndarray] | None = None
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
                canvas,
                some_of(fibres, slice(first, min(first + BATCH, ends[layer + 1]))),
            )
        if film is not None and layer == 1:
            image[:] = film(image)
        image[:] = gaussian_filter(image, blur)
    return image.copy()


def _paint(canvas: np.ndarray, fibres: Fibres) -> None:
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


def _profile(distance: np.ndarray, fibres: Fibres) -> tuple[np.ndarray, np.ndarray]:
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


def record(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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


def step(x: np.ndarray) -> np.ndarray:
    """0 below -1/2, 1 above 1/2, linear between."""
    return np.clip(x + 0.5, 0, 1)


def some_of(fibres: Fibres, index: slice) -> Fibres:
    """The fibres of a slice."""
    return Fibres(*(getattr(fibres, part.name)[index] for part in fields(fibres)))


def one_of(fibres: Fibres, i: int, **curves: np.ndarray) -> Fibres:
    """Fibre i alone, with some of its curves, (S,) each, changed."""
    curves = {name: curve.astype(np.float32)[None] for name, curve in curves.items()}
    return replace(some_of(fibres, slice(i, i + 1)), **curves)


def with_changed(fibres: Fibres, i: int, **curves: np.ndarray) -> Fibres:
    """The fibres, with some curves of fibre i changed."""
    return joined(
        some_of(fibres, slice(0, i)),
        one_of(fibres, i, **curves),
        some_of(fibres, slice(i + 1, None)),
    )


def joined(*parts: Fibres) -> Fibres:
    """The fibres of all parts, one part after the other."""
    return Fibres(
        *(
            np.concatenate([getattr(p, part.name) for p in parts])
            for part in fields(Fibres)
        )
    )
