"""The exercises: each is asked, hinted at, answered in a cell, solved in words, and
practises what the chapter promises.
"""

import re
from pathlib import Path

import nbformat
import pytest

from adlab import check

ROOT = Path(__file__).parents[1]
PATHS = sorted(ROOT.glob("notebooks/*.ipynb"))
BOOKS = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}


def exercises(book):
    """Return the cells of each exercise."""
    found = []
    for cell in book.cells:
        if cell.source.startswith("### Exercise "):
            found.append([])
        elif cell.source.startswith("## ") and cell.cell_type == "markdown" and found:
            break
        if found:
            found[-1].append(cell)
    return found


EXERCISES = [
    pytest.param(cells, number, id=f"{stem}-{number}")
    for stem, book in BOOKS.items()
    for number, cells in enumerate(exercises(book), start=1)
]


def objectives(book):
    """Return the numbers of the list under "You will learn"."""
    [cell] = [c for c in book.cells if c.source.startswith("## You will learn")]
    return {int(number) for number in re.findall(r"(?m)^(\d+)\. ", cell.source)}


def practised(question):
    """Return the numbers of the objectives that an exercise names."""
    line = re.search(r"(?m)^\*Practises: ([\d, ]+)\.\*$", question)
    assert line, question
    return {int(number) for number in line[1].split(",")}


@pytest.mark.parametrize("cells, number", EXERCISES)
def test_parts_are_in_order(cells, number):
    """A question with a hint; a cell to write in; the solution, in code and in words."""
    question, answer, heading, *solution = cells
    assert f"<details><summary>Hint to exercise {number}</summary>" in question.source
    assert answer.metadata.tags == ["answer", "remove-cell"]
    assert answer.source.startswith(f"# Your answer to exercise {number}")
    assert heading.source == f"#### Solution to exercise {number}"
    words = f"<details><summary>Solution to exercise {number} in words</summary>"
    assert words in solution[-1].source
    assert all(
        "solution" in cell.metadata.tags
        for cell in solution[:-1]
        if cell.cell_type == "code"
    )


@pytest.mark.parametrize("cells, number", EXERCISES)
def test_check_is_called_on_the_solution_too(cells, number):
    """The line that a reader takes the # from runs in the solution."""
    _, answer, _, *solution = cells
    solved = "\n".join(cell.source for cell in solution)
    for line in re.findall(r"(?m)^# (adlab\.check\..+\))$", answer.source):
        assert line in solved


@pytest.mark.parametrize("book", BOOKS.values(), ids=BOOKS)
def test_every_objective_is_practised(book):
    named = [practised(cells[0].source) for cells in exercises(book)]
    assert set().union(*named) == objectives(book)


def test_every_check_is_used():
    answers = "\n".join(
        cells[1].source for book in BOOKS.values() for cells in exercises(book)
    )
    used = set(re.findall(r"adlab\.check\.(\w+)\(", answers))
    assert used == {name for name in check.__all__ if name != "CheckError"}


def test_chapters_have_a_check_each():
    for stem, book in BOOKS.items():
        if stem[0].isdigit():
            answers = "\n".join(cells[1].source for cells in exercises(book))
            assert "adlab.check." in answers, stem
