"""Alignment: photographs that were moved and turned by a known amount come back."""

import numpy as np
import pytest
import skimage.data
import torch
from bad_input import COLOUR, IMAGES, NAN, refuses, spoiled
from scipy.ndimage import rotate, shift

from adlab.data import align

MIDDLE = (..., slice(16, 80), slice(16, 80))


@pytest.fixture(scope="module")
def cup():
    photograph = skimage.data.coffee()[40:360:3, 110:430:3] / 255
    return torch.from_numpy(photograph[:96, :96].astype(np.float32)).permute(2, 0, 1)


def moved(image, angle, rows, columns):
    """By SciPy: turned counter-clockwise about the centre, then shifted."""
    turned = rotate(image, angle, (2, 1), reshape=False, order=1, mode="nearest")
    result = shift(turned, (0, rows, columns), order=1, mode="nearest")
    return torch.from_numpy(result).clamp(0, 1)


def difference(one, other):
    return float((one - other)[MIDDLE].abs().mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pose", [(0, 5, -7), (8, 0, 0), (-5, 3.5, 6), (20, -2, 4)])
def test_a_known_motion_is_undone(cup, pose, channels):
    cup = cup[:channels]
    other = moved(cup, *pose)
    (back,) = align(other[None], cup)
    assert difference(back, cup) < 0.35 * difference(other, cup)
    assert difference(back, cup) < 0.03


def test_light_and_noise_are_no_motion(cup):
    noise = 0.03 * torch.randn(cup.shape, generator=torch.Generator().manual_seed(0))
    (back,) = align((0.7 * cup + noise).clamp(0, 1)[None], cup)
    assert difference(back, 0.7 * cup) < 0.03


def test_what_is_not_square_turns_as_well(cup):
    wide = cup[:, :64]
    (back,) = align(moved(wide, 6, 2, -3)[None], wide)
    inside = (back - wide)[:, 12:-12, 16:-16].abs().mean()
    assert inside < 0.03


def test_what_lies_on_the_reference_stays(cup):
    aligned = align(torch.stack([cup, cup]), cup)
    assert aligned.dtype == torch.float32
    np.testing.assert_allclose(aligned[1], cup, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Could not determine RMS error")
def test_an_image_without_anything_in_it_stays(cup):
    flat = torch.full_like(cup, 0.5)[None]
    assert torch.allclose(align(flat, cup), flat)


SPOILED = spoiled(IMAGES[0], NAN)


test_bad_input = refuses(
    (lambda: align(255 * IMAGES, IMAGES[0]), ValueError, "images…[0, 1]"),
    (lambda: align(IMAGES[0], IMAGES[0]), ValueError, "images…(N, C, H, W)"),
    (lambda: align(IMAGES, IMAGES), ValueError, "reference…(1, 6, 5)"),
    (lambda: align(COLOUR, IMAGES[0]), ValueError, "reference…(3, 6, 5)"),
    (lambda: align(IMAGES, SPOILED), ValueError, "reference…finite"),
    (lambda: align(IMAGES, "first"), TypeError, "reference…str"),
)
