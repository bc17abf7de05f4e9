"""COIL-100: a hundred objects on a turntable, one of them normal, the others not.

The files are `obj<k>__<angle>.png`: object k from 1 to 100, seen every 5 degrees.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from adlab._checks import check_number
from adlab.data.archives import unpack
from adlab.data.folders import data_root, read_splits
from adlab.data.imageset import Splits
from adlab.data.layouts import Sample

OBJECTS = range(1, 101)
FOLDERS = ("coil-100", "coil-100/coil-100", ".")
ARCHIVE = "coil-100.zip"
NAME = re.compile(r"obj(\d+)__\d+\.png")
PAGE = "its page, https://www.cs.columbia.edu/CAVE/software/softlib/coil-100.php"


def coil_100(
    normal_class: int = 1,
    root: str | os.PathLike | None = None,
    size: int | tuple[int, int] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """COIL-100: 7200 RGB photographs, 128 × 128, of 100 objects from 72 sides.

    It is not downloaded: get it from its page, and put the images, or the archive
    coil-100.zip, which is then unpacked, into `root`/coil-100. A fifth of the views of
    the normal object, drawn at random, are for the test, as in the papers, and one view,
    drawn at random, of each other object; the papers take as many anomalies as normal
    images, or say not how many. Source: Nene, Nayar and Murase 1996, "Columbia object
    image library (COIL-100)", technical report CUCS-006-96.

    Args:
        normal_class: number of the normal object, 1 to 100.
        root: folder of all data sets; default as in `adlab.data.folders.data_root`.
        size: (H, W), or one number for both, to which images are resized; None keeps
            128 × 128.
        val_fraction: share of the other normal images that is for validation, in [0,
            1).
        seed: of all draws.

    Returns:
        Splits without masks; kinds are "good" and the names of the objects, e.g.
        "obj7".

    Raises:
        FileNotFoundError: it is not on disk; the message says where to get it and put
            it.
        ValueError, TypeError: an option out of its range, an object that is not there,
            a file that cannot be read.
    """
    check_number("normal_class", normal_class, 1, OBJECTS[-1], whole=True)
    check_number("seed", seed, 0, whole=True)
    views = _find(root)
    if normal_class not in views:
        raise ValueError(
            f"normal_class: expected an object that is on disk, of {len(views)}; got "
            f"{normal_class}"
        )
    rng = np.random.default_rng(seed)
    samples = [Sample(file) for file in views.pop(normal_class)]
    samples += [
        Sample(files[rng.integers(len(files))], f"obj{number}", split="test")
        for number, files in sorted(views.items())
    ]
    return read_splits(samples, size, None, val_fraction, seed, masks=False)


def _find(root: str | os.PathLike | None) -> dict[int, list[Path]]:
    """The files of each object, after unpacking the archive if there is only that."""
    root = data_root(root)
    folders = [root / name for name in FOLDERS]
    if views := _first(folders):
        return views
    archives = [folder / ARCHIVE for folder in folders if (folder / ARCHIVE).is_file()]
    if archives:
        unpack(archives[0], root / FOLDERS[0])
        if views := _first(folders):
            return views
    raise FileNotFoundError(
        f"root: expected the images obj1__0.png to obj100__355.png of COIL-100, or {ARCHIVE}, in "
        f"{', '.join(map(str, folders))}. It is not downloaded: get it from {PAGE}, and put it at "
        f"{folders[0]}; or name another folder with root= or ADLAB_DATA."
    )


def _first(folders: list[Path]) -> dict[int, list[Path]]:
    """The views of the first folder that has any."""
    return next(filter(None, map(_views, folders)), {})


def _views(folder: Path) -> dict[int, list[Path]]:
    """The files of each object that is there, by name."""
    found: dict[int, list[Path]] = {}
    for file in sorted(folder.glob("obj*__*.png")):
        if match := NAME.fullmatch(file.name):
            found.setdefault(int(match[1]), []).append(file)
    return found
