"""A fitted localizer as a network: for `torch.export`, and all that takes networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from adlab._checks import check_counts
from adlab.detector import Detector, Localizer, over_parts
from adlab.training import resolve_device, seeded, single_precision


class DetectorModule(nn.Module):
    """What a detector holds: tensors as buffers, networks as submodules, and detectors
    as modules of this kind.

    Args:
        detector: fitted. What it holds is taken, not copied.
    """

    def __init__(self, detector: Detector):
        super().__init__()
        self._frame = copy.copy(detector)
        for name, value in vars(detector).items():
            setattr(self._frame, name, over_parts(value, self._hold, name))

    def _hold(self, part: Tensor | nn.Module | Detector, name: str) -> nn.Module:
        """Register a part; what takes its place in the detector knows its name."""
        if isinstance(part, Tensor):
            self.register_buffer(name, part.detach())
        else:
            own = isinstance(part, Detector)
            self.add_module(name, DetectorModule(part) if own else part)
        return _Place(name)

    def _restored(self) -> Detector:
        """The detector, made of what is held here now: of what was moved, or loaded, or
        stands for it in a trace.
        """

        def give(place: _Place, _: str) -> object:
            part = getattr(self, place.of)
            return part._restored() if isinstance(part, DetectorModule) else part

        whole = copy.copy(self._frame)
        for name, value in vars(self._frame).items():
            setattr(whole, name, over_parts(value, give))
        return whole


class _Place(nn.Module):
    """Where a part of a detector was. It is a part itself, so that it is found again."""

    def __init__(self, of: str):
        super().__init__()
        self.of = of


class LocalizerModule(DetectorModule):
    """Images, float32 (B, C, H, W) in [0, 1], to maps."""

    def forward(self, images: Tensor) -> Tensor:
        """Maps, float32 (B, H, W)."""
        with self._at_work(images) as (detector, batch):
            return detector._map(batch).float()

    @contextmanager
    def _at_work(self, images: Tensor) -> Iterator[tuple[Localizer, Tensor]]:
        """The detector, and images as it gets them, as in `anomaly_map`."""
        detector = self._restored()
        detector._check_shape(images)
        with seeded(detector.seed), single_precision():
            yield detector, detector._prepare(images)


class WithScore(LocalizerModule):
    """The same, to maps and scores."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps, float32 (B, H, W), and scores, float32 (B,)."""
        with self._at_work(images) as (detector, batch):
            scores, maps = detector._score_and_map(batch)
            return maps.float(), scores.float()


Kind = TypeVar("Kind", bound=DetectorModule)


def as_module(
    localizer: Localizer, kind: type[Kind], shape: Sequence[int] | None = None
) -> Kind:
    """A module of that kind from a copy of a fitted localizer, with all that is constant
    for images of a shape, see `Detector._constant`.
    """
    localizer._check_fitted()
    shape = localizer.input_shape_ if shape is None else shape
    check_counts("shape", shape)
    twin = keep_constants(copy.deepcopy(localizer), "")
    blank = torch.zeros(1, *shape)
    twin.anomaly_map(blank), twin.anomaly_score(blank)
    return kind(twin).to(resolve_device(twin.device)).eval().requires_grad_(False)


def keep_constants(part: object, _: str) -> object:
    """From now on a detector, and those inside, keep what they compute once."""
    if isinstance(part, Detector):
        part._constants = {}
        over_parts(list(vars(part).values()), keep_constants)
    return part
