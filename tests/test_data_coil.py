"""COIL-100, read from small files in its layout."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from adlab.data import cases, load

N_VIEWS = 20


@pytest.fixture
def root(tmp_path):
    """Four objects, each of a grey of its own, from twenty sides."""
    folder = tmp_path / "coil-100"
    folder.mkdir()
    for number in (1, 2, 10, 100):
        for view in range(N_VIEWS):
            pixels = np.full((12, 8, 3), 2 * number, np.uint8)
            pixels[0, view % 8] = view
            Image.fromarray(pixels).save(folder / f"obj{number}__{5 * view}.png")
    return tmp_path


def objects(images):
    """The numbers of the objects that images show."""
    return sorted((images[:, 0, -1, -1] * 255 / 2).round().int().tolist())


def test_one_object_is_normal(root):
    for normal in (1, 10):
        splits = load("coil-100", normal_class=normal, root=root)
        train, val, test = splits.train, splits.val, splits.test
        assert train.images.shape[1:] == (3, 12, 8)
        assert set(objects(train.images) + objects(val.images)) == {normal}
        assert len(val) >= 1
        is_normal = test.labels == 0
        assert objects(test.images[is_normal]) == [normal] * (N_VIEWS // 5)
        others = [n for n in (1, 2, 10, 100) if n != normal]
        assert objects(test.images[~is_normal]) == others  # a view of each
        assert set(test.kinds) == {"good", *(f"obj{n}" for n in others)}
        assert len(train) + len(val) + int(is_normal.sum()) == N_VIEWS


def test_seed_draws_other_views(root):
    def drawn(seed):
        return load("coil-100", root=root, seed=seed).test.images

    assert drawn(0).equal(drawn(0))
    assert not all(drawn(0).equal(drawn(seed)) for seed in (1, 2, 3))


@pytest.mark.parametrize("at", ["coil-100", "."])
def test_archive_is_unpacked_when_needed(root, at, tmp_path_factory):
    new = tmp_path_factory.mktemp("new")
    (new / at).mkdir(exist_ok=True)
    with zipfile.ZipFile(new / at / "coil-100.zip", "w") as archive:
        for file in (root / "coil-100").iterdir():
            archive.write(file, f"coil-100/{file.name}")
        archive.writestr("coil-100/convert.pl", "a script that lies beside them")
    for _ in range(2):  # the second time it is there
        assert len(load("coil-100", root=new).test) == N_VIEWS // 5 + 3


def test_size(root):
    assert load("coil-100", root=root, size=16).train.images.shape[1:] == (3, 16, 16)


def test_a_hundred_cases():
    assert cases("coil-100") == ("normal_class", tuple(range(1, 101)))


def test_what_is_missing_or_wrong_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"obj1__0\.png.*not downloaded"):
        load("coil-100", root=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"normal_class: expected.*on disk.*got 7"):
        load("coil-100", normal_class=7, root=root)
    for wrong in (0, 101):
        with pytest.raises(ValueError, match="normal_class: expected"):
            load("coil-100", normal_class=wrong, root=root)
    with pytest.raises(TypeError, match="normal_class: expected"):
        load("coil-100", normal_class="obj1", root=root)
    shutil.rmtree(root / "coil-100")
    (root / "coil-100").mkdir()
    (root / "coil-100" / "coil-100.zip").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(ValueError, match=r"coil-100\.zip"):
        load("coil-100", root=root)
