"""The image's score is the mean of its map."""

import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

MARKS = {"q3": 2}
WORDS = {"q3": "not the largest value"}


# %% q3
def finish(distances, height, width, sigma):
    large = interpolate(distances[:, None], (height, width), mode="bilinear")
    smooth = gaussian_filter(large[:, 0].numpy(), (0, sigma, sigma))
    return torch.from_numpy(smooth)


def image_score(maps):
    return maps.mean((1, 2))
