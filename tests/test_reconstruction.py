"""Reconstruction: the network of the slides, PCA and closed forms as oracles, and the detectors' promises."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from bad_input import refuses
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import conv2d

import adlab
from adlab import metrics, similarity
from adlab.augmentation import random_crop
from adlab.reconstruction import (
    LOSSES,
    Autoencoder,
    ConvolutionalAutoencoder,
    VariationalAutoencoder,
    VariationalNetwork,
    kl_divergence as kl,
    loss_map,
    loss_value,
    negative_elbo,
    negative_log_likelihood,
    sample,
)

SLIDE = {
    "widths": (16, 32, 64, 128, 256),
    "n_latent": None,
    "factors": (2, 2, 2, 2, 4),
}
SUMMARY = """
(N, 16, 256, 256) 160
(N, 32, 128, 128) 4640
(N, 64, 64, 64) 18496
(N, 128, 32, 32) 73856
(N, 256, 8, 8) 295168
(N, 256, 4, 4) 590080
(N, 128, 8, 8) 295040
(N, 64, 16, 16) 73792
(N, 32, 32, 32) 18464
(N, 16, 64, 64) 4624
(N, 1, 256, 256) 145
"""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=10, channels=1, height=48, width=48, seed=0):
    """Smooth random pictures, so that there is something to learn."""
    coarse = torch.rand(n, channels, 6, 6, generator=generator(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(
        0, 1
    )


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


SMALL = {"widths": (4, 6), "epochs": 2, "patch_size": 44}
DETECTORS = {
    "l2": Autoencoder(**SMALL),
    "ssim": Autoencoder("ssim", **SMALL),
    "ms-ssim": Autoencoder("ms-ssim", **SMALL, image_score="mean"),
    "cw-ssim": Autoencoder("cw-ssim", **SMALL, seed=3),
    "sum": Autoencoder({"l2": 1, "ssim": 0.5}, **SMALL),
    "vae": VariationalAutoencoder(**SMALL),
    "vae-elbo": VariationalAutoencoder("elbo", **SMALL, image_score="mean"),
    "vae-probability": VariationalAutoencoder(
        "reconstruction-probability", n_samples=3, **SMALL
    ),
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


# The network


def test_the_network_of_the_slides():
    network = ConvolutionalAutoencoder(1, **SLIDE)
    assert n_parameters(network) == 1_374_465
    assert n_parameters(network.encoder) == 392_320
    assert network.encode(torch.zeros(1, 1, 256, 256)).shape == (1, 256, 4, 4)


def test_the_summary_of_the_slides():
    network, found = ConvolutionalAutoencoder(1, **SLIDE), [""]

    def note(layer, _, output):
        shape = ", ".join(map(str, output.shape[1:]))
        found.append(f"(N, {shape}) {n_parameters(layer)}")

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 1, 256, 256))
    assert "\n".join([*found, ""]) == SUMMARY


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (7, 13), (33, 1), (1, 1)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"widths": (4, 4, 4)},
        {"widths": (4,), "n_latent": None},
        {"widths": (4, 4), "factors": (2, 4)},
        {"upsampling": "transposed"},
        {"widths": ()},
    ],
)
def test_any_size_goes_in_and_comes_out(size, options):
    network = ConvolutionalAutoencoder(3, **options)
    x = torch.rand(2, 3, *size)
    assert network(x).shape == x.shape
    rows, columns = (math.ceil(n / network.factor) for n in size)
    assert network.encode(x).shape[2:] == (rows, columns)


def test_a_reconstruction_is_that_of_its_layers_by_hand():
    network, x = ConvolutionalAutoencoder(1, (4, 6), 2), torch.rand(2, 1, 16, 12)
    first, second, last, *back = (
        (m.weight, m.bias) for m in network.modules() if isinstance(m, nn.Conv2d)
    )
    with torch.no_grad():
        y = x
        for weights in (first, second):  # down: the largest of 2 × 2 pixels
            y = conv2d(y, *weights, padding=1).relu()
            y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
        y = latent = conv2d(y, *last)
        for weights in back[:-1]:  # up: each pixel four times
            y = conv2d(y, *weights, padding=1).relu()
            y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = conv2d(y, *back[-1], padding=1)
        torch.testing.assert_close(network.encode(x), latent)
        torch.testing.assert_close(network(x), y)


def test_what_is_missing_to_a_multiple_repeats_the_border():
    network, x = ConvolutionalAutoencoder(1, (4, 6), 2), torch.rand(2, 1, 13, 18)
    wide = [(0, 0), (0, 0), (0, 3), (0, 2)]
    padded = torch.from_numpy(np.pad(x.numpy(), wide, mode="edge"))
    with torch.no_grad():
        torch.testing.assert_close(network.encode(x), network.encode(padded))


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_whole_images_are_treated_like_patches_away_from_the_border(padding_mode):
    network = ConvolutionalAutoencoder(1, (4, 6), 2, padding_mode=padding_mode)
    image = torch.rand(1, 1, 96, 96)
    with torch.no_grad():
        whole, patch = network(image), network(image[..., 16:80, 16:80])
    torch.testing.assert_close(whole[..., 40:56, 40:56], patch[..., 24:40, 24:40])


def test_the_decoder_mirrors_the_encoder():
    network = ConvolutionalAutoencoder(1, (3, 5, 7), 2)
    channels = [
        layer.out_channels
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    assert channels == [3, 5, 7, 2, 7, 5, 3, 1]


def unevenness(network):
    """How unevenly the decoder answers a constant latent, far from the border."""
    with torch.no_grad():
        for layer in network.decoder.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.fill_(0.1)
                layer.bias.zero_()
        answer = network.decoder(torch.ones(1, 2, 16, 16))[0, 0, 20:40, 20:40]
    return float(answer.std() / answer.mean())


def test_transposed_convolutions_draw_a_checkerboard_and_enlargement_does_not():
    assert unevenness(ConvolutionalAutoencoder(1, (4, 4), 2)) < 1e-6
    assert (
        unevenness(ConvolutionalAutoencoder(1, (4, 4), 2, upsampling="transposed"))
        > 0.1
    )


def test_a_linear_autoencoder_finds_the_subspace_of_pca():
    x = torch.randn(300, 6, dtype=torch.float64, generator=generator())
    x = x * torch.tensor([3.0, 2.5, 2.0, 0.9, 0.7, 0.4]).double()
    x = (
        x
        @ torch.linalg.qr(
            torch.randn(6, 6, dtype=torch.float64, generator=generator(1))
        )[0]
        + 1
    )
    eigenvalues, vectors = torch.linalg.eigh(
        (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    )
    with adlab.training.seeded(0):
        network = (
            ConvolutionalAutoencoder(6, (), 3)
            .double()
            .to(memory_format=torch.contiguous_format)
        )
    images = x[:, :, None, None]
    optimizer = torch.optim.LBFGS(
        network.parameters(),
        max_iter=2000,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = (network(images) - images).square().sum() / len(x)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert math.isclose(
        float(closure().detach()), float(eigenvalues[:3].sum()), rel_tol=1e-8
    )
    with torch.no_grad():
        shift = network(torch.zeros(1, 6, 1, 1).double())
        projector = (network(torch.eye(6).double()[:, :, None, None]) - shift)[
            :, :, 0, 0
        ].T
    torch.testing.assert_close(
        projector, vectors[:, 3:] @ vectors[:, 3:].T, atol=1e-5, rtol=0
    )


# Losses


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_zero_for_a_perfect_reconstruction_and_fall_towards_it(name):
    x = pictures(4, height=64, width=64)
    noise = torch.randn(x.shape, generator=generator())
    values = [loss_value(name, x, x + sigma * noise) for sigma in (0, 0.05, 0.2)]
    assert values[0].abs().max() < 1e-6
    assert (values[0] < values[1]).all()
    assert (values[1] < values[2]).all()
    assert loss_map(name, x, x + 0.1 * noise).shape == (4, 64, 64)


def test_a_sum_of_losses_is_weighted():
    x, y = pictures(3, seed=1), pictures(3, seed=2)
    both = {"l2": 2.0, "ssim": 0.5}
    expected = 2 * similarity.mse(x, y) + 0.5 * (
        1 - similarity.ssim(x, y, data_range=1)
    )
    torch.testing.assert_close(loss_value(both, x, y), expected)
    expected = 2 * similarity.mse_map(x, y) + 0.5 * (
        1 - similarity.ssim_map(x, y, data_range=1)
    )
    torch.testing.assert_close(loss_map(both, x, y), expected)


def test_the_multiscale_loss_has_three_scales():
    x, y = pictures(3, seed=1), pictures(3, seed=2)
    options = {"data_range": 1, "scales": 3}
    expected = 1 - similarity.ms_ssim(x, y, **options)
    torch.testing.assert_close(loss_value("ms-ssim", x, y), expected)
    expected = 1 - similarity.ms_ssim_map(x, y, **options)
    torch.testing.assert_close(loss_map("ms-ssim", x, y), expected)


def test_random_patches_are_parts_of_their_images():
    images = torch.arange(5 * 12 * 9.0).view(5, 1, 12, 9)
    patches = random_crop(images, 4)
    assert patches.shape == (5, 1, 4, 4)
    for image, patch in zip(images, patches, strict=True):
        windows = image.unfold(1, 4, 1).unfold(2, 4, 1).flatten(0, 2)
        assert (windows == patch).flatten(1).all(1).sum() == 1


def test_random_patches_come_from_everywhere():
    with adlab.training.seeded(0):
        corners = {
            int(random_crop(torch.arange(36.0).view(1, 1, 6, 6), 4)[0, 0, 0, 0])
            for _ in range(200)
        }
    assert corners == {6 * i + j for i in range(3) for j in range(3)}


@pytest.mark.parametrize("cls", [Autoencoder, VariationalAutoencoder])
def test_the_network_is_trained_on_patches_from_random_places(cls, monkeypatch):
    seen, encode = [], ConvolutionalAutoencoder.encode

    def spy(self, x):
        if self.training:
            seen.extend(x[:, 0])
        return encode(self, x)

    monkeypatch.setattr(ConvolutionalAutoencoder, "encode", spy)
    images, places = pictures(height=24, width=22), set()
    cls(widths=(2,), patch_size=16, epochs=4).fit(images)
    assert len(seen) == 40
    windows = images[:, 0].unfold(1, 16, 1).unfold(2, 16, 1)
    for patch in seen:
        assert patch.shape == (16, 16)
        _, row, column = (windows == patch).flatten(3).all(3).nonzero()[0].tolist()
        places.add((row, column))
    assert len(places) > 8  # of 63


@pytest.mark.parametrize("loss", ["l2", "ssim", {"l2": 1, "ssim": 0.5}])
def test_it_is_trained_by_its_loss(loss, monkeypatch):
    """A network that always says grey, and patches that are whole images."""
    forward = ConvolutionalAutoencoder.forward
    monkeypatch.setattr(
        ConvolutionalAutoencoder,
        "forward",
        lambda self, x: 0 * forward(self, x) + 0.5,
    )
    images = pictures(height=20, width=20)
    model = Autoencoder(loss, widths=(2,), patch_size=20, epochs=1).fit(images)
    expected = loss_value(loss, images, torch.full_like(images, 0.5)).mean()
    assert model.history_ == [pytest.approx(float(expected), rel=1e-4)]


def test_the_variational_one_is_trained_with_its_sigma(monkeypatch):
    """A decoder that always says grey; what the encoder's draws cost is known then."""
    decode, posterior = VariationalNetwork.decode, VariationalNetwork.posterior
    monkeypatch.setattr(
        VariationalNetwork,
        "decode",
        lambda self, z, size: 0 * decode(self, z, size) + 0.5,
    )
    monkeypatch.setattr(
        VariationalNetwork,
        "posterior",
        lambda self, x: [0 * part for part in posterior(self, x)],
    )
    images, quick = pictures(height=20, width=20), {"widths": (2,), "patch_size": 20}
    model = VariationalAutoencoder(sigma=0.3, epochs=1, **quick).fit(images)
    expected = -Normal(0.5, 0.3).log_prob(images).sum((1, 2, 3)).mean()
    assert model.history_ == [pytest.approx(float(expected), rel=1e-4)]


# Variational


def test_kl_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(
        2, 3, 4, 5, 5, dtype=torch.float64, generator=generator()
    )
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl(mean, log_variance), expected, atol=1e-12, rtol=0)
    assert kl(torch.zeros(3), torch.zeros(3)).eq(0).all()


def test_likelihood_is_that_of_torch():
    x, y = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator())
    torch.testing.assert_close(
        negative_log_likelihood(x, y, 0.3), -Normal(y, 0.3).log_prob(x)
    )


def test_gradients_pass_through_the_draw():
    mean, log_variance = torch.tensor([0.3]), torch.tensor([-0.4])
    noise = torch.randn(200_000, generator=generator())
    mean.requires_grad_()
    log_variance.requires_grad_()
    sample(mean, log_variance, noise).square().mean().backward()  # E z² = μ² + σ²
    assert math.isclose(float(mean.grad), 0.6, abs_tol=0.02)
    assert math.isclose(float(log_variance.grad), math.exp(-0.4), abs_tol=0.02)


def linear_network():
    """Latents and pixels one number each: log p(x) is known."""
    with adlab.training.seeded(0):
        return VariationalNetwork(1, (), 1).double()


def test_elbo_bounds_the_likelihood_and_reaches_it_at_the_true_posterior():
    network, sigma = linear_network(), 0.5
    x = torch.randn(4000, 1, 1, 1, dtype=torch.float64, generator=generator())
    with torch.no_grad(), adlab.training.seeded(0):
        shift = network.decoder(torch.zeros(1, 1, 1, 1).double()).item()
        slope = network.decoder(torch.ones(1, 1, 1, 1).double()).item() - shift
        evidence = Normal(shift, math.hypot(slope, sigma)).log_prob(x).flatten()
        assert -negative_elbo(network, x, sigma).mean() < evidence.mean()
        precision = 1 + slope**2 / sigma**2
        network.encoder[-1].weight.copy_(
            torch.tensor([slope / sigma**2 / precision, 0.0]).view(2, 1, 1, 1)
        )
        network.encoder[-1].bias.copy_(
            torch.tensor([-shift * slope / sigma**2 / precision, -math.log(precision)])
        )
        assert math.isclose(
            -negative_elbo(network, x, sigma).mean(), evidence.mean(), abs_tol=0.02
        )


def test_elbo_is_summed_over_pixels_and_latents():
    network = VariationalNetwork(1, (4,), 2)
    x = pictures(3, height=16, width=16)
    with torch.no_grad():
        network.encoder[-1].weight.zero_()
        network.encoder[-1].bias.copy_(
            torch.tensor([1.0, 1.0, 0.0, 0.0])
        )  # KL 1/2 in each of 2 · 64 latents
        network.decoder[-1].weight.zero_()
        network.decoder[-1].bias.zero_()
        expected = negative_log_likelihood(x, 0 * x, 0.2).sum((1, 2, 3)) + 64
        torch.testing.assert_close(negative_elbo(network, x, 0.2), expected)


def test_scores_of_the_variational_autoencoder_fit_together():
    vae, x = make("vae-elbo").fit(pictures()), pictures(3, seed=4)
    vae.n_samples, vae.sigma, elbo = 500, 0.5, vae.anomaly_map
    with torch.no_grad(), adlab.training.seeded(0):
        drawn = torch.stack(
            [negative_elbo(vae.network_, x, vae.sigma) for _ in range(500)]
        )
    torch.testing.assert_close(elbo(x).sum((1, 2)), drawn.mean(0), rtol=2e-2, atol=0)
    total = elbo(x)
    vae.score = "reconstruction-probability"
    divergence = kl(*vae.network_.posterior(x)).detach()
    torch.testing.assert_close(
        (total - vae.anomaly_map(x)).sum((1, 2)),
        divergence.sum((1, 2, 3)),
        rtol=1e-3,
        atol=0.1,
    )


def test_without_noise_the_elbo_trains_an_autoencoder():
    network, x = VariationalNetwork(1, (4,), 2), pictures(3)
    mean, _ = network.posterior(x)
    nothing = sample(mean, torch.full_like(mean, -100), torch.randn_like(mean))
    torch.testing.assert_close(network.decode(nothing, x.shape[2:]), network(x))


# The detectors


@each
def test_maps_and_scores(name, fitted):
    detector, images = fitted[name], pictures(5, seed=1)
    scores, maps = results(detector, images)
    assert maps.shape == (5, 48, 48)
    assert torch.isfinite(maps).all()
    expected = (
        maps.flatten(1).amax(1)
        if detector.image_score == "max"
        else maps.flatten(1).mean(1)
    )
    torch.testing.assert_close(scores, expected)
    assert detector.reconstruct(images).shape == images.shape
    assert not detector.network_.training
    assert len(detector.history_) == 2


@pytest.mark.parametrize("name", [name for name in DETECTORS if "vae-" not in name])
def test_a_map_is_the_loss_of_every_pixel(name, fitted):
    """But for those maps that are drawn: see the test of the ELBO."""
    detector, images = fitted[name], pictures(3, seed=1)
    loss = "l2" if name == "vae" else detector.loss
    expected = loss_map(loss, images, detector.reconstruct(images))
    torch.testing.assert_close(detector.anomaly_map(images), expected)


def test_as_many_latents_are_drawn_as_asked_for_and_from_the_seed(monkeypatch):
    draws, decode = [], VariationalNetwork.decode

    def spy(self, z, size):
        draws.append(z)
        return decode(self, z, size)

    monkeypatch.setattr(VariationalNetwork, "decode", spy)
    model = make("vae-probability").fit(pictures())
    draws.clear()
    model.anomaly_map(pictures(2))
    model.seed += 1
    model.anomaly_map(pictures(2))
    assert len(draws) == 2 * 3
    for i, j in combinations(range(6), 2):
        assert not torch.equal(draws[i], draws[j])


@pytest.mark.parametrize("cls", [Autoencoder, VariationalAutoencoder])
def test_the_network_is_as_wide_as_asked_for(cls):
    model = cls(widths=(3,), n_latent=5, patch_size=20, epochs=1)
    network = model.fit(pictures(2, height=20, width=20)).network_
    assert network.encode(pictures(2)).shape == (2, 5, 24, 24)


@each
@pytest.mark.parametrize("size", [(44, 44), (64, 96), (51, 47)])
def test_images_of_another_size(name, size, fitted):
    images = pictures(2, height=size[0], width=size[1])
    assert fitted[name].anomaly_map(images).shape == (2, *size)


@pytest.mark.parametrize("name", ["l2", "ssim", "cw-ssim", "ms-ssim", "vae"])
def test_training_lowers_the_loss(name):
    detector = make(name)
    detector.epochs = 15
    history = detector.fit(pictures(24)).history_
    assert history[-1] < 0.8 * history[0] if name != "vae" else history[-1] < history[0]


def test_it_finds_a_square_in_smooth_pictures():
    images = pictures(40, seed=5)
    masks = torch.zeros(40, 48, 48, dtype=torch.bool)
    masks[20:, 20:28, 14:22] = True
    checks = (torch.arange(48)[:, None] // 2 + torch.arange(48) // 2) % 2
    images = torch.where(masks[:, None], checks.float(), images)
    labels = masks.flatten(1).any(1)
    detector = Autoencoder(widths=(8, 8), n_latent=2, patch_size=32, epochs=30).fit(
        pictures(64)
    )
    assert metrics.auroc(detector.anomaly_score(images), labels) > 0.95
    assert metrics.pixel_auroc(detector.anomaly_map(images), masks) > 0.95


# Bad input

FEW, MANY = pictures(2), pictures(24)
THREE = {"factors": (2, 2, 2)}
NO_BOTTLENECK = {"widths": (), "n_latent": None}
WILD = Autoencoder(lr=1e30, **SMALL)


test_bad_input = refuses(
    (lambda: Autoencoder("l1"), ValueError, "loss: expected one of 'l2'"),
    (lambda: Autoencoder({"l2": 1, "l3": 1}), ValueError, "loss: expected one of"),
    (lambda: Autoencoder({"l2": -1}), ValueError, "loss['l2']: expected"),
    (lambda: Autoencoder({}), TypeError, "loss: expected a name, or a dict"),
    (lambda: Autoencoder(["l2"]), TypeError, "loss: expected a name, or a dict"),
    (lambda: Autoencoder("ms-ssim", patch_size=32), ValueError, "patch_size…least 44"),
    (lambda: VariationalAutoencoder("kl"), ValueError, "score: expected one of"),
    (lambda: VariationalAutoencoder(sigma=0), ValueError, "sigma: expected"),
    (lambda: ConvolutionalAutoencoder(0), ValueError, "channels: expected"),
    (lambda: ConvolutionalAutoencoder(1, **NO_BOTTLENECK), TypeError, "n_latent"),
    (lambda: ConvolutionalAutoencoder(factors=3), ValueError, "factors…even"),
    (lambda: ConvolutionalAutoencoder(**THREE), ValueError, "factors…2 numbers"),
    (lambda: ConvolutionalAutoencoder(upsampling="bicubic"), ValueError, "upsampling"),
    (lambda: ConvolutionalAutoencoder(padding_mode="none"), ValueError, "padding_mode"),
    (lambda: Autoencoder(patch_size=64).fit(FEW), ValueError, "images…patch_size = 64"),
    (lambda: Autoencoder().reconstruct(FEW), NotFittedError, "detector…a fitted one"),
    (lambda: WILD.fit(MANY), FloatingPointError, "loss: expected a finite value"),
)


def test_images_too_small_to_score_are_refused_and_the_detector_stays_usable(fitted):
    with pytest.raises(ValueError, match="images: expected H, W of at least 11"):
        fitted["ssim"].anomaly_map(pictures(2, height=10))
    with pytest.raises(ValueError, match="images: expected shape"):
        fitted["ssim"].anomaly_map(pictures(2, channels=3))
    assert fitted["ssim"].anomaly_map(pictures(2)).shape == (2, 48, 48)
