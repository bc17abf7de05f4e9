"""ImageSet and Splits: what a data set is."""

import dataclasses

import numpy as np
import pytest
import torch
from bad_input import IMAGES, LABELS, MAPS, MASKS, refuses

import adlab
from adlab.data import ImageSet, Splits, load, misalign
from adlab.vectors import Gaussian


def pictures(n=6, channels=1, height=4, width=5):
    """Each image has a brightness of its own, so that it can be told from the others."""
    return (
        (torch.arange(n) / n)
        .view(n, 1, 1, 1)
        .expand(n, channels, height, width)
        .clone()
    )


def numbers(images):
    return (images[:, 0, 0, 0] * 6).round().int().tolist()


@pytest.fixture
def image_set():
    masks = torch.zeros(6, 4, 5, dtype=torch.bool)
    masks[3:, 1:3, 1:3] = True
    kinds = ["good", "good", "good", "hole", "bead", "hole"]
    return ImageSet(pictures(), torch.tensor([0, 0, 0, 1, 1, 1]), masks, kinds)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_bytes_are_divided_by_255(form):
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    expected = torch.from_numpy(values.astype(np.float64) / 255).float()
    assert torch.equal(ImageSet(form(values.copy())).images, expected)
    fitted = Gaussian("diag").fit(form(np.concatenate([values, values[..., ::-1]])))
    torch.testing.assert_close(
        fitted.anomaly_score(form(values.copy())), fitted.anomaly_score(expected)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(dtype):
    images = ImageSet(pictures().to(dtype)).images
    assert torch.equal(images, pictures().to(dtype).float())


def test_what_is_single_already_is_not_copied():
    images = pictures()
    assert ImageSet(images).images.data_ptr() == images.data_ptr()


def test_rounding_may_leave_the_range_and_nothing_else():
    images = pictures()
    images[0, 0, 0, :2] = torch.tensor([1 + 1.2e-7, -3e-6])
    found = ImageSet(images).images
    assert found[0, 0, 0, :2].tolist() == [1, 0]
    assert torch.equal(found[1:], images[1:]) and images.min() < 0
    for excess in (1 + 3e-5, -3e-5):
        images[0, 0, 0, 0] = excess
        with pytest.raises(ValueError, match=r"\[0, 1\], got .*(1.00003|-3e-05)"):
            ImageSet(images)


def test_defaults_are_normal_images_without_masks():
    images = ImageSet(pictures())
    assert images.labels.tolist() == [0] * 6
    assert images.masks is None
    assert images.kinds == ["good"] * 6


def test_kinds_follow_the_labels():
    assert ImageSet(pictures(3), labels=[0, 1, 0]).kinds == ["good", "anomaly", "good"]


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 1], (0, 1, 1), np.array([False, True, True]), torch.tensor([0.0, 1, 1])],
)
def test_everything_has_its_one_type(labels):
    masks = np.zeros((3, 4, 5), dtype=np.uint8)
    images = ImageSet(
        pictures(3).double().numpy(), labels, masks, kinds=("good", "a", "b")
    )
    assert images.images.dtype == torch.float32
    assert images.labels.dtype == torch.int64
    assert images.labels.tolist() == [0, 1, 1]
    assert images.masks.dtype == torch.bool
    assert images.kinds == ["good", "a", "b"]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (2, [2]),
        (-1, [5]),
        (np.int64(4), [4]),
        (torch.tensor(4), [4]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [5, 4, 3, 2, 1, 0]),
        ([4, 0, 4], [4, 0, 4]),
        (np.array([1, 3]), [1, 3]),
        (torch.tensor([1, 3]), [1, 3]),
        (torch.tensor([3]), [3]),
        ([True, False, False, True, False, False], [0, 3]),
        (np.arange(6) > 3, [4, 5]),
        (torch.arange(6) > 3, [4, 5]),
    ],
)
def test_indexing_takes_all_that_belongs_to_an_image(image_set, index, expected):
    part = image_set[index]
    assert isinstance(part, ImageSet)
    assert len(part) == len(expected)
    assert numbers(part.images) == expected
    assert part.labels.tolist() == [int(i >= 3) for i in expected]
    assert part.masks.any(2).any(1).tolist() == [i >= 3 for i in expected]
    assert part.kinds == [image_set.kinds[i] for i in expected]


def test_indexing_without_masks():
    assert ImageSet(pictures())[1:3].masks is None


def test_a_set_runs_through_its_images(image_set):
    assert [numbers(one.images) for one in image_set] == [[i] for i in range(6)]


@pytest.mark.parametrize("index", [6, -7, [0, 9], [True, False], "a", 1.5])
def test_an_index_that_is_not_there_is_refused(image_set, index):
    with pytest.raises(IndexError):
        image_set[index]


def test_the_empty_part_is_empty_and_cannot_be_used(image_set):
    for index in ([], slice(3, 3), image_set.labels > 1):
        part = image_set[index]
        assert (len(part), part.kinds, part.masks.shape) == (0, [], (0, 4, 5))
        with pytest.raises(ValueError, match="images: expected at least one image"):
            Gaussian("diag").fit(part)
    splits = Splits(image_set[:3], image_set[:0], image_set)
    assert repr(splits.val) == "ImageSet(0 images of 1×4×5, 0 anomalous, with masks)"
    for name, parts in ("train", [0, 1, 6]), ("test", [3, 1, 0]):
        with pytest.raises(ValueError, match=f"{name}: expected at least one image"):
            Splits(*(image_set[:n] for n in parts))


def test_of_kind(image_set):
    assert numbers(image_set.of_kind("hole").images) == [3, 5]
    assert numbers(image_set.of_kind("good", "bead").images) == [0, 1, 2, 4]
    assert numbers(image_set.of_kind("bead", "good").images) == [0, 1, 2, 4]


def test_an_unknown_kind_lists_those_there_are(image_set):
    with pytest.raises(
        ValueError,
        match=r"kinds: expected some of \['bead', 'good', 'hole'\], got 'holes'",
    ):
        image_set.of_kind("hole", "holes")


def test_repr_is_one_short_line(image_set):
    assert repr(image_set) == "ImageSet(6 images of 1×4×5, 3 anomalous, with masks)"
    assert (
        repr(ImageSet(pictures(2, 3)))
        == "ImageSet(2 images of 3×4×5, 0 anomalous, no masks)"
    )


def test_a_set_cannot_be_changed_by_mistake(image_set):
    with pytest.raises(dataclasses.FrozenInstanceError):
        image_set.labels = None


def test_sets_can_be_compared_and_be_keys(image_set):
    assert image_set == image_set
    assert image_set != ImageSet(pictures())
    assert {image_set: 1}[image_set] == 1


def test_what_is_given_is_not_changed():
    images, kinds = pictures(), ["good"] * 6
    part = ImageSet(images, kinds=kinds)
    part.kinds.append("more")
    assert len(kinds) == 6
    assert torch.equal(images, pictures())


def test_a_normal_image_has_no_anomalous_pixel():
    masks = np.zeros((3, 4, 5))
    masks[1, 2, 2] = 1
    ImageSet(pictures(3), [0, 1, 0], masks)
    for labels in ([0, 0, 1], None):
        with pytest.raises(ValueError, match=r"masks: expected .* got 1 "):
            ImageSet(pictures(3), labels, masks)


def test_an_anomaly_may_have_no_visible_pixel():
    assert not ImageSet(pictures(2), [0, 1], np.zeros((2, 4, 5))).masks.any()


# Splits


def test_splits_hold_normal_images_for_training_and_validation(image_set):
    splits = Splits(image_set[:2], image_set[2], image_set)
    assert splits.optimal_score is None
    assert "optimal" not in repr(splits)
    for train, val, name in [
        (image_set, image_set[:2], "train"),
        (image_set[:2], image_set[2:], "val"),
    ]:
        with pytest.raises(
            ValueError, match=f"{name}: expected normal images only, got 3 anomalous"
        ):
            Splits(train, val, image_set)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_splits_are_of_image_sets(name):
    parts = dict.fromkeys(["train", "val", "test"], ImageSet(pictures())) | {
        name: pictures()
    }
    with pytest.raises(TypeError, match=f"{name}: expected an ImageSet, got Tensor"):
        Splits(**parts)


# Images that nobody aligns


def squares(n=6, size=33):
    """A bright square away from the middle, which is also the mask."""
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    masks[:, 6:14, 16:26] = True
    images = 0.2 + 0.6 * masks[:, None].float()
    return ImageSet(images, torch.ones(n), masks, ["square"] * n)


def test_misaligned_masks_move_with_the_images():
    before = squares()
    after = adlab.data.misalign(before, angle=180, shift=3)
    assert after.images.shape == before.images.shape
    assert (after.kinds, after.labels.tolist()) == (before.kinds, [1] * 6)
    bright = after.images[:, 0] > 0.5
    assert bool((bright == after.masks).all())
    moved = (before.masks != after.masks).flatten(1).any(1)
    assert int(moved.sum()) == 6
    assert float(after.masks.sum()) == pytest.approx(6 * 80, rel=0.1)
    again = adlab.data.misalign(before, angle=180, shift=3)
    assert torch.equal(after.images, again.images)
    other = adlab.data.misalign(before, angle=180, shift=3, seed=1)
    assert not torch.equal(after.images, other.images)


def test_a_border_goes_on_and_nothing_is_moved_by_nothing():
    flat = ImageSet(torch.full((3, 3, 20, 31), 0.3))
    turned = adlab.data.misalign(flat, angle=180, shift=5)
    assert torch.allclose(turned.images, flat.images, atol=1e-6)
    assert turned.masks is None
    before = squares()
    same = adlab.data.misalign(before, angle=0, shift=0)
    assert torch.allclose(same.images, before.images, atol=1e-6)
    assert torch.equal(same.masks, before.masks)


def test_shift_is_by_whole_pixels_and_not_above_the_limit():
    before, found = squares(), set()
    for seed in range(40):
        after = adlab.data.misalign(before[0], angle=0, shift=2, seed=seed)
        row, column = (int(x.min()) for x in torch.nonzero(after.masks[0]).T)
        found.add((6 - row, 16 - column))
    assert found <= {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    assert len(found) > 10


# Names


def test_load_lists_the_known_names():
    with pytest.raises(
        ValueError, match=r"name: expected one of .*'digits'.*'mvtec-ad'.* got 'digit'"
    ):
        adlab.data.load("digit")


def test_load_lists_the_known_options():
    with pytest.raises(
        TypeError, match=r"options of 'digits': expected some of .*seed.* got 'sede'"
    ):
        adlab.data.load("digits", sede=1)


def test_embedded_and_public_names_are_all_names():
    assert set(adlab.data.EMBEDDED) & set(adlab.data.PUBLIC) == set()
    assert {"nanofibres", "wafers", "textures", "digits"} <= set(adlab.data.EMBEDDED)
    assert {"mnist", "fashion-mnist", "kmnist", "cifar10", "mvtec-ad", "btad"} <= set(
        adlab.data.PUBLIC
    )


# Bad input


NORMAL, CUT = ImageSet(IMAGES), MASKS[:, 1:]
MIXED = ImageSet(IMAGES, LABELS)


test_bad_input = refuses(
    (lambda: Splits(NORMAL[[]], NORMAL, MIXED), ValueError, "train…at least one"),
    (lambda: ImageSet(IMAGES * 2), ValueError, "images…[0, 1]"),
    (lambda: ImageSet(IMAGES, LABELS[:5]), ValueError, "labels…(8,)…(5,)"),
    (lambda: ImageSet(IMAGES, ["good"] * 8), TypeError, "labels…list"),
    (lambda: ImageSet(IMAGES, np.arange(8)), ValueError, "labels…0…1…2"),
    (lambda: ImageSet(IMAGES, LABELS, CUT), ValueError, "masks…(8, 6, 5)…(8, 5, 5)"),
    (lambda: ImageSet(IMAGES, LABELS, MAPS), ValueError, "masks…0 and 1"),
    (lambda: ImageSet(IMAGES, None, MASKS), ValueError, "masks…normal image"),
    (lambda: ImageSet(IMAGES, kinds=["good"]), ValueError, "kinds…8…1"),
    (lambda: NORMAL.of_kind("hole"), ValueError, "kinds…'good'…'hole'"),
    (lambda: Splits(MIXED, NORMAL, MIXED), ValueError, "train…normal…3 anomalous"),
    (lambda: Splits(NORMAL, MIXED, MIXED), ValueError, "val…normal…3 anomalous"),
    (lambda: Splits(NORMAL, NORMAL, IMAGES), TypeError, "test…ImageSet…Tensor"),
    (lambda: load("mnst"), ValueError, "name…'nanofibres'…'mnist'…'mnst'"),
    (lambda: load(None), ValueError, "name…'digits'…None"),
    (lambda: load("digits", sede=1), TypeError, "options of 'digits'…seed…'sede'"),
    (lambda: misalign(IMAGES), TypeError, "image_set…ImageSet…Tensor"),
    (lambda: misalign(NORMAL, angle=200), ValueError, "angle…[0, 180]…200"),
    (lambda: misalign(NORMAL, shift=0.5), TypeError, "shift…an integer…0.5"),
)
