"""Images larger than a network's input: in tiles, each seen by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adlab._checks import check_number, check_sides
from adlab._parameters import Count, ImageScore, TwoOrMore, Whole
from adlab.detector import Localizer
from adlab.vectors.base import fit_inside


def corners(size: tuple[int, int], tile: int, step: int) -> list[tuple[int, int]]:
    """Rows and columns of the upper left corners of tiles that cover an image (H, W).

    Tiles are `step` apart; the last ones end where the image ends.
    """
    rows, columns = ([*range(0, n - tile, step), n - tile] for n in size)
    return [(row, column) for row in rows for column in columns]


def window(tile: int, overlap: int) -> Tensor:
    """Weights (tile, tile) of a tile's pixels: 1, and falling towards its sides where
    tiles overlap, so that no seam is left.
    """
    ramp = torch.arange(1, tile + 1.0).clamp(max=max(overlap, 1)) / max(overlap, 1)
    side = torch.minimum(ramp, ramp.flip(0))
    return side[:, None] * side


def _check_localizer(name: str, detector: object) -> None:
    if not isinstance(detector, Localizer):
        raise TypeError(
            f"{name}: expected a detector with maps, as PaDiM(), got "
            f"{type(detector).__name__}"
        )


@dataclass(eq=False, repr=False)
class Tiled(Localizer):
    """Any detector with maps, applied to square tiles of an image.

    One detector learns from the tiles of all places, and does not know where in the
    image a tile lies: right for textures; of parts that stand still it forgets which
    belongs where. Memory is that of a tile, not of an image, in learning, too. A map is
    the mean of those of the tiles that cover a pixel, less of it near their sides.
    Images of any size at least that of a tile will do.

    Args:
        detector: what learns from tiles, and scores them.
        tile: side of a tile, in pixels.
        overlap: of neighbouring tiles, in pixels, below tile; about as far as the
            detector sees. None for an eighth of the tile.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    any_size = True

    detector: Annotated[Localizer, _check_localizer]
    tile: TwoOrMore = 256
    overlap: Whole | None = None
    image_score: ImageScore = "max"
    batch_size: Count = field(default=4, kw_only=True)

    def _check_arguments(self) -> None:
        if self.overlap is not None:
            check_number("overlap", self.overlap, 0, self.tile - 1, whole=True)

    @property
    def _overlap(self) -> int:
        return self.tile // 8 if self.overlap is None else self.overlap

    def _fit(self, images: object) -> None:
        images = self._as_dataset(images)
        places = self._corners(next(self._stream(images)))
        self.detector_ = fit_inside(self, Tiles(images, places, self.tile))

    def _corners(self, batch: Tensor) -> list[tuple[int, int]]:
        size = tuple(batch.shape[2:])
        check_sides(size, self.tile, f"tile = {self.tile}")
        return corners(size, self.tile, self.tile - self._overlap)

    def _map(self, batch: Tensor) -> Tensor:
        size = self.tile, self._overlap
        weights = self._constant(size, lambda: window(*size)).to(batch)
        total = torch.zeros_like(batch[:, 0])
        count = torch.zeros_like(batch[0, 0])
        for row, column in self._corners(batch):
            place = (
                ...,
                slice(row, row + self.tile),
                slice(column, column + self.tile),
            )
            part = self.detector_._prepare(batch[place])
            total[place] += weights * self.detector_._map(part)
            count[place] += weights
        return total / count


class Tiles(Dataset):
    """The tiles of images, one after the other; of an image that is read from a file, it
    is kept until the next one is asked for.

    Args:
        images: a Dataset of images (C, H, W), or of tuples (image, …).
        places: upper left corners, of the tiles of each.
        tile: their side.
    """

    def __init__(self, images: Dataset, places: list[tuple[int, int]], tile: int):
        self.images, self.places, self.tile = images, places, tile
        self.last: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images) * len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        number, place = divmod(index, len(self.places))
        if self.last is None or self.last[0] != number:
            item = self.images[number]
            self.last = number, item[0] if isinstance(item, tuple | list) else item
        row, column = self.places[place]
        return self.last[1][..., row : row + self.tile, column : column + self.tile]
