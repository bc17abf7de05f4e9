"""Pyramids: pools against means, the gate and the routing by hand, what the decoder sees,
and the loss term by term.
"""

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from torch import nn

from adlab import capsules, metrics, similarity
from adlab.pyramids import (
    PIADE,
    Decoder,
    PyramidalAutoencoder,
    PyramidNetwork,
    RoutedNetwork,
    SqueezeExcitation,
    longest,
    pyramid,
)
from adlab.training import seeded

CLASSES = (PyramidalAutoencoder, PIADE)
SEES = ("both", "codes", "features")
SMALL = {"width": 4, "epochs": 1}
both = pytest.mark.parametrize("cls", CLASSES)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(n=8, channels=1, height=16, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 5, 5, generator=generator)
    size = (height, width)
    return nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def network(cls, sees="both", **options):
    """A small one, with random weights, and features for it."""
    shape, features = (1, 13, 19), (8, 4, 5)
    with seeded(0):
        if cls is PyramidalAutoencoder:
            made = PyramidNetwork(shape, features, (3, 1), 2, 4, sees)
        else:
            settings = {"n_vectors": 2, "dim": 6, "n_primary": 2, "n_iterations": 3}
            sizes = (3, 1)
            made = RoutedNetwork(
                shape, features, sizes, **settings | options, width=4, sees=sees
            )
    return made.eval(), drawn(5, *features)


@pytest.fixture(scope="module")
def fitted():
    return {cls: cls(**SMALL).fit(pictures()) for cls in CLASSES}


# the pyramid


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (3, 2)])
def test_pools_are_means_over_cells(height, width):
    """Also where k does not divide a side, and where it is larger."""
    features = drawn(2, 3, height, width)
    for k, pooled in zip((8, 4, 3, 2), pyramid(features, (8, 4, 3, 2)), strict=True):
        for i, j in np.ndindex(k, k):
            rows = slice(i * height // k, -(-(i + 1) * height // k))
            columns = slice(j * width // k, -(-(j + 1) * width // k))
            cell = features[:, :, rows, columns].mean((2, 3))
            torch.testing.assert_close(pooled[:, :, i, j], cell)


def test_the_top_of_the_pyramid_is_the_mean_of_all():
    features = drawn(2, 3, 5, 7)
    [top] = pyramid(features, [1])
    torch.testing.assert_close(top[:, :, 0, 0], features.mean((2, 3)))


def test_the_order_of_the_scales_changes_nothing():
    """With the weights of each in their places, images stay the same."""
    one, features = network(PyramidalAutoencoder)
    other = PyramidNetwork((1, 13, 19), (8, 4, 5), (1, 3), 2, 4)
    other.encoders = nn.ModuleList(reversed(one.encoders))
    torch.testing.assert_close(other.encode(features), one.encode(features).flip(1))
    other.decoder.load_state_dict(one.decoder.state_dict())
    codes = 8  # maps of each code
    first = other.decoder.layers[0].weight.data
    swapped = [first[:, codes : 2 * codes], first[:, :codes], first[:, 2 * codes :]]
    other.decoder.layers[0].weight.data = torch.cat(swapped, 1)
    torch.testing.assert_close(other(features), one(features))


# squeeze and excitation


def test_without_weights_every_channel_is_halved():
    gate, features = SqueezeExcitation(8), drawn(3, 8, 4, 5)
    for weight in gate.parameters():
        nn.init.zeros_(weight)
    assert torch.equal(gate(features), features / 2)


def test_squeeze_and_excitation_by_hand():
    gate, features = SqueezeExcitation(8), drawn(3, 8, 4, 5)
    assert gate.squeezed.weight.shape == (2, 8)
    z = features.mean((2, 3)).numpy()
    first, second = (w.detach().numpy() for w in gate.parameters())
    s = 1 / (1 + np.exp(-np.maximum(z @ first.T, 0) @ second.T))
    torch.testing.assert_close(gate.factors(features), torch.tensor(s))
    expected = features.numpy() * s[:, :, None, None]
    torch.testing.assert_close(gate(features), torch.tensor(expected))


# routing


def test_capsules_are_the_channels_of_one_cell():
    model, features = network(PIADE)
    found = model.primary(features)
    assert found.shape == (5, 2 * (9 + 1), 8)
    number = 0
    for k, reduce in zip((3, 1), model.reduce, strict=True):
        level = reduce(nn.AdaptiveAvgPool2d(k)(features))
        for i, j in np.ndindex(k, k):
            for group in level[:, :, i, j].split(8, 1):
                torch.testing.assert_close(found[:, number], capsules.squash(group))
                number += 1


def test_routing_is_that_of_the_capsules():
    model, features = network(PIADE)
    below = model.primary(model.gate(features))
    votes = torch.stack(
        [
            torch.stack([u @ w.T for w in pair], 1)
            for u, pair in zip(below.unbind(1), model.weight, strict=True)
        ],
        1,
    )
    for found, expected in zip(
        model.route(features), capsules.route(votes, 3), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_one_vector_gets_everything():
    model, features = network(PIADE, n_vectors=1)
    vectors, shares = model.route(features)
    assert vectors.shape == (5, 1, 6) and (shares == 1).all()
    model.n_iterations = 1
    torch.testing.assert_close(model.encode(features), vectors)


def test_longest_vector_of_each_image():
    vectors = drawn(6, 3, 4)
    for found, three in zip(longest(vectors), vectors, strict=True):
        assert torch.equal(found[0], max(three, key=torch.norm))


def test_the_first_vector_is_decoded_in_training_and_the_longest_in_scoring():
    model, features = network(PIADE)
    vectors = drawn(5, 2, 6)
    assert set(vectors.norm(dim=2).argmax(1).tolist()) == {0, 1}
    seen = model.gate(features)
    scored = model.decoder(longest(vectors), seen)
    torch.testing.assert_close(model.decode(vectors, features), scored)
    trained = model.decoder(vectors[:, :1], seen)
    torch.testing.assert_close(model.train().decode(vectors, features), trained)
    assert not torch.allclose(scored, trained)


def test_no_gradient_reaches_the_second_vector():
    model, features = network(PIADE)
    model.train()(features).sum().backward()
    assert (model.weight.grad[:, 0] != 0).any() and (model.weight.grad[:, 1] == 0).all()


# what the decoder sees


@pytest.mark.parametrize("sees", SEES)
@both
def test_decoder_depends_on_what_it_sees_alone(cls, sees):
    """With a bottleneck that is cut, all images come out alike if it sees nothing else."""
    model, features = network(cls, sees)
    codes = model.encode(features)
    images = model.decode(codes, features)
    assert images.shape == (5, 1, 13, 19) and images.min() >= 0 and images.max() <= 1
    cut = model.decode(codes[:1].expand_as(codes), features)
    blind = model.decode(codes, features[:1].expand_as(features))
    assert torch.allclose(cut, images) == (sees == "features")
    assert torch.allclose(cut, cut[:1].expand_as(cut), atol=1e-6) == (sees == "codes")
    if cls is PyramidalAutoencoder:  # the other's gate turns features, too
        assert torch.allclose(blind, images) == (sees == "codes")


def test_codes_share_their_upsampling():
    decoder = Decoder((1, 8, 8), (3, 4, 4), 2, 5, 4, "codes")
    codes = drawn(1, 2, 5)
    one, other = decoder._maps(codes).unflatten(1, (2, -1)).unbind(1)
    turned = decoder._maps(codes.flip(1)).unflatten(1, (2, -1))
    torch.testing.assert_close(turned, torch.stack([other, one], 1))


# loss and score


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.7), (0.0, 1.0), (0.0, 0.0)])
@both
def test_loss_is_the_sum_of_its_terms(cls, weights):
    settings = {"perceptual_weight": weights[0], "ssim_weight": weights[1]}
    model, images = cls(**SMALL, **settings).fit(pictures()), pictures(5, seed=2)
    back = model.reconstruct(images)
    pixels = (images - back).square().mean()
    of_layers = [
        (a - b).square().mean()
        for a, b in zip(model.backbone_(images), model.backbone_(back), strict=True)
    ]
    perceptual = sum(of_layers) / 2
    shared = similarity.perceptual(images, back, extractor=model.backbone_).mean()
    torch.testing.assert_close(perceptual, shared)
    alike = similarity.ssim(images, back, data_range=1).mean()
    expected = pixels + weights[0] * perceptual + weights[1] * (1 - alike)
    torch.testing.assert_close(model._loss(images).detach(), expected)


@both
def test_map_is_the_weighted_sum_of_its_terms(cls):
    settings = {"perceptual_weight": 0.3, "ssim_weight": 0.7}
    model, images = cls(**SMALL, **settings).fit(pictures()), pictures(5, seed=2)
    back = model.reconstruct(images)
    pixels, features, structure = model.terms(images)
    torch.testing.assert_close(pixels, (images - back).square().mean(1))
    alike = similarity.ssim_map(images, back, data_range=1)
    torch.testing.assert_close(structure, 1 - alike)
    whole = similarity.perceptual(images, back, extractor=model.backbone_)
    torch.testing.assert_close(features.mean((1, 2)), whole, rtol=0.2, atol=1e-3)
    expected = pixels + 0.3 * features + 0.7 * structure
    torch.testing.assert_close(model.anomaly_map(images), expected)


@both
def test_equal_images_cost_nothing(cls, fitted):
    images = pictures(3)
    for term in fitted[cls]._term_maps(images, images):
        torch.testing.assert_close(term, torch.zeros(3, 16, 16), atol=1e-5, rtol=0)


@both
def test_backbone_is_frozen_and_passes_gradients_to_the_image(cls, fitted):
    model, images = fitted[cls], pictures(3)
    back = images.clone().requires_grad_()
    similarity.perceptual(
        images.flip(3), back, extractor=model.backbone_
    ).sum().backward()
    assert back.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in model.backbone_.parameters())
    assert not list(model.scaling_.parameters())


@both
def test_features_are_standardised(cls, fitted):
    """Up to what is added to the variance of quiet ones."""
    features = fitted[cls].features(pictures())
    assert features.mean((0, 2, 3)).abs().max() < 1e-4
    deviation = features.std((0, 2, 3))
    assert deviation.max() < 1.01 and deviation.median() > 0.8


@both
def test_the_last_of_the_layers_is_pooled(cls):
    layers = ("layer3", "layer1")
    model = cls(layers=layers, **SMALL).fit(pictures())
    assert model.backbone_.layers == layers
    assert model.features(pictures()).shape == (8, 32, 8, 8)


@both
def test_any_backbone_any_size(cls):
    images = pictures(4, 3, 19, 26)
    model = cls(backbone="resnet18-random", **SMALL).fit(images)
    assert model.features(images).shape == (4, 128, 3, 4)
    assert model.reconstruct(images).shape == images.shape


@pytest.mark.parametrize("sees", ["both", "codes"])
@both
def test_it_learns_what_is_normal(cls, sees):
    """A wave at any phase; the anomalies have a flat square in it."""
    with seeded(0):
        phases = torch.rand(64, 1, 1, 1)
    columns = torch.arange(16) / 16
    waves = (0.5 + 0.4 * torch.sin(2 * torch.pi * (columns + phases))).expand(
        64, 1, 16, 16
    )
    train, test = waves[:24], waves[24:].clone()
    test[20:, :, 4:10, 4:10] = 0.5
    model = cls(decoder_input=sees, width=8, epochs=30, lr=5e-3, batch_size=8)
    scores = model.fit(train).anomaly_score(test)
    assert metrics.auroc(scores, torch.arange(40) >= 20) > 0.9
    assert model.history_[-1] < 0.5 * model.history_[0]


test_bad_input = refuses(
    (lambda: PIADE(backbone="vgg"), ValueError, "backbone…'vgg'"),
    (lambda: PIADE(decoder_input="all"), ValueError, "decoder_input…'both'"),
    (lambda: PIADE(sizes=()), ValueError, "sizes…got none"),
    (lambda: PIADE(squeeze=2), ValueError, "squeeze…True"),
    (lambda: PIADE(n_vectors=0), ValueError, "n_vectors…an integer"),
    (lambda: PyramidalAutoencoder(sizes=(2, 0)), ValueError, "sizes…an integer"),
    (lambda: PyramidalAutoencoder(**SMALL).fit(IMAGES), ValueError, "images…11"),
)
