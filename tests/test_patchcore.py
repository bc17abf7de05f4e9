"""PatchCore: the coreset against brute force, the projection against its bound, the map
against loops.
"""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from bad_input import VECTORS, refuses
from scipy.spatial.distance import cdist, pdist
from test_spade import Network
from torch import nn
from torch.nn.functional import interpolate

from adlab.patchcore import PatchCore, greedy_coreset, random_projection
from adlab.training import seeded


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=generator(seed), dtype=dtype)


def pictures(n, channels=1, height=20, width=16, seed=0):
    return torch.rand(n, channels, height, width, generator=generator(seed))


# the coreset


def radius(x, rows):
    """The largest distance of any vector to the nearest of some."""
    return cdist(x, x[torch.as_tensor(rows)]).min(1).max()


def slow_coreset(x, n):
    rows = [0]
    while len(rows) < n:
        rows.append(int(cdist(x, x[rows]).min(1).argmax()))
    return rows


@pytest.mark.parametrize("shift", [0, 1e6])
def test_coreset_is_that_of_a_slow_search(shift):
    x = cloud(60, 7)
    assert greedy_coreset(x + shift, 25).tolist() == slow_coreset(x.numpy(), 25)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_radius_is_at_most_twice_the_best(n):
    for seed in range(10):
        x = cloud(11, 2, seed)
        best = min(radius(x, rows) for rows in combinations(range(11), n))
        assert best <= radius(x, greedy_coreset(x, n)) <= 2 * best


def test_radius_shrinks_with_every_vector_to_nothing():
    x = cloud(40, 5)
    rows = greedy_coreset(x, 40).tolist()
    radii = [radius(x, rows[: n + 1]) for n in range(40)]
    assert radii == sorted(radii, reverse=True) and radii[-1] == 0
    drawn = torch.randperm(40, generator=generator())[:10]
    assert radii[9] < 0.9 * radius(x, drawn)


def test_rows_are_different_even_where_vectors_are_not():
    x = torch.ones(6, 3)
    assert sorted(greedy_coreset(x, 6).tolist()) == list(range(6))


# the projection


def test_projected_distances_are_right_in_the_mean_and_spread_as_chi_squared():
    x, d = cloud(30, 300), 64
    with seeded(0):
        ratios = np.stack(
            [pdist(random_projection(x, d)) ** 2 / pdist(x) ** 2 for _ in range(60)]
        )
    assert abs(ratios.mean() - 1) < 0.01
    assert abs(ratios.var(0).mean() - 2 / d) < 0.1 * 2 / d


def test_distances_are_kept_as_often_as_johnson_and_lindenstrauss_promise():
    """Of d dimensions a squared distance is more than ε off, to either side, with a chance
    of at most 2 exp(-d (ε²/2 - ε³/3) / 2); of too few it is so more often.
    """
    x, ε = cloud(20, 500), 0.5
    d = int(np.ceil(4 * np.log(20) / (ε**2 / 2 - ε**3 / 3)))
    bound = 2 / 20**2
    for dimensions, kept in [(d, True), (d // 8, False)]:
        with seeded(0):
            ratios = np.stack(
                [
                    pdist(random_projection(x, dimensions)) ** 2 / pdist(x) ** 2
                    for _ in range(30)
                ]
            )
        assert (np.mean(abs(ratios - 1) > ε) <= bound) == kept


def test_few_dimensions_are_left_as_they_are():
    x = cloud(5, 8)
    assert torch.equal(random_projection(x, 8), x)
    assert random_projection(x, 7).shape == (5, 7)


# the map


def patchcore(**options):
    return PatchCore(Network(), ("fine", "coarse"), **{"sigma": 0} | options)


def local_means(features):
    """Of what lies within the map, of the 3 × 3 places around each: a loop."""
    found = np.zeros(features.shape)
    for r, c in np.ndindex(*features.shape[2:]):
        around = features[:, :, max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
        found[:, :, r, c] = around.mean((2, 3))
    return found


def slow_vectors(detector, images):
    """Each place of the fine layer beside the place of the coarse one that covers it."""
    fine, coarse = (
        local_means(f.double().numpy())
        for f in detector.network_(images.expand(-1, 3, -1, -1))
    )
    covering = coarse.repeat(2, 2).repeat(2, 3)
    return np.concatenate([fine, covering], 1).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("coreset", [1, 0.3])
def test_map_is_the_distance_to_the_nearest_of_the_memory(coreset):
    train, test = pictures(4), pictures(3, seed=1)
    detector = patchcore(coreset=coreset).fit(train)
    memory = slow_vectors(detector, train).reshape(-1, 16)
    if coreset < 1:  # 16 numbers are not projected
        memory = memory[slow_coreset(memory, round(0.3 * len(memory)))]
    np.testing.assert_allclose(detector.memory_, memory, rtol=1e-4, atol=1e-5)
    vectors = slow_vectors(detector, test)
    nearest = cdist(vectors.reshape(-1, 16), memory).min(1).reshape(3, 1, 10, 8)
    expected = interpolate(torch.from_numpy(nearest), (20, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(
        detector.anomaly_map(test), expected, rtol=1e-3, atol=1e-4
    )


def test_what_is_remembered_is_nothing_new():
    train = pictures(6)
    detector = patchcore(coreset=1).fit(train)
    new = float(detector.anomaly_map(pictures(2, seed=1)).mean())
    assert float(detector.anomaly_map(train).max()) < 0.02 * new  # rounding


def test_a_larger_coreset_only_lowers_the_map():
    train, test = pictures(6), pictures(3, seed=1)
    maps = [
        patchcore(coreset=share).fit(train).anomaly_map(test)
        for share in (0.01, 0.1, 0.5, 1)
    ]
    for few, more in pairwise(maps):
        assert bool((more <= few + 1e-4).all()) and float((few - more).max()) > 0.01


def test_coreset_is_chosen_in_the_projection_and_remembered_in_full():
    train = pictures(6, height=32, width=32)
    first, second = (PatchCore(seed=seed).fit(train) for seed in (0, 1))
    everything = PatchCore(coreset=1).fit(train).memory_
    assert first.memory_.shape == (-(-len(everything) // 10), 192)
    assert not torch.equal(first.memory_, second.memory_)
    gaps = cdist(first.memory_, everything)
    assert gaps.min(1).max() < 1e-5


def test_last_two_layers_are_the_default():
    network = PatchCore().fit(pictures(2)).network_
    assert network.layers == ("layer2", "layer3")
    assert patchcore().fit(pictures(2)).network_.layers == ("fine", "coarse")


def test_larger_grids_are_averaged():
    detector = patchcore(max_grid=5).fit(pictures(2))
    assert detector._embed(pictures(1)).shape == (1, 5, 4, 16)


test_bad_input = refuses(
    (lambda: PatchCore(coreset=0), ValueError, "coreset…(0, 1]…0"),
    (lambda: PatchCore(coreset=1.1), ValueError, "coreset…(0, 1]…1.1"),
    (lambda: PatchCore(nn.Identity()), TypeError, "layers…names"),
    (lambda: greedy_coreset(VECTORS, 9), ValueError, "n…[1, 8]…9"),
    (lambda: greedy_coreset(VECTORS[0], 1), ValueError, "x…(N, D)…(30,)"),
    (lambda: random_projection(VECTORS, 0), ValueError, "n_dimensions…[1"),
    (lambda: random_projection("x", 2), TypeError, "x"),
)
