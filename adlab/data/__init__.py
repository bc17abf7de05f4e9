"""Data sets by name: `load("nanofibres")`. Embedded ones need no network and no files."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

from adlab._checks import check_choice
from adlab.data.imageset import ImageSet, Splits, misalign

# name -> (module of this package, function); a module is imported when its data is
# asked for
_LOADERS = {
    "nanofibres": ("nanofibres", "nanofibres"),
    "wafers": ("wafers", "wafers"),
    "textures": ("textures", "textures"),
    "digits": ("digits", "digits"),
    "gaussian-field": ("gaussian_field", "gaussian_field"),
    "mnist": ("public", "mnist"),
    "fashion-mnist": ("public", "fashion_mnist"),
    "kmnist": ("public", "kmnist"),
    "cifar10": ("public", "cifar10"),
    "mvtec-ad": ("folders", "mvtec_ad"),
    "btad": ("folders", "btad"),
    "kolektor-sdd": ("kolektor", "kolektor_sdd"),
}
EMBEDDED = ("nanofibres", "wafers", "textures", "digits", "gaussian-field")
PUBLIC = tuple(name for name in _LOADERS if name not in EMBEDDED)

__all__ = [
    "EMBEDDED",
    "PUBLIC",
    "ImageSet",
    "Splits",
    "from_folder",
    "load",
    "loader",
    "misalign",
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
    check_choice("name", name, _LOADERS)
    module, function = _LOADERS[name]
    return getattr(importlib.import_module(f"adlab.data.{module}"), function)


def from_folder(path: object, **options: object) -> Splits:
    """One's own images in the MVTec AD layout, see `adlab.data.folders.from_folder`."""
    from adlab.data.folders import from_folder as read

    return read(path, **options)


def unpack(archive: object, destination: object) -> list:
    """Unpack a tar or zip archive safely, see `adlab.data.folders.unpack`."""
    from adlab.data.folders import unpack as extract

    return extract(archive, destination)
