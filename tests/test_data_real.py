"""The embedded data that is real (textures, digits) and the one whose optimum is known
(Gaussian field).
"""

from functools import cache

import numpy as np
import pytest
import torch
from bad_input import NAN, refuses
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from adlab.data import gaussian_field, load, textures
from adlab.data.gaussian_field import (
    covariance,
    defect,
    gaussian_field as field,
    optimal_auroc,
)
from adlab.data.textures import BLOCK, BLOCKS, TEXTURES, photograph

NAMES = ["textures", "digits", "gaussian-field"]
# One row a name: sums that say which images these are, and forgive the last bits of
# another machine.
FINGERPRINTS = {
    "textures": [0.32647501, 0.32935983, 0.32656114, 0.047258377],
    "digits": [0.224635, 0.22111216, 0.22880098, 0],
    "gaussian-field": [0.37499841, 0.37481877, 0.37532434, 0.021972656],
}


@cache
def data(name, **options):
    return load(name, **options)


def parts(splits):
    return [splits.train, splits.val, splits.test]


def fingerprint(splits):
    """A number an image, weighted by its place, so that another order of images or
    pixels shows as well.
    """
    sums = []
    for part in parts(splits):
        images = part.images.double()
        ramp = torch.linspace(0, 1, images[0].numel(), dtype=torch.float64)
        place = torch.linspace(1, 2, len(images), dtype=torch.float64)
        sums.append(float(place @ (images.flatten(1) @ ramp) / images.numel()))
    masks = splits.test.masks
    return [*sums, float(masks.double().mean()) if masks is not None else 0]


@pytest.mark.parametrize("name", NAMES)
class TestEveryDataSet:
    def test_contract(self, name):
        for part in parts(data(name)):
            images = part.images
            assert images.dtype == torch.float32
            assert images.shape[1] == 1 and images.shape[2] == images.shape[3]
            assert images.min() >= 0 and images.max() <= 1
            assert [kind == "good" for kind in part.kinds] == (
                part.labels == 0
            ).tolist()
        test = data(name).test
        assert test.labels.unique().tolist() == [0, 1]
        if name != "digits":
            assert abs(test.labels.double().mean() - 0.5) < 1e-9
            assert (test.masks.flatten(1).any(dim=1) == (test.labels == 1)).all()

    def test_the_same_on_every_call(self, name):
        again = load(name)
        for one, two in zip(parts(data(name)), parts(again), strict=True):
            assert torch.equal(one.images, two.images)
            assert one.kinds == two.kinds
            assert one.masks is two.masks or torch.equal(one.masks, two.masks)

    def test_the_same_on_every_machine(self, name):
        assert fingerprint(data(name)) == pytest.approx(FINGERPRINTS[name], rel=1e-5)

    def test_another_seed_gives_other_images(self, name):
        assert not torch.equal(data(name).train.images, load(name, seed=1).train.images)

    def test_global_random_state_is_left_alone(self, name):
        np.random.seed(5)
        torch.manual_seed(5)
        expected = np.random.random(), torch.rand(1)
        np.random.seed(5)
        torch.manual_seed(5)
        load(name)
        assert (np.random.random(), torch.rand(1)) == expected

    def test_no_image_is_there_twice(self, name):
        images = [
            image.numpy().tobytes()
            for part in parts(data(name))
            for image in part.images
        ]
        assert len(set(images)) == len(images)


@pytest.mark.parametrize("name", ["textures", "gaussian-field"])
def test_splits_do_not_depend_on_the_sizes_of_one_another(name):
    small = load(name, n_train=3, n_val=2, n_test=4)
    assert [len(part) for part in parts(small)] == [3, 2, 4]
    larger = load(name, n_train=3, n_val=5, n_test=9)
    assert torch.equal(small.train.images, larger.train.images)
    assert larger.test.labels.tolist() == [0] * 5 + [1] * 4


# -- textures


@cache
def places(texture, size=64):
    """Where in the photograph a crop starts, found by its first row of pixels."""
    photo = np.round(photograph(texture) * 255).astype(np.uint8)
    rows = sliding_window_view(photo, size, axis=1)
    return {
        rows[y, x].tobytes(): (y, x)
        for y in range(512 - size + 1)
        for x in range(512 - size + 1)
    }


def blocks_of(part, texture):
    """The blocks that the normal crops of a part come from, after checking that they
    lie within one.
    """
    photo = np.round(photograph(texture) * 255).astype(np.uint8)
    found = set()
    for image in part.images[part.labels == 0][:, 0]:
        crop = np.round(image.double().numpy() * 255).astype(np.uint8)
        y, x = places(texture)[crop[0].tobytes()]
        assert (photo[y : y + 64, x : x + 64] == crop).all()
        assert y // BLOCK == (y + 63) // BLOCK and x // BLOCK == (x + 63) // BLOCK
        found.add((y // BLOCK, x // BLOCK))
    return found


@pytest.mark.parametrize("texture", TEXTURES)
def test_texture_crops_are_real_and_from_disjoint_regions(texture):
    splits = data("textures", texture=texture)
    train, val, test = (blocks_of(part, texture) for part in parts(splits))
    assert not train & val and not train & test and not val & test
    for name, blocks in [("train", train), ("val", val), ("test", test)]:
        assert blocks == set(
            map(tuple, np.argwhere(name == BLOCKS))
        )  # and every block is used


def test_texture_regions_are_balanced_over_the_photograph():
    for lines in (BLOCKS, BLOCKS.T):
        for line in lines:
            assert sorted(line) == ["test", "train", "train", "val"]


@pytest.mark.parametrize("texture", TEXTURES)
def test_texture_kinds_are_the_foreign_textures_equally_often(texture):
    test = data("textures", texture=texture).test
    foreign = sorted({*TEXTURES} - {texture})
    assert sorted(set(test.kinds)) == sorted(["good", *foreign])
    assert [test.kinds.count(kind) for kind in foreign] == [32, 32]


def test_texture_masks_are_exact():
    full = data("textures").test
    faint = load(
        "textures", contrast=1e-6
    ).test  # the same crops and blobs, as good as unblended
    assert torch.equal(full.masks, faint.masks)
    changed = (full.images - faint.images)[:, 0].abs() > 0.02
    anomalous = full.labels == 1
    assert changed[~anomalous].sum() == 0
    near = (
        torch.nn.functional.max_pool2d(
            full.masks[:, None].float(), 5, stride=1, padding=2
        )[:, 0]
        > 0
    )
    assert not (
        changed & ~near
    ).any()  # nothing changes more than the border's width outside the mask
    assert changed[full.masks].float().mean() > 0.6  # and most within it does
    shares = full.masks[anomalous].float().mean(dim=(1, 2))
    assert shares.min() > 0.01 and shares.max() < 0.25


def test_texture_contrast_is_the_share_of_the_blob():
    none, half, full = (
        load("textures", contrast=c).test.images for c in (1e-9, 0.5, 1.0)
    )
    torch.testing.assert_close(half, (none + full) / 2, atol=1e-6, rtol=0)


def test_texture_blobs_have_the_brightness_of_their_crop():
    crop, foreign = (photograph(name)[:64, :64] for name in ("brick", "grass"))
    matched = textures._match(foreign, crop)
    assert matched.mean() == pytest.approx(crop.mean(), abs=0.01)
    assert matched.std() == pytest.approx(crop.std(), rel=0.05)


def slant(images):
    """Which way the edges lean, (N,): the off-diagonal entry of the structure tensor
    over its trace.
    """
    across, down = images[:, 0, :-1].diff(dim=2), images[:, 0, :, :-1].diff(dim=1)
    return (
        (across * down).mean(dim=(1, 2)) / (across**2 + down**2).mean(dim=(1, 2))
    ).numpy()


def test_brick_wall_leans_the_same_way_in_train_and_test():
    # Between the halves of the photograph, left and right, the perspective would tell
    # normal images apart.
    splits = data("textures")
    leans = np.concatenate([slant(splits.train.images), slant(splits.test.images[:64])])
    assert 0.3 < roc_auc_score(np.repeat([0, 1], [256, 64]), leans) < 0.7
    photo = torch.from_numpy(photograph("brick"))
    halves = [
        half.unfold(0, 64, 16).unfold(1, 64, 16).reshape(-1, 1, 64, 64)
        for half in photo.split(256, dim=1)
    ]
    left, right = map(slant, halves)
    assert left.min() > right.max() - 0.01


@pytest.mark.parametrize("size", [16, 96, 112])
def test_texture_sizes(size):
    splits = load("textures", size=size, n_train=5, n_val=4, n_test=4)
    assert splits.test.images.shape == (4, 1, size, size)
    assert splits.test.masks[2:].flatten(1).any(dim=1).all()


def test_texture_crops_can_be_used_up_but_not_repeated():
    available = 4 * (BLOCK - 112 + 1) ** 2
    splits = load("textures", size=112, n_train=2, n_val=available, n_test=2)
    assert len({image.numpy().tobytes() for image in splits.val.images}) == available
    with pytest.raises(
        ValueError, match=rf"n_val: expected an integer in \[1, {available}\]"
    ):
        load("textures", size=112, n_train=2, n_val=available + 1, n_test=2)


# -- digits


@pytest.mark.parametrize("normal_class", [0, 3, 8])
def test_digits_are_all_there_each_once(normal_class):
    splits = data("digits", normal_class=normal_class)
    source = load_digits()
    counts = np.bincount(source.target)
    sizes = [len(splits.train), len(splits.val), splits.test.kinds.count("good")]
    assert sum(sizes) == counts[normal_class]
    assert abs(sizes[0] - 2 * sizes[1]) <= 2 and abs(sizes[1] - sizes[2]) <= 1
    for digit in {*range(10)} - {normal_class}:
        assert splits.test.kinds.count(str(digit)) == counts[digit]
    images = (
        torch.cat([part.images for part in parts(splits)]).reshape(-1, 64).numpy() * 16
    )
    assert (np.sort(images, axis=0) == np.sort(source.data, axis=0)).all()


def test_digits_kinds_are_right():
    of_image = {
        image.tobytes(): target
        for image, target in zip(*load_digits(return_X_y=True), strict=True)
    }
    test = data("digits").test
    for image, kind in zip(test.images, test.kinds, strict=True):
        target = of_image[(image.double() * 16).numpy().tobytes()]
        assert kind == ("good" if target == 3 else str(target))


def test_digits_have_no_masks():
    assert all(part.masks is None for part in parts(data("digits")))


def test_digits_balanced():
    test = load("digits", balanced=True).test
    assert int(test.labels.sum()) == test.kinds.count("good") == 46
    assert len(set(test.kinds)) > 5


@pytest.mark.parametrize("size", [16, 33])
def test_digits_resized(size):
    large, small = load("digits", size=size).train.images, data("digits").train.images
    assert large.shape[1:] == (1, size, size)
    back = torch.nn.functional.adaptive_avg_pool2d(large, 8)
    torch.testing.assert_close(back.mean(), small.mean(), atol=0.01, rtol=0)
    assert np.corrcoef(back.flatten(), small.flatten())[0, 1] > 0.95


# -- Gaussian field


def standard_error(auroc, n_normal, n_anomalous):
    """Of the AUROC; Hanley and McNeil, 1982."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc)
        + (n_anomalous - 1) * (q1 - auroc**2)
        + (n_normal - 1) * (q2 - auroc**2)
    )
    return (variance / (n_normal * n_anomalous)) ** 0.5


def optimal(splits):
    return roc_auc_score(splits.test.labels, splits.optimal_score(splits.test.images))


def test_covariance_is_that_of_a_periodic_squared_exponential():
    size, length = 16, 2.0
    step = np.arange(size)
    turns = np.arange(-3, 4)[:, None] * size
    line = np.exp(-((step + turns) ** 2) / (2 * length**2)).sum(
        axis=0
    )  # summed over the periods
    plane = np.outer(line, line) / line[0] ** 2
    expected = gaussian_field.AMPLITUDE**2 * (
        0.99 * plane + 0.01 * (np.add.outer(step, step) == 0)
    )
    assert covariance(size, length)[0] == pytest.approx(
        expected.ravel(), abs=1e-6 * gaussian_field.AMPLITUDE**2
    )


def test_covariance_is_positive_definite_and_stationary():
    dense = covariance(16, 2.0)
    assert dense == pytest.approx(dense.T, abs=1e-15)
    assert np.linalg.eigvalsh(dense).min() == pytest.approx(
        0.01 * gaussian_field.AMPLITUDE**2, rel=1e-3
    )
    field = dense.reshape(16, 16, 16, 16)
    assert (np.roll(field, (3, 5, 3, 5), axis=(0, 1, 2, 3)) == field).all()


@pytest.mark.parametrize("correlation_length", [0.5, 2.0])
def test_images_have_the_mean_and_the_covariance(correlation_length):
    options = {
        "size": 16,
        "correlation_length": correlation_length,
        "n_val": 1,
        "n_test": 2,
    }
    pixels = (
        load("gaussian-field", n_train=20000, **options)
        .train.images.double()
        .flatten(1)
        .numpy()
    )
    dense = covariance(16, correlation_length)
    scale = gaussian_field.AMPLITUDE
    assert pixels.mean(axis=0) == pytest.approx(0.5, abs=5 * scale / np.sqrt(20000))
    # the standard deviation of an entry is at most sqrt(2 / n) variances
    assert np.abs(np.cov(pixels.T) - dense).max() < 6 * scale**2 * np.sqrt(2 / 20000)
    # whitened pixels are white: this sees the small eigenvalues too
    white = np.linalg.solve(np.linalg.cholesky(dense), (pixels - 0.5).T)
    assert (white**2).mean(axis=1) == pytest.approx(1, abs=6 * np.sqrt(2 / 20000))


def test_strength_is_the_mahalanobis_distance_of_the_means():
    for strength, length in [(0.5, 0.5), (2.0, 2.0), (3.0, 4.0)]:
        delta = defect(16, length, strength).ravel()
        assert delta @ np.linalg.solve(covariance(16, length), delta) == pytest.approx(
            strength**2
        )


def test_optimal_score_is_the_likelihood_ratio_of_dense_linear_algebra():
    splits = load("gaussian-field", size=16, n_train=2, n_val=2, n_test=40)
    dense, delta = covariance(16, 2.0), defect(16, 2.0, 2.0).ravel()
    x = splits.test.images.double().flatten(1).numpy() - 0.5
    squared = [
        np.einsum("nd,nd->n", y, np.linalg.solve(dense, y.T).T) for y in (x, x - delta)
    ]
    score = splits.optimal_score(splits.test.images)
    assert score.dtype == torch.float64 and score.shape == (40,)
    assert score.numpy() == pytest.approx((squared[0] - squared[1]) / 2, abs=1e-8)


def test_optimal_score_at_random_positions_is_the_mean_over_all():
    splits = load(
        "gaussian-field",
        size=16,
        n_train=2,
        n_val=2,
        n_test=30,
        strength=4.0,
        random_position=True,
    )
    dense, delta = covariance(16, 2.0), defect(16, 2.0, 4.0)
    shifts = np.ndindex(16, 16)
    deltas = np.stack([np.roll(delta, shift, axis=(0, 1)).ravel() for shift in shifts])
    x = splits.test.images.double().flatten(1).numpy() - 0.5
    ratios = x @ np.linalg.solve(dense, deltas.T) - 4.0**2 / 2
    expected = logsumexp(ratios, axis=1) - np.log(256)
    assert splits.optimal_score(splits.test.images).numpy() == pytest.approx(
        expected, abs=1e-8
    )


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0, 3.0])
def test_optimal_score_reaches_the_closed_form(strength):
    ceiling = optimal_auroc(strength)
    assert ceiling == pytest.approx(norm.cdf(strength / 2**0.5))
    error = standard_error(ceiling, 2000, 2000)
    assert optimal(data("gaussian-field", strength=strength)) == pytest.approx(
        ceiling, abs=3 * error
    )


def test_optimal_score_has_mean_and_deviation_of_theory():
    splits = data("gaussian-field")
    score = splits.optimal_score(splits.test.images).reshape(2, -1)
    assert score.mean(dim=1).numpy() == pytest.approx(
        [-2, 2], abs=5 * 2 / np.sqrt(2000)
    )
    assert score.std(dim=1).numpy() == pytest.approx([2, 2], rel=0.08)


@pytest.mark.parametrize("random_position", [False, True])
def test_optimal_score_beats_simple_scores(random_position):
    splits = data("gaussian-field", strength=3.0, random_position=random_position)
    x = splits.test.images.double().flatten(1).numpy() - 0.5
    precision = np.linalg.inv(covariance(32, 2.0))
    simple = {
        "mahalanobis": np.einsum("nd,nd->n", x @ precision, x),
        "maximum": x.max(axis=1),
        "mean": x.mean(axis=1),
        "largest residual": (x @ precision).max(axis=1),
    }
    best = max(roc_auc_score(splits.test.labels, score) for score in simple.values())
    assert optimal(splits) > best + 0.1


def test_not_knowing_the_position_costs():
    assert (
        optimal(data("gaussian-field", strength=3.0, random_position=True))
        < optimal_auroc(3.0) - 0.05
    )


def test_masks_are_the_support_of_the_bump():
    fixed, free = (
        data("gaussian-field", strength=3.0, random_position=p).test
        for p in (False, True)
    )
    y, x = np.mgrid[:32, :32] - 16
    assert (fixed.masks[-1].numpy() == (np.hypot(x, y) < gaussian_field.RADIUS)).all()
    assert (free.masks[2000:].sum(dim=(1, 2)) == fixed.masks[-1].sum()).all()
    seen = free.masks[2000:].double().mean(dim=0) / fixed.masks[-1].double().mean()
    assert seen.min() > 0.6 and seen.max() < 1.5  # everywhere on the torus alike


def test_nothing_comes_near_the_ends_of_the_range():
    strong = load("gaussian-field", strength=7.0, n_test=200)
    for part in parts(strong):
        assert part.images.min() > 0.1 and part.images.max() < 0.9


def test_optimal_score_refuses_other_images():
    score = data("gaussian-field").optimal_score
    with pytest.raises(
        ValueError,
        match=r"images: expected shape \(N, 1, 32, 32\), got \(2, 1, 16, 16\)",
    ):
        score(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"images: expected shape \(N, C, H, W\)"):
        score(torch.zeros(32, 32))


BAD = [
    (
        "textures",
        {"texture": "sand"},
        ValueError,
        "texture: expected one of 'brick', 'grass', 'gravel'",
    ),
    ("textures", {"size": 8}, ValueError, r"size: expected an integer in \[16, 112\]"),
    ("textures", {"size": 64.0}, TypeError, "size: expected an integer, got float"),
    ("textures", {"n_train": 0}, ValueError, r"n_train: expected an integer in \[1"),
    ("textures", {"n_test": 1}, ValueError, r"n_test: expected an integer in \[2"),
    (
        "textures",
        {"contrast": 0},
        ValueError,
        r"contrast: expected a number in \(0, 1\]",
    ),
    ("textures", {"contrast": float("nan")}, ValueError, "contrast: expected a number"),
    ("textures", {"seed": -1}, ValueError, "seed: expected an integer"),
    ("textures", {"seed": None}, TypeError, "seed: expected an integer, got NoneType"),
    (
        "digits",
        {"normal_class": 10},
        ValueError,
        r"normal_class: expected an integer in \[0, 9\]",
    ),
    (
        "digits",
        {"normal_class": "3"},
        TypeError,
        "normal_class: expected an integer, got str",
    ),
    ("digits", {"size": 4}, ValueError, r"size: expected an integer in \[8, 256\]"),
    (
        "digits",
        {"balanced": "yes"},
        ValueError,
        "balanced: expected one of False, True",
    ),
    ("digits", {"seed": 0.5}, TypeError, "seed: expected an integer, got float"),
    (
        "gaussian-field",
        {"size": 8},
        ValueError,
        r"size: expected an integer in \[16, 64\]",
    ),
    ("gaussian-field", {"n_val": 0}, ValueError, r"n_val: expected an integer in \[1"),
    (
        "gaussian-field",
        {"strength": 0},
        ValueError,
        r"strength: expected a number in \(0",
    ),
    (
        "gaussian-field",
        {"strength": 50},
        ValueError,
        "strength: expected at most .* no pixel leaves",
    ),
    (
        "gaussian-field",
        {"correlation_length": 9},
        ValueError,
        "correlation_length: expected a number in",
    ),
    (
        "gaussian-field",
        {"random_position": 2},
        ValueError,
        "random_position: expected one of False, True",
    ),
    (
        "gaussian-field",
        {"seed": True},
        TypeError,
        "seed: expected an integer, got bool",
    ),
    (
        "gaussian-field",
        {"colour": 1},
        TypeError,
        "options of 'gaussian-field': expected some of size",
    ),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), BAD)
def test_bad_options_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        load(name, **options)


@pytest.mark.parametrize(
    "function", [covariance, lambda size, length: defect(size, length, 1.0)]
)
def test_bad_options_of_the_field_are_refused_everywhere(function):
    with pytest.raises(ValueError, match="size: expected an integer"):
        function(2, 2.0)
    with pytest.raises(ValueError, match="correlation_length: expected a number"):
        function(16, 0)


def test_optimal_auroc_refuses_a_negative_strength():
    with pytest.raises(ValueError, match="strength: expected a number"):
        optimal_auroc(-1)


# -- bad input


test_bad_input = refuses(
    (lambda: load("textures", texture="sand"), ValueError, "texture…'brick'…'sand'"),
    (lambda: load("textures", size=500), ValueError, "size…112…500"),
    (lambda: load("textures", n_train=10**9), ValueError, "n_train"),
    (lambda: load("textures", seed=-1), ValueError, "seed…-1"),
    (lambda: photograph("sand"), ValueError, "texture…'gravel'…'sand'"),
    (lambda: load("digits", normal_class=10), ValueError, "normal_class…9…10"),
    (lambda: load("digits", normal_class="3"), TypeError, "normal_class…str"),
    (lambda: load("digits", balanced="yes"), ValueError, "balanced…'yes'"),
    (lambda: field(strength=-2), ValueError, "strength…-2"),
    (lambda: field(strength=1e6), ValueError, "strength…at most"),
    (lambda: field(correlation_length=99), ValueError, "correlation_length…99"),
    (lambda: field(n_test=1), ValueError, "n_test…1"),
    (lambda: optimal_auroc(NAN), ValueError, "strength…nan"),
)
