"""Reconstruction by inpainting: hide a part of the image, let a network guess it from
what is left, and see how far off the guess is.

    image ──▶ hide cells ──▶ U-Net ──▶ keep the hidden cells ─┐
      └────▶ hide others ──▶ U-Net ──▶ keep the hidden cells ─┴▶ inpainted image

No pixel is rebuilt by a network that saw it. So a copy is impossible, however wide the
network and whatever its skip connections carry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from adlab import similarity
from adlab._checks import check_counts, check_number, check_sides
from adlab._maps import smooth
from adlab._methods import method
from adlab._parameters import (
    Count,
    Counts,
    ImageScore,
    NonNegative,
    Odd,
    Positive,
    TwoOrMore,
)
from adlab.augmentation import random_crop
from adlab.detector import Localizer
from adlab.training import seeded
from adlab.unet import UNet, in_strips

SCALES = 4  # of the gradient magnitude similarity
SMALLEST = 24  # pixels: 3 at the coarsest scale, for the gradient

# -- what is hidden


def cell_masks(height: int, width: int, cell_size: int, n_sets: int = 3) -> Tensor:
    """Masks M_j of a random partition of the image into cells, bool (n_sets, H, W),
    True where visible.

    The image is tiled by squares, cut off at the right and lower border where their
    side does not divide it. Each square is hidden by exactly one mask, and the numbers
    of squares that two masks hide differ by one at most. Draws from torch's generator.

    Args:
        height, width: of the image, in pixels.
        cell_size: side of a square, in pixels.
        n_sets: number of masks, from 2 to the number of squares.

    Raises:
        TypeError, ValueError: a number out of its range.

    Source: Zavrtanik, Kristan & Skočaj 2021, "Reconstruction by inpainting for visual
    anomaly detection", section 3.1.
    """
    check_number("height", height, 1, whole=True)
    check_number("width", width, 1, whole=True)
    check_number("cell_size", cell_size, 1, whole=True)
    rows, columns = -(-height // cell_size), -(-width // cell_size)
    check_number("n_sets", n_sets, 2, max(2, rows * columns), whole=True)
    sets = (torch.randperm(rows * columns) % n_sets).view(rows, columns)
    sets = sets.repeat_interleave(cell_size, 0).repeat_interleave(cell_size, 1)
    return sets[:height, :width] != torch.arange(n_sets)[:, None, None]


def inpaint(network: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    """Every pixel as the network guesses it where it is hidden: Σ_j (1 - M_j) U(M_j I).

    Args:
        network: maps images (B, C, H, W), zero where hidden, to whole images.
        images: (N, C, H, W).
        masks: bool (n, H, W), True where visible, each pixel hidden by exactly one.

    Returns:
        (N, C, H, W).

    Source: Zavrtanik, Kristan & Skočaj 2021, eq. 1.
    """
    hidden = ~masks[:, None, None].to(images.device)
    guesses = network((images * ~hidden).flatten(0, 1))
    return (guesses.view(len(masks), *images.shape) * hidden).sum(0)


# -- loss and score


def inpainting_loss(
    x: Tensor, y: Tensor, ssim_weight: float = 1.0, gms_weight: float = 1.0
) -> Tensor:
    """ℓ² + λ_S (1 - SSIM) + λ_G (1 - MSGMS) of inpainted images y of images x: (N,).

    Every pixel of y was hidden when it was guessed, so the loss is that of hidden pixels
    only.

    Args:
        x, y: (N, C, H, W) of at least 24 pixels high and wide, x in [0, 1].
        ssim_weight, gms_weight: λ_S and λ_G.

    Source: Zavrtanik, Kristan & Skočaj 2021, eq. 4 to 6.
    """
    loss = similarity.mse(x, y)
    if ssim_weight:
        loss = loss + ssim_weight * (1 - similarity.ssim(x, y, data_range=1))
    if gms_weight:
        alike = similarity.ms_gms(x, y, data_range=1, scales=SCALES)
        loss = loss + gms_weight * (1 - alike)
    return loss


def loss_map(
    x: Tensor, y: Tensor, ssim_weight: float = 1.0, gms_weight: float = 1.0
) -> Tensor:
    """The same for every pixel: (N, H, W)."""
    loss = similarity.mse_map(x, y)
    if ssim_weight:
        loss = loss + ssim_weight * (1 - similarity.ssim_map(x, y, data_range=1))
    return loss + gms_weight * gradient_map(x, y) if gms_weight else loss


def gradient_map(x: Tensor, y: Tensor) -> Tensor:
    """1 - MSGMS around every pixel, (N, H, W) in [0, 1)."""
    return 1 - similarity.ms_gms_map(x, y, data_range=1, scales=SCALES)


# -- the detector


@method("inpainting", "inpainting", chapter=10)
@dataclass(eq=False, repr=False)
class Inpainting(Localizer):
    """Reconstruction by inpainting (RIAD): the score is how badly hidden pixels are
    guessed from visible ones.

    Trained with Adam on random crops of normal images; each step hides squares of one
    size, drawn from `cell_sizes`. Scoring inpaints the whole image once for each size,
    always with the same masks, and averages the smoothed maps with equal weights. That is
    one pass through the network for each size and mask, 9 as it comes.

    Args:
        cell_sizes: sides of the hidden squares, in pixels, each at most half of
            `patch_size`. Of small ones the neighbours tell nearly everything; large ones
            hide a defect whole.
        n_sets: masks per size; each hides 1 / n_sets of the image.
        ssim_weight, gms_weight: λ_S and λ_G of the loss, at least 0.
        score: "loss", the loss of every pixel, as in the lecture; or "gms", one minus the
            multi-scale gradient magnitude similarity, as in the paper.
        smoothing: side of the square over which a map is averaged, odd; 21 in the paper,
            for images of 256 × 256 pixels.
        widths: channels of each level of the U-Net. (64, 128, 256, 512, 512) in the
            paper.
        patch_size: side of a training crop: at least 24, at most that of the images.
        epochs: passes through the training images.
        lr: Adam's step size.
        image_score: "max" (as in the paper) or "mean" of the map.
        seed: of the first weights, the crops, the masks and the order.
        device: "auto", "cpu", "cuda", …

    Images to be scored are at least 24 pixels high and wide; no size need be a multiple
    of a cell's.

    After `fit`: `network_`, a `UNet`, and `history_`, the mean loss of each epoch.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Zavrtanik, Kristan & Skočaj 2021, "Reconstruction by inpainting for visual
    anomaly detection", Pattern Recognition 112.
    """

    any_size = True

    cell_sizes: Counts = (2, 4, 8)
    n_sets: TwoOrMore = 3
    ssim_weight: NonNegative = 1.0
    gms_weight: NonNegative = 1.0
    score: Literal["loss", "gms"] = "loss"
    smoothing: Odd = 11
    widths: Counts = (16, 32, 64)
    patch_size: Annotated[int, partial(check_number, low=SMALLEST, whole=True)] = 32
    epochs: Count = 30
    lr: Positive = 2e-3
    image_score: ImageScore = "max"
    batch_size: Count = field(default=8, kw_only=True)

    def _check_arguments(self) -> None:
        check_counts("cell_sizes", self.cell_sizes, self.patch_size // 2)
        cells = (-(-self.patch_size // max(self.cell_sizes))) ** 2
        check_number("n_sets", self.n_sets, 2, cells, whole=True)

    def inpaint(self, images: object, cell_size: int) -> Tensor:
        """What the network guesses for every pixel, hidden in squares of that side.

        Args:
            images: as for `fit`, of any height and width that can be scored.
            cell_size: one of `cell_sizes`, or another.

        Returns:
            float32 (N, C, H, W), about in [0, 1].

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range; a size out of
                its range.
        """
        return self._apply(lambda batch: self._inpaint(batch, cell_size), images)

    def _build(self) -> None:
        self.network_ = UNet(self.input_shape_[0], self.widths)

    def _fit(self, images: object) -> None:
        words = f"patch_size = {self.patch_size}"
        self._check_sides(images, self.patch_size, words)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build()
        self.history_ = self._optimise(
            self.network_,
            lambda batch: self._loss(random_crop(batch, self.patch_size)),
            images,
        )

    def _loss(self, x: Tensor) -> Tensor:
        """The mean loss of crops (B, C, size, size), with squares of one size, drawn."""
        size = self.cell_sizes[int(torch.randint(len(self.cell_sizes), ()))]
        y = inpaint(self.network_, x, cell_masks(*x.shape[2:], size, self.n_sets))
        return inpainting_loss(x, y, self.ssim_weight, self.gms_weight).mean()

    def _inpaint(self, batch: Tensor, cell_size: int) -> Tensor:
        """Inpainted images; the masks are the same for every image. One after the other,
        for the sake of memory: what one hides is zero in the guesses for all others.
        """
        size = (*batch.shape[2:], cell_size, self.n_sets)
        masks = self._constant(size, lambda: cell_masks(*size))
        network = partial(in_strips, self.network_)
        return sum(inpaint(network, batch, mask[None]) for mask in masks)

    def _map(self, batch: Tensor) -> Tensor:
        check_sides(batch.shape, SMALLEST)
        maps = [self._residual(batch, size) for size in self.cell_sizes]
        return smooth(sum(maps) / len(maps), self.smoothing)

    def _residual(self, batch: Tensor, cell_size: int) -> Tensor:
        y = self._inpaint(batch, cell_size)
        if self.score == "gms":
            return gradient_map(batch, y)
        return loss_map(batch, y, self.ssim_weight, self.gms_weight)
