"""KolektorSDD, read from small files in its layout."""

import shutil

import numpy as np
import pytest
from PIL import Image

from adlab.data import load


def write(folder, item, part, defective, rng, suffix="png"):
    path = folder / f"kos{item:02}"
    path.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (20 + item % 3, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path / f"Part{part}.{suffix}")
    mask = np.zeros_like(pixels)
    mask[4:8, 2:5] = 255 * defective
    Image.fromarray(mask).save(path / f"Part{part}_label.bmp")


@pytest.fixture
def root(tmp_path):
    """Six commutators of three surfaces, the first of them cracked; the last is a copy
    of the first.
    """
    rng = np.random.default_rng(0)
    for item in range(1, 6):
        for part in range(3):
            write(tmp_path / "kolektor-sdd", item, part, part == 0, rng)
    folder = tmp_path / "kolektor-sdd"
    shutil.copytree(folder / "kos01", folder / "kos06")
    return tmp_path


def test_whole_commutators_are_on_one_side(root):
    for seed in range(5):
        splits = load("kolektor-sdd", root=root, size=(16, 8), seed=seed)
        n_train, n_test = len(splits.train) + len(splits.val), len(splits.test)
        assert splits.train.images.shape[1:] == (1, 16, 8)
        assert n_train * 3 + n_test * 2 == 36  # cracked ones of the others are left out
        assert int(splits.test.labels.sum()) * 3 == n_test
        assert n_test in (6, 9)  # two of five, or the one that is there twice


def test_copies_are_on_one_side(root):
    """Never is the image of a test commutator among those for training."""
    for seed in range(10):
        splits = load("kolektor-sdd", root=root, size=(16, 8), seed=seed)
        normal = splits.test.images[splits.test.labels == 0]
        seen = [*splits.train.images, *splits.val.images]
        gaps = [float((a - b).abs().max()) for a in normal for b in seen]
        assert min(gaps) > 0


def test_masks_and_kinds(root):
    test = load("kolektor-sdd", root=root, size=(20, 8)).test
    assert set(test.kinds) == {"good", "defect"}
    assert test.masks[test.labels == 0].sum() == 0
    assert (test.masks[test.labels == 1].flatten(1).sum(1) > 0).all()


def test_seed_draws_other_commutators(root):
    sizes = [load("kolektor-sdd", root=root, size=8, seed=s) for s in (0, 0, 1, 2, 3)]
    same = sizes[0].test.images.equal(sizes[1].test.images)
    other = [part.test.images.shape != sizes[0].test.images.shape for part in sizes[2:]]
    other += [not p.test.images.equal(sizes[0].test.images) for p in sizes[2:]]
    assert same and any(other)


@pytest.mark.parametrize("inside", ["kolektor-sdd", "KolektorSDD", "."])
def test_where_it_is_looked_for(root, inside, tmp_path):
    new = tmp_path / "elsewhere" / inside
    shutil.copytree(root / "kolektor-sdd", new)
    assert len(load("kolektor-sdd", root=tmp_path / "elsewhere", size=8).test)


def test_jpegs_as_published(tmp_path):
    rng = np.random.default_rng(0)
    for item in (1, 2):
        for part in range(3):
            write(tmp_path, item, part, part == 1, rng, "jpg")
    assert len(load("kolektor-sdd", root=tmp_path, size=8).test) == 3


def test_what_is_missing_or_wrong_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: expected the folders kos01"):
        load("kolektor-sdd", root=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="test_fraction: expected"):
        load("kolektor-sdd", root=root, test_fraction=1)
    with pytest.raises(ValueError, match="size: expected"):
        load("kolektor-sdd", root=root, size=None)  # sizes differ
    (root / "kolektor-sdd" / "kos03" / "Part1_label.bmp").unlink()
    with pytest.raises(ValueError, match=r"Part1\.png: expected its mask"):
        load("kolektor-sdd", root=root, size=8)
    for item in range(2, 6):
        shutil.rmtree(root / "kolektor-sdd" / f"kos{item:02}")
    with pytest.raises(ValueError, match="at least two different commutators, got 1"):
        load("kolektor-sdd", root=root, size=8)
