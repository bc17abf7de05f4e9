"""Pyramids: the features of a frozen network, pooled at several scales, squeezed through
few numbers, and made into the image again.

    image ──▶ backbone ──▶ features F ──▶ means over 6 × 6, …, 1 × 1 cells
          ──▶ few numbers a scale, or two routed vectors ──┐
              features F ──────────────────────────────────┴─▶ decoder ──▶ image

The score is the training loss: the squared error of the pixels, that of the features of
both images, and one minus their SSIM.

Sources: Mishra, Piciarelli & Foresti 2021, "Image anomaly detection by aggregating deep
pyramidal representations", ICPR workshops; the same 2020, "A neural network for image
anomaly detection with deep pyramidal representations and dynamic routing", IJNS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from adlab import similarity
from adlab._methods import method
from adlab._parameters import Count, Counts, ImageScore, NonNegative, Positive
from adlab.backbones import backbone_of, check_backbone, usual_layers
from adlab.capsules import route, squash
from adlab.detector import Localizer
from adlab.training import resolve_device, seeded, update_batch_norm

SMALLEST = 11  # pixels, the window of the SSIM
VARIANCE = 1e-2  # added to that of each feature: a quiet one must not drown the others
MAPS = 8  # channels that a code is made into, to lie beside the features
DecoderInput = Literal["both", "codes", "features"]


# -- the parts


def pyramid(features: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Means over the cells of ever coarser, or finer, grids.

    Args:
        features: (B, C, h, w).
        sizes: k of each grid of k × k cells. Cell i of a side of h places goes from
            ⌊i h / k⌋ to ⌈(i + 1) h / k⌉, so cells overlap where k does not divide h.

    Returns:
        (B, C, k, k) for each size.

    Source: Mishra, Piciarelli & Foresti 2020, section 3.
    """
    return [adaptive_avg_pool2d(features, k) for k in sizes]


class SqueezeExcitation(nn.Module):
    """A factor between zero and one for each channel of an image, from the means of all
    its channels: s = σ(W₂ max(0, W₁ z)).

    Args:
        channels: C; the hidden layer has a quarter as many.

    Source: Hu, Shen & Sun 2018, "Squeeze-and-excitation networks", eqs. 2 to 4.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(1, channels // 4)
        self.squeezed = nn.Linear(channels, hidden, bias=False)
        self.excited = nn.Linear(hidden, channels, bias=False)

    def factors(self, features: Tensor) -> Tensor:
        """s, (B, C), of features (B, C, h, w)."""
        means = features.mean((2, 3))
        return self.excited(self.squeezed(means).relu()).sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return features * self.factors(features)[:, :, None, None]


def longest(vectors: Tensor) -> Tensor:
    """Of vectors (B, J, D) the longest of each image, (B, 1, D)."""
    rows = vectors.norm(dim=2).argmax(1)
    return vectors.gather(1, rows[:, None, None].expand(-1, 1, vectors.shape[2]))


class Decoder(nn.Module):
    """Codes and features to an image: each code becomes maps of the features' size, by
    two linear layers that all codes share; convolutions and enlargement do the rest.

    Args:
        shape: (C, H, W) of the images.
        features: (C, h, w) of the features.
        n_codes, n_latent: codes of an image, and the numbers of each.
        width: channels of the hidden layers.
        sees: "both"; or "codes" or "features" alone.
    """

    def __init__(
        self,
        shape: Sequence[int],
        features: Sequence[int],
        n_codes: int,
        n_latent: int,
        width: int,
        sees: str,
    ):
        super().__init__()
        self.size, self.sees = tuple(shape[1:]), sees
        self.upsampling = nn.Sequential(
            nn.Linear(n_latent, 8 * n_latent),
            nn.ReLU(),
            nn.Linear(8 * n_latent, MAPS * math.prod(features[1:])),
            nn.ReLU(),
            nn.Unflatten(2, (MAPS, *features[1:])),
        )
        inside = {"codes": n_codes * MAPS, "features": features[0]}
        inside["both"] = sum(inside.values())
        self.layers = _enlarging(
            inside[sees], width, shape[0], _halvings(shape, features)
        )

    def forward(self, codes: Tensor, features: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] from (B, S, D) and (B, C, h, w)."""
        seen = [] if self.sees == "features" else [self._maps(codes)]
        seen += [] if self.sees == "codes" else [features]
        rows, columns = self.size
        return self.layers(torch.cat(seen, 1))[..., :rows, :columns]

    def _maps(self, codes: Tensor) -> Tensor:
        """The codes as maps, (B, S · MAPS, h, w)."""
        return self.upsampling(codes).flatten(1, 2)


def _halvings(shape: Sequence[int], features: Sequence[int]) -> int:
    """How often features must be enlarged to be as large as the image."""
    pairs = zip(shape[1:], features[1:], strict=True)
    return max(math.ceil(math.log2(side / small)) for side, small in pairs)


def _enlarging(inside: int, width: int, outside: int, n: int) -> nn.Sequential:
    """Convolutions, each before an enlargement by two, and a last one."""
    layers: list[nn.Module] = []
    for _ in range(n):
        layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
        layers += [nn.Upsample(scale_factor=2)]
        inside = width
    layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.Sigmoid()]
    network = nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last)  # faster on a CPU


class PyramidNetwork(nn.Module):
    """Features to an image, through one short code for each scale.

    Args:
        sizes: cells along a side, of each scale.
        shape, features, n_latent, width, sees: as for `Decoder`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        features: Sequence[int],
        sizes: Sequence[int],
        n_latent: int,
        width: int,
        sees: str = "both",
    ):
        super().__init__()
        self.sizes = tuple(sizes)
        self.encoders = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features[0], width, 1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(width * k * k, n_latent),
            )
            for k in sizes
        )
        self.decoder = Decoder(shape, features, len(sizes), n_latent, width, sees)

    def encode(self, features: Tensor) -> Tensor:
        """The code of each scale, (B, S, D), of features (B, C, h, w)."""
        pooled = pyramid(features, self.sizes)
        pairs = zip(self.encoders, pooled, strict=True)
        return torch.stack([encoder(cells) for encoder, cells in pairs], 1)

    def decode(self, codes: Tensor, features: Tensor) -> Tensor:
        """Images (B, C, H, W) from codes and the features beside them."""
        return self.decoder(codes, features)

    def forward(self, features: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        return self.decode(self.encode(features), features)


class RoutedNetwork(nn.Module):
    """Features to an image, through vectors to which the cells of all scales are routed.

    The features pass a squeeze-and-excitation block, are pooled, and get fewer channels;
    the channels of one cell, eight at a time, are capsules that vote for the vectors.
    In training the first vector is decoded, afterwards the longest.

    Args:
        sizes: cells along a side, of each scale.
        n_vectors: with one there is nothing to route.
        dim: numbers of each vector.
        n_primary: capsules of each cell.
        n_iterations: of the routing.
        squeeze: whether there is a squeeze-and-excitation block.
        shape, features, width, sees: as for `Decoder`.
    """

    primary_dim = 8

    def __init__(
        self,
        shape: Sequence[int],
        features: Sequence[int],
        sizes: Sequence[int],
        n_vectors: int,
        dim: int,
        n_primary: int,
        n_iterations: int,
        width: int,
        squeeze: bool = True,
        sees: str = "both",
    ):
        super().__init__()
        self.sizes, self.n_iterations = tuple(sizes), n_iterations
        self.gate = SqueezeExcitation(features[0]) if squeeze else nn.Identity()
        channels = n_primary * self.primary_dim
        self.reduce = nn.ModuleList(nn.Conv2d(features[0], channels, 1) for _ in sizes)
        below = n_primary * sum(k * k for k in sizes)
        self.weight = nn.Parameter(
            torch.randn(below, n_vectors, dim, self.primary_dim) / below**0.5
        )
        self.decoder = Decoder(shape, features, 1, dim, width, sees)

    def primary(self, features: Tensor) -> Tensor:
        """The capsules of all cells, (B, I, 8)."""
        pooled = pyramid(features, self.sizes)
        cells = [
            reduce(level).permute(0, 2, 3, 1).flatten(1)  # the channels of a cell
            for reduce, level in zip(self.reduce, pooled, strict=True)
        ]
        return squash(torch.cat(cells, 1).unflatten(1, (-1, self.primary_dim)))

    def route(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors (B, J, D) and the shares (B, I, J), as `adlab.capsules.route`."""
        primary = self.primary(self.gate(features))
        votes = torch.einsum("ijed,bid->bije", self.weight, primary)
        return route(votes, self.n_iterations)

    def encode(self, features: Tensor) -> Tensor:
        """The vectors, (B, J, D), of features (B, C, h, w)."""
        return self.route(features)[0]

    def decode(self, vectors: Tensor, features: Tensor) -> Tensor:
        """Images (B, C, H, W) from vectors and the features beside them."""
        decoded = vectors[:, :1] if self.training else longest(vectors)
        return self.decoder(decoded, self.gate(features))

    def forward(self, features: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        return self.decode(self.encode(features), features)


# -- the detectors


def _perceptual(features: Sequence[Tensor], back: Sequence[Tensor]) -> Tensor:
    """`similarity.perceptual`, (B,), of features that are there already: computed only
    once, and without gradients, those of the images cost little.
    """
    pairs = zip(features, back, strict=True)
    errors = [(a - b).square().flatten(1).mean(1) for a, b in pairs]
    return sum(errors) / len(errors)


@dataclass(eq=False, repr=False, kw_only=True)
class _Pyramid(Localizer):
    """What both share: frozen features, a network that makes them into the image again,
    and the loss, which is the score.
    """

    backbone: str | nn.Module = "texnet"
    layers: Sequence[str] | None = None
    decoder_input: DecoderInput = "both"
    width: Count = 32
    perceptual_weight: NonNegative = 1.0
    ssim_weight: NonNegative = 1.0
    epochs: Count = 30
    lr: Positive = 2e-3
    image_score: ImageScore = "mean"
    batch_size: Count = 16

    def _check_arguments(self) -> None:
        check_backbone(self.backbone, self.layers)

    # what a user calls

    def features(self, images: object) -> Tensor:
        """What the pyramid and the decoder get: float32 (N, C, h, w), standardised.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._features, images)

    def codes(self, images: object) -> Tensor:
        """What passes the bottleneck: float32 (N, S, D), a code of each scale, or each
        vector.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda x: self.network_.encode(self._features(x)), images)

    def reconstruct(self, images: object) -> Tensor:
        """What comes back of images: float32 (N, C, H, W) in [0, 1].

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._reconstruct, images)

    def terms(self, images: object) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of the three terms, without weights, each float32 (N, H, W): the
        squared error of pixels, that of features, and one minus the SSIM.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        pixels, features, structure = self._apply_all(
            lambda x: self._term_maps(x, self._reconstruct(x)), images
        )
        return pixels, features, structure

    # learning

    def _fit(self, images: object) -> None:
        self._check_sides(images, SMALLEST)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build(trained=True)
        features = (self.backbone_(batch)[-1] for batch in self._stream(images))
        update_batch_norm(self.scaling_, features)
        self.history_ = self._optimise(self.network_, self._loss, images)

    def _build(self, trained: bool = False) -> None:
        device = resolve_device(self.device)
        self.backbone_ = backbone_of(self, self._layers(), trained=trained)
        probe = torch.zeros(1, *self.input_shape_).to(device)
        shape = self.backbone_(probe)[-1].shape[1:]
        self.scaling_ = nn.BatchNorm2d(shape[0], VARIANCE, affine=False).to(device)
        self.network_ = self._network(shape).to(device)

    def _layers(self) -> Sequence[str]:
        return self.layers or usual_layers(self.backbone)[:2]

    def _network(self, features: Sequence[int]) -> nn.Module:
        raise NotImplementedError

    @torch.no_grad()
    def _features(self, batch: Tensor) -> Tensor:
        return self.scaling_(self.backbone_(batch)[-1])

    def _reconstruct(self, batch: Tensor) -> Tensor:
        return self.network_(self._features(batch))

    def _loss(self, batch: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone_(batch)
        back = self.network_(self.scaling_(features[-1]))
        loss = similarity.mse(batch, back)
        if self.perceptual_weight:
            perceptual = _perceptual(features, self.backbone_(back))
            loss = loss + self.perceptual_weight * perceptual
        if self.ssim_weight:
            alike = similarity.ssim(batch, back, data_range=1)
            loss = loss + self.ssim_weight * (1 - alike)
        return loss.mean()

    # score

    def _term_maps(self, batch: Tensor, back: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        perceptual = similarity.perceptual_map(batch, back, extractor=self.backbone_)
        alike = similarity.ssim_map(batch, back, data_range=1)
        return similarity.mse_map(batch, back), perceptual, 1 - alike

    def _map(self, batch: Tensor) -> Tensor:
        pixels, features, structure = self._term_maps(batch, self._reconstruct(batch))
        return pixels + self.perceptual_weight * features + self.ssim_weight * structure


@method("pyramids", "pyramids", chapter=15, options={"backbone": "texnet"})
@dataclass(eq=False, repr=False)
class PyramidalAutoencoder(_Pyramid):
    """An autoencoder of frozen features: they are pooled at several scales, each scale is
    squeezed into a short code, and a decoder makes the image again from the codes and
    the features.

    Trained with Adam by the squared error of pixels and that of features. The map is
    the loss of every pixel.

    As the decoder sees the features too, nothing forces anything through the codes;
    with decoder_input="codes" all has to pass there.

    Args:
        sizes: cells along a side of each scale. (In the paper all four are 1 × 1, and
            differ in their channels only.)
        n_latent: numbers of each code.
        backbone: name or nn.Module, as for `adlab.backbones.Backbone`.
        layers: of the backbone, to be read: the last is pooled and decoded, and all are
            compared by the perceptual loss; None for the first two of the usual three.
        decoder_input: "both"; or, as controls, "codes" or "features" alone.
        width: channels of the hidden layers.
        perceptual_weight: λ, of the squared error of the features; 1 in the paper, whose
            features are VGG11's.
        ssim_weight: of one minus the SSIM; the paper has none.
        epochs: passes through the training images.
        lr: Adam's step size.
        image_score: "mean", the loss, as in the paper; or "max" of the map.
        batch_size: images per step.
        seed: of the first weights and the order of the images.
        device: "auto", "cpu", "cuda", …

    Images are at least 11 pixels high and wide, for the SSIM. Features are standardised,
    channel by channel, over the training images; there are no other batch norms.

    After `fit`: `network_`, a `PyramidNetwork`; `backbone_`; and `history_`, the mean
    loss of each epoch.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Mishra, Piciarelli & Foresti 2021, "Image anomaly detection by aggregating
    deep pyramidal representations", ICPR workshops.
    """

    sizes: Counts = (6, 3, 2, 1)
    n_latent: Count = 8
    ssim_weight: NonNegative = field(default=0.0, kw_only=True)

    def _network(self, features: Sequence[int]) -> nn.Module:
        return PyramidNetwork(
            self.input_shape_,
            features,
            self.sizes,
            self.n_latent,
            self.width,
            self.decoder_input,
        )


@method("piade", "PIADE", chapter=15, options={"backbone": "texnet"})
@dataclass(eq=False, repr=False)
class PIADE(_Pyramid):
    """The pyramidal image anomaly detector: the cells of all scales are capsules, routed
    to two vectors, of which one is decoded, beside the features.

    Trained with Adam by the squared error of pixels, that of features, and one minus the
    SSIM. In training the first vector is decoded, so that the second learns nothing: no
    gradient reaches what votes for it. It takes what the first does not get. In scoring
    the longer one is decoded, and a map jumps where the other becomes longer.

    Args:
        sizes: cells along a side of each scale. (The paper's code pools four times to
            1 × 1, and so has one scale.)
        n_vectors: with one there is nothing to route.
        dim: numbers of each vector.
        n_primary: capsules of each cell, of eight numbers; 8 in the paper.
        n_iterations: of the routing.
        squeeze: whether a squeeze-and-excitation block weighs the channels. (The paper
            has one behind each block of a ResNet, which it trains.)
        ssim_weight: of one minus the SSIM; 1 in the paper, whose text adds the SSIM.
        backbone, layers, decoder_input, width, perceptual_weight, epochs, lr,
            image_score, batch_size, seed, device: as for `PyramidalAutoencoder`.

    Images are at least 11 pixels high and wide, for the SSIM.

    After `fit`: `network_`, a `RoutedNetwork`; `backbone_`; and `history_`, the mean
    loss of each epoch.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Mishra, Piciarelli & Foresti 2020, "A neural network for image anomaly
    detection with deep pyramidal representations and dynamic routing", IJNS.
    """

    sizes: Counts = (8, 4, 2, 1)
    n_vectors: Count = 2
    dim: Count = 64
    n_primary: Count = 2
    n_iterations: Count = 3
    squeeze: bool = True

    def _network(self, features: Sequence[int]) -> nn.Module:
        return RoutedNetwork(
            self.input_shape_,
            features,
            self.sizes,
            self.n_vectors,
            self.dim,
            self.n_primary,
            self.n_iterations,
            self.width,
            self.squeeze,
            self.decoder_input,
        )
