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
        left = "(" if open_low or low == -np.inf else "["
        right = ")" if open_high or high == np.inf else "]"
        interval = f"{left}{low}, {high}{right}"
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
    """Refuse what is neither "auto" nor a device of this machine that knows float64,
    in which most methods compute a part: "mps" does not, and "meta" holds no numbers.
    """
    if device == "auto":
        return
    try:
        torch.empty(0, device=torch.device(device)).to(torch.float64).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f'{name}: expected "auto", "cpu" or a device of this machine with float64, '
            f"got {device!r}"
        ) from error


def as_tensor(name: str, value: object) -> Tensor:
    """Any tensor, array or (nested) list of numbers as a tensor; memory is shared where
    it can be.
    """
    if isinstance(value, Tensor):
        return _as_plain(name, value.detach())
    if isinstance(value, list | tuple):
        value = [
            as_array(name, item) if isinstance(item, Tensor) else item for item in value
        ]
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected a rectangular array, got rows of unequal length"
        ) from error
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: expected a number at every place, got masked ones")
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: expected a tensor or an array of numbers, "
            f"got {type(value).__name__} of {array.dtype}"
        )
    # torch takes no other byte order, and warns of read-only memory
    native = _WIDER.get(array.dtype.name, array.dtype.newbyteorder("="))
    return torch.from_numpy(np.require(array, native, ["C", "W"]))


# types that torch has not, or can hardly compute with, and the next that it can
_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
_WIDER[np.dtype(np.longdouble).name] = "float64"
_WIDER |= {f"float8_{kind}": "float32" for kind in ("e4m3fn", "e5m2")}


def _as_plain(name: str, tensor: Tensor) -> Tensor:
    """A tensor with a real number at each place, of a type that torch computes with."""
    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(
            f"{name}: expected a dense tensor, got one of layout {tensor.layout}"
        )
    if tensor.is_meta:
        raise TypeError(f'{name}: expected numbers, got a tensor of device "meta"')
    wider = _WIDER.get(str(tensor.dtype).removeprefix("torch."))
    return tensor.to(getattr(torch, wider)) if wider else tensor


def as_array(name: str, value: object) -> np.ndarray:
    """The same as an array; what has 16 bits or fewer comes as float32, as NumPy has no
    bfloat16.
    """
    tensor = as_tensor(name, value).cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
        return  # a sum with NaN or an infinity in it is not finite
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ValueError(
            f"{name}: expected finite values, got {bad} that are NaN or infinite"
        )


def check_images(images: object, name: str = "images", least: int = 1) -> Tensor:
    """Images as float32 (N, C, H, W) with C = 1 or 3, N at least `least`, and values in
    [0, 1]. Bytes, 0 to 255, are divided by 255; what rounding left outside of [0, 1] is
    brought back.
    """
    tensor = as_tensor(name, images)
    if tensor.ndim != 4:
        raise ValueError(
            f"{name}: expected shape (N, C, H, W), got {tuple(tensor.shape)}"
        )
    if tensor.shape[1] not in (1, 3):
        raise ValueError(
            f"{name}: expected 1 or 3 channels in (N, C, H, W), got {tuple(tensor.shape)}"
        )
    if len(tensor) < least or 0 in tensor.shape[1:]:
        raise ValueError(
            f"{name}: expected at least one image and one pixel, got {tuple(tensor.shape)}"
        )
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.float32).div_(255)
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name}: expected floating-point values in [0, 1], or bytes (uint8) from 0 "
            f"to 255, got {tensor.dtype}"
        )
    return _within_rounding(name, tensor.to(torch.float32))


def _within_rounding(name: str, tensor: Tensor, tolerance: float = 1e-5) -> Tensor:
    """Values in [0, 1]; those outside by no more than the tolerance become 0 or 1."""
    if not len(tensor):
        return tensor
    low, high = (float(end) for end in tensor.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        _check_finite(name, tensor)
    if low < -tolerance or high > 1 + tolerance:
        raise ValueError(
            f"{name}: expected values in [0, 1], got values from {low:.7g} to {high:.7g}"
        )
    return tensor.clamp(0, 1) if low < 0 or high > 1 else tensor


def check_sides(
    shape: Sequence[int], least: int, words: str = "", name: str = "images"
) -> None:
    """Refuse a shape (…, H, W) of fewer pixels than that along either side; `words` say
    more of the number.
    """
    if min(shape[-2:]) < least:
        raise ValueError(
            f"{name}: expected H, W of at least {words or least}, got {tuple(shape)}"
        )


def check_odd(name: str, value: object, unit: str = "") -> None:
    """Refuse what is no odd positive integer."""
    check_number(name, value, 1, whole=True)
    if value % 2 == 0:
        raise ValueError(f"{name}: expected an odd number{unit}, got {value}")


def check_vectors(vectors: object, name: str = "vectors") -> Tensor:
    """Feature vectors as a finite float (N, D)."""
    tensor = as_tensor(name, vectors)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected a non-empty (N, D), got shape {tuple(tensor.shape)}"
        )
    _check_finite(name, tensor)
    exact = tensor.is_floating_point() and tensor.element_size() >= 4
    return tensor if exact else tensor.to(torch.float32)


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
    array = as_array(name, labels)
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
    array = as_array(name, masks)
    if array.shape != tuple(shape):
        raise ValueError(
            f"{name}: expected shape {tuple(shape)}, as the maps have; got {array.shape}"
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{name}: expected only 0 and 1, got values from {array.min()} to {array.max()}"
        )
    return array.astype(bool, copy=False)


def check_flags(flags: object, name: str, length: int | None = None) -> np.ndarray:
    """Yes-or-no answers as a non-empty bool (N,), from booleans or 1 and 0; `length`
    asks for that N.
    """
    array = as_array(name, flags)
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


def check_classes(labels: object, n: int, n_classes: int) -> Tensor:
    """Classes as int64 (n,), each from 0 to n_classes - 1."""
    tensor = as_tensor("labels", labels).cpu()
    if tensor.shape != (n,):
        raise ValueError(
            f"labels: expected shape ({n},), one class a sample; got {tuple(tensor.shape)}"
        )
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise TypeError(f"labels: expected whole numbers, got {tensor.dtype}")
    if bool((tensor < 0).any()) or bool((tensor >= n_classes).any()):
        raise ValueError(
            f"labels: expected classes from 0 to {n_classes - 1}, "
            f"got from {int(tensor.min())} to {int(tensor.max())}"
        )
    return tensor.long()
