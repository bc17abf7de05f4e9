"""Detectors of vectors, against SciPy, scikit-learn, NumPy and slow explicit loops."""

import weakref

import numpy as np
import pytest
import torch
from bad_input import COLOUR, IMAGES, NAN, VECTORS, refuses, spoiled
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import chi2, kstest
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from torch.utils.data import DataLoader, Dataset, TensorDataset

from adlab.data import ImageSet
from adlab.vectors import (
    KNN,
    Gaussian,
    GaussianMixture,
    KernelSVDD,
    KMeans,
    MeanGrey,
    Moments,
    Patchwise,
    PCAReduced,
    PCAResidual,
    PixelGaussian,
    patch_statistics,
)


def correlated(n, d, seed=0):
    """Vectors (n, d), float64, with correlations, unequal variances and a mean."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)) * rng.uniform(0.2, 3, size=d)
    return torch.from_numpy(rng.normal(size=(n, d)) @ mixing + rng.normal(size=d))


def pictures(n, channels=1, height=9, width=7, seed=0):
    return torch.rand(
        n, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )


def variants():
    """One of each detector, with the smallest parameters that make sense for
    `pictures`.
    """
    return {
        "gaussian": Gaussian(reg_covar=1e-3),
        "diag": Gaussian("diag"),
        "pixel": PixelGaussian(),
        "knn": KNN(n_neighbors=2),
        "pca": PCAResidual(n_components=3),
        "patch-gaussian": Patchwise(Gaussian(), patch_size=3, stride=2),
        "patch-knn": Patchwise(KNN(), patch_size=4, stride=4, image_score="mean"),
        "patch-statistics": Patchwise(
            Gaussian(), patch_size=3, stride=2, features="statistics"
        ),
        "patch-pca": Patchwise(PCAResidual(n_components=2), patch_size=3, stride=1),
    }


each = pytest.mark.parametrize("name", variants())


# Moments


@pytest.mark.parametrize("sizes", [[40], [1, 1, 38], [13, 20, 7]])
def test_moments_in_parts_are_those_of_the_whole(sizes):
    x = (
        correlated(40, 5) + 1e4
    )  # far from zero, where a sum of squares would lose its digits
    moments = Moments()
    for part in x.split(sizes):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.T), rtol=1e-8)


def test_moments_of_float32_are_gathered_in_float64():
    x = (correlated(3000, 3) + 100).float()
    moments = Moments()
    for part in x.split(7):
        moments.update(part)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.double().T), rtol=1e-9)


def test_merged_moments_are_those_of_the_whole():
    x = correlated(50, 4)
    left, right = Moments().update(x[:17]), Moments().update(x[17:])
    whole = left.merge(right)
    assert whole.count == 50
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.covariance(), np.cov(x.T), rtol=1e-10)


def test_merging_with_nothing_changes_nothing():
    x = correlated(10, 3)
    for moments in [
        Moments().update(x).merge(Moments()),
        Moments().merge(Moments().update(x)),
    ]:
        np.testing.assert_allclose(moments.covariance(), np.cov(x.T), rtol=1e-12)


def test_merging_leaves_the_other_as_it_was():
    x = correlated(20, 3)
    other = Moments().update(x)
    Moments().merge(other).update(x + 5)
    np.testing.assert_allclose(other.covariance(), np.cov(x.T), rtol=1e-12)


def test_inner_dimensions_are_gaussians_of_their_own():
    x = torch.stack([correlated(30, 4, seed) for seed in range(6)], dim=1)  # (B, P, D)
    moments = Moments()
    for part in x.split(8):
        moments.update(part)
    assert moments.covariance().shape == (6, 4, 4)
    for position, covariance in enumerate(moments.covariance()):
        np.testing.assert_allclose(covariance, np.cov(x[:, position].T), rtol=1e-10)
        np.testing.assert_allclose(
            moments.mean[position], x[:, position].mean(0), rtol=1e-10
        )


def test_diagonal_moments_are_the_variances():
    x = torch.stack([correlated(30, 4, seed) for seed in range(3)], dim=1)
    moments = Moments(diagonal=True)
    for part in x.split(11):
        moments.update(part)
    np.testing.assert_allclose(
        moments.covariance(), np.var(x.numpy(), axis=0, ddof=1), rtol=1e-10
    )


def test_one_vector_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 vectors"):
        Moments().update(correlated(1, 3)).covariance()


# Gaussian


@pytest.mark.parametrize("reg_covar", [0, 1e-6, 0.5])
def test_gaussian_is_the_mahalanobis_distance_of_scipy(reg_covar):
    train, test = correlated(200, 6), correlated(30, 6, seed=1)
    precision = np.linalg.inv(np.cov(train.T) + reg_covar * np.eye(6))
    mean = train.numpy().mean(0)
    expected = [mahalanobis(x, mean, precision) for x in test.numpy()]
    detector = Gaussian(reg_covar=reg_covar).fit(train)
    np.testing.assert_allclose(detector.anomaly_score(test), expected, rtol=1e-6)


def test_gaussian_agrees_with_the_covariance_of_sklearn():
    train, test = correlated(200, 6), correlated(30, 6, seed=1)
    biased = EmpiricalCovariance().fit(train.numpy())  # divides by N, not by N − 1
    expected = np.sqrt(biased.mahalanobis(test.numpy()) * 199 / 200)
    np.testing.assert_allclose(
        Gaussian(reg_covar=0).fit(train).anomaly_score(test), expected, rtol=1e-6
    )


def test_diagonal_gaussian_sees_no_correlation():
    train, test = correlated(100, 5).numpy(), correlated(20, 5, seed=1).numpy()
    variance = train.var(axis=0, ddof=1) + 0.1
    expected = np.sqrt((((test - train.mean(0)) ** 2) / variance).sum(1))
    scores = Gaussian("diag", reg_covar=0.1).fit(train).anomaly_score(test)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_whitened_training_vectors_are_standard():
    train = correlated(300, 5)
    whitened = Gaussian(reg_covar=0).fit(train)._whiten(train)
    np.testing.assert_allclose(whitened.mean(0), np.zeros(5), atol=1e-10)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(5), atol=1e-10)


def test_mahalanobis_distance_is_invariant_to_linear_maps():
    train, test = correlated(100, 5), correlated(20, 5, seed=1)
    linear, shift = correlated(5, 5, seed=2), 7.0
    before = Gaussian(reg_covar=0).fit(train).anomaly_score(test)
    after = (
        Gaussian(reg_covar=0)
        .fit(train @ linear + shift)
        .anomaly_score(test @ linear + shift)
    )
    np.testing.assert_allclose(before, after, rtol=1e-5)


def test_squared_distances_of_fresh_draws_follow_chi_squared():
    d = 8
    scores = (
        Gaussian(reg_covar=0)
        .fit(correlated(20000, d)[:10000])
        .anomaly_score(correlated(20000, d)[10000:])
    )
    squared = scores.double().numpy() ** 2
    assert squared.mean() == pytest.approx(d, rel=0.02)  # its standard error is 0.5 %
    assert kstest(squared, chi2(d).cdf).statistic < 0.02


def test_few_vectors_need_regularisation():
    train = correlated(5, 12)
    with pytest.raises(ValueError, match="singular"):
        Gaussian(reg_covar=0).fit(train)
    precision = np.linalg.inv(np.cov(train.T) + 0.1 * np.eye(12))
    expected = [mahalanobis(x, train.mean(0).numpy(), precision) for x in train.numpy()]
    np.testing.assert_allclose(
        Gaussian(reg_covar=0.1).fit(train).anomaly_score(train), expected, rtol=1e-6
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("d", [2, 3, 10, 50])
def test_singular_covariances_never_slip_through(d, seed):
    # Of N = D vectors the covariance has rank D − 1, but rounding gives its Cholesky
    # factor a last pivot.
    with pytest.raises(ValueError, match="singular"):
        Gaussian(reg_covar=0).fit(correlated(d, d, seed))
    dependent = correlated(5 * d, d, seed)
    dependent[:, -1] = dependent[:, :-1].sum(1)
    with pytest.raises(ValueError, match="singular"):
        Gaussian(reg_covar=0).fit(dependent)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_constant_feature_is_singular(covariance_type):
    train = correlated(50, 3)
    train[:, 1] = 2
    with pytest.raises(ValueError, match="reg_covar"):
        Gaussian(covariance_type, reg_covar=0).fit(train)
    assert torch.isfinite(
        Gaussian(covariance_type).fit(train).anomaly_score(train)
    ).all()


def test_features_of_very_different_scale_are_not_called_singular():
    train = correlated(100, 4) * torch.tensor(
        [1e-6, 1.0, 1e3, 1e6], dtype=torch.float64
    )
    scores = Gaussian(reg_covar=0).fit(train).anomaly_score(train)
    np.testing.assert_allclose(
        scores,
        Gaussian(reg_covar=0).fit(correlated(100, 4)).anomaly_score(correlated(100, 4)),
        rtol=1e-5,
    )


def test_full_covariance_of_too_many_features_is_refused_before_it_fills_the_memory():
    with pytest.raises(ValueError, match=r"at most 8192 .* got 10000"):
        Gaussian().fit(torch.rand(3, 1, 100, 100))
    assert (
        len(
            Gaussian("diag")
            .fit(torch.rand(3, 1, 100, 100))
            .anomaly_score(torch.rand(2, 1, 100, 100))
        )
        == 2
    )


def test_gaussian_remembers_nothing_that_grows_with_the_number_of_vectors():
    few, many = (Gaussian().fit(correlated(n, 4)) for n in (20, 2000))
    sizes = [
        {k: v.numel() for k, v in vars(d).items() if isinstance(v, torch.Tensor)}
        for d in (few, many)
    ]
    assert sizes[0] == sizes[1] == {"mean_": 4, "scale_": 16}


def test_gaussian_holds_one_batch_at_a_time():
    seen, alive = [], []

    def batches():
        for seed in range(20):
            batch = correlated(10, 4, seed).numpy()
            seen.append(weakref.ref(batch))
            alive.append(sum(reference() is not None for reference in seen))
            yield batch

    Gaussian().fit(batches())
    assert len(alive) == 20
    assert max(alive) <= 2


def test_pixel_gaussian_is_the_standardised_pixel():
    train, test = pictures(40, channels=3), pictures(6, channels=3, seed=1)
    mean, variance = train.double().mean(0), train.double().var(0) + 0.01
    expected = (((test.double() - mean) ** 2 / variance).mean(1)).sqrt()
    detector = PixelGaussian(reg_covar=0.01).fit(train)
    np.testing.assert_allclose(detector.anomaly_map(test), expected, rtol=1e-6)
    np.testing.assert_allclose(
        detector.anomaly_score(test), expected.amax((1, 2)), rtol=1e-6
    )
    detector = PixelGaussian(reg_covar=0.01, image_score="mean").fit(train)
    np.testing.assert_allclose(
        detector.anomaly_score(test), expected.mean((1, 2)), rtol=1e-6
    )


# KNN


@pytest.mark.parametrize("k", [1, 3, 30])
def test_knn_is_brute_force(k):
    train, test = correlated(30, 4), correlated(10, 4, seed=1)
    expected = np.sort(cdist(test, train), axis=1)[:, :k].mean(1)
    np.testing.assert_allclose(
        KNN(n_neighbors=k).fit(train).anomaly_score(test), expected, rtol=1e-6
    )


def test_knn_is_zero_at_a_training_vector_and_nowhere_else():
    train = pictures(30, height=4, width=4)
    detector = KNN(n_neighbors=1).fit(train)
    assert float(detector.anomaly_score(train).max()) < 1e-5
    assert float(detector.anomaly_score(train.flip(3)).min()) > 0.1


# PCAResidual


ways = pytest.mark.parametrize("exact", [1024, 0], ids=["covariance", "chunks"])


@ways
def test_pca_residual_of_one_chunk_is_that_of_sklearn(exact, monkeypatch):
    monkeypatch.setattr("adlab.vectors.components.EXACT", exact)
    train, test = correlated(200, 10).numpy(), correlated(20, 10, seed=1).numpy()
    pca = PCA(n_components=4).fit(train)
    expected = np.linalg.norm(test - pca.inverse_transform(pca.transform(test)), axis=1)
    np.testing.assert_allclose(
        PCAResidual(4).fit(train).anomaly_score(test), expected, rtol=1e-6
    )


@ways
def test_pca_residual_of_many_vectors_is_that_of_sklearn(exact, monkeypatch):
    monkeypatch.setattr("adlab.vectors.components.EXACT", exact)
    rng = np.random.default_rng(0)
    subspace = rng.normal(size=(4, 20)) * 5
    train, test = (
        rng.normal(size=(n, 4)) @ subspace + rng.normal(size=(n, 20))
        for n in (3000, 50)
    )
    pca = PCA(n_components=4).fit(train)
    expected = np.linalg.norm(test - pca.inverse_transform(pca.transform(test)), axis=1)
    np.testing.assert_allclose(
        PCAResidual(4).fit(train).anomaly_score(test),
        expected,
        rtol=1e-6 if exact else 0.02,
    )


def test_pca_residual_is_zero_inside_the_subspace_and_the_distance_outside():
    basis = torch.linalg.qr(correlated(6, 6)).Q.T
    train = torch.randn(50, 2, dtype=torch.float64) @ basis[:2]
    detector = PCAResidual(2).fit(train)
    inside = torch.tensor([[3.0, -8.0]], dtype=torch.float64) @ basis[:2]
    np.testing.assert_allclose(detector.anomaly_score(inside), 0, atol=1e-6)
    np.testing.assert_allclose(
        detector.anomaly_score(inside + 2.5 * basis[4]), 2.5, rtol=1e-6
    )


def test_pca_map_sums_to_the_squared_score():
    train, test = pictures(40, channels=3), pictures(5, channels=3, seed=1)
    detector = PCAResidual(4).fit(train)
    maps = detector.anomaly_map(test)
    assert maps.shape == (5, 9, 7)
    np.testing.assert_allclose(
        maps.sum((1, 2)), detector.anomaly_score(test) ** 2, rtol=1e-5
    )


def test_pca_of_vectors_has_no_map():
    detector = PCAResidual(2).fit(correlated(30, 5))
    with pytest.raises(ValueError, match="vectors of 5 features"):
        detector.anomaly_map(correlated(3, 5))


@ways
@pytest.mark.parametrize("n", [4, 255, 256, 257, 300, 511, 513])
def test_pca_takes_any_number_of_vectors_in_any_batches(n, exact, monkeypatch):
    monkeypatch.setattr("adlab.vectors.components.EXACT", exact)
    train = correlated(n, 5)
    scores = PCAResidual(4).fit(train).anomaly_score(train)
    in_odd_batches = (
        PCAResidual(4).fit(DataLoader(TensorDataset(train), 3)).anomaly_score(train)
    )
    np.testing.assert_allclose(scores, in_odd_batches, rtol=1e-5, atol=1e-12)
    assert len(scores) == n


# Patchwise


def slow_patch_map(detector, image, patch_size, stride):
    """The mean score of the patches over each pixel, one patch and one pixel at a time."""
    _, height, width = image.shape

    def starts(size):
        return range(0, -(-(size - patch_size) // stride) * stride + 1, stride)

    def mirror(i, size):
        return i if i < size else 2 * (size - 1) - i

    total, count = np.zeros((height, width)), np.zeros((height, width))
    for top in starts(height):
        for left in starts(width):
            rows = [mirror(top + i, height) for i in range(patch_size)]
            columns = [mirror(left + i, width) for i in range(patch_size)]
            patch = torch.stack(
                [
                    image[c, y, x]
                    for c in range(len(image))
                    for y in rows
                    for x in columns
                ]
            )
            score = float(detector.anomaly_score(patch[None]))
            bottom, right = min(top + patch_size, height), min(left + patch_size, width)
            total[top:bottom, left:right] += score
            count[top:bottom, left:right] += 1
    return total / count


def slow_patches(images, patch_size, stride):
    """All whole patches of all images, as vectors."""
    height, width = images.shape[2:]
    return torch.stack(
        [
            image[:, top : top + patch_size, left : left + patch_size].flatten()
            for image in images
            for top in range(0, height - patch_size + 1, stride)
            for left in range(0, width - patch_size + 1, stride)
        ]
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("patch_size", "stride"), [(2, 1), (3, 1), (3, 2), (4, 3), (4, 4), (7, 5)]
)
def test_patchwise_is_a_loop_over_patches(patch_size, stride, channels):
    train = pictures(20, channels, height=9, width=8)
    detector = Patchwise(Gaussian("diag"), patch_size, stride).fit(train)
    inner = Gaussian("diag").fit(slow_patches(train, patch_size, stride))
    for height, width in [(9, 8), (7, 12), (10, 7)]:
        test = pictures(2, channels, height, width, seed=1)
        expected = np.stack(
            [slow_patch_map(inner, image, patch_size, stride) for image in test]
        )
        np.testing.assert_allclose(detector.anomaly_map(test), expected, rtol=1e-4)
        np.testing.assert_allclose(
            detector.anomaly_score(test), expected.max((1, 2)), rtol=1e-4
        )


def test_patch_statistics_are_three_numbers_a_channel():
    patches = pictures(5, channels=2, height=4, width=4).double().numpy()
    expected = np.zeros((5, 6))
    for i, patch in enumerate(patches):
        for c, values in enumerate(patch):
            down, right = np.diff(values, axis=0), np.diff(values, axis=1)
            expected[i, c] = values.mean()
            expected[i, 2 + c] = 0.5 * np.log(values.std() ** 2 + 1e-6)
            expected[i, 4 + c] = np.log((down**2).mean() + (right**2).mean() + 1e-6)
    np.testing.assert_allclose(
        patch_statistics(torch.from_numpy(patches)), expected, rtol=1e-9
    )


def test_statistics_of_flat_patches_are_finite():
    assert torch.isfinite(patch_statistics(torch.zeros(3, 1, 2, 2))).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_may_be_described_by_their_statistics(channels):
    train, test = pictures(20, channels), pictures(1, channels, seed=1)
    detector = Patchwise(Gaussian(), 3, 3, features="statistics").fit(train)
    vectors = [
        patch_statistics(slow_patches(x, 3, 3).view(-1, channels, 3, 3))
        for x in (train, test)
    ]
    scores = Gaussian().fit(vectors[0]).anomaly_score(vectors[1])
    maps = detector.anomaly_map(test)[0, ::3, :6:3]  # no two of these patches overlap
    np.testing.assert_allclose(maps, scores.view(3, 2), rtol=1e-4)


def test_every_pixel_is_seen_up_to_the_border():
    detector = Patchwise(KNN(), patch_size=4, stride=4).fit(
        pictures(20, height=16, width=16)
    )
    for height in range(4, 12):
        for width in range(4, 12):
            plain = torch.full((1, 1, height, width), 0.5)
            plain[..., -1, -1] = 1
            before, after = (
                detector.anomaly_map(plain.clamp(max=0.5)),
                detector.anomaly_map(plain),
            )
            assert torch.isfinite(after).all()
            assert float(before[0, -1, -1]) != float(after[0, -1, -1])


def test_map_points_at_the_anomaly():
    train, test = (
        pictures(20, height=32, width=32) * 0.5,
        pictures(1, height=32, width=32, seed=1) * 0.5,
    )
    test[..., 8:14, 18:24] = 1
    maps = Patchwise(Gaussian(), patch_size=4, stride=2).fit(train).anomaly_map(test)
    row, column = divmod(int(maps[0].argmax()), 32)
    assert 8 <= row < 14
    assert 18 <= column < 24


def test_shifted_image_has_the_shifted_map():
    detector = Patchwise(Gaussian(), patch_size=3, stride=1).fit(pictures(20))
    image = pictures(1, height=12, width=12, seed=1)
    maps, shifted = (
        detector.anomaly_map(image),
        detector.anomaly_map(image[..., 2:, 1:]),
    )
    np.testing.assert_allclose(maps[:, 4:-2, 3:-2], shifted[:, 2:-2, 2:-2], rtol=1e-5)


def test_patchwise_leaves_the_detector_it_was_given():
    inner = Gaussian().fit(correlated(30, 3))
    scores = inner.anomaly_score(correlated(5, 3))
    Patchwise(inner, 3, 2).fit(pictures(10)).anomaly_map(pictures(2))
    np.testing.assert_array_equal(inner.anomaly_score(correlated(5, 3)), scores)


def test_patchwise_computes_on_its_own_device():
    detector = Patchwise(KNN(device="auto"), 3, 2, device="cpu").fit(pictures(10))
    assert detector.detector_.device == "cpu"
    assert detector.detector.device == "auto"


# All of them


@pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning"
)  # scikit-learn's PCA: 0/0 is explained
@each
def test_constant_images_are_no_trouble(name):
    constant = torch.full((12, 1, 9, 7), 0.25)
    detector = variants()[name].fit(constant)
    np.testing.assert_allclose(detector.anomaly_score(constant), 0, atol=1e-4)
    assert (detector.anomaly_score(constant + 0.1) > 0.05).all()


@each
def test_order_of_the_training_images_does_not_matter(name):
    train, test = pictures(40), pictures(9, seed=1)
    there, back = (
        variants()[name].fit(images).anomaly_score(test)
        for images in (train, train.flip(0))
    )
    np.testing.assert_allclose(there, back, rtol=1e-3)


@each
def test_odd_images_score_higher(name):
    detector = variants()[name].fit(pictures(60) * 0.5)
    normal = detector.anomaly_score(pictures(20, seed=1) * 0.5)
    odd = pictures(20, seed=2) * 0.5
    odd[:, :, 2:6, 2:6] = 1
    assert float(normal.max()) < float(detector.anomaly_score(odd).min())


class Numbered(Dataset):
    """Single images, each with what may go with it: a label, no mask, a name."""

    def __init__(self, images):
        self.pictures = images

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i], i % 2, None, f"image {i}"


FORMS = {
    "ndarray": lambda x: x.numpy(),
    "float64": lambda x: x.double(),
    "image-set": ImageSet,
    "list-of-images": list,
    "list-of-arrays": lambda x: list(x.numpy()),
    "nested-lists": lambda x: x.tolist(),
    "list-of-batches": lambda x: list(x.split(11)),
    "tuple-of-batches": lambda x: x.split(11),
    "generator-of-batches": lambda x: (batch for batch in x.split(7)),
    "tensor-dataset": TensorDataset,
    "dataset-of-tuples": Numbered,
    "loader": lambda x: DataLoader(x, 9),
    "loader-of-tuples": lambda x: DataLoader(TensorDataset(x, torch.arange(len(x))), 9),
    "loader-with-other-collation": lambda x: DataLoader(x, 9, collate_fn=torch.stack),
    "strided": lambda x: torch.stack([x, x], 1)[:, 0],
    "read-only": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "big-endian": lambda x: x.numpy().astype(">f4"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
@each
def test_all_forms_of_images_give_the_same(name, form):
    train, test = pictures(40), pictures(9, seed=1)
    expected = variants()[name].fit(train).anomaly_score(test)
    detector = variants()[name].fit(FORMS[form](train))
    np.testing.assert_allclose(
        detector.anomaly_score(FORMS[form](test)), expected, rtol=1e-4
    )


@pytest.mark.parametrize("form", [form for form in FORMS if form != "image-set"])
@pytest.mark.parametrize("detector", [Gaussian(), KNN(2), PCAResidual(2)], ids=repr)
def test_all_forms_of_vectors_give_the_same(detector, form):
    train, test = correlated(40, 4).float(), correlated(9, 4, seed=1).float()
    expected = detector.fit(train).anomaly_score(test)
    scores = detector.fit(FORMS[form](train)).anomaly_score(FORMS[form](test))
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("detector", [Gaussian(), KNN(2), PCAResidual(2)], ids=repr)
def test_an_image_is_the_vector_of_its_pixels(detector):
    train, test = pictures(40), pictures(9, seed=1)
    expected = detector.fit(train.flatten(1)).anomaly_score(test.flatten(1))
    np.testing.assert_allclose(
        detector.fit(train).anomaly_score(test), expected, rtol=1e-6
    )


# far from the origin, few digits, one number


@pytest.mark.parametrize("offset", [1e4, -1e6])
@pytest.mark.parametrize(
    "detector",
    [
        *(KNN(), KNN(3), KMeans(4), KernelSVDD(), PCAResidual(3)),
        *(Gaussian(), Gaussian("diag"), Gaussian("ledoit-wolf"), GaussianMixture(2)),
        *(PCAReduced(KNN(), 3), PCAReduced(Gaussian(), 3, "smallest")),
    ],
    ids=repr,
)
def test_scores_do_not_depend_on_where_the_origin_is(detector, offset):
    """‖x − y‖² = ‖x‖² + ‖y‖² − 2 x·y loses its digits where x and y are large."""
    train = correlated(120, 6)
    train[5], test = train[4], torch.cat([train[:20], correlated(20, 6, seed=1)])
    train, test = ((x + offset) - offset for x in (train, test))  # exact on both sides
    here = detector.fit(train).anomaly_score(test)
    there = detector.fit(train + offset).anomaly_score(test + offset)
    scale = float(here.abs().max())
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=2e-6 * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("detector", [KNN(2), Gaussian(), KernelSVDD()], ids=repr)
def test_vectors_of_few_digits_are_those_numbers_in_float32(detector, dtype):
    few = correlated(40, 3).to(dtype)
    scores = detector.fit(few).anomaly_score(few)
    assert torch.equal(detector.fit(few.float()).anomaly_score(few.float()), scores)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_grey_counts_standard_deviations_to_either_side(channels):
    train, test = pictures(20, channels), pictures(6, channels, seed=1)
    test[0], test[1] = 0, 1
    grey = train.numpy().reshape(20, -1).mean(1, dtype=float)
    expected = np.abs(test.numpy().reshape(6, -1).mean(1, dtype=float) - grey.mean())
    scores = MeanGrey().fit(DataLoader(TensorDataset(train), 7)).anomaly_score(test)
    np.testing.assert_allclose(scores, expected / grey.std(ddof=1), rtol=1e-5)
    assert min(scores[:2]) > max(scores[2:])


@pytest.mark.parametrize("images", [pictures(1), pictures(1).repeat(3, 1, 1, 1)])
def test_mean_grey_needs_images_that_differ(images):
    with pytest.raises(ValueError, match="images: expected at least two of different"):
        MeanGrey().fit(images)


# Bad input


FOUR = VECTORS[:, :4]


def patches(*sizes, **options):
    return Patchwise(Gaussian(), *sizes, **options)


def in_pixels():
    return PixelGaussian().fit(IMAGES)


def in_patches():
    return patches(4).fit(IMAGES)


def in_vectors():
    return PCAResidual(2).fit(VECTORS)


test_bad_input = refuses(
    (lambda: in_pixels().anomaly_map(spoiled(IMAGES, NAN)), ValueError, "images"),
    (lambda: in_patches().anomaly_map(COLOUR), ValueError, "images"),
    (lambda: in_patches().anomaly_map(IMAGES[..., :3]), ValueError, "images"),
    (lambda: in_vectors().anomaly_map(VECTORS), ValueError, "images…vectors"),
    (lambda: Gaussian("diagonal"), ValueError, "covariance_type…'full', 'diag'…'diag"),
    (lambda: patches(4, 5), ValueError, "stride…[1, 4]…5"),
    (lambda: patches(features="gabor"), ValueError, "features…'pixels'…'gabor'"),
    (lambda: Gaussian().fit(IMAGES[:1]), ValueError, "images…at least 2…got 1"),
    (lambda: Gaussian(reg_covar=0).fit(VECTORS), ValueError, "images…reg_covar"),
    (lambda: Gaussian().fit(torch.zeros(2, 1, 99, 99)), ValueError, "images…8192…9801"),
    (lambda: Moments().covariance(), ValueError, "images…at least 2…got 0"),
    (lambda: KNN(9).fit(IMAGES), ValueError, "images…n_neighbors = 9…8"),
    (lambda: PCAResidual(9).fit(IMAGES), ValueError, "images…n_components = 9…8, 30"),
    (lambda: PCAResidual(5).fit(FOUR), ValueError, "images…n_components = 5…8, 4"),
    (lambda: patches(8).fit(IMAGES), ValueError, "images…patch_size = 8…(6, 5)"),
)
