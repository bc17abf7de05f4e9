"""A detector of a method, made from its name and its options."""

from __future__ import annotations

import hashlib
import inspect
import math
from pathlib import Path

from torch import nn

from adlab import backbones
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
        weights: a safetensors file for its backbone, see `with_weights`.
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
        options |= with_weights(options["backbone"], weights, options.get("layers"))
    return method.make(**options, seed=seed, device=device)


def with_weights(
    backbone: str, file: Path, layers: list[str] | None = None
) -> dict[str, object]:
    """The options `backbone` and `layers` for a network of torchvision with weights from
    a file, where the usual download does not answer.

    Args:
        backbone: its name, as "resnet18".
        file: safetensors, with the keys of torchvision; what lies behind the last layer
            to be read may be missing.
        layers: to be read; None for the usual ones.

    Raises:
        ValueError: another name, keys that the network has not, or missing ones that
            are needed.
        FileNotFoundError: no such file.
    """
    from safetensors.torch import load_file
    from torchvision.models import get_model, get_model_weights

    known = [name for name in backbones.LAYERS if name != "texnet"]
    check_choice("backbone", backbone, known)
    if not file.is_file():
        raise FileNotFoundError(f"weights: expected a safetensors file, got {file}")
    network = get_model(backbone, weights=None)
    layers = list(layers or backbones.LAYERS[backbone])
    missing, unknown = network.load_state_dict(load_file(file), strict=False)
    parts = [name for name, _ in network.named_children()]
    last = max(parts.index(layer.partition(".")[0]) for layer in layers)
    needed = [key for key in missing if parts.index(key.partition(".")[0]) <= last]
    if unknown or needed:
        raise ValueError(
            f"weights: expected those of {backbone} in {file}, "
            f"got unknown keys {unknown[:3]}, and missing ones {needed[:3]}"
        )
    how = get_model_weights(backbone).IMAGENET1K_V1.transforms()
    normalize = backbones.Normalize(how.mean, how.std)
    return {
        "backbone": nn.Sequential(normalize, network),
        "layers": [f"1.{layer}" for layer in layers],
    }


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
