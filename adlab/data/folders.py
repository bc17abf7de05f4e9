"""Images in folders: one's own, and the public benchmarks MVTec AD and BTAD."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlab._checks import check_choice, check_number
from adlab.data.archives import check_path, unpack
from adlab.data.files import Reading, count_channels, read_image, read_mask
from adlab.data.imageset import ImageSet, Splits
from adlab.data.layouts import NORMAL, Sample, find_samples

TEST_FRACTION = 0.2  # of the normal images, where the layout has no split
SPLITS = ("train", "val", "test")


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
    layout: str = "auto",
    masks: bool = True,
) -> Splits:
    """One's own images, in one of the layouts of `adlab.data.layouts`.

    Images are grey, (N, 1, H, W), if all of them are, and else RGB, (N, 3, H, W). They
    are turned upright, transparency is dropped, and 16 bits a pixel are kept. A mask is
    true where it is not black, or has an alpha above zero, or a palette's number above
    zero, whichever marks some pixels and not all; a JPEG or WebP, above half its
    maximum. Files with other suffixes, hidden ones, and what systems leave
    (`__MACOSX`, `Thumbs.db`) are not read, nor are anomalies outside of the test.

    Args:
        path: the folder, or a table of files.
        size: (H, W), or one number for both, to which images are resized (bilinear,
            antialiased; masks nearest); None keeps the size, which must then be the
            same for all.
        crop: side of the square that is then cut from the middle; None for the whole
            image.
        val_fraction: share of the normal training images that is drawn for validation,
            in [0, 1); if above 0, at least one image. Copies of a validation image go
            with it, so that none is trained on. With 0, val is empty. Not looked at
            where the layout has a part for validation.
        seed: of that draw, and, in a layout without a test part, of the fifth of the
            normal images that is drawn for it.
        layout: its name, or "auto" to see which it is.
        masks: False where they shall not be read.

    Returns:
        Splits with the kinds of anomalies by the names of their folders: first "good",
        then the others by name. Masks are None where no anomaly has one.

    Warns:
        UserWarning: a test without normal images; masks that are empty, become so by
            size and crop, or mark nearly all; a validation part more than twice its
            share, because of copies; files of several pages; masks beside normal
            images.

    Raises:
        FileNotFoundError: a folder is not there; the message says what is.
        ValueError, TypeError: an option out of its range, images of different sizes, an
            image that cannot be read, a mask that is missing or of another size, no
            images. The message names the file or folder.
    """
    path = check_path("path", path)
    Reading(size, crop)  # refuses them before files are looked for
    check_choice("masks", masks, (True, False))
    samples = find_samples(path, layout)
    return read_splits(samples, size, crop, val_fraction, seed, masks)


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
    return from_folder(
        _find(MVTEC_AD, category, root), size, crop, val_fraction, seed, "mvtec"
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
    return from_folder(
        _find(BTAD, category, root), size, crop, val_fraction, seed, "mvtec"
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


# -- samples as splits


def read_splits(
    samples: list[Sample],
    size: int | tuple[int, int] | None,
    crop: int | None,
    val_fraction: float,
    seed: int,
    masks: bool = True,
) -> Splits:
    """Read samples, and draw what is not yet divided.

    All images are read into one tensor, and each part is a stretch of it: there is no
    second copy of them.
    """
    check_number("val_fraction", val_fraction, 0, 1, open_high=True)
    check_number("seed", seed, 0, whole=True)
    samples = [s for s in samples if s.kind == "good" or s.split in ("", "test")]
    if not any(sample.kind == "good" for sample in samples):
        raise ValueError(
            f"path: expected normal images, which are called {', '.join(NORMAL)}; got "
            f"{', '.join(sorted({s.kind for s in samples})) or 'no images'}"
        )
    reading = Reading(size, crop, count_channels(sample.file for sample in samples))
    images, shapes = _read_images(samples, reading)
    splits = _draw(images, samples, val_fraction, seed)
    order = np.argsort([SPLITS.index(split) for split in splits], kind="stable")
    _reorder(images, order)
    n_train, n_val, n_test = (int((splits == name).sum()) for name in SPLITS)
    train, val, test = images.split([n_train, n_val, n_test])
    tests = order[n_train + n_val :]
    return Splits(
        ImageSet(train, reading=reading),
        ImageSet(val, reading=reading),
        _test_set(
            test,
            [samples[i] for i in tests],
            [shapes[i] for i in tests],
            reading,
            masks,
        ),
    )


def _read_images(
    samples: list[Sample], reading: Reading
) -> tuple[Tensor, list[torch.Size]]:
    """Images (N, C, H, W), and the (H, W) that each has in its file."""
    images, shapes = torch.empty(0), []
    for i, (file, *_) in enumerate(samples):
        image = read_image(file)
        shapes.append(image.shape[1:])
        image = reading.apply(image, file)
        if not i:
            images = torch.empty(len(samples), *image.shape)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"size: expected (H, W) or one number, as the images differ: "
                f"{samples[0].file} is {_as_text(images.shape[2:])} and {file} is "
                f"{_as_text(image.shape[1:])}; got {reading.size}"
            )
        images[i] = image
    return images, shapes


def _as_text(shape: Sequence[int]) -> str:
    return f"{shape[0]}×{shape[1]}"


def _draw(
    images: Tensor, samples: list[Sample], val_fraction: float, seed: int
) -> np.ndarray:
    """The names of the splits, (N,): those that samples have, or are drawn."""
    rng = np.random.default_rng(seed)
    splits = np.array([s.split if s.kind == "good" else "test" for s in samples], "U5")
    fresh = np.flatnonzero(splits == "")
    if len(fresh):
        is_test = _drawn(images, fresh, TEST_FRACTION, rng)
        splits[fresh] = np.where(is_test, "test", "train")
    if val_fraction and not (splits == "val").any():
        train = np.flatnonzero(splits == "train")
        splits[train[_drawn(images, train, val_fraction, rng)]] = "val"
    return splits


def _drawn(
    images: Tensor, rows: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Which of the rows are drawn, bool (n,); copies of a drawn image go with it."""
    digests = np.array([hashlib.sha256(images[i].numpy()).hexdigest() for i in rows])
    n_drawn = max(1, round(fraction * len(rows)))
    chosen = np.isin(digests, digests[rng.permutation(len(rows))[:n_drawn]])
    if chosen.all():
        raise ValueError(
            f"train: expected at least two different images, one for validation, and val_fraction well "
            f"below 1; got {len(rows)} images, all of which would be for validation"
        )
    if chosen.sum() > 2 * n_drawn:
        warnings.warn(
            f"val_fraction: {n_drawn} of {len(rows)} normal images were to be held out, "
            f"but {chosen.sum()} are, as copies of an image go with it",
            stacklevel=2,
        )
    return chosen


def _reorder(rows: Tensor, order: np.ndarray) -> None:
    """Make rows[order] of rows, in place: one cycle of the order after the other."""
    source = order.tolist()
    for start in range(len(source)):
        first, row = rows[start].clone(), start
        while source[row] != start:
            rows[row] = rows[source[row]]
            source[row], row = row, source[row]
        rows[row], source[row] = first, row


def _test_set(
    images: Tensor,
    samples: list[Sample],
    shapes: list[torch.Size],
    reading: Reading,
    wanted: bool,
) -> ImageSet:
    kinds = [sample.kind for sample in samples]
    if kinds and "good" not in kinds:
        warnings.warn(
            f"test: no normal images (called {', '.join(NORMAL)}), so all {len(kinds)} "
            "are taken as anomalous",
            stacklevel=2,
        )
    masks = None
    if wanted and any(sample.masks for sample in samples):
        masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        _read_masks(masks, samples, shapes, reading)
    labels = np.array([kind != "good" for kind in kinds])
    return ImageSet(images, labels, masks, kinds, reading)


def _read_masks(
    masks: Tensor, samples: list[Sample], shapes: list[torch.Size], reading: Reading
) -> None:
    """Fill masks (N, H, W), and warn of those that look wrong."""
    empty, cut, full = [], [], []
    for mask, sample, shape in zip(masks, samples, shapes, strict=True):
        if sample.kind == "good":
            continue
        whole = _whole_mask(sample, shape)
        mask[:] = reading.apply_to_mask(whole, sample.file)
        if not whole.any():
            empty.append(sample)
        elif not mask.any():
            cut.append(sample)
        elif whole.float().mean() > 0.9:
            full.append(sample)
    _warn_of(empty, "mark no pixel")
    _warn_of(cut, f"mark no pixel after size={reading.size} and crop={reading.crop}")
    _warn_of(full, "mark more than 90 % of the image, as if white were its ground")


def _whole_mask(sample: Sample, shape: torch.Size) -> Tensor:
    """The masks of an image, of the given shape (H, W), as one."""
    if not (sample.masks and all(file.is_file() for file in sample.masks)):
        raise ValueError(
            f"{sample.file}: expected its mask, e.g. "
            f"{sample.masks[0] if sample.masks else 'as other images have one'}, found "
            "none; masks=False reads no masks"
        )
    whole = torch.zeros(shape, dtype=torch.bool)
    for file in sample.masks:
        mask = read_mask(file)
        if mask.shape != shape:
            raise ValueError(
                f"{file}: expected the size of {sample.file}, {_as_text(shape)}, got "
                f"{_as_text(mask.shape)}"
            )
        whole |= mask
    return whole


def _warn_of(samples: list[Sample], what: str) -> None:
    if samples:
        warnings.warn(
            f"masks: {len(samples)} of anomalous images {what}, the first is "
            f"{samples[0].masks[0]}",
            stacklevel=2,
        )


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
