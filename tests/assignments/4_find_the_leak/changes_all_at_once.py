"""The study as it was is set against the study with all three steps mended, in one draw."""

MARKS = {"q3": 0}
WORDS = {"q3": "must differ in the split alone"}


# %% q3
def flattery(seeds, study, mended):
    first = next(iter(seeds))
    return study(first)[0] - study(first, **mended)[0]
