"""What is asked of every message about bad input.

test_bad_input = refuses(
    (lambda: KNN(0), ValueError, "n_neighbors…an integer…got 0"),
)
"""

import re

import numpy as np
import pytest
import torch

IMAGES = torch.rand(8, 1, 6, 5, generator=torch.Generator().manual_seed(0))
COLOUR = IMAGES.repeat(1, 3, 1, 1)
VECTORS = IMAGES.flatten(1)
MAPS = IMAGES[:, 0]
MASKS = MAPS > 0.8
SCORES = np.linspace(-2, 5, 8)
LABELS = np.array([0, 0, 0, 0, 1, 1, 0, 1])
NAN, INF = float("nan"), float("inf")


def spoiled(values, bad):
    """A copy with one bad value."""
    values = torch.as_tensor(values).clone().double()
    values.view(-1)[3] = bad
    return values


def pattern(words):
    """These words, and anything between them at each "…"."""
    return "(?s)" + ".*".join(map(re.escape, words.split("…")))


def assert_refused(call, error, words):
    """By a message that begins with these words: the argument first, and that says what
    was expected and what came.
    """
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.match(pattern(words), message), message
    assert "expected" in message and "got" in message, message
    assert len(message) < 500, "a message is read, not searched"


def refuses(*rows):
    """A test of each row: a call, made in an empty folder, its error, and its words."""
    names = [words.replace("…", " ") for *_, words in rows]

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(("call", "error", "words"), rows, ids=names)
    def test(call, error, words, tmp_path, monkeypatch, capfd):
        monkeypatch.chdir(tmp_path)
        assert_refused(call, error, words)
        assert capfd.readouterr() == ("", "")

    return test
