"""Detectors of random vectors, the last step of almost every method in the book.

They take feature vectors (N, D), or images (N, C, H, W), each flattened to one vector.
`Patchwise` applies any of them to the patches of an image instead, and so says where.
"""

from adlab.vectors.base import (
    OfVectors,
    VectorDetector,
    check_vectors_or_images,
    fit_inside,
)
from adlab.vectors.components import PCAReduced, PCAResidual
from adlab.vectors.gaussian import (
    Gaussian,
    Moments,
    PixelGaussian,
    ledoit_wolf,
)
from adlab.vectors.kernel_svdd import KernelSVDD
from adlab.vectors.light import MeanGrey
from adlab.vectors.mixture import (
    GaussianMixture,
    cholesky_factors,
    e_step,
    known_inverses,
    log_density,
    m_step,
)
from adlab.vectors.neighbours import KNN, KMeans, distance_to_nearest
from adlab.vectors.patches import Patchwise, patch_statistics

__all__ = [
    "KNN",
    "Gaussian",
    "GaussianMixture",
    "KMeans",
    "KernelSVDD",
    "MeanGrey",
    "Moments",
    "OfVectors",
    "PCAReduced",
    "PCAResidual",
    "Patchwise",
    "PixelGaussian",
    "VectorDetector",
    "check_vectors_or_images",
    "cholesky_factors",
    "distance_to_nearest",
    "e_step",
    "fit_inside",
    "known_inverses",
    "ledoit_wolf",
    "log_density",
    "m_step",
    "patch_statistics",
]
