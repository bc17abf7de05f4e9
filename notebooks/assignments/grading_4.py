"""Oracles and data of the hidden tests of assignment 4."""

import numpy as np
from grading import answer, seed


def is_named(wrong_steps, name):
    """Assert that a step is among at most three names."""
    named = set(answer(wrong_steps))
    assert len(named) <= 3, f"three steps are wrong, you name {len(named)}"
    assert name in named, (
        f"of the wrong steps you name {len(named)}, and one is missing"
    )


def step(mended_steps, name):
    """Return one of the mended steps."""
    mended = answer(mended_steps)
    assert name in mended, f"the step {name!r} is not mended"
    return mended[name]


def drawn(k, n_parts=40):
    """Return parts and labels of images in a random order, of parts with one to five
    images each.
    """
    rng = np.random.default_rng(seed(k))
    parts = rng.permutation(
        np.repeat(np.arange(n_parts), rng.integers(1, 6, n_parts))
    )
    return parts, (parts % 4 == 0).astype(int)


def check_split(split):
    """Assert that parts stay together, all are used, and the shares are kept."""
    parts, labels = drawn(1)
    sets = [
        np.asarray(s)
        for s in split(parts, labels, np.random.default_rng(seed(2)))
    ]
    train, held_out, test = sets
    rows = np.concatenate(sets)
    assert sorted(rows) == list(range(len(parts))), (
        "each image must be in exactly one of the three sets"
    )
    assert not labels[train].any() and not labels[held_out].any(), (
        "there are anomalies in what you train on or hold out"
    )
    for first, second, words in (
        (train, test, "trained on and tested on"),
        (train, held_out, "trained on and held out"),
        (held_out, test, "held out and tested on"),
    ):
        shared = np.intersect1d(parts[first], parts[second])
        assert not len(shared), f"{len(shared)} parts are both {words}"
    counts = [len(np.unique(parts[s][labels[s] == 0])) for s in sets]
    assert np.abs(np.array(counts) - [15, 7.5, 7.5]).max() <= 2, (
        f"of 30 normal parts you train on {counts[0]}, hold out {counts[1]} and test "
        f"on {counts[2]}; expected a half, a quarter and a quarter"
    )
    again = split(parts, labels, np.random.default_rng(seed(3)))[0]
    assert set(parts[again]) != set(parts[train]), (
        "the split is not drawn at random"
    )


def check_standardise(standardise):
    """Assert that only training images decide on the mean and the deviation."""
    rng = np.random.default_rng(seed(4))
    images, train = rng.normal(2, 3, (30, 4, 4)), np.arange(3, 18)
    found = np.asarray(standardise(images.copy(), train))
    changed = images.copy()
    changed[20:] += 5
    moved = np.asarray(standardise(changed, train))
    assert np.allclose(found[:20], moved[:20]), (
        "what you make of an image depends on images that you do not train on"
    )
    known = found[train]
    assert np.allclose(known.mean(0), 0, atol=1e-4), "the mean is not zero"
    assert np.allclose(known.std(0), 1, atol=0.05), "the deviation is not one"
    single = np.asarray(standardise(images[:19].copy(), train))
    assert np.allclose(found[18], single[18]), (
        "an image alone gives something else"
    )


def check_threshold(threshold, fpr=0.1, n=29, draws=4000):
    """Assert that it looks at held-out scores only, and keeps its promise."""
    rng = np.random.default_rng(seed(5))
    held_out, test = np.arange(n), np.arange(n, n + 20)
    scores = rng.exponential(1, n + 20)
    changed = scores.copy()
    changed[test] += 10
    limits = [threshold(s, held_out, test, fpr) for s in (scores, changed)]
    assert limits[0] == limits[1], "your threshold depends on the test images"
    rates = [
        np.exp(
            -threshold(s, held_out, test, fpr)
        )  # of a new exponential score
        for s in rng.exponential(1, (draws, n + 20))
    ]
    slack = 4 * np.std(rates) / np.sqrt(draws)
    rate = np.mean(rates)
    assert rate < fpr + slack, (
        f"asked for {fpr:.0%} false alarms, you give {rate:.1%}"
    )
    assert rate > fpr - 1 / (n + 1) - slack, (
        f"asked for {fpr:.0%} false alarms, you give only {rate:.1%}"
    )


def recorded():
    """Return a study that notes how it is called, with AUROCs that are known."""
    calls = []

    def study(seed, fpr=0.1, **mended):
        calls.append((seed, frozenset(mended)))
        flattered = "split" not in mended
        spoiled = 0.1 * (2 - len({"standardise", "threshold"} & set(mended)))
        return 0.6 + 0.01 * seed * (1 + flattered) - spoiled, 0.1, 0.5

    return study, calls


MENDED = dict.fromkeys(("split", "standardise", "threshold"), len)


def check_one_cause(flattery):
    """Assert that only the split differs between the two studies."""
    study, calls = recorded()
    answer(flattery, [1, 2], study, dict(MENDED))
    used = {names for _, names in calls}
    both = frozenset({"standardise", "threshold"})
    assert used == {both, both | {"split"}}, (
        "the two studies must differ in the split alone; yours replace "
        + " and ".join(str(sorted(names)) for names in used)
    )


def check_mean(flattery):
    """Assert that it is the mean over all seeds, with the right sign."""
    seeds = [seed(6) % 7 + k for k in range(5)]
    study, _ = recorded()
    found = float(answer(flattery, seeds, study, dict(MENDED)))
    expected = 0.01 * np.mean(seeds)
    assert abs(found - expected) < 1e-9, (
        f"of draws that gain {expected:.3f} in the mean, you say {found:.3f}"
    )
