"""The Gaussian runs along the batch as well."""

import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

MARKS = {"q3": 1}
WORDS = {"q3": "each by itself"}


# %% q3
def finish(distances, height, width, sigma):
    large = interpolate(distances[:, None], (height, width), mode="bilinear")
    return torch.from_numpy(gaussian_filter(large[:, 0].numpy(), sigma))


def image_score(maps):
    return maps.flatten(1).amax(1)
