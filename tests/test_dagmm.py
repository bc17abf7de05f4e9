"""DAGMM, against torch.distributions, scikit-learn and closed forms."""

import numpy as np
import pytest
import torch
from bad_input import refuses
from sklearn.mixture import GaussianMixture as ReferenceMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import adlab
from adlab import metrics
from adlab.dagmm import (
    DAGMM,
    covariance_penalty,
    energy,
    estimation_network,
    with_reconstruction_features,
)
from adlab.data import ImageSet
from adlab.vectors import cholesky_factors, m_step

QUICK = {"epochs": 3, "width": 4, "lr": 3e-3}


def pictures(n, channels=1, height=9, width=7, seed=0):
    """Smooth images in [0, 1] that lie near a plane."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, width).expand(channels, height, width)
    amounts = torch.rand(n, 1, 1, 1, generator=generator)
    return (
        amounts * ramp
        + 0.1 * torch.rand(n, channels, height, width, generator=generator)
    ).clamp(0, 1)


def vectors(n, d=6, seed=0):
    return 50 + pictures(n, 1, 1, d, seed).flatten(1) * torch.arange(1, d + 1)


inputs = pytest.mark.parametrize("make", [pictures, vectors])


def mixture(k=3, d=4, seed=0):
    """Vectors z (60, d), and weights, means and covariances, all float64."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(size=(60, d)) * rng.uniform(0.2, 3, d))
    gamma = torch.from_numpy(rng.dirichlet(np.ones(k), size=60))
    return z, *m_step(z, gamma, reg_covar=1e-3)


# The parts


@pytest.mark.parametrize("seed", range(5))
def test_energy_is_minus_the_log_density_of_torch(seed):
    z, weights, means, covariances = mixture(seed=seed)
    expected = MixtureSameFamily(
        Categorical(weights), MultivariateNormal(means, covariances)
    )
    far = torch.cat([z, 1e3 * z])  # where densities underflow
    ours = energy(far, weights, means, cholesky_factors(covariances))
    np.testing.assert_allclose(ours, -expected.log_prob(far), rtol=1e-10)


def test_far_energies_are_not_tied():
    _, weights, means, covariances = mixture()
    far = torch.linspace(1e2, 1e4, 50, dtype=torch.float64)[:, None].expand(-1, 4)
    energies = energy(far, weights, means, cholesky_factors(covariances))
    assert (energies.diff() > 0).all()


def test_energy_does_not_depend_on_the_order_of_components():
    z, weights, means, covariances = mixture()
    factors, order = cholesky_factors(covariances), torch.tensor([2, 0, 1])
    there, here = (
        energy(z, weights, means, factors),
        energy(z, weights[order], means[order], factors[order]),
    )
    np.testing.assert_allclose(there, here, rtol=1e-12)


def test_energy_has_the_right_gradient():
    z, weights, means, covariances = mixture()
    z = z[:5].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: energy(z, weights, means, cholesky_factors(covariances)), z
    )


def test_estimated_mixture_of_sklearns_responsibilities_is_one_m_step():
    z = mixture()[0]
    reference = ReferenceMixture(
        3, random_state=0, tol=1e-10, max_iter=2000, reg_covar=1e-3
    ).fit(z.numpy())
    gamma = torch.from_numpy(reference.predict_proba(z.numpy()))
    weights, means, covariances = m_step(z, gamma, reg_covar=1e-3)
    np.testing.assert_allclose(weights, reference.weights_, atol=1e-4)
    np.testing.assert_allclose(means, reference.means_, atol=1e-3)
    np.testing.assert_allclose(covariances, reference.covariances_, atol=1e-3)


def test_penalty_is_the_sum_of_inverse_variances_and_punishes_small_ones():
    covariances = torch.tensor([[[2.0, 0.5], [0.5, 4]], [[0.1, 0], [0, 1]]]).double()
    assert float(covariance_penalty(covariances)) == pytest.approx(0.5 + 0.25 + 10 + 1)
    assert covariance_penalty(covariances / 10) > covariance_penalty(covariances)


def test_reconstruction_features_are_relative_distance_and_cosine():
    x = torch.tensor([[3.0, 4], [1, 0], [1, 0]])
    y = torch.tensor([[3.0, 4], [0, 2], [-2, 0]])
    z = with_reconstruction_features(torch.tensor([[7.0], [8], [9]]), x, y)
    np.testing.assert_allclose(z, [[7, 0, 1], [8, 5**0.5, 0], [9, 3, -1]], atol=1e-6)
    assert z.dtype == torch.float64
    black = torch.zeros(1, 2)
    assert torch.isfinite(
        with_reconstruction_features(torch.zeros(1, 1), black, y[:1])
    ).all()


def test_half_of_the_hidden_units_drop_out_in_training_and_none_in_scoring():
    """All hidden units are 1, and each adds 1/4 to the first logit, doubled where half
    of them drop out: so the logit tells how many were left.
    """
    network = estimation_network(3, 2)
    first, last = (m for m in network.modules() if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(100)
        last.weight.copy_(torch.tensor([[0.25], [0.0]]).expand_as(last.weight))
        last.bias.zero_()
    z = torch.zeros(4000, 3, dtype=torch.float64)
    with torch.no_grad(), adlab.training.seeded(0):
        left = network.train()(z)[:, 0].logit() / 0.25 / 2
        whole = network.eval()(z)[:, 0].logit() / 0.25
    units = last.in_features
    np.testing.assert_allclose(left, left.round(), atol=1e-9)
    assert float(left.mean()) == pytest.approx(units / 2, rel=0.03)  # 6 sigma
    assert float(left.var()) == pytest.approx(units / 4, rel=0.15)
    np.testing.assert_allclose(whole, units)


# The detector


@pytest.mark.parametrize("epochs", [0, 3])
@inputs
def test_mixture_is_that_of_the_whole_training_set(make, epochs):
    train = make(50)
    options = QUICK | {"epochs": epochs, "reg_covar": 0.02}
    model = DAGMM(3, batch_size=16, **options).fit(train)
    with torch.no_grad():
        z = model.represent(train).double()
        gamma = model.estimation_(z)
        assert torch.equal(gamma, model.estimation_(z))  # dropout is off
        expected = m_step(z, gamma, reg_covar=0.02)
    for there, here in zip(
        (model.weights_, model.means_, model.covariances_), expected, strict=True
    ):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)


def test_no_batch_of_the_training_is_much_smaller_than_the_others(monkeypatch):
    """It would have a mixture of its own, of a few samples."""
    sizes, terms = [], DAGMM.loss_terms

    def spy(self, x, rows):
        sizes.append(len(rows))
        return terms(self, x, rows)

    monkeypatch.setattr(DAGMM, "loss_terms", spy)
    DAGMM(batch_size=23, **QUICK).fit(vectors(24))
    assert sizes == [12] * 6  # and not 23 and 1


@pytest.mark.parametrize("seed", range(20))
@inputs
def test_no_seed_gives_nan(make, seed):
    train, test = make(60, seed=seed), make(9, seed=100 + seed)
    model = DAGMM(4, epochs=30, width=4, lr=1e-2, seed=seed).fit(train)
    assert np.isfinite(model.history_).all()
    assert torch.isfinite(model.anomaly_score(test)).all()
    assert torch.isfinite(model.anomaly_score(test * 0)).all()


@inputs
def test_odd_samples_score_higher_after_training(make):
    train, normal = make(100), make(40, seed=1)
    odd = normal.flip(-1)
    model = DAGMM(2, 1, epochs=150, width=8, lr=1e-2).fit(train)
    assert model.history_[-1] < model.history_[0]
    scores = model.anomaly_score(torch.cat([normal, odd]))
    assert metrics.auroc(scores, [0] * 40 + [1] * 40) > 0.8  # higher = more anomalous


def test_loss_is_its_three_terms():
    train = pictures(30)
    model = DAGMM(energy_weight=0.3, penalty_weight=0.02, **QUICK).fit(train)
    with torch.no_grad():
        error, mean_energy, penalty = model.loss_terms(train)
        assert float(model._loss(train)) == pytest.approx(
            float(error + 0.3 * mean_energy + 0.02 * penalty)
        )
        _, rebuilt = model.compression_(train)
    assert float(error) == pytest.approx(
        float((train - rebuilt).square().sum() / 30), rel=1e-5
    )
    assert float(mean_energy) == pytest.approx(
        float(model.anomaly_score(train).mean()), rel=1e-4
    )
    assert float(penalty) == pytest.approx(
        float(covariance_penalty(model.covariances_)), rel=1e-4
    )


@inputs
def test_parts_of_a_training_batch_do_not_show(make, monkeypatch):
    """Values and gradients are those of the whole batch, though it is never there."""
    model = DAGMM(**QUICK).fit(make(30))

    def loss_and_gradients():
        loss = model._loss(make(20, seed=1))
        networks = (model.compression_, model.estimation_)
        weights = [p for network in networks for p in network.parameters()]
        return loss, *torch.autograd.grad(loss, weights)

    whole, sizes, see = loss_and_gradients(), [], DAGMM._see
    monkeypatch.setattr("adlab.dagmm.split_by_pixels", lambda batch: batch.split(7))
    monkeypatch.setattr(
        DAGMM, "_see", lambda self, part: sizes.append(len(part)) or see(self, part)
    )
    for here, there in zip(loss_and_gradients(), whole, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
    assert set(sizes) == {7, 6}
    assert len(sizes) == 6  # forward, and once more for the gradient


@inputs
def test_rows_of_the_samples_are_the_batch_that_they_make(make):
    x, rows = make(30), torch.tensor([7, 2, 29, 11, 0])
    model = DAGMM(**QUICK).fit(x)
    torch.testing.assert_close(model.loss_terms(x, rows), model.loss_terms(x[rows]))


def test_both_networks_learn_from_the_energy():
    """So the compression learns what is easily described by a mixture."""
    model = DAGMM(**QUICK).fit(pictures(30))
    _, mean_energy, _ = model.loss_terms(pictures(30))
    for network in (model.compression_.encoder, model.estimation_):
        weights = list(network.parameters())
        gradients = torch.autograd.grad(mean_energy, weights, retain_graph=True)
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0


def test_without_epochs_the_networks_are_random():
    model = DAGMM(epochs=0).fit(pictures(30))
    assert model.history_ == []
    assert torch.isfinite(model.anomaly_score(pictures(5, seed=1))).all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (1, 1, 5), (3, 16, 33)])
def test_images_of_any_shape_are_rebuilt_in_that_shape(shape):
    model = DAGMM(**QUICK).fit(pictures(12, *shape))
    _, rebuilt = model.compression_(pictures(2, *shape))
    assert rebuilt.shape == (2, *shape)
    assert model.represent(pictures(2, *shape)).shape == (2, 4)


def test_units_of_vectors_do_not_matter():
    train, test = vectors(40), vectors(9, seed=1)
    there = DAGMM(**QUICK).fit(train).anomaly_score(test)
    here = DAGMM(**QUICK).fit(train * 1000 - 7).anomaly_score(test * 1000 - 7)
    np.testing.assert_allclose(there, here, rtol=1e-2, atol=1e-2)


def test_constant_features_and_all_forms_of_images():
    train = torch.cat([vectors(30), torch.ones(30, 1)], 1)
    assert torch.isfinite(DAGMM(**QUICK).fit(train).anomaly_score(train + 1)).all()
    images = pictures(20)
    expected = DAGMM(**QUICK).fit(images).anomaly_score(images)
    for form in (
        ImageSet(images),
        images.numpy(),
        list(images),
        torch.utils.data.DataLoader(images, 7),
    ):
        np.testing.assert_allclose(
            DAGMM(**QUICK).fit(form).anomaly_score(form), expected, rtol=1e-4
        )


test_bad_input = refuses(
    (lambda: DAGMM(batch_size=1), ValueError, "batch_size…[2…1"),
)


def test_bad_samples_are_refused_and_leave_the_detector():
    with pytest.raises(ValueError, match="at least 3 samples, got 2"):
        DAGMM(3).fit(pictures(2))
    model = DAGMM(**QUICK).fit(pictures(20))
    with pytest.raises(ValueError, match="expected shape"):
        model.anomaly_score(pictures(2, height=8))
    with pytest.raises(ValueError, match="at least 2 samples"):
        model.fit(pictures(1))
    assert torch.isfinite(model.anomaly_score(pictures(2))).all()
