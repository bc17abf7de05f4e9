"""Assignments as a class has them: student editions that hide what they must, and an
autograder that gives every answer its marks and its words.
"""

import ast
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
import yaml

from tools import assignments, stamp

ROOT = Path(__file__).parents[1]
NAMES = assignments.names()
EM = "2_em_from_scratch"
ANSWERS = {name: sorted(ROOT.glob(f"tests/assignments/{name}/*.py")) for name in NAMES}
MISTAKES = [(name, path.stem) for name in NAMES for path in ANSWERS[name]]
ANSWER = "otter_answer_cell"  # tag of the cells that students write in
SHORT = 40  # characters; a shorter line may stand in the question, too
HEAD = re.compile(r"(?ms)^\s*(?:def|class) \w+.*?:$")  # how an answer begins
GRADESCOPE = {"run_autograder", "setup.sh", "environment.yml", "otter_config.json"}


def python(*arguments, cwd):
    """Run Python in another process, as a lecturer does; return what it prints."""
    environment = os.environ | {"PYTHONPATH": path_of_modules()}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def path_of_modules():
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Everything that `make assignments` makes, away from the project."""
    out = tmp_path_factory.mktemp("built")
    python(
        ROOT / "tools" / "assignments.py", "build", "--seed", 1, "--out", out, cwd=out
    )
    return out


@pytest.fixture(scope="module")
def graded(built, tmp_path_factory):
    """What all answers to an assignment get, by its name."""
    found = {}

    def grade(name):
        if name not in found:
            script = ROOT / "tests" / "rehearse.py"
            folder = tmp_path_factory.mktemp(name)
            printed = python(script, built, name, *ANSWERS[name], cwd=folder)
            found[name] = json.loads(printed)
        return found[name]

    return grade


def master(name):
    return nbformat.read(assignments.MASTERS / f"{name}.ipynb", as_version=4)


def blocks(name, kind):
    """Yield the cells that stand between two marks of otter-grader."""
    inside = False
    for cell in master(name).cells:
        if cell.cell_type == "raw" and cell.source.startswith(f"# END {kind}"):
            inside = False
        if inside:
            yield cell
        if cell.cell_type == "raw" and cell.source.startswith(f"# BEGIN {kind}"):
            inside = True


def questions(name):
    """Return what each question says of itself, in order."""
    return [
        nbformat.from_dict(yaml.safe_load(cell.source))
        for cell in master(name).cells
        if cell.cell_type == "raw" and cell.source.startswith("# BEGIN QUESTION")
    ]


def points(question):
    """Return the points of a question; a list has those of each of its tests."""
    given = question.points
    return sum(given) if isinstance(given, list) else given


def by_tests(name):
    return {q.name: points(q) for q in questions(name) if not q.get("manual")}


def lines(cells):
    found = {line.strip() for cell in cells for line in cell.source.splitlines()}
    return {line for line in found if re.search(r"\w", line)}


def hidden_tests(name):
    return [ast.parse(cell.source).body[0] for cell in blocks(name, "TESTS")]


# Marks and words


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gets_all_points(graded, name):
    found = graded(name)["reference"]
    assert {q: marks for q, (marks, _) in found.items()} == by_tests(name), found


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_gets_no_point_and_words(graded, name):
    for question, (marks, words) in graded(name)["unanswered"].items():
        assert marks == 0, question
        assert words and all(words), question


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_wrong_answer_gets_its_marks_and_its_words(graded, name, mistake):
    found = graded(name)[mistake]
    expected = literals(ROOT / "tests" / "assignments" / name / f"{mistake}.py")
    marks = {question: each for question, (each, _) in found.items()}
    assert marks == by_tests(name) | expected["MARKS"], found
    for question, words in expected["WORDS"].items():
        assert words in " ".join(found[question][1])


def literals(path):
    """Return the constants of a file of answers, by name."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id.isupper()
    }


@pytest.mark.parametrize("name", NAMES)
def test_there_are_four_mistakes_at_least(name):
    assert len(ANSWERS[name]) >= 4
    for path in ANSWERS[name]:
        found = literals(path)
        assert found["WORDS"] and found["WORDS"].keys() == found["MARKS"].keys()


# What students must not see


@pytest.mark.parametrize("kind", ["SOLUTION", "TESTS"])
@pytest.mark.parametrize("name", NAMES)
def test_the_student_edition_hides_solutions_and_tests(built, name, kind):
    hidden = [*blocks(name, "SOLUTION"), *blocks(name, "TESTS")]
    asked = [cell for cell in master(name).cells if cell not in hidden]
    told = {line for line in lines(asked) if len(line) < SHORT}
    bodies = [
        nbformat.from_dict({"source": HEAD.sub("", cell.source)})
        for cell in blocks(name, kind)
    ]
    secret = lines(bodies) - told
    book = nbformat.read(built / "student" / f"{name}.ipynb", as_version=4)
    shown = lines([*book.cells, nbformat.from_dict({"source": str(book.metadata)})])
    assert secret
    assert not secret & shown


@pytest.mark.parametrize("name", NAMES)
def test_the_student_edition_knows_nothing_of_the_grading(built, name):
    text = (built / "student" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert not re.findall(r"(?i)\bhidden\b|grading|seed\.txt|Rubric|@test_case", text)


# What Gradescope needs


@pytest.mark.parametrize("name", NAMES)
def test_the_autograder_holds_what_gradescope_needs(built, name):
    with ZipFile(built / "autograder" / f"{name}.zip") as archive:
        files = set(archive.namelist())
        assert files >= GRADESCOPE
        assert {f"tests/{q}.py" for q in by_tests(name)} <= files
        tests = b"".join(archive.read(f"tests/{q}.py") for q in by_tests(name))
        used = set(re.findall(rb"from (grading\w*) import", tests))
        assert {f"files/{module.decode()}.py" for module in used} <= files
        assert archive.read("files/seed.txt") == b"1\n"
        environment = archive.read("environment.yml").decode()
        assert json.loads(archive.read("otter_config.json"))["assignment_name"] == name
    assert "otter-grader[" in environment
    assert stamp.repository(ROOT)[0] in environment


# The masters


@pytest.mark.parametrize("name", NAMES)
def test_stamp_has_nothing_to_do(name):
    path = assignments.MASTERS / f"{name}.ipynb"
    stamped = stamp.assignment(master(name), *stamp.repository(ROOT))
    assert path.read_text(encoding="utf-8") == nbformat.writes(stamped) + "\n"
    assert any(map(stamp.is_setup, stamped.cells))


@pytest.mark.parametrize("name", NAMES)
def test_every_test_is_hidden_and_says_what_is_wrong(name):
    for cell in blocks(name, "TESTS"):
        assert cell.source.startswith("# HIDDEN\ndef test_")
    for test in hidden_tests(name):
        for node in ast.walk(test):
            assert not isinstance(node, ast.Assert) or node.msg, ast.unparse(node)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_those_that_students_are_told(name):
    text = "\n".join(c.source for c in master(name).cells if c.cell_type == "markdown")
    told = re.findall(r"(?m)^## Question (\d+): .+ \((\d+) points?\)$", text)
    assert [(f"q{n}", int(p)) for n, p in told] == [
        (q.name, points(q)) for q in questions(name)
    ]
    total = sum(int(p) for _, p in told)
    tests = sum(by_tests(name).values())
    assert (
        f"- **Points:** {total}, of which {tests} are given by tests and "
        f"{total - tests} by a reader\n" in text
    )


@pytest.mark.parametrize("name", NAMES)
def test_questions_in_words_have_a_rubric(name):
    solutions = [
        c.source for c in blocks(name, "SOLUTION") if c.cell_type == "markdown"
    ]
    manual = [question for question in questions(name) if question.get("manual")]
    assert sum("**Rubric.**" in text for text in solutions) == len(manual)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_points_and_chapters(name):
    page = (ROOT / "book" / "assignments.md").read_text(encoding="utf-8")
    tests = sum(by_tests(name).values())
    reader = sum(map(points, questions(name))) - tests
    assert re.search(rf"(?m)^\| `{name}` \|.*\| {tests} \+ {reader} \|", page)


# A folder of what was handed in

TAMPERS = """
from adlab import check
from adlab.check import densities, engine

check.e_step = check.m_step = densities.e_step = densities.m_step = print
engine._first_error = lambda *given: None


def e_step(*given):
    return given


m_step = elbo = em = e_step
"""


def edition(built, part, before="", after="", answers=True):
    """Return an edition of the assignment on EM with a cell before and one after it."""
    book = nbformat.read(built / part / f"{EM}.ipynb", as_version=4)
    kept = [
        c for c in book.cells if answers or ANSWER not in c.metadata.get("tags", [])
    ]
    book.cells = [
        nbformat.v4.new_code_cell(before),
        *kept,
        nbformat.v4.new_code_cell(after),
    ]
    return book


@pytest.fixture(scope="module")
def grades(built, tmp_path_factory):
    """The table of grades of a class in which much goes wrong, and the words by name."""
    folder, out = (tmp_path_factory.mktemp(name) for name in ("handed in", "grades"))
    books = {
        "right": edition(built, "solution"),
        "crashes": edition(built, "solution", "def m_step(x:", "1 / 0"),
        "tampers": edition(built, "student", TAMPERS, answers=False),
        "kills": edition(built, "student", "import os\n\nos._exit(1)"),
        "another": edition(built, "solution"),
    }
    books["another"].metadata["otter"]["assignment_name"] = "1_broken_fibres"
    (folder / "a group").mkdir()
    for name, book in books.items():
        nbformat.write(book, folder / "a group" / f"{name}.ipynb")
    (folder / "a group" / "photograph.ipynb").write_text("of an answer on paper")
    options = ["--built", built, "--out", out, "--jobs", 2]
    python(ROOT / "tools" / "assignments.py", "grade", EM, folder, *options, cwd=out)
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        table = {Path(row["submission"]).stem: row for row in csv.DictReader(file)}
    words = {
        path.stem: path.read_text(encoding="utf-8")
        for path in out.glob("words/a group/*.txt")
    }
    return table, words


def test_every_notebook_gets_a_row_and_words(grades):
    table, words = grades
    assert (
        table.keys()
        == words.keys()
        == {"right", "crashes", "tampers", "kills", "another", "photograph"}
    )
    for row in table.values():
        assert float(row["of"]) == sum(by_tests(EM).values())
        assert float(row["points"]) == sum(float(row[q]) for q in by_tests(EM))


@pytest.mark.parametrize("name", ["right", "crashes"])
def test_cells_that_fail_stop_only_themselves(grades, name):
    row = grades[0][name]
    assert row["points"] == "17" == row["of"]
    assert row["words"] == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tampers", "your e_step "),
        ("kills", "not graded: nbclient.exceptions.DeadKernelError"),
        ("another", "not graded: "),
        ("photograph", "not graded: "),
    ],
)
def test_what_cannot_be_graded_gets_no_point_and_words(grades, name, words):
    table, told = grades
    assert table[name]["points"] == "0"
    assert words in table[name]["words"]
    assert words in told[name]


def test_a_loop_without_end_is_stopped(built, tmp_path):
    book = edition(built, "student", "while True:\n    pass")
    nbformat.write(book, tmp_path / "loop.ipynb")
    archive = built / "autograder" / f"{EM}.zip"
    found = assignments.run(archive, tmp_path / "loop.ipynb", seconds=8)
    assert found == "stopped after 8 s: is there a loop that does not end?"


def test_a_folder_without_notebooks_is_refused(built, tmp_path):
    archive = built / "autograder" / f"{EM}.zip"
    with pytest.raises(FileNotFoundError, match="submissions: expected notebooks"):
        assignments.grade(archive, tmp_path, tmp_path, seconds=8, jobs=1)
