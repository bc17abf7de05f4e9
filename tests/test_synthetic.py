"""Synthetic anomalies: noise against a slow reference, masks and textures in their
ranges, and the mixture by its formula.
"""

import math

import numpy as np
import pytest
import torch
from bad_input import refuses

from adlab import synthetic
from adlab.training import seeded


def unit_vectors(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(rows + 1, columns + 1, generator=generator)
    return torch.stack([angles.sin(), angles.cos()], -1)


def slow_noise(gradients, height, width):
    """Pixel by pixel and corner by corner, in float64."""
    gradients = gradients.double().numpy()
    rows, columns = (n - 1 for n in gradients.shape[:2])

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    result = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y, x = i * rows / height, j * columns / width
        total = 0.0
        for a in (math.floor(y), math.floor(y) + 1):
            for b in (math.floor(x), math.floor(x) + 1):
                share = fade(1 - abs(y - a)) * fade(1 - abs(x - b))
                total += share * np.dot(gradients[a, b], [y - a, x - b])
        result[i, j] = math.sqrt(2) * total
    return result


@pytest.mark.parametrize(
    "rows, columns, height, width", [(1, 1, 5, 7), (2, 3, 16, 9), (4, 4, 16, 16)]
)
def test_noise_is_that_of_a_slow_reference(rows, columns, height, width):
    gradients = unit_vectors(rows, columns)
    fast = synthetic.gradient_noise(gradients, height, width)
    np.testing.assert_allclose(fast, slow_noise(gradients, height, width), atol=2e-6)


def test_noise_is_zero_at_the_nodes_and_in_range():
    noise = synthetic.gradient_noise(unit_vectors(4, 8), 32, 64)
    assert noise[::8, ::8].abs().max() == 0
    assert 0.3 < noise.abs().max() <= 1


def test_the_largest_noise_is_one():
    """All gradients of a cell towards its middle, and the pixel there."""
    towards = torch.tensor([[[1.0, 1], [1, -1]], [[-1, 1], [-1, -1]]]) / math.sqrt(2)
    noise = synthetic.gradient_noise(towards, 2, 2)
    assert float(noise[1, 1]) == pytest.approx(1, abs=1e-6)


def test_noise_is_smooth_where_cells_meet():
    """Value and slope go on across the border of two cells."""
    gradients = unit_vectors(1, 2)
    noise = synthetic.gradient_noise(gradients, 1000, 2000)[333].double()
    slopes = noise.diff()
    assert (
        slopes[995:1005].diff().abs().max() < 10 * slopes.diff().abs().median() + 1e-5
    )


@pytest.mark.parametrize("size", [(64, 64), (50, 37), (8, 100)])
def test_noise_masks_are_neither_rare_nor_everywhere(size):
    with seeded(0):
        shares = torch.stack([synthetic.noise_mask(*size).float() for _ in range(200)])
    per_mask = shares.mean((1, 2))
    assert shares.shape[1:] == size
    assert 0.02 < shares.mean() < 0.3
    assert per_mask.min() > 0 and per_mask.max() < 0.7


def test_rectangles_have_the_promised_sides():
    with seeded(0):
        masks = [synthetic.rectangle_mask(64, 40) for _ in range(800)]
    rows = np.array([int(mask.any(1).sum()) for mask in masks])
    columns = np.array([int(mask.any(0).sum()) for mask in masks])
    assert all(
        int(mask.sum()) == r * c
        for mask, r, c in zip(masks, rows, columns, strict=True)
    )
    assert (rows.min(), rows.max()) == (8, 32)
    assert (columns.min(), columns.max()) == (5, 20)
    covered = torch.stack(masks).any(0)
    assert covered.any(0).all() and covered.any(1).all()


def test_textures_differ_and_are_in_range():
    with seeded(0):
        textures = torch.stack(
            [synthetic.procedural_texture(3, 32, 48) for _ in range(50)]
        )
    assert textures.shape == (50, 3, 32, 48)
    assert textures.min() >= 0 and textures.max() <= 1
    deviations = textures.std((2, 3)).mean(1)
    assert deviations.min() < 0.05 < 0.15 < deviations.max()


def test_paste_is_a_convex_combination_inside_and_nothing_outside():
    images, foreign = torch.rand(2, 4, 3, 8, 8)
    masks = torch.rand(4, 8, 8) > 0.5
    opacity = torch.tensor([0.0, 0.25, 0.7, 1.0])
    result = synthetic.paste(images, foreign, masks, opacity)
    for i, share in enumerate(opacity.tolist()):
        inside = (1 - share) * images[i] + share * foreign[i]
        expected = torch.where(masks[i], inside, images[i])
        torch.testing.assert_close(result[i], expected)
    assert torch.equal(result[3][:, masks[3]], foreign[3][:, masks[3]])


test_bad_input = refuses(
    (
        lambda: synthetic.gradient_noise(torch.zeros(3, 2), 4, 4),
        ValueError,
        "gradients…(3, 2)",
    ),
    (
        lambda: synthetic.gradient_noise(unit_vectors(2, 2), 0, 4),
        ValueError,
        "height…[1",
    ),
    (lambda: synthetic.perlin_noise(4, 4, 0, 1), ValueError, "rows…[1"),
    (lambda: synthetic.perlin_noise(4, 4, 1, 1.5), TypeError, "columns…1.5"),
)
