"""The rule of thumb, whatever rate is asked for."""

MARKS = {"q2": 0, "q3": 3}
WORDS = {
    "q2": "is mean plus three deviations, whatever fpr is",
    "q3": "by chance it would hardly ever be fewer than",
}


# %% q2
def quantile_threshold(scores, fpr):
    return scores.mean() + 3 * scores.std(ddof=1)


# %% q3
def fit_with_promise(detector, train, val, fpr):
    scores = detector.fit(train).anomaly_score(val)
    return detector, float(scores.mean() + 3 * scores.std())
