"""The generated data sets: their contract, their exact masks, and that they come out
the same everywhere.
"""

import numpy as np
import pytest
import torch
from bad_input import refuses

from adlab.data import load, nanofibres as fibres_module, sem
from adlab.data.nanofibres import KINDS, nanofibres
from adlab.data.wafers import PATTERNS, wafer_patterns, wafers

FEW = {"n_train": 3, "n_val": 2, "n_test": 24}
GENERATORS = [(nanofibres, KINDS), (wafers, PATTERNS)]
both = pytest.mark.parametrize("make", [nanofibres, wafers])
every_kind = pytest.mark.parametrize("kind", KINDS)
SIZE = 64


@pytest.fixture(scope="module", params=GENERATORS, ids=["nanofibres", "wafers"])
def data(request):
    """Small splits of one generator, and its kinds of defect."""
    make, kinds = request.param
    return make(size=SIZE, **FEW), kinds


def parts(splits):
    return splits.train, splits.val, splits.test


# -- the contract of both


def test_splits_hold_what_was_asked_for(data):
    splits, _ = data
    assert [len(part) for part in parts(splits)] == [3, 2, 24]
    for part in parts(splits):
        assert (
            part.images.shape == (len(part), 1, SIZE, SIZE)
            and part.images.dtype == torch.float32
        )
        assert part.images.min() >= 0 and part.images.max() <= 1
        assert (
            part.masks.shape == (len(part), SIZE, SIZE)
            and part.masks.dtype == torch.bool
        )


def test_half_of_the_test_is_anomalous_and_the_kinds_take_turns(data):
    splits, kinds = data
    test = splits.test
    assert test.kinds[:12] == ["good"] * 12
    assert test.kinds[12:] == [kinds[i % len(kinds)] for i in range(12)]
    assert test.labels.tolist() == [int(kind != "good") for kind in test.kinds]


def test_only_anomalous_images_have_a_mask(data):
    splits, _ = data
    marked = splits.test.masks.flatten(1).any(1)
    assert marked.tolist() == splits.test.labels.bool().tolist()
    assert not splits.train.masks.any() and not splits.val.masks.any()


def test_no_image_occurs_twice(data):
    splits, _ = data
    images = torch.cat([part.images for part in parts(splits)])
    assert len({image.numpy().tobytes() for image in images}) == 29


@both
def test_the_same_seed_gives_the_same_images_and_another_seed_others(make):
    first, again, other = (
        make(size=32, n_train=2, n_val=1, n_test=2, seed=seed) for seed in (7, 7, 8)
    )
    for one, same, different in zip(
        parts(first), parts(again), parts(other), strict=True
    ):
        assert torch.equal(one.images, same.images) and torch.equal(
            one.masks, same.masks
        )
        assert not (one.images.flatten(1) == different.images.flatten(1)).all(1).any()


@both
def test_more_images_of_one_split_leave_all_others_as_they_are(make):
    small = make(size=32, n_train=2, n_val=1, n_test=4)
    large = make(size=32, n_train=4, n_val=3, n_test=8)
    assert torch.equal(small.train.images, large.train.images[:2])
    assert torch.equal(small.val.images, large.val.images[:1])
    assert torch.equal(small.test.images, large.test.images[[0, 1, 4, 5]])
    assert torch.equal(small.test.masks, large.test.masks[[0, 1, 4, 5]])


@both
def test_an_odd_test_has_one_normal_image_more(make):
    assert make(size=32, n_train=1, n_val=1, n_test=5).test.labels.tolist() == [
        0,
        0,
        0,
        1,
        1,
    ]


@both
@pytest.mark.parametrize("size", [32, 100])
def test_other_sizes(make, size):
    splits = make(size=size, n_train=1, n_val=1, n_test=24)
    assert splits.test.images.shape == (24, 1, size, size)
    assert splits.test.masks[12:].flatten(1).any(1).all()


@pytest.mark.parametrize("name", ["nanofibres", "wafers"])
def test_load_by_name(name):
    assert len(load(name, size=32, n_train=2, n_val=1, n_test=2).train) == 2


# For seed 0 and size 64: the means of the quarters of the first training image, the
# share of marked pixels in the test, and the mean inside. Compared with a tolerance:
# the last bit of a sine differs between machines.
KNOWN = {
    nanofibres: [0.2695, 0.2152, 0.2921, 0.2861, 0.0851, 0.4628],
    wafers: [0.4087, 0.4092, 0.4092, 0.417, 0.0498, 1.0],
}


@both
def test_the_images_are_those_of_every_other_machine(make):
    splits = make(size=SIZE, **FEW)
    quarters = (
        splits.train.images[0].reshape(2, 32, 2, 32).mean((1, 3)).flatten().tolist()
    )
    masks = splits.test.masks
    inside = splits.test.images[:, 0][masks].mean()
    assert [*quarters, masks.float().mean(), inside] == pytest.approx(
        KNOWN[make], abs=1e-3
    )


# -- nanofibres


def pair(kind, index=0, size=SIZE):
    """(clean, spoiled, mask) of one nanofibre picture, before the noise."""
    return fibres_module._clean_and_spoiled(
        size, kind, fibres_module._streams(0, 3, index)
    )


@every_kind
@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_defect_changes_the_pixels_of_its_mask_and_no_other(kind, size):
    for index in range(4):
        clean, spoiled, mask = pair(kind, index, size)
        change = np.abs(spoiled - clean)
        assert (change[~mask] == 0).all()
        assert change[mask].mean() > 0.05 and (change[mask] > 0.02).mean() > 0.4
        assert 0.01 < mask.mean() < 0.6


@every_kind
def test_noise_leaves_the_pixels_outside_the_mask_alike(kind):
    index = KINDS.index(kind)
    faint, full = (nanofibres(64, 1, 1, 10, contrast=c).test for c in (1e-6, 1.0))
    mask = full.masks[5 + index]
    difference = (full.images[5 + index, 0] - faint.images[5 + index, 0]).abs()
    assert difference[~mask].max() < 1e-5 and difference[mask].mean() > 0.05
    assert torch.equal(mask, faint.masks[5 + index])


@pytest.mark.parametrize("grey", [0.1, 0.35, 0.7])
def test_the_noise_grows_with_the_grey_value(grey):
    """Of a flat picture, the differences of neighbours in a row: what charging adds to
    a row, or slowly along it, is not in them.
    """
    flat = np.full((200, 200), grey, np.float32)
    recorded = sem.record(flat, np.random.default_rng(0)).astype(float)
    variance = np.square(np.diff(recorded, axis=1)).mean() / 2
    assert variance == pytest.approx(0.0012 * grey + 0.012**2, rel=0.1)


@every_kind
def test_less_contrast_makes_less_of_a_difference(kind):
    def picture(contrast):
        return fibres_module._anomalous(
            64, kind, contrast, fibres_module._streams(0, 3, 1)
        )[0]

    clean = picture(0.0)
    steps = [
        np.abs(picture(contrast) - clean).mean() for contrast in (0.1, 0.3, 0.6, 1.0)
    ]
    assert steps[0] > 0 and (np.diff(steps) > 0).all()


def test_the_defects_are_what_their_names_say():
    change = dict.fromkeys(KINDS, 0.0)
    for kind in KINDS:
        for index in range(4):
            clean, spoiled, mask = pair(kind, index, 128)
            change[kind] += (spoiled - clean)[mask].mean() / 4
    assert (
        change["hole"] < -0.1 and change["broken"] < -0.02
    )  # darker: fibres are missing
    assert (
        change["bead"] > 0.1 and change["thick"] > 0.1
    )  # brighter: more of a near fibre


def test_fibres_are_equally_dense_everywhere():
    images = nanofibres(64, 40, 1, 2).train.images[:, 0]
    middle, border = images[:, 16:48, 16:48].mean(), images[:, [0, 1, -2, -1]].mean()
    assert abs(middle - border) < 0.03


def test_flanks_shine_and_deep_fibres_are_dark():
    fibres = sem.draw_fibres(64, np.random.default_rng(0))
    thick = sem.with_changed(fibres, 5, radius=np.full(64, 4.0))
    kept, added = sem._profile(
        np.linspace(-4, 4, 9, dtype=np.float32)[None, :, None], thick
    )
    across = added[5, 1:-1, 32]
    assert across[0] > across[3] and across[-1] > across[3]
    assert (kept >= 0).all() and (kept <= 1).all()
    assert fibres.brightness[-5:].mean() > 2 * fibres.brightness[:5].mean()


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"size": 31}, ValueError),
        ({"size": 513}, ValueError),
        ({"size": 64.0}, TypeError),
        ({"n_train": 0}, ValueError),
        ({"n_val": 0}, ValueError),
        ({"n_test": 1}, ValueError),
        ({"contrast": 0}, ValueError),
        ({"contrast": 1.01}, ValueError),
        ({"contrast": float("nan")}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": None}, TypeError),
    ],
    ids=str,
)
def test_nanofibres_refuses_bad_options(option, error):
    with pytest.raises(error, match=f"^{next(iter(option))}: expected"):
        nanofibres(**option)


# -- wafers


def test_a_die_is_outside_or_working_or_defective():
    images = wafer_patterns(2, size=SIZE).images[:, 0]
    assert images.unique().tolist() == [0, 0.5, 1]
    outside = images == 0
    assert (outside == outside[0]).all() and outside[0, 0, 0] and not outside[0, 32, 32]
    assert float((~outside[0]).float().mean()) == pytest.approx(np.pi / 4, abs=0.02)


def test_dies_of_a_mask_are_defective_and_the_others_fail_as_rarely_as_the_noise_says():
    patterns = wafer_patterns(10, noise=0.02)
    images = patterns.images[:, 0]
    assert (images[patterns.masks] == 1).all()
    others = images[(images > 0) & ~patterns.masks]
    assert float((others == 1).float().mean()) == pytest.approx(0.02, abs=0.003)


def test_without_noise_only_the_pattern_fails():
    patterns = wafer_patterns(2, noise=0)
    assert torch.equal(patterns.images[:, 0] == 1, patterns.masks)


def test_wafer_patterns_are_those_asked_for():
    some = wafer_patterns(3, kinds=["Ring", "good"], size=32)
    assert some.kinds == ["Ring"] * 3 + ["good"] * 3 and some.labels.tolist() == [
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    everything = wafer_patterns(4, size=32)
    assert len(everything) == 52 and set(everything.kinds) == {"good", *PATTERNS}
    assert torch.equal(
        some.of_kind("Ring").images, everything.of_kind("Ring").images[:3]
    )


@pytest.mark.parametrize("kind", PATTERNS)
def test_the_wafers_of_a_pattern_vary_and_are_never_empty(kind):
    patterns = wafer_patterns(40, kinds=[kind], size=32)
    assert len({mask.numpy().tobytes() for mask in patterns.masks}) == 40
    assert patterns.masks.flatten(1).any(1).all()


def test_patterns_can_be_told_apart():
    """A nearest-neighbour classifier of radial and angular profiles beats chance by
    far.
    """
    train, test = (
        wafer_patterns(30, kinds=PATTERNS, seed=1),
        wafer_patterns(10, kinds=PATTERNS, seed=2),
    )
    features = [_profiles(part.images[:, 0].numpy()) for part in (train, test)]
    distances = ((features[1][:, None] - features[0][None]) ** 2).sum(-1)
    predicted = [train.kinds[i] for i in distances.argmin(1)]
    correct = np.mean([a == b for a, b in zip(predicted, test.kinds, strict=True)])
    assert correct > 0.6


def _profiles(images):
    """Share of defective dies by distance from the centre, and sorted by direction: (N,
    24).
    """
    y, x = np.mgrid[:64, :64] - 31.5
    ring = np.digitize(np.hypot(x, y) / 32, np.linspace(0, 1, 13)[1:-1])
    sector = np.digitize(np.arctan2(y, x), np.linspace(-np.pi, np.pi, 13)[1:-1])
    disc, failed = images[0] > 0, images == 1
    radial = [failed[:, disc & (ring == k)].mean(1) for k in range(12)]
    angular = [failed[:, disc & (sector == k)].mean(1) for k in range(12)]
    return np.concatenate(
        [np.stack(radial, 1), np.sort(np.stack(angular, 1), axis=1)], axis=1
    )


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"size": 31}, ValueError),
        ({"size": 257}, ValueError),
        ({"size": "64"}, TypeError),
        ({"n_train": 0}, ValueError),
        ({"n_val": 0}, ValueError),
        ({"n_test": 1}, ValueError),
        ({"noise": -0.1}, ValueError),
        ({"noise": 0.6}, ValueError),
        ({"noise": "low"}, TypeError),
        ({"seed": 1.5}, TypeError),
    ],
    ids=str,
)
def test_wafers_refuses_bad_options(option, error):
    with pytest.raises(error, match=f"^{next(iter(option))}: expected"):
        wafers(**option)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"n_per_kind": 0}, ValueError),
        ({"kinds": "Ring"}, TypeError),
        ({"kinds": 3}, TypeError),
        ({"kinds": []}, ValueError),
        ({"kinds": ["Ring", "Ring"]}, ValueError),
        ({"kinds": ["Spiral"]}, ValueError),
        ({"size": 8}, ValueError),
        ({"noise": 1}, ValueError),
        ({"seed": -1}, ValueError),
    ],
    ids=str,
)
def test_wafer_patterns_refuses_bad_options(option, error):
    with pytest.raises(error, match=f"^{next(iter(option))}: expected"):
        wafer_patterns(**option)


# -- bad input


test_bad_input = refuses(
    (lambda: load("nanofibres", size=8), ValueError, "size…32…8"),
    (lambda: load("nanofibres", n_train=0), ValueError, "n_train…0"),
    (lambda: load("nanofibres", contrast=0), ValueError, "contrast…0"),
    (lambda: load("wafers", size=31), ValueError, "size…32…31"),
    (lambda: load("wafers", noise=0.6), ValueError, "noise…0.5…0.6"),
    (lambda: load("wafers", n_test=1.0), TypeError, "n_test…float 1.0"),
    (lambda: wafer_patterns(kinds=["ring"]), ValueError, "kinds…'good'…'ring'"),
    (lambda: wafer_patterns(kinds="good"), TypeError, "kinds…str 'good'"),
    (lambda: wafer_patterns(kinds=[]), ValueError, "kinds…at least one"),
    (lambda: wafer_patterns(n_per_kind=0), ValueError, "n_per_kind…0"),
)
