"""Files of images, and of masks, as tensors."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from adlab._checks import check_number

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Sample(NamedTuple):
    """An image to be read, what it shows, and where its mask lies."""

    file: Path
    kind: str
    mask: Path | None = None  # None: nothing is anomalous, or nobody has marked it


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name; ValueError where there is none."""
    files = [
        f
        for f in folder.iterdir()
        if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")
    ]
    if not files:
        raise ValueError(
            f"{folder}: expected images ({', '.join(SUFFIXES)}), found none"
        )
    return sorted(files)


def check_sizes(
    size: object, crop: int | None
) -> tuple[tuple[int, int] | None, int | None]:
    """Size as (H, W), or None for the native size; and a crop that fits into it."""
    size = check_size(size)
    if crop is not None:
        check_number("crop", crop, 1, min(size or (np.inf,)), whole=True)
    return size, crop


def check_size(size: object) -> tuple[int, int] | None:
    """Size as (H, W), or None for the native size."""
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size: expected one number or (H, W), got {size!r}")
    for side in pair:
        check_number("size", side, 1, whole=True)
    return pair


def read_samples(
    samples: list[Sample], size: tuple[int, int] | None, crop: int | None
) -> tuple[Tensor, Tensor]:
    """Images float32 (N, C, H, W) and masks bool (N, H, W)."""
    images, masks = [], []
    for sample in samples:
        image = read_image(sample.file)
        mask = _read_mask(sample, image.shape[1:])
        images.append(
            crop_middle(
                resize(image, size, mode="bilinear", antialias=True), crop, sample.file
            )
        )
        masks.append(
            crop_middle(resize(mask, size, mode="nearest-exact"), crop, sample.file)[0]
            > 0
        )
        if images[-1].shape[1:] != images[0].shape[1:]:
            first, this = (
                _as_text(image.shape[1:]) for image in (images[0], images[-1])
            )
            raise ValueError(
                f"size: expected (H, W) or one number, as the images differ: {samples[0].file} is {first} "
                f"and {sample.file} is {this}; got {size}"
            )
    channels = max(len(image) for image in images)
    return torch.stack(
        [image.expand(channels, -1, -1) for image in images]
    ), torch.stack(masks)


def _as_text(shape: tuple[int, int]) -> str:
    return f"{shape[0]}×{shape[1]}"


def read_image(file: Path) -> Tensor:
    """An image of any kind as float32 (C, H, W) in [0, 1], C = 1 for grey and 3 for
    colour.
    """
    try:
        with Image.open(file) as image:
            values = _pixels(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise ValueError(
            f"{file}: expected an image, but it cannot be read as one: {error}"
        ) from error
    return torch.from_numpy(np.atleast_3d(values)).permute(2, 0, 1).contiguous()


def _pixels(image: Image.Image) -> np.ndarray:
    """The pixels in [0, 1], float32 (H, W) or (H, W, 3)."""
    if image.mode == "F":
        top = 1
    elif image.mode.startswith(
        "I"
    ):  # 16 bits, which some versions of Pillow keep in 32
        top = 2**16 - 1
    else:
        top = 2**8 - 1
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    values = np.asarray(image).astype(np.float32) / top
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"expected pixels from 0 to {top}, got {values.min() * top:g} to {values.max() * top:g}"
        )
    return values


def _read_mask(sample: Sample, shape: tuple[int, int]) -> Tensor:
    """The mask of an image of the given shape (H, W): float32 (1, H, W) of 0 and 1."""
    if sample.mask is None:
        return torch.zeros(1, *shape)
    mask = read_image(sample.mask)
    if mask.shape[1:] != shape:
        expected, got = _as_text(shape), _as_text(mask.shape[1:])
        raise ValueError(
            f"{sample.mask}: expected the size of {sample.file}, {expected}, got {got}"
        )
    black = (
        0.5 if sample.mask.suffix.lower() in (".jpg", ".jpeg") else 0
    )  # JPEG does not keep black black
    return (mask.amax(dim=0, keepdim=True) > black).float()


def resize(image: Tensor, size: tuple[int, int] | None, **how: object) -> Tensor:
    """An image (C, H, W), resized; the weights are all positive, but their sum can
    round above 1.
    """
    if size is None or tuple(image.shape[1:]) == size:
        return image
    return interpolate(image[None], size=size, **how)[0].clamp(0, 1)


def crop_middle(image: Tensor, crop: int | None, file: Path) -> Tensor:
    """The square in the middle of an image (C, H, W)."""
    if crop is None:
        return image
    height, width = image.shape[1:]
    if crop > min(height, width):
        raise ValueError(
            f"crop: expected at most the size of {file}, {height}×{width}, got {crop}"
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[:, top : top + crop, left : left + crop]
