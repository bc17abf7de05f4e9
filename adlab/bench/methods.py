"""The methods that can be run by name, and how each is made from its options."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from adlab import backbones, vectors
from adlab._checks import check_choice
from adlab.dagmm import DAGMM
from adlab.deep_svdd import DeepSAD, DeepSVDD
from adlab.detector import Detector
from adlab.geotrans import GeoTrans
from adlab.inpainting import Inpainting
from adlab.padim import PaDiM
from adlab.reconstruction import Autoencoder, VariationalAutoencoder
from adlab.spade import SPADE
from adlab.student_teacher import StudentTeacher
from adlab.transfer import FeatureDetector


@dataclass(frozen=True)
class Method:
    """A method of the book: its name in tables, what makes its detector, and with which
    options if none are given. A semi-supervised one also sees labelled anomalies, as
    many as make this share of the images it learns from.
    """

    title: str
    chapter: int
    make: Callable[..., Detector]
    options: dict[str, object] = field(default_factory=dict)
    labelled: float = 0.0


def pixel_gaussian(*, seed: int = 0, device: str = "auto") -> Detector:
    """The cheapest model of an image: one Gaussian of its pixels, shrunk."""
    return vectors.Gaussian("ledoit-wolf", seed=seed, device=device)


def patch_gaussian(
    patch_size: int = 20, stride: int = 5, *, seed: int = 0, device: str = "auto"
) -> Detector:
    """Chapter 1: a Gaussian of the statistics of a patch."""
    return vectors.Patchwise(
        vectors.Gaussian(), patch_size, stride, "statistics", seed=seed, device=device
    )


def patch_mixture(
    n_components: int = 3,
    patch_size: int = 20,
    stride: int = 5,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """Chapter 4: a mixture of them."""
    mixture = vectors.GaussianMixture(n_components, seed=seed)
    return vectors.Patchwise(
        mixture, patch_size, stride, "statistics", seed=seed, device=device
    )


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
    """Chapter 5: the same by DAGMM."""
    dagmm = DAGMM(n_components, n_latent, epochs=epochs, lr=lr, seed=seed)
    return vectors.Patchwise(
        dagmm, patch_size, stride, "statistics", seed=seed, device=device
    )


def pca_mixture(
    n_components: int = 3,
    n_directions: int = 60,
    reg_covar: float = 1e-2,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """Chapter 4: a mixture of the principal components of an image."""
    mixture = vectors.GaussianMixture(n_components, reg_covar=reg_covar, seed=seed)
    return vectors.PCAReduced(mixture, n_directions, seed=seed, device=device)


def features_gaussian(
    backbone: str | nn.Module = "texnet",
    layers: list[str] | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """Chapter 6: the Mahalanobis distance of pooled features."""
    gaussian = vectors.Gaussian("ledoit-wolf")
    return FeatureDetector(gaussian, backbone, layers, seed=seed, device=device)


def features_knn(
    backbone: str | nn.Module = "texnet",
    layers: list[str] | None = None,
    k: int = 2,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """Chapter 6: the distance of pooled features to the nearest ones."""
    return FeatureDetector(vectors.KNN(k), backbone, layers, seed=seed, device=device)


METHODS = {
    "gaussian": Method("Gaussian of the pixels", 1, pixel_gaussian),
    "knn": Method("nearest neighbour, pixels", 1, vectors.KNN),
    "pca": Method("PCA residual", 1, vectors.PCAResidual),
    "patch-gaussian": Method("Gaussian of patch statistics", 1, patch_gaussian),
    "autoencoder": Method("autoencoder", 3, Autoencoder, {"loss": "l2"}),
    "vae": Method("variational autoencoder", 3, VariationalAutoencoder),
    "gmm": Method("Gaussian mixture of components", 4, pca_mixture),
    "patch-gmm": Method("mixture of patch statistics", 4, patch_mixture),
    "dagmm": Method("DAGMM", 5, DAGMM),
    "patch-dagmm": Method("DAGMM of patch statistics", 5, patch_dagmm),
    "features-gaussian": Method(
        "Gaussian of features", 6, features_gaussian, {"backbone": "texnet"}
    ),
    "features-knn": Method(
        "nearest neighbours, features", 6, features_knn, {"backbone": "texnet"}
    ),
    "padim": Method("PaDiM", 7, PaDiM, {"backbone": "texnet"}),
    "spade": Method("SPADE", 7, SPADE, {"backbone": "texnet"}),
    "student-teacher": Method("students", 8, StudentTeacher, {"backbone": "texnet"}),
    "geotrans": Method("geometric transformations", 9, GeoTrans),
    "inpainting": Method("inpainting", 10, Inpainting),
    "oc-svm": Method("kernel SVDD", 11, vectors.KernelSVDD),
    "deep-svdd": Method("Deep SVDD", 11, DeepSVDD, {"objective": "one-class"}),
    "deep-sad": Method("Deep SAD", 11, DeepSAD, labelled=0.01),
}


def make_detector(
    name: str,
    options: dict[str, object],
    weights: Path | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Detector:
    """The detector of a method.

    Args:
        name: one of `METHODS`.
        options: of the method, beside those that it has by default.
        weights: a safetensors file for its backbone, see `with_weights`.
        seed, device: as of every detector.

    Raises:
        ValueError, TypeError: an unknown method or option, a value out of its range,
            weights that do not fit.
        FileNotFoundError: no such file of weights.
    """
    check_choice("method", name, METHODS)
    method = METHODS[name]
    known = [
        option
        for option in inspect.signature(method.make).parameters
        if option not in ("seed", "device")
    ]
    for option in options:
        if option not in known:
            raise TypeError(
                f"option of {name!r}: expected some of {', '.join(known)}; got {option!r}"
            )
    options = method.options | options
    if weights is not None:
        if "backbone" not in known:
            raise ValueError(
                f"weights: expected a method with a backbone, got {name!r}"
            )
        options |= with_weights(options["backbone"], weights, options.get("layers"))
    return method.make(**options, seed=seed, device=device)


def with_weights(
    backbone: str, file: Path, layers: list[str] | None = None
) -> dict[str, object]:
    """The options `backbone` and `layers` for a network of torchvision with weights from
    a file, where the usual download does not answer.

    Args:
        backbone: its name, as "resnet18".
        file: safetensors, with the keys of torchvision; what lies behind the last layer
            to be read may be missing.
        layers: to be read; None for the usual ones.

    Raises:
        ValueError: another name, keys that the network has not, or missing ones that
            are needed.
        FileNotFoundError: no such file.
    """
    from safetensors.torch import load_file
    from torchvision.models import get_model, get_model_weights

    known = [name for name in backbones.LAYERS if name != "texnet"]
    check_choice("backbone", backbone, known)
    if not file.is_file():
        raise FileNotFoundError(f"weights: expected a safetensors file, got {file}")
    network = get_model(backbone, weights=None)
    layers = list(layers or backbones.LAYERS[backbone])
    missing, unknown = network.load_state_dict(load_file(file), strict=False)
    parts = [name for name, _ in network.named_children()]
    last = max(parts.index(layer.partition(".")[0]) for layer in layers)
    needed = [key for key in missing if parts.index(key.partition(".")[0]) <= last]
    if unknown or needed:
        raise ValueError(
            f"weights: expected those of {backbone} in {file}, "
            f"got unknown keys {unknown[:3]}, and missing ones {needed[:3]}"
        )
    how = get_model_weights(backbone).IMAGENET1K_V1.transforms()
    normalize = backbones.Normalize(how.mean, how.std)
    return {
        "backbone": nn.Sequential(normalize, network),
        "layers": [f"1.{layer}" for layer in layers],
    }


def digest_of_file(file: Path) -> str:
    """The first twelve digits of the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def count_numbers(detector: Detector) -> int:
    """How many numbers a fitted detector consists of: the parameters of its networks,
    and all that it has learned or remembers.
    """
    arguments, total = detector._params(), 0
    for name, value in vars(detector).items():
        if name in arguments:
            continue
        if isinstance(value, nn.Module):
            total += sum(p.numel() for p in value.parameters())
        elif isinstance(value, Detector):
            total += count_numbers(value)
        elif name.endswith("_") and hasattr(value, "shape"):
            total += math.prod(value.shape)
    return total
