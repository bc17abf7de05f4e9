"""What the book says of a method, declared where the method is written:

    @method("padim", "PaDiM", chapter=7, options={"backbone": "texnet"})
    @dataclass(eq=False, repr=False)
    class PaDiM(Localizer):

From it follow the names of the benchmark, the order of every table and figure, and the
tests that hold every method to the contract of detectors.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

Make = TypeVar("Make", bound=Callable)


@dataclass(frozen=True)
class Method:
    """A method as it was declared, see `method`."""

    name: str
    title: str
    chapter: int
    make: Callable
    options: Mapping[str, object] = field(default_factory=dict)
    labelled: float = 0.0
    labelled_kinds: int = 1
    masks: bool = False
    task: str = "detection"


_DECLARED: dict[str, Method] = {}


def method(
    name: str, title: str, chapter: int, **more: object
) -> Callable[[Make], Make]:
    """Declare what is decorated, a detector's class or a function that makes one.

    Args:
        name: on the command line and in the tables of results.
        title: for people.
        chapter: that teaches it.
        **more: `options`, those that a result states though they are at their default;
            `labelled`, of a semi-supervised method: the share of labelled anomalies
            among what it learns from; `labelled_kinds`, of how many other classes
            these are, or `masks`, if these are test images with masks; `task`,
            "detection" or "open-set".
    """

    def declare(make: Make) -> Make:
        _DECLARED[name] = Method(name, title, chapter, make, **more)
        return make

    return declare


def methods() -> dict[str, Method]:
    """All methods by name, in the order of the chapters: those of the package, and
    those of a reader's own that have been declared so far.
    """
    import adlab

    for package in (adlab, importlib.import_module("adlab.bench")):
        for room in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not room.ispkg and not room.name.endswith("__main__"):
                importlib.import_module(room.name)
    return {
        each.name: each
        for each in sorted(_DECLARED.values(), key=lambda m: (m.chapter, m.name))
    }
