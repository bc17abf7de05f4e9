"""Oracles and data of the hidden tests of assignment 3."""

import numpy as np
import torch
from grading import answer, equal, fresh, seed
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from torch.nn.functional import interpolate

GRID = 3, 2  # places


def vectors(k, n, d):
    """Return vectors that vary otherwise at every place, (n, 3, 2, d)."""
    rng = np.random.default_rng(seed(k))
    mixing = rng.normal(size=(*GRID, d, d))
    drawn = rng.normal(size=(n, *GRID, d)) + 5
    return torch.from_numpy(np.einsum("nrci,rcij->nrcj", drawn, mixing))


def places(k, n, d, epsilon=0.1):
    """Return vectors, and the mean and the covariance at every place, by NumPy."""
    known = vectors(k, n, d)
    covariances = np.empty((*GRID, d, d))
    for place in np.ndindex(GRID):
        rows = known[(slice(None), *place)].numpy()
        covariances[place] = np.cov(rows, rowvar=False) + epsilon * np.eye(d)
    return known, known.mean(0), torch.from_numpy(covariances)


def check_fit(fit_places, n, d):
    """Compare with NumPy at every place."""
    known, means, covariances = places(1, n, d)
    found = answer(fit_places, known, 0.1)
    assert len(found) == 2, "expected means and covariances"
    assert equal(found[0], means), f"of {n} images the means are not right"
    assert equal(found[1], covariances), (
        f"of {n} images the covariances are not right; the first number of the first is "
        f"{float(found[1].flatten()[0]):.5g}, expected {float(covariances[0, 0, 0, 0]):.5g}"
    )


def check_distance(distance_map):
    """Compare with SciPy, vector by vector."""
    _, means, covariances = places(3, 9, 4)
    new = vectors(4, 5, 4)
    expected = np.empty((5, *GRID))
    for n, *place in np.ndindex(5, *GRID):
        at = tuple(place)
        inverse = np.linalg.inv(covariances[at])
        expected[(n, *at)] = mahalanobis(new[(n, *at)], means[at], inverse)
    found = torch.as_tensor(answer(distance_map, new, means, covariances))
    assert found.shape == expected.shape, (
        f"expected distances {expected.shape}, got {tuple(found.shape)}"
    )
    assert equal(found, expected), (
        f"the first distance is {float(found.flatten()[0]):.5g}, "
        f"expected {expected.flat[0]:.5g}"
    )


def finished(distances, height, width, sigma):
    """Return maps that are right."""
    large = interpolate(
        distances[:, None].double(), (height, width), mode="bilinear"
    )
    maps = [gaussian_filter(image.numpy(), sigma) for image in large[:, 0]]
    return torch.from_numpy(np.stack(maps))


def check_finish(finish):
    """Compare with one image after the other."""
    generator = torch.Generator().manual_seed(seed(6))
    distances = torch.rand(3, 5, 4, generator=generator).double()
    found = answer(finish, distances, 17, 12, 1.5)
    assert torch.as_tensor(found).shape == (3, 17, 12), (
        "the maps have another size"
    )
    assert equal(found, finished(distances, 17, 12, 1.5)), (
        "the maps are not those of enlarging first and smoothing then, each by itself"
    )


def fitted(known, epsilon):
    """Return means and covariances that are right."""
    means, gaps = known.mean(0), known - known.mean(0)
    scatters = (gaps[..., :, None] * gaps[..., None, :]).sum(0) / (
        len(known) - 1
    )
    return means, scatters + epsilon * torch.eye(known.shape[-1]).to(scatters)


def distances_of(new, means, covariances):
    """Return distances that are right."""
    gaps = new - means
    solved = torch.linalg.solve(covariances, gaps[..., None])[..., 0]
    return (gaps * solved).sum(-1).clamp(min=0).sqrt()


def check_channels(padim):
    """Assert which channels are used: as many as asked, the same for train and test, by
    the seed, and the numbers of the question.
    """
    seen = []

    def features(images):  # channel k of an image is its mean plus k
        return (
            images.mean((1, 2, 3))[:, None, None, None]
            + torch.arange(30).double()
        )

    def fit_places(known, epsilon):
        seen.append((known[0, 0, 0] - train[0].mean(), epsilon))
        return known.mean(0), torch.eye(known.shape[-1]).double()

    def distance_map(new, means, covariances):
        seen[-1] += (new[0, 0, 0] - test[0].mean(),)
        return new[..., 0]

    def finish(distances, height, width, sigma):
        seen[-1] += ((height, width, sigma),)
        return torch.zeros(len(distances), height, width)

    generator = torch.Generator().manual_seed(seed(7))
    train = torch.rand(6, 1, 4, 5, generator=generator).double()
    test = torch.rand(3, 1, 4, 5, generator=generator).double()
    for number in (1, 1, 2):
        answer(
            padim,
            train,
            test,
            9,
            number,
            features,
            fit_places,
            distance_map,
            finish,
        )
    drawn = [[round(float(c)) for c in known] for known, *_ in seen]
    assert all(len(set(channels)) == 9 for channels in drawn), (
        f"of 9 channels to be drawn you use {len(set(drawn[0]))} different ones"
    )
    assert drawn[0] == [round(float(c)) for c in seen[0][2]], (
        "the channels of the training images are not those of the test images"
    )
    assert drawn[0] == drawn[1], "with the same seed you draw other channels"
    assert sorted(drawn[0]) != sorted(drawn[2]), (
        "another seed draws the same channels"
    )
    assert abs(seen[0][1] - 0.01) < 1e-9, (
        f"epsilon is {seen[0][1]}, expected 0.01"
    )
    assert seen[0][3] == (4, 5, 2.0), (
        f"height, width and sigma are {seen[0][3]}, expected (4, 5, 2.0)"
    )


def check_walls(padim):
    """Assert that it finds foreign blobs on walls that nobody has seen."""
    adlab = fresh("adlab")
    network = adlab.backbones.Backbone("texnet")
    concatenate = adlab.backbones.concatenate

    def features(images):
        with torch.no_grad():
            return concatenate(network(images)).permute(0, 2, 3, 1).double()

    found = []
    for k in (8, 9):
        wall = adlab.data.load(
            "textures", size=48, n_train=60, n_val=1, n_test=40, seed=seed(k)
        )
        maps = answer(
            padim,
            wall.train.images,
            wall.test.images,
            40,
            k,
            features,
            fitted,
            distances_of,
            finished,
        )
        found.append(
            adlab.metrics.pixel_auroc(torch.as_tensor(maps), wall.test.masks)
        )
    assert np.mean(found) > 0.88, (
        f"on fresh walls your maps have a pixel AUROC of {np.mean(found):.2f}; "
        "PaDiM reaches 0.91 to 0.97"
    )
