"""DRAEM: the focal loss by hand, what is pasted and from where, and what the two networks
are shown.
"""

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from torch import nn
from torch.nn.functional import cross_entropy

from adlab import metrics, similarity, synthetic
from adlab.data.textures import TEXTURES, photograph, textures
from adlab.draem import DRAEM, focal_loss
from adlab.training import seeded


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=8, channels=1, height=24, width=24, seed=0):
    coarse = torch.rand(n, channels, 5, 5, generator=generator(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(
        0, 1
    )


SMALL = {"widths": (3, 4), "epochs": 1, "smoothing": 1}
KINDS = ("both", "discriminative", "reconstructive")


@pytest.fixture(scope="module")
def fitted():
    return {kind: DRAEM(kind, **SMALL).fit(pictures()) for kind in KINDS}


# the focal loss


def logits_and_targets(dtype=torch.float64):
    logits = 3 * torch.randn(2, 3, 4, 5, generator=generator(), dtype=dtype)
    return logits, torch.randint(3, (2, 4, 5), generator=generator(1))


def test_focal_loss_without_focus_is_the_cross_entropy():
    logits, targets = logits_and_targets()
    torch.testing.assert_close(
        focal_loss(logits, targets, 0), cross_entropy(logits, targets)
    )


def test_focal_loss_by_hand():
    logits, targets = logits_and_targets()
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    total = 0.0
    for n, i, j in np.ndindex(2, 4, 5):
        right = float(p[n, targets[n, i, j], i, j])
        total -= (1 - right) ** 2 * np.log(right)
    assert float(focal_loss(logits, targets)) == pytest.approx(total / 40, rel=1e-10)


def test_focal_loss_of_extreme_logits_has_a_gradient():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])[..., None, None]
    logits.requires_grad_()
    focal_loss(logits, torch.tensor([0, 0])[:, None, None]).backward()
    assert torch.isfinite(logits.grad).all()


def test_gradient_of_the_focal_loss():
    logits, targets = logits_and_targets()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets), logits)


# what is pasted


def synthesised(detector, images, seed=0):
    with seeded(seed):
        return detector.synthesise(images)


def test_nothing_changes_outside_of_the_mask():
    images = pictures(40, 3, 32, 40)
    changed, masks = synthesised(DRAEM(), images)
    assert torch.equal(
        changed.masked_select(~masks[:, None]), images.masked_select(~masks[:, None])
    )
    inside = (changed - images).abs().amax(1)[masks]
    assert (inside > 0.01).float().mean() > 0.8
    assert changed.min() >= 0 and changed.max() <= 1


@pytest.mark.parametrize("clean", [0.0, 0.5, 0.9])
def test_share_of_clean_images(clean):
    images = torch.full((400, 1, 16, 16), 0.5)
    _, masks = synthesised(DRAEM(clean=clean, mask="rectangle"), images)
    share = 1 - float(masks.flatten(1).any(1).float().mean())
    assert abs(share - clean) < 4 * np.sqrt(0.25 / 400)


def test_opacity_is_drawn_between_the_least_and_one(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        synthetic, "paste", lambda x, a, m, opacity: drawn.append(opacity) or x
    )
    images = torch.zeros(300, 1, 8, 8)
    for least in (0.0, 0.6, 1.0):
        synthesised(DRAEM(least_opacity=least), images)
    assert drawn[0].min() < 0.05 and drawn[0].max() > 0.95
    assert 0.6 <= drawn[1].min() < 0.65
    assert (drawn[2] == 1).all()


@pytest.mark.parametrize("name", TEXTURES)
def test_a_photograph_as_source_is_pasted_as_it_is(name):
    """With full opacity, what is inside a mask is a piece of that photograph."""
    detector = DRAEM(source=name, least_opacity=1.0, clean=0.0, mask="rectangle")
    changed, masks = synthesised(detector, torch.zeros(3, 1, 32, 32))
    photo = torch.tensor(photograph(name)).float()
    windows = photo.unfold(0, 4, 1).unfold(1, 4, 1).flatten(2)
    for image, mask in zip(changed[:, 0], masks, strict=True):
        row, column = (int(n) for n in mask.nonzero()[0])
        piece = image[row : row + 4, column : column + 4].flatten()
        assert (windows - piece).abs().amax(2).min() < 1e-6


@pytest.mark.parametrize("normal", TEXTURES)
@pytest.mark.parametrize("source", ["procedural", *TEXTURES])
def test_source_is_not_in_the_test_set(normal, source):
    """Which photographs may be pasted when `textures` is the test: procedural textures
    always, a photograph only if no test image shows it.
    """
    kinds = set(textures(normal, size=16, n_train=1, n_val=1, n_test=8).test.kinds)
    in_the_test = source in kinds or source == normal
    assert in_the_test == (source != "procedural")


def test_procedural_textures_are_no_piece_of_a_photograph():
    """Nor nearly so: the nearest window of each photograph is far from each of them."""
    with seeded(0):
        drawn = torch.cat(
            [synthetic.procedural_texture(1, 6, 6).flatten(1) for _ in range(40)]
        )
    drawn = drawn[drawn.std(1) > 0.05]
    assert len(drawn) > 10
    for name in TEXTURES:
        photo = torch.tensor(photograph(name)).float()
        windows = photo.unfold(0, 6, 3).unfold(1, 6, 3).flatten(0, 1).flatten(1)
        assert torch.cdist(drawn, windows).min() > 1e-3


# what the networks are shown


def test_discriminative_network_sees_the_image_and_its_reconstruction(fitted):
    model, images = fitted["both"], pictures(3, seed=4)
    with torch.no_grad():
        logits = model.discriminative_(
            torch.cat([images, model.reconstructive_(images)], 1)
        )
    odds = logits.exp()
    torch.testing.assert_close(
        model.anomaly_map(images), odds[:, 1] / odds.sum(1), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        model.reconstruct(images), model.reconstructive_(images).detach()
    )


def test_controls_have_one_network_each(fitted):
    alone, without = fitted["discriminative"], fitted["reconstructive"]
    assert not hasattr(alone, "reconstructive_")
    assert not hasattr(without, "discriminative_")
    images = pictures(3, seed=4)
    residual = 1 - similarity.ssim_map(
        images, without.reconstruct(images), data_range=1
    )
    torch.testing.assert_close(without.anomaly_map(images), residual)
    with torch.no_grad():
        posterior = alone.discriminative_(images).softmax(1)[:, 1]
    torch.testing.assert_close(alone.anomaly_map(images), posterior)


def test_map_is_smoothed_over_squares_within_the_image(fitted):
    images = pictures(3, seed=4)
    sharp = fitted["both"].anomaly_map(images)
    window = nn.AvgPool2d(5, 1, 2, count_include_pad=False)
    model = DRAEM(**SMALL | {"smoothing": 5}).fit(pictures())
    torch.testing.assert_close(model.anomaly_map(images), window(sharp[:, None])[:, 0])


def test_loss_is_the_sum_of_its_three_terms(fitted):
    images = pictures(6)
    model = DRAEM(ssim_weight=0.7, focusing=1.5, **SMALL).fit(images)
    with torch.no_grad():
        with seeded(3):
            found = model._loss(images)
        anomalous, masks = synthesised(model, images, 3)
        back = model.reconstructive_(anomalous)
        logits = model.discriminative_(torch.cat([anomalous, back], 1))
        expected = (
            (back - images).square().mean()
            + 0.7 * (1 - similarity.ssim(images, back, data_range=1)).mean()
            + focal_loss(logits, masks, 1.5)
        )
    torch.testing.assert_close(found, expected)


def test_statistics_of_the_batch_norms_are_those_of_the_last_weights():
    """Steps so large that a moving average lags behind: in eval mode the networks give
    what they give of a large batch in train mode.
    """
    model = DRAEM(widths=(4, 8), epochs=4, lr=2e-2, smoothing=1).fit(pictures(64))
    anomalous, _ = synthesised(model, pictures(256, seed=5))
    with torch.no_grad():
        settled = model._both(anomalous)
        model.reconstructive_.train()
        model.discriminative_.train()
        for found, expected in zip(settled, model._both(anomalous), strict=True):
            assert (found - expected).square().mean() < 0.1 * expected.var()


def test_it_learns_to_see_what_is_pasted():
    """A flat grey surface, and squares that no training image showed."""
    with seeded(0):
        train = 0.5 + 0.02 * torch.randn(64, 1, 16, 16)
        test = 0.5 + 0.02 * torch.randn(40, 1, 16, 16)
    masks = torch.zeros(40, 16, 16, dtype=torch.bool)
    masks[20:, 4:10, 5:11] = True
    test[masks[:, None]] += 0.25
    model = DRAEM(widths=(6, 12), epochs=25, lr=5e-3).fit(train)
    scores, maps = model.score_and_map(test)
    assert metrics.auroc(scores, masks.flatten(1).any(1)) > 0.95
    assert metrics.pixel_auroc(maps, masks) > 0.95
    assert model.history_[-1] < 0.7 * model.history_[0]


test_bad_input = refuses(
    (lambda: DRAEM("neither"), ValueError, "networks…'both'"),
    (lambda: DRAEM(source="wood"), ValueError, "source…'procedural'"),
    (lambda: DRAEM(mask="disc"), ValueError, "mask…'perlin'"),
    (lambda: DRAEM(least_opacity=1.1), ValueError, "least_opacity…1]"),
    (lambda: DRAEM(clean=1), ValueError, "clean…1)"),
    (lambda: DRAEM(smoothing=4), ValueError, "smoothing…odd"),
    (lambda: DRAEM(focusing=-1), ValueError, "focusing…[0"),
    (lambda: DRAEM(**SMALL).fit(IMAGES), ValueError, "images…11"),
    (
        lambda: (
            DRAEM("discriminative", **SMALL).fit(pictures()).reconstruct(pictures())
        ),
        ValueError,
        "networks…reconstructive",
    ),
)
