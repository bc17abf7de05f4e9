"""VT-ADL: patches against unfold, attention and the mixture against torch's own, what the
encoder knows of places, and the collapse of a density of a token given itself.
"""

import math

import pytest
import torch
from bad_input import IMAGES, refuses
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)
from torch.nn.functional import scaled_dot_product_attention, unfold

from adlab import metrics, similarity
from adlab.training import seeded
from adlab.vt_adl import (
    VTADL,
    Decoder,
    Encoder,
    SelfAttention,
    SelfConditioned,
    attention,
    from_patches,
    mixture_log_density,
    to_patches,
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def made(module, *arguments, seed=0, **options):
    with seeded(seed):
        return module(*arguments, **options).double()


def pictures(n=24, seed=0, size=16):
    """A dark cross on light, with noise."""
    images = 0.7 + 0.03 * draw(n, 1, size, size, seed=seed, dtype=torch.float32)
    images[:, :, size // 2 - 2 : size // 2 + 2] -= 0.4
    images[:, :, :, size // 2 - 2 : size // 2 + 2] -= 0.2
    return images.clamp(0, 1)


SMALL = {"patch_size": 4, "dim": 8, "n_heads": 2, "n_latent": 8, "n_components": 3}


@pytest.fixture(scope="module")
def fitted():
    return VTADL(epochs=2, **SMALL).fit(pictures())


# patches


def test_patches_are_those_of_unfold():
    images = draw(2, 3, 8, 12)
    expected = unfold(images, 4, stride=4).transpose(1, 2)
    assert torch.equal(to_patches(images, 4), expected)


def test_patches_make_the_image_again():
    images = draw(2, 3, 8, 12)
    assert torch.equal(from_patches(to_patches(images, 4), (3, 8, 12)), images)


# attention


def test_attention_is_that_of_torch():
    q, k, v = draw(2, 3, 5, 4), draw(2, 3, 7, 4, seed=1), draw(2, 3, 7, 6, seed=2)
    mixed, weights = attention(q, k, v)
    torch.testing.assert_close(mixed, scaled_dot_product_attention(q, k, v))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5).double())


def test_attention_by_hand():
    q, k, v = (draw(3, 2, seed=seed) for seed in range(3))
    for row, found in zip(q, attention(q, k, v)[0], strict=True):
        powers = [math.exp(float(row @ key) / math.sqrt(2)) for key in k]
        expected = sum(p * value for p, value in zip(powers, v, strict=True))
        torch.testing.assert_close(found, expected / sum(powers))


def test_heads_are_those_of_multi_head_attention():
    ours, theirs = made(SelfAttention, 12, 3), nn.MultiheadAttention(12, 3).double()
    theirs.in_proj_weight.data = ours.project.weight.data
    theirs.in_proj_bias.data = ours.project.bias.data
    theirs.out_proj.load_state_dict(ours.join.state_dict())
    tokens = draw(2, 5, 12)
    x = tokens.transpose(0, 1)
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(tokens), expected.transpose(0, 1))
    torch.testing.assert_close(ours.weights(tokens), weights)


# the encoder, and what it knows of places


def shuffled(images, order):
    return from_patches(to_patches(images, 4)[:, order], images.shape[1:])


@pytest.mark.parametrize("positions", [False, True])
def test_without_positions_shuffled_patches_give_shuffled_tokens(positions):
    encoder = made(Encoder, (1, 8, 12), 4, 8, 2, 2, positions=positions)
    images, order = draw(3, 1, 8, 12), torch.tensor([3, 1, 5, 0, 4, 2])
    gap = (encoder(shuffled(images, order)) - encoder(images)[:, order]).detach()
    assert (float(gap.abs().max()) < 1e-12) is not positions


def test_tokens_know_of_their_surroundings():
    """A change in one patch reaches every token; without a block, only its own."""
    images, changed = draw(1, 1, 8, 8), draw(1, 1, 8, 8)
    changed[..., :4, :4] += 1
    for depth, reached in ((0, [True] + 3 * [False]), (1, 4 * [True])):
        encoder = made(Encoder, (1, 8, 8), 4, 8, depth, 2)
        gap = (encoder(changed) - encoder(images)).abs().amax(2)[0]
        assert (gap > 1e-9).tolist() == reached


def test_tokens_have_mean_zero_and_variance_one():
    tokens = made(Encoder, (1, 8, 8), 4, 16)(draw(2, 1, 8, 8))
    torch.testing.assert_close(tokens.mean(2), torch.zeros(2, 4).double())
    variance = tokens.var(2, correction=0)
    torch.testing.assert_close(variance, torch.ones(2, 4).double(), atol=0.01, rtol=0)


def test_attention_weights_are_those_the_encoder_uses():
    encoder, images = made(Encoder, (1, 8, 8), 4, 8, 2, 2), draw(2, 1, 8, 8)
    seen = []
    for block in encoder.blocks:
        block.attention.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    encoder(images)
    for found, block, x in zip(
        encoder.attention_weights(images), encoder.blocks, seen, strict=False
    ):
        torch.testing.assert_close(found, block.attention.weights(x))
        assert found.shape == (2, 2, 4, 4)


@pytest.mark.parametrize("size", [1, 4, 6, 7])
def test_decoder_gives_images_of_the_shape(size):
    shape = (3, 2 * size, 3 * size)
    drawn = Decoder(shape, size, 5, 4, 2)(torch.randn(2, 6, 5))
    assert drawn.shape == (2, *shape)
    assert drawn.min() >= 0 and drawn.max() <= 1


# the density


def mixture_parameters(*batch):
    return (
        draw(*batch, 3, seed=1),
        draw(*batch, 3, 5, seed=2),
        draw(*batch, 3, 5, seed=3).exp(),
    )


@pytest.mark.parametrize("batch", [(), (4, 1), (4, 6)])
def test_log_density_is_that_of_torch(batch):
    z, (logits, means, deviations) = draw(4, 6, 5), mixture_parameters(*batch)
    gaussians = Independent(Normal(means, deviations), 1)
    expected = MixtureSameFamily(Categorical(logits=logits), gaussians).log_prob(z)
    torch.testing.assert_close(
        mixture_log_density(z, logits, means, deviations), expected
    )


def test_log_density_where_each_density_is_rounded_to_zero():
    z = torch.full((1, 2), 1e3)
    found = mixture_log_density(z, torch.zeros(2), torch.zeros(2, 2), torch.ones(2, 2))
    assert float(found) == pytest.approx(-1e6 - math.log(2 * math.pi))


def test_self_conditioned_parameters_come_from_the_token():
    head, z = made(SelfConditioned, 4, 3), draw(5, 4)
    deviations = (1 + head.spread(z).exp()).log()
    gaussians = Independent(Normal(head.means(z), deviations), 1)
    weights = Categorical(logits=head.logits(z))
    expected = MixtureSameFamily(weights, gaussians).log_prob(z)
    torch.testing.assert_close(head(z), expected)


NOISE = 0.3


def learned_surprise(density, steps):
    """The mean -log p of noisy tokens after so many epochs, noise and tokens fresh."""
    options = SMALL | {"noise": NOISE, "lr": 1e-2, "epochs": steps}
    model = VTADL(density, **options).fit(pictures(32))
    tokens = model.tokens(pictures(32, seed=5))
    with torch.no_grad():
        noisy = tokens + NOISE * draw(*tokens.shape, seed=6, dtype=tokens.dtype)
        return float(model._surprise(noisy).mean())


def test_a_density_of_a_token_given_itself_runs_away():
    """No density of what has noise of this size in it has less than its entropy."""
    floor = SMALL["dim"] / 2 * math.log(2 * math.pi * math.e * NOISE**2)
    few, many = (learned_surprise("self-conditioned", n) for n in (30, 100))
    assert many < few - 1 and many < floor - 1
    assert learned_surprise("mixture", 30) > floor


def test_surprise_is_that_of_a_mixture_of_the_tokens(fitted):
    mixture, tokens = fitted.mixture_, fitted.tokens(pictures(3, seed=2)).double()
    gaussians = MultivariateNormal(mixture.means_, mixture.covariances_)
    each = gaussians.log_prob(tokens[..., None, :]) + mixture.weights_.log()
    with torch.no_grad():
        found = fitted._surprise(tokens.float())
    torch.testing.assert_close(found, -each.logsumexp(2), rtol=1e-4, atol=1e-4)


def test_the_square_of_the_noise_is_added_to_the_variances(fitted):
    tokens = fitted.tokens(pictures()).flatten(0, 1).double()
    model = VTADL(epochs=2, **SMALL | {"n_components": 1}).fit(pictures())
    expected = tokens.T.cov(correction=0) + 0.05**2 * torch.eye(8)
    torch.testing.assert_close(
        model.mixture_.covariances_[0], expected, rtol=1e-3, atol=1e-5
    )


# the detector


def test_terms_and_scores(fitted):
    images = pictures(4, seed=3)
    surprise, error = fitted.terms(images)
    drawn = fitted.reconstruct(images)
    alike = similarity.ssim(images, drawn, data_range=1)
    expected = 5 * similarity.mse(images, drawn) + 0.5 * (1 - alike)
    torch.testing.assert_close(error, expected)
    for score, value in (
        ("sum", surprise + error),
        ("density", surprise),
        ("reconstruction", error),
    ):
        model = VTADL(score=score, epochs=2, **SMALL).fit(pictures())
        torch.testing.assert_close(model.anomaly_score(images), value)


def test_map_is_the_surprise_of_the_patches_enlarged(fitted):
    images = pictures(4, seed=3)
    with torch.no_grad():
        grid = fitted._surprise(fitted.tokens(images)).view(4, 1, 4, 4)
    expected = nn.functional.interpolate(
        grid, (16, 16), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(fitted.anomaly_map(images), expected[:, 0].float())


def test_without_training_the_encoder_is_as_it_was_drawn():
    model = VTADL(epochs=0, **SMALL).fit(pictures())
    with seeded(0):
        encoder = Encoder((1, 16, 16), 4, 8, 1, 2)
    with torch.no_grad():
        expected = encoder(pictures(2))
    torch.testing.assert_close(model.tokens(pictures(2)), expected)
    assert model.history_ == []


def test_misplaced_patches_are_seen_with_positions_only():
    normal, order = pictures(20, seed=4), list(range(16))
    order[0], order[5] = 5, 0
    both = torch.cat([normal, shuffled(normal, order)])
    labels = [0] * 20 + [1] * 20
    areas = {}
    for positions in (False, True):
        options = {"positions": positions, "epochs": 20, "lr": 5e-3}
        model = VTADL(score="density", **options | SMALL).fit(pictures(64))
        areas[positions] = metrics.auroc(
            model.anomaly_score(both).round(decimals=2), labels
        )
    assert areas[False] == pytest.approx(0.5, abs=0.05)
    assert areas[True] > 0.9


def test_it_finds_what_is_drawn_over():
    test, masks = pictures(40, seed=4), torch.zeros(40, 16, 16, dtype=torch.bool)
    masks[20:, :4, 12:] = True
    test[20:, :, :4, 12::2] = 0.4
    model = VTADL(epochs=20, lr=5e-3, **SMALL).fit(pictures(64))
    scores, maps = model.score_and_map(test)
    assert metrics.auroc(scores, masks.flatten(1).any(1)) > 0.95
    assert metrics.pixel_auroc(maps, masks) > 0.9
    assert model.history_[-1] < 0.7 * model.history_[0]


test_bad_input = refuses(
    (lambda: VTADL("itself"), ValueError, "density…'mixture'"),
    (lambda: VTADL(score="mean"), ValueError, "score…'sum'"),
    (lambda: VTADL(dim=30), ValueError, "dim…n_heads = 4…got 30"),
    (lambda: VTADL(noise=0), ValueError, "noise…(0"),
    (lambda: VTADL(positions=2), ValueError, "positions…False"),
    (lambda: VTADL().fit(IMAGES), ValueError, "images…11"),
    (lambda: VTADL().fit(pictures(size=12)), ValueError, "images…8, divides"),
    (
        lambda: VTADL(n_components=999, epochs=1).fit(pictures()),
        ValueError,
        "images…999",
    ),
    (lambda: to_patches(IMAGES, 4), ValueError, "images…4, divides"),
    (lambda: to_patches(IMAGES, 2.0), TypeError, "size…integer"),
)
