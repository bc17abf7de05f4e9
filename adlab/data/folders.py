"""Images in folders: one's own, and the public benchmarks MVTec AD and BTAD.

The layout is that of MVTec AD. A mask may also have the very name of its image, as in
BTAD:

    train/good/*.png                         normal images
    test/good/*.png, test/<kind>/*.png       normal images, and anomalies of each kind
    ground_truth/<kind>/<name>_mask.png      where the anomaly of test/<kind>/<name>.png
    is

Images and masks are png, jpg, jpeg, bmp, tif or tiff, in upper or lower case.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from adlab._checks import check_number
from adlab.data.imageset import ImageSet, Splits

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
DAMAGED = (  # RuntimeError: a zip with a password
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(lzma.LZMAError, zlib.error, EOFError, RuntimeError),
)


@dataclass(frozen=True)
class Benchmark:
    """Where a public benchmark lies, below the root of all data, and where to get it."""

    name: str
    categories: tuple[str, ...]
    folders: tuple[str, ...]  # that may hold the categories
    archives: tuple[str, ...]  # that may lie in those folders, still packed
    page: str


MVTEC_AD = Benchmark(
    name="mvtec-ad",
    categories=(
        *(
            "bottle",
            "cable",
            "capsule",
            "carpet",
            "grid",
            "hazelnut",
            "leather",
            "metal_nut",
        ),
        *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
    ),
    folders=("mvtec-ad", "mvtec_ad", "mvtec_anomaly_detection", "."),
    archives=("{category}.tar.xz", "mvtec_anomaly_detection.tar.xz"),
    page="the MVTec AD page, https://www.mvtec.com/company/research/datasets/mvtec-ad",
)
BTAD = Benchmark(
    name="btad",
    categories=("01", "02", "03"),
    folders=(
        "btad",
        "btad/BTech_Dataset_transformed",
        "BTech_Dataset_transformed",
        ".",
    ),
    archives=("btad.zip",),
    page="the page of its authors, https://github.com/pankajmishra000/VT-ADL",
)
BENCHMARKS = {"mvtec-ad": MVTEC_AD, "btad": BTAD}


def from_folder(
    path: str | os.PathLike,
    size: int | tuple[int, int] | None = None,
    crop: int | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """One's own images in the MVTec AD layout; see the top of this module.

    Images are grey, (N, 1, H, W), if all of them are, and else RGB, (N, 3, H, W);
    transparency is dropped, and 16 bits a pixel are kept. A mask is true where it is
    not black; without any folder `ground_truth` the masks are None. Files with other
    suffixes, hidden ones, and other folders of `train` are not read.

    Args:
        path: the folder that holds `train` and `test`.
        size: (H, W), or one number for both, to which images are resized (bilinear,
            antialiased; masks nearest); None keeps the size, which must then be the
            same for all.
        crop: side of the square that is then cut from the middle; None for the whole
            image.
        val_fraction: share of train/good that is drawn for validation, in (0, 1); at
            least one image. Copies of a validation image go with it, so that none is
            trained on.
        seed: of that draw.

    Returns:
        Splits with the names of the folders of `test` as kinds: first "good", then the
        others by name.

    Raises:
        FileNotFoundError: a folder is not there; the message says what is.
        ValueError, TypeError: an option out of its range, images of different sizes, an
            image that cannot be read, a mask that is missing or of another size, no
            images. The message names the file or folder.
    """
    return _read_layout(
        _check_path("path", path), "good", size, crop, val_fraction, seed
    )


def mvtec_ad(
    category: str,
    root: str | os.PathLike | None = None,
    size: int | tuple[int, int] | None = 256,
    crop: int | None = 224,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """A category of MVTec AD, resized to 256 pixels and cropped to 224, as is usual.

    It is not downloaded: get it from its page, agree to its licence (CC BY-NC-SA 4.0),
    and put the folder of the category, or its archive, which is then unpacked, into
    `root`/mvtec-ad. Source: Bergmann, Fauser, Sattlegger and Steger, "MVTec AD", CVPR
    2019.

    Args:
        category: one of `MVTEC_AD.categories`, e.g. "bottle".
        root: folder of all data sets; default as in `data_root`.
        size, crop, val_fraction, seed: as in `from_folder`.

    Returns:
        Splits with test masks; kinds are "good" and the defects' names, e.g.
        "broken_large".

    Raises:
        ValueError: an unknown category, and whatever `from_folder` refuses.
        FileNotFoundError: the category is not on disk; the message says where to get it
            and put it.
    """
    return _read_layout(
        _find(MVTEC_AD, category, root), "good", size, crop, val_fraction, seed
    )


def btad(
    category: str,
    root: str | os.PathLike | None = None,
    size: int | tuple[int, int] | None = 256,
    crop: int | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """A product of BTAD, the beanTech anomaly detection data set: "01", "02" or "03".

    It is not downloaded: get it from its page, and put the folder of the product, or
    the archive btad.zip, which is then unpacked, into `root`/btad. Its layout has
    normal images in `ok` and all anomalies in `ko`. Source: Mishra, Verk, Fornasier,
    Piciarelli and Foresti, "VT-ADL", ISIE 2021.

    Args:
        category: "01", "02" or "03".
        root: folder of all data sets; default as in `data_root`.
        size, crop, val_fraction, seed: as in `from_folder`.

    Returns:
        Splits with test masks and the kinds "good" and "ko".

    Raises:
        ValueError: an unknown category, and whatever `from_folder` refuses.
        FileNotFoundError: the product is not on disk; the message says where to get it
            and put it.
    """
    return _read_layout(
        _find(BTAD, category, root), "ok", size, crop, val_fraction, seed
    )


def data_root(root: str | os.PathLike | None = None) -> Path:
    """The folder of all public data sets: `root`, else the environment's ADLAB_DATA,
    else the user's cache.

    The cache is $XDG_CACHE_HOME/adlab where that is set, else ~/Library/Caches/adlab on
    macOS, %LOCALAPPDATA%/adlab on Windows, and ~/.cache/adlab elsewhere. The folder
    need not exist. A root that is no path raises TypeError.
    """
    if root is not None:
        return _check_path("root", root)
    if os.environ.get("ADLAB_DATA"):
        return Path(os.environ["ADLAB_DATA"]).expanduser()
    usual = {
        "darwin": "~/Library/Caches",
        "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"),
    }
    cache = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache")
    return Path(cache).expanduser() / "adlab"


# -- the layout of folders


class _Sample(NamedTuple):
    file: Path
    kind: str
    mask: Path | None = None  # None: nothing is anomalous, or nobody has marked it


def _read_layout(
    path: Path,
    normal: str,
    size: int | tuple[int, int] | None,
    crop: int | None,
    val_fraction: float,
    seed: int,
) -> Splits:
    """Read the folder at `path`, where `normal` is the name of the folders of normal
    images.
    """
    size, crop = _check_sizes(size, crop)
    check_number("val_fraction", val_fraction, 0, 1, open_low=True, open_high=True)
    check_number("seed", seed, 0, whole=True)
    train = [
        _Sample(file, "good") for file in _image_files(_folder(path, "train", normal))
    ]
    test = _test_samples(path, normal)
    images, masks = _read_samples(train + test, size, crop)
    normals = images[: len(train)]
    is_val = _draw_validation(normals, val_fraction, seed)
    kinds = [sample.kind for sample in test]
    test_set = ImageSet(
        images[len(train) :],
        labels=np.array([kind != "good" for kind in kinds]),
        masks=masks[len(train) :] if (path / "ground_truth").is_dir() else None,
        kinds=kinds,
    )
    return Splits(ImageSet(normals[~is_val]), ImageSet(normals[is_val]), test_set)


def _check_path(name: str, path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {type(path).__name__} {path!r}")
    return Path(path).expanduser()


def _check_sizes(
    size: object, crop: int | None
) -> tuple[tuple[int, int] | None, int | None]:
    """Size as (H, W), or None for the native size; and a crop that fits into it."""
    size = _check_size(size)
    if crop is not None:
        check_number("crop", crop, 1, min(size or (np.inf,)), whole=True)
    return size, crop


def _check_size(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size: expected one number or (H, W), got {size!r}")
    for side in pair:
        check_number("size", side, 1, whole=True)
    return pair


def _folder(path: Path, *parts: str) -> Path:
    """The folder `path`/`parts`; where it is missing, the error says what there is
    instead.
    """
    for part in ("", *parts):
        parent, path = path, path / part
        if not path.is_dir():
            there = (
                sorted(entry.name for entry in parent.iterdir())
                if parent.is_dir()
                else []
            )
            found = (
                f"; {parent} holds {', '.join(there[:20]) or 'nothing'}"
                if parent.is_dir()
                else ""
            )
            raise FileNotFoundError(
                f"path: expected the folder {path}, in the MVTec AD layout{found}"
            )
    return path


def _image_files(folder: Path) -> list[Path]:
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


def _test_samples(path: Path, normal: str) -> list[_Sample]:
    """All test images with their kinds and masks, normal ones first."""
    folders = sorted(
        f
        for f in _folder(path, "test").iterdir()
        if f.is_dir() and not f.name.startswith(".")
    )
    folders.sort(key=lambda folder: folder.name != normal)
    if not folders:
        raise ValueError(
            f"{path / 'test'}: expected folders of images, e.g. {normal}, found none"
        )
    samples = []
    for folder in folders:
        marks = path / "ground_truth" / folder.name
        if folder.name == normal:
            samples += [_Sample(file, "good") for file in _image_files(folder)]
        elif marks.parent.is_dir():
            samples += [
                _Sample(f, folder.name, _mask_of(f, marks))
                for f in _image_files(folder)
            ]
        else:
            samples += [_Sample(file, folder.name) for file in _image_files(folder)]
    return samples


def _mask_of(file: Path, marks: Path) -> Path:
    """The mask of an image, among the files of the folder `marks`."""
    for stem in (f"{file.stem}_mask", file.stem):
        for suffix in SUFFIXES:
            for name in (stem + suffix, stem + suffix.upper()):
                if (marks / name).is_file():
                    return marks / name
    raise ValueError(
        f"{file}: expected its mask {marks / file.stem}_mask.png, found none"
    )


def _draw_validation(images: Tensor, fraction: float, seed: int) -> Tensor:
    """Which of the normal images (N, C, H, W) are for validation: bool (N,)."""
    digests = np.array(
        [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
    )
    n_val = max(1, round(fraction * len(images)))
    drawn = np.random.default_rng(seed).permutation(len(images))[:n_val]
    is_val = np.isin(digests, digests[drawn])
    if is_val.all():
        raise ValueError(
            f"train: expected at least two different images, one for validation, and val_fraction well "
            f"below 1; got {len(images)} images, all of which would be for validation"
        )
    return torch.from_numpy(is_val)


# -- images and their masks


def _read_samples(
    samples: list[_Sample], size: tuple[int, int] | None, crop: int | None
) -> tuple[Tensor, Tensor]:
    """Images float32 (N, C, H, W) and masks bool (N, H, W)."""
    images, masks = [], []
    for sample in samples:
        image = _read_image(sample.file)
        mask = _read_mask(sample, image.shape[1:])
        images.append(
            _crop(
                _resize(image, size, mode="bilinear", antialias=True), crop, sample.file
            )
        )
        masks.append(
            _crop(_resize(mask, size, mode="nearest-exact"), crop, sample.file)[0] > 0
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


def _read_image(file: Path) -> Tensor:
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


def _read_mask(sample: _Sample, shape: tuple[int, int]) -> Tensor:
    """The mask of an image of the given shape (H, W): float32 (1, H, W) of 0 and 1."""
    if sample.mask is None:
        return torch.zeros(1, *shape)
    mask = _read_image(sample.mask)
    if mask.shape[1:] != shape:
        expected, got = _as_text(shape), _as_text(mask.shape[1:])
        raise ValueError(
            f"{sample.mask}: expected the size of {sample.file}, {expected}, got {got}"
        )
    black = (
        0.5 if sample.mask.suffix.lower() in (".jpg", ".jpeg") else 0
    )  # JPEG does not keep black black
    return (mask.amax(dim=0, keepdim=True) > black).float()


def _resize(image: Tensor, size: tuple[int, int] | None, **how: object) -> Tensor:
    """An image (C, H, W), resized; the weights are all positive, but their sum can
    round above 1.
    """
    if size is None or tuple(image.shape[1:]) == size:
        return image
    return interpolate(image[None], size=size, **how)[0].clamp(0, 1)


def _crop(image: Tensor, crop: int | None, file: Path) -> Tensor:
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


# -- benchmarks and their archives


def _find(benchmark: Benchmark, category: str, root: str | os.PathLike | None) -> Path:
    """The folder of a category below the root, after unpacking its archive if there is
    only that.
    """
    root = data_root(root)
    present = [
        name for name in benchmark.categories if _category(benchmark, name, root)
    ]
    on_disk = f"on disk: {', '.join(present) or 'none'}"
    if category not in benchmark.categories:
        known = ", ".join(map(repr, benchmark.categories))
        raise ValueError(
            f"category: expected one of {known} ({on_disk}); got {category!r}"
        )
    if category not in present:
        for archive in _archives(benchmark, category, root):
            unpack(archive, root / benchmark.name)
    found = _category(benchmark, category, root)
    if found is None:
        tried = ", ".join(str(root / folder / category) for folder in benchmark.folders)
        raise FileNotFoundError(
            f"category: {category!r} of {benchmark.name} not found ({on_disk}). Looked for {tried}. "
            f"It is not downloaded: get it from {benchmark.page}, agree to its licence, and "
            f"put it at {root / benchmark.name / category}; or name another folder with root= or ADLAB_DATA."
        )
    return found


def _category(benchmark: Benchmark, category: str, root: Path) -> Path | None:
    folders = (root / folder / category for folder in benchmark.folders)
    return next((folder for folder in folders if (folder / "train").is_dir()), None)


def _archives(benchmark: Benchmark, category: str, root: Path) -> list[Path]:
    """The first archive, if any, that should hold the category."""
    names = [name.format(category=category) for name in benchmark.archives]
    paths = [root / folder / name for name in names for folder in benchmark.folders]
    return [path for path in paths if path.is_file()][:1]


def unpack(archive: str | os.PathLike, destination: str | os.PathLike) -> list[Path]:
    """Unpack an archive (tar, tar.gz, tar.xz, zip) into a folder: all of it, or
    nothing.

    It may hold files and folders only, and none outside itself. All is written to a
    temporary folder beside the destination first, and moved once it is complete.

    Args:
        archive: the file.
        destination: the folder that shall hold what is in it; made if missing, but not
            its parents.

    Returns:
        The paths of the files and folders at the top of the archive.

    Raises:
        FileNotFoundError: no such archive, or no folder to make the destination in.
        ValueError: a damaged or truncated archive; absolute paths, paths with "..",
            links or devices in it; something of the same name in the destination. The
            message names it.
    """
    archive, destination = (
        _check_path("archive", archive),
        _check_path("destination", destination),
    )
    if not archive.is_file():
        raise FileNotFoundError(f"archive: expected a file, found none at {archive}")
    if not destination.parent.is_dir():
        raise FileNotFoundError(
            f"destination: expected a folder at {destination.parent}, found none"
        )
    with TemporaryDirectory(prefix=".unpacking-", dir=destination.parent) as scratch:
        try:
            for name, stream in _members(archive):
                _write(stream, Path(scratch, name))
        except DAMAGED as error:
            raise ValueError(
                f"{archive}: damaged or truncated, nothing is unpacked: {error}"
            ) from error
        return _move(Path(scratch), destination)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """The names and contents (None for a folder) of what is in an archive, once each is
    known to be safe.
    """
    with archive.open("rb") as file:
        is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    if is_zip:
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                _check_member(
                    archive, info.filename, not stat.S_ISLNK(info.external_attr >> 16)
                )
                yield info.filename, None if info.is_dir() else file.open(info)
    else:
        with tarfile.open(archive) as file:
            for info in file:
                _check_member(archive, info.name, info.isfile() or info.isdir())
                yield info.name, None if info.isdir() else file.extractfile(info)
            if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(
                tarfile.BLOCKSIZE
            ):  # an archive ends with zeros
                raise tarfile.ReadError("unexpected end of data")
            while file.fileobj.read(2**20):  # the check sum of the whole comes last
                pass


def _check_member(archive: Path, name: str, is_plain: bool) -> None:
    path = PureWindowsPath(name)  # which takes / and \ for separators, and knows drives
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"{archive}: nothing is unpacked, as {name!r} in it would leave its folder"
        )
    if not is_plain:
        raise ValueError(
            f"{archive}: expected files and folders only, but {name!r} is a link or a device"
        )


def _write(stream: IO[bytes] | None, path: Path) -> None:
    if stream is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with stream, path.open("wb") as file:
        shutil.copyfileobj(stream, file)


def _move(scratch: Path, destination: Path) -> list[Path]:
    """Move all that is in one folder to another, unless something is in the way."""
    entries = sorted(scratch.iterdir())
    for entry in entries:
        if (destination / entry.name).exists():
            raise ValueError(
                f"destination: {destination / entry.name} is in the way, nothing is unpacked"
            )
    destination.mkdir(exist_ok=True)
    return [entry.rename(destination / entry.name) for entry in entries]
