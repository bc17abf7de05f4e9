"""Chapters without their solutions."""

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from tools import student

ROOT = Path(__file__).parents[1]
PATHS = sorted(ROOT.glob("notebooks/*.ipynb"))


def markdown(text):
    return nbformat.v4.new_markdown_cell(text)


def code(text, *tags):
    return nbformat.v4.new_code_cell(text, metadata={"tags": list(tags)})


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def lines(cells):
    texts = (line.strip() for cell in cells for line in cell.source.splitlines())
    return Counter(text for text in texts if text)


@pytest.fixture(params=PATHS, ids=[path.stem for path in PATHS])
def book(request):
    return nbformat.read(request.param, as_version=4)


def test_no_line_of_a_solution_is_left(book):
    """By the tags of the code, and by the words that hold it: not as the tool sees it."""
    solutions = [
        cell for cell in book.cells if "solution" in cell.metadata.get("tags", [])
    ]
    words = [
        markdown(text)
        for cell in book.cells
        for text in re.findall(r"(?s)<summary>Solution.*?</details>", cell.source)
    ]
    secret = lines([*solutions, *words])
    asked = lines(book.cells) - secret
    shown = lines(student.edition(book).cells)
    assert solutions and words
    assert not {
        line: n for line, n in shown.items() if n > asked[line] and line in secret
    }


def test_questions_stay(book):
    def headings(cells):
        texts = lines(cell for cell in cells if cell.cell_type == "markdown")
        return [line for line in texts if line.startswith(("# ", "## ", "### "))]

    edition = student.edition(book)
    assert headings(edition.cells) == headings(book.cells)
    nbformat.validate(edition)


def test_no_later_cell_needs_a_solution(book):
    assert student.missing(book) == []


def test_a_solution_ends_at_the_next_question_or_section():
    book = notebook(
        markdown("### Exercise 1: a\n\nAsk."),
        code("...", "answer"),
        markdown("#### Solution to exercise 1"),
        code("x = 1", "solution"),
        markdown("<details>Words.</details>\n\n### Exercise 2: b\n\nAsk."),
        code("y = 2", "solution"),
        markdown("Words.\n\n#### A remark in the solution\n\n## Summary\n\nEnd."),
    )
    kept = [cell.source for cell in student.edition(book).cells]
    assert kept == [
        "### Exercise 1: a\n\nAsk.",
        "...",
        "### Exercise 2: b\n\nAsk.",
        "## Summary\n\nEnd.",
    ]


@pytest.mark.parametrize(
    ("later", "needed"),
    [
        ("print(x)", ["x"]),
        ("def f():\n    return x", ["x"]),
        ("x = 3\nprint(x)", []),
        ("[x for x in range(3)]", []),
        ("print(y)", []),
    ],
)
def test_names_that_only_a_solution_defines_are_told(later, needed):
    book = notebook(
        code("y = 1"),
        code("x, y = 1, 2", "solution"),
        markdown("## Summary"),
        code(later),
    )
    assert student.missing(book) == needed


def test_the_badge_of_the_chapter_with_solutions_goes(book):
    assert not any(map(student.stamp.is_badge, student.edition(book).cells))
