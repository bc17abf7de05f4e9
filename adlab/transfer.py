"""Transfer learning: a network trained for something else brings an image into the world
of random vectors, and a detector of vectors finishes the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adlab.backbones import Backbone, backbone_of, check_backbone
from adlab.detector import Detector
from adlab.training import stream
from adlab.vectors import OfVectors, fit_inside


def pooled_features(network: Backbone, images: object) -> Tensor:
    """One vector an image: the mean of every channel of every layer over the positions.

    Args:
        network: what makes the feature maps, on the device where it is.
        images: (N, C, H, W) in [0, 1], as tensor, array, ImageSet, torch Dataset or
            DataLoader.

    Returns:
        float32 (N, D), D = `sum(network.channels)`, the layers one after the other.

    Raises:
        TypeError, ValueError: images of another type, shape or range.
    """
    device = next(network.parameters(), torch.empty(0)).device
    with torch.no_grad():
        batches = [pool(network(batch.to(device))) for batch in stream(images)]
    return torch.cat(batches).cpu()


def pool(features: Sequence[Tensor]) -> Tensor:
    """Feature maps (B, C_l, H_l, W_l) of the layers to their means (B, sum C_l)."""
    return torch.cat([layer.mean((2, 3)) for layer in features], dim=1)


@dataclass(eq=False, repr=False)
class FeatureDetector(Detector):
    """Any detector of vectors, applied to the pooled features of a network.

    The network is frozen, and never sees what is normal; only the detector behind it
    learns. `FeatureDetector(KNN(2))` is DN2; with `Gaussian("ledoit-wolf")` it is
    close to the method of Rippel et al., who have a Gaussian for each layer, add the
    distances up, and use another backbone.

    Args:
        detector: what scores the vectors: any detector of vectors.
        backbone: as of `adlab.backbones.Backbone`: a name, or a network of one's own.
        layers: names of the layers to pool; None for all that the backbone offers.
        seed: of the weights of a "-random" backbone.
        device: "auto", "cpu", "cuda", …

    Source: Rippel, Mertens & Merhof 2021, "Modeling the distribution of normal data in
    pre-trained deep features for anomaly detection"; DN2: Bergman, Cohen & Hoshen 2020,
    "Deep nearest neighbor anomaly detection".
    """

    detector: OfVectors
    backbone: str | nn.Module = "texnet"
    layers: Sequence[str] | None = None

    def _check_arguments(self) -> None:
        check_backbone(self.backbone, self.layers)

    def _build(self) -> None:
        self.network_ = backbone_of(self, trained=False)

    def _fit(self, images: object) -> None:
        self.network_ = backbone_of(self)
        self.detector_ = fit_inside(self, self._vectors(images))

    def _vectors(self, images: object) -> Iterator[Tensor]:
        for batch in self._stream(images):
            with torch.no_grad():
                yield pool(self.network_(batch))

    def _score(self, batch: Tensor) -> Tensor:
        return self.detector_._score(pool(self.network_(batch)))
