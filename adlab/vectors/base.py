"""What detectors of vectors share: they take vectors (N, D), or images, flattened."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from adlab._checks import as_tensor, check_images, check_vectors
from adlab._parameters import Count
from adlab.detector import Detector


def check_vectors_or_images(data: object) -> Tensor:
    """Vectors (N, D) or images (N, C, H, W), checked as what they are."""
    data = as_tensor("images", data)
    return check_images(data) if data.ndim == 4 else check_vectors(data, "images")


@dataclass(eq=False, repr=False, kw_only=True)
class VectorDetector(Detector):
    """A detector whose `_score` gets vectors: it takes (N, D) as well as images (N, C,
    H, W).
    """

    batch_size: Count = 4096
    takes_vectors = True
    _check = staticmethod(check_vectors_or_images)

    def _prepare(self, batch: Tensor) -> Tensor:
        return batch.flatten(1)


def check_vector_detector(name: str, detector: object) -> None:
    """Refuse an argument that is no detector of vectors."""
    if not (isinstance(detector, Detector) and detector.takes_vectors):
        raise TypeError(
            f"{name}: expected a detector of vectors, as Gaussian(), got {type(detector).__name__}"
        )


OfVectors = Annotated[Detector, check_vector_detector]


def fit_inside(outer: Detector, vectors: Iterable[Tensor]) -> Detector:
    """A copy of `outer.detector`, fitted to vectors on the device of `outer`."""
    detector = copy.copy(outer.detector)
    detector.device = outer.device
    return detector.fit(vectors)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances of vectors x (N, D) to vectors y (M, D): (N, M).

    ‖x − y‖² = ‖x‖² + ‖y‖² − 2 x·y costs one product of matrices. In float64, and with
    the mean of y taken away first, it keeps all digits that count.
    """
    x, y = x.double(), y.double()
    x, y = x - y.mean(0), y - y.mean(0)
    lengths = x.square().sum(1, keepdim=True) + y.square().sum(1)
    return (lengths - 2 * x @ y.T).clamp_min(0)
