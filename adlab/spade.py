"""SPADE: compare an image with those normal images that resemble it most.

    image ──▶ network ──▶ mean of the last map ──▶ its K nearest normal images
                     └──▶ vector of every place ──▶ distance to the nearest vector of
                                                    any place of those K images

Nothing is estimated: the features of all normal images are remembered.

Source: Cohen and Hoshen, Sub-image anomaly detection with deep pyramid
correspondences, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from adlab._maps import enlarge_and_blur, shrink
from adlab._methods import method
from adlab._parameters import Count, NonNegative
from adlab.backbones import Padding, backbone_of, check_backbone
from adlab.detector import Localizer
from adlab.training import resolve_device
from adlab.vectors import distance_to_nearest


def nearest_images(x: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of a gallery.

    Args:
        x: (B, D).
        gallery: (N, D), N at least k.
        k: number of neighbours.

    Returns:
        Squared Euclidean distances (B, k), smallest first, and indices (B, k).
    """
    squared = (x[:, None] - gallery).square().sum(2)
    return squared.topk(k, largest=False)


@method("spade", "SPADE", chapter=7, options={"backbone": "texnet"})
@dataclass(eq=False, repr=False)
class SPADE(Localizer):
    """Semantic pyramid anomaly detection: nearest images, then nearest vectors of their
    places.

    It remembers the feature maps of all training images: memory grows with N (about
    1.4 MB an image for a ResNet-18 at 224 × 224, four times as many for a Wide
    ResNet-50-2). A vector may have its match at any place, so images need not be
    aligned, and what is normal at the wrong place is not found.

    The map is the mean over the layers of the distances in each, as in the public code
    of SPADE. The paper joins the layers to one vector; then each layer counts by the
    size of its numbers.

    Args:
        backbone, layers: see `adlab.backbones.Backbone`; the last of `layers` is the
            one that finds the nearest images.
        n_neighbors: K, number of nearest images, at most N; the paper has 50.
        sigma: of the Gaussian that smooths the map, in pixels; 0 for none.
        image_score: "neighbours", the mean squared distance to the K nearest images, as
            in the paper; or "max" or "mean" of the map. By "max", bottles of MVTec AD
            are told apart better: AUROC 0.998 in place of 0.994 with a ResNet-18, 0.945
            in place of 0.892 with texnet. So are all five embedded sets tried with
            texnet; with a ResNet-18 only one, and four with mirrored borders.
        padding: see `adlab.backbones.Backbone`. "reflect" raises PRO on five embedded
            sets with a ResNet-18 (grass: 0.21 to 0.50), and lowers it there with texnet
            (0.49 to 0.33); bottles stay as they are, within 0.007.
        max_grid: most rows and columns of places of a layer, which is averaged over
            squares until they are fewer; None for all of them, as in the paper. The
            time of a map grows with the square of the number of places: one of 1024 ×
            1024 pixels takes a minute or two, at 64 a second or two. On bottles of
            MVTec AD, 224 × 224, with a ResNet-18, PRO is 0.921 with all, 0.931 with
            half the grid, 0.936 with a quarter.
        seed: of random weights.
        device: "auto", "cpu", "cuda", …

    Source: Cohen & Hoshen 2020, equations 1 to 4, with κ = 1.
    """

    backbone: str | nn.Module = "texnet"
    layers: Sequence[str] | None = None
    n_neighbors: Count = 5
    sigma: NonNegative = 4
    image_score: Literal["neighbours", "max", "mean"] = "neighbours"
    padding: Padding = "zeros"
    max_grid: Count | None = None
    batch_size: Count = field(default=16, kw_only=True)

    def _check_arguments(self) -> None:
        check_backbone(self.backbone, self.layers)

    def _build(self) -> None:
        device = resolve_device(self.device)
        self.network_ = backbone_of(self, trained=False)
        self.galleries_ = nn.ParameterList(
            nn.Parameter(torch.empty(shape, device=device), requires_grad=False)
            for shape in self.shapes_
        )

    @torch.no_grad()
    def _fit(self, images: object) -> None:
        self.network_, self.galleries_ = backbone_of(self), nn.ParameterList()
        parts = [[] for _ in self.network_.layers]
        for batch in self._stream(images):
            for part, vectors in zip(parts, self._embed(batch), strict=True):
                part.append(vectors.flatten(1, 2))
        while parts:  # a layer's parts are let go before the next layer is put together
            gallery = torch.cat(parts.pop(0))
            self.galleries_.append(nn.Parameter(gallery, requires_grad=False))
        if len(gallery) < self.n_neighbors:
            raise ValueError(
                f"images: expected at least n_neighbors = {self.n_neighbors}, got {len(gallery)}"
            )
        self.shapes_ = [tuple(gallery.shape) for gallery in self.galleries_]
        self.pooled_ = gallery.mean(1)

    def _embed(self, batch: Tensor) -> list[Tensor]:
        """The vectors (B, h, w, C) of each layer."""
        grids = (shrink(f, self.max_grid) for f in self.network_(batch))
        return [grid.permute(0, 2, 3, 1) for grid in grids]

    def _score(self, batch: Tensor) -> Tensor:
        if self.image_score != "neighbours":
            return super()._score(batch)
        return self._neighbours(self._embed(batch))[0].mean(1)

    def _score_and_map(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self._embed(batch)
        distances, neighbours = self._neighbours(vectors)
        maps = self._map_of(vectors, neighbours, batch.shape[2:])
        own = self.image_score == "neighbours"
        return distances.mean(1) if own else self._summary(maps), maps

    def _neighbours(self, vectors: list[Tensor]) -> tuple[Tensor, Tensor]:
        return nearest_images(vectors[-1].mean((1, 2)), self.pooled_, self.n_neighbors)

    def _distances(self, x: Tensor, gallery: Tensor, neighbours: Tensor) -> Tensor:
        """From vectors (B, P, C) to the nearest of their neighbours' in a gallery (N, P,
        C): (B, P). One image at a time, for the sake of memory; but a trace must not
        count them.
        """
        if self._constants is not None:
            return distance_to_nearest(x, gallery[neighbours].flatten(1, 2))
        pairs = zip(x, neighbours, strict=True)
        return torch.stack(
            [distance_to_nearest(one, gallery[i].flatten(0, 1)) for one, i in pairs]
        )

    def _map(self, batch: Tensor) -> Tensor:
        vectors = self._embed(batch)
        _, neighbours = self._neighbours(vectors)
        return self._map_of(vectors, neighbours, batch.shape[2:])

    def _map_of(
        self, vectors: list[Tensor], neighbours: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Maps (B, H, W) of that size, from vectors and the nearest images."""
        total = 0
        for v, gallery in zip(vectors, self.galleries_, strict=True):
            distances = self._distances(v.flatten(1, 2), gallery, neighbours)
            distances = distances.unflatten(1, v.shape[1:3])
            total = total + enlarge_and_blur(distances, *size, self.sigma)
        return total / len(vectors)
