"""Single images, and folders of images, read one at a time."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from adlab.data import ImageFolder, ImageSet, Reading, from_folder, read_image


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


@pytest.fixture
def folder(tmp_path):
    """Grey images of 20×24 in folders."""
    for i, name in enumerate(("a/1.png", "a/2.png", "b/0.PNG", "3.png")):
        save(tmp_path / "images" / name, pixels(i, 20, 24))
    return tmp_path / "images"


def test_an_image_is_read_by_itself(tmp_path):
    save(tmp_path / "a.png", pixels(0, 20, 24, 3))
    expected = torch.from_numpy(pixels(0, 20, 24, 3)).permute(2, 0, 1) / 255
    assert torch.equal(read_image(tmp_path / "a.png"), expected)
    assert torch.equal(
        read_image(str(tmp_path / "a.png"), crop=8), expected[:, 6:14, 8:16]
    )
    assert read_image(tmp_path / "a.png", (10, 12)).shape == (3, 10, 12)


def test_new_files_are_read_as_those_of_a_set(tmp_path):
    for i in range(6):
        save(tmp_path / f"train/good/{i}.png", pixels(i, 20, 24))
    save(tmp_path / "test/good/0.png", pixels(9, 20, 24, 3))
    splits = from_folder(tmp_path, size=(16, 18), crop=8)
    reading = splits.test.reading
    assert reading == Reading((16, 18), 8, 3)
    for part in (splits.train, splits.val, splits.test[0], splits.test[:1]):
        assert part.reading == reading
    again = reading.read(tmp_path / "test/good/0.png")
    assert torch.equal(again, splits.test.images[0])
    grey = reading.read(tmp_path / "train/good/0.png")
    assert grey.shape == (3, 8, 8) and torch.equal(grey[0], grey[2])


def test_a_reading_refuses(tmp_path):
    save(tmp_path / "a.png", pixels(0, 20, 24, 3))
    with pytest.raises(ValueError, match=r"a\.png: expected a grey image, got one in"):
        Reading(channels=1).read(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"channels: expected one of 1, 3; got 2"):
        Reading(channels=2)
    with pytest.raises(ValueError, match=r"crop: expected an integer in \[1, 16\]"):
        Reading(16, 20)
    with pytest.raises(FileNotFoundError, match=r"expected an image, got .*nowhere"):
        Reading().read(tmp_path / "nowhere.png")
    with pytest.raises(TypeError, match="file: expected a path, got int"):
        Reading().read(3)
    assert Reading([4, 5]) == Reading((4, 5))  # as a file of JSON gives it back


def test_a_folder_is_read_in_any_depth_by_name(folder):
    images = ImageFolder(folder)
    assert [len(images), images.reading] == [4, Reading(channels=1)]
    assert [file.name for file in images.files] == ["3.png", "1.png", "2.png", "0.PNG"]
    expected = torch.from_numpy(pixels(3, 1, 20, 24)) / 255
    assert torch.equal(images[0], expected)
    again = pickle.loads(pickle.dumps(images))  # as the workers of a DataLoader need it
    assert torch.equal(again[-1], images[3])


def test_files_are_read_in_their_order(folder):
    images = ImageFolder([folder / "b/0.PNG", str(folder / "3.png")], size=8)
    assert torch.equal(images[0], read_image(folder / "b/0.PNG", 8))
    assert torch.equal(images[1], read_image(folder / "3.png", 8))


def test_one_colour_image_makes_all_rgb(folder):
    save(folder / "z.png", pixels(5, 20, 24, 3))
    assert [len(image) for image in ImageFolder(folder)] == [3] * 5
    like = ImageFolder(folder, reading=Reading(10, 8, 1))
    assert like[0].shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"z\.png: expected a grey image"):
        like[4]


def test_a_folder_refuses(folder, tmp_path):
    save(folder / "z.png", pixels(5, 30, 24))
    with pytest.raises(ValueError, match=r"z\.png: expected shape \(1, 20, 24\).* got"):
        ImageFolder(folder)[4]
    with pytest.raises(ValueError, match="reading: expected none beside size or crop"):
        ImageFolder(folder, size=8, reading=Reading(8))
    save(tmp_path / "Ground_Truth/a/0.png", pixels(0, 20, 24))
    with pytest.raises(ValueError, match=r"path: expected .* normal images only, got"):
        ImageFolder(tmp_path)
    for make in (ImageSet, ImageFolder):
        with pytest.raises(TypeError, match="reading: expected a Reading, got dict"):
            make(torch.zeros(1, 1, 2, 2), reading={"size": 8})
    with pytest.raises(FileNotFoundError, match="expected a folder with images"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"expected an image, got .*no\.png"):
        ImageFolder([folder / "3.png", tmp_path / "no.png"])


def test_what_systems_keep_is_no_image(folder):
    for name in (
        *("._3.png", ".ipynb_checkpoints/3-checkpoint.png", "__MACOSX/a/3.png"),
        *("a/@eaDir/1.png/THUMB.jpg", "$RECYCLE.BIN/1.png", "Thumbs.db", ".DS_Store"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")
    assert len(ImageFolder(folder)) == 4
