"""The joint embedding, the mathematics of WinCLIP, and the detector that is told in words
what is normal: against loops and definitions.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from bad_input import refuses
from torch.nn.functional import normalize
from torch.testing import assert_close

import adlab
from adlab import metrics
from adlab.data.materials import captioned
from adlab.zero_shot import (
    WEIGHTS,
    WORDS,
    JointEmbedding,
    ZeroShot,
    anomaly_probability,
    contrastive_loss,
    distance,
    harmonic_mean,
    joint_embedding,
    over_windows,
    pretrain,
    prompt_embedding,
)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator), dim=-1)


def wood(n=2, **options):
    return adlab.data.load("materials", material="wood", n_train=n, n_test=8, **options)


@cache
def shipped():
    return joint_embedding()


# -- the loss


def test_the_loss_is_the_mean_of_two_cross_entropies():
    z, t, scale = unit(4, 3), unit(4, 3, seed=1), 5.0
    expected = 0.0
    for a, b in ((z, t), (t, z)):
        for i in range(4):
            powers = [math.exp(scale * float(a[i] @ b[j])) for j in range(4)]
            expected -= math.log(powers[i] / sum(powers)) / 8
    assert float(contrastive_loss(z, t, scale)) == pytest.approx(expected, rel=1e-5)


def test_pairs_that_look_alike_cost_the_logarithm_of_their_number():
    z = unit(1, 3).expand(6, 3)
    assert float(contrastive_loss(z, z, 9.0)) == pytest.approx(math.log(6), rel=1e-5)
    assert contrastive_loss(torch.eye(3), torch.eye(3), 50.0) < 1e-6


# -- texts


def test_a_text_is_the_mean_of_its_known_words_in_any_order():
    joint = shipped()
    rows = [WORDS.index(word) for word in ("scratched", "wood")]
    expected = normalize(joint.words.weight[rows].mean(0), dim=0)
    found = joint.texts(["Scratched wood!", "wood scratched", "scratched oaken wood"])
    assert_close(found, expected.expand(3, -1))


def test_prompts_of_a_class_are_averaged_and_their_order_does_not_matter():
    joint, states, templates = (
        shipped(),
        ["damaged {}", "{} with a flaw"],
        ["{}", "a {}"],
    )
    found = prompt_embedding(joint, states, templates, "stone")
    texts = ["damaged stone", "a damaged stone", "stone with a flaw"]
    texts += ["a stone with a flaw"]
    assert_close(found, normalize(joint.texts(texts).mean(0), dim=0))
    assert_close(found, prompt_embedding(joint, states[::-1], templates[::-1], "stone"))


# -- scores


def test_the_probability_is_a_softmax_and_at_a_large_scale_a_decision():
    vectors, prompts = unit(5, 4), unit(2, 4, seed=3)
    normal, anomalous = (3 * vectors @ prompts.T).exp().unbind(1)
    expected = anomalous / (normal + anomalous)
    assert_close(anomaly_probability(vectors, prompts, torch.tensor(3.0)), expected)
    nearer = vectors @ prompts[1] > vectors @ prompts[0]
    sure = anomaly_probability(vectors, prompts, torch.tensor(1e5))
    assert torch.equal(sure.round().bool(), nearer)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_place_gets_the_harmonic_mean_of_the_windows_it_lies_in(side):
    values = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(side)) + 0.1
    height, width = 3 + side - 1, 4 + side - 1
    expected = torch.zeros(2, height, width)
    for n, i, j in np.ndindex(2, height, width):
        inside = [
            1 / float(values[n, a, b])
            for a, b in np.ndindex(3, 4)
            if a <= i < a + side and b <= j < b + side
        ]
        expected[n, i, j] = len(inside) / sum(inside)
    assert_close(over_windows(values, side), expected)


def test_a_harmonic_mean_is_at_most_the_arithmetic_one():
    one, two = torch.tensor([0.2, 0.5, 0.0]), torch.tensor([0.8, 0.5, 0.5])
    assert_close(harmonic_mean([one, two]), torch.tensor([0.32, 0.5, 0.0]))
    constant = torch.full((1, 3, 3), 0.3)
    assert_close(over_windows(constant, 2), torch.full((1, 4, 4), 0.3))


def test_the_distance_to_the_memory_is_that_to_the_nearest():
    vectors, memory = unit(1, 2, 2, 3), unit(5, 3, seed=2)
    expected = [
        min((1 - float(v @ m)) / 2 for m in memory) for v in vectors.reshape(-1, 3)
    ]
    assert_close(distance(vectors, memory).flatten(), torch.tensor(expected))
    assert distance(vectors, vectors.reshape(-1, 3)).max() < 1e-6


# -- the embedding


def test_windows_as_large_as_the_image_are_the_whole():
    joint, images = shipped(), wood().test.images
    features = joint.features(images)
    windows = joint.windows(features, 16)
    assert windows.shape == (8, 1, 1, 64)
    assert_close(windows[:, 0, 0], joint.whole(features))
    means = joint.places(features)[:, :, 2:5, 7:10].mean((2, 3))
    expected = normalize(joint.project(means), dim=1)
    assert_close(joint.windows(features, 3)[:, 2, 7], expected)


def test_the_weights_that_come_along_are_small_and_know_their_captions():
    assert WEIGHTS.stat().st_size < 300_000
    pictures, captions = captioned(100, seed=5)
    joint = shipped()
    with torch.no_grad():
        found = joint.whole(joint.features(pictures.images))
        cosines = found @ joint.texts(captions).T
    own = cosines.diagonal()[:, None]
    assert ((cosines > own + 1e-6).sum(1) < 10).float().mean() > 0.7
    assert sorted({w for text in captions for w in text.split()}) == list(WORDS)


def test_pretraining_lowers_the_loss_and_the_seed_decides():
    pictures, captions = captioned(48, seed=1)
    options = {"epochs": 12, "seed": 3}
    joint, losses = pretrain(pictures, captions, **options)
    again, _ = pretrain(pictures, captions, **options)
    assert losses[-1] < losses[0] - 0.2
    assert_close(again.texts(["wood"]), joint.texts(["wood"]))
    assert set(joint.rows) <= set(WORDS)


# -- the detector


def test_the_scores_are_those_of_the_formulas():
    data = wood()
    detector = ZeroShot("wood", sides=(3,)).fit(data.train)
    joint, features = shipped(), shipped().features(data.test.images)
    prompts = torch.stack(
        [
            prompt_embedding(joint, states, detector.templates, "wood")
            for states in (detector.normal, detector.anomalous)
        ]
    )
    with torch.no_grad():
        p = anomaly_probability(joint.whole(features), prompts, joint.scale)
        parts = anomaly_probability(joint.windows(features, 3), prompts, joint.scale)
    assert_close(detector.anomaly_score(data.test), p)
    places = harmonic_mean(
        [p[:, None, None].expand(-1, 16, 16), over_windows(parts, 3)]
    )
    maps = detector.anomaly_map(data.test)
    assert maps.shape == (8, 64, 64)
    assert float(maps.max()) == pytest.approx(float(places.max()), rel=0.1)


def test_images_teach_nothing_without_a_memory_and_are_no_distance_with_one():
    data = wood()
    plain, other = (ZeroShot("wood").fit(x) for x in (data.train, data.test))
    assert torch.equal(plain.anomaly_map(data.test), other.anomaly_map(data.test))
    few = ZeroShot("wood", memory=True).fit(data.train)
    own = few.anomaly_map(data.train) - plain.anomaly_map(data.train)
    new = few.anomaly_map(data.test) - plain.anomaly_map(data.test)
    assert own.abs().max() < 1e-5 < new.max()
    assert_close(few.anomaly_score(data.train), plain.anomaly_score(data.train) / 2)


def test_words_find_what_the_words_name():
    data = adlab.data.load("materials", material="cloth", n_test=80, seed=9)
    labels, area = data.test.labels, {}
    for name, states in {"right": ("damaged {}",), "swapped": ("flawless {}",)}.items():
        other = ("flawless {}",) if name == "right" else ("damaged {}",)
        detector = ZeroShot("cloth", other, states, ("{}",)).fit(data.train)
        maps = detector.anomaly_map(data.test).flatten(1).amax(1)
        area[name] = metrics.auroc(maps, labels)
    assert area["right"] > 0.85 and area["swapped"] < 0.5


def test_a_detector_with_an_embedding_of_ones_own_copies_it():
    joint = JointEmbedding(["damaged", "flawless"]).eval()
    states = {"normal": ("flawless {}",), "anomalous": ("damaged {}",)}
    data = wood()
    detector = ZeroShot("wood", **states, embedding=joint).fit(data.train)
    before = detector.anomaly_score(data.test)
    with torch.no_grad():
        joint.words.weight.zero_()
    assert torch.equal(detector.anomaly_score(data.test), before)


PICTURES, CAPTIONS = captioned(3)
test_bad_input = refuses(
    (lambda: contrastive_loss(unit(3, 2), unit(2, 2), 1), ValueError, "texts…(2, 2)"),
    (lambda: JointEmbedding("wood"), TypeError, "words…a list of words…'wood'"),
    (lambda: shipped().texts("wood"), TypeError, "texts…a list of texts…'wood'"),
    (lambda: shipped().texts([]), ValueError, "texts…at least one text…none"),
    (lambda: shipped().texts(["xyzzy"]), ValueError, "texts…a known word…'xyzzy'"),
    (lambda: pretrain(PICTURES, CAPTIONS[:2]), ValueError, "captions…3…got 2"),
    (lambda: pretrain(PICTURES, CAPTIONS, 0), ValueError, "epochs…an integer…got 0"),
    (lambda: prompt_embedding(shipped(), []), ValueError, "states…at least one…none"),
    (lambda: ZeroShot(sides=(17,)), ValueError, "sides…an integer…17"),
    (lambda: ZeroShot(normal="flawless"), TypeError, "normal…a list…'flawless'"),
    (lambda: ZeroShot(templates=()), ValueError, "templates…at least one…none"),
)
