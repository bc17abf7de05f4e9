"""Detectors of vectors, applied to the patches of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import fold, pad, unfold

from adlab._checks import check_number, check_sides
from adlab._parameters import (
    Count,
    ImageScore,
    TwoOrMore,
)
from adlab.detector import Localizer
from adlab.vectors.base import OfVectors, fit_inside


def patch_statistics(patches: Tensor) -> Tensor:
    """Three numbers a channel: mean, log of the standard deviation, log of the mean
    squared gradient.

    Args:
        patches: (M, C, p, p) with p at least 2.

    Returns:
        float (M, 3C).
    """
    floor = 1e-6  # of a grey level squared: a flat patch has no variance, and zero no logarithm
    down, right = patches.diff(dim=2), patches.diff(dim=3)
    gradient = (down**2).mean((2, 3)) + (right**2).mean((2, 3))
    variance = patches.var((2, 3), correction=0)
    return torch.cat(
        [patches.mean((2, 3)), (variance + floor).log() / 2, (gradient + floor).log()],
        1,
    )


_FEATURES = {
    "pixels": lambda patches: patches.flatten(1),
    "statistics": patch_statistics,
}


@dataclass(eq=False, repr=False)
class Patchwise(Localizer):
    """Any detector of vectors, applied to the patches of an image: it says where.

    All patches of all training images are pooled, as if the texture were stationary. A
    pixel's score is the mean score of the patches that cover it. Images of any size at
    least that of a patch will do.

    Args:
        detector: what scores the vector of a patch: any `VectorDetector`, or a DAGMM.
        patch_size: side of a patch, in pixels.
        stride: step from patch to patch, at most patch_size.
        features: the vector of a patch: its C · patch_size² "pixels", or its 3C
            `patch_statistics`.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    any_size = True

    detector: OfVectors
    patch_size: TwoOrMore = 8
    stride: Count = 4
    features: Literal["pixels", "statistics"] = "pixels"
    image_score: ImageScore = "max"
    batch_size: Count = field(default=16, kw_only=True)

    def _check_arguments(self) -> None:
        check_number("stride", self.stride, 1, self.patch_size, whole=True)

    def _fit(self, images: object) -> None:
        self.detector_ = fit_inside(
            self, (self._patches(batch) for batch in self._stream(images))
        )

    def _stream(self, images: object) -> Iterator[Tensor]:
        for batch in super()._stream(images):
            words = f"patch_size = {self.patch_size}"
            check_sides(batch.shape[2:], self.patch_size, words)
            yield batch

    def _patches(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) to the vectors of all patches, (B · patches, D)."""
        pixels = (
            unfold(batch, self.patch_size, stride=self.stride)
            .transpose(1, 2)
            .flatten(0, 1)
        )
        shape = (batch.shape[1], self.patch_size, self.patch_size)
        return _FEATURES[self.features](pixels.unflatten(1, shape))

    def _map(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        padded = self._pad(batch)
        scores = self.detector_._score(self._patches(padded)).to(batch)
        scores = scores.view(batch.shape[0], 1, -1).expand(-1, self.patch_size**2, -1)
        size = {
            "output_size": padded.shape[2:],
            "kernel_size": self.patch_size,
            "stride": self.stride,
        }
        total, count = fold(scores, **size), fold(torch.ones_like(scores), **size)
        return (total / count)[:, 0, :height, :width]

    def _pad(self, batch: Tensor) -> Tensor:
        """Mirror the lower and right border until whole steps of the stride reach it."""
        pads = [
            math.ceil((n - self.patch_size) / self.stride) * self.stride
            + self.patch_size
            - n
            for n in batch.shape[2:]
        ]
        return pad(batch, (0, pads[1], 0, pads[0]), mode="reflect")
