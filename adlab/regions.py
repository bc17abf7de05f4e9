"""Post-processing: from an anomaly map to the regions that it shows.

A pixel alone is often noise. So a map is smoothed, cut at two thresholds, and regions
that are too small are left out: the optional fourth step of a detector, after its score
and its decision rule. SciPy and scikit-image do the work; a region is connected over
edges and corners (8-connectivity), as those of `adlab.metrics.pro` are.

Arguments are arrays or tensors. Each function raises `ValueError` where maps are not
finite, empty or of another shape, or a number is out of its range, and `TypeError` for
what is no array or no number.
"""

from typing import NamedTuple

import numpy as np

from adlab._checks import check_number, check_scores


class Region(NamedTuple):
    """A region of an anomaly map.

    `mask` (H, W) is true in it; `area` is its number of pixels, and `peak` the highest
    value of the map there. `box` is (top, left, bottom, right), the last two exclusive,
    and `centre` (row, column) the mean of its pixels.
    """

    mask: np.ndarray
    area: int
    peak: float
    box: tuple[int, int, int, int]
    centre: tuple[float, float]


def smooth(maps: object, sigma: float) -> np.ndarray:
    """Maps (N, H, W) smoothed by a Gaussian of `sigma` >= 0 pixels, float64 (N, H, W).

    The border is mirrored, so that a constant map stays constant. A threshold for
    smoothed maps must come from smoothed maps.
    """
    from scipy.ndimage import gaussian_filter

    check_number("sigma", sigma, 0)
    return gaussian_filter(check_scores(maps, "maps", ndim=3), (0, sigma, sigma))


def find_regions(
    anomaly_map: object, high: float, low: float | None = None, min_area: int = 1
) -> list[Region]:
    """The regions of a map (H, W), that of the highest peak first.

    A region is connected, has all its pixels above `low`, at least one above `high`,
    and `min_area` pixels or more. `low` is at most `high`, and None for the same. The
    two thresholds are a hysteresis: the higher decides whether there is something, the
    lower how far it reaches. Source: Canny, A computational approach to edge detection,
    1986, for edges.
    """
    from skimage.measure import label, regionprops

    anomaly_map = check_scores(anomaly_map, "anomaly_map", ndim=2)
    check_number("high", high)
    low = high if low is None else low
    check_number("low", low, high=high)
    check_number("min_area", min_area, 1, whole=True)
    labels = label(anomaly_map > low, connectivity=2)
    found = [
        Region(
            labels == each.label,
            int(each.area),
            float(each.intensity_max),
            each.bbox,
            each.centroid,
        )
        for each in regionprops(labels, anomaly_map)
        if each.intensity_max > high and each.area >= min_area
    ]
    return sorted(found, key=lambda region: -region.peak)


def region_masks(
    maps: object, high: float, low: float | None = None, min_area: int = 1
) -> np.ndarray:
    """Where maps (N, H, W) have a region, as `find_regions` finds them: bool (N, H, W)."""
    maps = check_scores(maps, "maps", ndim=3)
    found = np.zeros(maps.shape, bool)
    for mask, anomaly_map in zip(found, maps, strict=True):
        for region in find_regions(anomaly_map, high, low, min_area):
            mask |= region.mask
    return found


def region_scores(
    maps: object, low: float | None = None, min_area: int = 1
) -> np.ndarray:
    """The scores of images for whose maps (N, H, W) only regions count: float64 (N,).

    `find_regions` with the same `low` and `min_area` finds something just where `high`
    is below the score. So a threshold of the scores of held-out normal images keeps its
    promise as `high`, if `low` and `min_area` were chosen on others.

    With a `low`, the score is the highest peak among the regions above it, and `low`
    where there is none. With None it is the highest level at which a region of
    `min_area` pixels remains: the maximum of the area opening. Source: Vincent, Grayscale
    area openings and closings, 1993.
    """
    from skimage.morphology import area_opening

    maps = check_scores(maps, "maps", ndim=3)
    check_number("min_area", min_area, 1, maps[0].size, whole=True)
    if low is None:
        opened = [area_opening(each, min_area, connectivity=2) for each in maps]
        return np.max(opened, axis=(1, 2))
    check_number("low", low)
    found = [find_regions(each, low, min_area=min_area) for each in maps]
    return np.array([regions[0].peak if regions else low for regions in found])
