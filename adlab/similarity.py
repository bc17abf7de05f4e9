"""Image similarity: how alike are an image and its reconstruction, as a map and as one
number?

Every measure takes two batches (N, C, H, W) of one shape, and comes in two forms that
can both be differentiated: `…_map` gives one value a pixel, (N, H, W), its channels
averaged; without `_map` it is one value an image, (N,). `mse` and `perceptual` are
distances, 0 for equal images. The others are similarities, at most 1 and 1 for equal
images: minimise one minus them.

Measures with a window compare whole windows only; nothing is padded before. Their means
are taken over these windows. Their maps get the border that is missing by repeating the
outermost values.

Args that return everywhere:
    x, y: float tensors or arrays (N, C, H, W).
    data_range: the largest possible difference of two pixels, as 1 for images in [0,
    1]; never guessed.

Raises, everywhere: TypeError for what is no float array; ValueError for shapes that
differ or are smaller than the window, and for options out of their range. NaN in, NaN
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from adlab._checks import as_tensor, check_number, check_odd

MS_SSIM_WEIGHTS = (
    0.0448,
    0.2856,
    0.3001,
    0.2363,
    0.1333,
)  # from fine to coarse, Wang et al. 2003
FLOOR = (
    1e-4  # MS-SSIM raises similarities to a fractional power: negative ones have none
)
GABOR_RADIUS, GABOR_WAVELENGTH, GABOR_WIDTH = (
    4,
    4.0,
    2.0,
)  # in pixels, of the coefficients of CW-SSIM
BLOCK = 64  # rows of an image that are weighed at once
EPSILON = 1e-24  # the slope of a root at zero is infinite


def mse_map(x: Tensor, y: Tensor) -> Tensor:
    """Squared error of every pixel, averaged over the channels: (N, H, W), 0 for equal
    images.
    """
    x, y = _check_pair(x, y)
    return (x - y).square().mean(1)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error, (N,), 0 for equal images."""
    return _mean(mse_map(x, y))


# -- structural similarity


def ssim_map(
    x: Tensor, y: Tensor, *, data_range: float, window: int = 11, sigma: float = 1.5
) -> Tensor:
    """Structural similarity of the windows around every pixel, (N, H, W) in [-1, 1].

    The product of three comparisons, of luminance, contrast and structure, from means,
    variances and the covariance under a Gaussian window (population covariance).

    Args:
        window: side of the window, odd.
        sigma: standard deviation of the Gaussian, in pixels.

    Source: Wang, Bovik, Sheikh & Simoncelli 2004, "Image quality assessment", eq. 13.
    """
    x, y = _check_scales(x, y, 1, window)
    luminance, structure = _ssim_parts(x, y, data_range, window, sigma)
    return _full_size(luminance * structure, x)


def ssim(
    x: Tensor, y: Tensor, *, data_range: float, window: int = 11, sigma: float = 1.5
) -> Tensor:
    """Mean of the structural similarity over all whole windows, (N,) in [-1, 1]. See
    `ssim_map`.
    """
    x, y = _check_scales(x, y, 1, window)
    luminance, structure = _ssim_parts(x, y, data_range, window, sigma)
    return _mean(luminance * structure)


def _ssim_parts(
    x: Tensor, y: Tensor, data_range: float, window: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """The comparison of luminance, and that of contrast and structure, (N, C, h, w) of
    all whole windows.

    In float64: a variance is a small difference of large numbers where an image is flat
    and bright.
    """
    _check_range(data_range)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    a, b = x.double(), y.double()
    moments = _blur(torch.stack([a, b, a * a, b * b, a * b]), window, sigma)
    mean_x, mean_y, square_x, square_y, product = moments
    var_x, var_y, cov = (
        square_x - mean_x**2,
        square_y - mean_y**2,
        product - mean_x * mean_y,
    )
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return luminance.to(x.dtype), structure.to(x.dtype)


def _blur(x: Tensor, window: int, sigma: float) -> Tensor:
    """Weighted means under a Gaussian, of all whole windows: (…, H, W) to (…, h, w)."""
    check_number("sigma", sigma, 0, open_low=True)
    steps = torch.arange(window, dtype=torch.float64) - window // 2
    return _weigh(x, torch.exp(-(steps**2) / (2 * sigma**2)))


def _weigh(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of all whole windows, by rows and by columns: (…, H, W) to (…, h,
    w).
    """
    weights = (weights.double() / weights.double().sum()).to(x)
    return _weigh_rows(_weigh_rows(x, weights).mT, weights).mT


def _weigh_rows(x: Tensor, weights: Tensor) -> Tensor:
    """The same by rows only, as products with a banded matrix, far faster on a CPU than
    a convolution of one channel; in blocks, as most of a large one would be zeros.
    """
    n, window = x.shape[-2], len(weights)
    size = min(n, BLOCK + window - 1)
    unit = torch.eye(size, dtype=x.dtype, device=x.device)
    band = (unit.unfold(1, window, 1) @ weights).T
    starts = range(0, n - window + 1, BLOCK)
    parts = [x[..., start : start + size, :] for start in starts]
    return torch.cat(
        [band[: p.shape[-2] - window + 1, : p.shape[-2]] @ p for p in parts], -2
    )


# -- several scales


def ms_ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    scales: int = 5,
    window: int = 11,
    sigma: float = 1.5,
) -> Tensor:
    """Multi-scale structural similarity around every pixel, (N, H, W) in (0, 1].

    The maps of all scales are enlarged to the size of the image and multiplied there,
    each to the power of its weight. Its mean is not `ms_ssim`, which multiplies means.
    """
    x, y = _check_scales(x, y, scales, window, len(MS_SSIM_WEIGHTS))
    parts = _ms_ssim_parts(x, y, data_range, scales, window, sigma)
    return math.prod(
        _full_size(part, x, level).clamp(FLOOR) ** weight
        for level, (part, weight) in enumerate(parts)
    )


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    scales: int = 5,
    window: int = 11,
    sigma: float = 1.5,
) -> Tensor:
    """Multi-scale structural similarity, (N,) in (0, 1].

    Contrast and structure are compared at every scale, each half as fine as the last;
    luminance only at the coarsest. A scale whose mean is below 1e-4, or negative,
    counts as 1e-4: there is no NaN.

    Args:
        scales: from 1, which is SSIM where that is positive, to 5. Of the published
            weights the first ones are used, made to sum to one.
        window: side of the window, odd; images of at least window · 2^(scales - 1)
            pixels.
        sigma: standard deviation of the Gaussian, in pixels.

    Source: Wang, Simoncelli & Bovik 2003, "Multiscale structural similarity for image
    quality assessment".
    """
    x, y = _check_scales(x, y, scales, window, len(MS_SSIM_WEIGHTS))
    parts = _ms_ssim_parts(x, y, data_range, scales, window, sigma)
    return math.prod(_mean(part).clamp(FLOOR) ** weight for part, weight in parts)


def _ms_ssim_parts(
    x: Tensor, y: Tensor, data_range: float, scales: int, window: int, sigma: float
) -> list[tuple[Tensor, float]]:
    """What each scale compares, (N, C, h, w), and its weight."""
    weights = [
        weight / sum(MS_SSIM_WEIGHTS[:scales]) for weight in MS_SSIM_WEIGHTS[:scales]
    ]
    both = [
        _ssim_parts(*pair, data_range, window, sigma) for pair in _pyramid(x, y, scales)
    ]
    parts = [structure for _, structure in both]
    parts[-1] = math.prod(both[-1])
    return list(zip(parts, weights, strict=True))


# -- complex wavelets


def cw_ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    scales: int = 2,
    orientations: int = 4,
    window: int = 7,
) -> Tensor:
    """Complex-wavelet structural similarity around every pixel, (N, H, W) in [0, 1].

    A small shift turns the phases of all coefficients of a window alike, and the
    modulus of the sum does not see it. Neither does it see brightness, or the sign of a
    contrast: the coefficients have no mean.

    Args:
        scales: number of scales, each half as fine as the last.
        orientations: number of directions of the Gabor filters (wavelength 4 pixels, σ
            = 2).
        window: side of the window, odd, in pixels of each scale.

    Source: Sampat, Wang, Gupta, Bovik & Markey 2009, "Complex wavelet structural
    similarity", eq. 10, with Gabor filters in place of a steerable pyramid, and K =
    (0.01 · data_range)².
    """
    x, y = _check_gabor(x, y, scales, orientations, window)
    parts = _cw_ssim_parts(x, y, data_range, scales, orientations, window)
    return _mean_of_maps(parts, x)


def cw_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    scales: int = 2,
    orientations: int = 4,
    window: int = 7,
) -> Tensor:
    """Mean of the complex-wavelet structural similarity, over windows, then scales:
    (N,) in [0, 1].
    """
    x, y = _check_gabor(x, y, scales, orientations, window)
    parts = _cw_ssim_parts(x, y, data_range, scales, orientations, window)
    return sum(_mean(part) for part in parts) / scales


def _cw_ssim_parts(
    x: Tensor, y: Tensor, data_range: float, scales: int, orientations: int, window: int
) -> list[Tensor]:
    """The similarity at each scale, (N, C · orientations, h, w)."""
    _check_range(data_range)
    filters, k = gabor_filters(orientations), (0.01 * data_range) ** 2
    return [
        coefficient_similarity(_gabor(a, filters), _gabor(b, filters), k, window)
        for a, b in _pyramid(x, y, scales)
    ]


def _gabor(x: Tensor, filters: Tensor) -> Tensor:
    """Complex coefficients (N, C · orientations, h, w)."""
    parts = conv2d(x.flatten(0, 1)[:, None], filters.to(x)).chunk(2, dim=1)
    return torch.complex(*parts).view(x.shape[0], -1, *parts[0].shape[2:])


def gabor_filters(orientations: int) -> Tensor:
    """Real, then imaginary parts of complex Gabor filters, float64 (2 · orientations,
    1, 9, 9).

    A plane wave of 4 pixels under a Gaussian of σ = 2 that sums to one, less as much of
    the Gaussian as makes the response to a flat image zero.
    """
    steps = torch.arange(-GABOR_RADIUS, GABOR_RADIUS + 1, dtype=torch.float64)
    envelope = torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * GABOR_WIDTH**2))
    envelope = envelope / envelope.sum()
    angles = torch.arange(orientations, dtype=torch.float64) * math.pi / orientations
    along = (
        angles.sin()[:, None, None] * steps[:, None]
        + angles.cos()[:, None, None] * steps
    )
    waves = torch.polar(torch.ones_like(along), 2 * math.pi / GABOR_WAVELENGTH * along)
    filters = envelope * (waves - (envelope * waves).sum((1, 2), keepdim=True))
    return torch.cat([filters.real, filters.imag])[:, None]


def coefficient_similarity(a: Tensor, b: Tensor, k: float, window: int) -> Tensor:
    """(2 |Σ a b*| + k) / (Σ |a|² + Σ |b|² + k), with means over windows for the sums.

    Complex coefficients (N, K, h, w) of two images, to real values (N, K, h - window +
    1, w - window + 1).
    """
    product = a * b.conj()
    parts = torch.stack([product.real, product.imag, _power(a) + _power(b)])
    real, imaginary, power = _weigh(parts, torch.ones(window))
    modulus = (real**2 + imaginary**2 + EPSILON).sqrt()
    return (2 * modulus + k) / (power + k)


def _power(a: Tensor) -> Tensor:
    return a.real**2 + a.imag**2


# -- gradients


def gms_map(x: Tensor, y: Tensor, *, data_range: float) -> Tensor:
    """Gradient magnitude similarity of every pixel, (N, H, W) in (0, 1].

    Args:
        data_range: sets the constant c = 0.0026 · data_range², which is 170 for 8-bit
            images.

    Source: Xue, Zhang, Mou & Bovik 2014, "Gradient magnitude similarity deviation", eq.
    4 (Prewitt filters).
    """
    x, y = _check_pair(x, y, 3)
    return _full_size(_gms(x, y, data_range), x)


def gms(x: Tensor, y: Tensor, *, data_range: float) -> Tensor:
    """Mean of the gradient magnitude similarity, (N,) in (0, 1]. See `gms_map`."""
    return _mean(_gms(*_check_pair(x, y, 3), data_range))


def ms_gms_map(x: Tensor, y: Tensor, *, data_range: float, scales: int = 4) -> Tensor:
    """Gradient magnitude similarity averaged over scales, (N, H, W) in (0, 1].

    Args:
        scales: number of scales, each half as fine as the last.

    Source: Zavrtanik, Kristan & Skočaj 2021, "Reconstruction by inpainting for visual
    anomaly detection".
    """
    x, y = _check_scales(x, y, scales, 3)
    parts = [_gms(*pair, data_range) for pair in _pyramid(x, y, scales)]
    return _mean_of_maps(parts, x)


def ms_gms(x: Tensor, y: Tensor, *, data_range: float, scales: int = 4) -> Tensor:
    """Mean of the gradient magnitude similarity over pixels, then scales, (N,). See
    `ms_gms_map`.
    """
    x, y = _check_scales(x, y, scales, 3)
    return (
        sum(_mean(_gms(*pair, data_range)) for pair in _pyramid(x, y, scales)) / scales
    )


def _gms(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    _check_range(data_range)
    c = 0.0026 * data_range**2
    a, b = _gradient(x), _gradient(y)
    return (2 * a * b + c) / (a**2 + b**2 + c)


def _gradient(x: Tensor) -> Tensor:
    """Gradient magnitude by Prewitt filters: (N, C, H, W) to (N, C, H - 2, W - 2)."""
    difference = torch.tensor([1.0, 0.0, -1.0], dtype=x.dtype, device=x.device) / 3
    across = difference.expand(3, 3)
    parts = conv2d(x.flatten(0, 1)[:, None], torch.stack([across, across.T])[:, None])
    return (parts.square().sum(1) + EPSILON).sqrt().view(*x.shape[:2], *parts.shape[2:])


# -- features

Extractor = Callable[[Tensor], Tensor | Sequence[Tensor]]


def perceptual_map(x: Tensor, y: Tensor, *, extractor: Extractor) -> Tensor:
    """Squared distance of features around every pixel, (N, H, W), 0 where the features
    are equal.

    Averaged over the channels of a layer, enlarged to the size of the image, and
    averaged over the layers.

    Args:
        extractor: maps (N, C, H, W) to the features (N, K, h, w) of one layer, or to a
            list of such. Its parameters get gradients too, unless they are frozen.

    Raises:
        TypeError: an extractor that cannot be called.
        ValueError: features of another shape.

    Source: Johnson, Alahi & Fei-Fei 2016, "Perceptual losses for real-time style
    transfer", eq. 2.
    """
    layers = _feature_errors(x, y, extractor)
    size = x.shape[2:]
    return sum(
        interpolate(e[:, None], size, mode="bilinear")[:, 0] for e in layers
    ) / len(layers)


def perceptual(x: Tensor, y: Tensor, *, extractor: Extractor) -> Tensor:
    """Mean squared distance of features over places, then layers, (N,). See
    `perceptual_map`.
    """
    layers = _feature_errors(x, y, extractor)
    return sum(_mean(error) for error in layers) / len(layers)


def _feature_errors(x: Tensor, y: Tensor, extractor: Extractor) -> list[Tensor]:
    """Mean squared error over the channels of each layer, (N, h, w) each."""
    x, y = _check_pair(x, y)
    if not callable(extractor):
        raise TypeError(
            f"extractor: expected a function or a network, got {type(extractor).__name__}"
        )
    features = extractor(torch.cat([x, y]))
    layers = [features] if isinstance(features, Tensor) else list(features)
    n = x.shape[0]
    for layer in layers:
        if layer.ndim != 4 or layer.shape[0] != 2 * n:
            expected = f"({2 * n}, K, h, w) from {2 * n} images"
            raise ValueError(
                f"extractor: expected features {expected}, got {tuple(layer.shape)}"
            )
    return [(layer[:n] - layer[n:]).square().mean(1) for layer in layers]


# -- shapes


def _mean(values: Tensor) -> Tensor:
    """(N, …) to (N,)."""
    return values.flatten(1).mean(1)


def _full_size(values: Tensor, x: Tensor, level: int = 0) -> Tensor:
    """Values of whole windows (N, K, h, w), at a level of the pyramid, to a map (N, H,
    W) like x.
    """
    rows, columns = (
        (n >> level) - m for n, m in zip(x.shape[2:], values.shape[2:], strict=True)
    )
    edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    whole = pad(values.mean(1, keepdim=True), edges, mode="replicate")
    return (
        interpolate(whole, x.shape[2:], mode="bilinear")[:, 0] if level else whole[:, 0]
    )


def _mean_of_maps(parts: Sequence[Tensor], x: Tensor) -> Tensor:
    """The average of all levels, each (N, K, h, w), as a map (N, H, W) like x."""
    return sum(_full_size(part, x, level) for level, part in enumerate(parts)) / len(
        parts
    )


def _pyramid(x: Tensor, y: Tensor, scales: int) -> list[tuple[Tensor, Tensor]]:
    """Both images at each scale, from fine to coarse."""
    pairs = [(x, y)]
    for _ in range(scales - 1):
        pairs.append(tuple(avg_pool2d(image, 2) for image in pairs[-1]))
    return pairs


# -- checks


def _check_pair(x: object, y: object, smallest: int = 1) -> tuple[Tensor, Tensor]:
    """Both batches as float tensors of one shape, at least `smallest` pixels high and
    wide.
    """
    pair = []
    for name, value in (("x", x), ("y", y)):
        tensor = value if isinstance(value, Tensor) else as_tensor(name, value)
        if not tensor.is_floating_point():
            raise TypeError(
                f"{name}: expected floating-point values, got {tensor.dtype}"
            )
        if tensor.ndim != 4 or tensor.numel() == 0:
            raise ValueError(
                f"{name}: expected a non-empty (N, C, H, W), got shape {tuple(tensor.shape)}"
            )
        pair.append(tensor)
    x, y = pair
    if x.shape != y.shape:
        raise ValueError(
            f"y: expected the shape of x, {tuple(x.shape)}, got {tuple(y.shape)}"
        )
    if min(x.shape[2:]) < smallest:
        raise ValueError(
            f"x: expected H and W of at least {smallest} pixels, got {tuple(x.shape[2:])}"
        )
    return x, y


def _check_scales(
    x: object, y: object, scales: int, window: int, most: float = math.inf
) -> tuple[Tensor, Tensor]:
    """Both batches, at least one window high and wide at the coarsest scale."""
    check_number("scales", scales, 1, most, whole=True)
    check_odd("window", window, " of pixels")
    return _check_pair(x, y, window * 2 ** (scales - 1))


def _check_gabor(
    x: object, y: object, scales: int, orientations: int, window: int
) -> tuple[Tensor, Tensor]:
    check_number("orientations", orientations, 1, whole=True)
    check_odd("window", window, " of pixels")
    return _check_scales(x, y, scales, window + 2 * GABOR_RADIUS)


def _check_range(data_range: float) -> None:
    check_number("data_range", data_range, 0, open_low=True)
