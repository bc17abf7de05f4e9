"""Public data sets and folders of images, read from small files that the tests write in
the real formats.
"""

import errno
import gzip
import hashlib
import io
import pickle
import struct
import sys
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import pattern, refuses
from PIL import Image
from torchvision import datasets
from torchvision.transforms.v2 import functional as transforms

from adlab.data import from_folder, load
from adlab.data.archives import unpack
from adlab.data.folders import MVTEC_AD, data_root
from adlab.data.public import CLOTHES

MNIST_LIKE = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
NORMAL = {"n_val": 2, "download": False}


@pytest.fixture(autouse=True)
def no_download(monkeypatch, tmp_path):
    """No data of this machine's user, and a network that does not answer; `attempts`
    counts the calls.
    """
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("the network does not answer")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("ADLAB_DATA", str(tmp_path / "unset"))
    return attempts


def labels_of(n):
    return np.arange(n) % 10


def bytes_of(n, *shape):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def idx(array):
    """An array of bytes in the IDX format of MNIST."""
    return (
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def mnist_files():
    return {
        "train-images-idx3-ubyte": idx(bytes_of(60, 28, 28)),
        "train-labels-idx1-ubyte": idx(labels_of(60)),
        "t10k-images-idx3-ubyte": idx(bytes_of(30, 28, 28)),
        "t10k-labels-idx1-ubyte": idx(labels_of(30)),
    }


def write_files(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10 with batches of 20 images, in torchvision's layout, whose check of MD5
    sums knows them.
    """
    files = {}
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        data = np.random.default_rng(i).integers(0, 256, (20, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": data, "labels": labels_of(20).tolist()})
    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    files["batches.meta"] = pickle.dumps({"label_names": names})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[f, sums[f]] for f in list(files)[:5]]
    )
    monkeypatch.setattr(
        datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]]
    )
    meta = {
        "filename": "batches.meta",
        "key": "label_names",
        "md5": sums["batches.meta"],
    }
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return write_files(tmp_path / "cifar-10-batches-py", files)


# -- one against the rest


@pytest.mark.parametrize(("name", "folder"), MNIST_LIKE.items())
def test_mnist_and_kin(name, folder, tmp_path, no_download):
    write_files(tmp_path / folder / "raw", mnist_files())
    splits = load(name, root=tmp_path, normal_class=4, n_val=2)
    normal = bytes_of(60, 28, 28)[labels_of(60) == 4]
    found = torch.cat([splits.train.images, splits.val.images])
    assert [len(splits.train), len(splits.val), len(splits.test)] == [4, 2, 30]
    assert sorted(image.tobytes() for image in normal) == sorted(
        (image * 255).round().to(torch.uint8).numpy().tobytes() for image in found
    )
    expected = torch.from_numpy(bytes_of(30, 28, 28))[:, None] / 255
    torch.testing.assert_close(
        splits.test.images, expected
    )  # the test split: in order, and complete
    assert splits.test.labels.tolist() == [int(label != 4) for label in labels_of(30)]
    assert splits.test.masks is None
    assert no_download == []  # all was on disk, so the network was not asked


def test_classes_have_the_names_of_torchvision(tmp_path):
    write_files(tmp_path / "FashionMNIST" / "raw", mnist_files())
    splits = load("fashion-mnist", root=tmp_path, normal_class="Ankle boot", **NORMAL)
    assert splits.test.kinds[:10] == [*datasets.FashionMNIST.classes[:9], "good"]
    number = load(
        "fashion-mnist",
        root=tmp_path,
        normal_class=CLOTHES.index("Ankle boot"),
        **NORMAL,
    )
    assert torch.equal(splits.train.images, number.train.images)


def test_cifar10(cifar, no_download):
    splits = load("cifar10", root=cifar.parent, normal_class="cat", n_val=2)
    assert splits.train.images.shape == (8, 3, 32, 32)
    assert splits.test.kinds[:5] == ["airplane", "automobile", "bird", "good", "deer"]
    with (cifar / "test_batch").open("rb") as file:
        first = pickle.load(file)["data"][0]
    expected = torch.from_numpy(first.reshape(3, 32, 32).astype(np.float32)) / 255
    torch.testing.assert_close(
        splits.test.images[0], expected
    )  # red, green and blue planes, rows first
    assert no_download == []


def test_validation_is_a_seeded_draw(tmp_path):
    write_files(tmp_path / "MNIST" / "raw", mnist_files())
    one, same, other = (
        load("mnist", root=tmp_path, n_val=3, seed=s).val.images for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "cifar10"])
def test_what_is_not_on_disk_and_not_downloaded(name, tmp_path, no_download):
    with pytest.raises(
        FileNotFoundError, match=r"not found in .*download=False.* root= or ADLAB_DATA"
    ):
        load(name, root=tmp_path, download=False)
    assert no_download == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "cifar10"])
def test_what_cannot_be_downloaded(name, tmp_path, no_download, capsys):
    with pytest.raises(FileNotFoundError) as raised:
        load(name, root=tmp_path)
    message = str(raised.value)
    for part in (
        "not found in",
        str(tmp_path),
        "tried and failed",
        "the network does not answer",
        "ADLAB_DATA",
    ):
        assert part in message
    assert no_download
    assert list(tmp_path.iterdir()) == []  # and no empty folders are left


@pytest.mark.parametrize("own", ["", "MNIST", "MNIST/raw"])
def test_a_failed_download_leaves_the_folders_that_were_there(
    own, tmp_path, no_download
):
    root = tmp_path / "data"
    folder = root / own if own else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileNotFoundError, match="tried and failed"):
        load("mnist", root=root)
    assert sorted(tmp_path.rglob("*")) == before


def test_only_what_is_missing_is_named(tmp_path):
    files = mnist_files()
    del files["t10k-labels-idx1-ubyte"]
    write_files(tmp_path / "MNIST" / "raw", files)
    with pytest.raises(
        FileNotFoundError, match=r"MNIST: t10k-labels-idx1-ubyte not found in"
    ) as raised:
        load("mnist", root=tmp_path)
    assert "train-images" not in str(raised.value).split(" not found")[0]


def test_archives_on_disk_need_no_network(tmp_path, monkeypatch, no_download):
    packed = {
        f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()
    }
    sums = [
        (name, hashlib.md5(content).hexdigest()) for name, content in packed.items()
    ]
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    write_files(tmp_path / "MNIST" / "raw", packed)
    assert len(load("mnist", root=tmp_path, n_val=2).test) == 30
    assert no_download == []


def test_half_a_file_is_refused_by_name(tmp_path):
    for name, content in mnist_files().items():
        for part in (content[: len(content) // 2], content[:2], b"", content + b"\0"):
            write_files(tmp_path / "MNIST" / "raw", mnist_files() | {name: part})
            with pytest.raises(
                ValueError,
                match=rf"{name}: damaged, or not downloaded to its end; delete it",
            ):
                load("mnist", root=tmp_path, **NORMAL)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_half_a_batch_is_refused_by_name(name, cifar):
    (cifar / name).write_bytes((cifar / name).read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{name}: damaged"):
        load("cifar10", root=cifar.parent, **NORMAL)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"normal_class": 10},
            ValueError,
            r"normal_class: expected an integer in \[0, 9\]",
        ),
        ({"normal_class": "ten"}, ValueError, "normal_class: expected one of '0', '1'"),
        (
            {"normal_class": 1.0},
            TypeError,
            "normal_class: expected an integer, got float",
        ),
        ({"root": 5}, TypeError, "root: expected a path, got int"),
        ({"download": "no"}, ValueError, "download: expected one of False, True"),
        ({"n_val": 0}, ValueError, r"n_val: expected an integer in \[1"),
        ({"n_val": 6}, ValueError, r"n_val: expected an integer in \[1, 5\]"),
        ({"seed": -1}, ValueError, "seed: expected an integer"),
        (
            {"split": "train"},
            TypeError,
            "options of 'mnist': expected some of normal_class, root",
        ),
    ],
)
def test_bad_options_of_public_data_are_refused(options, error, message, tmp_path):
    write_files(tmp_path / "MNIST" / "raw", mnist_files())
    with pytest.raises(error, match=message):
        load("mnist", **({"root": tmp_path, "n_val": 2} | options))


def test_root(monkeypatch, tmp_path):
    assert data_root("here") == Path("here")
    assert data_root("~/here") == Path.home() / "here"
    monkeypatch.setenv("ADLAB_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("here") == Path("here")
    monkeypatch.setenv("ADLAB_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root() == tmp_path / "cache" / "adlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, cache in [("linux", ".cache"), ("darwin", "Library/Caches")]:
        monkeypatch.setattr(sys, "platform", platform)
        assert data_root() == Path.home() / cache / "adlab"


def test_environment_names_the_root(monkeypatch, tmp_path):
    write_files(tmp_path / "MNIST" / "raw", mnist_files())
    monkeypatch.setenv("ADLAB_DATA", str(tmp_path))
    assert len(load("mnist", n_val=2).test) == 30


# -- folders


def picture(seed, height=20, width=24, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    )


def square(height=20, width=24, value=255):
    """A mask: a square in the middle."""
    mask = np.zeros((height, width), np.uint8)
    mask[6:14, 8:16] = value
    return Image.fromarray(mask)


def save(image, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def write_layout(
    path,
    normal="good",
    mask="{}_mask.png",
    image="{}.png",
    n_train=10,
    kinds=("hole", "scratch"),
):
    """Ten normal images for training; for the test, three normal ones and two of each
    kind, with masks.
    """
    for i in range(n_train):
        save(picture(i), path / "train" / normal / image.format(f"{i:03}"))
    for i in range(3):
        save(picture(100 + i), path / "test" / normal / image.format(f"{i:03}"))
    for k, kind in enumerate(kinds):
        for i in range(2):
            save(
                picture(200 + 10 * k + i),
                path / "test" / kind / image.format(f"{i:03}"),
            )
            save(square(), path / "ground_truth" / kind / mask.format(f"{i:03}"))
    return path


def test_layout_of_mvtec_ad(tmp_path):
    splits = from_folder(write_layout(tmp_path))
    assert [len(splits.train), len(splits.val), len(splits.test)] == [9, 1, 7]
    assert splits.test.kinds == ["good"] * 3 + ["hole"] * 2 + ["scratch"] * 2
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert splits.test.masks.sum(dim=(1, 2)).tolist() == [0, 0, 0, 64, 64, 64, 64]
    assert splits.test.masks[3, 6:14, 8:16].all()
    for i, seed in enumerate(
        [100, 101, 102, 200, 201, 210, 211]
    ):  # every image with its own label and mask
        expected = torch.from_numpy(np.array(picture(seed))).permute(2, 0, 1) / 255
        torch.testing.assert_close(splits.test.images[i], expected)


def test_load_by_name_from_the_mvtec_root(tmp_path, monkeypatch):
    for folder in ("mvtec-ad", "mvtec_ad", "."):
        root = tmp_path / f"root of {folder}"
        write_layout(root / folder / "bottle")
        splits = load("mvtec-ad", category="bottle", root=root, size=(16, 12), crop=8)
        assert splits.test.images.shape == (7, 3, 8, 8)
        monkeypatch.setenv("ADLAB_DATA", str(root))
        assert len(load("mvtec-ad", category="bottle", crop=None).test) == 7


@pytest.mark.parametrize(
    "folder",
    ["btad", "BTech_Dataset_transformed", "btad/BTech_Dataset_transformed", "."],
)
@pytest.mark.parametrize(
    ("image", "mask"),
    [("{}.bmp", "{}.png"), ("{}.png", "{}.png"), ("{}.bmp", "{}.bmp")],
)
def test_layout_of_btad(folder, image, mask, tmp_path):
    write_layout(
        tmp_path / folder / "02", normal="ok", kinds=["ko"], image=image, mask=mask
    )
    splits = load("btad", category="02", root=tmp_path, size=None)
    assert splits.test.kinds == ["good"] * 3 + ["ko"] * 2
    assert splits.test.masks.sum(dim=(1, 2)).tolist() == [0, 0, 0, 64, 64]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".TIFF"])
def test_formats_without_loss(suffix, tmp_path):
    splits = from_folder(
        write_layout(tmp_path, image="{}" + suffix, mask="{}_mask" + suffix)
    )
    expected = from_folder(write_layout(tmp_path / "png"))
    assert torch.equal(splits.test.images, expected.test.images)
    assert torch.equal(splits.test.masks, expected.test.masks)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg(suffix, tmp_path):
    splits = from_folder(
        write_layout(tmp_path, image="{}" + suffix, mask="{}_mask" + suffix)
    )
    assert splits.test.masks.sum(dim=(1, 2)).tolist() == [
        0,
        0,
        0,
        64,
        64,
        64,
        64,
    ]  # without its artefacts


def test_what_is_no_image_is_not_read(tmp_path):
    write_layout(tmp_path)
    for file in [
        "train/good/Thumbs.db",
        "train/good/.hidden.png",
        "test/notes.txt",
        "test/.cache/x.png",
        "license.txt",
    ]:
        write_files((tmp_path / file).parent, {Path(file).name: b"no image"})
    assert len(from_folder(tmp_path).test) == 7


def test_without_ground_truth_there_are_no_masks(tmp_path):
    write_layout(tmp_path)
    (tmp_path / "ground_truth").rename(tmp_path / "elsewhere")
    assert from_folder(tmp_path).test.masks is None


@pytest.mark.parametrize("value", [1, 7, 255])
def test_masks_are_true_where_they_are_not_black(value, tmp_path):
    write_layout(tmp_path)
    save(square(value=value), tmp_path / "ground_truth/hole/000_mask.png")
    save(
        square(value=value).convert("RGBA"), tmp_path / "ground_truth/hole/001_mask.png"
    )
    masks = from_folder(tmp_path).test.masks
    assert torch.equal(masks[3], masks[5]) and torch.equal(masks[4], masks[5])


def test_resizing_and_cropping_as_in_the_usual_protocol(tmp_path):
    write_layout(tmp_path)
    image = from_folder(tmp_path, size=(10, 16), crop=8).test.images[3]
    expected = transforms.resize(
        transforms.to_image(picture(200)), [10, 16], antialias=True
    )
    expected = transforms.center_crop(expected, [8, 8]) / 255
    torch.testing.assert_close(
        image, expected, atol=1 / 255, rtol=0
    )  # torchvision rounds to whole grey values
    assert from_folder(tmp_path, size=16).test.images.shape == (7, 3, 16, 16)
    assert from_folder(tmp_path, crop=20).test.masks.shape == (7, 20, 20)


def test_masks_are_resized_with_their_images(tmp_path):
    write_layout(tmp_path)
    masks = from_folder(tmp_path, size=(40, 48)).test.masks
    assert masks[3, 12:28, 16:32].all() and masks[3].sum() == 256
    shape = Image.new("L", (24, 20))
    shape.paste(255, (0, 0, 12, 20))
    save(shape, tmp_path / "test/hole/000.png")
    save(shape, tmp_path / "ground_truth/hole/000_mask.png")
    test = from_folder(tmp_path, size=(10, 6), crop=4).test
    assert torch.equal(test.masks[3], test.images[3, 0] > 0.5)


def test_validation_draw(tmp_path):
    write_layout(tmp_path, n_train=20)
    default, same, other = (from_folder(tmp_path, seed=s) for s in (0, 0, 1))
    assert torch.equal(default.val.images, same.val.images)
    assert not torch.equal(default.val.images, other.val.images)
    assert len(default.val) == 2
    assert len(from_folder(tmp_path, val_fraction=0.25).val) == 5
    assert len(from_folder(tmp_path, val_fraction=0.001).val) == 1
    images = torch.cat([default.train.images, default.val.images])
    assert len({image.numpy().tobytes() for image in images}) == 20


def test_copies_of_an_image_are_not_divided_between_train_and_val(tmp_path):
    write_layout(tmp_path)
    for i in range(10, 20):
        save(picture(i - 10), tmp_path / f"train/good/{i}.png")
    for seed in range(5):
        splits = from_folder(tmp_path, seed=seed, val_fraction=0.2)
        train, val = (
            {image.numpy().tobytes() for image in s.images}
            for s in (splits.train, splits.val)
        )
        assert not train & val
        assert len(splits.train) + len(splits.val) == 20


# -- modes of images


def grey_layout(path):
    """All images grey."""
    write_layout(path)
    for i, file in enumerate(
        sorted([*path.glob("train/*/*.png"), *path.glob("test/*/*.png")])
    ):
        save(picture(i, channels=1), file)
    return path


def test_grey_images_have_one_channel(tmp_path):
    assert from_folder(grey_layout(tmp_path)).test.images.shape == (7, 1, 20, 24)


def test_grey_images_among_colours_get_three_channels(tmp_path):
    write_layout(tmp_path)
    save(picture(5, channels=1), tmp_path / "test/hole/000.png")
    image = from_folder(tmp_path).test.images[3]
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])


def test_sixteen_bits_are_kept(tmp_path):
    grey_layout(tmp_path)
    deep = np.linspace(0, 65535, 480).reshape(20, 24).astype(np.uint16)
    save(Image.fromarray(deep), tmp_path / "test/hole/000.png")
    save(Image.fromarray(deep), tmp_path / "test/hole/001.tif")
    (tmp_path / "test/hole/001.png").unlink()
    test = from_folder(tmp_path).test
    for image in test.images[3:5, 0]:
        torch.testing.assert_close(
            image, torch.from_numpy(deep.astype(np.float32)) / 65535
        )


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA", "1"])
def test_other_modes(mode, tmp_path):
    write_layout(tmp_path)
    (tmp_path / "test/hole/000.png").unlink()
    white = Image.new("RGB", (24, 20), (255, 255, 255)).convert(mode)
    save(
        white,
        tmp_path / ("test/hole/000.tif" if mode == "CMYK" else "test/hole/000.png"),
    )
    assert (from_folder(tmp_path).test.images[3] == 1).all()


@pytest.mark.parametrize(("mode", "half"), [("I", 32768), ("F", 0.5)])
def test_modes_with_more_bits(mode, half, tmp_path):
    write_layout(tmp_path)
    (tmp_path / "test/hole/000.png").unlink()
    save(Image.new(mode, (24, 20), half), tmp_path / "test/hole/000.tif")
    assert from_folder(tmp_path).test.images[3].numpy() == pytest.approx(0.5, abs=1e-4)


def test_transparency_is_dropped(tmp_path):
    write_layout(tmp_path)
    faint = picture(200).convert("RGBA")
    faint.putalpha(3)
    before = from_folder(tmp_path).test.images[3]
    save(faint, tmp_path / "test/hole/000.png")
    assert torch.equal(from_folder(tmp_path).test.images[3], before)


def test_orientation_of_photographs(tmp_path):
    write_layout(tmp_path, image="{}.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees, as cameras write
    upright = np.zeros((20, 24), np.uint8)
    upright[:10] = 255
    for_disk = Image.fromarray(np.rot90(upright).copy())
    for_disk.save(tmp_path / "test/hole/000.jpg", exif=turned, quality=95)
    image = from_folder(tmp_path).test.images[3, 0]
    assert image[:8].min() > 0.9 and image[12:].max() < 0.1


# -- what is refused there


def write(path, name, content=b"no image"):
    write_files((path / name).parent, {Path(name).name: content})


def remove(path, pattern):
    for file in path.glob(pattern):
        file.unlink()


def truncate(path, name):
    (path / name).write_bytes((path / name).read_bytes()[:-30])


BROKEN = {
    "no train": (
        lambda p: (p / "train").rename(p / "x"),
        FileNotFoundError,
        "path: expected .* train/good, .* holds ground_truth, test, x, which is none",
    ),
    "no train/good": (
        lambda p: (p / "train/good").rename(p / "train/x"),
        FileNotFoundError,
        r"train.good; .* holds x\. .*ImageFolder",
    ),
    "no test": (
        lambda p: (p / "test").rename(p / "x"),
        FileNotFoundError,
        "path: expected the folder .*test.* holds .*train, x.*ImageFolder",
    ),
    "empty train": (
        lambda p: remove(p, "train/good/*"),
        ValueError,
        "train.good: expected images .* found none",
    ),
    "one to train": (
        lambda p: remove(p, "train/good/00[1-9]*"),
        ValueError,
        "train: expected at least two",
    ),
    "empty kind": (
        lambda p: remove(p, "test/hole/*"),
        ValueError,
        "test.hole: expected images .* found none",
    ),
    "no image": (
        lambda p: write(p, "train/good/003.png"),
        ValueError,
        "003.png: expected an image, but it cannot",
    ),
    "empty image": (
        lambda p: write(p, "test/good/001.png", b""),
        ValueError,
        "001.png: expected an image",
    ),
    "half an image": (
        lambda p: truncate(p, "test/good/001.png"),
        ValueError,
        "001.png: expected an image",
    ),
    "no mask": (
        lambda p: remove(p, "ground_truth/hole/001*"),
        ValueError,
        "001.png: expected its mask, .*001_mask.png, found none; masks=False",
    ),
    "no masks": (
        lambda p: remove(p, "ground_truth/hole/*"),
        ValueError,
        "000.png: expected its mask",
    ),
    "half a mask": (
        lambda p: truncate(p, "ground_truth/hole/001_mask.png"),
        ValueError,
        "001_mask.png: expected an",
    ),
    "other mask": (
        lambda p: save(square(24, 20), p / "ground_truth/hole/001_mask.png"),
        ValueError,
        "hole.001_mask.png: expected the size of .*hole.001.png, 20×24, got 24×20",
    ),
    "other size": (
        lambda p: save(picture(0, 30, 30), p / "train/good/004.png"),
        ValueError,
        r"size: expected \(H, W\) or one number, as .* differ: .*000.png is 20×24 and .*004.png is 30×30",
    ),
    "depth": (
        lambda p: save(Image.new("F", (24, 20), 9.0), p / "train/good/011.tif"),
        ValueError,
        "011.tif: .* expected pixels from 0 to 1, got 9 to 9",
    ),
}


@pytest.mark.parametrize(("breaking", "error", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_folders_are_refused(breaking, error, message, tmp_path):
    breaking(write_layout(tmp_path))
    with pytest.raises(error, match=message):
        from_folder(tmp_path)


def test_test_folder_without_kinds_is_refused(tmp_path):
    write_layout(tmp_path)
    (tmp_path / "test").rename(tmp_path / "x")
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="test: expected folders of images"):
        from_folder(tmp_path)


def test_images_of_different_sizes_are_resized(tmp_path):
    write_layout(tmp_path)
    save(picture(0, 30, 30), tmp_path / "train/good/004.png")
    assert from_folder(tmp_path, size=16).train.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, r"size: expected an integer in \[1"),
        ({"size": (16,)}, ValueError, r"size: expected one number or \(H, W\)"),
        ({"size": (16, 2.5)}, TypeError, "size: expected an integer, got float"),
        ({"size": "large"}, TypeError, "size: expected an integer, got str"),
        ({"crop": 0}, ValueError, r"crop: expected an integer in \[1"),
        (
            {"crop": 21},
            ValueError,
            "crop: expected at most the size of .*png, 20×24, got 21",
        ),
        (
            {"size": 16, "crop": 17},
            ValueError,
            r"crop: expected an integer in \[1, 16\]",
        ),
        (
            {"val_fraction": -0.1},
            ValueError,
            r"val_fraction: expected a number in \[0, 1\)",
        ),
        (
            {"val_fraction": 1},
            ValueError,
            r"val_fraction: expected a number in \[0, 1\)",
        ),
        ({"layout": "mvtek"}, ValueError, "layout: expected one of 'auto', 'mvtec'"),
        ({"masks": "no"}, ValueError, "masks: expected one of True, False; got 'no'"),
        (
            {"val_fraction": 0.99},
            ValueError,
            "train: expected at least two .* val_fraction well below 1",
        ),
        ({"seed": "a"}, TypeError, "seed: expected an integer, got str"),
    ],
)
def test_bad_options_of_folders_are_refused(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        from_folder(write_layout(tmp_path), **options)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected the folder .*nowhere"):
        from_folder(tmp_path / "nowhere")
    write(tmp_path, "file.tar")
    with pytest.raises(
        FileNotFoundError, match=r"path: expected the folder .*file.tar"
    ):
        from_folder(tmp_path / "file.tar")
    with pytest.raises(TypeError, match="path: expected a path, got int"):
        from_folder(3)


@pytest.mark.parametrize(
    ("name", "category", "page"),
    [("mvtec-ad", "cable", "mvtec.com"), ("btad", "03", "github.com/pankajmishra000")],
)
def test_benchmarks_that_are_not_there(name, category, page, tmp_path):
    present = {"mvtec-ad": "bottle", "btad": "01"}[name]
    write_layout(tmp_path / name / present)
    with pytest.raises(FileNotFoundError) as raised:
        load(name, category=category, root=tmp_path)
    for part in (
        f"category: '{category}'",
        f"on disk: {present}",
        page,
        str(tmp_path / name / category),
        "ADLAB_DATA",
    ):
        assert part in str(raised.value)


def test_unknown_categories_are_refused(tmp_path):
    write_layout(tmp_path / "mvtec-ad" / "zipper")
    for category in ("botle", "../bottle", "", 7, None):
        with pytest.raises(
            ValueError,
            match=r"category: expected one of 'bottle', .* \(on disk: zipper\); got",
        ):
            load("mvtec-ad", category=category, root=tmp_path)
    with pytest.raises(
        ValueError,
        match=r"category: expected one of '01', '02', '03' \(on disk: none\); got 1",
    ):
        load("btad", category=1, root=tmp_path)
    assert len(MVTEC_AD.categories) == 15


# -- archives


def tar_of(files, mode="w:xz"):
    """An archive of files (None: a folder), with unusual members made by functions of a
    TarInfo.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if callable(content):
                content(info)
                content = b""
            elif content is None:
                info.type = tarfile.DIRTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return stream.getvalue()


def zip_of(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name + ("/" if content is None else "")  # whatever it is
            file.writestr(info, content or b"")
    return stream.getvalue()


def link_to(target, kind=tarfile.SYMTYPE):
    def change(info):
        info.type, info.linkname = kind, target

    return change


def device(info):
    info.type = tarfile.CHRTYPE


def files_below(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


@contextmanager
def unchanged(path):
    before = files_below(path)
    yield
    assert files_below(path) == before


GOOD = {"top": None, "top/a.txt": b"a" * 1000, "top/deep/b.txt": b"", "./c.txt": b"c"}
PACKERS = {
    "a.tar": lambda files: tar_of(files, "w"),
    "a.tar.gz": lambda files: tar_of(files, "w:gz"),
    "a.tar.xz": tar_of,
    "a.zip": zip_of,
}


@pytest.mark.parametrize(("name", "pack"), PACKERS.items())
def test_archives_are_unpacked(name, pack, tmp_path):
    (tmp_path / name).write_bytes(pack(GOOD))
    made = unpack(tmp_path / name, tmp_path / "new")
    assert made == [tmp_path / "new/c.txt", tmp_path / "new/top"]
    assert files_below(tmp_path / "new") == [
        "c.txt",
        "top",
        "top/a.txt",
        "top/deep",
        "top/deep/b.txt",
    ]
    assert (tmp_path / "new/top/a.txt").read_bytes() == b"a" * 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "new"])


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize(
    "name",
    ["../out.txt", "top/../../out.txt", "/etc/out.txt", "C:/out.txt", "..\\out.txt"],
)
def test_archives_that_leave_their_folder_are_refused(name, pack, tmp_path):
    (tmp_path / "a").write_bytes(pack({"good.txt": b"good", name: b"evil"}))
    with (
        unchanged(tmp_path),
        pytest.raises(
            ValueError, match=r"nothing is unpacked, as .* would leave its folder"
        ),
    ):
        unpack(tmp_path / "a", tmp_path / "new")


@pytest.mark.parametrize(
    "member",
    [link_to("/etc"), link_to("../.."), link_to("good.txt", tarfile.LNKTYPE), device],
    ids=range(4),
)
def test_links_and_devices_in_archives_are_refused(member, tmp_path):
    (tmp_path / "a").write_bytes(
        tar_of({"good.txt": b"good", "odd": member, "odd/out.txt": b"evil"})
    )
    with (
        unchanged(tmp_path),
        pytest.raises(ValueError, match="'odd' is a link or a device"),
    ):
        unpack(tmp_path / "a", tmp_path / "new")


def test_links_in_zip_archives_are_refused(tmp_path):
    info = zipfile.ZipInfo("odd")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc")
    with (
        unchanged(tmp_path),
        pytest.raises(ValueError, match="'odd' is a link or a device"),
    ):
        unpack(tmp_path / "a.zip", tmp_path / "new")


def test_zips_of_windows_and_macos(tmp_path):
    """Windows may divide folders by a backslash; names without UTF-8 are of cp437."""
    names = ["top\\deep\\a.txt", "top\\empty\\", "__MACOSX/top/._a.txt", "top/x.txt"]
    content = zip_of({name: b"a" for name in names}).replace(b"top/x", b"top/\x82")
    (tmp_path / "a.zip").write_bytes(content)
    assert unpack(tmp_path / "a.zip", tmp_path / "new") == [tmp_path / "new/top"]
    assert files_below(tmp_path / "new/top") == sorted(
        ["deep", "deep/a.txt", "empty", "é.txt"]
    )


def test_a_folder_of_its_own_is_no_member(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of({".": None, "./a.txt": b"a"}))
    assert unpack(tmp_path / "a.tar", tmp_path / "new") == [tmp_path / "new/a.txt"]


ODD_NAMES = {
    "dot": {".": b"a"},
    "none": {"": b"a"},
    "long": {"a" * 300: b"a"},
    "folder of a file": {"a": b"a", "a/b": b"b"},
    "file of a folder": {"a/b": b"b", "a": b"a"},
}


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("files", ODD_NAMES.values(), ids=ODD_NAMES)
def test_names_that_cannot_be_written_are_refused(files, pack, tmp_path):
    (tmp_path / "a").write_bytes(pack(files))
    with (
        unchanged(tmp_path),
        pytest.raises(ValueError, match=r"a: nothing is unpacked, as .*name"),
    ):
        unpack(tmp_path / "a", tmp_path / "new")


def test_a_name_that_is_not_as_its_archive_says_is_refused(tmp_path):
    content = zip_of({"é.txt": b"a"}).replace("é".encode(), b"\x82x")
    (tmp_path / "a.zip").write_bytes(content)
    with unchanged(tmp_path), pytest.raises(ValueError, match="damaged or truncated"):
        unpack(tmp_path / "a.zip", tmp_path / "new")


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    (tmp_path / "a.zip").write_bytes(zip_of(GOOD))
    with unchanged(tmp_path), pytest.raises(OSError, match="No space left"):
        unpack(tmp_path / "a.zip", tmp_path / "new")


@pytest.mark.parametrize(("name", "pack"), PACKERS.items())
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_truncated_archives_are_refused(name, pack, share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 6000, dtype=np.uint8).tobytes()
    whole = pack({f"{i}.bin": noise[i:] for i in range(5)}).rstrip(
        b"\0"
    )  # a tar ends with many zeros
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with (
        unchanged(tmp_path),
        pytest.raises(
            ValueError, match=f"{name}: damaged or truncated, nothing is unpacked"
        ),
    ):
        unpack(tmp_path / name, tmp_path / "new")


def test_tar_cut_between_two_files_is_refused(tmp_path):
    whole = tar_of({"a.txt": b"a", "b.txt": b"b"}, "w")
    (tmp_path / "a.tar").write_bytes(whole[:1024])
    with unchanged(tmp_path), pytest.raises(ValueError, match="damaged or truncated"):
        unpack(tmp_path / "a.tar", tmp_path / "new")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.zip"])
def test_damaged_archives_are_refused(name, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 6000, dtype=np.uint8).tobytes()
    content = bytearray(PACKERS[name]({"a.bin": noise}))
    content[3000] ^= 255
    (tmp_path / name).write_bytes(content)
    with unchanged(tmp_path), pytest.raises(ValueError, match="damaged or truncated"):
        unpack(tmp_path / name, tmp_path / "new")


def test_what_is_in_the_way_stays(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of(GOOD))
    write(tmp_path, "new/c.txt", b"mine")
    with (
        unchanged(tmp_path),
        pytest.raises(ValueError, match=r"c\.txt is in the way, nothing is unpacked"),
    ):
        unpack(tmp_path / "a.zip", tmp_path / "new")
    assert (tmp_path / "new/c.txt").read_bytes() == b"mine"


def test_paths_of_unpack_are_checked(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"archive: expected a file, found none at .*a\.zip"
    ):
        unpack(tmp_path / "a.zip", tmp_path)
    (tmp_path / "a.zip").write_bytes(zip_of(GOOD))
    with pytest.raises(
        FileNotFoundError, match=r"destination: expected a folder at .*no"
    ):
        unpack(tmp_path / "a.zip", tmp_path / "no" / "where")
    with pytest.raises(TypeError, match="archive: expected a path, got NoneType"):
        unpack(None, tmp_path)
    with pytest.raises(TypeError, match="destination: expected a path, got int"):
        unpack(tmp_path / "a.zip", 3)


def packed(folder, top):
    """All files below a folder, as they would be in an archive whose top is `top`."""
    return {
        f"{top}/{name}": (folder / name).read_bytes()
        for name in files_below(folder)
        if (folder / name).is_file()
    }


@pytest.mark.parametrize(
    "archive",
    ["mvtec-ad/bottle.tar.xz", "bottle.tar.xz", "mvtec_anomaly_detection.tar.xz"],
)
def test_archives_of_mvtec_ad_are_unpacked_when_needed(archive, tmp_path):
    write(
        tmp_path,
        f"root/{archive}",
        tar_of(packed(write_layout(tmp_path / "made"), "bottle")),
    )
    for _ in range(2):  # the second time from the folder
        assert (
            len(
                load(
                    "mvtec-ad", category="bottle", root=tmp_path / "root", crop=None
                ).test
            )
            == 7
        )
    assert (tmp_path / "root/mvtec-ad/bottle/train").is_dir()


def test_archive_of_btad_is_unpacked_when_needed(tmp_path):
    made = write_layout(
        tmp_path / "made", normal="ok", kinds=["ko"], image="{}.bmp", mask="{}.png"
    )
    write(
        tmp_path, "root/btad.zip", zip_of(packed(made, "BTech_Dataset_transformed/01"))
    )
    assert len(load("btad", category="01", root=tmp_path / "root").test) == 5


def test_damaged_archive_of_a_benchmark_is_refused(tmp_path):
    write(tmp_path, "bottle.tar.xz", tar_of(GOOD)[:-30])
    with (
        unchanged(tmp_path),
        pytest.raises(ValueError, match=r"bottle.tar.xz: damaged or truncated"),
    ):
        load("mvtec-ad", category="bottle", root=tmp_path)


# -- bad input

MASK = "ground_truth/hole/1_mask.png"


def layout(n=4):
    """A small data set in the MVTec AD layout, in the working folder."""
    for i in range(n):
        save(Image.new("L", (8, 8), 10 * i), Path(f"train/good/{i}.png"))
    save(Image.new("L", (8, 8), 100), Path("test/good/0.png"))
    save(Image.new("L", (8, 8), 100), Path("test/hole/1.png"))
    save(Image.new("L", (8, 8), 255), Path(MASK))
    return Path()


def without(name):
    """The same data set, but a file is gone."""
    (layout() / name).unlink()
    return Path()


def with_text(name):
    """The same data set, but a file is no image."""
    (layout() / name).write_text("I am no image")
    return Path()


def with_size(name):
    """The same data set, but a file is of another size."""
    save(Image.new("L", (5, 5), 100), layout() / name)
    return Path()


def text_for_an_archive():
    Path("a.tar").write_text("text")
    return "a.tar"


def archive(name):
    """An archive that holds a file of that name."""
    Path("innocent.txt").write_text("text " * 5000)
    with tarfile.open("packed.tar", "w") as file:
        file.add("innocent.txt", arcname=name)
    return Path("packed.tar")


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def half_mnist():
    """MNIST as a broken download leaves it."""
    images = b"\0\0\x08\x03" + b"\0\0\xea\x60" + b"\0\0\0\x1c" * 2 + bytes(1000)
    write_files(Path("MNIST/raw"), {"train-images-idx3-ubyte": images})
    return Path()


test_bad_input = refuses(
    (lambda: load("mnist", root=".", normal_class="x"), ValueError, "normal_class…'9'"),
    (lambda: load("mnist", root=".", n_val=0), ValueError, "n_val…0"),
    (lambda: load("mnist", root=".", download=3), ValueError, "download…3"),
    (lambda: load("cifar10", root=".", normal_class=10), ValueError, "normal_class…10"),
    (lambda: load("mvtec-ad", category="x", root="."), ValueError, "category…'bottle'"),
    (lambda: load("btad", category="04", root="."), ValueError, "category…'01'…'04'"),
    (lambda: load("btad", category="01", root=3), TypeError, "root…int 3"),
    (lambda: from_folder(3), TypeError, "path…int 3"),
    (lambda: from_folder(layout(), size=0), ValueError, "size…0"),
    (lambda: from_folder(layout(), size=(8, 8, 8)), ValueError, "size…(8, 8, 8)"),
    (lambda: from_folder(layout(), crop=9), ValueError, "crop…8×8…9"),
    (lambda: from_folder(layout(), val_fraction=1), ValueError, "val_fraction…1"),
    (lambda: from_folder(layout(n=1)), ValueError, "train…at least two"),
)


def load_here(name, **options):
    return load(name, root=".", **options)


BAD_FILES = [
    (lambda: load_here("mnist", download=False), FileNotFoundError, "train-images"),
    (lambda: load_here("cifar10", download=False), FileNotFoundError, "data_batch_1"),
    (lambda: load_here("mvtec-ad", category="pill"), FileNotFoundError, "'pill'"),
    (lambda: load_here("btad", category="01"), FileNotFoundError, "'01'…github"),
    (lambda: load("mnist", root=half_mnist()), ValueError, "train-images-idx3-ubyte"),
    (lambda: from_folder("no"), FileNotFoundError, "path…no"),
    (lambda: from_folder("."), FileNotFoundError, "path…train"),
    (lambda: from_folder(without("test/good/0.png")), ValueError, "test/good"),
    (lambda: from_folder(with_text("train/good/1.png")), ValueError, "good/1.png"),
    (lambda: from_folder(with_size("test/good/0.png")), ValueError, "good/0.png…5×5"),
    (lambda: from_folder(with_text(MASK)), ValueError, "1_mask"),
    (lambda: from_folder(with_size(MASK)), ValueError, "8×8…5×5"),
    (lambda: unpack("no.tar", "out"), FileNotFoundError, "archive…no.tar"),
    (lambda: unpack(text_for_an_archive(), "out"), ValueError, "a.tar"),
    (lambda: unpack(halved(archive("a")), "out"), ValueError, "packed.tar"),
    (lambda: unpack(archive("../evil"), "out"), ValueError, "'../evil'"),
    (lambda: unpack(archive("a/../../evil"), "out"), ValueError, "evil"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("call", "error", "words"), BAD_FILES)
def test_bad_file_is_named(call, error, words, tmp_path, monkeypatch, capfd):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(error, match=pattern(words)):
        call()
    assert capfd.readouterr() == ("", "")
    assert not Path("out").exists()
    assert not list(tmp_path.rglob("evil"))
