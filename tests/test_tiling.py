"""Tiles: what covers an image, what is learned from them, and what the map is."""

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from PIL import Image

import adlab
from adlab.data import ImageFolder
from adlab.tiling import Tiled, Tiles, corners, window
from adlab.vectors import KNN, Gaussian, Patchwise, PixelGaussian


def pictures(n=3, channels=1, height=21, width=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width, generator=generator)


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (21, 17), (40, 23)])
@pytest.mark.parametrize("overlap", [0, 3, 7])
def test_tiles_cover_every_pixel_and_none_beyond(size, overlap):
    count = np.zeros(size, int)
    found = corners(size, 8, 8 - overlap)
    for row, column in found:
        assert 0 <= row <= size[0] - 8 and 0 <= column <= size[1] - 8
        count[row : row + 8, column : column + 8] += 1
    assert count.min() == 1 and len(set(found)) == len(found)
    if size == (8, 8):
        assert found == [(0, 0)]


@pytest.mark.parametrize("overlap", [1, 3, 4])
def test_weights_of_neighbouring_tiles_meet_without_a_step(overlap):
    side = window(8, overlap)[3] / window(8, overlap)[3].max()
    assert side.max() == 1 and bool((side > 0).all())
    assert torch.equal(side, side.flip(0))
    steps = side.diff().abs()
    assert float(steps.max()) <= 1 / overlap + 1e-6
    assert torch.equal(window(8, 0), torch.ones(8, 8))


def test_it_learns_from_the_tiles_of_all_images():
    images = pictures()
    tiled = Tiled(PixelGaussian(), 8, 2).fit(images)
    places = corners((21, 17), 8, 6)
    cut = torch.cat([images[..., r : r + 8, c : c + 8] for r, c in places])
    alone = PixelGaussian().fit(cut)
    probe = pictures(2, height=8, width=8, seed=1)
    maps = alone.anomaly_map(probe)
    torch.testing.assert_close(tiled.anomaly_map(probe), maps, rtol=1e-4, atol=1e-4)


def test_a_map_is_the_weighted_mean_of_those_of_the_tiles():
    tiled = Tiled(PixelGaussian(), 8, 3).fit(pictures(6))
    image = pictures(1, height=19, width=23, seed=2)
    total, weight = np.zeros((19, 23)), np.zeros((19, 23))
    for r, c in corners((19, 23), 8, 5):
        part = tiled.detector_.anomaly_map(image[..., r : r + 8, c : c + 8])[0].numpy()
        for i in range(8):
            for j in range(8):
                near = min(i + 1, 8 - i, 3) / 3 * min(j + 1, 8 - j, 3) / 3
                total[r + i, c + j] += near * part[i, j]
                weight[r + i, c + j] += near
    found = tiled.anomaly_map(image)[0]
    np.testing.assert_allclose(found, total / weight, rtol=1e-5)
    assert float(tiled.anomaly_score(image)) == pytest.approx(float(found.max()))


def test_one_tile_is_the_detector_itself():
    images = pictures(12, 3, 16, 16)
    alone = Patchwise(Gaussian(), 4).fit(images)
    tiled = Tiled(Patchwise(Gaussian(), 4), 16).fit(images)
    maps = alone.anomaly_map(images)
    torch.testing.assert_close(tiled.anomaly_map(images), maps)


def test_files_are_cut_one_by_one(tmp_path):
    images = (pictures(4) * 255).byte()
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i}.png")
    folder, read = ImageFolder(tmp_path), []
    tiles = Tiles(folder, corners((21, 17), 8, 6), 8)
    folder.reading = Counting(folder.reading, read)
    assert torch.stack(list(tiles)).shape == (4 * 12, 1, 8, 8)
    assert len(read) == 4
    found = Tiled(PixelGaussian(), 8, 2).fit(tmp_path).anomaly_map(tmp_path)
    expected = Tiled(PixelGaussian(), 8, 2).fit(images / 255).anomaly_map(images / 255)
    torch.testing.assert_close(found, expected)


class Counting:
    """A reading that says what it reads."""

    def __init__(self, reading, read):
        self.reading, self.file = reading, read

    def read(self, file):
        self.file.append(file)
        return self.reading.read(file)


def test_images_that_come_once_are_enough():
    images = pictures(4)
    maps = Tiled(PixelGaussian(), 8, 2).fit(iter([images])).anomaly_map(images)
    expected = Tiled(PixelGaussian(), 8, 2).fit(images).anomaly_map(images)
    torch.testing.assert_close(maps, expected)


def test_it_keeps_the_contract():
    adlab.check_detector(Tiled(Patchwise(Gaussian(), 4), 12, 4))


test_bad_input = refuses(
    (lambda: Tiled(KNN()), TypeError, "detector…with maps…KNN"),
    (lambda: Tiled(PixelGaussian(), 1), ValueError, "tile…1"),
    (lambda: Tiled(PixelGaussian(), 8, 8), ValueError, "overlap…[0, 7]…8"),
    (lambda: Tiled(PixelGaussian(), 8, 1).fit(IMAGES), ValueError, "images…8…(6, 5)"),
)
