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

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlab._checks import check_number
from adlab.data.archives import check_path, unpack
from adlab.data.files import (
    SUFFIXES,
    Reading,
    Sample,
    check_sizes,
    image_files,
    read_samples,
)
from adlab.data.imageset import ImageSet, Splits


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
        check_path("path", path), "good", size, crop, val_fraction, seed
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
        return check_path("root", root)
    if os.environ.get("ADLAB_DATA"):
        return Path(os.environ["ADLAB_DATA"]).expanduser()
    usual = {
        "darwin": "~/Library/Caches",
        "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"),
    }
    cache = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache")
    return Path(cache).expanduser() / "adlab"


# -- the layout of folders


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
    size, crop = check_sizes(size, crop)
    check_number("val_fraction", val_fraction, 0, 1, open_low=True, open_high=True)
    check_number("seed", seed, 0, whole=True)
    train = [
        Sample(file, "good") for file in image_files(_folder(path, "train", normal))
    ]
    test = _test_samples(path, normal)
    images, masks = read_samples(train + test, size, crop)
    normals = images[: len(train)]
    is_val = draw_validation(normals, val_fraction, seed)
    kinds = [sample.kind for sample in test]
    reading = Reading(size, crop, images.shape[1])
    test_set = ImageSet(
        images[len(train) :],
        labels=np.array([kind != "good" for kind in kinds]),
        masks=masks[len(train) :] if (path / "ground_truth").is_dir() else None,
        kinds=kinds,
        reading=reading,
    )
    train_set, val_set = (
        ImageSet(normals[part], reading=reading) for part in (~is_val, is_val)
    )
    return Splits(train_set, val_set, test_set)


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


def _test_samples(path: Path, normal: str) -> list[Sample]:
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
            samples += [Sample(file, "good") for file in image_files(folder)]
        elif marks.parent.is_dir():
            samples += [
                Sample(f, folder.name, _mask_of(f, marks)) for f in image_files(folder)
            ]
        else:
            samples += [Sample(file, folder.name) for file in image_files(folder)]
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


def draw_validation(images: Tensor, fraction: float, seed: int) -> Tensor:
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
