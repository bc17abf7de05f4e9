"""A fitted localizer as an ONNX model, which is run without torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from adlab._module import WithScore, as_module
from adlab.detector import Localizer
from adlab.training import resolve_device

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OLDEST = (2, 9)  # torch 2.6 cannot yet write batch norms, or bilinear enlargement
TOLERANCE, ROUNDING = 1e-4, 1e-5  # of onnxruntime, see `tolerance`
LIMIT = 2**31  # bytes: one ONNX file holds fewer


def convert(localizer: Localizer, shape: Sequence[int] | None = None) -> bytes:
    """The content of an ONNX file, see `Localizer.export`, which says what it raises."""
    check_installed()
    localizer = _on_the_cpu(localizer)
    module = as_module(localizer, WithScore, shape)
    _check_size(module)
    images = _examples(shape or localizer.input_shape_)
    some = images, images[:1]
    try:
        content = _trace(module, images)
        results = [run(content, each) for each in some]
    except Exception as error:
        raise RuntimeError(
            f"export: expected a detector that ONNX has a form for, got {localizer!r}: "
            f"{_reason(error)}"
        ) from error
    for each, result in zip(some, results, strict=True):
        _check_agreement(localizer, each, result)
    return content


def run(content: bytes, images: Tensor) -> list[np.ndarray]:
    """Maps and scores by onnxruntime, on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["map", "score"], {"images": images.numpy()})


def check_installed() -> None:
    """Refuse to begin where something is missing, and say how to get it."""
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if version < OLDEST:
        raise ImportError(
            f"export: expected torch {'.'.join(map(str, OLDEST))} or newer, "
            f"got {torch.__version__}"
        )
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"export: expected {', '.join(NEEDED)}, got no {', '.join(missing)}; "
            'pip install "adlab[onnx]"'
        )


def _on_the_cpu(localizer: Localizer) -> Localizer:
    """Where onnxruntime computes, or a copy there: other devices round otherwise."""
    if resolve_device(localizer.device).type == "cpu":
        return localizer
    return copy.deepcopy(localizer).to("cpu")


def _check_size(module: nn.Module) -> None:
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    if size >= LIMIT:
        raise RuntimeError(
            f"export: expected a detector of less than {LIMIT / 1e9:.2g} GB, as one "
            f"ONNX file holds, got {size / 1e9:.2g} GB"
        )


def _examples(shape: Sequence[int]) -> Tensor:
    """Three images to trace with, and to compare: noise of ever less contrast."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, *shape, generator=generator) - 0.5
    return 0.5 + noise * torch.tensor([1, 0.5, 0.1]).view(3, 1, 1, 1)


def _trace(module: nn.Module, images: Tensor) -> bytes:
    """The module as a protobuf; the number of images is free."""
    with torch.no_grad():
        traced = torch.export.export(
            module,
            (images,),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            strict=False,
        )
        program = torch.onnx.export(
            traced,
            dynamic_shapes=({0: "batch"},),
            input_names=["images"],
            output_names=["map", "score"],
            dynamo=True,
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def _reason(error: BaseException) -> str:
    """What was at the root of an error, without the advice around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _check_agreement(
    localizer: Localizer, images: Tensor, results: Sequence[np.ndarray]
) -> None:
    """Refuse maps that are not the detector's, and scores."""
    expected = localizer.anomaly_map(images), localizer.anomaly_score(images)
    for name, got, own in zip(("map", "score"), results, expected, strict=True):
        gap = float(np.abs(got - own.numpy()).max())
        if not gap <= tolerance(own):
            raise RuntimeError(
                f"export: expected the {name} of onnxruntime to be that of {localizer!r} "
                f"to {tolerance(own):.2g}, got one that is {gap:.2g} away"
            )


def tolerance(values: Tensor) -> float:
    """1e-4 of the range of maps (B, H, W), or of the largest score (B,); but at least
    1e-5 of the largest value, as float32 rounds, and a map may hardly vary.
    """
    largest = float(values.abs().max())
    spread = float(values.max() - values.min()) if values.ndim == 3 else largest
    return max(TOLERANCE * spread, ROUNDING * largest)
