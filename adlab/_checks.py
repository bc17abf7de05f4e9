"""Checks of arguments: every public function refuses bad input at its own door.

Each check returns its argument in the one form that the rest of the package works with,
or raises an error that names the argument, what was expected and what came.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def check_choice(name: str, value: object, known: Iterable[object]) -> None:
    """Refuse a value that is not among the known ones; the message lists them."""
    known = list(known)
    if value not in known:
        listed = ", ".join(repr(item) for item in known)
        raise ValueError(f"{name}: expected one of {listed}; got {value!r}")


def check_number(
    name: str,
    value: object,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    whole: bool = False,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuse what is not a number in the interval (an end is excluded where `open_`
    says so).
    """
    kind = "an integer" if whole else "a number"
    types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, types):
        raise TypeError(
            f"{name}: expected {kind}, got {type(value).__name__} {value!r}"
        )
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if below or above or not -np.inf < value < np.inf:
        interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name}: expected {kind} in {interval}, got {value!r}")


def check_counts(
    name: str, values: object, high: float = np.inf, *, empty: bool = False
) -> None:
    """Refuse what is not a sequence of positive integers, each at most `high`."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(
            f"{name}: expected a sequence of integers, got {type(values).__name__}"
        )
    if not values and not empty:
        raise ValueError(f"{name}: expected at least one integer, got none")
    for value in values:
        check_number(name, value, 1, high, whole=True)


def check_device(name: str, device: object) -> None:
    """Refuse what is neither "auto" nor a device of this machine."""
    if device == "auto":
        return
    try:
        torch.empty(0, device=torch.device(device)).cpu()  # "meta" holds no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f'{name}: expected "auto", "cpu" or a device of this machine, got {device!r}'
        ) from error


def as_tensor(name: str, value: object) -> Tensor:
    """Any tensor, array or (nested) list of numbers as a tensor; memory is shared where
    it can be.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, list | tuple):
        value = [
            item.detach().cpu().numpy() if isinstance(item, Tensor) else item
            for item in value
        ]
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected a rectangular array, got rows of unequal length"
        ) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: expected a tensor or an array of numbers, got {type(value).__name__}"
        )
    native = array.dtype.newbyteorder(
        "="
    )  # torch takes no other order, and warns of read-only memory
    return torch.from_numpy(np.require(array, native, ["C", "W"]))


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(
            f"{name}: expected finite values, got {bad} that are NaN or infinite"
        )


def check_images(images: object, name: str = "images") -> Tensor:
    """Images as float32 (N, C, H, W) with C = 1 or 3 and values in [0, 1]."""
    tensor = as_tensor(name, images)
    if tensor.ndim != 4:
        raise ValueError(
            f"{name}: expected shape (N, C, H, W), got {tuple(tensor.shape)}"
        )
    if tensor.shape[1] not in (1, 3):
        raise ValueError(
            f"{name}: expected 1 or 3 channels in (N, C, H, W), got {tuple(tensor.shape)}"
        )
    if tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected at least one image and one pixel, got {tuple(tensor.shape)}"
        )
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name}: expected floating-point values in [0, 1], got {tensor.dtype}"
        )
    _check_finite(name, tensor)
    low, high = float(tensor.min()), float(tensor.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"{name}: expected values in [0, 1], got values from {low:.4g} to {high:.4g}"
        )
    return tensor.to(torch.float32)


def check_vectors(vectors: object, name: str = "vectors") -> Tensor:
    """Feature vectors as a finite float (N, D)."""
    tensor = as_tensor(name, vectors)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected a non-empty (N, D), got shape {tuple(tensor.shape)}"
        )
    _check_finite(name, tensor)
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)


def check_scores(scores: object, name: str = "scores", ndim: int = 1) -> np.ndarray:
    """Scores (or a map, `ndim=2`, or maps, `ndim=3`) as a finite, non-empty float64
    array; higher = more anomalous.
    """
    array = as_tensor(name, scores).cpu().to(torch.float64).numpy()
    if array.ndim != ndim or array.size == 0:
        expected = {1: "(N,)", 2: "(H, W)", 3: "(N, H, W)"}[ndim]
        raise ValueError(
            f"{name}: expected a non-empty {expected}, got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"{name}: expected finite values, got {bad} that are NaN or infinite"
        )
    return array


def check_labels(
    labels: object, length: int, name: str = "labels", *, both: bool = False
) -> np.ndarray:
    """Labels as bool (N,), from 0 (normal) and 1 (anomalous); `both` asks for at least
    one of each.
    """
    array = as_tensor(name, labels).cpu().numpy()
    if array.shape != (length,):
        raise ValueError(
            f"{name}: expected shape ({length},), one label a score; got {array.shape}"
        )
    values = np.unique(array)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{name}: expected only 0 (normal) and 1 (anomalous), got {values[:5].tolist()}"
        )
    if both and len(values) < 2:
        raise ValueError(
            f"{name}: expected both classes, 0 and 1; got only {values.tolist()}"
        )
    return array.astype(bool)


def check_masks(
    masks: object, shape: tuple[int, ...], name: str = "masks"
) -> np.ndarray:
    """Masks as bool (N, H, W) of the given shape, from values 0 and 1."""
    array = as_tensor(name, masks).cpu().numpy()
    if array.shape != tuple(shape):
        raise ValueError(
            f"{name}: expected shape {tuple(shape)}, as the maps have; got {array.shape}"
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{name}: expected only 0 and 1, got values from {array.min()} to {array.max()}"
        )
    return array.astype(bool)


def check_flags(flags: object, name: str, length: int | None = None) -> np.ndarray:
    """Yes-or-no answers as a non-empty bool (N,), from booleans or 1 and 0; `length`
    asks for that N.
    """
    array = as_tensor(name, flags).cpu().numpy()
    if array.ndim != 1 or array.size == 0 or len(array) != (length or len(array)):
        raise ValueError(
            f"{name}: expected shape ({length or 'N'},) and not empty, got shape {array.shape}"
        )
    values = np.unique(array)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{name}: expected only True and False (or 1 and 0), got {values[:5].tolist()}"
        )
    return array.astype(bool)
