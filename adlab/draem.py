"""DRAEM: two networks learn from synthetic anomalies. One removes them, the other is
shown the image before and after, and says where they were.

    normal image ──▶ paste ──▶ I_a ──▶ reconstructive U-Net ──▶ I_r
                                └──── I_a and I_r ────┴──▶ discriminative U-Net ──▶ map

Source: Zavrtanik, Kristan & Skočaj 2021, "DRAEM: a discriminatively trained
reconstruction embedding for surface anomaly detection", ICCV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, log_softmax

from adlab import similarity, synthetic
from adlab._checks import check_number
from adlab._maps import smooth
from adlab._methods import method
from adlab._parameters import Count, Counts, ImageScore, NonNegative, Odd, Positive
from adlab.data.textures import photograph
from adlab.detector import Localizer
from adlab.training import seeded, update_batch_norm
from adlab.unet import UNet

SMALLEST = 11  # pixels, the window of the SSIM
MASKS = {"perlin": synthetic.noise_mask, "rectangle": synthetic.rectangle_mask}


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """-(1 - p)^γ log p of the right class, mean over all pixels: a cross-entropy to
    which a pixel adds little once it is recognised.

    Args:
        logits: (N, K, H, W).
        targets: (N, H, W), 0 to K - 1.
        gamma: γ >= 0; with 0 it is the cross-entropy.

    Source: Lin et al. 2017, "Focal loss for dense object detection", eq. 4.
    """
    right = log_softmax(logits, 1).gather(1, targets.long()[:, None])
    return -((1 - right.exp()) ** gamma * right).mean()


@method("draem", "DRAEM", chapter=13)
@dataclass(eq=False, repr=False)
class DRAEM(Localizer):
    """Discriminatively trained reconstruction: the score of a pixel is the posterior
    probability that something was pasted over it.

    Trained with Adam on normal images, into half of which a foreign texture is pasted,
    anew in every step. The reconstructive network learns to give back the image
    without it, by the squared error and SSIM; the discriminative network learns where
    it was, by the focal loss, from the image and its reconstruction.

    Args:
        networks: "both"; or, as controls, "discriminative", which sees the image alone;
            or "reconstructive", whose score is one minus the SSIM of the image and its
            reconstruction.
        source: of the foreign textures: "procedural", or crops of a photograph, "brick",
            "grass" or "gravel". It should not be one that is to be detected.
        mask: shape of what is pasted: thresholded Perlin noise, "perlin", or "rectangle".
        least_opacity: of what is pasted, in [0, 1]; β is drawn from there to 1 for each
            image. With 1 the texture covers what it is pasted on.
        clean: share of the images that are left as they are, in [0, 1).
        ssim_weight: λ, of one minus the SSIM in the loss.
        focusing: γ, of the focal loss.
        widths: channels of each level of both U-Nets.
        smoothing: side of the square over which a map is averaged, odd; 1 for the
            posterior itself. The paper has 21, for images of 256 × 256 pixels, and only
            for the image's score.
        epochs: passes through the training images.
        lr: Adam's step size.
        image_score: "max" (as in the paper) or "mean" of the map.
        batch_size: images per step.
        seed: of the first weights, the order, and all that is pasted.
        device: "auto", "cpu", "cuda", …

    Images are at least 11 pixels high and wide, for the SSIM. The paper's networks are
    larger, and its reconstructive one has no skip connections.

    After `fit`: `reconstructive_` and `discriminative_`, each a `UNet`, those that there
    are; and `history_`, the mean loss of each epoch.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Zavrtanik, Kristan & Skočaj 2021, "DRAEM: a discriminatively trained
    reconstruction embedding for surface anomaly detection", ICCV.
    """

    any_size = True

    networks: Literal["both", "discriminative", "reconstructive"] = "both"
    source: Literal["procedural", "brick", "grass", "gravel"] = "procedural"
    mask: Literal["perlin", "rectangle"] = "perlin"
    least_opacity: Annotated[float, partial(check_number, low=0, high=1)] = 0.1
    clean: Annotated[float, partial(check_number, low=0, high=1, open_high=True)] = 0.5
    ssim_weight: NonNegative = 1.0
    focusing: NonNegative = 2.0
    widths: Counts = (12, 24, 48)
    smoothing: Odd = 5
    epochs: Count = 30
    lr: Positive = 2e-3
    image_score: ImageScore = "max"
    batch_size: Count = field(default=8, kw_only=True)

    def _build(self) -> None:
        channels = self.input_shape_[0]
        if self.networks != "discriminative":
            self.reconstructive_ = UNet(channels, self.widths, batch_norm=True)
        if self.networks != "reconstructive":
            seen = channels if self.networks == "discriminative" else 2 * channels
            self.discriminative_ = UNet(seen, self.widths, 2, batch_norm=True)

    def _fit(self, images: object) -> None:
        self._check_sides(images, SMALLEST)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build()
        parts = [part for part in self._parts() if part is not None]
        self.history_ = self._optimise(nn.ModuleList(parts), self._loss, images)
        self._settle(images)

    def _settle(self, images: object) -> None:
        """Take the statistics of the batch norms for the networks as they are now."""
        reconstruct, discriminate = self._parts()
        if reconstruct is not None:
            update_batch_norm(reconstruct, self._anomalous(images))
        if discriminate is not None:
            seen = (
                _beside(batch, reconstruct(batch) if reconstruct else None)
                for batch in self._anomalous(images)
            )
            update_batch_norm(discriminate, seen)

    def _anomalous(self, images: object) -> Iterator[Tensor]:
        """Batches as in the training, the same however the images are read."""
        for number, batch in enumerate(self._stream(images)):
            with seeded((self.seed + number) % 2**63):
                anomalous, _ = self.synthesise(batch)
            yield anomalous

    def _parts(self) -> tuple[UNet | None, UNet | None]:
        names = ("reconstructive_", "discriminative_")
        return tuple(getattr(self, name, None) for name in names)

    def synthesise(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images with something pasted, as in the training: draws from torch's generator.

        Args:
            images: normal ones, (N, C, H, W) in [0, 1].

        Returns:
            I_a, of the same shape, and bool masks (N, H, W), empty where an image was
            left as it is.
        """
        n, channels, height, width = images.shape
        pairs = [self._draw(channels, height, width) for _ in range(n)]
        foreign, masks = (
            torch.stack(each).to(images.device) for each in zip(*pairs, strict=True)
        )
        pasted = masks & (torch.rand(n) >= self.clean).to(masks.device)[:, None, None]
        least = self.least_opacity
        opacity = (least + (1 - least) * torch.rand(n)).to(images)
        return synthetic.paste(images, foreign, pasted, opacity), pasted

    def _draw(self, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """A foreign texture and a mask."""
        if self.source == "procedural":
            texture = synthetic.procedural_texture(channels, height, width)
        else:
            texture = _crop_of(self.source, height, width).expand(channels, -1, -1)
        return texture, MASKS[self.mask](height, width)

    def _loss(self, images: Tensor) -> Tensor:
        anomalous, masks = self.synthesise(images)
        reconstructed, logits = self._both(anomalous)
        loss = images.new_zeros(())
        if reconstructed is not None:
            alike = similarity.ssim(images, reconstructed, data_range=1)
            error = similarity.mse(images, reconstructed)
            loss = loss + (error + self.ssim_weight * (1 - alike)).mean()
        if logits is not None:
            loss = loss + focal_loss(logits, masks, self.focusing)
        return loss

    def _both(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Reconstructions (B, C, H, W) and logits (B, 2, H, W), those that there are."""
        reconstruct, discriminate = self._parts()
        reconstructed = reconstruct(images) if reconstruct else None
        if discriminate is None:
            return reconstructed, None
        return reconstructed, discriminate(_beside(images, reconstructed))

    def reconstruct(self, images: object) -> Tensor:
        """I_r: images as the reconstructive network gives them back.

        Args:
            images: as for `fit`.

        Returns:
            float32 (N, C, H, W), about in [0, 1].

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range; there is no
                reconstructive network.
        """
        if self.networks == "discriminative":
            raise ValueError("networks: expected a reconstructive one, got none")
        return self._apply(lambda batch: self.reconstructive_(batch), images)

    def _map(self, batch: Tensor) -> Tensor:
        reconstructed, logits = self._both(batch)
        if logits is None:
            maps = 1 - similarity.ssim_map(batch, reconstructed, data_range=1)
        else:
            maps = logits.softmax(1)[:, 1]
        return smooth(maps, self.smoothing)


def _beside(images: Tensor, reconstructed: Tensor | None) -> Tensor:
    """What the discriminative network sees."""
    return images if reconstructed is None else torch.cat([images, reconstructed], 1)


@lru_cache
def _photo(name: str) -> Tensor:
    """A whole photograph, read once: (512, 512)."""
    return torch.from_numpy(photograph(name)).float()


def _crop_of(name: str, height: int, width: int) -> Tensor:
    """A square of a photograph, resized where it is too small: float32 (1, H, W)."""
    photo = _photo(name)
    side = min(max(height, width), len(photo))
    corner = torch.randint(len(photo) - side + 1, (2,)).tolist()
    crop = photo[corner[0] :, corner[1] :][:side, :side]
    if (height, width) == (side, side):
        return crop[None]
    return interpolate(crop[None, None], (height, width), mode="bilinear")[0]
