"""Open-set recognition, against SciPy, loops over pairs and closed forms."""

import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from bad_input import IMAGES, LABELS, NAN, VECTORS, refuses, spoiled
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax
from scipy.stats import weibull_min
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset

from adlab import decision
from adlab.augmentation import random_shift, random_symmetry
from adlab.classifier import convolutional_classifier, logits_of, train_classifier
from adlab.data import ImageSet
from adlab.open_set import (
    SCORES,
    UNKNOWN,
    OpenMax,
    OpenSetClassifier,
    energy_score,
    fit_weibull,
    max_logit_score,
    msp_score,
    open_set_measures,
)


def some_logits(n=60, n_classes=5, seed=0):
    """Float64 (n, n_classes), of both signs."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 4, (n, n_classes)))


def clusters(n=60, n_classes=4, seed=0):
    """Logits as of a trained classifier, around 6 for the right class and 0 for the
    others, and labels.
    """
    labels = torch.arange(n * n_classes) % n_classes
    noise = some_logits(len(labels), n_classes, seed) / 4
    return 6 * nn.functional.one_hot(labels, n_classes) + noise, labels


def pictures(n=40, channels=1, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, size, size, generator=generator)


@pytest.fixture(scope="module")
def network():
    """A classifier of four classes whose batch normalisation has seen data."""
    net = convolutional_classifier(4, widths=(4, 6))
    train_classifier(net, pictures(), torch.arange(40) % 4, epochs=1)
    return net


# Scores


def test_scores_are_those_of_scipy():
    logits = some_logits()
    p = softmax(logits.numpy(), 1).max(1)
    np.testing.assert_allclose(msp_score(logits), 1 - p, rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(max_logit_score(logits), -logits.numpy().max(1))
    for t in (0.3, 1, 7):
        expected = -t * logsumexp(logits.numpy() / t, axis=1)
        np.testing.assert_allclose(energy_score(logits, t), expected, rtol=1e-12)


def test_log_msp_is_max_logit_minus_logsumexp():
    logits = some_logits()
    log_msp = torch.log1p(-msp_score(logits))
    difference = -max_logit_score(logits) + energy_score(logits)
    np.testing.assert_allclose(log_msp, difference, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("t", [0.01, 1, 30])
def test_energy_bounds_the_max_logit(t):
    logits = some_logits()
    top, minus_energy = -max_logit_score(logits), -energy_score(logits, t)
    assert (minus_energy - t * math.log(5) <= top + 1e-9).all()
    assert (top <= minus_energy + 1e-9).all()


def test_a_cold_energy_is_the_max_logit_and_a_hot_one_the_mean():
    logits = some_logits()
    cold, t = energy_score(logits, 1e-4), 1e6
    np.testing.assert_allclose(cold, max_logit_score(logits), rtol=1e-9)
    hot = -(energy_score(logits, t) + t * math.log(5))
    np.testing.assert_allclose(hot, logits.mean(1), atol=1e-3)


def test_temperature_reorders_samples():
    pair = torch.tensor([[5.0, 0, 0, 0], [4.5, 4.4, 4.4, 4.4]])
    assert max_logit_score(pair).diff() > 0 > energy_score(pair).diff()
    assert energy_score(pair, 0.05).diff() > 0


def test_only_the_msp_ignores_what_is_added_to_all_logits():
    logits, constants = some_logits(), 5 * some_logits(60, 1, seed=1)
    moved = logits + constants
    np.testing.assert_allclose(msp_score(moved), msp_score(logits), rtol=1e-9)
    for score in (max_logit_score, energy_score, partial(energy_score, temperature=3)):
        shift = (score(logits) - score(moved))[:, None]
        np.testing.assert_allclose(shift, constants, rtol=1e-9, atol=1e-9)
    order = max_logit_score(logits).argsort()
    assert not torch.equal(max_logit_score(moved).argsort(), order)


def test_energy_has_either_sign():
    assert energy_score([[3.0, 1]]) < 0 < energy_score([[-3.0, -9]])


def test_confident_answers_are_not_tied():
    gaps = torch.arange(10.0, 60, 5)
    logits = torch.stack([gaps, torch.zeros(10), torch.zeros(10)], 1)
    assert (msp_score(logits).float().diff() < 0).all()
    np.testing.assert_allclose(energy_score(logits), -gaps, atol=1e-3)


@pytest.mark.parametrize("score", [*SCORES.values(), OpenMax(10).fit(*clusters())])
def test_flat_small_logits_are_more_unknown_than_peaked_ones(score):
    peaked, flat = torch.tensor([[6.0, 0, 0, 0]]), torch.full((1, 4), 0.4)
    assert score(flat) > score(peaked)


@pytest.mark.parametrize("score", [*SCORES.values(), OpenMax(10).fit(*clusters())])
def test_a_score_does_not_depend_on_the_batch(score):
    logits = some_logits(30, 4)
    whole = score(logits)
    assert whole.shape == (30,)
    assert whole.dtype == torch.float64
    single = torch.cat([score(row[None]) for row in logits])
    np.testing.assert_allclose(whole, single, rtol=1e-12)
    np.testing.assert_allclose(score(logits.flip(0)).flip(0), whole, rtol=1e-12)
    np.testing.assert_allclose(score(logits.numpy()), whole, rtol=1e-12)


# Weibull and OpenMax


def likeliest_weibull(x):
    """Shape and scale from the equations of the likelihood, by root finding."""
    x, log_x = x / x.max(), np.log(x / x.max())

    def equation(k):
        return (x**k @ log_x) / (x**k).sum() - 1 / k - log_x.mean()

    k = brentq(equation, 1e-2, 1e4)
    return k, (x**k).mean() ** (1 / k)


@pytest.mark.parametrize(("shape", "scale"), [(0.7, 2), (2, 0.01), (30, 8), (5, 1e3)])
def test_weibull_is_the_likeliest(shape, scale):
    x = weibull_min.rvs(shape, scale=scale, size=40, random_state=1)
    k, relative = likeliest_weibull(x)
    np.testing.assert_allclose(fit_weibull(x), (k, relative * x.max()), rtol=1e-3)
    expected = weibull_min.fit(x, floc=0)
    np.testing.assert_allclose(fit_weibull(x), (expected[0], expected[2]), rtol=1e-9)


def test_weibull_finds_what_the_data_were_drawn_from():
    x = weibull_min.rvs(3, scale=2, size=20_000, random_state=0)
    np.testing.assert_allclose(fit_weibull(x), (3, 2), rtol=0.02)


def test_openmax_is_fitted_to_the_tails_of_correct_samples():
    logits, labels = clusters()
    model = OpenMax(tail_size=12).fit(logits, labels)
    for c in range(4):
        own = logits[labels == c].numpy()
        own = own[own.argmax(1) == c]
        distances = np.sort([np.linalg.norm(v - own.mean(0)) for v in own])
        k, relative = likeliest_weibull(distances[-12:])
        np.testing.assert_allclose(model.means_[c], own.mean(0), rtol=1e-12)
        assert float(model.shapes_[c]) == pytest.approx(k, rel=1e-3)
        assert float(model.scales_[c]) == pytest.approx(
            relative * distances[-1], rel=1e-3
        )
        expected = weibull_min.cdf(
            [np.linalg.norm(v - own.mean(0)) for v in some_logits(20, 4).numpy()],
            float(model.shapes_[c]),
            scale=float(model.scales_[c]),
        )
        far = model.weibull_cdf(some_logits(20, 4))[:, c]
        np.testing.assert_allclose(far, expected, rtol=1e-9, atol=1e-15)


def test_misclassified_samples_teach_openmax_nothing():
    logits, labels = clusters()
    wrong = logits.roll(1, 1)  # the largest logit is that of the next class
    both = OpenMax(10).fit(torch.cat([logits, wrong]), torch.cat([labels, labels]))
    correct = logits.argmax(1) == labels
    alone = OpenMax(10).fit(logits[correct], labels[correct])
    assert not (wrong.argmax(1) == labels)[correct].any()
    np.testing.assert_allclose(both.means_, alone.means_, atol=0.2)
    kept = (wrong.argmax(1) == labels).nonzero()[:, 0]
    again = OpenMax(10).fit(
        torch.cat([logits[correct], wrong[kept]]),
        torch.cat([labels[correct], labels[kept]]),
    )
    np.testing.assert_allclose(both.means_, again.means_, rtol=1e-12)
    np.testing.assert_allclose(both.shapes_, again.shapes_, rtol=1e-9)


def openmax_by_loops(model, v, alpha):
    """The formula of the paper for one sample with positive logits: probabilities,
    unknown last.
    """
    revised, unknown = v.copy(), 0.0
    for i, c in enumerate(np.argsort(-v)[:alpha], start=1):
        distance = np.linalg.norm(v - model.means_[c].numpy())
        cdf = weibull_min.cdf(
            distance, float(model.shapes_[c]), scale=float(model.scales_[c])
        )
        w = 1 - (alpha - i + 1) / alpha * cdf
        revised[c] = v[c] * w
        unknown += v[c] * (1 - w)
    return softmax([*revised, unknown])


@pytest.mark.parametrize("alpha", [1, 2, 4])
def test_openmax_is_the_formula_of_the_paper(alpha):
    model = OpenMax(10, alpha).fit(*clusters())
    logits = some_logits(40, 4).abs()
    expected = [openmax_by_loops(model, v, alpha) for v in logits.numpy()]
    np.testing.assert_allclose(
        model.recalibrate(logits).softmax(1), expected, rtol=1e-9
    )
    p = np.array(expected)[:, UNKNOWN]
    np.testing.assert_allclose(model(logits), np.log(p / (1 - p)), rtol=1e-6)


def test_all_classes_are_revised_by_default():
    one, other = OpenMax(10).fit(*clusters()), OpenMax(10, 4).fit(*clusters())
    assert torch.equal(one(some_logits(30, 4)), other(some_logits(30, 4)))


def test_openmax_near_the_means_is_a_softmax_with_a_zero_logit_more():
    model = OpenMax(10).fit(*clusters())
    model.scales_ = model.scales_ * 1e9  # no sample is far from anything
    logits = some_logits(30, 4)
    with_zero = np.hstack([logits.numpy(), np.zeros((30, 1))])
    ours = model.recalibrate(logits).softmax(1)
    np.testing.assert_allclose(ours, softmax(with_zero, 1), rtol=1e-9)
    np.testing.assert_allclose(model(logits), energy_score(logits), rtol=1e-9)


def test_no_logit_rises_and_far_ones_become_unknown():
    model = OpenMax(10).fit(*clusters())
    logits = torch.cat([some_logits(50, 4), -some_logits(50, 4).abs()])
    revised = model.recalibrate(logits)
    assert (revised[:, :UNKNOWN] <= logits).all()
    assert (revised[:, UNKNOWN] >= 0).all()
    assert torch.equal(revised[50:, :UNKNOWN], logits[50:])
    far = torch.tensor([[60.0, 50, 0, 0]])  # confident, and like nothing seen before
    assert msp_score(far) < 1e-4
    assert model.recalibrate(far).argmax(1) == 4


@pytest.mark.parametrize("shift", [-20, -1000])
def test_a_level_below_zero_does_not_blind_openmax(shift):
    """A number added to all logits changes no probability, and no loss."""
    logits, labels = clusters()
    centred = logits - logits.mean()
    far = torch.cat([2.5 * logits[:40] + 1, some_logits(20, 4)])
    model = OpenMax(10).fit(logits + shift, labels)
    expected = OpenMax(10).fit(centred, labels)
    assert expected.level_ == 0
    assert model.level_ == pytest.approx(float(logits.mean()) + shift)
    ours, theirs = model(far + shift), expected(far - logits.mean())
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    scores = torch.cat([model(logits + shift), ours[:40]])
    assert roc_auc_score(np.repeat([0, 1], [240, 40]), scores) > 0.95
    revised = model.recalibrate(far + shift)
    assert (revised[:, :UNKNOWN] <= far + shift).all()
    np.testing.assert_allclose(
        revised.softmax(1), expected.recalibrate(far - logits.mean()).softmax(1), 1e-6
    )


def test_openmax_refuses_before_it_is_fitted():
    with pytest.raises(NotFittedError, match="openmax"):
        OpenMax()(some_logits())


# Measures


def test_measures_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 9, 40) * 0.5, rng.integers(3, 12, 30) * 0.5
    correct = rng.random(40) < 0.8
    m = open_set_measures(known, correct, unknown)
    above = [[(u > k) + 0.5 * (u == k) for u in unknown] for k in known]
    assert m.accuracy == correct.mean()
    assert m.auroc == pytest.approx(np.mean(above))
    truth = np.repeat([0, 1], [40, 30])
    assert m.auroc == pytest.approx(roc_auc_score(truth, np.append(known, unknown)))
    assert m.oscr == pytest.approx(np.mean(np.array(above) * correct[:, None]))
    assert m.oscr <= m.accuracy
    perfect = open_set_measures(known, np.ones(40, bool), unknown)
    assert perfect.oscr == pytest.approx(perfect.auroc)


def test_both_conventions_of_fpr95():
    known, unknown = np.arange(20.0), 10.25 + np.arange(40.0) ** 2 / 50
    m = open_set_measures(known, np.ones(20, bool), unknown)
    assert m.fpr95 == 0.45  # 38 of 40 unknown lie above 10.3, and so do 11 to 19
    assert m.fpr95_known == 0.5  # 19 of 20 known lie up to 18, and so do 20 unknown
    swapped = open_set_measures(-unknown, np.ones(40, bool), -known)
    assert swapped.fpr95_known == m.fpr95


# From closed set to open set


@pytest.mark.parametrize("name", SCORES)
def test_one_call_opens_a_classifier(network, name):
    images, known = pictures(20, seed=3), pictures(50, seed=2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model = OpenSetClassifier(network, name, fpr=0.1).fit(known)
    logits = logits_of(network, images)
    scores = model.anomaly_score(images)
    np.testing.assert_allclose(scores, SCORES[name](logits), rtol=1e-5)
    expected = torch.where(scores > model.threshold_, UNKNOWN, logits.argmax(1))
    assert torch.equal(model.predict(images), expected)
    assert model.predict(images).dtype == torch.int64
    assert all(
        torch.equal(value, before[k]) for k, value in network.state_dict().items()
    )


@pytest.mark.parametrize("fpr", [0.05, 0.2])
@pytest.mark.parametrize("name", SCORES)
def test_threshold_is_on_the_side_of_the_unknown(network, name, fpr):
    """A quantile of 0.01, as one reads it somewhere, would reject nearly all known."""
    known = pictures(200, seed=2)
    model = OpenSetClassifier(network, name, fpr=fpr).fit(known)
    scores = model.anomaly_score(known)
    assert model.threshold_ == decision.quantile_threshold(scores, fpr)
    assert fpr - 0.02 <= float((scores > model.threshold_).double().mean()) <= fpr
    assert torch.equal(model.predict(known) == UNKNOWN, scores > model.threshold_)


def test_openmax_opens_a_classifier_too(network):
    images = pictures(40, seed=3)
    logits = logits_of(network, images)
    openmax = (
        OpenMax(5, 2).fit(logits.repeat(2, 1), logits.argmax(1).repeat(2))
        if (torch.bincount(logits.argmax(1), minlength=4).min() >= 3)
        else OpenMax(10).fit(*clusters())
    )
    model = OpenSetClassifier(network, openmax).fit(images)
    np.testing.assert_allclose(
        model.anomaly_score(images), openmax(logits), rtol=1e-4, atol=1e-5
    )


def test_scores_do_not_depend_on_the_batch_or_the_mode_of_the_network(network):
    images = pictures(12, seed=3)
    model = OpenSetClassifier(network).fit(pictures(50, seed=2))
    scores = model.anomaly_score(images)
    single = torch.cat([model.anomaly_score(image[None]) for image in images])
    np.testing.assert_allclose(scores, single, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.anomaly_score(images.flip(0)), scores.flip(0), rtol=1e-5, atol=1e-6
    )
    network.train()
    try:
        assert torch.equal(model.anomaly_score(images), scores)
        assert network.training
    finally:
        network.eval()


@pytest.mark.parametrize(
    "wrap",
    [
        ImageSet,
        TensorDataset,
        lambda images: DataLoader(TensorDataset(images), 7),
        lambda images: images.numpy(),
    ],
)
def test_images_may_come_as_a_stream(network, wrap):
    images = pictures(50, seed=2)
    model = OpenSetClassifier(network).fit(images)
    other = OpenSetClassifier(network).fit(wrap(images))
    assert other.threshold_ == pytest.approx(model.threshold_, rel=1e-5)
    np.testing.assert_allclose(
        other.anomaly_score(wrap(images)), model.anomaly_score(images), rtol=1e-4
    )
    np.testing.assert_allclose(
        logits_of(network, wrap(images), 9), logits_of(network, images), atol=1e-5
    )


@pytest.mark.parametrize(
    ("last", "name"),
    [(nn.Softmax(1), "got probabilities"), (nn.LogSoftmax(1), "got log-probabilities")],
)
def test_probabilities_are_not_taken_for_logits(network, last, name):
    """The max-logit of probabilities is the MSP, and the energy of log-probabilities is
    constant.
    """
    normalised = nn.Sequential(network, last)
    for call in (
        lambda: logits_of(normalised, pictures()),
        lambda: OpenSetClassifier(normalised).fit(pictures()),
        lambda: train_classifier(normalised, pictures(), torch.arange(40) % 4),
    ):
        with pytest.raises(ValueError, match=name):
            call()


def test_a_classifier_of_ones_own_is_not_written_to_a_file(network, tmp_path):
    model = OpenSetClassifier(network).fit(pictures(50))
    with pytest.raises(TypeError, match="a file can hold"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_failed_fit_leaves_the_threshold(network):
    model = OpenSetClassifier(network).fit(pictures(50))
    threshold = model.threshold_
    with pytest.raises(ValueError, match="images: expected at least 19"):
        model.fit(pictures(18))
    assert model.threshold_ == threshold
    with pytest.raises(NotFittedError):
        OpenSetClassifier(network).predict(pictures())


# Training


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


@pytest.mark.parametrize("batch_size", [40, 16])
@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_first_loss_is_the_smoothed_cross_entropy(smoothing, batch_size):
    """The mean over images, also where the last batch is smaller; nothing moves yet."""
    images, labels, net = pictures(), torch.arange(40) % 4, linear()
    log_p = np.log(softmax(net(images).detach().double().numpy(), 1))
    target = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    options = {"batch_size": batch_size, "label_smoothing": smoothing}
    history = train_classifier(net, images, labels, epochs=1, lr=1e-12, **options)
    assert history == [pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)]


def test_smoothing_keeps_the_logits_small():
    images, labels, tops = pictures(), torch.arange(40) % 4, []
    for smoothing in (0, 0.3):
        net = linear()
        train_classifier(
            net, images, labels, epochs=150, lr=0.3, label_smoothing=smoothing
        )
        logits = logits_of(net, images)
        tops.append(float((logits.amax(1) - logits.mean(1)).mean()))
    assert tops[1] < 0.6 * tops[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_has_no_large_logits_merely_because_there_is_much_in_it(channels):
    """At its start, all before the LayerNorm grows in proportion to the image."""
    net = convolutional_classifier(5, channels, (4, 6), seed=2).eval()
    images = pictures(6, channels)
    with torch.no_grad():
        usual, bright = net(1e3 * images), net(1e5 * images)
        bound = net[-1].weight.norm(dim=1) * net[-1].in_features ** 0.5
        excess = (bright - net[-1].bias).abs() - bound
    np.testing.assert_allclose(bright, usual, atol=1e-3)
    assert float(excess.max()) < 1e-4
    assert float(usual.std(0).min()) > 1e-3  # and yet they differ


def test_training_is_nesterovs_descent_with_weight_decay():
    """By the formulas, step by step, on the gradient of the softmax."""
    images, labels, net = pictures(), torch.arange(40) % 4, linear()
    x = np.hstack([images.flatten(1).double().numpy(), np.ones((40, 1))])
    w = np.hstack(
        [p.detach().double().numpy().reshape(4, -1) for p in net[1].parameters()]
    )
    v, wanted = np.zeros_like(w), np.eye(4)[labels]
    for _ in range(5):
        gradient = (softmax(x @ w.T, 1) - wanted).T @ x / 40 + 0.3 * w
        v = 0.9 * v + gradient
        w = w - 0.02 * (gradient + 0.9 * v)
    options = {"epochs": 5, "batch_size": 40, "schedule": "constant"}
    train_classifier(net, images, labels, lr=0.02, weight_decay=0.3, **options)
    np.testing.assert_allclose(net[1].weight.detach(), w[:, :-1], atol=1e-4)
    np.testing.assert_allclose(net[1].bias.detach(), w[:, -1], atol=1e-4)


def test_every_epoch_learns_from_all_images_augmented_and_in_a_new_order():
    """What the augmentation returns is learned from: here black images, from which
    only the biases learn.
    """
    images, net, seen = pictures(), linear().eval(), []
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def black(batch):
        assert net.training
        seen.append(batch)
        return 0 * batch

    labels = torch.arange(40) % 3
    train_classifier(
        net, images, labels, epochs=2, augment=black, batch_size=16, weight_decay=0
    )
    assert [len(batch) for batch in seen] == [16, 16, 8] * 2
    orders = [
        [int((images == one).flatten(1).all(1).nonzero()) for one in torch.cat(epoch)]
        for epoch in (seen[:3], seen[3:])
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1] and list(range(40)) not in orders
    assert torch.equal(net[1].weight, before["1.weight"])
    assert not torch.equal(net[1].bias, before["1.bias"])


@pytest.mark.parametrize("size", [8, 13])
def test_logits_are_those_of_the_layers_by_hand(size):
    """In training, so that the statistics are those of the batch."""
    net, images = convolutional_classifier(4, 3, (5, 6)), pictures(7, 3, size)
    with torch.no_grad():
        y = images
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                y = nn.functional.conv2d(y, layer.weight, padding=1)
                centred = y - y.mean((0, 2, 3), keepdim=True)
                variance = centred.square().mean((0, 2, 3), keepdim=True)
                y = (centred / (variance + 1e-5).sqrt()).relu()
                odd = y.shape[3] % 2  # what is missing to whole squares is not seen
                y = nn.functional.pad(y, (0, odd, 0, odd), value=-1)
                y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
        y = y.mean((2, 3))
        y = y - y.mean(1, keepdim=True)
        y = y / (y.square().mean(1, keepdim=True) + 1e-5).sqrt()
        expected = y @ net[-1].weight.T + net[-1].bias
        np.testing.assert_allclose(net.train()(images), expected, atol=1e-4)


def test_all_first_weights_come_from_the_seed():
    nets = [convolutional_classifier(4, widths=(3,), seed=seed) for seed in (1, 1, 2)]
    for layer, same, other in zip(*nets, strict=True):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert torch.equal(layer.weight, same.weight)
            assert not torch.equal(layer.weight, other.weight)


def test_images_are_classified_in_batches_of_the_size_asked_for(network):
    sizes = []
    hook = network.register_forward_hook(lambda _, x, y: sizes.append(len(y)))
    try:
        logits_of(network, pictures(20), 9)
    finally:
        hook.remove()
    assert sizes == [9, 9, 2]


def step_sizes(schedule):
    seen = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"])
    )
    try:
        labels = torch.arange(40) % 4
        options = {"epochs": 3, "batch_size": 16, "lr": 0.1, "schedule": schedule}
        train_classifier(linear(), pictures(), labels, **options)
    finally:
        hook.remove()
    return seen


def test_step_sizes_follow_the_schedule():
    np.testing.assert_allclose(step_sizes("constant"), np.full(9, 0.1))
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(9) / 9))
    np.testing.assert_allclose(step_sizes("cosine"), expected)


def test_training_is_deterministic_and_leaves_the_callers_random_numbers():
    images, labels = pictures(), torch.arange(40) % 4

    def run(seed):
        net = convolutional_classifier(4, widths=(3,), seed=seed)
        state = torch.get_rng_state()
        history = train_classifier(
            net, images, labels, epochs=2, augment=random_shift, seed=seed
        )
        assert torch.equal(torch.get_rng_state(), state)
        assert not net.training
        return history, logits_of(net, images)

    (history, logits), again, other = run(1), run(1), run(2)
    assert len(history) == 2
    assert history == again[0]
    assert torch.equal(logits, again[1])
    assert not torch.equal(logits, other[1])


def test_a_diverging_loss_is_reported():
    with pytest.raises(FloatingPointError, match="loss: expected a finite value"):
        train_classifier(linear(), pictures(), torch.arange(40) % 4, epochs=9, lr=1e30)


def test_symmetries_are_the_eight_of_the_square():
    image = torch.arange(9.0).view(1, 1, 3, 3) / 9
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = random_symmetry(image.expand(800, 1, 3, 3))
    expected = {
        tuple(np.rot90(side, k).ravel().tolist())
        for side in (image[0, 0].numpy(), image[0, 0].numpy()[:, ::-1])
        for k in range(4)
    }
    times = Counter(tuple(one.flatten().tolist()) for one in drawn)
    assert set(times) == expected
    assert min(times.values()) > 50  # of 100 on average


def test_shifts_reach_as_far_as_they_may():
    image = torch.zeros(1, 1, 7, 7)
    image[..., 3, 3] = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = random_shift(image.expand(400, 1, 7, 7), 2)
    places = {tuple(one[0].nonzero()[0].tolist()) for one in drawn}
    assert places == {(y, x) for y in range(1, 6) for x in range(1, 6)}


def test_training_makes_a_good_classifier_and_that_a_good_open_set_one():
    """Digits: six known, four unknown, a split of the literature."""
    x, y = load_digits(return_X_y=True)
    x, known = torch.from_numpy(x / 16).float().view(-1, 1, 8, 8), [2, 4, 5, 9, 8, 3]
    labels = torch.tensor([known.index(c) if c in known else UNKNOWN for c in y])
    rows = torch.arange(len(x))
    train, test = (labels >= 0) & (rows < 1000), rows >= 1000
    areas, accuracies = [], []
    for epochs in (1, 15):
        net = convolutional_classifier(6, widths=(16, 32))
        train_classifier(
            net,
            x[train],
            labels[train],
            epochs=epochs,
            augment=partial(random_shift, reach=1),
        )
        logits = logits_of(net, x[test])
        scores, is_known = max_logit_score(logits), labels[test] >= 0
        correct = (logits.argmax(1) == labels[test])[is_known]
        m = open_set_measures(scores[is_known], correct, scores[~is_known])
        areas.append(m.auroc), accuracies.append(m.accuracy)
    assert accuracies[1] > 0.93
    assert areas[1] > 0.85
    assert areas[1] > areas[0] + 0.05


# Bad input


EIGHT, FIVE = np.linspace(-2, 5, 8), LABELS[:5]
EQUAL = np.eye(2).repeat(2, 0), [0, 0, 1, 1]


def openmax(labels=(0, 1, 2) * 3, **options):
    logits = torch.cat([VECTORS[:, :3], VECTORS[:1, 3:6]])
    logits += 5 * torch.eye(3).repeat(3, 1)
    return OpenMax(**{"tail_size": 2} | options).fit(logits, labels)


def flat(n=3, last=None):
    return nn.Sequential(nn.Flatten(), nn.Linear(30, n), last or nn.Identity())


def opened(score="energy", fpr=0.5, **options):
    return OpenSetClassifier(flat(**options), score, fpr).fit(IMAGES)


def trained(labels=LABELS, images=IMAGES, **options):
    return train_classifier(flat(), images, labels, **options)


test_bad_input = refuses(
    (lambda: msp_score(EIGHT), ValueError, "logits…(N, D)…(8,)"),
    (lambda: msp_score(spoiled(VECTORS, NAN)), ValueError, "logits…1 that"),
    (lambda: msp_score("logits"), TypeError, "logits…str"),
    (lambda: max_logit_score(VECTORS[:, :1]), ValueError, "logits…L >= 2"),
    (lambda: energy_score(VECTORS, 0), ValueError, "temperature…(0…0"),
    (lambda: energy_score(VECTORS, "1"), TypeError, "temperature…str"),
    (lambda: OpenMax(1), ValueError, "tail_size…[2…1"),
    (lambda: OpenMax(alpha=0), ValueError, "alpha…0"),
    (lambda: openmax(alpha=4), ValueError, "alpha…[1, 3]…4"),
    (lambda: openmax(tail_size=4), ValueError, "labels…tail_size=4…3 of class 0"),
    (lambda: OpenMax()(VECTORS), NotFittedError, "openmax…fit("),
    (lambda: openmax()(VECTORS), ValueError, "logits…(N, 3)…(8, 30)"),
    (lambda: openmax(LABELS), ValueError, "labels…(9,)…(8,)"),
    (lambda: openmax(np.ones(9)), TypeError, "labels…float64"),
    (lambda: openmax([0, 1, 3] * 3), ValueError, "labels…0 to 2…to 3"),
    (lambda: openmax([-1, 0, 1] * 3), ValueError, "labels…0 to 2…from -1"),
    (lambda: OpenMax(2).fit(*EQUAL), ValueError, "logits…class 0…all 0"),
    (lambda: fit_weibull([2.0, 2, 2]), ValueError, "distances…different"),
    (lambda: fit_weibull([0.0, 1, 2]), ValueError, "distances…positive"),
    (lambda: open_set_measures(EIGHT, FIVE, EIGHT), ValueError, "known_correct…(8,)"),
    (lambda: OpenSetClassifier(len), TypeError, "classifier…network…builtin"),
    (lambda: opened("logit"), ValueError, "score…'max-logit'…'logit'"),
    (lambda: opened(fpr=0.1), ValueError, "images…at least 9…8"),
    (lambda: opened(n=1), ValueError, "classifier…L >= 2…(8, 1)"),
    (lambda: logits_of(nn.Identity(), IMAGES), ValueError, "classifier…(8, 1, 6, 5)"),
    (lambda: opened(last=nn.Softmax(1)), ValueError, "classifier…got probabilities"),
    (lambda: convolutional_classifier(1), ValueError, "n_classes…1"),
    (lambda: convolutional_classifier(3, 2), ValueError, "channels…1, 3…2"),
    (lambda: convolutional_classifier(3, widths=(4, 0)), ValueError, "widths…0"),
    (lambda: random_symmetry(IMAGES), ValueError, "images…square…(8, 1, 6, 5)"),
    (lambda: random_shift(IMAGES, -1), ValueError, "reach…-1"),
    (lambda: trained(epochs=0), ValueError, "epochs…0"),
    (lambda: trained(schedule="linear"), ValueError, "schedule…'cosine'…'linear'"),
    (lambda: trained(label_smoothing=1), ValueError, "label_smoothing…[0, 1)"),
    (lambda: trained(lr=0), ValueError, "lr…0"),
    (lambda: trained(weight_decay=-1), ValueError, "weight_decay…-1"),
    (lambda: trained(batch_size=0), ValueError, "batch_size…0"),
    (lambda: trained(LABELS + 2), ValueError, "labels…0 to 2…to 3"),
    (lambda: trained(images=IMAGES * 255), ValueError, "images…[0, 1]"),
)
