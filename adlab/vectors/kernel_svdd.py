"""The smallest ball around most of the data, in the feature space of a kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adlab._methods import method
from adlab._parameters import Fraction, Positive
from adlab.vectors.base import VectorDetector, squared_distances

BLOCK = 256  # vectors at once, so that their distances stay in the processor's cache


@method("oc-svm", "kernel SVDD", chapter=11)
@dataclass(eq=False, repr=False)
class KernelSVDD(VectorDetector):
    r"""Support vector data description: the smallest ball around most of the data, in
    the feature space of the Gaussian kernel :math:`k(x, y) = \exp(-\gamma\|x - y\|^2)`.

    The centre is :math:`a = \sum_i \alpha_i \phi(x_i)` over the support vectors. The
    score is the squared distance to it less the squared radius, so it is positive
    outside. For this kernel the ball is that of the one-class SVM, which scikit-learn
    solves. All training vectors are held in memory, and time grows with N².

    Args:
        nu: ν in (0, 1): at most this share of the training vectors lies outside, and at
            least this share are support vectors.
        gamma: γ, in inverse squared units of the data; "scale" is 1 / (D · variance).
            Towards 0 the ball becomes one in the space of the data itself; where γ is
            large, every vector gets a ball of its own.
        seed: unused, here as in every detector.
        device: unused: scikit-learn solves on the CPU.

    After fitting, `support_` (S, D) are the support vectors, `weights_` (S,) their α
    (they sum to 1), `radius_` is R, and `gamma_` the number γ.

    Source: Tax & Duin 2004, "Support vector data description"; Schölkopf et al. 2001,
    "Estimating the support of a high-dimensional distribution".
    """

    nu: Fraction = 0.1
    gamma: Positive | Literal["scale"] = "scale"

    def _fit(self, images: object) -> None:
        from sklearn.svm import OneClassSVM

        x = torch.cat([batch.double().cpu() for batch in self._stream(images)])
        self.gamma_ = self._gamma(x)
        svm = OneClassSVM(nu=self.nu, gamma=self.gamma_, tol=1e-8)
        svm.random_state = self.seed % 2**32  # else it draws from NumPy's global state
        svm.fit((x - x.mean(0)).numpy())  # the kernel sees differences only
        total = self.nu * len(x)  # what its coefficients sum to
        self.support_ = x[torch.from_numpy(svm.support_).long()]
        self.weights_ = torch.from_numpy(svm.dual_coef_[0]) / total
        similarity = self._similarity(self.support_)
        self.norm_ = float(self.weights_ @ similarity)  # ‖a‖²
        edge = float(svm.offset_[0]) / total  # ⟨φ(x), a⟩ on the sphere
        self.radius_ = math.sqrt(max(1 + self.norm_ - 2 * edge, 0))

    def _gamma(self, x: Tensor) -> float:
        if self.gamma != "scale":
            return float(self.gamma)
        variance = float(x.var(correction=0))
        return 1 / (x.shape[1] * variance) if variance > 0 else 1.0

    def _similarity(self, x: Tensor) -> Tensor:
        """⟨φ(x), a⟩ = Σ α k(x_i, x), (N,)."""
        blocks = x.split(BLOCK) if self._constants is None else [x]  # for a trace
        return torch.cat([self._similarity_of_block(block) for block in blocks])

    def _similarity_of_block(self, x: Tensor) -> Tensor:
        squared = squared_distances(x, self.support_)
        return torch.exp(-self.gamma_ * squared) @ self.weights_

    def _squared_distance(self, x: Tensor) -> Tensor:
        """‖φ(x) − a‖², where k(x, x) = 1."""
        x = x.to(self.support_)
        return (1 - 2 * self._similarity(x) + self.norm_).clamp_min(0)

    def distance(self, images: object) -> Tensor:
        """Distance to the centre in feature space: float32 (N,), at most √2.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda x: self._squared_distance(x).sqrt(), images)

    def _score(self, batch: Tensor) -> Tensor:
        return self._squared_distance(batch) - self.radius_**2
