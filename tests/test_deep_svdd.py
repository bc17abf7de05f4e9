"""Deep SVDD and Deep SAD, against closed forms, SciPy and the ways they are known to fail."""

import copy

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from scipy.optimize import minimize_scalar
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import adlab
from adlab import metrics
from adlab.bias_free import check_network, mirror_network, one_class_network
from adlab.data import ImageSet
from adlab.deep_svdd import (
    CollapseError,
    DeepSAD,
    DeepSVDD,
    best_radius,
    deep_sad_terms,
    one_class_loss,
    place_centre,
    relative_spread,
    soft_boundary_loss,
    squared_distance,
)
from adlab.training import update_batch_norm

QUICK = {"pretrain_epochs": 2, "epochs": 4, "widths": (4, 4), "n_features": 6}


def pictures(n=40, channels=1, height=9, width=8, seed=0):
    """Bars of random brightness at a random place, a little noise."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.rand(n, channels, height, width, generator=generator)
    places = torch.randint(2, 4, (n,), generator=generator)
    for image, place in zip(images, places, strict=True):
        image[:, :, place] += 0.5 + 0.4 * torch.rand((), generator=generator)
    return images


def odd(n=10, seed=1):
    """The same, lying down."""
    return pictures(n, 1, 8, 9, seed).transpose(2, 3)


def chi_squared(n=200, seed=0):
    values = np.random.default_rng(seed).chisquare(3, n)
    return torch.from_numpy(values)


both = pytest.mark.parametrize("cls", [DeepSVDD, DeepSAD])
objectives = pytest.mark.parametrize("objective", ["one-class", "soft-boundary"])

# The losses


@pytest.mark.parametrize("nu", [0.013, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("n", [7, 40, 200])
def test_radius_minimises_the_soft_boundary_loss(nu, n):
    distance = chi_squared(n)
    found = minimize_scalar(
        lambda r: float(soft_boundary_loss(distance, r, nu)),
        bounds=(0, 6),
        method="bounded",
        options={"xatol": 1e-10},
    )
    here = float(soft_boundary_loss(distance, best_radius(distance, nu), nu))
    assert here <= found.fun + 1e-9


@pytest.mark.parametrize("nu", [0.01, 0.05, 0.1, 0.35])
def test_radius_leaves_exactly_the_share_nu_outside(nu):
    distance = chi_squared(200)
    outside = int((distance > best_radius(distance, nu) ** 2 + 1e-9).sum())
    assert outside == round(nu * 200)


def test_radius_of_few_distances_leaves_at_most_nu_outside():
    distance = torch.tensor([1.0, 4, 9])
    assert [best_radius(distance, nu) for nu in (0.3, 0.34, 0.7, 0.99)] == [3, 2, 1, 1]


def test_soft_boundary_has_the_gradients_of_its_formula():
    """With respect to R: 2R (1 − #outside / νN); with respect to a distance: 0 inside."""
    distance = chi_squared(50).requires_grad_()
    radius = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    soft_boundary_loss(distance, radius, 0.2).backward()
    outside = distance > 1.5**2
    expected = 2 * 1.5 * (1 - int(outside.sum()) / (0.2 * 50))
    assert float(radius.grad) == pytest.approx(expected)
    np.testing.assert_allclose(distance.grad, outside / (0.2 * 50))


def test_soft_boundary_without_a_radius_is_the_one_class_loss_over_nu():
    distance = chi_squared()
    soft = soft_boundary_loss(distance, 0.0, 0.1)
    assert float(soft) == pytest.approx(float(one_class_loss(distance)) / 0.1)


def test_squared_distance_by_a_loop():
    features, centre = torch.randn(5, 3).double(), torch.randn(3).double()
    expected = [
        sum((f - c) ** 2 for f, c in zip(row, centre, strict=True)) for row in features
    ]
    np.testing.assert_allclose(squared_distance(features, centre), expected)


def test_terms_of_deep_sad():
    d = torch.tensor([0.5, 2.0])
    np.testing.assert_allclose(deep_sad_terms(d, 0, eta=3), d)
    np.testing.assert_allclose(deep_sad_terms(d, 1, eta=3), 3 * d)
    np.testing.assert_allclose(deep_sad_terms(d, -1, eta=3), [6, 1.5], rtol=1e-5)
    np.testing.assert_allclose(deep_sad_terms(d, 1), deep_sad_terms(d, 0))
    assert not deep_sad_terms(d, -1, eta=0).any()


def test_a_known_anomaly_is_repelled_even_from_the_centre_itself():
    features = torch.tensor([[1.0, 0.1], [0.2, 0.1]], requires_grad=True)
    centre = torch.tensor([0.1, 0.1])
    deep_sad_terms(squared_distance(features, centre), -1).sum().backward()
    outwards = (features - centre) * -features.grad
    assert (outwards.sum(1) > 0).all()
    at_the_centre = deep_sad_terms(torch.zeros(1), -1)
    assert torch.isfinite(at_the_centre).all()  # eps is not zero


# The centre


def test_no_coordinate_of_the_centre_is_near_zero():
    means = torch.tensor([0.0, -0.0, 1e-9, -1e-9, 0.05, -0.05, 0.1, 2.0, -3.0])
    features = means.double() + torch.tensor([[-1.0], [1.0]])
    centre = place_centre(features)
    assert (centre.abs() > 0.1 - 1e-9).all()
    np.testing.assert_allclose(
        centre, [0.1, 0.1, 0.1, -0.1, 0.1, -0.1, 0.1, 2, -3], atol=1e-7
    )


def test_a_dead_feature_gets_a_centre_away_from_zero():
    """A known implementation leaves a coordinate that is exactly zero where it is."""
    assert (place_centre(torch.zeros(4, 3)) == 0.1).all()


def test_zero_weights_cost_the_squared_length_of_the_centre():
    model = DeepSVDD(**QUICK | {"epochs": 0}).fit(pictures())
    for weight in model.network_.parameters():
        nn.init.zeros_(weight)
    loss = float(model.anomaly_score(pictures()).mean())
    assert loss == pytest.approx(float(model.centre_.square().sum()))
    assert loss >= 0.01 * QUICK["n_features"]


def test_centre_is_the_mean_of_the_initial_pass_whatever_the_batches():
    """The statistics of the batch norms are those of the training images by then."""
    train = pictures()
    model = DeepSVDD(**QUICK | {"epochs": 0}).fit(train)
    np.testing.assert_allclose(
        place_centre(model.represent(train)), model.centre_, rtol=1e-5
    )
    inside = model.network_[0](train)  # the first convolution
    np.testing.assert_allclose(
        model.network_[1].running_mean, inside.detach().mean((0, 2, 3)), rtol=1e-3
    )


def test_centre_does_not_move_in_training():
    start = DeepSVDD(**QUICK | {"epochs": 0}).fit(pictures())
    end = DeepSVDD(**QUICK).fit(pictures())
    assert torch.equal(start.centre_, end.centre_)
    assert end.history_[-1] < 0.5 * end.history_[0]


def test_settle_gives_the_statistics_of_all_batches():
    network = one_class_network((1, 9, 8), (4,), 5)
    images = pictures(30)
    update_batch_norm(network, images.split(10))
    inside = network[0](images).detach()
    np.testing.assert_allclose(
        network[1].running_mean, inside.mean((0, 2, 3)), atol=1e-6
    )
    parts = torch.stack([part.var((0, 2, 3)) for part in inside.split(10)]).mean(0)
    np.testing.assert_allclose(network[1].running_var, parts, rtol=1e-4)
    assert not network.training and network[1].momentum == 0.1


# The network


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 9, 15)])
def test_network_maps_images_to_features_and_the_mirror_back(shape):
    network = one_class_network(shape, (6, 4), 7)
    features = network(torch.rand(3, *shape))
    assert features.shape == (3, 7)
    assert mirror_network(shape, (6, 4), 7)(features).shape == (3, *shape)


def test_features_are_those_of_the_layers_by_hand():
    network, x = one_class_network((1, 9, 8), (3, 5), 4).eval(), pictures(6)
    *convolutions, linear = (weight.detach() for weight in network.parameters())
    y = x
    for weight in convolutions:
        y = nn.functional.conv2d(y, weight, padding=2) / (1 + 1e-4) ** 0.5
        y = torch.where(y > 0, y, 0.01 * y)  # the norms have seen nothing yet
        height, width = (n // 2 for n in y.shape[2:])
        y = y[..., : 2 * height, : 2 * width]
        y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
    np.testing.assert_allclose(
        network(x).detach(), y.flatten(1) @ linear.T, rtol=1e-3, atol=1e-5
    )


def test_network_of_the_paper():
    network = one_class_network((1, 28, 28))
    assert sum(weight.numel() for weight in network.parameters()) == 7272
    assert not [name for name, _ in network.named_parameters() if "bias" in name]
    check_network(network)


def test_zero_weights_map_everything_to_zero():
    network = one_class_network((1, 9, 8), (4, 4), 5).eval()
    for weight in network.parameters():
        nn.init.zeros_(weight)
    assert not network(pictures()).any()


def chain(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 4, bias=False))


class Hidden(nn.Module):
    """A bias, or a bound, that no layer shows."""

    def __init__(self, shift=0.0, bounded=False):
        super().__init__()
        self.linear = nn.Linear(72, 4, bias=False)
        self.shift, self.bounded = shift, bounded

    def forward(self, x):
        y = self.linear(x.flatten(1)) + self.shift
        if self.bounded == "one":  # among others that are not
            return torch.cat([torch.tanh(y[:, :1]), y[:, 1:]], 1)
        return torch.tanh(y) if self.bounded else y


@pytest.mark.parametrize(
    "network, reason",
    [
        (chain(nn.Conv2d(1, 1, 3, padding=1)), "no bias, got one in Conv2d '0'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 4)), "no bias, got one in Linear"),
        (chain(nn.BatchNorm2d(1)), "no bias, got one in BatchNorm2d"),
        (chain(nn.Tanh()), "unbounded activations, got Tanh"),
        (chain(nn.Sigmoid()), "unbounded activations, got Sigmoid"),
        (chain(nn.ReLU6()), "unbounded activations, got ReLU6"),
    ],
)
@both
def test_networks_that_can_collapse_are_refused_at_once(cls, network, reason):
    with pytest.raises(ValueError, match=reason):
        cls(network=network)


@pytest.mark.parametrize(
    "network, reason",
    [
        (Hidden(shift=0.2), "zero for a black image"),
        (Hidden(bounded=True), "grow with the image"),
        (Hidden(bounded="one"), "grow with the image"),
        (chain(nn.Softplus()), "zero for a black image"),
        (chain(nn.LayerNorm(8, elementwise_affine=False)), "grow with the image"),
        (nn.Conv2d(1, 2, 3, bias=False), "features of shape"),
    ],
)
def test_hidden_biases_and_bounds_are_refused_by_what_they_do(network, reason):
    with pytest.raises(ValueError, match=reason):
        DeepSVDD(network=network).fit(pictures())


@both
def test_a_network_of_ones_own_is_copied_and_trained(cls):
    network = chain(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU())
    before = copy.deepcopy(network.state_dict())
    model = cls(network=network, **QUICK | {"widths": (4,)}).fit(pictures())
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name])
        assert not torch.equal(weight, model.network_.state_dict()[name])
    assert model.represent(pictures()).shape == (40, 4)


def test_pretrained_statistics_do_not_make_a_network_suspicious():
    first = DeepSVDD(**QUICK).fit(pictures())
    DeepSVDD(network=first.network_, **QUICK).fit(pictures())


# Collapses


def fall(network, centre, images=None):
    """Train what the detectors refuse; loss and spread."""
    images = pictures() if images is None else images
    adlab.training.train(
        network,
        lambda batch: squared_distance(network(batch), centre).mean(),
        images,
        epochs=100,
        lr=1e-2,
    )
    with torch.no_grad():
        features = network(images)
    loss = float(squared_distance(features, centre).mean())
    return loss, relative_spread(features, torch.ones(len(centre)))


def plain():
    with adlab.training.seeded(0):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(72, 8, bias=False),
            nn.LeakyReLU(),
            nn.Linear(8, 4, bias=False),
        )


def test_a_zero_centre_collapses_and_the_spread_shows_it():
    loss, spread = fall(plain(), torch.zeros(4))
    sound_loss, sound_spread = fall(plain(), place_centre(torch.zeros(1, 4)))
    assert loss < 0.1 * sound_loss
    assert spread < DeepSVDD.smallest_spread < 0.4 * sound_spread


def test_a_bias_alone_solves_the_task_and_the_spread_is_zero():
    network, centre = nn.Linear(72, 4), torch.full((4,), 0.5)
    nn.init.zeros_(network.weight)
    network.bias.data.copy_(centre)
    features = network(pictures().flatten(1)).detach()
    assert squared_distance(features, centre).max() == 0
    assert relative_spread(features, centre) == 0


def test_a_network_that_died_is_reported():
    """All weights are zero, so no gradient passes: what too much weight decay leads to."""
    network = plain()
    for weight in network.parameters():
        nn.init.zeros_(weight)
    model = DeepSVDD(network=network, pretrain_epochs=0, epochs=2)
    with pytest.raises(CollapseError, match="expected representations that differ"):
        model.fit(pictures())
    assert not hasattr(model, "network_")  # it stays as it was


@both
def test_images_that_are_all_alike_are_reported(cls):
    with pytest.raises(CollapseError, match="all alike"):
        cls(**QUICK).fit(torch.full((20, 1, 9, 8), 0.3))


def test_spread_is_the_root_mean_square_distance_to_the_mean():
    features = torch.tensor([[0.0, 0], [2, 0], [0, 2], [2, 2]])
    assert relative_spread(features, torch.tensor([3.0, 4])) == pytest.approx(
        2**0.5 / 5
    )
    assert relative_spread(features[:1].expand(5, 2), torch.ones(2)) == 0


@both
def test_scores_of_a_sound_detector_differ(cls):
    scores = cls(**QUICK).fit(pictures()).anomaly_score(pictures(seed=3))
    assert float(scores.std() / scores.mean()) > 1e-2


@both
def test_every_step_decays_the_weights_as_asked_for(cls):
    """Those of the pre-training too, in which the first weights are found."""
    seen = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: seen.append(optimizer.param_groups[0]["weight_decay"])
    )
    try:
        cls(weight_decay=0.25, **QUICK).fit(pictures())
    finally:
        hook.remove()
    assert seen == [0.25] * (2 + 4)


def test_more_decay_leaves_smaller_weights():
    def size(weight_decay):
        model = DeepSVDD(weight_decay=weight_decay, lr=1e-2, **QUICK).fit(pictures())
        return sum(float(w.detach().norm()) for w in model.network_.parameters())

    assert size(10) < 0.8 * size(0)


# Deep SVDD


@objectives
def test_it_finds_what_is_odd(objective):
    model = DeepSVDD(objective, pretrain_epochs=5, epochs=30, lr=3e-3)
    model.fit(pictures(80))
    test = torch.cat([pictures(20, seed=5), odd(20)])
    labels = torch.arange(40) >= 20
    assert metrics.auroc(model.anomaly_score(test), labels) > 0.95


@pytest.mark.parametrize("nu", [0.05, 0.2, 0.5])
def test_a_share_of_nu_of_all_training_images_is_outside(nu):
    """Of all, not of the last batch."""
    train = pictures(100)
    model = DeepSVDD("soft-boundary", nu, warm_up=2, batch_size=16, **QUICK).fit(train)
    assert int((model.anomaly_score(train) > 1e-6).sum()) == round(nu * 100)
    assert model.radius_ > 0


def test_scores_of_the_soft_boundary_are_less_the_squared_radius():
    model = DeepSVDD("soft-boundary", **QUICK).fit(pictures())
    features = model.represent(odd())
    expected = (features - model.centre_).square().sum(1) - model.radius_**2
    np.testing.assert_allclose(model.anomaly_score(odd()), expected, rtol=1e-4)
    hard = DeepSVDD(**QUICK).fit(pictures())
    assert hard.radius_ == 0
    assert (hard.anomaly_score(odd()) >= 0).all()


def test_warm_up_is_the_one_class_training():
    """The losses are the same while it lasts, and others after it."""
    quick = QUICK | {"epochs": 6}
    hard = DeepSVDD(**quick).fit(pictures()).history_
    soft = DeepSVDD("soft-boundary", warm_up=3, **quick).fit(pictures()).history_
    assert hard[:3] == soft[:3]
    assert all(there != here for there, here in zip(hard[3:], soft[3:], strict=True))


def test_the_radius_follows_the_distances_of_the_epoch_before():
    model = DeepSVDD("soft-boundary", 0.25, warm_up=1, **QUICK).fit(pictures())
    loss, images = model._soft_boundary(40), pictures()
    with torch.no_grad():
        model.network_.eval()
        distance = model._distance(images)
        warm = [float(loss(batch)) for batch in images.split(16)]
        soft = [float(loss(batch)) for batch in images.split(16)]
    expected = [float(part.mean()) for part in distance.split(16)]
    np.testing.assert_allclose(warm, expected, rtol=1e-5)
    radius = best_radius(distance, 0.25)
    expected = [float(soft_boundary_loss(p, radius, 0.25)) for p in distance.split(16)]
    np.testing.assert_allclose(soft, expected, rtol=1e-5)


def test_pretraining_improves_the_reconstruction_and_moves_the_start():
    quick = QUICK | {"pretrain_epochs": 15, "epochs": 0}
    model = DeepSVDD(**quick, lr=3e-3).fit(pictures())
    assert model.pretrain_history_[-1] < 0.7 * model.pretrain_history_[0]
    bare = DeepSVDD(**quick | {"pretrain_epochs": 0}).fit(pictures())
    assert bare.pretrain_history_ == bare.history_ == model.history_ == []
    assert not torch.equal(model.represent(odd()), bare.represent(odd()))


# Deep SAD


def labelled(n_normal=3, n_anomalous=3):
    images = torch.cat([pictures(n_normal, seed=8), odd(n_anomalous, seed=9)])
    return ImageSet(images, torch.arange(len(images)) >= n_normal)


def test_without_labels_deep_sad_is_deep_svdd():
    svdd, sad = (cls(**QUICK).fit(pictures()) for cls in (DeepSVDD, DeepSAD))
    np.testing.assert_allclose(sad.history_, svdd.history_, rtol=1e-6)
    torch.testing.assert_close(sad.anomaly_score(odd()), svdd.anomaly_score(odd()))


def test_known_anomalies_are_pushed_away_and_others_like_them():
    options = {"pretrain_epochs": 0, "epochs": 25, "widths": (4, 4)}
    ratio = []
    for known in (None, labelled(0, 3)):
        model = DeepSAD(**options).fit(pictures(80), known)
        normal, anomalous = (
            model.anomaly_score(images).median() for images in (pictures(seed=4), odd())
        )
        ratio.append(float(anomalous / normal))
    assert ratio[1] > 1.3 * ratio[0]


def test_loss_of_a_batch_is_the_formula_weighted_by_the_groups():
    """(Σ d + η Σ d^±1) / (n + m), where every group is in the batch as a whole."""
    model = DeepSAD(eta=3, **QUICK).fit(pictures())
    known = labelled(1, 1)
    model._groups = model._group(known)
    with torch.no_grad():
        d = model._distance(pictures())
        normal, anomalous = model._distance(known.images)
        expected = (d.sum() + 3 * normal + 3 / (anomalous + 1e-6)) / 42
        loss = model._loss(pictures(), 40)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_loss_without_weight_for_labels_is_that_of_one_class():
    """η = 0 leaves Σ d / (n + m): that of Deep SVDD, but for the number of images."""
    model = DeepSAD(eta=0, **QUICK).fit(pictures())
    known = labelled(1, 1)
    model._groups = model._group(known)
    with torch.no_grad():
        loss = model._loss(pictures(), 40)
        expected = one_class_loss(model._distance(pictures())) * 40 / 42
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_every_batch_holds_labelled_images_even_at_one_percent(monkeypatch):
    seen = []
    distance = DeepSAD._distance

    def spy(self, batch):
        if self.network_.training:
            seen.append(batch)
        return distance(self, batch)

    monkeypatch.setattr(DeepSAD, "_distance", spy)
    known = labelled(1, 1)
    model = DeepSAD(batch_size=32, **QUICK | {"epochs": 2})
    model.fit(pictures(200, seed=2), known)
    assert len(seen) == 2 * 7
    for batch in seen:
        for image in known.images:
            assert (batch == image).flatten(1).all(1).sum() == 1


def test_labels_in_their_true_proportion_where_there_are_many():
    model = DeepSAD(**QUICK).fit(pictures())
    model._groups = model._group(labelled(20, 10))
    sizes = []
    model._distance = lambda batch: sizes.append(len(batch)) or batch.flatten(1).sum(1)
    model._loss(pictures(16), 40)
    assert sizes == [16 + 8 + 4]


def test_anomalies_do_not_stay_in_the_statistics_of_the_batch_norms():
    train = pictures()
    model = DeepSAD(**QUICK).fit(train, labelled())
    inside = model.network_[0](train).detach()
    np.testing.assert_allclose(
        model.network_[1].running_mean, inside.mean((0, 2, 3)), rtol=1e-3, atol=1e-6
    )


def test_labels_of_the_training_images_are_not_looked_at():
    train = pictures()
    marked = ImageSet(train, torch.arange(len(train)) % 2)
    one, two = (DeepSAD(**QUICK).fit(images) for images in (train, marked))
    assert torch.equal(one.anomaly_score(odd()), two.anomaly_score(odd()))


def test_a_labelled_part_must_fit_the_images():
    model = DeepSAD(**QUICK)
    with pytest.raises(TypeError, match="labelled: expected an ImageSet"):
        model.fit(pictures(), odd())
    with pytest.raises(ValueError, match=r"expected shape \(N, 1, 9, 8\)"):
        model.fit(pictures(), ImageSet(pictures(3, 1, 8, 8)))
    assert not hasattr(model, "_groups")


# As every detector


def fitted(cls, seed=0):
    model = cls(seed=seed, **QUICK)
    return (
        model.fit(pictures(), labelled()) if cls is DeepSAD else model.fit(pictures())
    )


@both
def test_a_seed_decides_everything(cls):
    one, two, other = (fitted(cls, seed).anomaly_score(odd()) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_network_of_ones_own_cannot_be_saved(tmp_path):
    model = DeepSVDD(network=chain(), pretrain_epochs=0, epochs=1).fit(pictures())
    with pytest.raises(TypeError, match="arguments that a file can hold"):
        model.save(tmp_path / "model.safetensors")


@both
def test_a_failed_fit_leaves_the_detector_as_it_was(cls):
    model = fitted(cls)
    before = model.anomaly_score(odd())
    with pytest.raises(CollapseError):
        model.fit(torch.zeros(10, 1, 9, 8))
    assert torch.equal(model.anomaly_score(odd()), before)


def test_images_smaller_than_the_network_are_refused():
    with pytest.raises(ValueError, match="at least 16 for 4 levels"):
        DeepSVDD(widths=(2, 2, 2, 2)).fit(pictures())


# Bad input


NARROW = ImageSet(IMAGES[..., :4])


test_bad_input = refuses(
    (lambda: DeepSVDD("soft"), ValueError, "objective…soft-boundary"),
    (lambda: DeepSVDD(network="net"), TypeError, "network…str"),
    (lambda: DeepSVDD(network=nn.Linear(30, 2)), ValueError, "network…bias…Linear"),
    (lambda: DeepSVDD(network=nn.Tanh()), ValueError, "network…Tanh"),
    (lambda: DeepSVDD(widths=(1, 1, 1)).fit(IMAGES), ValueError, "images…at least 8"),
    (lambda: DeepSAD().fit(IMAGES, IMAGES), TypeError, "labelled…ImageSet"),
    (lambda: DeepSAD().fit(IMAGES, NARROW), ValueError, "images…(N, 1, 6, 5)"),
)
