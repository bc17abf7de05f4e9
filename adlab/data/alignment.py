"""Alignment: photographs of one thing, moved and turned until they lie on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adlab._checks import as_tensor, check_images

if TYPE_CHECKING:
    from skimage.transform import EuclideanTransform

ANGLES, RADII = 720, 64  # of a spectrum in polar coordinates: half a degree a row
BAND = slice(4, 48)  # of the radii: light is below it, noise above
FINE = 10  # parts of a pixel, or of half a degree


def align(images: object, reference: object) -> Tensor:
    """Move and turn images until each lies on the reference.

    The turn is read off the magnitudes of the Fourier transforms, which a shift leaves
    as they are: in polar coordinates it is a shift itself. Then the shift is read off
    the turned image. Both are the peak of a cross-correlation. What comes from outside
    an image repeats its border: cut that off.

    Args:
        images: (N, C, H, W) in [0, 1].
        reference: (C, H, W), as one of them. They must show one thing at one size,
            turned by less than 90 degrees.

    Returns:
        float32 (N, C, H, W).

    Raises:
        TypeError, ValueError: bad images, or a reference of another shape.

    Source: Reddy and Chatterji, An FFT-based technique for translation, rotation, and
    scale-invariant image registration, 1996.
    """
    images = check_images(images)
    reference = as_tensor("reference", reference)
    if reference.shape != images.shape[1:]:
        raise ValueError(
            f"reference: expected shape {tuple(images.shape[1:])}, as the images have; "
            f"got {tuple(reference.shape)}"
        )
    fixed = _grey(check_images(reference[None], "reference")[0].cpu().numpy())
    aligned = [_align(image.cpu().numpy(), fixed) for image in images]
    return torch.from_numpy(np.stack(aligned)).float().clamp(0, 1)


def _align(image: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """An image (C, H, W) laid on a grey one (H, W)."""
    turn = _about_centre(_angle(fixed, _grey(image)), fixed.shape)
    shift = _shift(fixed, _grey(_warp(image, turn)))
    return _warp(image, _translation(-shift) + turn)


def _grey(image: np.ndarray) -> np.ndarray:
    """The mean of the channels, without its mean, and fading towards its border."""
    from skimage.filters import window

    grey = image.mean(0)
    return (grey - grey.mean()) * window("hann", grey.shape)


def _angle(fixed: np.ndarray, moving: np.ndarray) -> float:
    """By how many radians, from -pi/2 to pi/2, the second must be turned."""
    rows, _ = _shift(_spectrum(fixed), _spectrum(moving))
    degrees = rows * 360 / ANGLES
    return -np.deg2rad((degrees + 90) % 180 - 90)


def _spectrum(grey: np.ndarray) -> np.ndarray:
    """Log magnitudes by angle, over the half circle that has them all, and radius."""
    from skimage.transform import warp_polar

    side = max(grey.shape)  # on a square of frequencies a turn is a turn
    magnitudes = np.abs(np.fft.fftshift(np.fft.fft2(grey, (side, side))))
    polar = warp_polar(
        np.log1p(magnitudes), radius=side / 2, output_shape=(ANGLES, RADII)
    )
    return polar[: ANGLES // 2, BAND]


def _shift(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """By how many rows and columns the second must be moved."""
    from skimage.registration import phase_cross_correlation

    return phase_cross_correlation(
        fixed, moving, upsample_factor=FINE, normalization=None
    )[0]


def _translation(shift: np.ndarray) -> EuclideanTransform:
    from skimage.transform import EuclideanTransform

    return EuclideanTransform(translation=shift[::-1])


def _about_centre(angle: float, shape: tuple[int, int]) -> EuclideanTransform:
    from skimage.transform import EuclideanTransform

    centre = (np.array(shape) - 1) / 2
    turn = EuclideanTransform(rotation=angle)
    return _translation(-centre) + turn + _translation(centre)


def _warp(image: np.ndarray, transform: EuclideanTransform) -> np.ndarray:
    """An image (C, H, W), each pixel from where the transform sends its place."""
    from skimage.transform import warp

    last = np.moveaxis(image, 0, -1)
    return np.moveaxis(warp(last, transform, mode="edge"), -1, 0)
