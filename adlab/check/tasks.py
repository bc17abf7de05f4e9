"""Checks of chapters 9 to 12: tasks that a network learns on normal images, and what it
does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adlab.check.engine import compared, judged

# -- chapter 9

STEPS = ("identity", "flip", "left", "right", "up", "down", "rot90", "rot180", "rot270")


def _images_and_steps(rng: np.random.Generator, size: int) -> tuple[Tensor, str]:
    side = 4 + size // 2
    images = torch.tensor(rng.random((1 + size // 4, 1, side, side)).round(1))
    return images, " ".join(rng.choice(STEPS, 1 + size // 3))


def _transformed(
    images: Tensor, name: str, clockwise: bool = False, border: str = "symmetric"
) -> Tensor:
    for step in name.split():
        images = _step(images, step, -1 if clockwise else 1, border)
    return images


def _step(images: Tensor, step: str, turn: int, border: str) -> Tensor:
    """One step, by the rules of NumPy for turns and for borders."""
    if step.startswith("rot"):
        return torch.rot90(images, turn * int(step[3:]) // 90, (2, 3))
    if step == "flip":
        return images.flip(3)
    down, right = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}.get(
        step, (0, 0)
    )
    q = images.shape[2] // 4
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (q, q), (q, q)), border)
    rows, columns = q - down * q, q - right * q
    h, w = images.shape[2:]
    return torch.tensor(padded[:, :, rows : rows + h, columns : columns + w])


def _with_other_names(name_of: dict[str, str]) -> Callable[[Tensor, str], Tensor]:
    """Some steps done as others."""
    return lambda images, name: _transformed(
        images, " ".join(name_of.get(step, step) for step in name.split())
    )


@compared(
    _images_and_steps,
    {
        "turns clockwise": partial(_transformed, clockwise=True),
        "does the steps from right to left": lambda images, name: _transformed(
            images, " ".join(name.split()[::-1])
        ),
        "flips upside down": _with_other_names({"flip": "flip rot180"}),
        "mistakes left for right, and up for down": _with_other_names(
            {"left": "right", "right": "left", "up": "down", "down": "up"}
        ),
        "brings in the other side, not the mirror image of the border": partial(
            _transformed, border="wrap"
        ),
        "brings in zeros, not the mirror image of the border": partial(
            _transformed, border="constant"
        ),
        "mirrors without the outermost pixels: they come twice": partial(
            _transformed, border="reflect"
        ),
    },
    samples=["images"],
)
def transform(images: Tensor, name: str) -> Tensor:
    """Check geometric transformations: of images (N, 1, H, H) and steps as "flip rot90",
    done from left to right, the transformed images. The steps are identity; flip (left
    for right); left, right, up, down (by a quarter of the side, the mirror image of the
    border comes in); rot90, rot180, rot270 (counter-clockwise).
    """
    return _transformed(images, name)


def _posteriors(rng: np.random.Generator, size: int) -> tuple[Tensor]:
    t = 2 + size // 3
    p = rng.dirichlet(np.ones(t), size=(1 + size // 2, t))
    return (torch.tensor(np.log(p.clip(1e-9)).round(2)),)


@compared(
    _posteriors,
    {
        "takes the largest probability, not that of the right answer": lambda log_p: (
            1 - log_p.exp().amax(2).mean(1)
        ),
        "is the mean probability of the right answer: one minus is missing": (
            lambda log_p: log_p.exp().diagonal(dim1=1, dim2=2).mean(1)
        ),
        "takes the logarithms for probabilities": lambda log_p: (
            1 - log_p.diagonal(dim1=1, dim2=2).mean(1)
        ),
        "is minus the mean logarithm": lambda log_p: (
            -log_p.diagonal(dim1=1, dim2=2).mean(1)
        ),
        "forgets to divide by T": lambda log_p: (
            1 - log_p.exp().diagonal(dim1=1, dim2=2).sum(1)
        ),
    },
)
def softmax_score(log_p: Tensor) -> Tensor:
    """Check the simple score of transformations: of the log-posteriors (N, T, T) of the T
    copies of an image, one minus the mean probability of the right answer, (N,).
    """
    right = [[float(image[i, i].exp()) for i in range(len(image))] for image in log_p]
    return torch.tensor([1 - sum(row) / len(row) for row in right], dtype=torch.float64)


def _posteriors_and_alpha(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    (log_p,) = _posteriors(rng, size)
    t = log_p.shape[1]
    return log_p, torch.tensor((0.2 + rng.gamma(2, size=(t, t))).round(1))


def _log_kernel(log_p: Tensor, alpha: Tensor, less: float = 1) -> Tensor:
    return ((alpha - less) * log_p).sum((1, 2))


def _log_constant(alpha: Tensor) -> Tensor:
    return (alpha.sum(1).lgamma() - alpha.lgamma().sum(1)).sum()


@compared(
    _posteriors_and_alpha,
    {
        "forgets the constant of the Dirichlet densities": lambda log_p, alpha: (
            -_log_kernel(log_p, alpha)
        ),
        "is the log-likelihood: minus is missing": lambda log_p, alpha: (
            _log_kernel(log_p, alpha) + _log_constant(alpha)
        ),
        "multiplies by alpha, not by alpha - 1": lambda log_p, alpha: (
            -_log_kernel(log_p, alpha, 0) - _log_constant(alpha)
        ),
        "has the wrong sign of the constant": lambda log_p, alpha: (
            -_log_kernel(log_p, alpha) + _log_constant(alpha)
        ),
        "takes the mean over the copies, not the sum": lambda log_p, alpha: (
            -(_log_kernel(log_p, alpha) + _log_constant(alpha)) / len(alpha)
        ),
    },
)
def dirichlet_score(log_p: Tensor, alpha: Tensor) -> Tensor:
    """Check the Dirichlet score: of the log-posteriors (N, T, T) of the T copies of an
    image, and the parameters (T, T) of T Dirichlet distributions, minus the sum of the
    log-densities, (N,).
    """
    return -_log_kernel(log_p, alpha) - _log_constant(alpha)


# -- chapter 10


def _cells(rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
    """Sides that the cells do not always divide."""
    n_sets, cell_size = int(rng.integers(2, 5)), int(rng.integers(1, 2 + size // 2))
    height, width = (cell_size * n_sets + rng.integers(0, size, 2)).tolist()
    return height, width, cell_size, n_sets


@judged(_cells)
def cell_masks(
    masks: np.ndarray, height: int, width: int, cell_size: int, n_sets: int
) -> str | None:
    """Check masks that hide an image in parts: of height, width, the side of a cell and the
    number of masks, masks (n_sets, H, W), true where visible. The image is tiled from its
    upper left corner by square cells, each hidden by exactly one mask, drawn at random;
    two masks hide numbers of cells that differ by one at most.
    """
    if masks.shape != (n_sets, height, width):
        return f"has shape {masks.shape}, not (n_sets, height, width)"
    if not np.isin(masks, (0, 1)).all():
        return "has values other than 0 and 1, or true and false"
    hidden = masks == 0
    if n_sets > 2 and ((~hidden).sum(0) == 1).all():
        return "is true where hidden: it should be true where visible"
    return _partition_fault(hidden) or _cells_fault(hidden, cell_size)


def _partition_fault(hidden: np.ndarray) -> str | None:
    if (hidden.sum(0) > 1).any():
        return "hides a pixel more than once"
    return "never hides a pixel" if (hidden.sum(0) < 1).any() else None


def _cells_fault(hidden: np.ndarray, cell_size: int) -> str | None:
    corners = hidden[:, ::cell_size, ::cell_size]
    spread = corners.repeat(cell_size, 1).repeat(cell_size, 2)
    if (spread[:, : hidden.shape[1], : hidden.shape[2]] != hidden).any():
        return "cuts a cell, or has cells of another size"
    counts = corners.sum((1, 2))
    return "deals unequal numbers of cells" if np.ptp(counts) > 1 else None


def _sum_of_neighbours(images: Tensor) -> Tensor:
    """It mixes each pixel with what is right of it and below."""
    return 0.1 + images + 2 * images.roll(1, 3) - images.roll(1, 2)


def _hidden_parts(
    rng: np.random.Generator, size: int
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    shape, n = (1 + size // 3, 2 + size // 4), 2 + size // 4
    images = torch.tensor(rng.random((1 + size // 4, 1, *shape)).round(1))
    deal = rng.permutation(np.arange(shape[0] * shape[1]) % n).reshape(shape)
    return _sum_of_neighbours, images, torch.tensor(deal != np.arange(n)[:, None, None])


def _inpainted(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    masks: Tensor,
    leak: bool = False,
    keep_visible: bool = False,
) -> Tensor:
    """Mask by mask; what is taken of each guess is what was hidden, or all else."""
    result = torch.zeros_like(images)
    for visible in masks:
        guess = network(images if leak else images * visible)
        result = torch.where(visible == keep_visible, guess, result)
    return result


@compared(
    _hidden_parts,
    {
        "lets the network see what it is to guess": partial(_inpainted, leak=True),
        "takes what was visible of the guesses": partial(_inpainted, keep_visible=True),
        "hides what should be visible": lambda network, images, masks: _inpainted(
            network, images, ~masks
        ),
        "averages whole guesses, what was visible too": lambda network, images, masks: (
            torch.stack([network(images * visible) for visible in masks]).mean(0)
        ),
        "sums the guesses of the visible parts": lambda network, images, masks: (
            torch.stack([network(images * each) * each for each in masks]).sum(0)
        ),
    },
    samples=["images"],
)
def inpaint(
    network: Callable[[Tensor], Tensor], images: Tensor, masks: Tensor
) -> Tensor:
    """Check inpainting: of a network from images (B, 1, H, W) to images, images
    (N, 1, H, W), and masks bool (n, H, W), true where visible, every pixel as the network
    guesses it where it is hidden, and zero in what it is given, (N, 1, H, W).
    """
    return _inpainted(network, images, masks)


# -- chapter 11


def _distances(rng: np.random.Generator, size: int) -> tuple[Tensor, float]:
    distance = rng.gamma(2, size=1 + size).round(int(rng.integers(0, 3))) + 0.25
    return torch.tensor(distance), float(rng.choice([0.1, 0.25, 0.5]))


def _distances_and_radius(
    rng: np.random.Generator, size: int
) -> tuple[Tensor, float, float]:
    distance, nu = _distances(rng, size)
    return distance, float(rng.choice([0.5, 1.5, 2])), nu


@compared(
    _distances_and_radius,
    {
        "forgets the squared radius before the sum": lambda distance, radius, nu: (
            (distance - radius**2).relu().mean() / nu
        ),
        "multiplies by nu, not divides": lambda distance, radius, nu: (
            radius**2 + nu * (distance - radius**2).relu().mean()
        ),
        "forgets that distances below the radius cost nothing": (
            lambda distance, radius, nu: radius**2 + (distance - radius**2).mean() / nu
        ),
        "takes the sum over the samples, not the mean": lambda distance, radius, nu: (
            radius**2 + (distance - radius**2).relu().sum() / nu
        ),
        "compares squared distances with the radius, not with its square": (
            lambda distance, radius, nu: (
                radius**2 + (distance - radius).relu().mean() / nu
            )
        ),
        "squares the distances once more": lambda distance, radius, nu: (
            radius**2 + (distance**2 - radius**2).relu().mean() / nu
        ),
        "forgets nu": lambda distance, radius, nu: (
            radius**2 + (distance - radius**2).relu().mean()
        ),
    },
    samples=["distance"],
)
def soft_boundary_loss(distance: Tensor, radius: float, nu: float) -> float:
    """Check the loss of the soft boundary: of squared distances (N,), the radius R and nu,
    R squared plus the mean of what the distances exceed it by, divided by nu; a number.
    """
    excess = [max(0, float(d) - radius**2) for d in distance]
    return radius**2 + sum(excess) / (nu * len(excess))


def _radius_of_share(distance: Tensor, share: float) -> float:
    """The smallest R with at most that share of the squared distances above R²."""
    inside = [
        float(d) for d in distance if (distance > d).double().mean() <= share + 1e-9
    ]
    return math.sqrt(min(inside))


@compared(
    _distances,
    {
        "is the squared radius: take the root": lambda distance, nu: (
            _radius_of_share(distance, nu) ** 2
        ),
        "leaves a share 1 - nu outside: it is the other quantile": lambda distance, nu: (
            _radius_of_share(distance, 1 - nu)
        ),
        "is the largest distance, whatever nu is": lambda distance, nu: (
            distance.max().sqrt()
        ),
        "interpolates between distances": lambda distance, nu: distance.quantile(
            1 - nu
        ).sqrt(),
        "interpolates between distances, after the root": lambda distance, nu: (
            distance.sqrt().quantile(1 - nu)
        ),
        "is the mean distance": lambda distance, nu: distance.mean().sqrt(),
    },
    samples=["distance"],
)
def best_radius(distance: Tensor, nu: float) -> float:
    """Check the radius of the soft boundary: of squared distances (N,) and nu, the smallest
    R such that at most a share nu of the squared distances is above its square; a number.
    """
    return _radius_of_share(distance, nu)


def _support(
    rng: np.random.Generator, size: int
) -> tuple[Tensor, Tensor, Tensor, float]:
    d, n = 1 + size // 3, 1 + size // 2
    x, support = rng.normal(size=(size, d)), rng.normal(size=(n, d))
    parts = x.round(1), support.round(1), rng.dirichlet(np.full(n, 3))
    return *map(torch.tensor, parts), float(rng.choice([0.1, 0.5, 2]))


def _kernel(x: Tensor, y: Tensor, gamma: float) -> Tensor:
    return torch.exp(-gamma * (x[:, None] - y).square().sum(2))


def _to_centre(
    x: Tensor,
    support: Tensor,
    weights: Tensor,
    gamma: float,
    norm: float = 1,
    cross: float = 2,
) -> Tensor:
    """The squared distance to the centre, from the kernel alone."""
    length = weights @ _kernel(support, support, gamma) @ weights
    return 1 - cross * _kernel(x, support, gamma) @ weights + norm * length


@compared(
    _support,
    {
        "forgets the squared length of the centre": partial(_to_centre, norm=0),
        "forgets the 2 before the product with the centre": partial(
            _to_centre, cross=1
        ),
        "takes all weights for equal": lambda x, support, weights, gamma: _to_centre(
            x, support, torch.full_like(weights, 1 / len(weights)), gamma
        ),
        "measures in the space of the data, not of the kernel": (
            lambda x, support, weights, gamma: (x - weights @ support).square().sum(1)
        ),
        "divides by 2 gamma squared: gamma is no deviation": (
            lambda x, support, weights, gamma: _to_centre(
                x, support, weights, 1 / (2 * gamma**2)
            )
        ),
        "takes the root: the squared distance is asked for": lambda *given: (
            _to_centre(*given).clamp_min(0).sqrt()
        ),
    },
    samples=["x"],
)
def kernel_distance(
    x: Tensor, support: Tensor, weights: Tensor, gamma: float
) -> Tensor:
    """Check the distance of kernel SVDD: of x (N, D), support vectors (S, D), their weights
    (S,), which sum to 1, and gamma, the squared distance to the centre in the feature
    space of the kernel exp(-gamma * squared distance), (N,).
    """
    return _to_centre(x, support, weights, gamma)


# -- chapter 12


def _logits(rng: np.random.Generator, size: int) -> tuple[Tensor]:
    """Some so large that their exponentials are infinite."""
    values = rng.normal(0, 2, (1 + size // 2, 2 + size // 2)).round(1)
    return (torch.tensor(values + rng.choice([0, 0, 1000, -1000])),)


def _overflown(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(1, keepdim=True)


@compared(
    _logits,
    {
        "is the probability itself: one minus is missing": lambda logits: (
            logits.softmax(1).amax(1)
        ),
        "takes logits for probabilities": lambda logits: 1 - logits.amax(1),
        "is minus the largest logit": lambda logits: -logits.amax(1),
        "is minus the largest probability": lambda logits: -logits.softmax(1).amax(1),
        "is the entropy": lambda logits: torch.special.entr(logits.softmax(1)).sum(1),
        "takes the softmax over the samples, not over the classes": lambda logits: (
            1 - logits.softmax(0).amax(1)
        ),
        "raises e to large logits: subtract the largest first": lambda logits: (
            1 - _overflown(logits).amax(1)
        ),
    },
    samples=["logits"],
)
def msp_score(logits: Tensor) -> Tensor:
    """Check the score of the maximum softmax probability: of logits (N, L), one minus the
    largest probability, (N,).
    """
    gaps = logits - logits.amax(1, keepdim=True)
    return 1 - 1 / gaps.exp().sum(1)


def _logits_and_temperature(
    rng: np.random.Generator, size: int
) -> tuple[Tensor, float]:
    return *_logits(rng, size), float(rng.choice([1, 0.5, 2, 10]))


@compared(
    _logits_and_temperature,
    {
        "has the wrong sign: higher should be unknown": lambda logits, temperature: (
            temperature * (logits / temperature).logsumexp(1)
        ),
        "forgets the temperature": lambda logits, temperature: -logits.logsumexp(1),
        "forgets the temperature before the logarithm": lambda logits, temperature: (
            -(logits / temperature).logsumexp(1)
        ),
        "forgets the temperature under the exponential": lambda logits, temperature: (
            -temperature * logits.logsumexp(1)
        ),
        "multiplies the logits by the temperature, not divides": (
            lambda logits, temperature: (
                -temperature * (logits * temperature).logsumexp(1)
            )
        ),
        "takes the mean of the exponentials, not the sum": lambda logits, temperature: (
            -temperature * ((logits / temperature).exp().mean(1)).log()
        ),
        "is minus the largest logit": lambda logits, temperature: -logits.amax(1),
        "raises e to large logits: subtract the largest first": (
            lambda logits, temperature: (
                -temperature * (logits / temperature).exp().sum(1).log()
            )
        ),
    },
    samples=["logits"],
)
def energy_score(logits: Tensor, temperature: float) -> Tensor:
    """Check the energy score: of logits (N, L) and the temperature T, minus T times the
    logarithm of the sum of exp(logit / T), (N,); higher = unknown.
    """
    largest = logits.amax(1)
    total = ((logits - largest[:, None]) / temperature).exp().sum(1)
    return -(largest + temperature * total.log())


def _known_and_unknown(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    decimals = int(rng.integers(0, 3))
    known, unknown = rng.normal(size=size), rng.normal(0.5, size=1 + size // 2)
    correct = rng.random(size) < 0.7
    return known.round(decimals), correct, unknown.round(decimals)


def _pairs(
    known_scores: np.ndarray,
    known_correct: np.ndarray,
    unknown_scores: np.ndarray,
    tie: float = 0.5,
) -> np.ndarray:
    """What each pair of a known and an unknown sample counts, (N, M)."""
    gaps = unknown_scores - known_scores[:, None]
    return known_correct[:, None] * ((gaps > 0) + tie * (gaps == 0))


@compared(
    _known_and_unknown,
    {
        "is the AUROC: it forgets who was named rightly": lambda known, correct, unknown: (
            _pairs(known, np.ones_like(correct), unknown).mean()
        ),
        "counts ties as accepted": lambda *given: _pairs(*given, tie=1).mean(),
        "counts ties as rejected": lambda *given: _pairs(*given, tie=0).mean(),
        "leaves out known samples that were named wrongly": (
            lambda known, correct, unknown: (
                _pairs(known, correct, unknown).mean() / max(correct.mean(), 1e-9)
            )
        ),
        "is the AUROC times the accuracy": lambda known, correct, unknown: (
            _pairs(known, np.ones_like(correct), unknown).mean() * correct.mean()
        ),
        "takes high scores for known": lambda known, correct, unknown: _pairs(
            -known, correct, -unknown
        ).mean(),
    },
    samples=["known_scores", "known_correct"],
)
def oscr(
    known_scores: np.ndarray, known_correct: np.ndarray, unknown_scores: np.ndarray
) -> float:
    """Check an OSCR: of known_scores (N,), known_correct bool (N,) and unknown_scores (M,),
    higher = unknown, the share of pairs in which the known sample was named rightly and
    scores below the unknown one, a tie counting one half.
    """
    return float(_pairs(known_scores, known_correct, unknown_scores).mean())


def _tails(rng: np.random.Generator, size: int) -> tuple[np.ndarray]:
    """Positive distances, some of large scale; no two alike."""
    distances = 0.1 + rng.weibull(rng.choice([1, 2, 5]), 3 + size)
    steps = 0.01 * np.arange(len(distances))
    return ((distances.round(1) + steps) * rng.choice([1, 50]),)


def _weibull(distances: np.ndarray) -> tuple[float, float]:
    """The root of the derivative of the likelihood, which falls all the way."""
    from scipy.optimize import brentq  # slow to import

    logs = np.log(distances / distances.max())

    def slope(shape: float) -> float:
        powers = np.exp(shape * logs)
        return 1 / shape + logs.mean() - (powers * logs).sum() / powers.sum()

    shape = brentq(slope, 1e-3, 1e4)
    scale = distances.max() * np.exp(shape * logs).mean() ** (1 / shape)
    return float(shape), float(scale)


def _by_moments_of_logarithms(distances: np.ndarray) -> tuple[float, float]:
    shape = math.pi / (math.sqrt(6) * np.log(distances).std())
    return shape, math.exp(np.log(distances).mean() + np.euler_gamma / shape)


@compared(
    _tails,
    {
        "returns the location, which is 0, for the scale": lambda distances: (
            _weibull(distances)[0],
            0.0,
        ),
        "returns the scale before the shape": lambda distances: _weibull(distances)[
            ::-1
        ],
        "fits an exponential distribution: the shape is free": lambda distances: (
            1.0,
            distances.mean(),
        ),
        "fits the moments of the logarithms, not the likelihood": (
            _by_moments_of_logarithms
        ),
        "fits a Gaussian: mean and deviation": lambda distances: (
            distances.mean(),
            distances.std(),
        ),
    },
    samples=["distances"],
)
def fit_weibull(distances: np.ndarray) -> tuple[float, float]:
    """Check the fit of a tail: of positive distances (N,), shape and scale of the Weibull
    distribution that starts at zero and makes them most likely, two numbers.
    """
    return _weibull(distances)
