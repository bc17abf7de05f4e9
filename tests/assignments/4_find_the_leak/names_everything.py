"""All five steps are named, so that the right ones are among them."""

MARKS = {"q1": 0}
WORDS = {"q1": "three steps are wrong, you name 5"}


# %% q1
def wrong_steps():
    return {"split", "standardise", "distances", "threshold", "figures"}
