"""The tables of results: CSV files, one a data set, that only grow."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

COLUMNS = (
    *("method", "settings", "data", "data_options", "seed"),
    *("image_auroc", "average_precision", "best_f1", "pixel_auroc", "pro"),
    *("accuracy", "oscr", "fpr95"),
    *("n_train", "n_test", "digest"),
    *("fit_seconds", "score_seconds", "peak_memory_mb", "parameters"),
    *("device", "versions", "date", "commit"),
)
KEY = COLUMNS[:5]
DIGITS = {"fit_seconds": 1, "score_seconds": 2, "peak_memory_mb": 0}  # of others, 4


def results_folder() -> Path:
    """Where results are read from: `book/results` of the repository, or what of it was
    installed with the package.
    """
    package = Path(__file__).parents[1]
    inside = package.parent / "book" / "results"
    return inside if inside.is_dir() else package / "results"


def as_text(options: dict[str, object]) -> str:
    """Options as one cell of a table: JSON, in a fixed order."""
    return json.dumps(options, sort_keys=True)


def digest(*tensors: Tensor | None) -> str:
    """The first twelve digits of the SHA-256 of all values; None is passed over."""
    sha = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            sha.update(tensor.contiguous().numpy())
    return sha.hexdigest()[:12]


def append(file: Path, rows: Iterable[dict[str, object]]) -> None:
    """Add rows to a table, which is made if there is none.

    The table is written whole under another name, which then takes its place; so it is
    never half written. A lock keeps two runs from writing at once, and is gone with the
    process that holds it.

    Raises:
        ValueError: a column that is not known; a file that is no such table.
    """
    from filelock import FileLock

    rows = [formatted(row) for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*read(file), *rows])
        temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            temporary.write_text(text.getvalue(), encoding="utf-8")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def formatted(row: dict[str, object]) -> dict[str, str]:
    """The cells of a row, as they are written.

    Raises:
        ValueError: a column that is not known.
    """
    for name in row:
        if name not in COLUMNS:
            raise ValueError(
                f"row: expected columns among {', '.join(COLUMNS)}; got {name!r}"
            )
    return {
        name: f"{value:.{DIGITS.get(name, 4)}f}"
        if isinstance(value, float)
        else str(value)
        for name, value in row.items()
    }


def read(file: Path) -> list[dict[str, str]]:
    """The rows of a table, none if there is no file.

    Raises:
        ValueError: it has not the columns of such a table.
    """
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{file}: expected a table with the columns {', '.join(COLUMNS)}; "
                f"got {', '.join(reader.fieldnames or ())}"
            )
        return list(reader)


def is_present(file: Path, key: dict[str, str]) -> bool:
    """Whether a table has a row of that run."""
    return any(all(row[n] == key[n] for n in KEY) for row in read(file))
