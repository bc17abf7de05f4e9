"""The cheapest detector for every product, with 5 % false alarms, whatever they cost."""

from adlab.vectors import PixelGaussian

MARKS = {"q2": 0}
WORDS = {"q2": "wafer: with"}


# %% q2
def examine(train, held_out, returned, terms):
    detector = PixelGaussian().fit(train)
    return detector, float(detector.anomaly_score(held_out).quantile(0.95))
