"""GeoTrans, against NumPy, SciPy's optimiser and closed forms."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from bad_input import IMAGES, refuses
from torch.optim.optimizer import register_optimizer_step_post_hook

from adlab import metrics
from adlab.geotrans import (
    GeoTrans,
    WideResNet,
    dirichlet_score,
    fit_dirichlet,
    inverse_digamma,
    softmax_score,
    transform,
    transform_each,
    transformation_set,
)
from adlab.vectors import Gaussian, PixelGaussian

QUICK = {"transformations": 8, "epochs": 3, "widths": (3, 4, 5), "lr": 1e-2}
SETS = pytest.mark.parametrize("which", [8, 24, 72, "non-geometric"])


def noise(n=3, channels=1, height=8, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width, generator=generator)


def pictures(n, size=8, channels=1, seed=0):
    """A bright corner and a bar, with noise: no symmetry."""
    images = 0.2 * noise(n, channels, size, size, seed)
    images[:, :, : size // 2, : size // 2] += 0.5
    images[:, :, -2:, size // 4 :] += 0.3
    return images


def log_posteriors(n, k, certainty=1.0, seed=0):
    """Log probabilities (n, k) as a classifier gives them, float64."""
    logits = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)).double()
    logits[:, 0] += 4 * certainty
    return torch.log_softmax(certainty * logits, 1)


# Transformations


@pytest.mark.parametrize("size", [8, 16, 28, 32])
@SETS
def test_all_transformations_of_a_set_are_different(which, size):
    names = transformation_set(which)
    assert len(set(names)) == len(names) == (8 if isinstance(which, str) else which)
    assert names[0] == "identity"
    copies = torch.stack([transform(noise(1, 3, size, size), name) for name in names])
    distance = torch.cdist(copies.flatten(1), copies.flatten(1))
    assert distance[~torch.eye(len(names), dtype=torch.bool)].min() > 0.1
    assert copies.min() >= 0
    assert copies.max() <= 1


REFERENCES = {
    "flip": lambda a: a[..., ::-1],
    "rot90": lambda a: np.rot90(a, 1, (2, 3)),
    "rot180": lambda a: a[..., ::-1, ::-1],
    "rot270": lambda a: np.rot90(a, -1, (2, 3)),
    "left": lambda a: scipy.ndimage.shift(a, (0, 0, 0, -3), order=0, mode="reflect"),
    "right": lambda a: scipy.ndimage.shift(a, (0, 0, 0, 3), order=0, mode="reflect"),
    "up": lambda a: scipy.ndimage.shift(a, (0, 0, -3, 0), order=0, mode="reflect"),
    "down": lambda a: scipy.ndimage.shift(a, (0, 0, 3, 0), order=0, mode="reflect"),
    "gamma": np.square,
}
BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def blurred(a):
    for axis in (2, 3):
        a = scipy.ndimage.correlate1d(a, BINOMIAL, axis, mode="nearest")
    return a


REFERENCES |= {
    "blur": blurred,
    "sharpen": lambda a: np.clip(2 * a - blurred(a), 0, 1),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_each_step_is_that_of_numpy_or_scipy(name):
    images = noise(2, 3, 12, 12)
    expected = REFERENCES[name](images.numpy())
    np.testing.assert_allclose(transform(images, name), expected, atol=1e-6)


def test_steps_are_done_from_left_to_right():
    images = noise()
    expected = transform(transform(transform(images, "flip"), "left"), "rot90")
    assert torch.equal(transform(images, "flip left rot90"), expected)
    assert not torch.equal(transform(images, "rot90 left flip"), expected)
    assert torch.equal(transform(images, "identity flip"), images.flip(3))


@pytest.mark.parametrize(
    "name", ["rot90 rot90 rot90 rot90", "flip flip", "rot90 rot270", "rot180 rot180"]
)
def test_what_is_undone_leaves_the_image(name):
    images = noise(height=7, width=7)
    assert torch.equal(transform(images, name), images)


def group_table(names):
    """Entry (i, j): which transformation does first i and then j; −1 for none."""
    images = noise()
    known = {bytes(transform(images, name).numpy()): k for k, name in enumerate(names)}
    return [
        [
            known.get(bytes(transform(images, f"{first} {second}").numpy()), -1)
            for second in names
        ]
        for first in names
    ]


def test_flips_and_rotations_are_the_dihedral_group():
    table = np.array(group_table(transformation_set(8)))
    for line in (*table, *table.T):  # closed, with an inverse on either side
        assert sorted(line) == list(range(8))
    np.testing.assert_array_equal(table[0], range(8))  # the identity
    for i, j, k in itertools.product(range(8), repeat=3):
        assert table[table[i, j], k] == table[i, table[j, k]]
    assert not (table == table.T).all()  # a flip and a turn do not commute


def test_with_shifts_it_is_no_group_as_what_leaves_the_image_is_lost():
    assert (np.array(group_table(transformation_set(24))) == -1).any()
    images = noise()
    assert not torch.equal(transform(images, "left right"), images)


def test_each_image_gets_its_own():
    images, names = noise(40, 3), transformation_set(72)
    labels = torch.randint(72, (40,), generator=torch.Generator().manual_seed(0))
    together = transform_each(images, labels, names)
    for image, label, copy in zip(images, labels, together, strict=True):
        assert torch.equal(copy, transform(image[None], names[label])[0])


def test_transformations_leave_their_input_alone():
    images = noise()
    before = images.clone()
    for name in (*transformation_set(72), *transformation_set("non-geometric")):
        transform(images, name).add_(1) if name != "identity" else None
        assert torch.equal(images, before)


def test_oblong_images_do_all_but_quarter_turns():
    images = noise(height=8, width=12)
    for name in ("flip rot180", "left up", "blur sharpen gamma"):
        assert transform(images, name).shape == images.shape
    for name in ("rot90", "flip rot270"):
        with pytest.raises(
            ValueError, match=r"images: expected H = W .*, got \(8, 12\)"
        ):
            transform(images, name)
    names = ("identity", "flip", "rot180", "left")
    model = GeoTrans(**QUICK | {"transformations": names}).fit(noise(12, 1, 8, 12))
    assert torch.isfinite(model.anomaly_score(images)).all()


# Classifier


def test_the_papers_network_has_its_number_of_parameters():
    network = WideResNet(1, 72, 10, (64, 128, 256))
    count = sum(p.numel() for p in network.parameters())
    stages = sum(
        a * b * 9 + b * b * 9 + a * b + 2 * a + 2 * b
        for a, b in [(16, 64), (64, 128), (128, 256)]
    )
    assert count == 16 * 9 + stages + 2 * 256 + 256 * 72 + 72 == 1_214_456
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 7


@pytest.mark.parametrize("depth", [10, 16])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 7, 9)])
def test_the_resolution_halves_twice(shape, depth):
    network = WideResNet(shape[0], 5, depth, (3, 4, 6)).eval()
    images = noise(2, *shape)
    maps = network.features[:-2](images)
    assert maps.shape == (2, 6, -(-shape[1] // 4), -(-shape[2] // 4))
    assert network(images).shape == (2, 5)


def test_the_classifier_sees_grey_as_zero():
    network = WideResNet(1, 4).eval()
    features = network.features(torch.zeros(1, 1, 8, 8))
    expected = network.classify(features)
    assert torch.equal(network(torch.full((1, 1, 8, 8), 0.5)), expected)


# Scores


def test_softmax_score_of_known_classifiers():
    perfect = torch.log_softmax(1000 * torch.eye(7).double(), 1)[None]
    wrong = perfect.roll(1, 2)
    uniform = torch.full((1, 7, 7), 1 / 7).double().log()
    scores = softmax_score(torch.cat([perfect, wrong, uniform]))
    np.testing.assert_allclose(scores, [0, 1, 1 - 1 / 7], atol=1e-12)


def test_softmax_score_is_in_the_unit_interval_and_as_defined():
    log_p = torch.log_softmax(3 * torch.randn(50, 6, 6).double(), 2)
    p = log_p.exp().numpy()
    expected = [1 - np.mean([p[n, i, i] for i in range(6)]) for n in range(50)]
    scores = softmax_score(log_p)
    np.testing.assert_allclose(scores, expected, atol=1e-14)
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_softmax_score_still_orders_what_is_all_but_certain():
    margins = torch.tensor([5.0, 10, 20, 30]).double()
    log_p = torch.log_softmax(margins[:, None, None] * torch.eye(3).double(), 2)
    assert (softmax_score(log_p).diff() < 0).all()


def test_inverse_digamma():
    y = torch.cat(
        [torch.linspace(-1e5, 0, 5000), torch.linspace(-5, 30, 5000)]
    ).double()
    x = inverse_digamma(y)
    assert x.min() > 0
    np.testing.assert_allclose(
        scipy.special.digamma(x.numpy()), y, rtol=1e-12, atol=1e-12
    )


def newton_step(log_p, alpha):
    """Relative change that Newton's method would make in each parameter: 0 where the
    likelihood is stationary.
    """
    digamma, trigamma = scipy.special.digamma(alpha), scipy.special.polygamma(1, alpha)
    gradient = scipy.special.digamma(alpha.sum()) - digamma + log_p.numpy().mean(0)
    return np.abs(gradient / (alpha * trigamma)).max()


def by_scipy(log_p):
    """The maximum likelihood estimate by a generic optimiser over log α, which stops
    early, and from there on by a generic root finder.
    """
    mean = log_p.numpy().mean(0)

    def slopes(log_alpha):
        alpha = np.exp(log_alpha)
        return scipy.special.digamma(alpha) - scipy.special.digamma(alpha.sum()) - mean

    def loss(log_alpha):
        alpha = np.exp(log_alpha)
        value = (
            scipy.special.gammaln(alpha).sum()
            - scipy.special.gammaln(alpha.sum())
            - (alpha - 1) @ mean
        )
        return value, alpha * slopes(log_alpha)

    def curvature(log_alpha):
        alpha = np.exp(log_alpha)
        trigamma = scipy.special.polygamma(1, np.append(alpha, alpha.sum()))
        return (np.diag(trigamma[:-1]) - trigamma[-1]) * alpha

    start = np.zeros(len(mean))
    near = scipy.optimize.minimize(loss, start, jac=True, options={"maxiter": 5000}).x
    root = scipy.optimize.root(slopes, near, jac=curvature, tol=1e-14).x
    return np.exp(root)


@pytest.mark.parametrize("k", [2, 4, 8, 24, 72])
@pytest.mark.parametrize("certainty", [0.2, 1, 2])
def test_dirichlet_is_that_of_a_generic_optimiser(k, certainty):
    log_p = log_posteriors(60, k, certainty)
    expected, got = by_scipy(log_p), fit_dirichlet(log_p).numpy()
    assert newton_step(log_p, expected) < 1e-13
    assert newton_step(log_p, got) < 1e-11
    np.testing.assert_allclose(got, expected, rtol=1e-7)


@pytest.mark.parametrize("certainty", [0.01, 0.3, 1, 3, 10, 100])
@pytest.mark.parametrize("n", [2, 10, 500])
def test_the_likelihood_is_stationary(n, certainty):
    log_p = log_posteriors(n, 12, certainty)
    assert newton_step(log_p, fit_dirichlet(log_p).numpy()) < 1e-8


def test_known_parameters_come_back():
    alpha = np.array([8, 1, 0.5, 2])
    draws = np.random.default_rng(0).dirichlet(alpha, size=5000)
    estimate = fit_dirichlet(torch.from_numpy(draws).log())
    np.testing.assert_allclose(estimate, alpha, rtol=0.02)


def test_distributions_are_fitted_each_on_its_own():
    log_p = torch.stack([log_posteriors(30, 5, c, seed=1) for c in (0.3, 1, 20)], 1)
    expected = torch.stack([fit_dirichlet(log_p[:, i]) for i in range(3)])
    np.testing.assert_allclose(fit_dirichlet(log_p), expected, rtol=1e-9)


def test_vectors_that_do_not_vary_give_a_finite_answer():
    log_p = log_posteriors(1, 6).repeat(4, 1)
    alpha = fit_dirichlet(log_p)
    assert torch.isfinite(alpha).all()
    np.testing.assert_allclose(alpha / alpha.sum(), log_p[0].exp(), rtol=1e-6)


def test_dirichlet_score_is_minus_the_log_density_of_scipy():
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.2, 9, size=(5, 5))
    p = rng.dirichlet(np.ones(5), size=(20, 5))
    expected = [
        -sum(scipy.stats.dirichlet.logpdf(p[n, i], alpha[i]) for i in range(5))
        for n in range(20)
    ]
    scores = dirichlet_score(torch.from_numpy(p).log(), torch.from_numpy(alpha))
    np.testing.assert_allclose(scores, expected, rtol=1e-10)


def test_dirichlet_score_ranks_as_the_papers_without_constants():
    log_p = log_posteriors(200, 4).view(50, 4, 4)
    alpha = fit_dirichlet(log_p)
    plain = -((alpha - 1) * log_p).sum((1, 2))
    difference = dirichlet_score(log_p, alpha) - plain
    np.testing.assert_allclose(difference, difference[0].expand(50), rtol=1e-9)


# The detector


def fitted(**options):
    return GeoTrans(**QUICK | options).fit(pictures(24))


def test_scores_are_made_of_the_log_posteriors():
    model, test = fitted(), pictures(6, seed=1)
    log_p = model.log_posteriors(test)
    assert log_p.shape == (6, 8, 8)
    np.testing.assert_allclose(log_p.exp().sum(2), 1, rtol=1e-5)
    with torch.no_grad():
        logits = model.network_(transform(test, model.names[3]))
    np.testing.assert_allclose(log_p[:, 3], torch.log_softmax(logits, 1), atol=1e-5)
    with torch.no_grad():
        expected = dirichlet_score(model._log_posteriors(test), model.alpha_)
    np.testing.assert_allclose(model.anomaly_score(test), expected, rtol=1e-5)
    model.score = "softmax"
    np.testing.assert_allclose(
        model.anomaly_score(test), softmax_score(log_p), atol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_what_the_last_layer_of_the_classifier_reads(channels):
    options = QUICK | {"epochs": 10}
    model = GeoTrans(**options).fit(pictures(24, channels=channels))
    test = pictures(6, channels=channels, seed=1)
    with torch.no_grad():
        logits = model.network_.classify(model.features(test))
    untouched = model.names.index("identity")
    expected = model.log_posteriors(test)[:, untouched]
    np.testing.assert_allclose(logits.log_softmax(1), expected, atol=1e-5)


def test_the_weights_of_the_classifier_decay():
    """By the 5e-4 of wide residual networks, at every step."""
    seen = set()
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: seen.add(optimizer.param_groups[0]["weight_decay"])
    )
    try:
        fitted()
    finally:
        hook.remove()
    assert seen == {5e-4}


def test_two_steps_are_features_and_then_a_detector():
    images, test = pictures(24), pictures(6, seed=1)
    judge = Gaussian(reg_covar=0.01)
    model = fitted(score=judge, val_fraction=0, batch_size=7, device="cpu", epochs=10)
    assert (judge.device, model.detector_.device) == ("auto", "cpu")
    features = model.features(images)
    assert features.shape == (24, 5)
    assert float(features.std(0).max()) > 1e-3  # or nothing would be compared
    expected = Gaussian(reg_covar=0.01).fit(features)
    np.testing.assert_allclose(
        model.anomaly_score(test),
        expected.anomaly_score(model.features(test)),
        rtol=1e-3,
    )
    with pytest.raises(Exception, match="call fit"):
        model.score.anomaly_score(features)  # the reader's own is left alone


def seen_while_fitting(monkeypatch, **options):
    """What the classifier was trained on, and what the Dirichlet was fitted to."""
    seen = {}
    optimise, fit_scores = GeoTrans._optimise, GeoTrans._fit_scores

    def spy_optimise(self, network, loss, images, **options):
        seen["classifier"] = images
        return optimise(self, network, loss, images, **options)

    def spy_fit_scores(self, held_out):
        seen["scores"] = held_out
        fit_scores(self, held_out)

    monkeypatch.setattr(GeoTrans, "_optimise", spy_optimise)
    monkeypatch.setattr(GeoTrans, "_fit_scores", spy_fit_scores)
    model = fitted(**options)
    return model, seen["classifier"], seen["scores"]


@pytest.mark.parametrize(("val_fraction", "expected"), [(0.25, 6), (0.5, 12), (0.1, 2)])
def test_the_scores_are_fitted_to_images_the_classifier_has_not_seen(
    monkeypatch, val_fraction, expected
):
    model, known, held_out = seen_while_fitting(
        monkeypatch, val_fraction=val_fraction, batch_size=5
    )
    assert (len(known), len(held_out)) == (24 - expected, expected)
    together = torch.cat([known, held_out]).flatten(1)
    assert torch.equal(
        torch.unique(together, dim=0), torch.unique(pictures(24).flatten(1), dim=0)
    )
    with torch.no_grad():
        log_p = model._log_posteriors(held_out)
    np.testing.assert_allclose(model.alpha_, fit_dirichlet(log_p), rtol=1e-6)


def test_which_images_are_held_out_is_drawn_from_the_seed(monkeypatch):
    draws = [seen_while_fitting(monkeypatch, seed=seed)[2] for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_no_batch_of_the_training_is_much_smaller_than_the_others(monkeypatch):
    sizes, forward = [], WideResNet.forward

    def spy(self, images):
        if self.training:
            sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(WideResNet, "forward", spy)
    fitted(val_fraction=0, batch_size=23)
    assert sizes == [12] * 6  # and not 23 and 1


def test_each_image_of_a_batch_gets_a_transformation_of_its_own(monkeypatch):
    """All of them come up, and about as often."""
    copies, forward = [], WideResNet.forward

    def spy(self, images):
        if self.training:
            copies.append(images.clone())
        return forward(self, images)

    monkeypatch.setattr(WideResNet, "forward", spy)
    image = pictures(1)
    GeoTrans(**QUICK | {"epochs": 10}, val_fraction=0).fit(image.repeat(40, 1, 1, 1))
    wanted = torch.cat([transform(image, name) for name in transformation_set(8)])
    found = (torch.cat(copies)[:, None] == wanted).flatten(2).all(2)
    assert (found.sum(1) == 1).all()
    assert int(found.sum(0).min()) > 20  # of 50 on average
    for one in found.split(40):
        assert int(one.any(0).sum()) > 3


def test_without_a_holdout_the_scores_are_fitted_as_in_the_paper(monkeypatch):
    _, known, held_out = seen_while_fitting(monkeypatch, val_fraction=0)
    assert len(known) == len(held_out) == 24


def test_copies_are_made_batch_by_batch(monkeypatch):
    """However many transformations, the network never gets more than a batch."""
    sizes = []
    forward = WideResNet.forward

    def spy(self, images):
        sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(WideResNet, "forward", spy)
    model = fitted(transformations=72, batch_size=10)
    assert max(sizes) <= 10
    assert sum(sizes) == 3 * 18 + 72 * 6  # three epochs, and the hold-out once
    sizes.clear()
    model.anomaly_score(pictures(25))
    assert max(sizes) <= 10
    assert sum(sizes) == 72 * 25


def test_a_certain_classifier_gives_no_infinity():
    model, test = fitted(), pictures(6, seed=1)
    with torch.no_grad():
        model.network_.classify.weight.mul_(1e4)
    for score in ("softmax", "dirichlet"):
        model.score = score
        assert torch.isfinite(model.anomaly_score(test)).all()
    assert torch.isfinite(model.log_posteriors(test)).all()
    assert model.log_posteriors(test).exp().min() == 0  # where a plain log gives −inf


def test_training_teaches_the_transformations_and_what_is_odd():
    model = GeoTrans(8, epochs=40, widths=(4, 8, 8), lr=1e-2).fit(pictures(60))
    assert model.history_[-1] < 0.5 * model.history_[0]
    normal = pictures(20, seed=1)
    recognised = model.log_posteriors(normal).argmax(2) == torch.arange(8)
    assert recognised.float().mean() > 0.95
    odd = 0.2 * noise(20, seed=2)
    odd[:, :, 3:5] += 0.5  # a bar across, the same for eyes turned upside down
    labels = [0] * 20 + [1] * 20
    for score in ("softmax", "dirichlet"):
        model.score = score
        scores = model.anomaly_score(torch.cat([normal, odd]))
        assert metrics.auroc(scores, labels) > 0.9, score


def test_symmetric_images_cannot_be_told_apart():
    """Where normal images look the same turned, chance is the best there is."""
    images = pictures(40)
    round_ones = sum(transform(images, name) for name in transformation_set(8)) / 8
    model = GeoTrans(8, epochs=40, widths=(4, 8, 8), lr=1e-2).fit(round_ones)
    assert model.history_[-1] > 0.9 * np.log(8)
    model.score = "softmax"
    assert abs(model.anomaly_score(round_ones).mean() - 7 / 8) < 0.05


def test_bad_images_are_refused_and_leave_the_detector():
    model = fitted()
    with pytest.raises(ValueError, match="expected H = W"):
        model.fit(noise(12, 1, 8, 12))
    with pytest.raises(ValueError, match="at least 2 on both sides of val_fraction"):
        model.fit(pictures(5))
    with pytest.raises(ValueError, match="expected shape"):
        model.anomaly_score(pictures(3, size=12))
    assert torch.isfinite(model.anomaly_score(pictures(3))).all()
    with pytest.raises(ValueError, match="at least 4 to shift"):
        fitted(transformations=72).fit(noise(12, 1, 3, 3))
    assert len(GeoTrans(**QUICK).fit(noise(12, 1, 3, 3)).alpha_) == 8


# Bad input


EIGHT, FEW, TINY = GeoTrans(8), IMAGES[:4], IMAGES[..., :3, :3]
SAME = ["rot90", "flip", "flip flip flip"]


test_bad_input = refuses(
    (lambda: GeoTrans(9), ValueError, "transformations…72…9"),
    (lambda: GeoTrans("rot90"), ValueError, "transformations…'rot90'"),
    (lambda: GeoTrans(8.0), TypeError, "transformations…8.0"),
    (lambda: GeoTrans(("flip", "turn")), ValueError, "transformations…'turn'"),
    (lambda: GeoTrans(["flip"]), ValueError, "transformations…at least 2…1"),
    (lambda: GeoTrans(SAME), ValueError, "transformations…different…'flip'"),
    (lambda: GeoTrans(score="entropy"), ValueError, "score…softmax…'entropy'"),
    (lambda: GeoTrans(score=PixelGaussian()), TypeError, "score…vectors…PixelGaussian"),
    (lambda: GeoTrans(depth=11), ValueError, "depth…16…11"),
    (lambda: GeoTrans(widths=(8, 16)), ValueError, "widths…3…2"),
    (lambda: GeoTrans(epochs=0), ValueError, "epochs…[1…0"),
    (lambda: GeoTrans(batch_size=1), ValueError, "batch_size…[2…1"),
    (lambda: GeoTrans(val_fraction=1), ValueError, "val_fraction…1)…1"),
    (lambda: GeoTrans(8).fit(IMAGES), ValueError, "images…H = W…(6, 5)"),
    (lambda: GeoTrans().fit(TINY), ValueError, "images…at least 4…(3, 3)"),
    (lambda: EIGHT.fit(FEW), ValueError, "images…at least 2…val_fraction = 0.25…1"),
    (lambda: transform(IMAGES, "flip twist"), ValueError, "name…flip…'twist'"),
    (lambda: transform(IMAGES, "rot270"), ValueError, "images…H = W…(6, 5)"),
    (lambda: transformation_set(16), ValueError, "which…72…16"),
)
