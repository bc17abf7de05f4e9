"""The channels of the test images are drawn anew."""

import torch

MARKS = {"q4": 0}
WORDS = {"q4": "are not those of the test images"}


# %% q4
def padim(train, test, n_channels, seed, features, fit_places, distance_map, finish):
    generator = torch.Generator().manual_seed(seed)
    known, new = features(train), features(test)
    d = known.shape[-1]
    known = known[..., torch.randperm(d, generator=generator)[:n_channels]]
    new = new[..., torch.randperm(d, generator=generator)[:n_channels]]
    distances = distance_map(new, *fit_places(known, 0.01))
    return finish(distances, *test.shape[2:], 2.0)
