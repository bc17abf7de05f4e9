"""Materials with captions: the contract of a data set, what is drawn, and what is said."""

import numpy as np
import pytest
import torch
from bad_input import refuses

from adlab.data import cases, load
from adlab.data.materials import DEFECTS, KNOWN, MATERIALS, captioned, materials
from adlab.zero_shot import WORDS

FEW = {"n_train": 3, "n_val": 2, "n_test": 8}


@pytest.mark.parametrize("material", MATERIALS)
def test_splits_hold_what_was_asked_for(material):
    splits = load("materials", material=material, kinds=["hole", "twist"], **FEW)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [3, 2, 8]
    assert splits.train.images.shape == (3, 1, 64, 64)
    assert splits.test.kinds == ["good"] * 4 + ["hole", "twist"] * 2
    assert splits.test.masks.flatten(1).any(1).tolist() == [False] * 4 + [True] * 4
    assert not splits.train.masks.any() and not splits.val.masks.any()


def test_the_seed_decides_and_more_images_leave_the_others_as_they_are():
    few = materials("wood", n_train=2, n_val=1, n_test=4, seed=3)
    many = materials("wood", n_train=4, n_val=2, n_test=6, seed=3)
    assert torch.equal(few.train.images, many.train.images[:2])
    assert torch.equal(few.test.images, many.test.images[[0, 1, 3, 4]])
    everything = torch.cat([few.train.images, few.val.images, few.test.images])
    assert len(everything.unique(dim=0)) == 7
    pictures, captions = captioned(4, seed=3)
    assert torch.equal(captioned(2, seed=3)[0].images, pictures.images[:2])
    assert captioned(2, seed=3)[1] == captions[:2] != captioned(2, seed=4)[1]


def test_the_materials_are_the_cases_of_the_data_set():
    assert cases("materials") == ("material", tuple(MATERIALS))
    assert set(MATERIALS) - set(KNOWN) == {"leather"}


@pytest.mark.parametrize(("kind", "darker"), [("stain", 0.05), ("hole", 0.15)])
def test_a_defect_is_darker_than_what_is_around(kind, darker):
    test = materials("stone", [kind], 1, 1, 20).test.of_kind(kind)
    for image, mask in zip(test.images[:, 0], test.masks, strict=True):
        assert image[mask].mean() < image[~mask].mean() - darker


def test_a_twist_has_no_new_tones():
    test = materials("tiles", ["twist"], 1, 1, 40).test
    good, bad = (test.of_kind(kind).images for kind in ("good", "twist"))
    for moment in (torch.mean, torch.std):
        one, two = (torch.stack([moment(x) for x in each]) for each in (good, bad))
        assert abs(one.mean() - two.mean()) < 3 * one.std() / np.sqrt(len(one) / 2)


def test_captions_say_what_is_seen_or_less_and_half_are_flawless():
    pictures, captions = captioned(400)
    assert 0.4 < pictures.labels.float().mean() < 0.6
    assert {word for text in captions for word in text.split()} == set(WORDS)
    said = {kind: 0 for kind in DEFECTS}
    for text, kind, image in zip(
        captions, pictures.kinds, pictures.images, strict=True
    ):
        words = set(text.split())
        assert len(words & set(KNOWN)) == 1 and "leather" not in words
        for name, other in {"scratch": "scratched", "stain": "stained"}.items():
            assert kind == name or not words & {name, other}
        assert not words & {"dark"} or image.median() < 0.62
        said[kind if kind != "good" else "twist"] += bool(
            words & {"flawless", "damaged", "defective", "flaw", kind}
        )
    assert min(said.values()) > 10


test_bad_input = refuses(
    (lambda: materials("cats"), ValueError, "material…expected one of…'cats'"),
    (lambda: materials(kinds="hole"), TypeError, "kinds…a list…'hole'"),
    (lambda: materials(kinds=["bead"]), ValueError, "kinds…expected one of…'bead'"),
    (lambda: materials(n_test=1), ValueError, "n_test…1"),
    (lambda: materials(seed=-1), ValueError, "seed…-1"),
    (lambda: captioned(0), ValueError, "n: expected…got 0"),
    (lambda: captioned(1, ["cats"]), ValueError, "materials…'cats'"),
)
