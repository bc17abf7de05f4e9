"""SPADE against loops, SciPy and scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn.functional import interpolate

from adlab.spade import SPADE, distance_to_nearest, nearest_images

LAYERS = ("fine", "coarse")


class Network(nn.Module):
    """Two layers with strides 2 and 4, of 6 and 10 channels."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
            self.coarse = nn.Sequential(nn.Conv2d(6, 10, 3, 2, 1), nn.Tanh())

    def forward(self, x):
        return self.coarse(self.fine(x))


def pictures(n, channels=1, height=20, width=13, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width, generator=generator)


def spade(k=2, **options):
    return SPADE(Network(), LAYERS, k, **({"sigma": 0} | options))


def vectors(detector, images):
    """The vectors of each layer, float64 (N, h, w, C)."""
    return [f.double().numpy() for f in detector._embed(images)]


def slow_map(detector, train, image, neighbours):
    """By a loop over places and over the places of the neighbours: (H, W)."""
    galleries, own = vectors(detector, train), vectors(detector, image[None])
    maps = []
    for gallery, layer in zip(galleries, own, strict=True):
        layer = layer[0]
        distances = np.zeros(layer.shape[:2])
        for r, c in np.ndindex(*distances.shape):
            distances[r, c] = min(
                np.linalg.norm(layer[r, c] - gallery[i, y, x])
                for i in neighbours
                for y, x in np.ndindex(*distances.shape)
            )
        maps.append(
            interpolate(
                torch.from_numpy(distances)[None, None],
                image.shape[1:],
                mode="bilinear",
            )[0, 0].numpy()
        )
    return np.mean(maps, 0)


@pytest.mark.parametrize("max_grid", [None, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_map_is_that_of_a_slow_loop(channels, max_grid):
    train, test = pictures(4, channels), pictures(3, channels, seed=1)
    detector = spade(k=2, max_grid=max_grid).fit(train)
    side = 10 if max_grid is None else 4
    assert max(detector._embed(test)[0].shape[1:3]) == side
    pooled, own = (vectors(detector, x)[-1].mean((1, 2)) for x in (train, test))
    maps = detector.anomaly_map(test)
    for i in range(3):
        neighbours = np.argsort(cdist(own[i : i + 1], pooled)[0])[:2]
        expected = slow_map(detector, train, test[i], neighbours)
        np.testing.assert_allclose(maps[i], expected, rtol=1e-3, atol=1e-4)


def test_smoothing_is_scipys():
    train, test = pictures(4), pictures(2, seed=1)
    rough = spade().fit(train).anomaly_map(test).numpy()
    smooth = spade(sigma=1.5).fit(train).anomaly_map(test)
    expected = [gaussian_filter(m, 1.5) for m in rough]
    np.testing.assert_allclose(smooth, expected, rtol=1e-4)


def test_all_neighbours_are_the_whole_gallery():
    train, test = pictures(5), pictures(2, seed=1)
    detector = spade(k=5).fit(train)
    with torch.no_grad():
        got = detector.anomaly_map(test)
    expected = 0
    for gallery, own in zip(
        vectors(detector, train), vectors(detector, test), strict=True
    ):
        index = NearestNeighbors(n_neighbors=1).fit(gallery.reshape(-1, own.shape[-1]))
        distances = index.kneighbors(own.reshape(-1, own.shape[-1]))[0]
        maps = torch.from_numpy(distances.reshape(2, 1, *own.shape[1:3]))
        expected = expected + interpolate(maps, (20, 13), mode="bilinear")[:, 0] / 2
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_image_score_is_mean_squared_distance_to_the_nearest_images():
    train, test = pictures(9), pictures(4, seed=1)
    detector = spade(k=3).fit(train)
    pooled, own = (vectors(detector, x)[-1].mean((1, 2)) for x in (train, test))
    expected = np.sort(cdist(own, pooled, "sqeuclidean"))[:, :3].mean(1)
    np.testing.assert_allclose(detector.anomaly_score(test), expected, rtol=1e-4)


@pytest.mark.parametrize("image_score", ["max", "mean"])
def test_score_of_an_image_from_its_map(image_score):
    train, test = pictures(5), pictures(3, seed=1)
    detector = spade(image_score=image_score).fit(train)
    maps = detector.anomaly_map(test).flatten(1)
    expected = maps.amax(1) if image_score == "max" else maps.mean(1)
    torch.testing.assert_close(detector.anomaly_score(test), expected)


def test_training_image_scores_zero():
    train = pictures(6)
    detector = spade(k=1).fit(train)
    assert float(detector.anomaly_score(train).max()) < 1e-10
    new = float(detector.anomaly_map(pictures(2, seed=1)).mean())
    assert float(detector.anomaly_map(train).max()) < 0.02 * new  # rounding


def test_more_neighbours_only_lower_the_map():
    train, test = pictures(8), pictures(2, seed=1)
    maps = [spade(k).fit(train).anomaly_map(test) for k in (1, 2, 4, 8)]
    for few, more in pairwise(maps):
        assert bool((more <= few + 1e-5).all())
        assert bool((more < few).any())


def test_what_is_normal_elsewhere_is_normal_here():
    # The gallery has no places: an image moved by whole cells finds its parts again,
    # away from the seam in the middle and from the border.
    train = pictures(3, height=16, width=32)
    detector = spade(k=3).fit(train)
    maps = detector.anomaly_map(train.roll(16, 3))
    assert float(maps[..., 22:26].amax()) < 0.02 * float(maps.amax())


# the search


@pytest.mark.parametrize("chunk", [1, 7, 50, 51, 1000])
def test_no_remainder_of_the_gallery_is_dropped(chunk):
    x, gallery = torch.rand(20, 6), torch.rand(51, 6)
    gallery[-1] = x[3]  # the very last row is a match
    got = distance_to_nearest(x, gallery, chunk)
    expected = cdist(x, gallery).min(1)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
    assert float(got[3]) < 1e-3


def test_far_from_zero_distances_keep_their_digits():
    drawn = np.random.default_rng(0)
    x, gallery = (drawn.normal(size=(n, 5)) + 1000 for n in (9, 30))
    got = distance_to_nearest(torch.tensor(x).float(), torch.tensor(gallery).float())
    np.testing.assert_allclose(got, cdist(x, gallery).min(1), rtol=1e-3)


def test_nearest_images_are_scikit_learns():
    x, gallery = torch.rand(4, 7), torch.rand(12, 7)
    squared, index = nearest_images(x, gallery, 3)
    theirs = NearestNeighbors(n_neighbors=3).fit(gallery).kneighbors(x)
    np.testing.assert_allclose(squared.sqrt(), theirs[0], rtol=1e-5)
    np.testing.assert_array_equal(index, theirs[1])


# Bad input


def test_fewer_images_than_neighbours_are_refused():
    detector = spade(k=2).fit(pictures(3))
    with pytest.raises(ValueError, match="at least n_neighbors = 2, got 1"):
        detector.fit(pictures(1))
    assert detector.anomaly_map(pictures(1)).shape == (1, 20, 13)  # still fitted


test_bad_input = refuses(
    (lambda: SPADE(padding="edge"), ValueError, "padding…'edge'"),
    (lambda: SPADE(max_grid=2.5), TypeError, "max_grid…2.5"),
    (lambda: SPADE(n_neighbors=9).fit(IMAGES), ValueError, "images…n_neighbors = 9…8"),
)
