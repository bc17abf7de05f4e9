"""The claims of the chapters on fresh draws: how they are counted, and the count that
is committed.
"""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import replicate

ROOT = Path(__file__).parents[1]
DRAWS, SHARE = 20, 0.95

SEEDED = """
import numpy as np
import torch
from sklearn.utils import check_random_state

from adlab.training import seeded

numbers = [
    np.random.default_rng(0).random(),
    np.random.default_rng([0, 1]).random(),
    np.random.default_rng(np.random.SeedSequence(0)).random(),
    check_random_state(0).random(),
    torch.rand(1, generator=torch.Generator().manual_seed(0)).item(),
]
np.random.seed(0)
torch.manual_seed(0)
numbers += [np.random.rand(), torch.rand(1).item()]
with seeded(0):
    numbers += [torch.rand(1).item()]
"""


@pytest.fixture
def house(tmp_path):
    """A book of its own around a copy of the tool."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "notebooks").mkdir()
    shutil.copy(replicate.__file__, tmp_path / "tools" / "replicate.py")
    return tmp_path


def chapter(house, *cells):
    cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), house / "notebooks/01.ipynb")


def count(house, draws=2, *options):
    command = [sys.executable, house / "tools" / "replicate.py", "--jobs", "1"]
    done = subprocess.run(
        [*map(str, command), "--draws", str(draws), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    with (house / "book/results/replication.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found = {
        r["claim"]: (int(r["cell"]), int(r["held"]), int(r["draws"])) for r in rows
    }
    return found, done.stdout


def test_every_seed_is_moved_and_each_draw_comes_out_again(house):
    note = house / "numbers.txt"
    chapter(
        house,
        SEEDED,
        f"file = open({str(note)!r}, 'a')",
        "file.write(repr(list(map(float, numbers))) + '\\n')\nfile.close()",
        "assert file and numbers",
    )
    count(house, 2)
    count(house, 2, "--fresh")
    exec(SEEDED, own := {})
    first, second, *again = map(eval, note.read_text().splitlines())
    assert again == [first, second]
    for place in zip(own["numbers"], first, second, strict=True):
        assert len(set(place)) == 3


def test_no_failure_hides_another(house):
    chapter(
        house,
        "x = 1\nassert x == 2, 'in 0 of 2 draws'\nassert x == 1",
        "for i in range(3):\n    assert i < 2\n    assert i < 3",
        "broken = missing\nassert broken",
        "y = x\nassert y == 1",
        "def judge(v):\n    assert v > 1\njudge(x)\njudge(2)",
    )
    found, printed = count(house)
    assert found == {
        "assert x == 2, 'in 0 of 2 draws'": (0, 0, 2),
        "assert x == 1": (0, 2, 2),
        "assert i < 2": (1, 0, 2),
        "assert i < 3": (1, 2, 2),
        "assert broken": (2, 0, 2),
        "assert y == 1": (3, 2, 2),
        "assert v > 1": (4, 0, 2),
    }
    assert "NameError: name 'missing' is not defined" in printed
    assert "2 of   7 held always" not in printed
    assert "3 of   7 held always; share 0.429" in printed


def test_only_what_a_change_touches_runs_again(house):
    note = house / "ran.txt"
    first = f"a = open({str(note)!r}, 'a').write('a')\nassert a"
    second = f"b = open({str(note)!r}, 'a').write('b')\nassert b > {{}}"
    chapter(house, first, second.format(0))
    count(house, 1)
    assert note.read_text() == "ab"
    count(house, 1)
    chapter(house, "print('words')", first, second.format(0))
    found, _ = count(house, 1)
    assert note.read_text() == "ab"  # a cell number is not a reason
    assert found["assert a"] == (1, 1, 1)
    chapter(house, first, second.format(1))
    found, _ = count(house, 1)
    assert note.read_text() == "abb"
    assert found == {"assert a": (0, 1, 1), "assert b > 1": (1, 0, 1)}
    chapter(house, first, second.format("1, 'words'"))
    found, _ = count(house, 1)
    assert note.read_text() == "abb"  # a message is not a reason either
    assert found["assert b > 1, 'words'"] == (1, 0, 1)
    count(house, 2)  # a second draw runs all of it
    assert sorted(note.read_text()) == list("aabbb")
    shutil.rmtree(house / "book/results/.replication")
    count(house, 2)  # the committed table is enough
    assert len(note.read_text()) == 5


def test_a_slice_follows_names_through_changes_in_place():
    code = "import x as m\na = []\nb = 1\nprint(a)\na.append(m)\nc = a\nassert c"
    steps = [replicate.Statement(node, 0) for node in replicate.ast.parse(code).body]
    assert replicate.slices(steps) == {6: [0, 1, 4, 5, 6]}


def test_a_slice_has_the_functions_that_its_functions_call():
    code = "def f():\n    return g()\ndef g():\n    return 1\nassert f()"
    steps = [replicate.Statement(node, 0) for node in replicate.ast.parse(code).body]
    assert replicate.slices(steps) == {2: [0, 1, 2]}


# -- what is committed


def committed():
    with replicate.TABLE.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem
)
def test_every_claim_was_replicated(path):
    """`make replicate` counts anew."""
    ours = [row["claim"] for row in committed() if row["chapter"] == path.stem]
    assert ours == [claim for _, claim, _ in replicate.claims(path)]


def test_claims_hold_or_say_how_often():
    for row in committed():
        draws, held = int(row["draws"]), int(row["held"])
        assert draws >= DRAWS, row
        if held < SHARE * draws:
            odds = re.search(r"in (\d+) of (\d+) draws", row["claim"])
            assert odds, row
            assert int(odds[1]) / int(odds[2]) == pytest.approx(held / draws, abs=0.1)
