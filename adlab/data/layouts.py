"""Layouts of images on disk: what each file shows, where its masks lie, and its split.

"mvtec", of MVTec AD, and of BTAD, MVTec LOCO AD, MPDD and many more::

    train/good/*                           normal images
    test/good/*, test/<kind>/*             normal images, and anomalies of each kind
    ground_truth/<kind>/<name>_mask.png    where the anomaly of test/<kind>/<name> is

A mask may also be `ground_truth/<kind>/<name>.png`, be several in a folder
`ground_truth/<kind>/<name>/`, or lie beside its image, as `<name>_mask.png`. A folder
`val/good` is for validation, where there is one.

- "good-bad", without a split, which is drawn: `good/*`, `<kind>/*`, and masks as above.
- "kolektor-sdd2", of KolektorSDD2: `train/*` and `test/*`, with a mask
  `<name>_GT.png` beside each, which says what is defective.
- "visa", of VisA: the folder of one object, beside the folder `split_csv`.
- "csv": a table of files with the columns `image`, `label`, and if wanted `mask` and
  `split` (train, val, test). Paths start at the folder of the table. A label is 0 or 1,
  or the name of a kind.

Normal images are in folders, or have labels, that are called good, ok, okay, normal,
nominal, pass, healthy, defect_free or no_defect. In all names of folders, upper or lower
case does not matter, nor does the end `_mask`, `_masks`, `_label`, `_gt` or `_seg` of
the name of a mask. A file whose name is that of an image beside it with such an end is
a mask, never an image.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from adlab._checks import check_choice
from adlab.data.files import (
    MASK_FOLDERS,
    MASK_NAME,
    apart,
    image_files,
    is_hidden,
    is_image,
    read_mask,
    stem_of,
    without_masks,
)

NORMAL = (
    *("good", "ok", "okay", "normal", "nominal", "pass", "healthy"),
    *("defect_free", "no_defect"),
)
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "test_public"),
}
TO_FIT = (
    "To fit a detector, normal images in any folder are enough: "
    "adlab.data.ImageFolder(folder)"
)


class Sample(NamedTuple):
    """An image to be read, what it shows, where its masks lie, and its split."""

    file: Path
    kind: str = "good"
    masks: tuple[Path, ...] = ()  # none: nothing is anomalous, or nobody has marked it
    split: str = ""  # none: it is drawn


# -- names


def _plain(name: str) -> str:
    """A name as it is compared: "No Defect" is "no_defect"."""
    return re.sub("[ -]", "_", unicodedata.normalize("NFC", name).casefold())


def _folders(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_dir() and not is_hidden(f.name))


def _named(path: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders in a folder, if that is one, that have one of the names."""
    folders = _folders(path) if path.is_dir() else []
    return [folder for folder in folders if _plain(folder.name) in names]


def _needed(path: Path, names: tuple[str, ...]) -> list[Path]:
    """The same; where there is none, the error says what there is instead."""
    found = _named(path, names)
    if not found:
        raise FileNotFoundError(
            f"path: expected the folder {path / names[0]}; {_listing(path)}. {TO_FIT}"
        )
    return found


def _listing(path: Path) -> str:
    """What is in a folder, for a message."""
    names = sorted(entry.name for entry in path.iterdir())
    listed = ", ".join(names[:20]) + ", …" * (len(names) > 20)
    return f"{path} holds {listed or 'nothing'}"


# -- images and their masks


def _masks_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The masks in a folder of `ground_truth`, by the names of their images."""
    entries = [
        entry
        for entry in sorted(folder.iterdir())
        if is_image(entry, folder) or (entry.is_dir() and not is_hidden(entry.name))
    ]
    masks = {
        stem_of(e): (e,) if e.is_file() else tuple(image_files(e)) for e in entries
    }
    ends = {stem: MASK_NAME.fullmatch(stem) for stem in masks}
    return masks | {end[1]: masks[stem] for stem, end in ends.items() if end}


def _samples(folder: Path, split: str, marks: list[Path]) -> list[Sample]:
    """The images in a folder, with the masks of its kind in the folders `marks`, or
    beside them.
    """
    if _plain(folder.name) in NORMAL:
        return [Sample(f, split=split) for f in without_masks(image_files(folder))]
    files, masks = apart(image_files(folder))
    for part in marks:
        for inner in _named(part, (_plain(folder.name),)):
            masks |= _masks_in(inner)
    for file in files if marks else ():  # which are missed when they are read
        usual = marks[0] / folder.name / f"{file.stem}_mask.png"
        masks.setdefault(stem_of(file), (usual,))
    return [Sample(f, folder.name, masks.get(stem_of(f), ()), split) for f in files]


# -- layouts


def _mvtec(path: Path) -> list[Sample]:
    train = _needed(path, SPLITS["train"])
    val = _named(path, SPLITS["val"])
    test = _needed(path, SPLITS["test"])
    marks = [mark for part in (path, *test) for mark in _named(part, MASK_FOLDERS)]
    found = [
        ("train", [good for part in train for good in _needed(part, NORMAL)]),
        ("val", [good for part in val for good in _named(part, NORMAL)]),
        ("test", [kind for part in test for kind in _kinds(part)]),
    ]
    return [
        sample
        for split, folders in found
        for folder in folders
        for sample in _samples(folder, split, marks)
    ]


def _good_bad(path: Path) -> list[Sample]:
    marks = _named(path, MASK_FOLDERS)
    return [s for folder in _kinds(path) for s in _samples(folder, "", marks)]


def _kinds(path: Path) -> list[Path]:
    """The folders of images; the one of masks is none of them."""
    marks = _named(path, MASK_FOLDERS)
    kinds = [folder for folder in _folders(path) if folder not in marks]
    if not kinds:
        raise ValueError(
            f"{path}: expected folders of images, e.g. good, found none; {_listing(path)}"
        )
    return kinds


def _kolektor_sdd2(path: Path) -> list[Sample]:
    samples = []
    for split in ("train", "test"):
        for folder in _needed(path, SPLITS[split]):
            files, masks = apart(image_files(folder))
            samples += [by_mask(file, masks, split) for file in files]
    return samples


def by_mask(file: Path, masks: dict[str, tuple[Path, ...]], split: str = "") -> Sample:
    """An image that is defective if its mask says so."""
    if stem_of(file) not in masks:
        raise ValueError(f"{file}: expected its mask beside it, found none")
    (mask,) = masks[stem_of(file)]
    return (
        Sample(file, "defect", (mask,), split)
        if read_mask(mask).any()
        else Sample(file, split=split)
    )


def _visa(path: Path) -> list[Sample]:
    path = path.resolve()  # "." has no name
    table = path.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise FileNotFoundError(
            f"path: expected the table of VisA, {table}, found none"
        )
    rows = [row for row in _rows(table) if row.get("object") == path.name]
    return [_of_row(row, table, path.parent) for row in rows]


def _csv(path: Path) -> list[Sample]:
    return [_of_row(row, path, path.parent) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file, whose columns are divided by commas, semicolons or tabs."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
        file.seek(0)
        table = csv.DictReader(file, delimiter=max(",;\t", key=head.count))
        rows = [{_plain(k): v or "" for k, v in r.items() if k} for r in table]
    if not rows or not {"image", "label"} <= set(rows[0]):
        raise ValueError(
            f"{path}: expected rows with the columns image and label, got {head!r}"
        )
    return rows


def _of_row(row: dict[str, str], table: Path, start: Path) -> Sample:
    label, split = row["label"], _plain(row.get("split", ""))
    normal = _plain(label) in (*NORMAL, "0")
    known = [name for name, names in SPLITS.items() if split in names]
    if not label or not row["image"] or (split and not known):
        raise ValueError(
            f"{table}: expected an image, a label, and train, val or test where a split "
            f"is given, got {row}"
        )
    kind = "good" if normal else {"1": "anomaly"}.get(label, label)
    image, mask = (row.get(k, "").replace("\\", "/") for k in ("image", "mask"))
    masks = (start / mask,) if mask and not normal else ()
    return Sample(start / image, kind, masks, *known)


LAYOUTS: dict[str, Callable[[Path], list[Sample]]] = {
    **dict.fromkeys(("mvtec", "btad", "loco"), _mvtec),
    "good-bad": _good_bad,
    "kolektor-sdd2": _kolektor_sdd2,
    "visa": _visa,
    "csv": _csv,
}


def find_samples(path: Path, layout: str = "auto") -> list[Sample]:
    """The images at a path, normal ones first, then anomalies by their kinds.

    Args:
        path: a folder, or a table of files.
        layout: one of `LAYOUTS`, or "auto" to see which it is.

    Raises:
        FileNotFoundError: nothing there, or a folder is missing; the message says what
            there is.
        ValueError: an unknown layout, or none that is recognised; folders without
            images; a table without its columns.
    """
    check_choice("layout", layout, ("auto", *LAYOUTS))
    is_table = path.is_file() and path.suffix.lower() == ".csv"
    fits = is_table if layout == "csv" else path.is_dir()
    if not (fits or (is_table and layout == "auto")):
        raise FileNotFoundError(f"path: expected the folder {path}, or a *.csv")
    samples = LAYOUTS[_recognise(path) if layout == "auto" else layout](path)
    return sorted(samples, key=lambda sample: (sample.kind != "good", sample.kind))


def _recognise(path: Path) -> str:
    """The one layout that the entries of a folder fit."""
    if path.is_file():
        return "csv"
    train = _named(path, SPLITS["train"])
    fits = {
        "mvtec": any(_named(folder, NORMAL) for folder in train),
        "kolektor-sdd2": any(apart(_loose(folder))[1] for folder in train),
        "visa": (path / "Data" / "Images").is_dir(),
        "good-bad": bool(_named(path, NORMAL)),
    }
    found = [name for name, fit in fits.items() if fit]
    if len(found) == 1:
        return found[0]
    if train and not found:
        _needed(train[0], NORMAL)
    raise FileNotFoundError(
        f"path: expected one layout of {', '.join(fits)}, e.g. train/good, test/good and "
        f"test/<kind>; {_listing(path)}, which is {' and '.join(found) or 'none'}. {TO_FIT}"
    )


def _loose(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if is_image(file, folder)]
