"""The Gaussian mixture and its EM steps, against scikit-learn, torch.distributions and closed forms."""

import numpy as np
import pytest
import torch
from bad_input import refuses
from sklearn.mixture import GaussianMixture as ReferenceMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.utils.data import DataLoader

import adlab
from adlab.data import ImageSet
from adlab.vectors import (
    Gaussian,
    GaussianMixture,
    Patchwise,
    cholesky_factors,
    e_step,
    log_density,
    m_step,
)

TYPES = {
    "full": "full",
    "tied": "tied",
    "diag": "diag",
}  # ours -> scikit-learn's name
each_type = pytest.mark.parametrize("covariance_type", TYPES)


def clouds(n=150, d=3, k=4, seed=0):
    """Vectors (n·k, d), float64, from k Gaussians of different shapes."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 4 * rng.normal(size=d)
        for _ in range(k)
    ]
    return torch.from_numpy(np.concatenate(parts))


def soft(n, k, seed=0):
    """Responsibilities (n, k)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, dtype=torch.float64, generator=generator).softmax(1)


def reference(x, start, covariance_type, **options):
    """scikit-learn's EM from the parameters that our first M step gives."""
    weights, means, covariances = m_step(x, start, covariance_type, 1e-6)
    precisions = (
        1 / covariances if covariance_type == "diag" else torch.linalg.inv(covariances)
    )
    return ReferenceMixture(
        start.shape[1],
        covariance_type=TYPES[covariance_type],
        weights_init=weights.numpy(),
        means_init=means.numpy(),
        precisions_init=(
            precisions[0] if covariance_type == "tied" else precisions
        ).numpy(),
        **options,
    ).fit(x.numpy())


# The steps


@each_type
def test_log_density_is_that_of_torch(covariance_type):
    x = clouds()
    _, means, covariances = m_step(x, soft(len(x), 4), covariance_type)
    full = (
        torch.diag_embed(covariances)
        if covariance_type == "diag"
        else covariances.expand(4, 3, 3)
    )
    expected = MultivariateNormal(means, full).log_prob(x[:, None])
    np.testing.assert_allclose(
        log_density(x, means, cholesky_factors(covariances)), expected, rtol=1e-10
    )


def test_e_step_is_bayes_rule():
    x, weights = clouds(), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    _, means, covariances = m_step(x, soft(len(x), 4))
    responsibilities, log_likelihood = e_step(
        x, weights, means, cholesky_factors(covariances)
    )
    joint = weights * MultivariateNormal(means, covariances).log_prob(x[:, None]).exp()
    np.testing.assert_allclose(
        responsibilities, joint / joint.sum(1, keepdim=True), rtol=1e-9
    )
    np.testing.assert_allclose(log_likelihood, joint.sum(1).log(), rtol=1e-9)
    np.testing.assert_allclose(responsibilities.sum(1), np.ones(len(x)), rtol=1e-12)


def test_densities_far_below_the_smallest_number_are_told_apart():
    x = torch.tensor([[1e4], [2e4]], dtype=torch.float64)
    means, factors = (
        torch.zeros(2, 1, dtype=torch.float64),
        torch.ones(2, 1, dtype=torch.float64),
    )
    _, log_likelihood = e_step(
        x, torch.full((2,), 0.5, dtype=torch.float64), means, factors
    )
    expected = -0.5 * (x[:, 0] ** 2 + np.log(2 * np.pi))
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-12)


def test_many_dimensions_neither_overflow_nor_underflow():
    generator = torch.Generator().manual_seed(0)
    x = 1e3 * torch.randn(
        400, 150, dtype=torch.float64, generator=generator
    )  # det Σ is beyond 1e800
    model = GaussianMixture(1).fit(x)
    assert torch.isfinite(model.anomaly_score(x)).all()
    assert float(model.anomaly_score(x).mean()) == pytest.approx(
        150 * (np.log(2e3 * np.pi)), rel=0.2
    )


@each_type
def test_m_step_of_hard_responsibilities_is_the_moments_of_the_classes(covariance_type):
    x = clouds()
    labels = torch.arange(len(x)) % 3
    weights, means, covariances = m_step(
        x, torch.eye(3, dtype=torch.float64)[labels], covariance_type, 0
    )
    biased = np.stack([np.cov(x[labels == k].T, bias=True) for k in range(3)])
    expected = {
        "full": biased,
        "tied": biased.mean(0, keepdims=True),  # the classes are equally large
        "diag": biased.diagonal(axis1=1, axis2=2),
    }
    np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-12)
    np.testing.assert_allclose(
        means, np.stack([x[labels == k].mean(0) for k in range(3)]), rtol=1e-10
    )
    np.testing.assert_allclose(covariances, expected[covariance_type], rtol=1e-9)


@each_type
def test_blocks_do_not_show(covariance_type, monkeypatch):
    x, gamma = clouds(), soft(600, 4)
    whole = m_step(x, gamma, covariance_type)
    density = log_density(x, whole[1], cholesky_factors(whole[2]))
    monkeypatch.setattr("adlab.vectors.mixture._BLOCK", 7)
    for there, here in zip(whole, m_step(x, gamma, covariance_type), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-10)
    np.testing.assert_allclose(
        density, log_density(x, whole[1], cholesky_factors(whole[2])), rtol=1e-12
    )


@each_type
def test_gradients_of_both_steps(covariance_type):
    def mean_log_likelihood(x, logits):
        weights, means, covariances = m_step(
            x, logits.softmax(1), covariance_type, 1e-3
        )
        return e_step(x, weights, means, cholesky_factors(covariances, 1e-3))[1].mean()

    x = clouds(4, d=2).requires_grad_()
    assert torch.autograd.gradcheck(
        mean_log_likelihood, (x, soft(16, 2).requires_grad_())
    )


# EM


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(3))
@each_type
def test_em_is_that_of_sklearn_iteration_by_iteration(covariance_type, seed):
    x = clouds(seed=seed)
    model = GaussianMixture(4, covariance_type, tol=0, max_iter=25, seed=seed)
    start = soft(len(x), 4, seed)
    learned = model._climb(x, start)
    expected = reference(x, start, covariance_type, tol=0, max_iter=25)
    shape = expected.covariances_.shape
    np.testing.assert_allclose(learned["weights_"], expected.weights_, atol=1e-5)
    np.testing.assert_allclose(learned["means_"], expected.means_, atol=1e-5)
    np.testing.assert_allclose(
        learned["covariances_"].view(shape), expected.covariances_, atol=1e-5
    )
    np.testing.assert_allclose(
        learned["history_"][-1], expected.lower_bound_, atol=1e-9
    )
    if hasattr(expected, "lower_bounds_"):  # since scikit-learn 1.8
        np.testing.assert_allclose(
            learned["history_"], expected.lower_bounds_, atol=1e-9
        )


@each_type
def test_em_stops_where_sklearn_does(covariance_type):
    x, start = clouds(), soft(600, 4)
    learned = GaussianMixture(4, covariance_type)._climb(x, start)
    expected = reference(x, start, covariance_type)
    assert learned["converged_"] == expected.converged_
    assert (
        abs(len(learned["history_"]) - expected.n_iter_) <= 1
    )  # the first difference is no stop there
    np.testing.assert_allclose(
        learned["history_"][-1], expected.lower_bound_, atol=1e-3
    )


@each_type
def test_score_is_minus_the_log_likelihood_of_sklearn(covariance_type):
    x, fresh = clouds(), clouds(seed=1)
    model = GaussianMixture(3, covariance_type).fit(x)
    expected = ReferenceMixture(3, covariance_type=TYPES[covariance_type])
    expected.weights_, expected.means_ = model.weights_.numpy(), model.means_.numpy()
    precisions = torch.linalg.inv(
        torch.diag_embed(model.scale_) if covariance_type == "diag" else model.scale_
    ).mT
    if covariance_type == "diag":
        precisions = precisions.diagonal(dim1=1, dim2=2)
    expected.precisions_cholesky_ = (
        precisions[0] if covariance_type == "tied" else precisions
    ).numpy()
    np.testing.assert_allclose(
        model.anomaly_score(fresh), -expected.score_samples(fresh.numpy()), rtol=1e-6
    )


def test_score_is_that_of_a_mixture_of_torch():
    x = clouds()
    model = GaussianMixture(4).fit(x)
    expected = MixtureSameFamily(
        Categorical(model.weights_),
        MultivariateNormal(model.means_, scale_tril=model.scale_),
    )
    np.testing.assert_allclose(model.anomaly_score(x), -expected.log_prob(x), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@each_type
def test_likelihood_never_falls(covariance_type, seed):
    x = clouds(seed=seed)  # of fewer, a component may find a flat handful
    model = GaussianMixture(
        5, covariance_type, reg_covar=0, tol=0, max_iter=60, seed=seed
    ).fit(x)
    assert len(model.history_) == 60
    assert np.diff(model.history_).min() > -1e-9
    assert model.history_[-1] > model.history_[0]


@each_type
def test_one_component_is_mean_and_biased_covariance_in_one_step(covariance_type):
    x = clouds()
    model = GaussianMixture(1, covariance_type, reg_covar=0, max_iter=1).fit(x)
    covariance = np.cov(x.T, bias=True)
    expected = covariance.diagonal() if covariance_type == "diag" else covariance
    np.testing.assert_allclose(model.weights_, [1], rtol=1e-12)
    np.testing.assert_allclose(model.means_[0], x.mean(0), rtol=1e-10)
    np.testing.assert_allclose(model.covariances_[0], expected, rtol=1e-10)


def test_one_component_ranks_as_the_gaussian():
    x = clouds()
    mixture, gaussian = (
        model.fit(x).anomaly_score(x) for model in (GaussianMixture(1), Gaussian())
    )
    np.testing.assert_array_equal(mixture.argsort(), gaussian.argsort())


def test_far_apart_clouds_are_found():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [30, 0], [0, 30]])
    x = np.concatenate(
        [
            rng.normal(size=(n, 2)) + c
            for n, c in zip((100, 200, 700), centres, strict=True)
        ]
    )
    model = GaussianMixture(3).fit(x)
    order = model.weights_.argsort()
    np.testing.assert_allclose(model.weights_[order], [0.1, 0.2, 0.7], atol=1e-6)
    np.testing.assert_allclose(model.means_[order], centres, atol=0.4)
    assert model.converged_


def test_ranking_does_not_depend_on_the_units():
    x = clouds()
    linear = clouds(3, d=3, k=1, seed=5)
    start = soft(len(x), 3)
    plain, moved = (
        GaussianMixture(3, reg_covar=0, tol=0, max_iter=10) for _ in range(2)
    )
    there, here = plain._climb(x, start), moved._climb(x @ linear + 7, start)
    shift = torch.linalg.det(linear).abs().log()
    np.testing.assert_allclose(
        np.array(there["history_"]) - float(shift), here["history_"], atol=1e-8
    )


# Restarts, collapse, bad input


def test_more_starts_are_never_worse_and_sometimes_better():
    x = clouds(40, d=2, k=8, seed=3)
    gains = []
    for seed in range(6):
        one, ten = (
            GaussianMixture(8, n_init=n, seed=seed).fit(x).history_[-1] for n in (1, 10)
        )
        gains.append(ten - one)
    assert min(gains) >= 0
    assert max(gains) > 0.01


def test_a_seed_decides_the_mixture():
    x = clouds(40, d=2, k=8, seed=3)
    one, two, other = (GaussianMixture(8, seed=seed).fit(x) for seed in (1, 1, 2))
    assert torch.equal(one.means_, two.means_)
    assert not torch.equal(one.means_, other.means_)


def test_a_loader_gives_the_mixture_of_its_vectors():
    """To read it draws random numbers, which are not those of the start."""
    x = clouds(40)
    whole, read = (GaussianMixture(9).fit(data) for data in (x, DataLoader(x, 160)))
    torch.testing.assert_close(read.means_, whole.means_)


def test_fewer_vectors_than_components_are_refused():
    with pytest.raises(ValueError, match="at least n_components = 5 vectors, got 4"):
        GaussianMixture(5).fit(clouds(1))
    assert len(GaussianMixture(4).fit(clouds(1)).means_) == 4


@each_type
def test_collapse_is_an_error_without_regularisation_and_none_with_it(covariance_type):
    x = torch.tensor([[0.0, 0], [1, 2], [9, 9]], dtype=torch.float64)
    with pytest.raises(
        ValueError, match="singular covariance in component 0; raise reg_covar above 0"
    ):
        GaussianMixture(3, covariance_type, reg_covar=0).fit(x)
    model = GaussianMixture(3, covariance_type, reg_covar=1e-3).fit(x)
    assert torch.isfinite(model.anomaly_score(x)).all()


@pytest.mark.parametrize("seed", range(10))
def test_singular_covariances_never_slip_through(seed):
    flat = (
        clouds(seed=seed) @ clouds(3, d=3, k=1, seed=seed).T
    )  # up to rounding in a plane
    flat[:, 2] = flat[:, 0] - 3 * flat[:, 1]
    with pytest.raises(ValueError, match="singular"):
        GaussianMixture(2, reg_covar=0).fit(flat)


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning"
)  # k-means finds one cluster
@each_type
def test_empty_components_do_no_harm(covariance_type):
    x = torch.full((20, 2), 3.0)
    model = GaussianMixture(4, covariance_type).fit(x)
    assert torch.isfinite(model.anomaly_score(x)).all()
    assert float(model.weights_.sum()) == pytest.approx(1)
    assert float(model.anomaly_score(x + 1).min()) > float(model.anomaly_score(x).max())


def test_empty_component_of_an_m_step_has_no_weight_and_no_nan():
    gamma = torch.tensor([[1.0, 0], [1, 0], [1, 0]], dtype=torch.float64)
    x = torch.tensor([[0.0, 1], [1, 0], [2, 3]], dtype=torch.float64)
    weights, means, covariances = m_step(x, gamma)
    assert torch.isfinite(means).all() and torch.isfinite(covariances).all()
    again, log_likelihood = e_step(x, weights, means, cholesky_factors(covariances))
    np.testing.assert_allclose(again, gamma, atol=1e-8)
    assert torch.isfinite(log_likelihood).all()


test_bad_input = refuses(
    (lambda: GaussianMixture(2, "spherical"), ValueError, "covariance_type"),
)


def test_full_covariances_of_huge_vectors_are_refused_before_memory_is_taken():
    with pytest.raises(ValueError, match="at most 8192 features"):
        GaussianMixture().fit(torch.rand(2, 8193))
    assert GaussianMixture(covariance_type="diag").fit(torch.rand(3, 8193)).converged_


def test_unfitted_and_failed_fits():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        GaussianMixture().anomaly_score(clouds())
    model = GaussianMixture(3).fit(clouds())
    before = model.anomaly_score(clouds())
    with pytest.raises(ValueError, match="at least n_components"):
        model.fit(clouds(1, k=2))
    assert torch.equal(model.anomaly_score(clouds()), before)


# As a detector


@each_type
def test_saved_and_loaded_it_is_the_same(covariance_type, tmp_path):
    x = clouds()
    model = GaussianMixture(3, covariance_type, seed=4).fit(x)
    model.save(tmp_path / "mixture.safetensors")
    loaded = adlab.load_detector(tmp_path / "mixture.safetensors")
    assert torch.equal(loaded.anomaly_score(x), model.anomaly_score(x))
    assert loaded.history_ == model.history_
    assert repr(loaded) == repr(model)


def test_images_are_vectors_and_patches_too(tmp_path):
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = GaussianMixture(2, reg_covar=1e-2)
    scores = model.fit(images).anomaly_score(images)
    np.testing.assert_allclose(
        scores, model.fit(images.flatten(1)).anomaly_score(images.flatten(1))
    )
    np.testing.assert_allclose(
        scores, model.fit(ImageSet(images)).anomaly_score(ImageSet(images))
    )
    patchwise = Patchwise(GaussianMixture(2), patch_size=4, features="statistics").fit(
        images
    )
    maps = patchwise.anomaly_map(images)
    patchwise.save(tmp_path / "patchwise.safetensors")
    assert torch.equal(
        adlab.load_detector(tmp_path / "patchwise.safetensors").anomaly_map(images),
        maps,
    )


def test_scores_do_not_depend_on_the_batch():
    x, fresh = clouds(), clouds(5, seed=1)
    model = GaussianMixture(3).fit(x)
    alone = torch.cat([model.anomaly_score(vector[None]) for vector in fresh])
    np.testing.assert_allclose(model.anomaly_score(fresh), alone, rtol=1e-6)
