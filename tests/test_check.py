"""A right answer passes; a wrong one is told what is wrong with it, in words."""

import random

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

import adlab
from adlab import (
    check,
    dagmm,
    decision,
    deep_svdd,
    geotrans,
    inpainting,
    metrics,
    open_set,
    padim,
    reconstruction,
    similarity,
    spade,
    student_teacher,
    transfer,
    vectors,
)
from adlab.check import CheckError
from adlab.vectors import KNN, Gaussian, PixelGaussian

CHECKS = [name for name in check.__all__ if name not in ("CheckError", "detector")]


def kernel_svdd(x, support, weights, gamma):
    """The package's distance, for a ball that was not fitted."""
    svdd = vectors.KernelSVDD()
    svdd.support_, svdd.weights_, svdd.gamma_ = support, weights, gamma
    svdd.norm_ = float(weights @ svdd._similarity(support))
    return svdd._squared_distance(x)


OWN = {
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "best_radius": deep_svdd.best_radius,
    "cell_masks": inpainting.cell_masks,
    "covariance_penalty": dagmm.covariance_penalty,
    "dirichlet_score": geotrans.dirichlet_score,
    "distance_to_nearest": spade.distance_to_nearest,
    "e_step": lambda x, w, m, c: vectors.e_step(x, w, m, vectors.cholesky_factors(c)),
    "energy_score": open_set.energy_score,
    "error_and_variance": student_teacher.error_and_variance,
    "inpaint": inpainting.inpaint,
    "kernel_distance": kernel_svdd,
    "kl_divergence": reconstruction.kl_divergence,
    "knn_score": lambda train, test, k: KNN(k).fit(train).anomaly_score(test),
    "m_step": lambda x, r: vectors.m_step(x, r, reg_covar=0),
    "mahalanobis_map": padim.mahalanobis_map,
    "msp_score": open_set.msp_score,
    "oscr": metrics.oscr,
    "pixel_gaussian": lambda train, test, reg_covar: (
        PixelGaussian(reg_covar).fit(train).anomaly_map(test)
    ),
    "pool": transfer.pool,
    "pro": metrics.pro,
    "quantile_threshold": decision.quantile_threshold,
    "sample": reconstruction.sample,
    "soft_boundary_loss": deep_svdd.soft_boundary_loss,
    "softmax_score": geotrans.softmax_score,
    "ssim": lambda x, y, data_range: similarity.ssim(x, y, data_range=data_range),
    "transform": geotrans.transform,
    "with_reconstruction_features": dagmm.with_reconstruction_features,
}


def told(name, answer, seed=0):
    """What a check says of an answer."""
    with pytest.raises(CheckError) as caught:
        getattr(check, name)(answer, seed)
    return str(caught.value)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CHECKS)
def test_the_packages_own_function_is_right(name, seed, capsys):
    getattr(check, name)(OWN[name], seed)
    assert capsys.readouterr().out == f"{name}: 100 instances, all right\n"


KNOWN = [
    (name, words, mistake)
    for name in CHECKS
    for words, mistake in getattr(check, name).mistakes.items()
]


@pytest.mark.parametrize(
    ("name", "words", "mistake"), KNOWN, ids=[f"{row[0]}: {row[1]}" for row in KNOWN]
)
@pytest.mark.filterwarnings("ignore")
def test_every_known_mistake_is_told_by_its_own_words(name, words, mistake):
    """In NumPy's or torch's own order of arguments, as a student's function has it."""
    names = check_arguments(name)
    message = told(name, lambda *given: mistake(**dict(zip(names, given, strict=True))))
    assert message.startswith(f"your {name} {words}: {names[0]} "), message
    assert "; " in message
    assert "expected" in message
    assert len(message) < 600
