"""A random field whose two distributions are known: the best possible detector can be
written down.

A normal image is a stationary Gaussian texture on the torus, of known covariance; an
anomalous one has a known smooth bump added. By the lemma of Neyman and Pearson (1933)
no detector has a higher true positive rate, at any false positive rate, than the
likelihood ratio of the two, which is `Splits.optimal_score`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.fft import fft2, fftfreq, ifft2
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from adlab._checks import check_choice, check_images, check_number
from adlab.data.imageset import ImageSet, Splits, check_split_counts

MEAN = 0.5
AMPLITUDE = 0.04  # standard deviation of a pixel
NUGGET = 0.01  # share of white noise in the variance: it keeps the covariance well conditioned
RADIUS = 4.0  # of the bump, in pixels
HEADROOM = 7.0  # standard deviations between the mean of any pixel and the ends of [0, 1]: nothing is clipped


def gaussian_field(
    size: int = 32,
    n_train: int = 2000,
    n_val: int = 1000,
    n_test: int = 4000,
    strength: float = 2.0,
    correlation_length: float = 2.0,
    random_position: bool = False,
    seed: int = 0,
) -> Splits:
    """Images of a Gaussian texture; half of the test images (rounded down) have a faint
    bump.

    Args:
        size: H = W, 16 to 64 pixels.
        n_train, n_val, n_test: numbers of images, at least 1, 1 and 2.
        strength: d, the distance between the two means in the metric of Mahalanobis,
            d^2 = delta' Sigma^-1 delta. At a fixed position the best possible AUROC is
            `optimal_auroc(d)`.
        correlation_length: of the texture, 0.5 to 4 pixels.
        random_position: whether the bump is anywhere, uniformly on the torus, rather
            than in the middle.
        seed: of all that is random. The three splits do not depend on the sizes of one
            another.

    Returns:
        Splits with images (N, 1, size, size), test masks true on the support of the
        bump, kinds "good" and "bump", and `optimal_score`: the logarithm of the
        likelihood ratio, float64 (N,), of images (N, 1, size, size).

    Raises:
        ValueError, TypeError: an option out of its range, or a bump so strong that
            pixels could leave [0, 1].
    """
    check_split_counts(n_train, n_val, n_test)
    check_choice("random_position", random_position, (False, True))
    check_number("seed", seed, 0, whole=True)
    bump, spectrum = (
        defect(size, correlation_length, strength),
        _spectrum(size, correlation_length),
    )
    rngs = [
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
    ]
    train, val, test = (
        _sample(n, spectrum, rng)
        for n, rng in zip((n_train, n_val, n_test), rngs, strict=True)
    )
    score = partial(
        _log_likelihood_ratio,
        bump=bump,
        spectrum=spectrum,
        random_position=random_position,
    )
    return Splits(
        _image_set(train),
        _image_set(val),
        _with_bumps(test, bump, random_position, rngs[2]),
        optimal_score=score,
    )


def optimal_auroc(strength: float) -> float:
    """The AUROC of the likelihood ratio at a fixed position: Phi(d / sqrt(2)) for d =
    `strength` >= 0.

    Its logarithm is Gaussian in both classes, of standard deviation d, and the two
    means are d^2 apart.
    """
    check_number("strength", strength, 0)
    return float(norm.cdf(strength / np.sqrt(2)))


def covariance(size: int, correlation_length: float) -> np.ndarray:
    """The covariance of the pixels of an image in row-major order, float64 (size^2,
    size^2).

    It is a squared exponential of the distance, exp(-r^2 / (2 correlation_length^2)),
    periodic on the torus, plus white noise. Options out of their range raise ValueError
    or TypeError, as in `gaussian_field`.
    """
    of_step = ifft2(_spectrum(size, correlation_length)).real
    step = (np.arange(size)[:, None] - np.arange(size)) % size
    return of_step[step[:, None, :, None], step[None, :, None, :]].reshape(
        size**2, size**2
    )


def defect(size: int, correlation_length: float, strength: float) -> np.ndarray:
    """What is added to an anomalous image, float64 (size, size), with the bump in the
    middle.

    The bump is a raised cosine, positive within `RADIUS` of the middle and zero
    elsewhere, scaled so that delta' Sigma^-1 delta = strength^2. Options out of their
    range raise ValueError or TypeError.
    """
    check_number("strength", strength, 0, open_low=True)
    spectrum = _spectrum(size, correlation_length)
    y, x = np.mgrid[:size, :size] - size // 2
    shape = 1 + np.cos(np.pi * np.minimum(np.hypot(x, y) / RADIUS, 1))
    bump = shape * strength / np.sqrt(np.vdot(shape, _filter(shape, 1 / spectrum)))
    room = 1 - MEAN - HEADROOM * AMPLITUDE
    if bump.max() > room:
        most = strength * room / bump.max()
        raise ValueError(
            f"strength: expected at most {most:.3g}, where no pixel leaves [0, 1]; got {strength}"
        )
    return bump


def _spectrum(size: int, correlation_length: float) -> np.ndarray:
    """The power spectrum (size, size), which holds the eigenvalues of the (circulant)
    covariance.
    """
    check_number("size", size, 16, 64, whole=True)
    check_number("correlation_length", correlation_length, 0.5, 4)
    frequency = fftfreq(size)
    squared = frequency[:, None] ** 2 + frequency**2
    smooth = np.exp(-2 * np.pi**2 * correlation_length**2 * squared)
    return AMPLITUDE**2 * ((1 - NUGGET) * smooth / smooth.mean() + NUGGET)


def _filter(images: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Periodic filtering of images (..., H, W) by a frequency response (H, W)."""
    return ifft2(fft2(images) * response).real


def _sample(n: int, spectrum: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`n` normal images (n, H, W): white noise, coloured by the square root of the
    covariance.
    """
    return MEAN + _filter(rng.standard_normal((n, *spectrum.shape)), np.sqrt(spectrum))


def _image_set(images: np.ndarray, **known: object) -> ImageSet:
    return ImageSet(torch.from_numpy(images[:, None].astype(np.float32)), **known)


def _with_bumps(
    images: np.ndarray, bump: np.ndarray, anywhere: bool, rng: np.random.Generator
) -> ImageSet:
    """The test set: images (N, H, W), the second half of them with a bump each."""
    added = np.zeros_like(images)
    first = len(images) - len(images) // 2
    for i in range(first, len(images)):
        shift = rng.integers(0, len(bump), size=2) if anywhere else (0, 0)
        added[i] = np.roll(bump, shift, axis=(0, 1))
    labels = np.arange(len(images)) >= first
    kinds = ["bump" if label else "good" for label in labels]
    return _image_set(images + added, labels=labels, masks=added > 0, kinds=kinds)


def _log_likelihood_ratio(
    images: Tensor, *, bump: np.ndarray, spectrum: np.ndarray, random_position: bool
) -> Tensor:
    """The log-likelihood ratio, float64 (N,), of images (N, 1, H, W).

    With the bump at p, the ratio is exp(delta_p' Sigma^-1 (x - mu) - d^2 / 2): a
    matched filter. If p is unknown and uniform, it is the mean of these over all p,
    which one periodic correlation gives at once.
    """
    images = check_images(images)
    if images.shape[1:] != (1, *bump.shape):
        raise ValueError(
            f"images: expected shape (N, 1, {len(bump)}, {len(bump)}), got {tuple(images.shape)}"
        )
    centred = images[:, 0].cpu().numpy().astype(np.float64) - MEAN
    whitened = _filter(bump, 1 / spectrum)  # Sigma^-1 delta
    half_squared = np.vdot(bump, whitened) / 2  # d^2 / 2
    if random_position:
        matched = _filter(centred, fft2(whitened).conj()).reshape(len(centred), -1)
        ratio = logsumexp(matched, axis=1) - np.log(bump.size) - half_squared
    else:
        ratio = centred.reshape(len(centred), -1) @ whitened.ravel() - half_squared
    return torch.from_numpy(ratio)
