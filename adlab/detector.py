"""The protocol of all detectors: fit on normal images, score any image, save and load.

image ──▶ detector (background model ─▶ anomaly score / anomaly map) ──▶ decision rule
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from adlab._checks import check_choice, check_images
from adlab._parameters import Count, Device, Seed, check_parameters
from adlab.training import resolve_device, seeded, single_precision, stream, train

if TYPE_CHECKING:
    from typing_extensions import Self

_CLASSES: dict[str, type[Detector]] = {}


def _name(cls: type[Detector]) -> str:
    return f"{cls.__module__}.{cls.__name__}"


@dataclass(eq=False, repr=False, kw_only=True)
class Detector:
    """A background model learned from normal images, and the anomaly score it gives to
    any image.

    A detector of one's own subclasses this and writes two methods: `_fit(images)`
    learns, and keeps what it learned in attributes that end in `_` (tensors, networks,
    detectors, or numbers, strings and lists); `_score(batch)` maps a batch (B, C, H, W)
    to scores (B,), higher = more anomalous. The constructor only checks and stores its
    arguments, under their own names: either a dataclass declares them, or an `__init__`
    stores them and calls `super().__init__(seed=seed, device=device)`.

    Args:
        seed: of all that is drawn at random.
        device: see `adlab.training.resolve_device`.
        batch_size: images at a time, in training and in scoring.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names it.
    """

    seed: Seed = 0
    device: Device = "auto"
    batch_size: Count = 64
    takes_vectors = False  # True where feature vectors (N, D) will do as well as images
    any_size = False  # True where images of another height and width than the training images' will do
    _check = staticmethod(check_images)

    def __post_init__(self) -> None:
        check_parameters(self)
        self._check_arguments()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        _CLASSES[_name(cls)] = cls

    # -- what a user calls

    def fit(self, images: object, y: None = None) -> Self:
        """Learn from normal images.

        Args:
            images: (N, C, H, W) in [0, 1], as tensor, array, ImageSet, torch Dataset or
                DataLoader.
            y: not looked at; for scikit-learn, which may hand over labels.

        Returns:
            The detector itself. Should fitting fail, it stays as it was.

        Raises:
            TypeError, ValueError: images of another type, shape or range.
        """
        fresh = copy.copy(self)
        fresh.__dict__ = {
            name: value for name, value in vars(self).items() if not name.endswith("_")
        }
        with seeded(self.seed), single_precision():
            fresh._fit(images)
        self.__dict__ = {
            # laid out as a file gives it back: sums in another order round otherwise
            name: value.contiguous() if isinstance(value, Tensor) else value
            for name, value in vars(fresh).items()
        }
        return self

    def anomaly_score(self, images: object) -> Tensor:
        """Score images.

        Args:
            images: as for `fit`, of the same shape as the training images.

        Returns:
            float32 (N,), higher = more anomalous.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._score, images)

    def score_samples(self, images: object) -> np.ndarray:
        """The score by the sign of scikit-learn: (N,), lower = more anomalous."""
        return -self.anomaly_score(images).numpy()

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """The arguments by name, as scikit-learn asks for them.

        Args:
            deep: those of a detector among them too, as "detector__seed".
        """
        found = self._params()
        for name, value in list(found.items()) if deep else ():
            if isinstance(value, Detector):
                inside = value.get_params()
                found |= {f"{name}__{key}": inside[key] for key in inside}
        return found

    def set_params(self, **params: object) -> Self:
        """Change arguments by name; what was learned stays until `fit` is called again.

        Args:
            **params: as `get_params` names them.

        Raises:
            TypeError, ValueError: an argument that the detector has not, or out of its
                range; nothing is changed then.
        """
        own: dict[str, object] = {}
        for name, value in params.items():
            name, _, rest = name.partition("__")
            check_choice("params", name, self._names())
            if rest:
                inside = own.get(name, getattr(self, name))
                value = copy.copy(inside).set_params(**{rest: value})
            own[name] = value
        checked = type(self)(**self._params() | own)
        vars(self).update(checked._params())
        return self

    def __sklearn_tags__(self) -> object:
        """What scikit-learn must know: an outlier detector, of images or vectors."""
        from sklearn.base import BaseEstimator, OutlierMixin

        class Like(OutlierMixin, BaseEstimator):
            """It says of itself what a detector of scikit-learn's own says."""

        return Like().__sklearn_tags__()

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "input_shape_")

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted detector to one safetensors file, read back by
        `adlab.load_detector`.

        Raises:
            NotFittedError: `fit` was not called.
            FileNotFoundError: the folder of `path` does not exist.
            IsADirectoryError: `path` is itself a folder.
            TypeError: arguments that no file can hold, as a network of one's own.
        """
        from safetensors.torch import save

        self._check_fitted()
        path = check_destination(path)
        config, tensors = _pack(self)
        content = save(tensors, {"adlab": json.dumps(config, default=_plain)})
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def __repr__(self) -> str:
        """The class with the arguments that are not at their default."""
        parameters = inspect.signature(type(self)).parameters
        given = {
            name: value
            for name, value in self._params().items()
            if value != parameters[name].default
        }
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{type(self).__name__}({arguments})"

    # -- what a method writes

    def _fit(self, images: object) -> None:
        raise NotImplementedError

    def _score(self, batch: Tensor) -> Tensor:
        raise NotImplementedError

    def _check_arguments(self) -> None:
        """Refuse arguments that are each of their type, but do not go together."""

    def _build(self) -> None:
        """Make the networks anew; into those whose names end in `_` the saved weights
        are loaded.
        """

    # -- what a method calls

    def _stream(self, images: object) -> Iterator[Tensor]:
        """Checked batches on the device; all must have the shape of the first image
        ever seen.
        """
        device = resolve_device(self.device)
        for batch in stream(images, self.batch_size, self._check):
            shape = list(batch.shape[1:])
            if not hasattr(self, "input_shape_"):
                self.input_shape_ = shape
            ends = 1 if self.any_size else len(shape)
            if (
                len(shape) != len(self.input_shape_)
                or shape[:ends] != self.input_shape_[:ends]
            ):
                expected = ", ".join(map(str, ["N", *self.input_shape_]))
                raise ValueError(
                    f"images: expected shape ({expected}), got {tuple(batch.shape)}"
                )
            yield batch.to(device)

    def _optimise(
        self,
        network: nn.Module,
        loss: Callable[[Tensor], Tensor],
        images: object,
        **options: object,
    ) -> list[float]:
        """`adlab.training.train` with the detector's own epochs, batch_size, lr,
        weight_decay, seed and device, as far as it has them; `options` come first.
        """
        names = ("epochs", "batch_size", "lr", "weight_decay", "seed", "device")
        own = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return train(network, loss, images, **own | options)

    def _apply(self, function: Callable[[Tensor], Tensor], images: object) -> Tensor:
        self._check_fitted()
        with torch.no_grad(), seeded(self.seed), single_precision():
            return torch.cat(
                [function(batch).float().cpu() for batch in self._stream(images)]
            )

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                f"detector: expected a fitted one, got {self!r}; call fit(images) first"
            )

    @classmethod
    def _names(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def _params(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self._names()}


class Localizer(Detector):
    """A detector that also says where: it writes `_map(batch)`, (B, C, H, W) to maps
    (B, H, W).
    """

    image_score: str = "max"

    def anomaly_map(self, images: object) -> Tensor:
        """Score every pixel.

        Args:
            images: as for `fit`.

        Returns:
            float32 (N, H, W), higher = more anomalous.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._map, images)

    def _map(self, batch: Tensor) -> Tensor:
        raise NotImplementedError

    def _score(self, batch: Tensor) -> Tensor:
        """The image's score: the `image_score` ("max" or "mean") of its map."""
        check_choice("image_score", self.image_score, ("max", "mean"))
        pixels = self._map(batch).flatten(1)
        return pixels.amax(1) if self.image_score == "max" else pixels.mean(1)


def check_destination(path: str | os.PathLike) -> Path:
    """Refuse a path where no file can be written; before long work, not after it."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"path: expected a file in an existing folder, got {path}"
        )
    if path.is_dir():
        raise IsADirectoryError(f"path: expected a file, got the folder {path}")
    return path


def load_detector(path: str | os.PathLike) -> Detector:
    """Read a detector that `Detector.save` wrote. No code is run from the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of a detector, damaged, or of a class that is not known
            here.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"path: expected a file written by Detector.save, got {path}, where there is none"
        )
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["adlab"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _unpack(config, tensors)
    except (
        SafetensorError,
        AttributeError,
        KeyError,
        TypeError,
        RuntimeError,
        json.JSONDecodeError,
    ) as error:
        raise ValueError(
            f"path: expected a file written by Detector.save, got {path}, which is damaged or something else"
        ) from error


def _pack(detector: Detector) -> tuple[dict, dict[str, Tensor]]:
    """A detector as JSON-able configuration and named tensors; detectors inside it come
    along.
    """
    config = {
        "class": _name(type(detector)),
        "params": detector._params(),
        "values": {},
        "detectors": {},
    }
    tensors: dict[str, Tensor] = {}
    learned = {
        name: value for name, value in vars(detector).items() if name.endswith("_")
    }
    for name, value in (config["params"] | learned).items():
        if isinstance(value, Detector):
            config["detectors"][name], inner = _pack(value)
            config["params"].pop(name, None)
            tensors |= {f"{name}.{key}": tensor for key, tensor in inner.items()}
        elif isinstance(value, nn.Module):
            tensors |= {
                f"{name}.{key}": tensor for key, tensor in value.state_dict().items()
            }
        elif isinstance(value, Tensor):
            tensors[name] = value
        elif name in learned:
            config["values"][name] = value
    return config, {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in tensors.items()
    }


def _unpack(config: dict, tensors: dict[str, Tensor]) -> Detector:
    def inside(name: str) -> dict[str, Tensor]:
        return {
            key[len(name) + 1 :]: tensor
            for key, tensor in tensors.items()
            if key.startswith(f"{name}.")
        }

    inner = {
        name: _unpack(part, inside(name)) for name, part in config["detectors"].items()
    }
    cls = _find_class(config["class"])
    params = config["params"] | {
        name: part for name, part in inner.items() if name in cls._names()
    }
    params = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in params.items()
    }
    device = _device_here(params)
    detector = cls(**params)
    plain = {
        name: tensor.to(device, copy=True)  # aligned in memory as what was fitted
        for name, tensor in tensors.items()
        if "." not in name
    }
    vars(detector).update(config["values"] | plain | inner)
    if detector.__sklearn_is_fitted__():
        with seeded(0), single_precision():  # to draw what is overwritten at once
            detector._build()
    for name, value in vars(detector).items():
        if isinstance(value, nn.Module):
            if name.endswith("_"):
                value.load_state_dict(inside(name))
            value.to(device).eval()
    return detector


def _device_here(params: dict[str, object]) -> torch.device:
    """The device that the detector was made for, or "auto" where this machine has none
    like it.
    """
    try:
        return resolve_device(params.get("device", "auto"))
    except ValueError:
        params["device"] = "auto"
        return resolve_device()


def _plain(value: object) -> object:
    """For JSON, which knows neither NumPy's numbers nor torch's devices."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device):
        return str(value)
    raise TypeError(
        f"detector: expected arguments that a file can hold, got {type(value).__name__}"
    )


def _find_class(name: str) -> type[Detector]:
    """The class of that name: of adlab, or of a module of the reader's own that is
    imported already.
    """
    if name not in _CLASSES and name.startswith("adlab."):
        with contextlib.suppress(ImportError):
            importlib.import_module(name.rpartition(".")[0])
    if name not in _CLASSES:
        raise ValueError(
            f"path: expected a detector of a known class, got {name}; import its module first"
        )
    return _CLASSES[name]
