"""A detector of a method, made from its name and its options."""

from __future__ import annotations

import hashlib
import inspect
import math
from pathlib import Path

from torch import nn

from adlab._checks import check_choice
from adlab._methods import Method, methods
from adlab.detector import Detector


def options_of(method: Method) -> dict[str, object]:
    """The options of a method, each with its default."""
    parameters = inspect.signature(method.make).parameters
    known = {name: each.default for name, each in parameters.items()}
    return {name: known[name] for name in known if name not in ("seed", "device")}


def make_detector(
    name: str,
    options: dict[str, object],
    weights: Path | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """The detector of a method.

    Args:
        name: one of `adlab.bench.methods.methods()`.
        options: of the method, beside those that it has by default.
        weights: a file for its backbone, see `adlab.backbones.Backbone`.
        seed, device: as of every detector.

    Raises:
        ValueError, TypeError: an unknown method or option, a value out of its range,
            weights that do not fit.
        FileNotFoundError: no such file of weights.
    """
    check_choice("method", name, methods())
    method = methods()[name]
    known = options_of(method)
    for option in options:
        if option not in known:
            raise TypeError(
                f"option of {name!r}: expected some of {', '.join(known)}; got {option!r}"
            )
    options = method.options | options
    if weights is not None:
        if "backbone" not in known:
            raise ValueError(
                f"weights: expected a method with a backbone, got {name!r}"
            )
        options |= {"backbone": f"{options['backbone']}:{weights}"}
    return method.make(**options, seed=seed, device=device)


def digest_of_file(file: Path) -> str:
    """The first twelve digits of the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def count_numbers(detector: Detector) -> int:
    """How many numbers a fitted detector consists of: the parameters of its networks,
    and all that it has learned or remembers.
    """
    arguments, total = detector._params(), 0
    for name, value in vars(detector).items():
        if name in arguments:
            continue
        if isinstance(value, nn.Module):
            total += sum(p.numel() for p in value.parameters())
        elif isinstance(value, Detector):
            total += count_numbers(value)
        elif name.endswith("_") and hasattr(value, "shape"):
            total += math.prod(value.shape)
    return total
