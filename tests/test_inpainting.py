"""Inpainting: masks that partition, guesses without a leak, the loss by hand, and the
detector's promises.
"""

import math

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import nn

import adlab
from adlab import metrics
from adlab.augmentation import random_crop
from adlab.inpainting import (
    Inpainting,
    UNet,
    cell_masks,
    gradient_map,
    in_strips,
    inpaint,
    inpainting_loss,
    loss_map,
    smooth,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=8, channels=1, height=32, width=32, seed=0):
    """Smooth random pictures, so that there is something to learn."""
    coarse = torch.rand(n, channels, 6, 6, generator=generator(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(
        0, 1
    )


def masks_of(*args, seed=0):
    with adlab.training.seeded(seed):
        return cell_masks(*args)


SMALL = {"widths": (3, 4), "epochs": 2, "patch_size": 24, "cell_sizes": (2, 5)}
DETECTORS = {
    "gms": Inpainting(**SMALL, score="gms"),
    "loss": Inpainting(**SMALL, image_score="mean"),
    "l2": Inpainting(**SMALL, ssim_weight=0, gms_weight=0, n_sets=2),
    "one": Inpainting(**SMALL | {"cell_sizes": (4,), "smoothing": 1, "seed": 3}),
}
each = pytest.mark.parametrize("name", DETECTORS)


@pytest.fixture(scope="module")
def fitted():
    """Every detector, fitted once; tests only look at them."""
    return {name: make(name).fit(pictures()) for name in DETECTORS}


def make(name):
    return eval(repr(DETECTORS[name]))


def results(detector, images):
    return detector.anomaly_score(images), detector.anomaly_map(images)


# Masks

SIZES = pytest.mark.parametrize(
    ("height", "width", "cell"),
    [(64, 64, 2), (64, 64, 16), (32, 48, 4), (24, 24, 1), (37, 50, 8), (25, 24, 7)],
)


@SIZES
@pytest.mark.parametrize("n_sets", [2, 3, 5])
def test_every_pixel_is_hidden_exactly_once(height, width, cell, n_sets):
    masks = masks_of(height, width, cell, n_sets)
    assert masks.shape == (n_sets, height, width)
    assert masks.dtype == torch.bool
    assert ((~masks).sum(0) == 1).all()


@SIZES
def test_cells_are_hidden_whole_and_shared_out_evenly(height, width, cell):
    hidden = ~masks_of(height, width, cell, 3)
    counts = torch.zeros(3, dtype=int)
    for i in range(0, height, cell):
        for j in range(0, width, cell):
            square = hidden[:, i : i + cell, j : j + cell].flatten(1)
            assert (square == square[:, :1]).all()
            counts += square[:, 0]
    assert counts.max() - counts.min() <= 1


def test_masks_are_drawn_anew_and_from_the_seed():
    assert torch.equal(masks_of(32, 32, 4), masks_of(32, 32, 4))
    assert not torch.equal(masks_of(32, 32, 4), masks_of(32, 32, 4, seed=1))


def test_every_cell_is_as_likely_to_be_hidden_as_any_other():
    draws = torch.stack([~masks_of(12, 12, 4, 3, seed=s)[0] for s in range(300)])
    rates = draws.float().mean(0)
    sigma = math.sqrt(2 / 9 / 300)
    assert (rates - 1 / 3).abs().max() < 4 * sigma


# Inpainting


def test_a_network_that_knows_the_image_gives_it_back():
    images = pictures(3, 3)
    masks = masks_of(32, 32, 4)

    class Oracle(nn.Module):
        def forward(self, x):
            return images.repeat(len(x) // 3, 1, 1, 1)

    assert torch.equal(inpaint(Oracle(), images, masks), images)
    assert inpainting_loss(images, images).abs().max() < 1e-6
    assert loss_map(images, images).abs().max() < 1e-6


def test_a_network_that_copies_gives_nothing():
    images = pictures(3).clamp(0.1)
    assert inpaint(nn.Identity(), images, masks_of(32, 32, 4)).eq(0).all()


def test_the_parts_are_assembled_by_the_formula():
    images, masks = pictures(2, 3), masks_of(32, 32, 5, 4)
    with adlab.training.seeded(0), torch.no_grad():
        network = UNet(3, (3, 4))
        expected = torch.zeros_like(images)
        for mask in masks.float():
            expected += (1 - mask) * network(mask * images)
        found = inpaint(network, images, masks)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(32, 32), (30, 41)])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_leaks_from_a_hidden_cell(size, channels, monkeypatch):
    """Whatever the hidden pixels are, the guess of them is bit for bit the same."""
    images = torch.rand(2, channels, *size, generator=generator())
    masks = masks_of(*size, 4)
    with adlab.training.seeded(0), torch.no_grad():
        network = UNet(channels, (4, 8, 16))
        for parameter in network.parameters():
            parameter.mul_(3)  # so that a leak would not be lost in rounding
        before = inpaint(network, images, masks)
        for hidden in ~masks:
            other = torch.where(
                hidden, torch.rand(size, generator=generator(1)), images
            )
            after = inpaint(network, other, masks)
            assert torch.equal(before[..., hidden], after[..., hidden])
            assert not torch.equal(before[..., ~hidden], after[..., ~hidden])


def test_no_gradient_reaches_a_hidden_pixel():
    images = pictures(1).requires_grad_()
    masks = masks_of(32, 32, 8)
    with adlab.training.seeded(0):  # other weights may let no light through
        network = UNet(1, (4, 8, 16))
    inpaint(network, images, masks)[0, 0, ~masks[1]].sum().backward()
    assert images.grad[0, 0, ~masks[1]].eq(0).all()
    assert images.grad[0, 0, masks[1]].ne(0).any()


def test_a_fitted_detector_does_not_look_at_what_it_guesses(fitted):
    images = pictures(2, seed=1)
    with adlab.training.seeded(0):
        hidden = ~cell_masks(32, 32, 5)[0]
    changed = torch.where(hidden, 1 - images, images)
    before, after = (fitted["gms"].inpaint(x, 5) for x in (images, changed))
    assert torch.equal(before[..., hidden], after[..., hidden])


# The network


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (24, 25)])
@pytest.mark.parametrize("widths", [(4,), (4, 5), (2, 3, 4, 5)])
def test_any_size_goes_in_and_comes_out(size, widths):
    x = torch.rand(2, 3, *size)
    assert UNet(3, widths)(x).shape == x.shape


@pytest.mark.parametrize("widths", [(4,), (4, 5), (2, 3, 4)])
def test_scoring_in_strips_gives_what_the_trained_network_gives(widths):
    """Of three strips, and each pixel of the image matters to those that see it."""
    with adlab.training.seeded(0), torch.no_grad():
        network = UNet(1, widths)
        x = torch.rand(1, 1, 150 * network.factor + 1, 21)
        for parameter in network.parameters():
            parameter.mul_(2)  # so that what is far off would not be lost in rounding
        whole, parts = network(x), in_strips(network.eval(), x)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5 * float(whole.std()))


def test_the_levels_and_their_skip_connections():
    network = UNet(1, (4, 8, 16))
    shapes = [
        (layer.in_channels, layer.out_channels)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    down = [(1, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    up = [(16 + 8, 8), (8, 8), (8 + 4, 4), (4, 4)]
    assert sorted(shapes) == sorted([*down, *up, (4, 1)])


def test_a_unet_copies_what_it_sees():
    """Skip connections make the copy easy: it is the masks that forbid it."""
    with adlab.training.seeded(0):
        network, x = UNet(1, (8, 8)), torch.rand(64, 1, 24, 24)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        loss = (network(x[:16]) - x[:16]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen = (network(x[16:]) - x[16:]).square().mean()
        masks = masks_of(24, 24, 4)
        hidden = (inpaint(network, x[16:], masks) - x[16:]).square().mean()
    assert seen < 0.1 * x.var()
    assert hidden > x.var()


# Loss and score


def prewitt(image):
    across, down = (ndimage.prewitt(image, axis) / 3 for axis in (0, 1))
    return np.hypot(across, down)


def naive_gms(x, y):
    """Over four scales by SciPy, far from borders: a map a scale, not enlarged."""
    maps = []
    for _ in range(4):
        a, b = prewitt(x), prewitt(y)
        maps.append((2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026))
        x, y = (z.reshape(len(z) // 2, 2, -1, 2).mean((1, 3)) for z in (x, y))
    return maps


def pair(size=64):
    x = torch.rand(1, 1, size, size, generator=generator(), dtype=torch.float64)
    return x, torch.rand(x.shape, generator=generator(1), dtype=torch.float64)


def test_the_loss_by_scipy_and_scikit_image():
    x, y = pair()
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    gms = np.mean([m[1:-1, 1:-1].mean() for m in naive_gms(a, b)])
    _, ssim = structural_similarity(
        a,
        b,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    parts = ((a - b) ** 2).mean(), 1 - ssim[5:-5, 5:-5].mean(), 1 - gms
    for weights in ((1, 1), (0, 0), (0.5, 0), (0, 2)):
        expected = parts[0] + weights[0] * parts[1] + weights[1] * parts[2]
        found = float(inpainting_loss(x, y, *weights))
        assert math.isclose(found, expected, abs_tol=1e-10)


def test_the_map_is_the_mean_of_the_scales_enlarged():
    """The finest level by SciPy; the mean of four, not one minus their sum."""
    x, y = pair()
    scales = naive_gms(x[0, 0].numpy(), y[0, 0].numpy())
    blocks = sum(
        np.kron(m, np.ones((2**level, 2**level))) for level, m in enumerate(scales)
    )
    found = gradient_map(x, y)[0].numpy()
    inner = slice(16, -16)  # enlarged there linearly, here by blocks: alike on average
    expected = (1 - blocks / 4)[inner, inner]
    assert abs(found[inner, inner].mean() - expected.mean()) < 0.005
    assert found.min() >= 0
    assert found.max() < 1


def test_similar_gradients_score_zero_and_the_map_stays_below_one():
    x, y = pair()
    assert gradient_map(x, x).abs().max() < 1e-12
    assert gradient_map(x, x + 0.3).abs().max() < 1e-12  # blind to brightness
    assert gradient_map(x, y).min() > 0


def test_the_loss_map_adds_up():
    x, y = (z.float() for z in pair())
    both = loss_map(x, y, 0.5, 2.0)
    parts = [loss_map(x, y, *w) for w in ((0, 0), (1, 0), (0, 1))]
    expected = parts[0] + 0.5 * (parts[1] - parts[0]) + 2 * (parts[2] - parts[0])
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts[0], (x - y).square()[:, 0])
    torch.testing.assert_close(parts[2] - parts[0], gradient_map(x, y))


def test_flat_images_give_no_nan_and_no_infinite_gradient():
    x, y = torch.full((2, 1, 24, 24), 0.5), torch.full((2, 1, 24, 24), 0.4)
    y.requires_grad_()
    inpainting_loss(x, y).sum().backward()
    assert torch.isfinite(y.grad).all()


@pytest.mark.parametrize("window", [1, 3, 11, 21])
def test_smoothing_by_a_loop(window):
    maps, r = torch.rand(2, 13, 17, generator=generator()), window // 2
    expected = torch.stack(
        [
            maps[:, max(i - r, 0) : i + r + 1, max(j - r, 0) : j + r + 1].mean((1, 2))
            for i in range(13)
            for j in range(17)
        ],
        1,
    ).view(2, 13, 17)
    torch.testing.assert_close(smooth(maps, window), expected)


def test_random_crops_come_from_everywhere():
    image = torch.arange(30.0).view(1, 1, 5, 6)
    with adlab.training.seeded(0):
        corners = {int(random_crop(image, 4)[0, 0, 0, 0]) for _ in range(200)}
    assert corners == {6 * i + j for i in range(2) for j in range(3)}


def test_random_crops_are_parts_of_their_images():
    images = torch.arange(5 * 12 * 9.0).view(5, 1, 12, 9)
    for image, crop in zip(images, random_crop(images, 4), strict=True):
        windows = image.unfold(1, 4, 1).unfold(2, 4, 1).flatten(0, 2)
        assert (windows == crop).flatten(1).all(1).sum() == 1


@pytest.mark.parametrize("score", ["gms", "loss"])
def test_every_cell_size_weighs_the_same(fitted, score):
    detector, images = fitted["gms"], pictures(2, seed=1)
    weights, parts = (0.5, 2.0), []
    for size in (2, 5):
        y = detector.inpaint(images, size)
        loss = loss_map(images, y, *weights)
        parts.append(smooth(gradient_map(images, y) if score == "gms" else loss, 11))
    single = make("gms").fit(pictures())
    single.score, (single.ssim_weight, single.gms_weight) = score, weights
    torch.testing.assert_close(single.anomaly_map(images), sum(parts) / 2)


# The detector


@each
def test_maps_and_scores(name, fitted):
    detector, images = fitted[name], pictures(5, seed=1)
    scores, maps = results(detector, images)
    assert maps.shape == (5, 32, 32)
    assert torch.isfinite(maps).all()
    flat = maps.flatten(1)
    expected = flat.amax(1) if detector.image_score == "max" else flat.mean(1)
    torch.testing.assert_close(scores, expected)
    assert detector.inpaint(images, 4).shape == images.shape
    assert not detector.network_.training
    assert len(detector.history_) == 2


@each
@pytest.mark.parametrize("size", [(24, 24), (40, 64), (51, 47)])
def test_images_of_another_size(name, size, fitted):
    images = pictures(2, height=size[0], width=size[1])
    assert fitted[name].anomaly_map(images).shape == (2, *size)


def test_training_images_that_no_cell_divides():
    detector = make("gms").fit(pictures(4, height=29, width=35))
    assert detector.anomaly_map(pictures(2)).shape == (2, 32, 32)


def test_it_is_trained_by_the_loss_with_its_weights(monkeypatch):
    """A network that always says grey, and crops that are whole images."""
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda self, x: 0 * forward(self, x) + 0.5)
    options = SMALL | {"epochs": 1, "ssim_weight": 0.5, "gms_weight": 2.0}
    images = pictures(8, height=24, width=24)
    history = Inpainting(**options).fit(images).history_
    expected = inpainting_loss(images, torch.full_like(images, 0.5), 0.5, 2.0).mean()
    assert history == [pytest.approx(float(expected), rel=1e-4)]


@pytest.mark.parametrize("n_sets", [2, 4])
def test_an_image_is_scored_in_as_many_parts_as_asked_for(monkeypatch, n_sets):
    images, parts, forward = pictures(3), [], UNet.forward
    detector = Inpainting(**SMALL, n_sets=n_sets).fit(pictures())

    def spy(self, x):
        parts.append((x[:, 0] == 0).float().mean((1, 2)))
        return forward(self, x)

    monkeypatch.setattr(UNet, "forward", spy)
    detector.anomaly_map(images.clamp(0.1))
    assert [len(hidden) for hidden in parts] == [3] * n_sets * 2  # two sizes of cells
    for hidden in parts:
        np.testing.assert_allclose(hidden, 1 / n_sets, atol=0.1)


def test_masks_of_scoring_come_from_the_seed():
    detector, images = make("one").fit(pictures()), pictures(2, seed=1)
    for detector.seed in (3, 4):
        masks = masks_of(32, 32, 4, seed=detector.seed)
        with torch.no_grad():
            expected = inpaint(detector.network_, images, masks)
        torch.testing.assert_close(detector.inpaint(images, 4), expected)


def steps_of_training(monkeypatch, images, **options):
    """What the network gets to see at every step, one image at a time: (n_sets, S, S),
    zero where hidden.
    """
    steps, forward = [], UNet.forward

    def spy(self, x):
        if self.training:
            steps.append(x[:, 0].clone())
        return forward(self, x)

    monkeypatch.setattr(UNet, "forward", spy)
    quick = {"widths": (2,), "patch_size": 24, "ssim_weight": 0, "gms_weight": 0}
    Inpainting(**quick | options, batch_size=1).fit(images)
    return steps


def squares(hidden, side):
    """Whether what is hidden consists of whole squares of that side."""
    corners = hidden[..., ::side, ::side]
    filled = corners.repeat_interleave(side, 1).repeat_interleave(side, 2)
    return torch.equal(filled[..., :24, :24], hidden)


def test_every_step_hides_other_squares_of_a_size_that_is_drawn(monkeypatch):
    options = {"cell_sizes": (2, 3, 5), "n_sets": 4, "epochs": 8}
    steps = steps_of_training(monkeypatch, pictures(8).clamp(0.1), **options)
    assert len(steps) == 64
    hidden = [step == 0 for step in steps]
    for one in hidden:
        assert one.shape == (4, 24, 24)
        assert (one.sum(0) == 1).all()
    fits = [tuple(squares(one, side) for side in (2, 3, 5)) for one in hidden]
    assert {sum(fit) for fit in fits} == {1}
    times = [sum(fit[i] for fit in fits) for i in range(3)]
    assert min(times) > 5  # of 21 on average
    assert len({one.numpy().tobytes() for one in hidden}) == 64


def test_it_is_trained_on_random_crops(monkeypatch):
    images = pictures(8, height=29, width=31).clamp(0.1)
    windows = images[:, 0].unfold(1, 24, 1).unfold(2, 24, 1)
    places = set()
    for step in steps_of_training(monkeypatch, images, epochs=4):
        crop = step.amax(0)  # each pixel is visible in some
        _, row, column = (windows == crop).flatten(3).all(3).nonzero()[0].tolist()
        places.add((row, column))
    assert len(places) > 8  # of 48


@pytest.mark.parametrize("name", ["gms", "l2"])
def test_training_lowers_the_loss(name):
    detector = make(name)
    detector.epochs, detector.lr = 15, 5e-3
    history = detector.fit(pictures(24)).history_
    assert history[-1] < 0.6 * history[0]


def test_it_finds_a_square_in_smooth_pictures_and_training_helps():
    images = pictures(24, seed=5)
    masks = torch.zeros(24, 32, 32, dtype=torch.bool)
    masks[12:, 12:20, 8:16] = True
    checks = (torch.arange(32)[:, None] // 2 + torch.arange(32) // 2) % 2
    images = torch.where(masks[:, None], checks.float(), images)
    labels = masks.flatten(1).any(1)
    options = {"cell_sizes": (2, 4), "widths": (8, 16), "smoothing": 5, "lr": 5e-3}
    trained = Inpainting(**options, epochs=10).fit(pictures(48))
    assert metrics.auroc(trained.anomaly_score(images), labels) > 0.95
    assert metrics.pixel_auroc(trained.anomaly_map(images), masks) > 0.95
    errors = [
        float((d.inpaint(pictures(8, seed=7), 4) - pictures(8, seed=7)).square().mean())
        for d in (
            trained,
            Inpainting(**options | {"lr": 1e-9}, epochs=1).fit(pictures(48)),
        )
    ]
    assert errors[0] < 0.2 * errors[1]


# Bad input


def test_bad_images_are_refused_and_the_detector_stays_usable(fitted):
    detector, images = fitted["gms"], pictures(2)
    before = detector.anomaly_map(images)
    for bad in (images[..., :23], pictures(2, 3), images * 2):
        with pytest.raises(ValueError, match="images: expected"):
            detector.anomaly_map(bad)
    with pytest.raises(ValueError, match="cell_size: expected"):
        detector.inpaint(images, 0)
    with pytest.raises(ValueError, match="n_sets: expected"):
        detector.inpaint(images, 32)
    assert torch.equal(detector.anomaly_map(images), before)


test_bad_input = refuses(
    (lambda: Inpainting(()), ValueError, "cell_sizes…none"),
    (lambda: Inpainting((2, 17)), ValueError, "cell_sizes…16]"),
    (lambda: Inpainting(n_sets=1), ValueError, "n_sets…[2"),
    (lambda: Inpainting((16,), 5), ValueError, "n_sets…4]"),
    (lambda: Inpainting(score="l2"), ValueError, "score…'gms'"),
    (lambda: Inpainting(smoothing=4), ValueError, "smoothing…odd"),
    (lambda: Inpainting(patch_size=23), ValueError, "patch_size…[24"),
    (lambda: Inpainting(epochs=0), ValueError, "epochs…[1"),
    (lambda: Inpainting().fit(IMAGES), ValueError, "images…32"),
    (lambda: cell_masks(8, 8, 4, 5), ValueError, "n_sets…4]"),
    (lambda: cell_masks(8, 8, 0), ValueError, "cell_size…[1"),
    (lambda: UNet(0), ValueError, "channels…[1"),
)
