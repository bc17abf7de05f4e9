"""Images are refused alike, wherever they are taken, by a message that says what is
wrong. Bad input of one room is in the test of that room; arguments that detectors have
in common are in test_contract.py.
"""

from functools import cache

import numpy as np
import torch
from bad_input import COLOUR, IMAGES, INF, MAPS, NAN, VECTORS, refuses, spoiled
from PIL import Image
from torch.utils.data import TensorDataset

from adlab.vectors import Gaussian, PixelGaussian

RAGGED = np.array([[1.0], [1.0, 2.0]], object)
WHOLE = (IMAGES * 255).to(torch.int16)


def fit(images):
    return Gaussian().fit(images)


def pixels(images):
    return PixelGaussian().fit(images)


@cache
def fitted():
    return Gaussian(reg_covar=0.1).fit(IMAGES)


def score(images):
    return fitted().anomaly_score(images)


def score_file(file):
    Image.new("RGB", (6, 5)).save(file)
    return Gaussian().fit(VECTORS).anomaly_score(file)


class Ragged(TensorDataset):
    def __getitem__(self, i):
        return self.tensors[0][i, :, :, : 2 + i % 3]


test_training_images_are_refused = refuses(
    (lambda: fit(spoiled(IMAGES, NAN)), ValueError, "images…1 that are NaN"),
    (lambda: fit(spoiled(IMAGES, INF)), ValueError, "images…infinite"),
    (lambda: fit(IMAGES * 255), ValueError, "images…[0, 1]…25"),
    (lambda: fit(IMAGES - 0.5), ValueError, "images…[0, 1]…-0."),
    (lambda: fit(WHOLE), TypeError, "images…int16"),
    (lambda: fit(WHOLE.numpy()), TypeError, "images…int16"),
    (lambda: fit(IMAGES > 0.5), TypeError, "images…bool"),
    (lambda: pixels(IMAGES[0]), ValueError, "images…(N, C, H, W)…(1, 6, 5)"),
    (lambda: pixels(MAPS), ValueError, "images…(8, 6, 5)"),
    (lambda: pixels(IMAGES[None]), ValueError, "images…(1, 8, 1, 6, 5)"),
    (lambda: fit(COLOUR.permute(0, 2, 3, 1)), ValueError, "images…(8, 6, 5, 3)"),
    (lambda: fit(COLOUR[:, :2]), ValueError, "images…1 or 3 channels"),
    (lambda: fit(IMAGES[:0]), ValueError, "images…at least one…(0, 1, 6, 5)"),
    (lambda: fit(IMAGES[..., :0]), ValueError, "images…at least one…(8, 1, 6, 0)"),
    (lambda: fit([IMAGES[0], IMAGES[0, :, :3]]), ValueError, "images…unequal length"),
    (lambda: fit([[0.1, 0.2], [0.3]]), ValueError, "images…unequal length"),
    (lambda: fit(Ragged(IMAGES)), ValueError, "images…unequal length"),
    (lambda: fit("images.png"), FileNotFoundError, "file…images.png"),
    (lambda: fit(None), TypeError, "images…NoneType"),
    (lambda: fit(3), TypeError, "images…int"),
    (lambda: fit({"images": IMAGES}), TypeError, "images…dict"),
    (lambda: fit(["a.png", "b.png"]), FileNotFoundError, "file…a.png"),
    (lambda: fit(np.array([object()])), TypeError, "images…ndarray"),
    (lambda: fit(IMAGES.numpy() * 1j), TypeError, "images"),
    (lambda: fit(VECTORS.to_sparse()), TypeError, "images…sparse"),
    (lambda: fit(VECTORS.to("meta")), TypeError, "images…meta"),
    (lambda: fit(VECTORS + 0j), TypeError, "images…complex64"),
    (lambda: fit(RAGGED), TypeError, "images…object"),
    (lambda: fit([]), ValueError, "images"),
    (lambda: fit(iter([])), ValueError, "images…empty"),
    (lambda: fit(TensorDataset(IMAGES[:0])), ValueError, "images…empty"),
    (lambda: fit([IMAGES, IMAGES + 1]), ValueError, "images…[0, 1]"),
    (lambda: fit([IMAGES, COLOUR]), ValueError, "images…(N, 1, 6, 5)…(8, 3, 6, 5)"),
)

test_images_to_be_scored_are_refused = refuses(
    (lambda: score(spoiled(IMAGES, NAN)), ValueError, "images…NaN"),
    (lambda: score(WHOLE), TypeError, "images…int16"),
    (lambda: score(IMAGES[..., :4]), ValueError, "images…(N, 1, 6, 5)…(8, 1, 6, 4)"),
    (lambda: score(COLOUR), ValueError, "images…(N, 1, 6, 5)…(8, 3, 6, 5)"),
    (lambda: score(VECTORS), ValueError, "images…(N, 1, 6, 5)…(8, 30)"),
    (lambda: score(None), TypeError, "images…NoneType"),
    (lambda: score_file("a.png"), ValueError, "images…(N, 30)…(1, 3, 5, 6)"),
)
