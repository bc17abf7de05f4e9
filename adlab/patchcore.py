"""PatchCore: compare every place of an image with a few places of normal images that
stand for all of them.

    image ──▶ network ──▶ mean of 3 × 3 places, two layers ──▶ a vector of every place
                                                                  │
              all vectors of normal images ──▶ coreset ──▶ distance to the nearest

SPADE remembers everything, and looks at the places of the images that resemble most.
PatchCore looks at all places of all images at once, and can, as it remembers but a part.

Source: Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, Towards total recall in
industrial anomaly detection, CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from adlab._checks import check_number, check_vectors
from adlab._maps import enlarge_and_blur, shrink
from adlab._methods import method
from adlab._parameters import Count, ImageScore, NonNegative
from adlab.backbones import (
    Padding,
    backbone_of,
    check_backbone,
    concatenate,
    usual_layers,
)
from adlab.detector import Localizer
from adlab.training import seeded
from adlab.vectors import distance_to_nearest

PROJECTED = 128  # dimensions in which the coreset is chosen, as in the paper


def random_projection(x: Tensor, n_dimensions: int) -> Tensor:
    """Vectors in fewer dimensions, between which distances are nearly what they were.

    Each is multiplied by one matrix of draws from N(0, 1/d), from torch's generator. The
    squared distance of two of them is then multiplied by a draw of χ²(d)/d: 1 in the
    mean, with variance 2/d.

    Args:
        x: (N, D).
        n_dimensions: d; where D is no larger, x comes back as it is.

    Returns:
        (N, d).

    Raises:
        TypeError, ValueError: no vectors, or no number of dimensions.

    Source: Johnson & Lindenstrauss 1984; as Dasgupta & Gupta 2003, "An elementary proof
    of a theorem of Johnson and Lindenstrauss", prove it.
    """
    x = check_vectors(x, "x")
    check_number("n_dimensions", n_dimensions, 1, whole=True)
    if x.shape[1] <= n_dimensions:
        return x
    matrix = torch.randn(x.shape[1], n_dimensions).to(x)
    return x @ matrix / math.sqrt(n_dimensions)


def greedy_coreset(x: Tensor, n: int) -> Tensor:
    """A few vectors that lie near to all: the first, then again and again the one that
    is farthest from those chosen so far.

    No choice of n vectors makes the largest distance of any vector to the nearest one
    chosen, the radius of the k-centre problem, less than half of what this one does. It
    takes N · n distances.

    Args:
        x: (N, D).
        n: how many, at most N.

    Returns:
        Their rows, int64 (n,), in the order in which they were chosen: the first m are
        the coreset of m.

    Raises:
        TypeError, ValueError: no vectors, or n out of its range.

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance".
    """
    x = check_vectors(x, "x")
    check_number("n", n, 1, len(x), whole=True)
    x = x - x.mean(0)  # without it the digits of large numbers cancel
    lengths = x.square().sum(1)
    nearest = torch.full_like(lengths, torch.inf)
    rows = torch.zeros(n, dtype=torch.int64, device=x.device)
    for i in range(1, n):
        last = rows[i - 1]
        squared = torch.addmv(lengths + lengths[last], x, x[last], alpha=-2)
        nearest = torch.minimum(nearest, squared)
        nearest[last] = -torch.inf  # never again, not even where all are equal
        rows[i] = nearest.argmax()
    return rows


@method("patchcore", "PatchCore", chapter=17, options={"backbone": "texnet"})
@dataclass(eq=False, repr=False)
class PatchCore(Localizer):
    """The distance of every place to the nearest of a coreset of all places of normal
    images.

    Its vectors are the means over 3 × 3 places, in two layers, laid side by side at the
    finer resolution. The coreset is chosen between vectors projected at random on 128
    dimensions, and remembered in full. A vector may have its match at any place of any
    image, so images need not be aligned, and what is normal at the wrong place is not
    found.

    Args:
        backbone: see `adlab.backbones.Backbone`.
        layers: see there; None for the last two of the usual three of a network that
            has a name.
        coreset: share of the vectors that is remembered, in (0, 1]. With 1 all are.
        sigma: of the Gaussian that smooths the map, in pixels; 0 for none.
        image_score: "max" or "mean" of the map.
        padding: see `adlab.backbones.Backbone`.
        max_grid: most rows and columns of places of a layer, which is averaged over
            squares until they are fewer; None for all of them. The time to choose a
            coreset grows with the square of the number of places of all images.
        seed: of the projection, and of random weights.
        device: "auto", "cpu", "cuda", …

    After `fit`: `memory_`, the vectors (M, D) that are remembered.

    The nearest vector is searched for by products of matrices, without an index: a
    coreset is small, and trees are of no help in hundreds of dimensions.

    The paper multiplies an image's highest distance by a weight, from the neighbours of
    the vector that was nearest, and enlarges the coarser layer bilinearly; neither is
    done here.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Roth et al. 2022, sections 3.1 to 3.3.
    """

    backbone: str | nn.Module = "texnet"
    layers: Sequence[str] | None = None
    coreset: Annotated[float, partial(check_number, low=0, high=1, open_low=True)] = 0.1
    sigma: NonNegative = 4
    image_score: ImageScore = "max"
    padding: Padding = "zeros"
    max_grid: Count | None = 64
    batch_size: Count = field(default=16, kw_only=True)

    def _check_arguments(self) -> None:
        check_backbone(self.backbone, self.layers)

    def _build(self) -> None:
        self.network_ = self._network(trained=False)

    def _network(self, trained: bool = True) -> nn.Module:
        named = isinstance(self.backbone, str)
        layers = self.layers or (usual_layers(self.backbone)[-2:] if named else None)
        return backbone_of(self, layers, trained=trained)

    @torch.no_grad()
    def _fit(self, images: object) -> None:
        self.network_ = self._network()
        batches = [self._embed(batch).flatten(0, 2) for batch in self._stream(images)]
        vectors = torch.cat(batches)
        n = math.ceil(self.coreset * len(vectors))
        self.memory_ = vectors if n == len(vectors) else self._thinned(vectors, n)

    def _thinned(self, vectors: Tensor, n: int) -> Tensor:
        """Those of the coreset."""
        with seeded(self.seed):  # whatever was drawn to read the images
            projected = random_projection(vectors, PROJECTED)
        return vectors[greedy_coreset(projected, n)]

    def _embed(self, batch: Tensor) -> Tensor:
        """The vectors of all places, (B, h, w, D)."""
        grids = [shrink(f, self.max_grid) for f in self.network_(batch)]
        means = [avg_pool2d(f, 3, 1, 1, count_include_pad=False) for f in grids]
        return concatenate(means).permute(0, 2, 3, 1)

    def _map(self, batch: Tensor) -> Tensor:
        vectors = self._embed(batch)
        distances = distance_to_nearest(vectors.flatten(1, 2), self.memory_)
        maps = distances.unflatten(1, vectors.shape[1:3])
        return enlarge_and_blur(maps, *batch.shape[2:], self.sigma)
