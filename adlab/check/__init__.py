"""Checks that answer: is a function of one's own right, and if not, what is wrong?

    from adlab import check
    check.auroc(my_auroc)

It prints "auroc: 100 instances, all right", or raises a `CheckError`, in a notebook as in
pytest:

    your auroc counts ties as wins: scores [0, 0], labels [0, 1]; expected 0.5, got 1

The function is called, by position, with the arguments that the check names, of many
small random instances; no answer is stored. Measures get NumPy arrays, all others
tensors in float64, and numbers. What comes back may be a tensor, an array or a number.
It is told, too, if the function fails, returns nothing, another shape or NaN, or changes
what it was given. `seed` draws other instances. The mistakes that a check knows by name
are the keys of `check.auroc.mistakes`, say.

`CheckError` is an `AssertionError`. What is no function raises `TypeError`.
"""

from __future__ import annotations

from torch import Tensor

from adlab.check.changes import cusum, ewc_penalty, forgetting, squared_gradients
from adlab.check.choosing import coreset, images_needed, p_values, pareto
from adlab.check.decisions import (
    auroc,
    average_precision,
    pixel_gaussian,
    pro,
    quantile_threshold,
)
from adlab.check.densities import (
    covariance_penalty,
    e_step,
    kl_divergence,
    m_step,
    sample,
    ssim,
    with_reconstruction_features,
)
from adlab.check.engine import Check, CheckError
from adlab.check.features import (
    distance_to_nearest,
    error_and_variance,
    knn_score,
    mahalanobis_map,
    pool,
)
from adlab.check.pyramids import cell_means, channel_factors
from adlab.check.systems import focal_loss, route, squash
from adlab.check.tasks import (
    best_radius,
    cell_masks,
    dirichlet_score,
    energy_score,
    fit_weibull,
    inpaint,
    kernel_distance,
    msp_score,
    oscr,
    soft_boundary_loss,
    softmax_score,
    transform,
)
from adlab.check.vt_adl import attention, mixture_log_density
from adlab.check.zero_shot import anomaly_probability, contrastive_loss, over_windows
from adlab.contract import CLAUSES, check_detector
from adlab.detector import Detector

CHAPTERS: dict[int, tuple[Check, ...]] = {  # whose exercises they try
    1: (pixel_gaussian,),
    2: (auroc, average_precision, pro, quantile_threshold),
    3: (kl_divergence, sample, ssim),
    4: (e_step, m_step),
    5: (covariance_penalty, with_reconstruction_features),
    6: (knn_score, pool),
    7: (distance_to_nearest, mahalanobis_map),
    8: (error_and_variance,),
    9: (dirichlet_score, softmax_score, transform),
    10: (cell_masks, inpaint),
    11: (best_radius, kernel_distance, soft_boundary_loss),
    12: (energy_score, fit_weibull, msp_score, oscr),
    13: (focal_loss,),
    14: (route, squash),
    15: (cell_means, channel_factors),
    16: (attention, mixture_log_density),
    17: (coreset, images_needed, p_values, pareto),
    18: (anomaly_probability, contrastive_loss, over_windows),
    19: (cusum, ewc_penalty, forgetting, squared_gradients),
}


def detector(answer: Detector, images: Tensor | None = None) -> None:
    """Check that a detector keeps the contract of all detectors, as
    `adlab.check_detector` does, and say so.

    Args:
        answer: not fitted; with few epochs, so that it fits fast.
        images: normal ones, as of `adlab.check_detector`; None for generated ones.
    """
    __tracebackhide__ = True
    if not isinstance(answer, Detector):
        raise TypeError(
            f"answer: expected an adlab.Detector, got {type(answer).__name__} {answer!r}"
        )
    try:
        check_detector(answer, images)
    except AssertionError as error:
        raise CheckError(f"your {error}") from None
    print(f"{type(answer).__name__}: {len(CLAUSES)} promises, all right")


__all__ = [
    "CheckError",
    "anomaly_probability",
    "attention",
    "auroc",
    "average_precision",
    "best_radius",
    "cell_masks",
    "cell_means",
    "channel_factors",
    "contrastive_loss",
    "coreset",
    "covariance_penalty",
    "cusum",
    "detector",
    "dirichlet_score",
    "distance_to_nearest",
    "e_step",
    "energy_score",
    "error_and_variance",
    "ewc_penalty",
    "fit_weibull",
    "focal_loss",
    "forgetting",
    "images_needed",
    "inpaint",
    "kernel_distance",
    "kl_divergence",
    "knn_score",
    "m_step",
    "mahalanobis_map",
    "mixture_log_density",
    "msp_score",
    "oscr",
    "over_windows",
    "p_values",
    "pareto",
    "pixel_gaussian",
    "pool",
    "pro",
    "quantile_threshold",
    "route",
    "sample",
    "soft_boundary_loss",
    "softmax_score",
    "squared_gradients",
    "squash",
    "ssim",
    "transform",
    "with_reconstruction_features",
]
