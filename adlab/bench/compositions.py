"""Methods that are put together from detectors of the package, and baselines."""

from __future__ import annotations

from torch import nn

from adlab import vectors
from adlab._methods import method
from adlab.dagmm import DAGMM
from adlab.detector import Detector
from adlab.transfer import FeatureDetector


@method("gaussian", "Gaussian of the pixels", chapter=1)
def pixel_gaussian(*, seed: int = 0, device: str = "auto") -> Detector:
    """The cheapest model of an image: one Gaussian of its pixels, shrunk."""
    return vectors.Gaussian("ledoit-wolf", seed=seed, device=device)


@method("patch-gaussian", "Gaussian of patch statistics", chapter=1)
def patch_gaussian(
    patch_size: int = 20, stride: int = 5, *, seed: int = 0, device: str = "auto"
) -> Detector:
    """A Gaussian of the statistics of a patch."""
    return vectors.Patchwise(
        vectors.Gaussian(), patch_size, stride, "statistics", seed=seed, device=device
    )


@method("patch-gmm", "mixture of patch statistics", chapter=4)
def patch_mixture(
    n_components: int = 3,
    patch_size: int = 20,
    stride: int = 5,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """A mixture of them."""
    mixture = vectors.GaussianMixture(n_components, seed=seed)
    return vectors.Patchwise(
        mixture, patch_size, stride, "statistics", seed=seed, device=device
    )


@method("patch-dagmm", "DAGMM of patch statistics", chapter=5)
def patch_dagmm(
    n_components: int = 3,
    n_latent: int = 1,
    epochs: int = 8,
    lr: float = 1e-2,
    patch_size: int = 20,
    stride: int = 5,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """The same by DAGMM."""
    dagmm = DAGMM(n_components, n_latent, epochs=epochs, lr=lr, seed=seed)
    return vectors.Patchwise(
        dagmm, patch_size, stride, "statistics", seed=seed, device=device
    )


@method("gmm", "Gaussian mixture of components", chapter=4)
def pca_mixture(
    n_components: int = 3,
    n_directions: int = 60,
    reg_covar: float = 1e-2,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """A mixture of the principal components of an image."""
    mixture = vectors.GaussianMixture(n_components, reg_covar=reg_covar, seed=seed)
    return vectors.PCAReduced(mixture, n_directions, seed=seed, device=device)


@method(
    "features-gaussian",
    "Gaussian of features",
    chapter=6,
    options={"backbone": "texnet"},
)
def features_gaussian(
    backbone: str | nn.Module = "texnet",
    layers: list[str] | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """The Mahalanobis distance of pooled features."""
    gaussian = vectors.Gaussian("ledoit-wolf")
    return FeatureDetector(gaussian, backbone, layers, seed=seed, device=device)


@method(
    "features-knn",
    "nearest neighbours, features",
    chapter=6,
    options={"backbone": "texnet"},
)
def features_knn(
    backbone: str | nn.Module = "texnet",
    layers: list[str] | None = None,
    n_neighbors: int = 2,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """The distance of pooled features to the nearest ones."""
    return FeatureDetector(
        vectors.KNN(n_neighbors), backbone, layers, seed=seed, device=device
    )
