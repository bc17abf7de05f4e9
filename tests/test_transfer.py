"""Detectors of vectors behind a network: pooled features, and what stays frozen."""

import numpy as np
import pytest
import torch
from bad_input import VECTORS, refuses
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import adlab
from adlab.backbones import Backbone
from adlab.data import ImageSet
from adlab.transfer import FeatureDetector, pooled_features
from adlab.vectors import KNN, Gaussian, KMeans, PCAReduced


def pictures(n, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, 24, 32, generator=generator)


def variants():
    return {
        "dn2": FeatureDetector(KNN(2)),
        "mahalanobis": FeatureDetector(Gaussian("ledoit-wolf"), layers=("layer2",)),
        "npca": FeatureDetector(PCAReduced(Gaussian(), 5, "smallest")),
        "kmeans-random": FeatureDetector(KMeans(3), "texnet-random", seed=3),
    }


each = pytest.mark.parametrize("name", variants())


class TwoLayers(nn.Module):
    """A network of one's own, with a batch norm that must not move."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, x):
        return self.second(self.first(x))


# Features


@pytest.mark.parametrize("channels", [1, 3])
def test_pooled_features_are_means_over_positions(channels):
    network, images = Backbone("texnet"), pictures(5, channels)
    rows = []
    for image in images:
        maps = [layer[0].numpy() for layer in network(image[None])]
        rows.append(np.concatenate([[c.mean() for c in layer] for layer in maps]))
    features = pooled_features(network, images)
    assert features.shape == (5, sum(network.channels))
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features, np.stack(rows), rtol=1e-4, atol=1e-5)


def test_pooled_features_of_a_data_set_are_those_of_its_images():
    network, images = Backbone("texnet", ("layer1",)), pictures(70)
    expected = pooled_features(network, images)
    for form in (ImageSet(images), DataLoader(TensorDataset(images), 9)):
        np.testing.assert_allclose(
            pooled_features(network, form), expected, rtol=1e-4, atol=1e-5
        )


def test_pooled_features_forget_where():
    network, images = Backbone("texnet", ("layer1",)), torch.zeros(2, 1, 64, 64)
    images[0, 0, 20:24, 20:24] = images[1, 0, 32:36, 40:44] = 1
    one, other = pooled_features(network, images)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


# Detectors


def test_dn2_is_the_neighbours_of_sklearn():
    train, test = pictures(30), pictures(8, seed=1)
    a, b = (pooled_features(Backbone("texnet"), x) for x in (train, test))
    expected = NearestNeighbors(n_neighbors=2).fit(a).kneighbors(b)[0].mean(1)
    scores = FeatureDetector(KNN(2)).fit(train).anomaly_score(test)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


def test_shrunk_gaussian_is_the_mahalanobis_distance_of_scipy():
    train, test = pictures(30), pictures(8, seed=1)
    a, b = (pooled_features(Backbone("texnet"), x).double() for x in (train, test))
    covariance = LedoitWolf().fit(a).covariance_ + 1e-6 * np.eye(a.shape[1])
    precision = np.linalg.inv(covariance)
    expected = [mahalanobis(x, a.numpy().mean(0), precision) for x in b.numpy()]
    detector = FeatureDetector(Gaussian("ledoit-wolf")).fit(train)
    np.testing.assert_allclose(detector.anomaly_score(test), expected, rtol=1e-3)


def test_the_first_training_image_is_its_own_neighbour():
    train = pictures(20)
    detector = FeatureDetector(KNN(1)).fit(train)
    usual = float(detector.anomaly_score(pictures(5, seed=1)).min())
    assert float(detector.anomaly_score(train[:1])) < 1e-2 * usual


def test_odd_images_score_higher():
    train, odd = pictures(40) * 0.5, pictures(10, seed=2) * 0.5
    odd[:, :, 8:20, 8:20] = 1
    detector = FeatureDetector(KNN(2)).fit(train)
    usual = detector.anomaly_score(pictures(10, seed=1) * 0.5)
    assert float(detector.anomaly_score(odd).min()) > float(usual.max())


def test_the_network_stays_frozen():
    network = TwoLayers().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    detector = FeatureDetector(KNN(1), network, ("first", "second")).fit(pictures(20))
    assert detector.detector_.vectors_.shape == (20, 10)
    detector.anomaly_score(pictures(3, seed=1))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_random_weights_are_drawn_from_the_seed():
    train, test = pictures(20), pictures(5, seed=1)
    scores = [
        FeatureDetector(KNN(1), "texnet-random", seed=seed)
        .fit(train)
        .anomaly_score(test)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2], rtol=0.01)


def test_the_detector_that_is_given_stays_as_it_was():
    inner = KNN(1)
    FeatureDetector(inner).fit(pictures(10))
    assert not hasattr(inner, "vectors_")


@each
def test_scores_do_not_depend_on_the_batch(name):
    detector, test = variants()[name].fit(pictures(30)), pictures(7, seed=1)
    together = detector.anomaly_score(test)
    assert together.shape == (7,)
    alone = torch.cat([detector.anomaly_score(image[None]) for image in test])
    np.testing.assert_allclose(together, alone, rtol=1e-3)
    np.testing.assert_allclose(
        detector.anomaly_score(test.flip(0)), together.flip(0), rtol=1e-3
    )


@each
def test_images_may_come_in_any_form(name):
    train, test = pictures(30), pictures(7, seed=1)
    expected = variants()[name].fit(train).anomaly_score(test)
    for form in (ImageSet, TensorDataset, lambda x: (b for b in x.split(64))):
        scores = variants()[name].fit(form(train)).anomaly_score(form(test))
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


@each
def test_saved_and_loaded_detectors_score_the_same(name, tmp_path):
    detector, test = variants()[name].fit(pictures(30)), pictures(7, seed=1)
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    loaded = adlab.load_detector(path)
    assert repr(loaded) == repr(detector)
    assert torch.equal(loaded.anomaly_score(test), detector.anomaly_score(test))
    assert path.stat().st_size < 3_000_000  # of the network only what is read is in it


def test_a_network_of_ones_own_is_not_written(tmp_path):
    detector = FeatureDetector(KNN(1), TwoLayers(), ("first",)).fit(pictures(5))
    with pytest.raises(TypeError, match="detector"):
        detector.save(tmp_path / "detector.safetensors")
    assert not list(tmp_path.iterdir())


# Bad input


test_bad_input = refuses(
    (lambda: FeatureDetector(KNN()).fit(VECTORS), ValueError, "images…(N, C, H, W)"),
)
