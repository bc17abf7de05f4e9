"""Data sets by name: `load("nanofibres")`. Embedded ones need no network and no files."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from adlab._checks import check_choice
from adlab.data.alignment import align
from adlab.data.files import ImageFolder, Reading, read_image
from adlab.data.imageset import ImageSet, Splits, misalign


@dataclass(frozen=True)
class DataSet:
    """What the book says of a data set.

    Args:
        room: the module of this package whose function loads it; it is imported when
            the data are asked for.
        licence: as a person would write it.
        axis: the option that tells its cases apart, "normal_class", "category", "world"
            or "material"; none where there is one case.
        values: the name of its cases in its room; none where they are the classes 0 to 9,
            or categories.
        split_before: whether it comes divided into training and test images of all
            classes, so that training images of an anomalous class are no test images.
        embedded: whether it needs neither network nor files.
    """

    room: str
    licence: str
    axis: str = ""
    values: str = ""
    split_before: bool = False
    embedded: bool = False


_CLASSES = {"room": "public", "axis": "normal_class", "split_before": True}
_OURS = {"licence": "ours, MIT", "embedded": True}
DATA_SETS = {
    "nanofibres": DataSet("nanofibres", **_OURS),
    "wafers": DataSet("wafers", **_OURS),
    "textures": DataSet("textures", "CC0", embedded=True),
    "digits": DataSet("digits", "CC BY 4.0", "normal_class", embedded=True),
    "gaussian-field": DataSet("gaussian_field", **_OURS),
    "worlds": DataSet("worlds", axis="world", values="WORLDS", **_OURS),
    "materials": DataSet("materials", axis="material", values="MATERIALS", **_OURS),
    "mnist": DataSet(licence="CC BY-SA 3.0", **_CLASSES),
    "fashion-mnist": DataSet(licence="MIT", **_CLASSES),
    "kmnist": DataSet(licence="CC BY-SA 4.0", **_CLASSES),
    "cifar10": DataSet(licence="none stated", **_CLASSES),
    "coil-100": DataSet(
        "coil", "non-commercial research", "normal_class", values="OBJECTS"
    ),
    "mvtec-ad": DataSet("folders", "CC BY-NC-SA 4.0", "category"),
    "btad": DataSet("folders", "see the owner's page", "category"),
    "kolektor-sdd": DataSet("kolektor", "CC BY-NC-SA 4.0"),
}
EMBEDDED = tuple(name for name, data_set in DATA_SETS.items() if data_set.embedded)
PUBLIC = tuple(name for name in DATA_SETS if name not in EMBEDDED)

__all__ = [
    "DATA_SETS",
    "EMBEDDED",
    "PUBLIC",
    "ImageFolder",
    "ImageSet",
    "Reading",
    "Splits",
    "align",
    "cases",
    "from_folder",
    "load",
    "loader",
    "misalign",
    "read_image",
    "unpack",
]


def load(name: str, **options: object) -> Splits:
    """Load a data set by name.

    Args:
        name: one of `EMBEDDED` (generated, or shipped with scikit-image and
            scikit-learn) or `PUBLIC`.
        **options: of that data set, see its own function, e.g. `seed=`,
        `normal_class=`, `category=`.

    Returns:
        Splits of train, val (normal images only) and test.

    Raises:
        ValueError: an unknown name (the message lists the known ones) or option value.
        TypeError: an option that this data set has not, or a missing one that it needs.
        FileNotFoundError: a public data set that is neither on disk nor to be
            downloaded.
    """
    make = loader(name)
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            listed = ", ".join(known)
            raise TypeError(
                f"options of {name!r}: expected some of {listed}; got {option!r}"
            )
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise TypeError(f"options of {name!r}: expected {option}=, got none")
    return make(**options)


def loader(name: str) -> Callable[..., Splits]:
    """The function that loads the data set of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    check_choice("name", name, DATA_SETS)
    return getattr(_room(name), name.replace("-", "_"))


def _room(name: str) -> ModuleType:
    return importlib.import_module(f"adlab.data.{DATA_SETS[name].room}")


def cases(name: str) -> tuple[str, Sequence[object]]:
    """The option that tells the cases of a data set apart, and its values; an empty
    name where there is one case.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    check_choice("name", name, DATA_SETS)
    axis = DATA_SETS[name].axis
    if axis == "category":
        from adlab.data.folders import BENCHMARKS

        return axis, BENCHMARKS[name].categories
    if DATA_SETS[name].values:
        return axis, tuple(getattr(_room(name), DATA_SETS[name].values))
    return axis, range(10) if axis else ()


def from_folder(path: object, **options: object) -> Splits:
    """One's own images, see `adlab.data.folders.from_folder`."""
    from adlab.data.folders import from_folder as read

    return read(path, **options)


def unpack(archive: object, destination: object) -> list:
    """Unpack a tar or zip archive safely, see `adlab.data.archives.unpack`."""
    from adlab.data.archives import unpack as extract

    return extract(archive, destination)
