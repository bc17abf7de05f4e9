"""How light an image is: the cheapest of all baselines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adlab._methods import method
from adlab.detector import Detector


@method("mean-grey", "mean grey", chapter=1)
@dataclass(eq=False, repr=False)
class MeanGrey(Detector):
    """The score counts standard deviations from an image's mean grey to that of the
    training images, to either side.

    It knows one number of an image, over all pixels and channels: how light it is. What
    does not beat it may have learned no more.

    Args:
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …
    """

    def _fit(self, images: object) -> None:
        greys = torch.cat([_mean_grey(batch) for batch in self._stream(images)])
        self.mean_ = greys.mean()
        self.std_ = greys.std() if len(greys) > 1 else torch.zeros(())
        if self.std_ < 1e-9:
            raise ValueError(
                "images: expected at least two of different mean grey, "
                f"got {len(greys)} of mean grey {float(self.mean_):.4g}"
            )

    def _score(self, batch: Tensor) -> Tensor:
        return (_mean_grey(batch) - self.mean_).abs() / self.std_


def _mean_grey(batch: Tensor) -> Tensor:
    return batch.to(torch.float64).flatten(1).mean(1)
