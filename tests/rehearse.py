"""Grade answers to an assignment in one process, as the autograder does, but faster: the
student edition with the answers put in is run cell by cell, and the tests of a question
after its last cell.

Usage: python tests/rehearse.py FOLDER NAME [ANSWERS.py ...]

FOLDER is what `tools/assignments.py build` made. Graded are the student edition as it
is, "unanswered"; with the answers of the master, "reference"; and with those of each
file. No cell of the reference may fail, and of the unanswered only those that are tagged
for it. In a file of answers the line `# %% q1` begins what stands in the place of the
reference answer to question 1. Printed is JSON: of each, by question, marks and words.
"""

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import nbformat

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import assignments

ANSWER = {"otter_answer_cell", "otter_assign_solution_cell"}


def answers_of(path):
    """Return the answers of a file by the name of their question."""
    _, *parts = re.split(r"(?m)^# %% (\w+)$", path.read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def question_of(cell):
    """Return the name of the question that ends with a cell, if any does."""
    return next(iter(cell.metadata.get("otter", {}).get("tests", [])), None)


def answer_cells(book):
    """Return the cell of the answer to each question that tests grade."""
    found, waiting = {}, None
    for cell in code_cells(book):
        waiting = cell if ANSWER & set(cell.metadata.get("tags", [])) else waiting
        if question_of(cell):
            found[question_of(cell)] = waiting
    return found


def answered(book, answers):
    """Put answers into their cells."""
    for question, cell in answer_cells(book).items():
        cell.source = answers.get(question, cell.source)
    return book


def run_cell(cell, names, forgiven):
    """Run a cell as a notebook would; where it is forgiven, what it raises is lost."""
    if "setup" not in cell.metadata.get("tags", []):
        with contextlib.suppress(*[Exception] * forgiven):
            exec(compile(cell.source, cell.get("id", "cell"), "exec"), names)


def marks(book, folder, forgiven):
    """Run a notebook, and return for each question its marks and its words."""
    from otter.test_files import ExceptionTestFile

    names, found = {"__name__": "__main__"}, {}
    for cell in code_cells(book):
        run_cell(cell, names, forgiven(cell))
        if question := question_of(cell):
            test = ExceptionTestFile.from_file(str(folder / "tests" / f"{question}.py"))
            test.run(names)
            found[question] = test.score, assignments.words(test.summary())
    return found


def is_check(cell):
    """Tell whether a cell says what is wrong with an answer."""
    return "raises-exception" in cell.metadata.get("tags", [])


FORGIVEN = {"unanswered": is_check, "reference": lambda cell: False}


def rehearse(built, name, paths):
    """Return what the student edition gets as it is, with the reference answers, and
    with those of each file in the place of some of these.
    """

    def edition(part):
        return nbformat.read(built / part / f"{name}.ipynb", as_version=4)

    right = {
        question: cell.source
        for question, cell in answer_cells(edition("solution")).items()
    }
    given = {"unanswered": {}, "reference": right}
    given |= {path.stem: right | answers_of(path) for path in paths}
    with TemporaryDirectory() as folder:
        ZipFile(built / "autograder" / f"{name}.zip").extractall(folder)
        sys.path.insert(0, str(Path(folder) / "files"))
        return {
            key: marks(
                answered(edition("student"), answers),
                Path(folder),
                FORGIVEN.get(key, lambda cell: True),
            )
            for key, answers in given.items()
        }


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    built, name, *paths = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        result = rehearse(Path(built).resolve(), name, [Path(p) for p in paths])
    print(json.dumps(result, indent=2, ensure_ascii=False))
