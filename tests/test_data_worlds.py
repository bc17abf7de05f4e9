"""The small worlds of chapter 1: their contract, and what their kinds are."""

import numpy as np
import pytest
import torch
from bad_input import refuses
from scipy.ndimage import label

from adlab.data import cases, load
from adlab.data.worlds import WORLDS, worlds
from adlab.vectors import patch_statistics

SIZES = {
    "heartbeats": (48, 192),
    "traffic": (32, 192),
    "depth": (64, 64),
    "bolts": (64, 64),
}
FEW = {"n_train": 3, "n_val": 2, "n_test": 8}
every = pytest.mark.parametrize("world", WORLDS)


@every
def test_splits_hold_what_was_asked_for(world):
    splits = load("worlds", world=world, **FEW)
    kinds = WORLDS[world][1]
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [3, 2, 8]
    assert splits.train.images.shape == (3, 1, *SIZES[world])
    assert splits.test.images.min() >= 0 and splits.test.images.max() <= 1
    assert splits.test.kinds == ["good"] * 4 + [*kinds] * 2
    assert splits.test.masks.flatten(1).any(1).tolist() == [False] * 4 + [True] * 4
    assert not splits.train.masks.any() and not splits.val.masks.any()


@every
def test_the_seed_decides_and_more_images_leave_the_others_as_they_are(world):
    few, many = worlds(world, 2, 1, 4, seed=3), worlds(world, 4, 2, 6, seed=3)
    assert torch.equal(few.train.images, many.train.images[:2])
    assert torch.equal(few.test.images, many.test.images[[0, 1, 3, 4]])
    other = worlds(world, 2, 1, 4, seed=4)
    assert not torch.equal(few.train.images, other.train.images)
    everything = torch.cat([few.train.images, few.val.images, few.test.images])
    assert len(everything.unique(dim=0)) == 7


def test_the_worlds_are_the_cases_of_the_data_set():
    assert cases("worlds") == ("world", tuple(WORLDS))


def gaps(image):
    """Columns between the peaks of a drawn electrocardiogram."""
    high = np.flatnonzero((image[:20] > 0.5).any(0))
    peaks = [
        run.mean() for run in np.split(high, np.flatnonzero(np.diff(high) > 1) + 1)
    ]
    return np.diff(peaks[1:-1])


def test_the_normal_heart_is_regular():
    test = worlds("heartbeats", 1, 1, 40).test
    spread = {"good": [], "irregular": []}
    for image, kind in zip(test.images[:, 0].numpy(), test.kinds, strict=True):
        if kind in spread:
            spread[kind].append(np.ptp(gaps(image)))
    assert max(spread["good"]) < 2
    assert np.median(spread["irregular"]) > 4


def mean_column(masks):
    return np.array([np.argwhere(m)[:, 1].mean() for m in masks])


def test_only_the_car_that_goes_the_wrong_way_moves_to_the_left():
    test = worlds("traffic", 1, 1, 20).test.of_kind("wrong way")
    frames = test.masks.numpy().reshape(len(test), 32, 6, 32)
    places = np.stack([mean_column(frames[:, :, k]) for k in range(6)], 1)
    assert (np.diff(places) < -2).all()


def test_frames_of_traffic_are_alike_backwards():
    """So no single frame says which way a car goes: their statistics agree."""
    test = worlds("traffic", 1, 1, 200).test
    frames = test.images.unflatten(3, (6, 32)).permute(0, 3, 1, 2, 4)
    good, wrong = (
        patch_statistics(frames[[k == kind for k in test.kinds]].flatten(0, 1)).mean(0)
        for kind in ("good", "wrong way")
    )
    assert torch.allclose(good, wrong, atol=0.01)


def test_a_dent_is_smaller_than_the_tilt_of_planes_and_a_hole_is_not():
    test = worlds("depth", 1, 1, 80).test
    y, x = np.mgrid[:64, :64]
    plane = np.stack([np.ones(4096), y.ravel(), x.ravel()], 1)
    flat = test.images.flatten(1).numpy().T
    rest = flat - plane @ np.linalg.lstsq(plane, flat, rcond=None)[0]
    lowest = dict.fromkeys(("good", "hole", "dent"))
    for kind in lowest:
        lowest[kind] = rest.min(0)[[k == kind for k in test.kinds]]
    tilt = np.ptp(flat[:, :40], axis=0)
    assert lowest["hole"].max() < lowest["dent"].min() < lowest["good"].min()
    assert -lowest["dent"].min() < np.median(tilt) / 2


@pytest.mark.parametrize(("kind", "number"), [("good", 4), ("fifth", 5)])
def test_bolts_can_be_counted(kind, number):
    test = worlds("bolts", 1, 1, 40).test.of_kind(kind)
    assert [label(image[0] > 0.6)[1] for image in test.images] == [number] * len(test)


test_bad_input = refuses(
    (lambda: worlds("cats"), ValueError, "world: expected one of"),
    (lambda: worlds("bolts", n_train=0), ValueError, "n_train: expected"),
    (lambda: worlds("bolts", n_test=1), ValueError, "n_test: expected"),
    (lambda: worlds("bolts", n_val=1.5), TypeError, "n_val: expected"),
    (lambda: worlds("bolts", seed=-1), ValueError, "seed: expected"),
)
