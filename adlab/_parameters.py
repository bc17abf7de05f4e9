"""The arguments of a detector: declared once, each with its type and its default.

    @dataclass(eq=False, repr=False)
    class KNN(VectorDetector):
        n_neighbors: Count = 1

makes the constructor, which checks what it is given by the declared type and stores it
under its own name. A type is a `Literal` of choices, `bool`, or one that carries its
check along: `Annotated[T, check]`, where check(name, value) raises what is wrong.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from adlab._checks import (
    check_choice,
    check_counts,
    check_device,
    check_number,
    check_odd,
)

Count = Annotated[int, partial(check_number, low=1, whole=True)]
TwoOrMore = Annotated[int, partial(check_number, low=2, whole=True)]
Odd = Annotated[int, check_odd]
Whole = Annotated[int, partial(check_number, low=0, whole=True)]
Counts = Annotated[Sequence[int], check_counts]
Positive = Annotated[float, partial(check_number, low=0, open_low=True)]
NonNegative = Annotated[float, partial(check_number, low=0)]
Fraction = Annotated[
    float, partial(check_number, low=0, high=1, open_low=True, open_high=True)
]
Seed = Annotated[int, partial(check_number, low=0, high=2**63 - 1, whole=True)]
Device = Annotated[str | torch.device, check_device]
ImageScore = Literal["max", "mean"]


def check_parameters(instance: Any) -> None:
    """Check every declared argument of an instance; lists among them become tuples.

    Raises:
        TypeError, ValueError: an argument that is not of its declared type.
    """
    for name, hint in _hints(type(instance)).items():
        if name in vars(instance):
            value = getattr(instance, name)
            check_hint(name, value, hint)
            if isinstance(value, list):
                setattr(instance, name, tuple(value))


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def check_hint(name: str, value: object, hint: Any) -> None:
    """Refuse a value that is not of its declared type; of a union, a text is one of its
    literals. A type without a check is left to the class.
    """
    if get_origin(hint) in (Union, types.UnionType):
        members = get_args(hint)
        literals = [m for m in members if get_origin(m) is Literal]
        if value is None and type(None) in members:
            return
        others = [m for m in members if m not in (*literals, type(None))]
        for member in literals if literals and isinstance(value, str) else others:
            check_hint(name, value, member)
    elif get_origin(hint) is Literal:
        check_choice(name, value, get_args(hint))
    elif hint is bool:
        check_choice(name, value, (False, True))
    else:
        for check in getattr(hint, "__metadata__", ()):
            check(name, value)
