"""PaDiM: a Gaussian of its own for every place of an image, in the features of a
network.

    image ──▶ network ──▶ a vector at every place (r, c) ──▶ Mahalanobis distance to
                                                             the Gaussian of (r, c)

The vector of a place stacks what several layers say about it. A coarse layer says the
same at many places, and so the Gaussian is taken apart by the chain rule, coarse layers
first: p(coarse, fine) = p(coarse) p(fine | coarse). The distance comes apart likewise,
into a sum over the layers, and what belongs to a coarse layer is stored and computed
once for all the places that share it. The result is the same as with one covariance
matrix at every place, for a fraction of the memory and of the time.

Source: Defard, Setkov, Loesch and Audigier, PaDiM: a patch distribution modeling
framework for anomaly detection and localization, ICPR workshops 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from adlab._maps import enlarge_and_blur, shrink
from adlab._methods import method
from adlab._parameters import Count, ImageScore, NonNegative, Positive
from adlab.backbones import Padding, backbone_of, check_backbone, concatenate
from adlab.detector import Localizer
from adlab.training import resolve_device, seeded
from adlab.vectors import Moments, cholesky_factors

BLOCK = 256  # places whose covariances are taken apart at once

# -- as the paper writes it


def mahalanobis_map(train: Tensor, test: Tensor, reg_covar: float) -> Tensor:
    """Equations 1 and 2 of the paper, word by word: a mean and a covariance matrix at
    every place, and the distance to them. `PaDiM` gives the same, faster.

    Args:
        train: vectors of normal images at all places, (N, h, w, d).
        test: of images to be scored, (B, h, w, d).
        reg_covar: ε, added to the diagonal of every covariance.

    Returns:
        (B, h, w).
    """
    mean = train.mean(0)
    gap, new = train - mean, test - mean
    covariance = torch.einsum("nrci,nrcj->rcij", gap, gap) / (len(train) - 1)
    inverse = torch.linalg.inv(
        covariance + reg_covar * torch.eye(train.shape[3]).to(gap)
    )
    return torch.einsum("brci,rcij,brcj->brc", new, inverse, new).sqrt()


# -- places


def shared_places(sizes: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """Where the vectors of a layer, joined to those of all coarser layers, differ.

    Args:
        sizes: (h, w) of the feature maps, from coarse to fine. The finest is the grid
            of all places; a coarser map is laid over it by nearest neighbours.

    Returns:
        For each layer two indices, one entry for each different joint vector: the
        place in the layer's own map, and the entry of the next coarser layer. If every
        size is a multiple of the one before, the first is simply 0, 1, 2, …
    """
    entry, shared = torch.zeros(sizes[-1]).flatten(), []
    for h, w in sizes:
        own = torch.arange(h * w, dtype=torch.float64).view(1, 1, h, w)
        own = interpolate(own, sizes[-1], mode="nearest").flatten()
        pairs, entry = torch.stack([own, entry]).unique(dim=1, return_inverse=True)
        shared.append(tuple(pairs.long()))
    return shared


def _join(coarser: Tensor | None, own: Tensor, parent: Tensor) -> Tensor:
    """Vectors (P, B, p) of a layer behind those of the coarser layers (P', B, q)."""
    return own if coarser is None else torch.cat([coarser[parent], own], 2)


# -- what is learned


@dataclass
class PatchMoments:
    """Means and covariances of the vectors at all places, gathered in one pass over
    images.

    Gathered from parts of the images, and merged, they equal those of the whole.
    """

    input_shape: list[int]  # (C, H, W) of an image
    features: dict[str, object]  # backbone, layers, seed, … that they come from
    sizes: list[tuple[int, int]]  # of the feature maps, from coarse to fine
    layers: list[Moments]  # of each feature map, jointly with all coarser ones

    def merge(self, other: PatchMoments) -> PatchMoments:
        """Take in all that another one has seen.

        Raises:
            ValueError: it comes from images of another shape, or from other features.
        """
        if self.input_shape != other.input_shape:
            raise ValueError(
                f"other: expected moments of images {self.input_shape}, "
                f"got {other.input_shape}"
            )
        _check_same_features("other", self.features, other.features)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.merge(theirs)
        return self


def _check_same_features(
    name: str, expected: dict[str, object], got: dict[str, object]
) -> None:
    for what, value in expected.items():
        if got[what] != value:
            raise ValueError(
                f"{name}: expected moments of {what} {value}, got {got[what]}"
            )


def whiten(moments: PatchMoments, reg_covar: float) -> list[Tensor]:
    """For each layer, the rows that whiten its vectors x together with the coarser ones.

    Let z be the vectors of all coarser layers, whitened, C the covariance of x and z,
    and S = LLᵀ that of x, both with ε added. What z does not explain of x has the
    covariance S − CCᵀ = LLᵀ, so the rows are L⁻¹(−C, I): applied to (z, x − μ) they
    give numbers of variance one that are correlated neither with z nor with each other.

    Args:
        moments: of at least two images.
        reg_covar: ε, added to the diagonal of every covariance.

    Returns:
        float64 (P, p, q + p) for p numbers of a layer and q of all coarser ones.

    Raises:
        ValueError: fewer than two images, or ε lost in rounding.
    """
    rows: list[Tensor] = []
    places = shared_places(moments.sizes)
    for i, layer in enumerate(moments.layers):
        layer.check_enough()
        rows.append(torch.empty_like(layer.scatter))
        for block in torch.arange(len(layer.scatter)).split(BLOCK):
            covariance = layer.scatter[block] / (layer.count - 1)
            coarser = _ancestors(rows[:i], places[: i + 1], block)
            rows[i][block] = _whitening_rows(covariance, coarser, reg_covar)
    return rows


def _ancestors(
    rows: Sequence[Tensor], places: Sequence[tuple[Tensor, Tensor]], block: Tensor
) -> list[Tensor]:
    """The rows of all coarser layers at the entries of a block of the finest."""
    found = []
    for layer, (_, parent) in zip(reversed(rows), reversed(places), strict=False):
        block = parent[block]
        found.insert(0, layer[block])
    return found


def _whitening_rows(
    covariance: Tensor, coarser: Sequence[Tensor], reg_covar: float
) -> Tensor:
    """The rows of a layer from its covariances with all coarser vectors and with itself,
    (b, p, q + p), and from the rows of the coarser layers.
    """
    n = covariance.shape[1]
    own = covariance[..., -n:]
    own.diagonal(dim1=1, dim2=2).add_(reg_covar)
    cross = own[..., :0]
    for rows in coarser:  # a covariance with x becomes one with z
        start, end = rows.shape[2] - rows.shape[1], rows.shape[2]
        joint = torch.cat([cross, covariance[..., start:end]], 2)
        cross = torch.cat([cross, joint @ rows.mT], 2)
    factors = cholesky_factors(own - cross @ cross.mT, reg_covar)
    unit = torch.eye(n).to(own).expand_as(own)
    return torch.linalg.solve_triangular(
        factors, torch.cat([-cross, unit], 2), upper=False
    )


# -- what is scored


def squared_distances(
    maps: Sequence[Tensor],
    means: Sequence[Tensor],
    rows: Sequence[Tensor],
    places: Sequence[tuple[Tensor, Tensor]],
) -> list[Tensor]:
    """What each layer adds to the squared Mahalanobis distance, given the coarser ones.

    Args:
        maps: vectors (B, places of the layer, p) of each layer, from coarse to fine.
        means: μ (P, p) of each layer.
        rows: as of `whiten`.
        places: as of `shared_places`.

    Returns:
        (B, places of the finest map) for each layer; their sum is the squared distance.
    """
    z, shares = None, []
    for x, mean, row, (own, parent) in zip(maps, means, rows, places, strict=True):
        joint = _join(z, (x[:, own] - mean).transpose(0, 1), parent)
        new = joint @ row.mT
        shares = [share[:, parent] for share in shares] + [new.square().sum(2).T]
        z = _join(z, new, parent)
    return shares


# -- detector


@method("padim", "PaDiM", chapter=7, options={"backbone": "texnet"})
@dataclass(eq=False, repr=False)
class PaDiM(Localizer):
    """Patch distribution modelling: the Mahalanobis distance to the Gaussian of each
    place.

    It needs images that are aligned, or a texture, which looks alike everywhere. One
    pass over the images is enough (two with "pca"), and memory does not grow with N.
    `fit` also takes `PatchMoments` that were gathered, and merged, before.

    Args:
        backbone, layers: see `adlab.backbones.Backbone`.
        n_features: d, numbers that are kept of the vector of a place; None, or more
            than there are, for all.
        reduction: "random" draws d channels of the network, and a layer of which none
            is drawn is left out; "pca" projects on the d first principal components of
            the vectors of all places.
        reg_covar: ε, added to the diagonal of every covariance, which is singular
            without it as soon as N ≤ d.
        sigma: of the Gaussian that smooths the map, in pixels; 0 for none.
        image_score: "max" or "mean" of the map.
        padding: see `adlab.backbones.Backbone`; "reflect" changes less than for SPADE, as
            each place at the border has a Gaussian of its own.
        max_grid: most rows and columns of places. A layer that has more is averaged
            over squares until they are fewer; None for all of them. It bounds memory,
            which grows with places times d², and leaves images of up to 256 pixels (of
            512 with a ResNet) as they are. On bottles of MVTec AD, 224 × 224, with a
            ResNet-18, half the grid costs 0.002 of PRO, a quarter 0.018.
        seed: of the draw of channels, and of random weights.
        device: "auto", "cpu", "cuda", …

    After fitting, `channels_` are the channels that were drawn, counted through all
    layers; or `components_` (D, d) the principal components.

    Source: Defard et al. 2021, equations 1 and 2; d = 100 for a ResNet-18 and 550 for a
    Wide ResNet-50-2.
    """

    backbone: str | nn.Module = "texnet"
    layers: Sequence[str] | None = None
    n_features: Count | None = 100
    reduction: Literal["random", "pca"] = "random"
    reg_covar: Positive = 0.01
    sigma: NonNegative = 4
    image_score: ImageScore = "max"
    padding: Padding = "zeros"
    max_grid: Count | None = 128
    batch_size: Count = field(default=32, kw_only=True)

    def _check_arguments(self) -> None:
        check_backbone(self.backbone, self.layers)

    def moments(self, images: object) -> PatchMoments:
        """What `fit` gathers from images, to be merged with what was gathered from
        others: `detector.fit(detector.moments(a).merge(detector.moments(b)))`.

        Args:
            images: as for `fit`.

        Raises:
            TypeError, ValueError: images of another type, shape or range; a detector
                with "pca", as the components of parts are not those of the whole.
        """
        if self.reduction == "pca":
            raise ValueError('reduction: expected "random" for moments, got "pca"')
        fresh = type(self)(**self._params())
        with seeded(self.seed):
            fresh._reduce(images)
            return fresh._gather(images)

    def layer_distances(self, images: object) -> Tensor:
        """What each layer adds to the squared distance, given the coarser ones.

        Args:
            images: as for `fit`.

        Returns:
            float32 (N, L, h, w), layers from coarse to fine; not enlarged or smoothed.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._layer_distances, images)

    def _fit(self, images: object) -> None:
        self._reduce(images)
        given = isinstance(images, PatchMoments)
        moments = images if given else self._gather(images)
        _check_same_features("images", self._features(), moments.features)
        self.input_shape_, self.sizes_ = moments.input_shape, moments.sizes
        self.widths_ = [layer.last for layer in moments.layers]
        means = [layer.mean[:, -layer.last :] for layer in moments.layers]
        rows = whiten(moments, self.reg_covar)
        del moments  # its covariances take as much memory as the rows
        self._build_gaussians()
        for learned, new in zip((self.means_, self.rows_), (means, rows), strict=True):
            for parameter, values in zip(learned, new, strict=True):
                parameter.copy_(values)

    def _features(self) -> dict[str, object]:
        """Where the vectors come from; of a network of one's own, only its class."""
        own = isinstance(self.backbone, nn.Module)
        name = type(self.backbone).__name__ if own else self.backbone
        return {
            "backbone": name,
            "layers": self.network_.layers,
            "seed": self.seed,
            "padding": self.padding,
            "max_grid": self.max_grid,
            "channels": self.channels_.tolist() if self.reduction == "random" else None,
        }

    def _build(self) -> None:
        self.network_ = backbone_of(self, trained=False)
        self._build_gaussians()
        if self.reduction == "random":
            self._share_channels()

    def _build_gaussians(self) -> None:
        """Room for means and rows: what `squared_distances` needs."""
        device = resolve_device(self.device)
        places = shared_places(self.sizes_)
        self._places = [(own.to(device), parent.to(device)) for own, parent in places]
        shapes = [
            (len(own), p) for (own, _), p in zip(places, self.widths_, strict=True)
        ]
        totals = accumulate(self.widths_)
        self.means_ = _frozen(shapes, device)
        self.rows_ = _frozen(
            [(*shape, n) for shape, n in zip(shapes, totals, strict=True)], device
        )

    def _reduce(self, images: object) -> None:
        """Choose what is kept of the vectors of a place."""
        self.network_ = backbone_of(self)
        total = sum(self.network_.channels)
        n = min(self.n_features or total, total)
        if self.reduction == "pca":
            self.components_ = self._principal_components(images, n)
        else:
            generator = torch.Generator().manual_seed(self.seed)
            self.channels_ = torch.randperm(total, generator=generator)[:n].sort()[0]
            self._share_channels()

    def _share_channels(self) -> None:
        """Say which channels of each layer were drawn, counted within it."""
        drawn, ends = self.channels_, list(accumulate(self.network_.channels))
        self._kept = [
            drawn[(drawn >= start) & (drawn < end)] - start
            for start, end in pairwise([0, *ends])
        ]

    @torch.no_grad()
    def _principal_components(self, images: object, n: int) -> Tensor:
        if isinstance(images, Iterator | PatchMoments):
            raise ValueError(
                f'images: expected what can be read twice for "pca", got {type(images).__name__}'
            )
        moments = Moments()
        for batch in self._stream(images):
            features = concatenate(self._grids(batch))
            moments.update(_vectors(features).flatten(0, 2))
        _, directions = torch.linalg.eigh(moments.covariance())
        return directions[:, -n:].float()

    def _grids(self, batch: Tensor) -> list[Tensor]:
        """The feature maps of all layers, no larger than they may be."""
        return [shrink(f, self.max_grid) for f in self.network_(batch)]

    def _embed(self, batch: Tensor) -> list[Tensor]:
        """Vectors (B, h, w, p) of each layer that counts, from coarse to fine."""
        features = self._grids(batch)
        if self.reduction == "pca":
            return [_vectors(concatenate(features)) @ self.components_]
        kept = [
            _vectors(f)[..., index]
            for f, index in zip(features, self._kept, strict=True)
            if len(index)
        ]
        return sorted(kept, key=lambda vectors: vectors.shape[1] * vectors.shape[2])

    @torch.no_grad()
    def _gather(self, images: object) -> PatchMoments:
        moments = None
        for batch in self._stream(images):
            maps = self._embed(batch)
            if moments is None:
                sizes = [tuple(x.shape[1:3]) for x in maps]
                layers = [Moments(last=x.shape[3]) for x in maps]
                moments = PatchMoments(
                    self.input_shape_, self._features(), sizes, layers
                )
                places = shared_places(sizes)
            joint = None
            for x, (own, parent), layer in zip(maps, places, layers, strict=True):
                x = x.flatten(1, 2)[:, own].transpose(0, 1)
                joint = _join(joint, x, parent)
                layer.update(joint.transpose(0, 1))
        return moments

    def _layer_distances(self, batch: Tensor) -> Tensor:
        maps = [x.flatten(1, 2) for x in self._embed(batch)]
        shares = squared_distances(maps, self.means_, self.rows_, self._places)
        return torch.stack(shares, 1).unflatten(2, self.sizes_[-1])

    def _map(self, batch: Tensor) -> Tensor:
        distances = self._layer_distances(batch).sum(1).sqrt()
        return enlarge_and_blur(distances, *batch.shape[2:], self.sigma)


def _vectors(features: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h, w, C): the vector of a place, as one row."""
    return features.permute(0, 2, 3, 1)


def _frozen(shapes: Sequence[tuple], device: torch.device) -> nn.ParameterList:
    return nn.ParameterList(
        nn.Parameter(torch.empty(shape, device=device), requires_grad=False)
        for shape in shapes
    )
