"""Segmentation: networks that are shown masks of known defects, and mark the like of
them.

    images, masks ──▶ Dice loss + binary cross-entropy ──▶ network ──▶ posterior of
                                                                       every pixel

They are what a detector of anomalies is held against where examples of defects are to
be had. What they have not been shown, they need not find.

Source: Long, Shelhamer & Darrell 2015; Ronneberger, Fischer & Brox 2015; Badrinarayanan,
Kendall & Cipolla 2017; Zhou et al. 2018; each at its network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    interpolate,
    max_pool2d,
    max_unpool2d,
    softplus,
)

from adlab._methods import method
from adlab._parameters import Count, Counts, ImageScore, Positive
from adlab.detector import LabelledDetector, Localizer
from adlab.training import seeded, update_batch_norm
from adlab.unet import UNet, double_convolution

# -- losses


def dice(p: Tensor, g: Tensor, smoothing: float = 1.0) -> Tensor:
    """Dice's coefficient, how far two masks agree: (2 Σ p g + s) / (Σ p + Σ g + s), sums
    over all pixels of all images.

    Of the same mask it is 1, of two without a common pixel s / (Σ p + Σ g + s), nearly 0.
    Pixels that neither marks do not count, however many they are.

    Args:
        p: posteriors in [0, 1], of any shape.
        g: masks of that shape, 0 or 1.
        smoothing: s > 0, so that two empty masks agree.

    Source: Milletari, Navab & Ahmadi 2016, "V-Net: fully convolutional neural networks
    for volumetric medical image segmentation"; there squares are summed below.
    """
    return (2 * (p * g).sum() + smoothing) / (p.sum() + g.sum() + smoothing)


def binary_cross_entropy(logits: Tensor, g: Tensor) -> Tensor:
    """-g log p - (1 - g) log(1 - p), mean over all pixels, where p = 1 / (1 + exp(-z)).

    It is log(1 + exp(z)) - g z, which no logit makes infinite.

    Args:
        logits: z, of any shape.
        g: masks of that shape, 0 or 1.
    """
    return (softplus(logits) - g * logits).mean()


# -- networks: images (N, C, H, W) of any size to logits of that size


class FCN(nn.Module):
    """A fully convolutional network: every level halves the image, and says by a 1 × 1
    convolution what it sees; a coarser one's word, enlarged, is added to a finer one's.

    The sum over all levels, from half of the resolution on, is the FCN-8s of the paper,
    whose levels had strides of 8, 16 and 32. torchvision's FCN reads one level of a
    ResNet-50, without skips: 33 million numbers, more than a CPU trains in a lesson.

    Args:
        channels: of the images.
        widths: channels of each level, from fine to coarse.
        outputs: channels of what comes out.
        batch_norm: whether each ReLU has a batch normalisation before it.

    Source: Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic
    segmentation".
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        outputs: int = 1,
        batch_norm: bool = False,
    ):
        super().__init__()
        self.down = nn.ModuleList(
            double_convolution(before, width, batch_norm)
            for before, width in pairwise((channels, *widths))
        )
        self.scores = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the same size."""
        sizes, said = [], []
        for level, score in zip(self.down, self.scores, strict=True):
            sizes.append(x.shape[2:])
            x = max_pool2d(level(x), 2, ceil_mode=True)
            said.append(score(x))
        total = 0
        for size, score in zip(reversed(sizes), reversed(said), strict=True):
            total = interpolate(total + score, size, mode="bilinear")
        return total


class UNetPlusPlus(UNet):
    """A `UNet` whose skip connections are filled with convolutions: node (i, j) of level
    i sees the nodes (i, 0) to (i, j - 1) and, enlarged, (i + 1, j - 1). Column 0 is the
    way down, and the last node of the finest level is what counts.

    The paper can also train the other nodes of that level on the masks, and average.

    Source: Zhou, Rahman Siddiquee, Tajbakhsh & Liang 2018, "UNet++: a nested U-Net
    architecture for medical image segmentation".
    """

    def _way_up(self, widths: Sequence[int], batch_norm: bool) -> nn.ModuleList:
        pairs = list(pairwise(widths))
        return nn.ModuleList(
            nn.ModuleList(
                double_convolution(j * fine + coarse, fine, batch_norm)
                for fine, coarse in pairs[: len(widths) - j]
            )
            for j in range(1, len(widths))
        )

    def _decode(self, features: list[Tensor]) -> Tensor:
        rows = [[x] for x in features]
        for column in self.up:
            for i, level in enumerate(column):
                coarser = interpolate(rows[i + 1][-1], scale_factor=2)
                rows[i].append(level(torch.cat([*rows[i], coarser], 1)))
        return rows[0][-1]


class SegNet(UNet):
    """A `UNet` that hands over no features, but where the maxima were: on the way up each
    number goes back to the place it came from, and zeros around it.

    Every level is followed by a maximum, so it goes down one step farther than a U-Net
    of the same widths.

    Source: Badrinarayanan, Kendall & Cipolla 2017, "SegNet: a deep convolutional
    encoder-decoder architecture for image segmentation", TPAMI.
    """

    def _way_up(self, widths: Sequence[int], batch_norm: bool) -> nn.ModuleList:
        self.factor *= 2  # the last level is followed by a maximum, too
        return nn.ModuleList(
            double_convolution(coarse, fine, batch_norm)
            for coarse, fine in pairwise((*reversed(widths), widths[0]))
        )

    def _encode(self, x: Tensor) -> list[Tensor]:
        """The places of the maxima of each level, and the features of the last."""
        places = []
        for level in self.down:
            x, place = max_pool2d(level(x), 2, return_indices=True)
            places.append(place)
        return [*places, x]

    def _decode(self, features: list[Tensor]) -> Tensor:
        *places, x = features
        for level, place in zip(self.up, reversed(places), strict=True):
            x = level(max_unpool2d(x, place, 2))
        return x


NETWORKS = {"fcn": FCN, "unet": UNet, "unet++": UNetPlusPlus, "segnet": SegNet}


# -- the detector


@method(
    "segmentation",
    "segmentation",
    chapter=17,
    options={"network": "unet"},
    labelled=0.1,
    masks=True,
)
@dataclass(eq=False, repr=False)
class Segmentation(LabelledDetector, Localizer):
    """A network that marks defects: the score of a pixel is the posterior probability
    that it belongs to one.

    Trained with Adam on one minus `dice` plus the `binary_cross_entropy`, of normal
    images and of images with masks: `fit(images, labelled)`. Images without labels count
    as normal, and all are held in memory. Without labelled ones there is nothing to
    learn, and every pixel becomes normal.

    Args:
        network: "unet", a `UNet`; "fcn", "unet++" or "segnet", as `FCN`, `UNetPlusPlus`
            and `SegNet`. All have batch normalisation, as only SegNet has in its paper.
        widths: channels of each level, from fine to coarse.
        epochs: passes through the training images.
        lr: Adam's step size.
        image_score: "max" or "mean" of the map.
        batch_size: images per step.
        seed: of the first weights and the order.
        device: "auto", "cpu", "cuda", …

    After `fit`: `network_`, and `history_`, the mean loss of each epoch.

    Raises:
        TypeError, ValueError: an argument out of its range; labelled images without
            masks.

    Source: Dice loss and cross-entropy together, as Isensee et al. 2021, "nnU-Net: a
    self-configuring method for deep learning-based biomedical image segmentation".
    """

    any_size = True

    network: Literal["unet", "fcn", "unet++", "segnet"] = "unet"
    widths: Counts = (16, 32, 64)
    epochs: Count = 20
    lr: Positive = 2e-3
    image_score: ImageScore = "max"
    batch_size: Count = field(default=8, kw_only=True)

    def _build(self) -> None:
        make = NETWORKS[self.network]
        self.network_ = make(self.input_shape_[0], self.widths, 1, batch_norm=True)

    def _fit(self, images: object) -> None:
        images, masks = self._marked(images)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build()
        self.history_ = self._learn(self.network_, self._loss, images, masks)
        update_batch_norm(self.network_, images.split(self.batch_size))

    def _loss(self, images: Tensor, masks: Tensor) -> Tensor:
        logits = self.network_(images)[:, 0]
        overlap = dice(logits.sigmoid(), masks)
        return 1 - overlap + binary_cross_entropy(logits, masks)

    def _map(self, batch: Tensor) -> Tensor:
        return self.network_(batch)[:, 0].sigmoid()
