"""Folders and tables of images as people have them, and masks of every kind."""

import unicodedata
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from adlab.data import ImageFolder, ImageSet, from_folder, read_image
from adlab.data.files import read_mask

MARKED = np.zeros((12, 16), bool)
MARKED[2:7, 3:10] = True
BRIGHT = MARKED.astype(np.uint8) * 255


def save(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, **options)


def picture(seed, shape=(12, 16)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(root, names, masks=()):
    """Pictures of different seeds, and masks with the marked rectangle."""
    for seed, name in enumerate(names):
        save(root / name, picture(seed))
    for name in masks:
        save(root / name, BRIGHT)
    return root


def numbered(form, n):
    return [form.format(i) for i in range(n)]


def of(path, **options):
    """Splits; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return from_folder(path, **options)


def sizes(splits):
    return [len(splits.train), len(splits.val), len(splits.test)]


def same(image, file):
    return torch.equal(image, read_image(file))


# -- layouts


def test_mvtec_loco(tmp_path):
    """It has a part for validation, and several masks of an image in a folder."""
    write(
        tmp_path,
        [
            *numbered("train/good/{}.png", 3),
            *numbered("validation/good/{}.png", 2),
            *("test/good/0.png", "test/logical_anomalies/0.png"),
        ],
    )
    for i in range(2):
        mask = np.zeros((12, 16), np.uint8)
        mask[5 * i] = 1 + i
        save(tmp_path / f"ground_truth/logical_anomalies/0/{i:03}.png", mask)
    splits = of(tmp_path, layout="loco")
    assert sizes(splits) == [3, 2, 2]
    assert same(splits.val.images[1], tmp_path / "validation/good/1.png")
    assert torch.nonzero(splits.test.masks[1].all(1)).flatten().tolist() == [0, 5]
    assert splits.test.masks[1].sum() == 32


def test_mvtec_ad_2(tmp_path):
    """Its masks are in the folder of the test."""
    names = [*numbered("train/good/{}.png", 3), "test_public/good/0_regular.png"]
    write(
        tmp_path,
        [*names, "test_public/bad/0_regular.png", "validation/good/0.png"],
        ["test_public/ground_truth/bad/0_regular_mask.png"],
    )
    splits = of(tmp_path)
    assert (sizes(splits), splits.test.kinds) == ([3, 1, 2], ["good", "bad"])
    assert np.array_equal(splits.test.masks[1].numpy(), MARKED)


def test_kolektor_sdd2(tmp_path):
    """The masks say what is defective; the defective ones of `train` are left out."""
    write(
        tmp_path,
        [f"{part}/{i}.png" for part in ("train", "test") for i in range(6)],
        ["train/1_GT.png", "test/3_GT.png", "test/4_GT.png"],
    )
    for part, i in [("train", i) for i in (0, 2, 3, 4, 5)] + [
        ("test", i) for i in (0, 1, 2, 5)
    ]:
        save(tmp_path / f"{part}/{i}_GT.png", BRIGHT * 0)
    splits = of(tmp_path)
    assert sizes(splits) == [4, 1, 6]
    assert splits.test.kinds == ["good"] * 4 + ["defect"] * 2
    assert same(splits.test.images[4], tmp_path / "test/3.png")
    assert splits.test.masks[4:].sum() == 2 * MARKED.sum()
    seen = [*splits.train.images, *splits.val.images]
    assert not any(same(image, tmp_path / "train/1.png") for image in seen)
    (tmp_path / "test/3_GT.png").unlink()
    with pytest.raises(ValueError, match=r"3\.png: expected its mask beside it"):
        of(tmp_path)


def visa(root):
    write(
        root,
        [
            *numbered("candle/Data/Images/Normal/{}.JPG", 5),
            "candle/Data/Images/Anomaly/0.JPG",
        ],
    )
    classes = MARKED.astype(np.uint8) * 3
    save(root / "candle/Data/Masks/Anomaly/0.png", classes)
    rows = ["object,split,label,image,mask", "pcb1,train,normal,pcb1/none.JPG,"]
    rows += [
        f"candle,{'test' if i == 4 else 'train'},normal,candle/Data/Images/Normal/{i}.JPG,"
        for i in range(5)
    ]
    rows += [
        "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png"
    ]
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows))
    return root / "candle"


def test_visa(tmp_path):
    splits = of(visa(tmp_path))
    assert (sizes(splits), splits.test.kinds) == ([3, 1, 2], ["good", "anomaly"])
    assert same(splits.test.images[0], tmp_path / "candle/Data/Images/Normal/4.JPG")
    assert np.array_equal(splits.test.masks[1].numpy(), MARKED)
    (tmp_path / "split_csv/1cls.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the table of VisA, .*1cls"):
        of(tmp_path / "candle")


@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_a_table_of_files(divider, tmp_path):
    write(tmp_path, [*numbered("all/{}.png", 9)], ["marks/8.png"])
    rows = [["Image", "Label", "Mask", "Split"]]
    rows += [[f"all\\{i}.png", "0", "", "train" if i < 5 else "Test"] for i in range(7)]
    rows += [["all/7.png", "OK", "", "validation"]]
    rows += [["all/8.png", "crack", "marks/8.png", "test"]]
    text = "\n".join(divider.join(row) for row in rows)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8-sig")
    splits = of(tmp_path / "t.csv")
    assert sizes(splits) == [5, 1, 3]
    assert splits.test.kinds == ["good", "good", "crack"]
    assert same(splits.val.images[0], tmp_path / "all/7.png")
    assert np.array_equal(splits.test.masks[2].numpy(), MARKED)


def test_a_table_without_a_split(tmp_path):
    write(tmp_path, numbered("{}.png", 22))
    rows = [f"{i}.png,{int(i > 19)}" for i in range(22)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    splits = of(tmp_path / "t.csv", val_fraction=0.25)
    assert sizes(splits) == [12, 4, 6]
    assert splits.test.kinds == ["good"] * 4 + ["anomaly"] * 2
    assert splits.test.masks is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected rows with the columns image and label, got ''"),
        ("file,label\na.png,0", "columns image and label, got 'file,label"),
        ("image,label\na.png,", "expected an image, a label"),
        ("image,label,split\na.png,0,later", "expected .* train, val or test .*later"),
        ("image,label\na.png,1", "path: expected normal images, .*good, ok.* got anom"),
    ],
)
def test_tables_that_are_refused(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        of(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image,label\nnowhere.png,0")
    with pytest.raises(FileNotFoundError, match=r"expected an image, got .*nowhere"):
        of(tmp_path / "t.csv")


@pytest.mark.parametrize("marks", ["ground_truth/NG/{}_mask.png", "NG/{}_mask.png"])
def test_good_and_bad(marks, tmp_path):
    names = [*numbered("OK/{}.png", 30), *numbered("NG/{}.png", 3)]
    write(tmp_path, names, numbered(marks, 3))
    splits = of(tmp_path)
    assert sizes(splits) == [22, 2, 9]  # a fifth of 30, then a tenth of 24
    assert splits.test.kinds == ["good"] * 6 + ["NG"] * 3
    assert same(splits.test.images[7], tmp_path / "NG/1.png")
    assert splits.test.masks.flatten(1).sum(1).tolist() == [0] * 6 + [35] * 3
    normal = [*splits.train.images, *splits.val.images, *splits.test.images[:6]]
    assert len({image.numpy().tobytes() for image in normal}) == 30
    assert torch.equal(of(tmp_path).test.images, splits.test.images)
    assert not torch.equal(of(tmp_path, seed=1).test.images, splits.test.images)


def test_copies_are_in_one_part_of_good_and_bad(tmp_path):
    write(tmp_path, ["bad/0.png"])
    for i in range(40):
        save(tmp_path / f"good/{i}.png", picture(100 + i // 2))
    for seed in range(5):
        splits = of(tmp_path, seed=seed)
        parts = [
            {image.numpy().tobytes() for image in part.images}
            for part in (splits.train, splits.val, splits.test)
        ]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


# -- names


@pytest.mark.parametrize("name", ["OK", "Good", "normal", "defect-free", "No Defect"])
def test_names_of_normal_folders(name, tmp_path):
    names = [f"{p}/{name}/{i}.png" for p in ("Train", "TEST") for i in range(4)]
    write(tmp_path, [*names, "TEST/crack/0.png"])
    splits = of(tmp_path)
    assert splits.test.kinds == ["good"] * 4 + ["crack"]
    assert splits.test.labels.tolist() == [0] * 4 + [1]


def test_a_test_without_normal_images_is_told(tmp_path):
    write(tmp_path, [*numbered("train/good/{}.png", 3), "test/fine/0.png"])
    with pytest.warns(UserWarning, match="test: no normal images .*so all 1 are taken"):
        assert from_folder(tmp_path).test.labels.tolist() == [1]


@pytest.mark.parametrize(
    "mask", ["{}_mask.png", "{}_GT.PNG", "{}_label.bmp", "{}-seg.png", "{}.tif"]
)
def test_names_of_masks(mask, tmp_path):
    write(
        tmp_path,
        [*numbered("train/good/{}.png", 3), "test/good/0.png", "test/a/ü.png"],
        ["ground_truth/A/" + mask.format("ü")],
    )
    assert of(tmp_path).test.masks.sum() == 35


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_umlaut_is_one_sign_or_two(form, tmp_path):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    image = unicodedata.normalize(form, "Größe/Öse.png")
    mask = unicodedata.normalize(other, "Größe/Öse_mask.png")
    write(
        tmp_path,
        [*numbered("train/good/{}.png", 3), "test/good/0.png", f"test/{image}"],
        [f"ground_truth/{mask}"],
    )
    assert of(tmp_path).test.masks.sum() == 35


def test_masks_beside_images_are_never_images(tmp_path):
    names = [*numbered("train/good/{}.png", 20), "test/good/0.png", "test/a/0.png"]
    write(tmp_path, names, numbered("train/good/{}_mask.png", 20))
    with pytest.warns(UserWarning, match=r"good: 20 files .* as 0_mask\.png, are not"):
        assert sizes(from_folder(tmp_path)) == [18, 2, 2]
    with pytest.warns(UserWarning, match="20 files that are called as masks"):
        assert len(ImageFolder(tmp_path / "train")) == 20
    save(tmp_path / "test/a/lone_mask.png", picture(99))  # of no image
    with pytest.warns(UserWarning):
        assert len(from_folder(tmp_path).test) == 3


JUNK = (
    *("._0.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png", "Thumbs.db"),
    *(".DS_Store", "@eaDir/0.png"),
)


@pytest.mark.parametrize("layout", ["mvtec", "good-bad", "kolektor-sdd2"])
def test_what_systems_leave_is_never_read(layout, tmp_path):
    names = {
        "mvtec": [*numbered("train/good/{}.png", 4), "test/good/0.png", "test/a/0.png"],
        "good-bad": [*numbered("good/{}.png", 5), "a/0.png"],
        "kolektor-sdd2": [f"{p}/{i}.png" for p in ("train", "test") for i in range(3)],
    }[layout]
    write(tmp_path, names)
    if layout == "kolektor-sdd2":
        for name in names:
            save(tmp_path / name.replace(".png", "_GT.png"), BRIGHT * 0)
    before = sizes(of(tmp_path))
    for folder in [tmp_path, *(f for f in tmp_path.rglob("*") if f.is_dir())]:
        for name in JUNK:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"no image")
    assert sizes(of(tmp_path)) == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.png"], r"holds 0\.png, which is none.*ImageFolder"),
        (["train/good/0.png"], r"folder .*test.* holds train\. .*ImageFolder"),
        (
            ["train/good/0.png", "good/0.png"],
            "holds good, train, which is mvtec and good-bad",
        ),
    ],
)
def test_a_layout_that_is_not_plain_lists_what_is_there(names, message, tmp_path):
    with pytest.raises(FileNotFoundError, match=message):
        of(write(tmp_path, names))
    with pytest.raises(
        FileNotFoundError, match=r"expected the folder .*, or a \*\.csv"
    ):
        of(tmp_path, layout="csv")


# -- masks


def indexed(values, colours=None):
    image = Image.new("P", (16, 12))
    image.putdata(values.flatten().tolist())
    if colours:
        image.putpalette(np.ravel(colours).tolist())
    return image


def with_alpha(mark, ground):
    pixels = np.where(MARKED[..., None], np.uint8(mark), np.uint8(ground))
    return Image.fromarray(pixels)


NUMBERS = MARKED.astype(np.uint8)
MASKS = {
    "numbers of classes": NUMBERS * 2,
    "16 bits": NUMBERS.astype(np.uint16),
    "1 bit": MARKED,
    "blue": np.stack([NUMBERS * 0, NUMBERS * 0, NUMBERS * 9], 2),
    "palette without colours": indexed(NUMBERS * 2),
    "palette": indexed(NUMBERS, [[0, 0, 0], [255, 0, 0]]),
    "palette, white first": indexed(1 - NUMBERS, [[255] * 3, [0] * 3]),
    "palette without black": indexed(NUMBERS, [[9, 9, 99], [99, 9, 9]]),
    "alpha only": with_alpha([0, 0, 0, 255], [0, 0, 0, 0]),
    "faint alpha": with_alpha([0, 0, 0, 60], [0, 0, 0, 0]),
    "grey alpha": with_alpha([0, 0, 0, 255], [0, 0, 0, 0]).convert("LA"),
    "red on clear white": with_alpha([255, 0, 0, 255], [255, 255, 255, 0]),
    "black on clear white": with_alpha([0, 0, 0, 255], [255, 255, 255, 0]),
    "opaque": with_alpha([255] * 4, [0, 0, 0, 255]),
    "all clear": with_alpha([255, 255, 255, 0], [0, 0, 0, 0]),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks_of_every_kind(mask, tmp_path):
    save(tmp_path / "a.png", mask)
    assert np.array_equal(read_mask(tmp_path / "a.png").numpy(), MARKED)


@pytest.mark.parametrize(("name", "form"), [("a.jpg", "JPEG"), ("a.png", "JPEG")])
@pytest.mark.parametrize("value", [100, 255])
def test_masks_with_losses(name, form, value, tmp_path):
    save(tmp_path / name, NUMBERS * value, format=form, quality=75)
    assert np.array_equal(read_mask(tmp_path / name).numpy(), MARKED)
    save(tmp_path / name, NUMBERS * 0 + picture(0) % 3, format=form, quality=75)
    assert not read_mask(tmp_path / name).any()


@pytest.fixture
def product(tmp_path):
    """Ten defects, all with masks."""
    names = [*numbered("train/good/{}.png", 20), "test/good/0.png"]
    return write(
        tmp_path,
        [*names, *numbered("test/hole/{}.png", 10)],
        numbered("ground_truth/hole/{}_mask.png", 10),
    )


def test_masks_that_look_wrong_are_told(product):
    assert of(product).test.masks.sum() == 350
    marks = product / "ground_truth/hole"
    for i in (3, 4):
        save(marks / f"{i}_mask.png", BRIGHT * 0)
    with pytest.warns(UserWarning, match=r"masks: 2 .* no pixel, the first .*3_mask"):
        from_folder(product)
    corner = BRIGHT * 0
    corner[:2, :2] = 255
    for i in (3, 4):
        save(marks / f"{i}_mask.png", corner)
    assert of(product).test.masks.any(2).any(1).sum() == 10
    with pytest.warns(
        UserWarning, match=r"masks: 2 .* after size=None and crop=8, the"
    ):
        assert not from_folder(product, crop=8).test.masks[4].any()
    for i in (3, 4):
        save(marks / f"{i}_mask.png", 255 - corner)
    with pytest.warns(UserWarning, match=r"masks: 2 .* more than 90 % of the image"):
        from_folder(product)


def test_masks_of_some_kinds_only(product):
    """Without a mask nobody knows where; to take it for empty would be a wrong answer."""
    save(product / "test/scratch/0.png", picture(77))
    with pytest.raises(
        ValueError,
        match=r"scratch.0\.png: expected its mask, .* masks=False reads no",
    ):
        of(product)
    test = of(product, masks=False).test
    assert (len(test), test.masks) == (12, None)


# -- reading


def test_nothing_may_be_drawn_for_validation(product):
    splits = of(product, val_fraction=0)
    assert sizes(splits) == [20, 0, 11]
    assert same(splits.train.images[1], product / "train/good/1.png")
    assert isinstance(splits.val, ImageSet) and splits.val.reading.channels == 1


def test_many_copies_in_validation_are_told(product):
    for i in range(10):
        save(product / f"train/good/{i}.png", picture(0))
    with pytest.warns(
        UserWarning, match="val_fraction: 2 of 20 .* but 1[0-9] are, as c"
    ):
        for seed in range(9):
            from_folder(product, seed=seed)


def test_pages_that_are_not_read_are_told(tmp_path):
    pages = [Image.fromarray(picture(i)) for i in range(3)]
    save(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="images of 3 pages, only the first page is"):
        image = read_image(tmp_path / "a.tif")
    assert torch.equal(image[0], torch.from_numpy(picture(0)) / 255)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_images_are_turned_upright_once(suffix, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    save(tmp_path / f"a{suffix}", picture(0), exif=exif)
    stored = picture(0)
    left = {5: stored.T, 6: np.rot90(stored, -1), 8: np.rot90(stored)}
    left |= {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]}
    upright = left.get(turn, stored[::-1, ::-1].T)
    image = read_image(tmp_path / f"a{suffix}")[0]
    assert np.array_equal((image * 255).numpy(), upright.astype(np.float32))


@pytest.mark.parametrize("lossless", [True, False])
def test_webp(lossless, tmp_path):
    smooth = np.linspace(0, 255, 192).reshape(12, 16).astype(np.uint8)
    save(tmp_path / "a.webp", smooth, lossless=lossless)
    image = read_image(tmp_path / "a.webp").mean(0).numpy()
    assert np.abs(image - smooth / 255.0).max() < (1e-6 if lossless else 0.05)


def test_a_picture_far_too_large_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    save(tmp_path / "bomb.png", picture(0))
    with pytest.raises(ValueError, match=r"bomb\.png: .*exceeds limit of 100 pixels"):
        read_image(tmp_path / "bomb.png")


def test_images_are_held_once(tmp_path, monkeypatch):
    """Train, val and test are stretches of one tensor."""
    write(tmp_path, [*numbered("train/good/{}.png", 20), "test/good/0.png"])
    splits = of(tmp_path)
    storages = {
        part.images.untyped_storage().data_ptr()
        for part in (splits.train, splits.val, splits.test)
    }
    assert len(storages) == 1
    assert splits.train.images.untyped_storage().nbytes() == 21 * 12 * 16 * 4
