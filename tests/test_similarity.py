"""Image similarity: scikit-image and brute force as oracles, invariances, gradients, and bad input."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import nn

from adlab import data, similarity
from adlab.similarity import MS_SSIM_WEIGHTS, coefficient_similarity, gabor_filters

BRICK = data.load(
    "textures", size=96, n_train=4, n_val=1, n_test=2
).train.images.double()
NOISE = torch.randn(
    BRICK.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
)
NOISY = (BRICK + 0.1 * NOISE).clamp(0, 1)
LAYERS = (
    nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2))
    .double()
    .requires_grad_(False)
)

OPTIONS = {
    "mse": {},
    "ssim": {"data_range": 1},
    "ms_ssim": {"data_range": 1, "scales": 3},
    "cw_ssim": {"data_range": 1},
    "gms": {"data_range": 1},
    "ms_gms": {"data_range": 1, "scales": 3},
    "perceptual": {"extractor": LAYERS},
}
DISTANCES = ("mse", "perceptual")
each = pytest.mark.parametrize("name", OPTIONS)
similarities = pytest.mark.parametrize(
    "name", [name for name in OPTIONS if name not in DISTANCES]
)


def mean(name, x, y, **options):
    return getattr(similarity, name)(x, y, **OPTIONS[name] | options)


def as_map(name, x, y, **options):
    return getattr(similarity, f"{name}_map")(x, y, **OPTIONS[name] | options)


# All measures


@each
def test_shapes_and_types(name):
    for x, y in [
        (BRICK, NOISY),
        (BRICK.float(), NOISY.float()),
        (BRICK[..., :64, :80], NOISY[..., :64, :80]),
    ]:
        if name == "perceptual" and x.dtype == torch.float32:
            continue
        assert mean(name, x, y).shape == (4,)
        assert as_map(name, x, y).shape == (4, *x.shape[2:])
        assert mean(name, x, y).dtype == as_map(name, x, y).dtype == x.dtype


@each
def test_equal_images_are_perfectly_alike(name):
    perfect = 0.0 if name in DISTANCES else 1.0
    for x in (BRICK, torch.zeros_like(BRICK), torch.ones_like(BRICK)):
        torch.testing.assert_close(
            mean(name, x, x), torch.full((4,), perfect).double(), atol=1e-7, rtol=0
        )
        torch.testing.assert_close(
            as_map(name, x, x), perfect + 0 * x[:, 0], atol=1e-7, rtol=0
        )


@each
def test_symmetric_and_worse_with_more_noise(name):
    torch.testing.assert_close(mean(name, BRICK, NOISY), mean(name, NOISY, BRICK))
    little, more = (mean(name, BRICK, BRICK + sigma * NOISE) for sigma in (0.05, 0.2))
    assert (more > little).all() if name in DISTANCES else (more < little).all()


@similarities
def test_similarities_are_at_most_one(name):
    for y in (NOISY, 1 - BRICK, torch.zeros_like(BRICK), NOISE):
        assert (as_map(name, BRICK, y) <= 1 + 1e-9).all()
        assert (as_map(name, BRICK, y) >= -1).all()


@each
def test_a_batch_is_its_images_one_by_one(name):
    single = torch.cat(
        [mean(name, BRICK[i : i + 1], NOISY[i : i + 1]) for i in range(4)]
    )
    torch.testing.assert_close(mean(name, BRICK, NOISY), single)
    single = torch.cat(
        [as_map(name, BRICK[i : i + 1], NOISY[i : i + 1]) for i in range(4)]
    )
    torch.testing.assert_close(as_map(name, BRICK, NOISY), single)


@each
@pytest.mark.parametrize("form", [mean, as_map])
def test_gradients_are_right(name, form):
    x = BRICK[:1, :, :48, :48]
    y = NOISY[:1, :, :48, :48].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(form(name, x, y).sum(), y)
    step = 1e-5 * NOISE[:1, :, :48, :48]
    with torch.no_grad():
        slope = (form(name, x, y + step).sum() - form(name, x, y - step).sum()) / 2
    assert math.isclose(float((gradient * step).sum()), float(slope), rel_tol=1e-4)


@each
def test_no_nan_where_images_are_flat_or_opposite(name):
    flat, half = torch.zeros(2, 1, 64, 64).double(), BRICK[:2, :, :64, :64]
    for x, y in [
        (flat, flat),
        (flat, flat + 1),
        (half, 1 - half),
        (flat, half),
        (half, flat),
    ]:
        y = y.clone().requires_grad_()
        value = mean(name, x, y)
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(y.grad).all()


@similarities
def test_only_the_ratio_to_the_data_range_counts(name):
    torch.testing.assert_close(
        mean(name, 255 * BRICK, 255 * NOISY, data_range=255),
        mean(name, BRICK, NOISY),
        atol=1e-6,
        rtol=0,
    )


@each
def test_the_map_of_a_local_change_is_local(name):
    changed = BRICK.clone()
    changed[..., 40:52, 40:52] = BRICK[..., 40:52, 40:52].flip(3) * 0.5
    difference = (as_map(name, BRICK, changed) - as_map(name, BRICK, BRICK)).abs()
    rows, columns = np.unravel_index(difference.flatten(1).argmax(1).numpy(), (96, 96))
    assert ((rows >= 36) & (rows < 56) & (columns >= 36) & (columns < 56)).all()
    assert difference[:, :4].max() < 0.1 * difference.max()


@each
def test_channels_count_alike(name):
    if name == "perceptual":
        return
    colour = [x.repeat(1, 3, 1, 1) for x in (BRICK, NOISY)]
    torch.testing.assert_close(mean(name, *colour), mean(name, BRICK, NOISY))
    torch.testing.assert_close(as_map(name, *colour), as_map(name, BRICK, NOISY))


# Oracles


def skimage_ssim(x, y, data_range):
    """Mean and map, cropped to whole windows."""
    return structural_similarity(
        x,
        y,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
        full=True,
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("data_range", [1, 2.5])
def test_ssim_is_that_of_scikit_image(dtype, tolerance, data_range):
    bright = torch.ones_like(BRICK)
    bright[..., 20:30, 20:60] -= 0.01 * NOISE[..., 20:30, 20:60].abs().clamp(0, 1)
    for x, y in [
        (BRICK, NOISY),
        (BRICK, 1 - BRICK),
        (bright, BRICK),
        (bright, torch.ones_like(BRICK)),
    ]:
        x, y = x.to(dtype), y.to(dtype)
        values = similarity.ssim(x, y, data_range=data_range)
        maps = similarity.ssim_map(x, y, data_range=data_range)[:, 5:-5, 5:-5]
        for i in range(4):
            value, full = skimage_ssim(
                x[i, 0].double().numpy(), y[i, 0].double().numpy(), data_range
            )
            assert abs(float(values[i]) - value) < tolerance
            assert np.abs(maps[i].double().numpy() - full[5:-5, 5:-5]).max() < tolerance


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_of_rows_do_not_show(block, monkeypatch):
    x, y = torch.rand(2, 2, 3, 40, 31, generator=torch.Generator().manual_seed(0))
    whole = similarity.ssim_map(x, y, data_range=1)
    monkeypatch.setattr("adlab.similarity.BLOCK", block)
    torch.testing.assert_close(similarity.ssim_map(x, y, data_range=1), whole)


def naive_ssim_parts(x, y):
    """Luminance, and contrast times structure, of whole windows, by SciPy."""

    def blur(z):
        return ndimage.gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5]

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4), (2 * cov + 9e-4) / (
        vx + vy + 9e-4
    )


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_ms_ssim_is_the_product_over_scales(scales):
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    for i, value in enumerate(
        similarity.ms_ssim(BRICK, NOISY, data_range=1, scales=scales)
    ):
        x, y, expected = BRICK[i, 0].numpy(), NOISY[i, 0].numpy(), 1.0
        for j in range(scales):
            luminance, structure = naive_ssim_parts(x, y)
            last = j == scales - 1
            expected *= (
                luminance * structure if last else structure
            ).mean() ** weights[j]
            x, y = (
                z.reshape(len(z) // 2, 2, len(z) // 2, 2).mean((1, 3)) for z in (x, y)
            )
        assert math.isclose(value, expected, rel_tol=1e-10)


def test_one_scale_is_the_measure_itself():
    torch.testing.assert_close(
        mean("ms_ssim", BRICK, NOISY, scales=1),
        mean("ssim", BRICK, NOISY),
        atol=1e-12,
        rtol=0,
    )
    torch.testing.assert_close(
        as_map("ms_gms", BRICK, NOISY, scales=1), as_map("gms", BRICK, NOISY)
    )


def test_all_five_published_scales():
    x = BRICK.repeat(1, 1, 2, 2)
    value = similarity.ms_ssim(x, x + 0.1 * NOISE.repeat(1, 1, 2, 2), data_range=1)
    assert ((value > 0.5) & (value < 1)).all()
    assert math.isclose(sum(MS_SSIM_WEIGHTS), 1, abs_tol=1e-3)


def test_gms_is_that_of_scipys_prewitt():
    for i, gms in enumerate(similarity.gms_map(BRICK, NOISY, data_range=1)):
        a, b = (
            np.hypot(*(ndimage.prewitt(z[i, 0].numpy(), axis) / 3 for axis in (0, 1)))
            for z in (BRICK, NOISY)
        )
        expected = (2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026)
        assert np.abs(gms.numpy() - expected)[1:-1, 1:-1].max() < 1e-9


def test_perceptual_distance_by_hand():
    square = LAYERS(BRICK).sub(LAYERS(NOISY)).square()
    torch.testing.assert_close(
        similarity.perceptual(BRICK, NOISY, extractor=LAYERS), square.mean((1, 2, 3))
    )
    both = similarity.perceptual(BRICK, NOISY, extractor=lambda x: [LAYERS(x), x])
    torch.testing.assert_close(
        both, (square.mean((1, 2, 3)) + similarity.mse(BRICK, NOISY)) / 2
    )
    torch.testing.assert_close(
        similarity.perceptual_map(BRICK, NOISY, extractor=lambda x: x),
        similarity.mse_map(BRICK, NOISY),
    )


# Complex wavelets


def test_cw_ssim_does_not_mind_a_shift_where_ssim_does():
    for axis in (2, 3):
        shifted = torch.roll(BRICK, 1, axis)
        assert (mean("cw_ssim", BRICK, shifted) > 0.9).all()
        assert (
            1 - mean("ssim", BRICK, shifted) > 4 * (1 - mean("cw_ssim", BRICK, shifted))
        ).all()


def test_cw_ssim_sees_neither_brightness_nor_the_sign_of_contrast():
    torch.testing.assert_close(
        mean("cw_ssim", BRICK, BRICK + 0.3), torch.ones(4).double()
    )
    torch.testing.assert_close(
        mean("cw_ssim", BRICK, 1 - BRICK), torch.ones(4).double()
    )


def test_cw_ssim_finds_a_foreign_texture():
    foreign = BRICK.flip(0).transpose(2, 3)
    assert (mean("cw_ssim", BRICK, foreign) < 0.7).all()


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_scaled_and_turned_coefficients(factor):
    a = torch.randn(
        2, 3, 9, 9, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)
    )
    turned = factor * a * torch.exp(torch.tensor(0.7j))
    value = coefficient_similarity(a, turned, 0, 7)
    assert value.shape == (2, 3, 3, 3)
    torch.testing.assert_close(
        value, torch.full_like(value, 2 * factor / (1 + factor**2))
    )


def test_gabor_filters_have_no_mean_and_answer_to_their_wave():
    filters = gabor_filters(4)
    assert filters.shape == (8, 1, 9, 9)
    assert filters.sum((1, 2, 3)).abs().max() < 1e-12
    wave = torch.cos(2 * math.pi / 4 * torch.arange(9.0, dtype=torch.float64)).expand(
        9, 9
    )
    response = (filters[:, 0] * wave).sum((1, 2))
    power = response[:4] ** 2 + response[4:] ** 2
    assert power.argmax() == 0


# Bad input

PAIR = torch.rand(2, 1, 32, 32)
BAD = {
    "shapes": (
        lambda: similarity.mse(PAIR, PAIR[:1]),
        ValueError,
        "y: expected the shape of x",
    ),
    "three-dimensional": (
        lambda: similarity.mse(PAIR[0], PAIR[0]),
        ValueError,
        r"x: expected .*\(N, C, H, W\)",
    ),
    "empty": (
        lambda: similarity.mse(PAIR[:0], PAIR[:0]),
        ValueError,
        "x: expected a non-empty",
    ),
    "bytes": (
        lambda: similarity.mse(PAIR.byte(), PAIR),
        TypeError,
        "x: expected floating",
    ),
    "text": (
        lambda: similarity.mse(PAIR, "image.png"),
        TypeError,
        "y: expected a tensor or an array",
    ),
    "range-zero": (
        lambda: similarity.ssim(PAIR, PAIR, data_range=0),
        ValueError,
        "data_range: expected",
    ),
    "range-negative": (
        lambda: similarity.gms(PAIR, PAIR, data_range=-1),
        ValueError,
        "data_range: expected",
    ),
    "range-none": (
        lambda: similarity.cw_ssim(PAIR, PAIR, data_range=None),
        TypeError,
        "data_range: expected",
    ),
    "range-missing": (lambda: similarity.ssim(PAIR, PAIR), TypeError, "data_range"),
    "window-even": (
        lambda: similarity.ssim(PAIR, PAIR, data_range=1, window=4),
        ValueError,
        "window: expected",
    ),
    "window-zero": (
        lambda: similarity.ssim(PAIR, PAIR, data_range=1, window=0),
        ValueError,
        "window: expected",
    ),
    "sigma": (
        lambda: similarity.ssim(PAIR, PAIR, data_range=1, sigma=0),
        ValueError,
        "sigma: expected",
    ),
    "small": (
        lambda: similarity.ssim(PAIR[..., :10], PAIR[..., :10], data_range=1),
        ValueError,
        "x: expected H and W of at least 11",
    ),
    "small-for-scales": (
        lambda: similarity.ms_ssim(PAIR, PAIR, data_range=1),
        ValueError,
        "x: expected H and W of at least 176",
    ),
    "small-for-gabor": (
        lambda: similarity.cw_ssim(PAIR[..., :29, :], PAIR[..., :29, :], data_range=1),
        ValueError,
        "x: expected H and W of at least 30",
    ),
    "small-for-gradient": (
        lambda: similarity.gms_map(PAIR[..., :2], PAIR[..., :2], data_range=1),
        ValueError,
        "x: expected H and W of at least 3",
    ),
    "scales-many": (
        lambda: similarity.ms_ssim(PAIR, PAIR, data_range=1, scales=6),
        ValueError,
        "scales: expected",
    ),
    "scales-none": (
        lambda: similarity.ms_gms(PAIR, PAIR, data_range=1, scales=0),
        ValueError,
        "scales: expected",
    ),
    "orientations": (
        lambda: similarity.cw_ssim(PAIR, PAIR, data_range=1, orientations=0),
        ValueError,
        "orientations: expected",
    ),
    "extractor": (
        lambda: similarity.perceptual(PAIR, PAIR, extractor=3),
        TypeError,
        "extractor: expected",
    ),
    "features": (
        lambda: similarity.perceptual(PAIR, PAIR, extractor=lambda x: x.mean((2, 3))),
        ValueError,
        "extractor: expected features",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_arrays_will_do_and_nothing_is_changed():
    x, y = BRICK.clone(), NOISY.clone()
    value = similarity.ssim(x.numpy(), y.numpy(), data_range=1)
    torch.testing.assert_close(value, similarity.ssim(BRICK, NOISY, data_range=1))
    assert torch.equal(x, BRICK)
    assert torch.equal(y, NOISY)


def test_nan_stays_nan():
    y = NOISY.clone()
    y[0, 0, 40, 40] = float("nan")
    for name in OPTIONS:
        value = mean(name, BRICK, y)
        assert torch.isnan(value[0])
        assert torch.isfinite(value[1:]).all()
