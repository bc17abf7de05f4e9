"""The metrics against definitions spelled out by loops, against scikit-learn, and
against known values.
"""

from collections import namedtuple
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from bad_input import IMAGES, INF, LABELS, MAPS, MASKS, NAN, SCORES, refuses, spoiled

from adlab import metrics
from adlab.metrics import auroc, oscr, pixel_auroc, precision_recall_curve

Case = namedtuple("Case", "scores labels")


def random_case(seed: int) -> Case:
    """Scores with a signal in them; every second case has many ties."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 80))
    labels = rng.random(n) < rng.uniform(0.1, 0.9)
    labels[:2] = False, True
    scores = rng.normal(size=n) + rng.uniform(-1, 2) * labels
    return Case(np.round(scores * 2) if seed % 2 else scores, labels)


CASES = [random_case(seed) for seed in range(20)]
cases = pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))


def every_threshold(case: Case) -> list[tuple[float, int, int, int, int]]:
    """(threshold, TP, FP, FN, TN) at every distinct score and at -inf, counted one by
    one.
    """
    rows = []
    for threshold in [*sorted(set(case.scores), reverse=True), -np.inf]:
        detected = [score > threshold for score in case.scores]
        pairs = list(zip(detected, case.labels, strict=True))
        counts = [sum(bool(d) == p and bool(y) == t for d, y in pairs) for p, t in WAYS]
        rows.append((threshold, *counts))
    return rows


WAYS = [
    (True, True),
    (True, False),
    (False, True),
    (False, False),
]  # TP, FP, FN, TN as (detected, label)


def pairwise_auroc(case: Case) -> float:
    wins, pairs = 0.0, 0
    for anomaly in case.scores[case.labels]:
        for normal in case.scores[~case.labels]:
            wins += 1.0 if anomaly > normal else 0.5 if anomaly == normal else 0.0
            pairs += 1
    return wins / pairs


# -- verdicts


def test_rates_and_accuracy_of_a_small_table():
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    verdicts = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    got = metrics.rates(verdicts, labels)
    assert got == pytest.approx((3 / 4, 2 / 6, 3 / 5, 2 / 3))
    assert got._fields == ("tpr", "fpr", "precision", "f1")
    assert metrics.accuracy(verdicts, labels) == pytest.approx(0.7)


@cases
def test_rates_equal_sklearn(case):
    verdicts = case.scores >= np.median(case.scores)
    got = metrics.rates(verdicts, case.labels)
    assert got.tpr == pytest.approx(sk.recall_score(case.labels, verdicts))
    assert got.fpr == pytest.approx(1 - sk.recall_score(~case.labels, ~verdicts))
    assert got.precision == pytest.approx(sk.precision_score(case.labels, verdicts))
    assert got.f1 == pytest.approx(sk.f1_score(case.labels, verdicts))
    assert metrics.accuracy(verdicts, case.labels) == pytest.approx(
        sk.accuracy_score(case.labels, verdicts)
    )


def test_rates_without_detections():
    got = metrics.rates([False, False, False], [0, 1, 1])
    assert (got.tpr, got.fpr, got.f1) == (0, 0, 0)
    assert np.isnan(got.precision)


def test_scores_are_not_verdicts():
    with pytest.raises(ValueError, match="verdicts: expected only True and False"):
        metrics.rates([0.2, 0.9], [0, 1])
    with pytest.raises(ValueError, match="verdicts: expected only True and False"):
        metrics.accuracy([0.2, 0.9], [0, 1])


# -- curves


@cases
def test_roc_curve_counts_every_threshold(case):
    fpr, tpr, thresholds = metrics.roc_curve(*case)
    rows = every_threshold(case)
    np.testing.assert_array_equal(thresholds, [row[0] for row in rows])
    np.testing.assert_allclose(
        tpr, [tp / (tp + fn) for _, tp, _, fn, _ in rows], atol=1e-12
    )
    np.testing.assert_allclose(
        fpr, [fp / (fp + tn) for _, _, fp, _, tn in rows], atol=1e-12
    )


@cases
def test_curves_equal_sklearn(case):
    fpr, tpr, thresholds = metrics.roc_curve(*case)
    theirs = sk.roc_curve(case.labels, case.scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, theirs[0], atol=1e-12)
    np.testing.assert_allclose(tpr, theirs[1], atol=1e-12)
    np.testing.assert_array_equal(
        thresholds[:-1], theirs[2][1:]
    )  # its rule is >=, one distinct score on
    precision, recall, thresholds = metrics.precision_recall_curve(*case)
    theirs = sk.precision_recall_curve(case.labels, case.scores)
    np.testing.assert_allclose(precision, theirs[0][::-1], atol=1e-12)
    np.testing.assert_allclose(recall, theirs[1][::-1], atol=1e-12)
    np.testing.assert_array_equal(thresholds[:-1], theirs[2][::-1])
    assert thresholds[-1] == -np.inf
    assert len(precision) == len(recall) == len(thresholds)


# -- numbers


@cases
def test_auroc_is_the_share_of_pairs_and_the_area(case):
    got = metrics.auroc(*case)
    assert got == pytest.approx(pairwise_auroc(case), abs=1e-12)
    assert got == pytest.approx(sk.roc_auc_score(case.labels, case.scores), abs=1e-12)
    fpr, tpr, _ = metrics.roc_curve(*case)
    assert got == pytest.approx(sk.auc(fpr, tpr), abs=1e-12)


@cases
def test_average_precision_equals_sklearn(case):
    theirs = sk.average_precision_score(case.labels, case.scores)
    assert metrics.average_precision(*case) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.auroc,
        metrics.average_precision,
        metrics.fpr_at_tpr,
        lambda *case: metrics.best_f1(*case)[0],
        lambda *case: sum(metrics.best_tpr_tnr(*case)[:2]),
    ],
)
@pytest.mark.parametrize(
    "transform",
    [
        lambda s: 3.5 * s + 400,  # a sigmoid would be 1.0 for all of these
        lambda s: 3.5 * s - 400,  # and 0.0 for these
        lambda s: 1e-9 * s,
        np.exp,
    ],
)
def test_only_ranks_matter(transform, metric):
    for case in CASES:
        moved = transform(case.scores)
        assert len(set(moved)) == len(
            set(case.scores)
        )  # the transformation itself lost nothing
        assert metric(moved, case.labels) == metric(*case)


@cases
def test_reversed_scores_reverse_the_auroc(case):
    reversed_scores = metrics.auroc(-case.scores, case.labels)
    assert reversed_scores == pytest.approx(1 - metrics.auroc(*case), abs=1e-12)


def test_constant_scores_are_chance():
    labels = np.array([0, 0, 0, 1])
    scores = np.full(4, 7.25)
    assert metrics.auroc(scores, labels) == 0.5
    assert metrics.average_precision(scores, labels) == 0.25
    assert metrics.best_f1(scores, labels) == (pytest.approx(0.4), -np.inf)
    assert metrics.best_tpr_tnr(scores, labels) == (0, 1, max(scores))
    assert metrics.fpr_at_tpr(scores, labels) == 1


@pytest.mark.parametrize("offset", [0, 17.5, 1e4, -101, -1e4])
def test_a_perfect_detector_is_perfect_wherever_its_scores_lie(offset):
    labels = np.repeat([0, 1], 10)
    scores = np.arange(20) / 10 + offset
    assert metrics.auroc(scores, labels) == 1
    assert metrics.average_precision(scores, labels) == 1
    assert metrics.best_f1(scores, labels) == (1, scores[9])
    assert metrics.best_tpr_tnr(scores, labels) == (1, 1, scores[9])
    assert metrics.fpr_at_tpr(scores, labels) == 0


def test_double_precision_is_kept():
    """In float32 these scores are all equal."""
    scores = np.array([1e8, 1e8 + 1, 1e8 + 2, 1e8 + 3])
    assert metrics.auroc(scores, [0, 0, 1, 1]) == 1
    assert metrics.best_f1(scores, [0, 0, 1, 1]) == (1, scores[1])
    assert metrics.pro(scores.reshape(1, 2, 2), [[[0, 0], [1, 1]]]) == pytest.approx(
        1, abs=1e-12
    )


@cases
def test_best_f1_is_the_best_of_all_thresholds(case):
    best = max(
        2 * tp / (2 * tp + fp + fn) for _, tp, fp, fn, _ in every_threshold(case)
    )
    f1, threshold = metrics.best_f1(*case)
    assert f1 == pytest.approx(best, abs=1e-12)
    assert sk.f1_score(case.labels, case.scores > threshold) == pytest.approx(
        f1, abs=1e-12
    )


@cases
def test_best_tpr_tnr_is_the_best_of_all_thresholds(case):
    best = max(
        tp / (tp + fn) + tn / (fp + tn) for _, tp, fp, fn, tn in every_threshold(case)
    )
    tpr, tnr, threshold = metrics.best_tpr_tnr(*case)
    assert tpr + tnr == pytest.approx(best, abs=1e-12)
    got = metrics.rates(case.scores > threshold, case.labels)
    assert (got.tpr, got.fpr) == (pytest.approx(tpr), pytest.approx(1 - tnr))


@cases
def test_fpr_at_tpr_is_the_smallest_that_suffices(case):
    rows = every_threshold(case)
    for share in (0.01, 0.1, 0.1 * 3, 0.5, 0.8, 0.95, 1.0):
        enough = [
            fp / (fp + tn)
            for _, tp, fp, fn, tn in rows
            if tp >= (tp + fn) * share - 1e-9
        ]
        assert metrics.fpr_at_tpr(*case, tpr=share) == pytest.approx(
            min(enough), abs=1e-12
        )


def test_fpr_at_tpr_is_not_misled_by_rounding():
    """0.1 * 3 > 0.3 in floating point, and three of ten anomalies lie above all normal
    scores.
    """
    scores = [9, 8, 7, 5, 4, 3, 3, 2, 2, 1, 6, 6]
    assert metrics.fpr_at_tpr(scores, [1] * 10 + [0] * 2, tpr=0.1 * 3) == 0


def test_any_kind_of_array_will_do():
    scores, labels = CASES[0]
    want = metrics.auroc(scores, labels)
    assert metrics.auroc(scores.tolist(), labels.tolist()) == want
    assert (
        metrics.auroc(
            torch.from_numpy(scores).requires_grad_(), torch.from_numpy(labels).long()
        )
        == want
    )
    assert metrics.auroc(np.repeat(scores, 2)[::2], labels.astype(np.uint8)) == want
    assert metrics.auroc(scores[::-1], labels[::-1]) == want
    assert isinstance(want, float)


def test_arguments_are_left_as_they_were():
    scores, labels = CASES[1]
    kept = scores.copy(), labels.copy()
    metrics.best_f1(scores, labels), metrics.auroc(scores, labels)
    np.testing.assert_array_equal(scores, kept[0])
    np.testing.assert_array_equal(labels, kept[1])


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
@pytest.mark.parametrize(
    "metric",
    [
        metrics.roc_curve,
        metrics.precision_recall_curve,
        metrics.auroc,
        metrics.average_precision,
        metrics.best_f1,
        metrics.best_tpr_tnr,
        metrics.fpr_at_tpr,
        lambda scores, labels: metrics.rates(np.asarray(scores) > 1, labels),
    ],
)
def test_one_class_alone_is_refused(metric, labels):
    with pytest.raises(ValueError, match="labels: expected both classes"):
        metric([1.0, 2.0, 3.0], labels)


# -- pixels and regions


def regions_by_flood_fill(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """The sets of anomalous pixels that touch, diagonally too."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    regions = []
    while left:
        frontier = [left.pop()]
        region = set(frontier)
        while frontier:
            r, c = frontier.pop()
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            region |= near
            frontier += near
        regions.append(region)
    return regions


def brute_force_pro_curve(maps, masks) -> list[tuple[float, float]]:
    """(FPR, mean overlap) with nothing detected, and then at every distinct value."""
    points = [(0.0, 0.0)]
    regions = [regions_by_flood_fill(mask) for mask in masks]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        detected = maps >= threshold
        overlaps = [
            np.mean([detected[image, r, c] for r, c in region])
            for image, found in enumerate(regions)
            for region in found
        ]
        points.append((np.mean(detected[~masks]), np.mean(overlaps)))
    return points


def brute_force_pro(maps, masks, limit: float) -> float:
    area = 0.0
    points = brute_force_pro_curve(maps, masks)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def random_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four images, the last one good; scattered pixels make many regions; ties in two
    of three cases.
    """
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 9, 11)) < rng.uniform(0.02, 0.4)
    masks[3] = False
    masks[0, :2, :2] = True
    maps = rng.normal(size=masks.shape) + rng.uniform(-1, 3) * masks
    return (maps, np.round(maps * 2), np.round(maps))[seed % 3], masks


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_pro_equals_brute_force(seed, limit):
    maps, masks = random_maps(seed)
    assert metrics.pro(maps, masks, max_fpr=limit) == pytest.approx(
        brute_force_pro(maps, masks, limit), abs=1e-9
    )


@pytest.mark.parametrize("seed", range(6))
def test_pro_curve_equals_brute_force(seed):
    maps, masks = random_maps(seed)
    fpr, overlap = metrics.pro_curve(maps, masks)
    np.testing.assert_allclose(
        np.stack([fpr, overlap], 1), brute_force_pro_curve(maps, masks), atol=1e-12
    )
    assert (fpr[-1], overlap[-1]) == (1, pytest.approx(1, abs=1e-12))


@pytest.mark.parametrize("seed", range(6))
def test_a_limited_pro_curve_is_the_beginning_of_the_whole(seed):
    maps, masks = random_maps(seed)
    whole = metrics.pro_curve(maps, masks)
    part = metrics.pro_curve(maps, masks, max_fpr=0.3)
    for some, everything in zip(part, whole, strict=True):
        np.testing.assert_allclose(some, everything[: len(some)], atol=1e-12)
    assert part[0][-1] > 0.3 >= part[0][-2]


def test_pro_of_known_maps():
    masks = np.zeros((3, 20, 20), dtype=bool)
    masks[0, 2:5, 2:5] = masks[0, 10:18, 3:9] = masks[1, 4, 4] = True
    assert metrics.pro(masks.astype(float), masks) == pytest.approx(1, abs=1e-12)
    assert metrics.pro(-masks.astype(float), masks) == 0
    assert metrics.pro(np.full(masks.shape, -3.0), masks) == pytest.approx(
        0.15, abs=1e-12
    )
    assert metrics.pro(np.zeros(masks.shape), masks, max_fpr=1) == pytest.approx(
        0.5, abs=1e-12
    )


@pytest.mark.parametrize("limit", [0.01, 0.3, 0.7, 1.0])
def test_pro_of_a_perfect_ranking_does_not_exceed_one(limit):
    maps, masks = random_maps(0)
    got = metrics.pro(np.tanh(maps) + 3 * masks, masks, max_fpr=limit)
    assert 1 - 1e-12 < got <= 1


def test_regions_count_alike_whatever_their_size():
    """One of two regions is found before any false alarm; it makes half of the score,
    large or small.
    """
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, 1:11, 1:11] = masks[0, 15, 15] = True
    large, small = np.zeros(masks.shape), np.zeros(masks.shape)
    large[0, 1:11, 1:11] = small[0, 15, 15] = 1
    large[0, 15, 15] = small[0, 1:11, 1:11] = -1
    assert metrics.pro(large, masks) == pytest.approx(0.5, abs=1e-12)
    assert metrics.pro(small, masks) == pytest.approx(0.5, abs=1e-12)
    assert (
        metrics.pixel_auroc(large, masks)
        > 0.9
        > 0.1
        > metrics.pixel_auroc(small, masks)
    )


def test_pixels_that_touch_diagonally_are_one_region():
    """Two diagonal pixels and a third apart: 2 regions, so the pair found alone gives
    1/2 (not 2/3).
    """
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 6, 6] = True
    maps = np.zeros(masks.shape)
    maps[0, 1, 1] = maps[0, 2, 2] = 1
    maps[0, 6, 6] = -1
    assert metrics.pro(maps, masks) == pytest.approx(0.5, abs=1e-12)


def test_regions_do_not_reach_into_the_next_image():
    """The same place in two images is two regions: with a third, the pair makes 2/3
    (not 1/2).
    """
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, 1, 1] = masks[1, 1, 1] = masks[1, 6, 6] = True
    maps = np.zeros(masks.shape)
    maps[0, 1, 1] = maps[1, 1, 1] = 1
    maps[1, 6, 6] = -1
    assert metrics.pro(maps, masks) == pytest.approx(2 / 3, abs=1e-12)


def test_false_alarms_in_good_images_count():
    """A row of a good image above the anomalies: nothing is found until the FPR is past
    that row.
    """
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, 3:5, 3:5] = True
    maps = masks.astype(float)
    maps[1, 0] = 2
    row = 10 / 196
    assert metrics.pro(maps, masks) == pytest.approx((0.3 - row) / 0.3, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_pro_depends_on_ranks_only(seed):
    maps, masks = random_maps(seed)
    want = metrics.pro(maps, masks)
    for moved in (50 * maps + 300, 50 * maps - 300, np.exp(maps)):
        assert metrics.pro(moved, masks) == pytest.approx(want, abs=1e-12)
        assert metrics.pixel_auroc(moved, masks) == metrics.pixel_auroc(maps, masks)


@pytest.mark.parametrize("metric", [metrics.pro, metrics.pixel_auroc])
def test_memory_layout_and_container_do_not_matter(metric):
    maps, masks = random_maps(4)
    want = metric(maps, masks)
    wide = np.repeat(maps, 2, axis=2)
    assert metric(np.asfortranarray(maps), masks) == pytest.approx(want, abs=1e-12)
    assert metric(wide[:, :, ::2], np.asfortranarray(masks)) == pytest.approx(
        want, abs=1e-12
    )
    assert metric(maps[::-1], masks[::-1]) == pytest.approx(want, abs=1e-12)
    transposed = (
        torch.from_numpy(maps).transpose(1, 2),
        torch.from_numpy(masks).transpose(1, 2),
    )
    assert metric(*transposed) == pytest.approx(want, abs=1e-12)
    assert metric(maps.astype(np.float32), masks.astype(np.uint8)) == pytest.approx(
        want, abs=1e-12
    )
    assert metric(maps.tolist(), masks.tolist()) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_pixel_auroc_is_the_auroc_of_all_pixels(seed):
    maps, masks = random_maps(seed)
    want = sk.roc_auc_score(masks.ravel(), maps.ravel())
    assert metrics.pixel_auroc(maps, masks) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(
    "metric", [metrics.pro, metrics.pro_curve, metrics.pixel_auroc]
)
def test_masks_must_hold_both_kinds_of_pixels(metric):
    maps = np.random.default_rng(0).normal(size=(2, 5, 5))
    with pytest.raises(ValueError, match="got no anomalous pixel"):
        metric(maps, np.zeros(maps.shape, dtype=bool))
    with pytest.raises(ValueError, match="got no normal pixel"):
        metric(maps, np.ones(maps.shape, dtype=bool))


# -- open set


def random_open_set(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    known, unknown = (
        rng.normal(size=rng.integers(1, 60)),
        rng.normal(1, 1, size=rng.integers(1, 60)),
    )
    if seed % 2:
        known, unknown = np.round(known), np.round(unknown)
    return known, rng.random(len(known)) < 0.7, unknown


@pytest.mark.parametrize("seed", range(20))
def test_oscr_equals_its_pairs(seed):
    known, correct, unknown = random_open_set(seed)
    total = 0.0
    for score, right in zip(known, correct, strict=True):
        for other in unknown:
            total += right * (1.0 if score < other else 0.5 if score == other else 0.0)
    got = metrics.oscr(known, correct, unknown)
    assert got == pytest.approx(total / (len(known) * len(unknown)), abs=1e-12)
    assert got <= correct.mean() + 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_oscr_is_the_auroc_of_a_faultless_classifier(seed):
    known, _, unknown = random_open_set(seed)
    labels = np.repeat([0, 1], [len(known), len(unknown)])
    want = metrics.auroc(np.concatenate([known, unknown]), labels)
    assert metrics.oscr(known, np.ones(len(known)), unknown) == pytest.approx(
        want, abs=1e-12
    )
    assert metrics.oscr(known, np.zeros(len(known)), unknown) == 0


def test_oscr_is_the_accuracy_where_all_unknowns_are_told_apart():
    assert metrics.oscr([1, 2, 3, 4], [True, True, False, True], [5, 6]) == 0.75


# -- types of numbers


TYPES = {
    "list": list,
    "tuple": tuple,
    "bool": lambda row: np.array(row, bool),
    "uint16": lambda row: np.array(row, np.uint16),
    "big-endian": lambda row: np.array(row, ">i4"),
    "longdouble": lambda row: np.array(row, np.longdouble),
    "numpy-scalars": lambda row: [np.float32(value) for value in row],
    "tensors": lambda row: [torch.tensor(value) for value in row],
    "half-tensors": lambda row: [torch.tensor(float(v)).bfloat16() for v in row],
    "wants-gradients": lambda row: torch.tensor(row).float().requires_grad_(),
} | {
    f"torch-{name}": lambda row, name=name: torch.tensor(row).to(getattr(torch, name))
    for name in ("bfloat16", "float16", "float8_e5m2", "uint8", "int8", "uint16")
    if hasattr(torch, name)
}
ONES = [0, 1, 1, 0, 1, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", TYPES)
def test_any_type_of_numbers_gives_the_same(name):
    convert = TYPES[name]
    scores, verdicts = [2, 3, 5, 1, 1, 2], [1, 1, 0, 0, 1, 0]
    expected = pytest.approx(sk.roc_auc_score(ONES, scores))
    assert metrics.auroc(scores, convert(ONES)) == expected
    assert metrics.accuracy(convert(verdicts), convert(ONES)) == 4 / 6
    if name != "bool":
        assert metrics.auroc(convert(scores), ONES) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])
def test_masks_of_any_type_give_the_same(dtype):
    maps, masks = torch.arange(6.0).view(1, 2, 3), torch.tensor(ONES).view(1, 2, 3)
    expected = pytest.approx(sk.roc_auc_score(ONES, range(6)))
    assert metrics.pixel_auroc(maps, masks.to(dtype)) == expected
    assert metrics.pixel_auroc(maps.to(dtype), masks) == expected
    longer = masks.numpy().astype(np.longdouble)
    assert metrics.pixel_auroc(maps, longer) == expected


STRANGE = {
    "sparse": (lambda row: torch.tensor(row).to_sparse(), "dense tensor"),
    "meta": (lambda row: torch.tensor(row, device="meta"), "meta"),
    "complex": (lambda row: torch.tensor(row) + 0j, "complex64"),
    "complex-array": (lambda row: np.array(row) + 0j, "complex128"),
    "texts": (lambda row: [str(value) for value in row], "list of <U1"),
    "objects": (lambda row: np.array(row, object), "ndarray of object"),
    "ragged": (lambda row: np.array([row, row[:1]], object), "ndarray of object"),
    "none": (lambda row: [None] * len(row), "list of object"),
    "dates": (lambda row: np.array(row, "datetime64[s]"), "datetime64"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", STRANGE)
def test_what_are_no_numbers_is_refused_by_the_name_of_the_argument(name):
    convert, word = STRANGE[name]
    calls = {
        "scores": lambda bad: metrics.auroc(bad, ONES),
        "labels": lambda bad: metrics.auroc(ONES, bad),
        "verdicts": lambda bad: metrics.accuracy(bad, ONES),
    }
    for argument, call in calls.items():
        with pytest.raises(TypeError, match=f"{argument}: expected .*{word}"):
            call(convert(ONES))


# -- bad input


MASKED = np.ma.array([1, 2, 3], mask=[0, 0, 1])
WITH_NAN, WITH_INF = spoiled(SCORES, NAN), spoiled(SCORES, INF)


test_bad_input = refuses(
    (lambda: auroc(WITH_NAN, LABELS), ValueError, "scores…1 that are NaN"),
    (lambda: auroc(WITH_INF, LABELS), ValueError, "scores…infinite"),
    (lambda: auroc([], []), ValueError, "scores…non-empty…(0,)"),
    (lambda: auroc(MASKED, [0, 1, 1]), ValueError, "scores…masked"),
    (lambda: auroc(SCORES[:, None], LABELS), ValueError, "scores…(N,)…(8, 1)"),
    (lambda: auroc("scores", LABELS), TypeError, "scores…str"),
    (lambda: auroc(SCORES, LABELS * 0), ValueError, "labels…both classes…[0]"),
    (lambda: metrics.roc_curve(SCORES, LABELS[:7]), ValueError, "labels…(8,)…(7,)"),
    (lambda: precision_recall_curve(SCORES, LABELS * 2), ValueError, "labels…2"),
    (lambda: metrics.average_precision(SCORES, LABELS - 1), ValueError, "labels…-1"),
    (lambda: metrics.best_f1(SCORES, LABELS * 0 + 1), ValueError, "labels…[1]"),
    (lambda: metrics.best_tpr_tnr(SCORES, LABELS * 0.5), ValueError, "labels…0.5"),
    (lambda: metrics.fpr_at_tpr(SCORES, LABELS, tpr=95), ValueError, "tpr…(0, 1]…95"),
    (lambda: metrics.fpr_at_tpr(SCORES, LABELS, tpr=0), ValueError, "tpr…(0, 1]…0"),
    (lambda: metrics.accuracy(SCORES, LABELS), ValueError, "verdicts…True and False"),
    (lambda: metrics.accuracy(LABELS, LABELS[:3]), ValueError, "labels…(8,)…(3,)"),
    (lambda: metrics.rates([], []), ValueError, "verdicts…empty"),
    (lambda: metrics.rates(LABELS, LABELS * 0), ValueError, "labels…both classes"),
    (lambda: pixel_auroc(IMAGES, MASKS), ValueError, "maps…(N, H, W)…(8, 1, 6, 5)"),
    (lambda: pixel_auroc(MAPS, MASKS[:, 1:]), ValueError, "masks…(8, 6, 5)"),
    (lambda: pixel_auroc(spoiled(MAPS, NAN), MASKS), ValueError, "maps…NaN"),
    (lambda: metrics.pro(MAPS, MAPS), ValueError, "masks…0 and 1"),
    (lambda: metrics.pro(MAPS, None), TypeError, "masks…NoneType"),
    (lambda: metrics.pro(MAPS, MASKS & False), ValueError, "masks…no anomalous pixel"),
    (lambda: metrics.pro(MAPS, MASKS | True), ValueError, "masks…no normal pixel"),
    (lambda: metrics.pro(MAPS, MASKS, max_fpr=0), ValueError, "max_fpr…(0, 1]…0"),
    (lambda: metrics.pro_curve(MAPS, MASKS, max_fpr=30), ValueError, "max_fpr…30"),
    (lambda: oscr([], [], SCORES), ValueError, "known_scores…(0,)"),
    (lambda: oscr(SCORES, LABELS[:2], SCORES), ValueError, "known_correct…(8,)"),
    (lambda: oscr(SCORES, np.arange(8), SCORES), ValueError, "known_correct…True"),
    (lambda: oscr(SCORES, LABELS, [NAN]), ValueError, "unknown_scores…NaN"),
)
