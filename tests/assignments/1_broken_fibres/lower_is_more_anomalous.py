"""The score is a log-density: low where an image is odd."""

from adlab.vectors import Gaussian, Patchwise

MARKS = {"q1": 0}
WORDS = {"q1": "on broken fibres the AUROC of your detector is"}


# %% q1
class LogDensity(Patchwise):
    def _map(self, batch):
        return -super()._map(batch)

    def _score(self, batch):
        return -super()._map(batch).flatten(1).amax(1)


def make_detector():
    return LogDensity(Gaussian(), 20, features="statistics")
