"""Nothing is changed."""

from adlab.vectors import Gaussian, Patchwise

MARKS = {"q1": 3}
WORDS = {"q1": "on broken fibres the AUROC of your detector is"}


# %% q1
def make_detector():
    return Patchwise(Gaussian(), patch_size=20, features="statistics")
