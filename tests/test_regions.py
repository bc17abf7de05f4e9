"""From maps to regions: against a flood by hand, closed forms, and every threshold in
turn.
"""

import numpy as np
import pytest
from bad_input import INF, MAPS, NAN, refuses, spoiled
from scipy.stats import norm

from adlab.decision import quantile_threshold
from adlab.regions import find_regions, region_masks, region_scores, smooth

MAP = np.array(
    [
        [9, 5, 0, 0, 0, 0],
        [0, 0, 5, 0, 0, 3],
        [0, 0, 0, 0, 0, 0],
        [4, 4, 0, 0, 7, 0],
        [4, 4, 0, 0, 0, 0],
    ]
)
SETTINGS = [(0.8, None, 1), (0.8, 0.5, 1), (0.8, 0.6, 4), (0.6, None, 3), (0.2, 0, 1)]


@pytest.fixture
def maps():
    return np.random.default_rng(0).random((12, 9, 8))


def flood(allowed, start):
    """All pixels that a king reaches from one, over allowed ones."""
    reached, edge = {start}, [start]
    while edge:
        row, column = edge.pop()
        for step in np.ndindex(3, 3):
            new = row + step[0] - 1, column + step[1] - 1
            if new in allowed and new not in reached:
                reached.add(new)
                edge.append(new)
    return frozenset(reached)


def by_hand(anomaly_map, high, low, min_area):
    low = high if low is None else low
    allowed = set(map(tuple, np.argwhere(anomaly_map > low).tolist()))
    starts = map(tuple, np.argwhere(anomaly_map > high).tolist())
    found = {flood(allowed, start) for start in starts}
    return {pixels for pixels in found if len(pixels) >= min_area}


@pytest.mark.parametrize(("high", "low", "min_area"), SETTINGS)
def test_regions_are_those_of_a_flood_by_hand(maps, high, low, min_area):
    masks = region_masks(maps, high, low, min_area)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        found = find_regions(anomaly_map, high, low, min_area)
        pixels = [frozenset(map(tuple, np.argwhere(r.mask).tolist())) for r in found]
        expected = by_hand(anomaly_map, high, low, min_area)
        assert len(pixels) == len(expected)
        assert set(pixels) == expected
        assert (
            mask.tolist()
            == np.any([mask & False, *(r.mask for r in found)], 0).tolist()
        )


def test_a_region_says_where_it_is_and_how_high():
    first, second, third = find_regions(MAP, high=3)
    assert first[1:] == (3, 9.0, (0, 0, 2, 3), (1 / 3, 1.0))
    assert second[1:] == (1, 7.0, (3, 4, 4, 5), (3.0, 4.0))
    assert third[1:] == (4, 4.0, (3, 0, 5, 2), (3.5, 0.5))
    for region in (first, second, third):
        top, left, bottom, right = region.box
        assert region.mask[top:bottom, left:right].sum() == region.area
        assert MAP[region.mask].max() == region.peak


def test_hysteresis_reaches_as_far_as_low_where_high_says_so():
    assert [r.area for r in find_regions(MAP, high=8)] == [1]
    assert [r.area for r in find_regions(MAP, high=8, low=4)] == [3]
    assert [r.area for r in find_regions(MAP, high=3, low=2)] == [3, 1, 4]
    assert find_regions(MAP, high=9, low=2) == []  # above, not at


def test_small_regions_are_left_out():
    areas = {n: [r.area for r in find_regions(MAP, 2, None, n)] for n in (1, 3, 4, 5)}
    assert areas == {1: [3, 1, 4, 1], 3: [3, 4], 4: [4], 5: []}


@pytest.mark.parametrize("low", [None, 0.4, 0.75])
@pytest.mark.parametrize("min_area", [1, 2, 5, 20])
def test_a_score_is_where_the_last_region_goes(maps, low, min_area):
    """Every value of the map is tried as a threshold."""
    for anomaly_map, score in zip(
        maps, region_scores(maps, low, min_area), strict=True
    ):
        levels = np.unique(anomaly_map)
        levels = levels if low is None else [low, *levels[levels > low]]
        finds = [bool(find_regions(anomaly_map, g, low, min_area)) for g in levels]
        assert finds == [g < score for g in levels]


def test_without_an_area_the_score_is_the_maximum(maps):
    assert region_scores(maps).tolist() == maps.max((1, 2)).tolist()


def test_a_threshold_of_region_scores_keeps_its_promise():
    """And is lower than that of the maxima, as a region of noise is rarer."""
    rng = np.random.default_rng(0)
    held_out, new = rng.normal(size=(2, 399, 16, 16))
    high = quantile_threshold(region_scores(held_out, min_area=4), fpr=0.25)
    alarms = region_masks(new, high, min_area=4).any((1, 2)).mean()
    assert alarms == pytest.approx(0.25, abs=0.1)
    assert high < quantile_threshold(held_out.max((1, 2)), fpr=0.25) - 1


def test_smoothing_divides_the_noise_as_the_formula_says():
    """White noise keeps 1 / (2 sigma sqrt(pi)) of its standard deviation."""
    noise = np.random.default_rng(0).normal(size=(4, 200, 200))
    assert smooth(noise, 2).std() == pytest.approx(1 / (4 * np.pi**0.5), rel=0.05)
    assert smooth(noise, 0).tolist() == noise.tolist()


def test_smoothing_is_a_gaussian_in_each_map_alone():
    maps = np.zeros((2, 41, 41))
    maps[0, 20, 20] = 1
    blurred = smooth(maps, 3)
    bell = norm.pdf(np.arange(-20, 21), scale=3)
    np.testing.assert_allclose(blurred[0], np.outer(bell, bell), atol=2e-5)
    assert not blurred[1].any()
    assert smooth(maps + 5, 3)[1] == pytest.approx(5)


def test_nothing_is_found_in_a_constant_map():
    assert find_regions(np.ones((4, 5)), high=1) == []
    assert not region_masks(np.ones((2, 4, 5)), high=1).any()
    assert region_scores(np.ones((2, 4, 5)), min_area=20).tolist() == [1, 1]


# -- bad input


ONE_MAP, WITH_NAN = MAPS[0], spoiled(MAPS[0], NAN)


test_bad_input = refuses(
    (lambda: find_regions(MAPS, 1), ValueError, "anomaly_map…(H, W)…(8, 6, 5)"),
    (lambda: find_regions(WITH_NAN, 1), ValueError, "anomaly_map…finite"),
    (lambda: find_regions("map", 1), TypeError, "anomaly_map…str"),
    (lambda: find_regions(ONE_MAP, "1"), TypeError, "high…str"),
    (lambda: find_regions(ONE_MAP, NAN), ValueError, "high…nan"),
    (lambda: find_regions(ONE_MAP, 1, 2), ValueError, "low…1]…2"),
    (lambda: find_regions(ONE_MAP, 1, min_area=0), ValueError, "min_area…0"),
    (lambda: region_masks(MAPS, 1, min_area=1.5), TypeError, "min_area…1.5"),
    (lambda: region_masks(ONE_MAP, 1), ValueError, "maps…(N, H, W)"),
    (lambda: region_scores(MAPS, min_area=31), ValueError, "min_area…30]…31"),
    (lambda: region_scores(MAPS, low=INF), ValueError, "low…inf"),
    (lambda: smooth(MAPS, -1), ValueError, "sigma…-1"),
    (lambda: smooth(ONE_MAP, 1), ValueError, "maps…(N, H, W)"),
)
