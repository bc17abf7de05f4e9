"""Products and bars of the hidden tests of assignment 6."""

import math

import numpy as np
import torch
from grading import answer, fresh, seed

LOADED = {
    "wall": ("textures", {"size": 32}),
    "fibres": ("nanofibres", {"size": 48}),
    "wafer": ("wafers", {"size": 32}),
    "digit": ("digits", {"size": 16}),
    "lawn": ("textures", {"texture": "grass", "contrast": 0.6, "size": 24}),
}
# What a piece may cost, in the median of three draws.
BARS = {
    "wall": 0.8,
    "fibres": 1.2,
    "wafer": 0.45,
    "digit": 0.5,
    "lamp": 0.25,
    "lawn": 0.22,
}
USUAL = {"prevalence": 0.1, "alarm": 1.0, "miss": 20.0}
TERMS = dict.fromkeys(BARS, USUAL) | {
    "lawn": {"prevalence": 0.02, "alarm": 1.0, "miss": 10.0}
}


def lamps(n, rng, faulty=False):
    """Return shades in light that is never the same, perhaps with a dark spot."""
    y, x = np.mgrid[:24, :24] / 24
    base = 0.45 + 0.15 * np.sin(9 * x) * np.cos(7 * y)
    light = rng.uniform(0.7, 1.3, (n, 1, 1))
    slope = 1 + rng.normal(0, 0.15, (n, 1, 1)) * (x - 0.5)
    images = base * light * slope + rng.normal(0, 0.02, (n, 24, 24))
    row, column = rng.uniform(0.2, 0.8, (2, n, 1, 1))
    spots = np.exp(-((x - column) ** 2 + (y - row) ** 2) / 0.002)
    images = images - 0.25 * spots * faulty
    return torch.from_numpy(images[:, None]).float().clip(0, 1)


def pieces(name, number):
    """Return what the student gets, and new pieces, good and faulty."""
    rng = np.random.default_rng(number)
    if name == "lamp":
        good, bad = lamps(320, rng), lamps(154, rng, True)
        return good[:60], good[60:160], bad[:24], good[160:], bad[24:]
    data, options = LOADED[name]
    if data != "digits":
        options = options | {"n_train": 60, "n_val": 100, "n_test": 308}
    splits = fresh("adlab.data").load(data, seed=number, **options)
    faulty = splits.test.labels == 1
    good, bad = splits.test.images[~faulty], splits.test.images[faulty]
    bad = bad[rng.permutation(len(bad))]
    return splits.train.images, splits.val.images, bad[:24], good, bad[24:]


def cost_of(examine, name, number):
    """Return the expected cost of a piece, and both rates."""
    train, held_out, returned, good, bad = pieces(name, number)
    given = (
        train.clone(),
        held_out.clone(),
        returned.clone(),
        dict(TERMS[name]),
    )
    detector, threshold = answer(examine, *given)
    threshold = float(threshold)
    assert not math.isnan(threshold), "the threshold is not a number"
    fpr, tpr = (
        float(
            (torch.as_tensor(detector.anomaly_score(x)) > threshold)
            .float()
            .mean()
        )
        for x in (good, bad)
    )
    terms = TERMS[name]
    cost = (1 - terms["prevalence"]) * terms["alarm"] * fpr
    return cost + terms["prevalence"] * terms["miss"] * (1 - tpr), fpr, tpr


def check_product(examine, name, k):
    """Assert that a piece costs no more than it may, in the median of three draws."""
    drawn = [cost_of(examine, name, seed(k + 10 * draw)) for draw in range(3)]
    cost, fpr, tpr = sorted(drawn)[1]
    terms = TERMS[name]
    without = min(
        terms["prevalence"] * terms["miss"],
        (1 - terms["prevalence"]) * terms["alarm"],
    )
    assert cost <= BARS[name], (
        f"{name}: with {fpr:.0%} false alarms and {tpr:.0%} found, a piece costs "
        f"{cost:.2f}; it may cost {BARS[name]:.2f}, and without inspection {without:.2f}"
    )
