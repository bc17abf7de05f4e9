"""What chapter 6 puts behind a network: shrunk covariances, cluster centres, and a few
principal components, against scikit-learn and SciPy.
"""

import numpy as np
import pytest
import sklearn.covariance
import torch
from bad_input import VECTORS, refuses
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import chi2, f
from sklearn import cluster
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch.utils.data import DataLoader, TensorDataset

from adlab.vectors import KNN, Gaussian, KMeans, Moments, PCAReduced, ledoit_wolf


def correlated(n, d, seed=0):
    """Vectors (n, d), float64, with correlations, unequal variances and a mean."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(d, d)) * rng.uniform(0.2, 3, size=d)
    mean = rng.normal(size=d)
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d)) @ mixing + mean)


def variants():
    return {
        "ledoit-wolf": Gaussian("ledoit-wolf"),
        "kmeans": KMeans(4),
        "largest": PCAReduced(Gaussian(), 3),
        "smallest": PCAReduced(KNN(2), 2, keep="smallest"),
        "whitened": PCAReduced(KMeans(2), 3, whiten=True),
    }


each = pytest.mark.parametrize("name", variants())


# Ledoit and Wolf


@pytest.mark.parametrize("shape", [(200, 6), (30, 10), (10, 30), (2, 5)])
def test_shrunk_covariance_is_that_of_sklearn(shape):
    x = correlated(*shape)
    ours = ledoit_wolf(x.split(7), Moments().update(x))
    np.testing.assert_allclose(
        ours, LedoitWolf().fit(x.numpy()).covariance_, rtol=1e-9, atol=1e-12
    )


def test_shrinkage_is_total_for_a_sphere_and_vanishes_for_many_vectors():
    sphere = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 40)))
    weight = sklearn.covariance.ledoit_wolf(sphere.numpy())[1]
    assert weight > 0.8
    many = correlated(50_000, 4)
    shrunk = ledoit_wolf([many], Moments().update(many))
    np.testing.assert_allclose(shrunk, np.cov(many.T), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("shape", [(40, 6), (10, 30)])
def test_shrunk_gaussian_is_the_mahalanobis_distance_of_scipy(shape):
    train, test = correlated(*shape).numpy(), correlated(20, shape[1], seed=1).numpy()
    precision = np.linalg.inv(LedoitWolf().fit(train).covariance_)
    expected = [mahalanobis(x, train.mean(0), precision) for x in test]
    scores = Gaussian("ledoit-wolf", reg_covar=0).fit(train).anomaly_score(test)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_shrunk_covariance_is_closer_to_the_truth():
    d, errors = 30, {"full": [], "ledoit-wolf": []}
    for seed in range(5):
        x = torch.from_numpy(np.random.default_rng(seed).normal(size=(40, d)))
        for kind in errors:
            scale = Gaussian(kind).fit(x).scale_
            errors[kind].append(float((scale @ scale.T - torch.eye(d)).norm()))
    assert max(errors["ledoit-wolf"]) < 0.5 * min(errors["full"])


def test_shrinkage_of_constant_vectors_is_no_zero_by_zero():
    constant = torch.full((5, 3), 0.25)
    scores = Gaussian("ledoit-wolf").fit(constant).anomaly_score(constant)
    np.testing.assert_allclose(scores, 0, atol=1e-6)


# Mahalanobis with few vectors


def test_fresh_distances_follow_f_and_not_chi_squared_when_vectors_are_few():
    n, q = 30, 10
    squared = []
    for seed in range(200):
        x = torch.from_numpy(np.random.default_rng(seed).normal(size=(n + 20, q)))
        scores = Gaussian(reg_covar=0).fit(x[:n]).anomaly_score(x[n:])
        squared.extend(scores.double().square().tolist())
    squared, scale = np.array(squared), (n + 1) * (n - 1) * q / (n * (n - q))
    for share in (0.5, 0.9, 0.99):
        above = (squared > scale * f(q, n - q).ppf(share)).mean()
        assert above == pytest.approx(1 - share, abs=4 * np.sqrt(0.25 / len(squared)))
    assert (squared > chi2(q).ppf(0.99)).mean() > 0.15


# k-means


@pytest.mark.parametrize("k", [1, 3, 30])
def test_distance_to_the_nearest_centre_is_that_of_sklearn(k):
    train, test = correlated(30, 4), correlated(10, 4, seed=1)
    detector = KMeans(k, seed=3).fit(train)
    np.testing.assert_allclose(
        detector.anomaly_score(test), cdist(test, detector.centres_).min(1), rtol=1e-6
    )
    model = cluster.KMeans(k, init=detector.centres_.numpy(), n_init=1).fit(train)
    assert model.n_iter_ <= 2  # nothing is left to improve
    np.testing.assert_allclose(
        model.transform(test).min(1), detector.anomaly_score(test), rtol=1e-5
    )


def test_one_centre_is_the_mean_and_n_centres_are_the_neighbours():
    train, test = correlated(20, 3), correlated(10, 3, seed=1)
    to_mean = (test - train.mean(0)).norm(dim=1)
    np.testing.assert_allclose(
        KMeans(1).fit(train).anomaly_score(test), to_mean, rtol=1e-6
    )
    np.testing.assert_allclose(
        KMeans(20).fit(train).anomaly_score(test),
        KNN(1).fit(train).anomaly_score(test),
        rtol=1e-6,
    )


def test_centres_find_separate_clusters_and_forget_the_vectors():
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]]).double()
    train = centres.repeat(100, 1) + correlated(300, 2)
    detector = KMeans(3).fit(train)
    assert detector.centres_.shape == (3, 2)
    nearest = cdist(centres + correlated(1000, 2).mean(0), detector.centres_).min(1)
    assert nearest.max() < 1
    assert float(detector.anomaly_score(train.mean(0)[None])) > 15


# k nearest neighbours


@pytest.mark.parametrize("k", [1, 2, 5])
def test_neighbours_are_those_of_sklearn(k):
    train, test = correlated(50, 8), correlated(20, 8, seed=1)
    distances, _ = NearestNeighbors(n_neighbors=k).fit(train).kneighbors(test)
    np.testing.assert_allclose(
        KNN(k).fit(train).anomaly_score(test), distances.mean(1), rtol=1e-5
    )


def test_the_first_training_vector_is_its_own_neighbour():
    train = correlated(50, 8)
    assert float(KNN(1).fit(train).anomaly_score(train[:1])) < 1e-6


# Principal components


@pytest.mark.parametrize("n", [12, 100])  # fewer than D, and more
@pytest.mark.parametrize("keep", ["largest", "smallest"])
@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_sklearn(n, keep, whiten):
    train, test = correlated(n, 20).numpy(), correlated(30, 20, seed=1).numpy()
    pca = PCA(min(n - 1, 20), whiten=whiten).fit(train)
    few = slice(None, 4) if keep == "largest" else slice(-4, None)
    a, b = (pca.transform(x)[:, few] for x in (train, test))
    expected = NearestNeighbors(n_neighbors=2).fit(a).kneighbors(b)[0].mean(1)
    detector = PCAReduced(KNN(2), 4, keep, whiten).fit(train)
    np.testing.assert_allclose(detector.anomaly_score(test), expected, rtol=1e-5)


def test_all_components_change_no_distance():
    train, test = correlated(60, 6), correlated(20, 6, seed=1)
    for detector in (KNN(3), Gaussian(reg_covar=0)):
        plain = detector.fit(train).anomaly_score(test)
        turned = PCAReduced(detector, 6).fit(train).anomaly_score(test)
        np.testing.assert_allclose(turned, plain, rtol=1e-5)


def test_whitening_and_euclid_are_mahalanobis():
    train, test = correlated(60, 6), correlated(20, 6, seed=1)
    expected = Gaussian(reg_covar=0).fit(train).anomaly_score(test)
    euclid = PCAReduced(KMeans(1), 6, whiten=True).fit(train)
    np.testing.assert_allclose(euclid.anomaly_score(test), expected, rtol=1e-5)


def test_both_halves_of_the_components_sum_to_the_squared_mahalanobis_distance():
    train, test = correlated(60, 6), correlated(20, 6, seed=1)
    inner = Gaussian(reg_covar=0)
    parts = [
        PCAReduced(inner, n, keep).fit(train).anomaly_score(test).double() ** 2
        for n, keep in [(2, "largest"), (4, "smallest")]
    ]
    whole = inner.fit(train).anomaly_score(test).double() ** 2
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)


def test_mahalanobis_of_all_components_is_invariant_to_linear_maps():
    train, test = correlated(60, 6), correlated(20, 6, seed=1)
    linear = correlated(6, 6, seed=2)
    detector = PCAReduced(Gaussian(reg_covar=0), 6)
    before = detector.fit(train).anomaly_score(test)
    after = detector.fit(train @ linear + 7).anomaly_score(test @ linear + 7)
    np.testing.assert_allclose(before, after, rtol=1e-4)


def test_smallest_components_see_what_the_largest_do_not():
    rng = np.random.default_rng(0)
    train = torch.from_numpy(rng.normal(size=(200, 4)) * [10, 10, 0.1, 0.1])
    odd = torch.tensor([[0.0, 0.0, 2.0, 0.0]]).double()
    for keep, seen in [("largest", False), ("smallest", True)]:
        detector = PCAReduced(Gaussian(), 2, keep).fit(train)
        usual = detector.anomaly_score(train)
        assert (float(detector.anomaly_score(odd)) > float(usual.max())) == seen


def test_dead_features_are_not_among_the_smallest_components():
    train = torch.cat([correlated(50, 5), torch.zeros(50, 3).double()], 1)
    alive = PCAReduced(KNN(1), 2, "smallest").fit(train[:, :5])
    detector = PCAReduced(KNN(1), 2, "smallest").fit(train)
    np.testing.assert_allclose(
        detector.anomaly_score(train + 0.1 * (train > 0)),
        alive.anomaly_score((train + 0.1 * (train > 0))[:, :5]),
        rtol=1e-5,
    )


@pytest.mark.parametrize(("n", "d", "most"), [(10, 20, 9), (30, 6, 6)])
def test_more_components_than_directions_are_refused(n, d, most):
    PCAReduced(KNN(), most).fit(correlated(n, d))
    with pytest.raises(ValueError, match=f"n_components = {most + 1} .* got {most}"):
        PCAReduced(KNN(), most + 1).fit(correlated(n, d))


def test_too_many_features_are_refused_before_they_fill_the_memory():
    with pytest.raises(ValueError, match=r"at most 8192 .* got 10000"):
        PCAReduced(KNN(), 2).fit(torch.rand(5, 1, 100, 100))


def test_the_detector_that_is_given_stays_as_it_was():
    inner = KNN(1).fit(correlated(30, 3))
    scores = inner.anomaly_score(correlated(5, 3, seed=1))
    PCAReduced(inner, 2).fit(correlated(20, 4))
    np.testing.assert_array_equal(inner.anomaly_score(correlated(5, 3, seed=1)), scores)


# All of them


@each
@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.numpy(),
        lambda x: (part for part in x.split(7)),  # passes by once
        lambda x: list(x.split(7)),
        lambda x: TensorDataset(x),
        lambda x: DataLoader(TensorDataset(x), 7),
    ],
    ids=["array", "generator", "batches", "dataset", "loader"],
)
def test_every_form_of_data_gives_the_same(name, form):
    train, test = correlated(40, 5), correlated(9, 5, seed=1)
    expected = variants()[name].fit(train).anomaly_score(test)
    scores = variants()[name].fit(form(train)).anomaly_score(form(test))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@each
def test_images_are_flattened(name):
    images = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    scores = variants()[name].fit(images).anomaly_score(images)
    flat = variants()[name].fit(images.flatten(1)).anomaly_score(images.flatten(1))
    assert torch.equal(scores, flat)


@each
def test_odd_vectors_score_higher(name):
    train = correlated(100, 5)
    odd = train.mean(0) + 5 * (train - train.mean(0))[:20]
    detector = variants()[name].fit(train)
    usual = detector.anomaly_score(correlated(20, 5, seed=1))
    assert float(detector.anomaly_score(odd).median()) > 1.5 * float(usual.median())


@pytest.mark.parametrize("name", ["ledoit-wolf", "largest"])
def test_what_is_learned_does_not_grow_with_the_number_of_vectors(name):
    def numbers(n):
        detector = variants()[name].fit(correlated(n, 5))
        return sum(v.numel() for v in vars(detector).values() if torch.is_tensor(v))

    assert numbers(20) == numbers(2000)


# Bad input


EIGHT = PCAReduced(KNN(), 8)


test_bad_input = refuses(
    (lambda: KMeans(9).fit(VECTORS), ValueError, "images…got 8"),
    (lambda: EIGHT.fit(VECTORS), ValueError, "images…n_components = 8…7"),
    (lambda: PCAReduced(KNN(), 2, "first"), ValueError, "keep…'first'"),
    (lambda: PCAReduced(KNN(), 2, whiten="yes"), ValueError, "whiten…'yes'"),
)
