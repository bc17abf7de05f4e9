"""Segmentation: losses against other libraries, networks against their formulas, and what
is learned from masks.
"""

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from sklearn.metrics import f1_score, log_loss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

from adlab.data import ImageSet
from adlab.segmentation import (
    FCN,
    NETWORKS,
    Segmentation,
    SegNet,
    UNetPlusPlus,
    binary_cross_entropy,
    dice,
)
from adlab.training import seeded
from adlab.unet import UNet

every = pytest.mark.parametrize("name", NETWORKS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def masks_of(share, seed=0):
    return (torch.rand(3, 20, 20, generator=generator(seed)) < share).double()


# the losses


def test_dice_by_hand():
    p, g = torch.tensor([1, 0.5, 0, 0.25]), torch.tensor([1.0, 1, 1, 0])
    assert float(dice(p, g)) == pytest.approx((2 * 1.5 + 1) / (1.75 + 3 + 1))
    assert float(dice(p, g, 0.5)) == pytest.approx((2 * 1.5 + 0.5) / (1.75 + 3 + 0.5))


def test_dice_of_the_same_and_of_disjoint_masks():
    mask = masks_of(0.3)
    assert float(dice(mask, mask)) == 1
    assert float(dice(mask, 1 - mask)) == pytest.approx(1 / 1201)
    assert float(dice(0 * mask, 0 * mask)) == 1


def test_dice_of_two_masks_is_the_f1_score():
    p, g = masks_of(0.3), masks_of(0.4, 1)
    expected = f1_score(g.flatten(), p.flatten())
    assert float(dice(p, g, 1e-12)) == pytest.approx(expected, rel=1e-9)


def test_cross_entropy_is_that_of_other_libraries():
    logits = 3 * torch.randn(3, 20, 20, generator=generator(), dtype=torch.float64)
    g = masks_of(0.3)
    found = binary_cross_entropy(logits, g)
    torch.testing.assert_close(found, binary_cross_entropy_with_logits(logits, g))
    p = logits.sigmoid().flatten().numpy()
    assert float(found) == pytest.approx(log_loss(g.flatten(), p), rel=1e-9)


def test_cross_entropy_of_extreme_logits_is_finite():
    logits = torch.tensor([800.0, -800.0], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert float(loss.detach()) == 800
    torch.testing.assert_close(logits.grad, torch.tensor([0.5, -0.5]))


def test_all_background_satisfies_the_cross_entropy_but_not_dice():
    """With 1 % of the pixels marked: of all constant answers the cross-entropy likes the
    share itself best, nearly background; Dice likes it least.
    """
    g = torch.zeros(100, 100, dtype=torch.float64)
    g[:10, :10] = 1
    answers = torch.tensor([0.001, 0.01, 0.5, 0.999], dtype=torch.float64)
    entropies = [float(binary_cross_entropy(a.logit() + 0 * g, g)) for a in answers]
    agreements = [float(dice(a + 0 * g, g)) for a in answers]
    assert np.argmin(entropies) == 1 and entropies[1] < 0.06
    assert np.argsort(agreements).tolist() == [0, 1, 2, 3] and agreements[1] < 0.02
    nothing = torch.full_like(g, -6, requires_grad=True)
    (1 - dice(nothing.sigmoid(), g)).backward()
    assert float(nothing.grad[:10, :10].max()) < 0 < float(nothing.grad[20:].min())


# the networks


def convolutions(inside, outside):
    """Numbers in two of 3 × 3 without bias, and in their batch norms."""
    return 9 * outside * (inside + outside) + 4 * outside


def count(name, channels, a, b, c):
    """Numbers in a network of three levels, level by level."""
    down = convolutions(channels, a) + convolutions(a, b) + convolutions(b, c)
    last = 9 * a + 1
    return {
        "fcn": down + (a + 1) + (b + 1) + (c + 1),
        "unet": down + convolutions(c + b, b) + convolutions(b + a, a) + last,
        "unet++": down
        + convolutions(b + a, a)  # column 1
        + convolutions(c + b, b)
        + convolutions(b + 2 * a, a)  # column 2
        + last,
        "segnet": down
        + convolutions(c, b)
        + convolutions(b, a)
        + convolutions(a, a)
        + last,
    }[name]


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_number_of_parameters(name, channels):
    network = NETWORKS[name](channels, (4, 6, 9), 1, batch_norm=True)
    assert sum(p.numel() for p in network.parameters()) == count(
        name, channels, 4, 6, 9
    )


@every
@pytest.mark.parametrize("size", [(24, 24), (33, 47), (1, 1), (25, 8)])
@pytest.mark.parametrize("widths", [(4,), (4, 5), (2, 3, 4, 5)])
def test_any_size_goes_in_and_comes_out(name, size, widths):
    network = NETWORKS[name](3, widths, 2).eval()
    assert network(torch.rand(2, 3, *size)).shape == (2, 2, *size)


def constant(network, number):
    """Each convolution gives nothing but its bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, number)
    return network


def test_scores_of_all_levels_of_an_fcn_are_added():
    network = constant(FCN(1, (2, 2, 2)), 0.5)
    torch.testing.assert_close(
        network(torch.rand(1, 1, 9, 9)), torch.full((1, 1, 9, 9), 1.5)
    )


@pytest.mark.parametrize(("name", "rank"), [("fcn", 16), ("unet", 32)])
def test_an_fcn_speaks_at_half_of_the_resolution(name, rank):
    """What is enlarged from 16 rows has no more than 16 independent ones."""
    with seeded(0), torch.no_grad():
        network = NETWORKS[name](1, (4, 4), 1).double()
        logits = network(torch.rand(1, 1, 32, 32, dtype=torch.float64))[0, 0]
    assert int(torch.linalg.matrix_rank(logits)) == rank


def test_unpooling_puts_maxima_back_by_hand():
    """Without convolutions, a SegNet of one level keeps the maxima of squares of 2 × 2."""
    network = SegNet(1, (1,))
    network.down[0], network.up[0], network.last = (nn.Identity() for _ in range(3))
    x = torch.rand(2, 1, 6, 8, generator=generator())
    expected = torch.zeros_like(x)
    for n, r, c in np.ndindex(2, 3, 4):
        square = x[n, 0, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
        i, j = divmod(int(square.argmax()), 2)
        expected[n, 0, 2 * r + i, 2 * c + j] = square.max()
    assert torch.equal(network(x), expected)


def test_segnet_hands_over_places_and_no_features():
    """The same numbers at other places: the coarsest features alone are the same."""
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, ::2, ::2] = torch.rand(2, 2, generator=generator())
    network = SegNet(1, (1,))
    network.down[0], network.up[0], network.last = (nn.Identity() for _ in range(3))
    moved = x.roll(1, 3)
    assert torch.equal(max_pool2d(x, 2), max_pool2d(moved, 2))
    assert torch.equal(network(moved), network(x).roll(1, 3))


def test_nodes_of_a_nested_unet_see_those_before():
    network = UNetPlusPlus(1, (4, 6, 9))
    seen = [[level[0].in_channels for level in column] for column in network.up]
    assert seen == [[6 + 4, 9 + 6], [6 + 4 + 4]]


def test_a_nested_unet_of_two_levels_is_a_unet():
    with seeded(0), torch.no_grad():
        nested, plain = UNetPlusPlus(1, (3, 5)), UNet(1, (3, 5))
        state = zip(plain.state_dict(), nested.state_dict().values(), strict=True)
        plain.load_state_dict(dict(state))
        x = torch.rand(2, 1, 9, 12)
        found = nested(x)
        swapped = plain.up[0][0].weight
        swapped.copy_(swapped.roll(5, 1))  # its skip comes first
        torch.testing.assert_close(found, plain(x))


# the detector


def dots(n, seed=0, kind="dark", size=32):
    """Noise, and squares that are marked: dark or bright ones."""
    drawn = generator(seed)
    images = 0.5 + 0.05 * torch.randn(n, 1, size, size, generator=drawn)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    for mask, (r, c) in zip(
        masks,
        torch.randint(4, size - 10, (n, 2), generator=drawn).tolist(),
        strict=True,
    ):
        mask[r : r + 6, c : c + 6] = True
    images[masks[:, None]] += 0.3 if kind == "bright" else -0.3
    return ImageSet(images.clamp(0, 1), torch.ones(n), masks)


def normal(n, seed=0, size=32):
    return (
        0.5 + 0.05 * torch.randn(n, 1, size, size, generator=generator(seed))
    ).clamp(0, 1)


SMALL = {"widths": (6, 12), "epochs": 1}


@every
def test_four_images_are_learned_by_heart(name):
    known = dots(4, size=24)
    model = Segmentation(name, (8, 16), epochs=60, lr=1e-2).fit(
        normal(1, size=24), known
    )
    marked = model.anomaly_map(known.images) > 0.5
    joint = (marked & known.masks).sum() / (marked | known.masks).sum()
    assert float(joint) > 0.95
    assert model.history_[-1] < 0.2 * model.history_[0]


def test_kinds_that_were_shown_are_found_and_others_are_not():
    model = Segmentation(**SMALL | {"epochs": 12, "lr": 1e-2})
    model.fit(normal(30), dots(16, 1))
    found = {}
    for kind in ("dark", "bright"):
        test = dots(20, 2, kind)
        marked = model.anomaly_map(test.images) > 0.5
        found[kind] = float(marked[test.masks].float().mean())
    assert found["dark"] > 0.9 and found["bright"] < 0.1


def test_map_is_the_posterior():
    model = Segmentation(**SMALL).fit(normal(4), dots(4))
    images = normal(3, 5)
    with torch.no_grad():
        expected = 1 / (1 + (-model.network_(images)[:, 0]).exp())
    torch.testing.assert_close(model.anomaly_map(images), expected)


def test_images_without_labels_have_empty_masks():
    images, known = normal(5), dots(3)
    model = Segmentation(**SMALL)
    model._labelled = known
    together, masks = model._marked(images)
    assert torch.equal(together, torch.cat([images, known.images]))
    assert torch.equal(masks, torch.cat([torch.zeros(5, 32, 32), known.masks.float()]))


def test_loss_is_the_sum_of_both():
    model, known = Segmentation(**SMALL).fit(normal(4), dots(4)), dots(3, 7)
    masks = known.masks.float()
    with torch.no_grad():
        logits = model.network_(known.images)[:, 0]
        found = model._loss(known.images, masks)
    expected = 1 - dice(logits.sigmoid(), masks) + binary_cross_entropy(logits, masks)
    torch.testing.assert_close(found, expected)


def test_without_labelled_images_all_is_normal():
    model = Segmentation(**SMALL | {"epochs": 20}).fit(normal(16))
    assert float(model.anomaly_map(dots(4).images).max()) < 0.5


test_bad_input = refuses(
    (lambda: Segmentation("vnet"), ValueError, "network…'unet', 'fcn'"),
    (lambda: Segmentation(widths=()), ValueError, "widths…at least one"),
    (
        lambda: Segmentation().fit(normal(2), ImageSet(normal(2), torch.ones(2))),
        ValueError,
        "labelled…masks…none",
    ),
    (lambda: Segmentation().fit(normal(2), IMAGES), TypeError, "labelled…ImageSet"),
    (
        lambda: Segmentation().fit(normal(2), dots(2, size=24)),
        ValueError,
        "images…one size…(1, 32, 32)…(1, 24, 24)",
    ),
)
