"""Kernel SVDD, against scikit-learn, SciPy's solver and the smallest ball by brute force."""

from itertools import combinations

import numpy as np
import pytest
import torch
from bad_input import refuses
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.svm import OneClassSVM

from adlab.data import ImageSet
from adlab.vectors import KernelSVDD, Patchwise


def cloud(n=80, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def kernel(x, y, gamma):
    return np.exp(-gamma * cdist(x, y, "sqeuclidean"))


def dual(x, nu, gamma):
    """The α of the dual problem of SVDD, by a general solver."""
    similarity, n = kernel(x, x, gamma), len(x)
    result = minimize(
        lambda a: a @ similarity @ a - a @ similarity.diagonal(),
        np.full(n, 1 / n),
        jac=lambda a: 2 * similarity @ a - similarity.diagonal(),
        bounds=[(0, 1 / (nu * n))] * n,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return result.x


def dense(model, x):
    """The α of all training vectors, most of them zero."""
    here = (x[:, None] == model.support_).all(2)
    return (here.double() * model.weights_).sum(1).numpy()


settings = pytest.mark.parametrize(
    "nu, gamma", [(0.2, 0.5), (0.05, 2.0), (0.6, 0.1), (0.01, 0.3)]
)


@settings
def test_weights_are_those_of_the_dual_problem(nu, gamma):
    x = cloud(50)
    ours = dense(KernelSVDD(nu, gamma).fit(x), x)
    np.testing.assert_allclose(ours, dual(x.numpy(), nu, gamma), atol=2e-5)


@settings
def test_distance_follows_from_the_weights_with_numpy_alone(nu, gamma):
    x, new = cloud(50), cloud(20, seed=1) * 2
    model = KernelSVDD(nu, gamma).fit(x)
    a = dense(model, x)
    expected = (
        1 - 2 * kernel(new, x, gamma) @ a + a @ kernel(x, x, gamma) @ a
    )  # ‖φ(x) − Σ α φ(x_i)‖²
    np.testing.assert_allclose(model.distance(new), np.sqrt(expected), atol=1e-6)
    np.testing.assert_allclose(
        model.anomaly_score(new), expected - model.radius_**2, atol=1e-6
    )


@settings
def test_the_score_is_the_decision_of_the_one_class_svm(nu, gamma):
    x, new = cloud(), cloud(40, seed=1) * 2
    svm = OneClassSVM(nu=nu, gamma=gamma, tol=1e-8).fit(x.numpy())
    expected = -2 / (nu * len(x)) * svm.decision_function(new.numpy())
    scores = KernelSVDD(nu, gamma).fit(x).anomaly_score(new)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@settings
def test_conditions_of_optimality(nu, gamma):
    """α = 0 inside, 0 < α < C on the sphere, α = C outside; Σ α = 1."""
    x = cloud()
    model = KernelSVDD(nu, gamma).fit(x)
    a, c = dense(model, x), 1 / (nu * len(x))
    score = model.anomaly_score(x).numpy()
    assert a.sum() == pytest.approx(1)
    assert a.min() >= 0 and a.max() <= c * (1 + 1e-9)
    inside, outside = a == 0, a > c * (1 - 1e-6)
    assert score[inside].max() < 1e-6
    np.testing.assert_allclose(score[~inside & ~outside], 0, atol=1e-6)
    assert (score[outside] > -1e-6).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("nu", [0.05, 0.1, 0.2, 0.5])
def test_nu_bounds_outliers_from_above_and_support_vectors_from_below(nu, seed):
    x = cloud(80, 3, seed)
    model = KernelSVDD(nu, 0.4).fit(x)
    outside = float((model.anomaly_score(x) > 1e-6).double().mean())
    assert outside <= nu + 1e-9
    assert len(model.support_) / len(x) >= nu - 1e-9


def test_the_bound_of_nu_is_close_where_few_vectors_lie_on_the_sphere():
    x = cloud(300)
    outside = KernelSVDD(0.2, 0.05).fit(x).anomaly_score(x) > 1e-6
    assert 0.18 < float(outside.double().mean()) <= 0.2


def smallest_ball(points):
    """Centre and radius, by all pairs and triples of points."""
    best = (None, np.inf)
    for size in (2, 3):
        for rows in combinations(range(len(points)), size):
            corners = points[list(rows)]
            edges = corners[1:] - corners[0]
            shift = np.linalg.lstsq(2 * edges, (edges**2).sum(1), rcond=None)[0]
            centre = corners[0] + shift
            radius = np.linalg.norm(corners[0] - centre)
            covers = (np.linalg.norm(points - centre, axis=1) < radius + 1e-9).all()
            if covers and radius < best[1]:
                best = (centre, radius)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_for_small_gamma_and_nu_it_is_the_smallest_ball(seed):
    points = cloud(25, seed=seed)
    centre, radius = smallest_ball(points.numpy())
    gamma = 1e-4
    model = KernelSVDD(0.001, gamma).fit(points)
    ours = (model.weights_[:, None] * model.support_).sum(0)
    np.testing.assert_allclose(ours, centre, atol=5e-3)
    # ‖φ(x) − φ(y)‖² = 2 − 2 exp(−γ ‖x − y‖²) ≈ 2γ ‖x − y‖²
    assert model.radius_ / np.sqrt(2 * gamma) == pytest.approx(radius, rel=2e-3)


def test_the_radius_is_the_distance_of_the_vectors_on_the_sphere():
    """Not the mean over all vectors, a bug of a known implementation."""
    x = cloud()
    model = KernelSVDD(0.05, 0.5).fit(x)
    a = dense(model, x)
    on_the_sphere = (a > 1e-9) & (a < 1 / (0.05 * len(x)) - 1e-9)
    distance = model.distance(x).numpy()
    np.testing.assert_allclose(distance[on_the_sphere], model.radius_, atol=1e-6)
    assert abs(distance.mean() - model.radius_) > 0.003


@pytest.mark.parametrize("nu", [0.95, 0.99])
def test_a_large_nu_leaves_a_radius_even_without_a_vector_on_the_sphere(nu):
    x = cloud(20)
    model = KernelSVDD(nu, 0.1).fit(x)
    outside = int((model.anomaly_score(x) > 1e-6).sum())
    assert 0 < outside <= 20 * nu
    assert model.radius_ > 0


def test_large_gamma_remembers_and_small_gamma_is_one_ball():
    x, new = cloud(60), cloud(200, seed=1)
    outside = [
        float((KernelSVDD(0.1, gamma).fit(x).anomaly_score(new) > 0).double().mean())
        for gamma in (0.01, 0.3, 300.0)
    ]
    assert outside[0] < 0.25
    assert outside[2] > 0.9  # every new vector is far from all it remembers


def test_scale_is_one_over_dimension_times_variance():
    x = cloud(30, 5) * 3
    model = KernelSVDD(0.1).fit(x)
    assert model.gamma_ == pytest.approx(1 / (5 * x.var(correction=0).item()))
    constant = torch.full((5, 3), 0.5)
    assert torch.isfinite(KernelSVDD().fit(constant).anomaly_score(constant)).all()


def test_images_batches_and_patches_will_do():
    images = torch.rand(20, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    expected = KernelSVDD().fit(images.flatten(1)).anomaly_score(images.flatten(1))
    for form in (images, ImageSet(images), list(images.split(7))):
        torch.testing.assert_close(KernelSVDD().fit(form).anomaly_score(form), expected)
    maps = Patchwise(KernelSVDD(), 3, 2).fit(images).anomaly_map(images)
    assert maps.shape == (20, 6, 5)


# Bad input


test_bad_input = refuses(
    (lambda: KernelSVDD(gamma=0), ValueError, "gamma…(0, inf"),
    (lambda: KernelSVDD(gamma="auto"), ValueError, "gamma…scale"),
)
