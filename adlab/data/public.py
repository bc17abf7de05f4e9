"""Public data sets of small images, one class against the rest: MNIST and its kin, and
CIFAR-10.

torchvision reads them, and downloads what is not on disk. The normal class of the
training split is for training and validation; the whole test split, with all classes,
is the test. As a tenth of it is normal, average precision and F1 look high whatever the
detector; the AUROC does not depend on that share.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from adlab._checks import check_choice, check_number
from adlab.data.folders import data_root
from adlab.data.imageset import ImageSet, Splits

DIGITS = tuple("0123456789")
CLOTHES = tuple(datasets.FashionMNIST.classes)
KANA = tuple(datasets.KMNIST.classes)
TIMEOUT = 20  # seconds until a silent host counts as out of reach
THINGS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def mnist(
    normal_class: int | str = 0,
    root: str | os.PathLike | None = None,
    download: bool = True,
    n_val: int = 500,
    seed: int = 0,
) -> Splits:
    """MNIST: handwritten digits, 28 × 28, grey. LeCun, Cortes and Burges, 1998 (CC
    BY-SA 3.0).

    Args:
        normal_class: its number, 0 to 9, or its name, e.g. "7".
        root: folder of all data sets; default as in `adlab.data.folders.data_root`.
        download: whether to download files that are missing; if all are on disk, the
            network is not touched.
        n_val: how many normal training images are for validation, drawn at random.
        seed: of that draw.

    Returns:
        Splits with images (N, 1, 28, 28), no masks, and the names of the classes as
        kinds, or "good".

    Raises:
        FileNotFoundError: files are neither on disk nor to be downloaded; the message
            says what to do.
        ValueError, TypeError: an option out of its range, or a damaged file, which the
            message names.
    """
    return _one_vs_rest(
        datasets.MNIST, DIGITS, normal_class, root, download, n_val, seed
    )


def fashion_mnist(
    normal_class: int | str = 0,
    root: str | os.PathLike | None = None,
    download: bool = True,
    n_val: int = 500,
    seed: int = 0,
) -> Splits:
    """Fashion-MNIST: ten kinds of clothes, 28 × 28, grey. Xiao, Rasul and Vollgraf,
    2017 (MIT).

    Arguments, result and errors as of `mnist`; class names as "T-shirt/top" or "Ankle
    boot".
    """
    return _one_vs_rest(
        datasets.FashionMNIST, CLOTHES, normal_class, root, download, n_val, seed
    )


def kmnist(
    normal_class: int | str = 0,
    root: str | os.PathLike | None = None,
    download: bool = True,
    n_val: int = 500,
    seed: int = 0,
) -> Splits:
    """Kuzushiji-MNIST: ten cursive Japanese characters, 28 × 28, grey. Clanuwat et al.,
    2018 (CC BY-SA 4.0).

    Arguments, result and errors as of `mnist`; class names as "o" or "ki".
    """
    return _one_vs_rest(
        datasets.KMNIST, KANA, normal_class, root, download, n_val, seed
    )


def cifar10(
    normal_class: int | str = 0,
    root: str | os.PathLike | None = None,
    download: bool = True,
    n_val: int = 500,
    seed: int = 0,
) -> Splits:
    """CIFAR-10: photographs of ten kinds of things, 32 × 32, RGB. Krizhevsky, 2009 (no
    licence stated).

    Arguments, result and errors as of `mnist`, but images (N, 3, 32, 32); class names
    as "airplane".
    """
    return _one_vs_rest(
        datasets.CIFAR10, THINGS, normal_class, root, download, n_val, seed
    )


def _one_vs_rest(
    source: type,
    names: tuple[str, ...],
    normal_class: int | str,
    root: str | os.PathLike | None,
    download: bool,
    n_val: int,
    seed: int,
) -> Splits:
    normal = _class_number(normal_class, names)
    check_choice("download", download, (False, True))
    check_number("n_val", n_val, 1, whole=True)
    check_number("seed", seed, 0, whole=True)
    root = data_root(root)
    _provide(source, root, download)
    known = source(root, train=True)
    rows = np.flatnonzero(np.asarray(known.targets) == normal)
    check_number("n_val", n_val, 1, len(rows) - 1, whole=True)
    rows = np.random.default_rng(seed).permutation(rows)
    val, train = (
        ImageSet(_as_images(known.data[np.sort(part)]))
        for part in (rows[:n_val], rows[n_val:])
    )
    return Splits(train, val, _test_set(source(root, train=False), names, normal))


def _test_set(
    new: datasets.VisionDataset, names: tuple[str, ...], normal: int
) -> ImageSet:
    targets = np.asarray(new.targets)
    kinds = ["good" if target == normal else names[target] for target in targets]
    return ImageSet(_as_images(new.data), labels=targets != normal, kinds=kinds)


def _class_number(normal_class: int | str, names: tuple[str, ...]) -> int:
    if isinstance(normal_class, str):
        check_choice("normal_class", normal_class, names)
        return names.index(normal_class)
    check_number("normal_class", normal_class, 0, len(names) - 1, whole=True)
    return normal_class


def _as_images(data: Tensor | np.ndarray) -> Tensor:
    """Bytes (N, H, W) or (N, H, W, 3) as float32 (N, C, H, W) in [0, 1]."""
    data = torch.as_tensor(data)
    channels_first = data[:, None] if data.ndim == 3 else data.permute(0, 3, 1, 2)
    return channels_first.to(torch.float32).contiguous() / 255


def _provide(source: type, root: Path, download: bool) -> None:
    """See to it that the files of a data set of torchvision are on disk and whole."""
    _check_whole(source, root)
    if _missing(source, root):
        outcome = (
            _download(source, root) if download else "not tried, as download=False"
        )
        _check_whole(source, root)
    if missing := _missing(source, root):
        names, folder = ", ".join(file.name for file in missing), missing[0].parent
        raise FileNotFoundError(
            f"{source.__name__}: {names} not found in {folder}, and the download was {outcome}. Copy the "
            f"files there, or name the folder that holds {folder.relative_to(root)} with root= or ADLAB_DATA."
        )


def _missing(source: type, root: Path) -> list[Path]:
    return [file for file in _files(source, root) if not file.is_file()]


def _check_whole(source: type, root: Path) -> None:
    """Refuse a file that is there, but not as it should be."""
    for file, md5 in _files(source, root).items():
        if file.is_file() and not (
            check_integrity(file, md5) if md5 else _is_whole_idx(file)
        ):
            raise ValueError(
                f"{file}: damaged, or not downloaded to its end; delete it and load again"
            )


def _files(source: type, root: Path) -> dict[Path, str | None]:
    """The files that torchvision reads, with their MD5 sums where it knows them."""
    if issubclass(source, datasets.CIFAR10):
        listed = [
            *source.train_list,
            *source.test_list,
            (source.meta["filename"], source.meta["md5"]),
        ]
        return {root / source.base_folder / name: md5 for name, md5 in listed}
    return {
        root / source.__name__ / "raw" / Path(name).stem: None
        for name, _ in source.resources
    }


def _download(source: type, root: Path) -> str:
    """Let torchvision download, and check, what is missing; the answer tells whether
    and why it failed.
    """
    made = [folder for folder in _first(source, root).parents if not folder.exists()]
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        source(root, download=True)
    except (RuntimeError, OSError, HTTPException) as error:
        return f"tried and failed ({type(error).__name__}: {str(error).strip()})"
    finally:
        socket.setdefaulttimeout(patience)
        _remove_if_empty(made)
    return "incomplete"


def _first(source: type, root: Path) -> Path:
    return next(iter(_files(source, root)))


def _remove_if_empty(made: list[Path]) -> None:
    """Remove the folders, the innermost first, that torchvision made before it asked
    the network, where nothing came.
    """
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def _is_whole_idx(file: Path) -> bool:
    """Whether a file in the IDX format of MNIST is as long as its header says."""
    with file.open("rb") as stream:
        header = stream.read(4)
        if (
            len(header) < 4 or header[:3] != b"\0\0\x08"
        ):  # two zeros, then the code of bytes
            return False
        sides = stream.read(4 * header[3])
    if len(sides) < 4 * header[3]:
        return False
    shape = struct.unpack(f">{header[3]}I", sides)
    return file.stat().st_size == 4 + len(sides) + int(np.prod(shape))
