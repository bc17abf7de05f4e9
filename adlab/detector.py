"""The protocol of all detectors: fit on normal images, score any image, save and load.

image ──▶ detector (background model ─▶ anomaly score / anomaly map) ──▶ decision rule
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import importlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from adlab._checks import check_choice, check_images, check_sides
from adlab._parameters import Count, Device, Seed, check_parameters
from adlab.data.files import ImageFolder, Reading
from adlab.data.imageset import ImageSet
from adlab.training import (
    joined,
    minimise,
    resolve_device,
    seeded,
    single_precision,
    stream,
    train,
)

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1  # of the files that detectors are saved to
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
    _constants = None  # by name; a dict in the detector of a module, see `_constant`

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
                DataLoader; or files: a folder, one file, or a list of them.
            y: not looked at; for scikit-learn, which may hand over labels.

        Returns:
            The detector itself. Should fitting fail, it stays as it was.

        Raises:
            TypeError, ValueError: images of another type, shape or range.
            FileNotFoundError: no such folder or file, or no image in the folder.
        """
        images = self._read(images)
        fresh = copy.copy(self)
        fresh.__dict__ = {
            name: value for name, value in vars(self).items() if not name.endswith("_")
        }
        with seeded(self.seed), single_precision():
            fresh._fit(images)
        if reading := reading_of(images):
            fresh.reading_ = dataclasses.asdict(reading)
        self.__dict__ = {
            # laid out as a file gives it back: sums in another order round otherwise
            name: value.contiguous() if isinstance(value, Tensor) else value
            for name, value in vars(fresh).items()
        }
        return self

    def anomaly_score(self, images: object) -> Tensor:
        """Score images.

        Args:
            images: as for `fit`, of the same shape as the training images. Files are
                read, resized and cropped as the training images were, if these came
                from files too: by `adlab.data.from_folder` or `ImageFolder`.

        Returns:
            float32 (N,), higher = more anomalous.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
            FileNotFoundError: no such folder or file, or no image in the folder.
            FloatingPointError: a score is NaN or infinite, as arguments far out of the
                usual make it.
        """
        return self._check_finite(self._apply(self._score, images))

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

    @property
    def reading(self) -> Reading | None:
        """The way in which it reads files. It is that of the training images, or one with
        as many channels as these have; None before `fit`, and where it learned vectors.
        """
        if hasattr(self, "reading_"):
            return Reading(**self.reading_)
        images = len(getattr(self, "input_shape_", [])) == 3
        return Reading(channels=self.input_shape_[0]) if images else None

    def to(self, device: str | torch.device) -> Self:
        """Move all that was learned, and compute there from now on.

        Networks and detectors among the arguments stay where they are.

        Args:
            device: as the argument of that name.

        Returns:
            The detector itself.

        Raises:
            ValueError: no device of that name, or none on this machine.
        """
        target = resolve_device(device)

        def move(part: Any, _: str) -> object:
            return part.to(device if isinstance(part, Detector) else target)

        moved = {
            name: over_parts(value, move)
            for name, value in vars(self).items()
            if name not in self._names()
        }
        vars(self).update(moved, device=device)
        return self

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted detector to one safetensors file, read back by
        `adlab.load_detector`.

        Raises:
            NotFittedError: `fit` was not called.
            FileNotFoundError: the folder of `path` does not exist.
            IsADirectoryError: `path` is itself a folder.
            TypeError: arguments that no file can hold, as a network of one's own.
            FloatingPointError: what was learned is not finite.
        """
        from safetensors.torch import save

        self._check_fitted()
        path = check_destination(path)
        config, tensors = _pack(self)
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise FloatingPointError(
                    f"detector: expected finite numbers, got {name} with NaN or infinite ones"
                )
        text = json.dumps(config, default=_plain)
        digest = _digest(text, tensors)
        header = {"format": FORMAT, "sha256": digest, "detector": text}
        write_whole(path, save(tensors, {"adlab": json.dumps(header)}))

    def __repr__(self) -> str:
        """The class with the arguments that are not at their default; of a network among
        them its class.
        """
        parameters = inspect.signature(type(self)).parameters
        given = {
            name: value
            for name, value in self._params().items()
            if value != parameters[name].default
        }
        arguments = ", ".join(
            f"{name}={type(value).__name__ if isinstance(value, nn.Module) else repr(value)}"
            for name, value in given.items()
        )
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

    def _read(self, images: object) -> object:
        """Files as images, read as the training images were; all else as it is."""
        files = images if isinstance(images, list | tuple) else [images]
        if not files or not all(isinstance(f, str | os.PathLike) for f in files):
            return images
        folder = files[0] if os.path.isdir(files[0]) else files
        return ImageFolder(folder, reading=self.reading)

    def _stream(self, images: object) -> Iterator[Tensor]:
        """Checked batches on the device; all must have the shape of the first image
        ever seen.
        """
        device = resolve_device(self.device)
        for batch in stream(images, self.batch_size, self._check):
            if not hasattr(self, "input_shape_"):
                self.input_shape_ = list(batch.shape[1:])
            self._check_shape(batch)
            yield self._prepare(batch.to(device))

    def _check_sides(self, images: object, least: int, words: str = "") -> None:
        """Refuse images of fewer pixels along a side; all, before a training begins."""
        for batch in self._stream(images):
            check_sides(batch.shape, least, words)

    def _as_dataset(self, images: object) -> Dataset:
        """Images that can be read again and again, and one by one."""
        if isinstance(images, Dataset) and not isinstance(images, IterableDataset):
            return images
        return TensorDataset(joined(batch.cpu() for batch in self._stream(images)))

    def _check_shape(self, batch: Tensor) -> None:
        """Refuse what has not the shape of the first image ever seen."""
        shape = list(batch.shape[1:])
        ends = 1 if self.any_size else len(shape)
        if (
            len(shape) != len(self.input_shape_)
            or shape[:ends] != self.input_shape_[:ends]
        ):
            expected = ", ".join(map(str, ["N", *self.input_shape_]))
            raise ValueError(
                f"images: expected shape ({expected}), got {tuple(batch.shape)}"
            )

    def _prepare(self, batch: Tensor) -> Tensor:
        """What `_fit`, `_score` and `_map` get of a checked batch."""
        return batch

    def _constant(self, name: object, make: Callable[[], Tensor]) -> Tensor:
        """What is drawn, or computed, to score with, and is the same for all images.

        `make` is called each time, with the detector's seed; but of a module only once,
        before it is traced: a trace would draw it anew for every batch, and holds few
        operations of linear algebra.
        """
        constants = {} if self._constants is None else self._constants
        if name not in constants:
            with seeded(self.seed):
                constants[name] = make()
            if type(constants[name]) is not Tensor:  # but a stand-in of a trace
                raise RuntimeError(
                    f"module: expected images of the size it was made for, got {name!r} "
                    "of another; make it by module(shape)"
                )
        return constants[name]

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
        (result,) = self._apply_all(lambda batch: (function(batch),), images)
        return result

    def _apply_all(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], images: object
    ) -> list[Tensor]:
        """What a function gives of every batch, each of its results as one tensor."""
        self._check_fitted()
        images = self._read(images)
        with torch.no_grad(), seeded(self.seed), single_precision():
            parts = [
                [result.float().cpu() for result in function(batch)]
                for batch in self._stream(images)
            ]
        return [joined(part) for part in zip(*parts, strict=True)]

    def _check_finite(self, results: Tensor) -> Tensor:
        """Scores (N,) or maps (N, H, W), if all of them are numbers."""
        bad = int((~torch.isfinite(results)).view(len(results), -1).any(1).sum())
        if bad:
            raise FloatingPointError(
                f"anomaly_score: expected finite numbers, got NaN or infinite ones for "
                f"{bad} of {len(results)} images by {self!r}; is an argument too extreme?"
            )
        return results

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


class LabelledDetector(Detector):
    """A detector that learns from a few labelled images too, known anomalies among them:
    its `_fit(images)` calls `_examples` or `_marked`, or looks at `_labelled`.
    """

    _labelled: ImageSet | None = None  # while it is fitted

    def fit(self, images: object, labelled: ImageSet | None = None) -> Self:
        """Learn from images without labels, mostly normal, and a few with.

        Args:
            images: (N, C, H, W) in [0, 1], as tensor, array, ImageSet (its labels are
                not looked at), torch Dataset or DataLoader.
            labelled: images of the same shape with labels, 0 normal and 1 anomalous;
                and with masks, where the detector learns from these.

        Returns:
            The detector itself. Should fitting fail, it stays as it was.

        Raises:
            TypeError, ValueError: images of another type, shape or range.
        """
        if labelled is not None and not isinstance(labelled, ImageSet):
            raise TypeError(
                f"labelled: expected an ImageSet or None, got {type(labelled).__name__}"
            )
        self._labelled = labelled
        try:
            return super().fit(images)
        finally:
            del self._labelled

    def _examples(self, images: object) -> tuple[Tensor, Tensor]:
        """All images on the device, and their labels: 0 for those without."""
        whole, n = self._all(images)
        labels = torch.zeros(len(whole), dtype=torch.int64, device=whole.device)
        if n:
            labels[-n:] = self._labelled.labels.to(labels.device)
        return whole, labels

    def _marked(self, images: object) -> tuple[Tensor, Tensor]:
        """All images on the device, and their masks, float (N, H, W): 0 for those
        without labels.
        """
        whole, n = self._all(images)
        masks = torch.zeros_like(whole[:, 0])
        if n and self._labelled.masks is None:
            raise ValueError("labelled: expected an ImageSet with masks, got none")
        if n:
            masks[-n:] = self._labelled.masks.to(masks)
        return whole, masks

    def _all(self, images: object) -> tuple[Tensor, int]:
        """All images on the device, those with labels at the end, and how many have."""
        n = 0 if self._labelled is None else len(self._labelled)
        batches = [*self._stream(images), *(self._stream(self._labelled) if n else ())]
        return joined(batches), n

    def _learn(
        self,
        network: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        answers: Tensor,
    ) -> list[float]:
        """Minimise loss(images, answers) by Adam, over batches in random order, with the
        detector's own epochs, batch_size, lr and seed.
        """
        optimizer = torch.optim.Adam(network.to(images.device).parameters(), self.lr)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in torch.randperm(len(images)).split(self.batch_size):
                yield images[rows], answers[rows]

        with seeded(self.seed):
            return minimise(network, loss, batches, optimizer, epochs=self.epochs)


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
            NotFittedError, TypeError, ValueError, FloatingPointError: as of
                `anomaly_score`.
        """
        return self._check_finite(self._apply(self._map, images))

    def score_and_map(self, images: object) -> tuple[Tensor, Tensor]:
        """What `anomaly_score` and `anomaly_map` give, in a single pass.

        Args:
            images: as for `fit`.

        Returns:
            float32 scores (N,) and maps (N, H, W).

        Raises:
            NotFittedError, TypeError, ValueError, FloatingPointError: as of
                `anomaly_score`.
        """
        scores, maps = self._apply_all(self._score_and_map, images)
        return self._check_finite(scores), self._check_finite(maps)

    def module(self, shape: Sequence[int] | None = None) -> nn.Module:
        """What was learned as a network, for all that takes networks: `torch.export`,
        other runtimes.

        It maps float32 images (B, C, H, W) in [0, 1], which it does not check, to maps
        (B, H, W), as `anomaly_map` does, on the detector's device. It is a copy, in
        eval mode, and frozen: what was learned is in its buffers and submodules.

        Args:
            shape: (C, H, W) of the images to be traced; None for that of the training
                images.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: a shape that the detector cannot score.
        """
        from adlab._module import LocalizerModule, as_module

        return as_module(self, LocalizerModule, shape)

    def export(
        self, path: str | os.PathLike, shape: Sequence[int] | None = None
    ) -> None:
        """Write one ONNX file, which is run without torch, as by onnxruntime.

        Its input is "images", float32 (B, C, H, W) in [0, 1], which it does not check;
        its outputs are "map", (B, H, W), and "score", (B,). B is free. Before the file
        is written, onnxruntime must give what the detector gives, to 1e-4 of the range
        of its maps.

        It needs torch 2.9 and the packages of `pip install "adlab[onnx]"`.

        Args:
            path: of the file, as "model.onnx".
            shape: (C, H, W) of the images; None for that of the training images.

        Raises:
            NotFittedError: `fit` was not called.
            FileNotFoundError, IsADirectoryError: as of `save`.
            ImportError: a package is missing, or torch is too old.
            TypeError, ValueError: a shape that the detector cannot score.
            RuntimeError: ONNX has no form for what the detector computes; what
                onnxruntime gives is not the same; or one file cannot hold it (2 GB).
        """
        self._check_fitted()
        path = check_destination(path)
        from adlab._onnx import convert

        write_whole(path, convert(self, shape))

    def _map(self, batch: Tensor) -> Tensor:
        raise NotImplementedError

    def _score(self, batch: Tensor) -> Tensor:
        return self._summary(self._map(batch))

    def _score_and_map(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Both of a batch; the map is computed once, where the score comes from it."""
        maps = self._map(batch)
        own = type(self)._score is not Localizer._score
        return self._score(batch) if own else self._summary(maps), maps

    def _summary(self, maps: Tensor) -> Tensor:
        """The images' scores: the `image_score` ("max" or "mean") of their maps."""
        check_choice("image_score", self.image_score, ("max", "mean"))
        pixels = maps.flatten(1)
        return pixels.amax(1) if self.image_score == "max" else pixels.mean(1)


def reading_of(images: object) -> Reading | None:
    """How the files were read that an ImageSet or an ImageFolder, or a part of one,
    holds; None of anything else.
    """
    whole = getattr(images, "dataset", images)
    return getattr(whole, "reading", None)


def over_parts(
    value: object, change: Callable[[Any, str], object], name: str = ""
) -> object:
    """A value with the parts that can be moved changed: tensors, networks and fitted
    detectors, in lists, tuples and dicts too.

    Args:
        value: anything; what is no part stays as it is.
        change: maps a part and its name to what takes its place.
        name: of the value; the items of a list have their number behind it.
    """
    if isinstance(value, Detector):
        return change(value, name) if value.__sklearn_is_fitted__() else value
    if isinstance(value, Tensor | nn.Module):
        return change(value, name)
    if type(value) in (list, tuple):
        return type(value)(
            over_parts(item, change, f"{name}_{i}") for i, item in enumerate(value)
        )
    if type(value) is dict:
        items = over_parts(list(value.values()), change, name)
        return dict(zip(value, items, strict=True))
    return value


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing: what was there stays until all is written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        ValueError: not a file of a detector, damaged (its content has not the digest
            that it was written with), of another format, or of a class that is not
            known here.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"path: expected a file written by Detector.save, got {path}, where there is none"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["adlab"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise ValueError(
                f"path: expected a file of format {FORMAT}, got {path} of format "
                f"{header['format']}, of another version of adlab"
            )
        if header["sha256"] != _digest(header["detector"], tensors):
            raise KeyError("sha256")
        return _unpack(json.loads(header["detector"]), tensors)
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


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """Of all that a file holds: a text, and tensors with names, types and shapes."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


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
