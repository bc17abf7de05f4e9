"""Files of images, and of masks, as tensors."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from adlab._checks import check_choice, check_number
from adlab.data.archives import check_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_NAME = re.compile("(.+)[ _-](mask|masks|label|gt|seg)", re.IGNORECASE)
MASK_FOLDERS = ("ground_truth", "groundtruth", "gt", "masks", "mask")
HIDDEN = (".", "__MACOSX", "@eaDir", "$RECYCLE")  # systems keep copies in such


@dataclass(frozen=True)
class Reading:
    """How files become images of one kind: what was learned from some is asked of
    others that are read in the same way.

    Args:
        size: (H, W), or one number for both, to which images are resized (bilinear,
            antialiased); None keeps their size.
        crop: side of the square that is then cut from the middle; None for the whole.
        channels: 1 for grey, 3 for RGB.

    Raises:
        TypeError, ValueError: an argument out of its range.
    """

    size: tuple[int, int] | None = None
    crop: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, (1, 3))
        size, crop = check_sizes(self.size, self.crop)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "crop", crop)

    def read(self, file: str | os.PathLike) -> Tensor:
        """A file as float32 (C, H, W) in [0, 1].

        Raises:
            FileNotFoundError: no such file.
            ValueError: it cannot be read, is smaller than the crop, or has colours
                where grey is expected. The message names it.
        """
        return self.apply(read_image(file), check_path("file", file))

    def apply(self, image: Tensor, file: Path) -> Tensor:
        """An image (1 or 3, H, W) that was read from a file, in the size and channels
        of all.
        """
        if len(image) > self.channels:
            raise ValueError(f"{file}: expected a grey image, got one in colours")
        image = resize(image, self.size, mode="bilinear", antialias=True)
        return crop_middle(image, self.crop, file).expand(self.channels, -1, -1)

    def apply_to_mask(self, mask: Tensor, file: Path) -> Tensor:
        """A mask, bool (H, W), in the size of all."""
        mask = resize(mask[None].float(), self.size, mode="nearest-exact")
        return crop_middle(mask, self.crop, file)[0] > 0


def check_reading(reading: object) -> None:
    """Refuse what is neither a Reading nor None."""
    if not isinstance(reading, Reading | None):
        raise TypeError(f"reading: expected a Reading, got {type(reading).__name__}")


class ImageFolder(Dataset):
    """Images in files, read one at a time when they are asked for: enough to fit to.

    They are grey if all of them are, and else RGB.

    Args:
        path: a folder, whose images are taken in any depth, by name; or the files
            themselves, in their order. Hidden files and folders are left out.
        size: (H, W), or one number for both, to which images are resized; None keeps
            their size, which must then be the same for all.
        crop: side of the square that is then cut from the middle; None for the whole.
        reading: how to read them, in the place of size and crop.

    Attributes:
        files: their paths.
        reading: the `Reading` of each.

    Raises:
        FileNotFoundError: no such folder or file, or no image in the folder.
        ValueError: an image that cannot be read, or one of another height and width; a
            folder that holds a folder of masks, as a whole data set does; an argument
            out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike | Sequence[str | os.PathLike],
        size: int | tuple[int, int] | None = None,
        crop: int | None = None,
        reading: Reading | None = None,
    ):
        check_reading(reading)
        if reading is not None and (size, crop) != (None, None):
            raise ValueError("reading: expected none beside size or crop, got both")
        check_sizes(size, crop)
        self.files = _files(path)
        self.reading = reading or Reading(size, crop, count_channels(self.files))
        self.shape = self[0].shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        image = self.reading.read(self.files[index])
        if index and image.shape != self.shape:
            raise ValueError(
                f"{self.files[index]}: expected shape {tuple(self.shape)}, as "
                f"{self.files[0]} has, got {tuple(image.shape)}; with a size, images "
                "are resized"
            )
        return image


def _files(path: object) -> list[Path]:
    """The images below a folder, or those that are listed."""
    if isinstance(path, list | tuple):
        files = [check_path("path", file) for file in path]
    else:
        path = check_path("path", path)
        files = sorted(file for file in path.rglob("*") if is_image(file, path))
        _refuse_data_set(path, files)
        files = without_masks(files)
    if not files:
        raise FileNotFoundError(f"path: expected a folder with images, got {path}")
    return files


def _refuse_data_set(path: Path, files: list[Path]) -> None:
    """Whoever names a whole data set would fit to its defects, and to its masks."""
    for file in files:
        for part in file.relative_to(path).parts[:-1]:
            if part.casefold() in MASK_FOLDERS:
                raise ValueError(
                    f"path: expected a folder of normal images only, got {path}, which "
                    f"holds masks in a folder {part}; name e.g. {path / 'train'}"
                )


def is_image(file: Path, folder: Path) -> bool:
    """Whether a file is an image, by its name, and is not hidden below the folder."""
    hidden = any(is_hidden(part) for part in file.relative_to(folder).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and not file.is_dir()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems make, by its name."""
    return name.startswith(HIDDEN)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name; ValueError where there is none."""
    files = sorted(file for file in folder.iterdir() if is_image(file, folder))
    if not files:
        raise ValueError(
            f"{folder}: expected images ({', '.join(SUFFIXES)}), found none"
        )
    return files


def apart(files: list[Path]) -> tuple[list[Path], dict[str, tuple[Path, ...]]]:
    """Images, and the masks that lie beside them, by the names of their images."""
    stems = {(file.parent, stem_of(file)) for file in files}
    ends = {file: MASK_NAME.fullmatch(stem_of(file)) for file in files}
    beside = {
        f: end[1] for f, end in ends.items() if end and (f.parent, end[1]) in stems
    }
    images = [file for file in files if file not in beside]
    return images, {stem: (mask,) for mask, stem in beside.items()}


def without_masks(files: list[Path]) -> list[Path]:
    """The images among files; if there are masks beside them, with a warning."""
    images, masks = apart(files)
    if masks:
        ((first,), *_) = masks.values()
        warnings.warn(
            f"{first.parent}: {len(files) - len(images)} files that are called as masks "
            f"of images beside them, as {first.name}, are not read",
            stacklevel=2,
        )
    return images


def stem_of(file: Path) -> str:
    """The name without its suffix; systems write an umlaut as one sign or as two."""
    return unicodedata.normalize("NFC", file.stem)


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


def read_image(
    file: str | os.PathLike,
    size: int | tuple[int, int] | None = None,
    crop: int | None = None,
) -> Tensor:
    """An image of any kind as float32 (C, H, W) in [0, 1], C = 1 for grey and 3 for
    colour.

    Args:
        file: png, jpg, bmp, tif, webp, or whatever Pillow reads. It is turned upright,
            transparency is dropped, and 16 bits a pixel are kept.
        size: (H, W), or one number for both, to which it is resized (bilinear,
            antialiased); None keeps its size.
        crop: side of the square that is then cut from the middle; None for the whole.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or is smaller than the crop. The message names
            it.
    """
    file = check_path("file", file)
    size, crop = check_sizes(size, crop)
    with _opened(file) as image:
        values = _pixels(_upright(image, file))
    image = torch.from_numpy(np.atleast_3d(values)).permute(2, 0, 1).contiguous()
    return crop_middle(resize(image, size, mode="bilinear", antialias=True), crop, file)


def count_channels(files: Iterable[Path]) -> int:
    """1 if all images are grey, as their headers say, and else 3."""
    for file in files:
        with _opened(file) as image:
            if not _is_grey(image):
                return 3
    return 1


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """An open image; whatever goes wrong with it is an error that names the file."""
    if not file.is_file():
        raise FileNotFoundError(f"file: expected an image, got {file}, where is none")
    try:
        # a stream: what Pillow maps into memory by name, it may turn wrongly (TIFF)
        with file.open("rb") as stream, Image.open(stream) as image:
            yield image
    except Exception as error:  # a decoder may stumble in any way
        raise ValueError(
            f"{file}: expected an image, but it cannot be read as one: {error}"
        ) from error


def _upright(image: Image.Image, file: Path) -> Image.Image:
    """The first page of an image, as it is to be seen."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a photograph, and then a small copy of it
        warnings.warn(
            f"{file.parent}: of images of {pages} pages, only the first page is read",
            stacklevel=4,
        )
    if image.format == "TIFF":
        image.load()  # which turns it; some versions of Pillow would do it twice
        return image
    return ImageOps.exif_transpose(image)


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
        image = image.convert("L" if _is_grey(image) else "RGB")
    values = np.asarray(image, np.float32) / top
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"expected pixels from 0 to {top}, got {values.min() * top:g} to {values.max() * top:g}"
        )
    return values


def read_mask(file: Path) -> Tensor:
    """A mask of any kind as bool (H, W): true where it is not black; a JPEG or WebP,
    which do not keep black black, above half of its maximum.

    Where this marks nothing or everything, it is true where an alpha channel is not
    zero, or else the number of a colour in a palette.
    """
    with _opened(file) as image:
        lossy = image.format in ("JPEG", "MPO", "WEBP")
        ways = _ways_to_mark(_upright(image, file), lossy)
    found = [way for way in ways if way.any() and not way.all()]
    return torch.from_numpy((found or ways)[0])


def _ways_to_mark(image: Image.Image, lossy: bool) -> list[np.ndarray]:
    """Where a mask is bright and not transparent, where it is not transparent, and
    where its number in a palette is not 0, each bool (H, W).
    """
    has_alpha = image.mode in ("P", "PA", "LA", "RGBA")
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if has_alpha else np.array(1)
    numbers = np.asarray(image) if image.mode == "P" else alpha
    if image.mode == "LA" or not _is_grey(image):
        image = image.convert("RGB")
    values = np.asarray(image)
    values = values.reshape(*values.shape[:2], -1).max(2)
    black = max(values.max() / 2, 8) if lossy else 0
    marked = (values > black) & ((alpha > 0) | (alpha.max() == 0))
    return [marked, alpha > 0, numbers > 0]


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
