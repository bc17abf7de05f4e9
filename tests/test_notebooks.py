"""The notebooks as they are committed: their form, their anatomy, and what the reader
may rely on.
"""

import ast
import json
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest

from adlab import check
from tools import stamp

ROOT = Path(__file__).parents[1]
PATHS = sorted(ROOT.glob("notebooks/*.ipynb"))

SECTIONS = [
    "You will learn",
    "Where it fails",
    "Exercises",
    "Summary",
    "Further reading",
]
LAST_SECTION = "On the real benchmark"
TAGS = {
    "setup",
    "solution",
    "answer",
    "quoted",
    "caption",
    "hide-cell",
    "hide-input",
    "hide-output",
    "remove-cell",
    "raises-exception",
    "slide",
    "skip-slide",
}
PICTURE_WITHIN = 8  # cells
LONGEST, LONG, MEDIAN, WIDEST = 30, 15, 8, 79  # lines, lines, lines, characters
SHORTEST_ALT = 20  # characters
FEWEST_EXERCISES, FEWEST_CHECKS = 4, 3

# Markdown that only the built site understands, by what it is.
MYST = {
    "role": r"\{[a-z:]+\}`",
    "directive": r"^\s*(```|~~~|:::+)\s*\{",
    "fence of colons": r"^\s*:::",
    "label": r"^\([\w-]+\)=\s*$",
    "comment": r"^%",
    "footnote": r"\[\^",
    "substitution": r"\{\{",
    "attributes": r"[`)\]]\{[.#]",
}
CODE = [r"(?ms)^(```|~~~).*?^\1", r"(`+).+?\1"]
NOT_PROSE = [
    *CODE,
    r"(?s)\$\$.*?\$\$",
    r"\$[^$]+\$",
    r"(?s)\\begin\{(\w+\*?)\}.*?\\end\{\1\}",
    r"(?s)!?\[[^\]]*\]\([^)]*\)",
    r"https?://\S+",
    r"(?s)<[^>]+>",
    stamp.MENTION,
]
RESULT = r"\d+\.\d+|\d+\s*%|\d+\s*per\s?cent"
DRAWING = re.compile(r"^(plt|sns|plots|adlab\.plots)\.|\.plot(\.\w+)?$")
NOT_DRAWING = re.compile(r"^plt\.(rc|rcParams|style|close|get_cmap|colormaps|cm)\b")


@pytest.fixture(params=PATHS, ids=[path.stem for path in PATHS])
def path(request):
    return request.param


@pytest.fixture
def book(path):
    return nbformat.read(path, as_version=4)


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "markdown"]


def lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def without(text, patterns):
    for pattern in patterns:
        text = re.sub(pattern, " ", text)
    return text


def tree(cell):
    """Parse a code cell; magics become `pass`."""
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", cell.source))


def headings(cell):
    """Return (level, text) of each heading of a markdown cell."""
    found = re.findall(r"(?m)^(#{1,6})\s+(.+?)\s*$", without(cell.source, CODE[:1]))
    return [(len(marks), text) for marks, text in found]


def calls(node):
    """Yield the dotted names of what a piece of code calls, what it only defines left
    out.
    """
    if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
        return
    if isinstance(node, ast.Call):
        yield re.sub(r"[(\[].*?[)\]]", "", ast.unparse(node.func))
    for child in ast.iter_child_nodes(node):
        yield from calls(child)


def draws(node, helpers=frozenset()):
    """Tell whether code draws a figure when it runs."""
    names = list(calls(node))
    return any(
        (DRAWING.search(name) and not NOT_DRAWING.match(name)) or name in helpers
        for name in names
    )


def figure_cells(book):
    """Return the code cells that draw a figure, themselves or by a helper that the
    notebook defines.
    """
    helpers, found = set(), []
    for cell in code_cells(book):
        code = tree(cell)
        functions = [
            node for node in ast.walk(code) if isinstance(node, ast.FunctionDef)
        ]
        helpers |= {
            each.name
            for each in functions
            if any(draws(step, helpers) for step in each.body)
        }
        if draws(code, helpers):
            found.append(cell)
    return found


def exercises(book):
    """Return (heading, cells) of each exercise; a new section ends the last one."""
    found, inside = [], False
    for cell in book.cells:
        for level, text in headings(cell) if cell.cell_type == "markdown" else []:
            if level <= 2:
                inside = text == "Exercises"
            elif level == 3 and inside:
                found.append((text, []))
        if inside and found:
            found[-1][1].append(cell)
    return found


def test_there_are_chapters():
    assert PATHS


def test_stamp_has_nothing_to_do(path, book):
    url, branch = stamp.repository(ROOT)
    stamped = nbformat.writes(stamp.notebook(book, url, branch, path.name)) + "\n"
    assert path.read_text(encoding="utf-8") == stamped, "run `make stamp`"


def test_format_is_valid_and_ids_are_unique(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    ids = [
        cell["id"] for cell in raw["cells"]
    ]  # before nbformat, which mends doubled ids as it reads
    assert len(set(ids)) == len(ids)
    assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
    nbformat.validate(raw)


def test_nothing_of_a_run_or_an_editor_is_committed(book):
    assert book.metadata == stamp.notebook_metadata(book.cells)
    allowed = {"tags", "mystnb", "jp-MarkdownHeadingCollapsed", *stamp.FOLDED}
    for cell in book.cells:
        assert set(cell.metadata) <= allowed
        assert set(tags(cell)) <= TAGS
    for cell in code_cells(book):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_first_cells_are_title_badge_and_setup(path, book):
    url, branch = stamp.repository(ROOT)
    title, badge, setup = book.cells[:3]
    assert title.source.startswith("# ")
    assert badge.source == stamp.badge(url, branch, path.name)
    assert setup.source == stamp.setup(url, branch)


def test_badge_leads_to_a_notebook_that_exists(book):
    linked = re.search(r"/blob/[^/]+/([^)]*)\)", book.cells[1].source)[1]
    assert (ROOT / linked).is_file()


def test_setup_appears_once(book):
    assert [
        cell.id
        for cell in book.cells
        if stamp.is_setup(cell) or "google.colab" in cell.source
    ] == [book.cells[2].id]


def test_only_the_setup_cell_uses_magics(book):
    others = [cell.source for cell in code_cells(book) if not stamp.is_setup(cell)]
    assert not re.findall(r"(?m)^\s*[%!].*", "\n".join(others))


def test_one_title_and_the_sections_in_order(book):
    found = [heading for cell in prose_cells(book) for heading in headings(cell)]
    assert [level for level, _ in found].count(1) == 1
    sections = [text for level, text in found if level == 2]
    assert [text for text in sections if text in SECTIONS] == SECTIONS
    if LAST_SECTION in sections:
        assert sections[-1] == LAST_SECTION


def test_headings_are_not_numbered_by_hand(book):
    found = [
        text
        for cell in prose_cells(book)
        for level, text in headings(cell)
        if level != 3
    ]
    assert not [text for text in found if re.match(r"\d", text)]


def test_a_picture_comes_first(book):
    pictures = {cell.id for cell in figure_cells(book)}
    assert pictures & {cell.id for cell in book.cells[:PICTURE_WITHIN]}


def test_code_cells_are_short(book):
    lengths = [len(lines(cell)) for cell in code_cells(book)]
    assert max(lengths) <= LONGEST
    assert median(lengths) <= MEDIAN
    assert sum(length >= LONG for length in lengths) <= max(1, len(lengths) // 10)


def test_lines_fit_a_narrow_page(book):
    others = [
        cell for cell in code_cells(book) if not stamp.is_setup(cell)
    ]  # a fork's address may be long
    assert not [
        line
        for cell in others
        for line in cell.source.splitlines()
        if len(line) > WIDEST
    ]


@pytest.mark.parametrize("kind", MYST)
def test_markdown_reads_well_outside_the_site(book, kind):
    for cell in prose_cells(book):
        text = (
            cell.source
            if kind in {"role", "directive"}
            else without(cell.source, NOT_PROSE[:5])
        )
        assert not re.findall(MYST[kind], text, re.MULTILINE), cell.source


def test_displayed_formulas_stand_on_lines_of_their_own(book):
    for cell in prose_cells(book):
        text = without(cell.source, CODE)
        for formula in re.finditer(r"(?s)\$\$.*?\$\$", text):
            before = text[: formula.start()].rpartition("\n")[2]
            after = text[formula.end() :].partition("\n")[0]
            assert not before.strip("> ") + after.strip(), (
                f"beside a formula: {before!r} {after!r}"
            )


def test_every_figure_has_words(book):
    for cell in figure_cells(book):
        assert "mystnb" in cell.metadata, cell.source
        alt = cell.metadata.mystnb["image"]["alt"]
        figure = cell.metadata.mystnb["figure"]
        assert len(alt) >= SHORTEST_ALT
        assert alt.strip() != figure["caption"].strip() != ""
        assert figure["name"].startswith("fig-")


def test_every_caption_is_read_outside_the_site(book):
    """In a cell beneath the figure, which the site leaves out."""
    below = [
        (cell.metadata.mystnb["figure"]["caption"], after)
        for cell, after in zip(book.cells, [*book.cells[1:], None], strict=True)
        if "mystnb" in cell.metadata
    ]
    for words, cell in below:
        assert cell.source.endswith(f" *{words}*")
    assert all("remove-cell" in tags(cell) for _, cell in below)
    assert len(below) == sum(map(stamp.is_caption, book.cells))


def test_words_of_figures_have_a_figure(book):
    pictures = {cell.id for cell in figure_cells(book)}
    described = [cell for cell in book.cells if "mystnb" in cell.metadata]
    assert not [cell.source for cell in described if cell.id not in pictures]


def test_claims_are_checked(book):
    asserting = [
        cell
        for cell in code_cells(book)
        if any(isinstance(node, ast.Assert) for node in ast.walk(tree(cell)))
    ]
    assert len(asserting) >= FEWEST_CHECKS


def test_there_are_exercises_numbered_from_one(book):
    found = [heading for heading, _ in exercises(book)]
    assert len(found) >= FEWEST_EXERCISES
    numbers = [re.match(r"Exercise (\d+): \S", heading) for heading in found]
    assert [match and int(match[1]) for match in numbers] == list(
        range(1, len(found) + 1)
    )


def test_every_exercise_has_a_solution_that_runs(book):
    for number, (heading, cells) in enumerate(exercises(book), start=1):
        code = [cell for cell in cells if cell.cell_type == "code"]
        solutions = [cell for cell in code if "solution" in tags(cell)]
        assert solutions, heading
        assert all(set(tags(cell)) & {"solution", "answer"} for cell in code), heading
        for cell in solutions:
            assert cell.source.startswith(f"# @title Solution to exercise {number}"), (
                heading
            )
            assert "hide-cell" in tags(cell)
            assert cell.metadata["jupyter"] == stamp.FOLDED["jupyter"]


def test_solutions_are_folded(book):
    for _, cells in exercises(book):
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert len(re.findall(r"(?mi)^[#* ]*solution", prose)) == 1  # its heading
        assert (
            prose.count("<details>")
            == prose.count("<summary>")
            == prose.count("</details>")
        )


def test_an_exercise_is_asked_hinted_at_answered_and_solved(book):
    """A question with a hint; a cell to write in; the solution, in code and in words."""
    for number, (_, cells) in enumerate(exercises(book), start=1):
        question, answer, heading, *solution = cells
        hint = f"<details><summary>Hint to exercise {number}</summary>"
        words = f"<details><summary>Solution to exercise {number} in words</summary>"
        assert hint in question.source
        assert tags(answer) == ["answer", "remove-cell"]
        assert answer.source.startswith(f"# Your answer to exercise {number}")
        assert heading.source == f"{stamp.SOLUTION}{number}"
        assert words in solution[-1].source


def test_every_objective_is_practised(book):
    [cell] = [c for c in book.cells if c.source.startswith("## You will learn")]
    objectives = re.findall(r"(?m)^(\d+)\. ", cell.source)
    practised = [
        re.search(r"(?m)^\*Practises: ([\d, ]+)\.\*$", cells[0].source)[1].split(", ")
        for _, cells in exercises(book)
    ]
    assert objectives and set().union(*practised) == set(objectives)


def test_checks_of_a_chapter_are_called_by_readers_and_by_solutions(path, book):
    """The line that a reader takes the # from runs in the solution."""
    called = set()
    for _, (_, answer, _, *solution) in exercises(book):
        solved = "\n".join(cell.source for cell in solution).splitlines()
        for line in re.findall(r"(?m)^# (adlab\.check\..+\))$", answer.source):
            assert line in solved
            called.add(line.split("(")[0].removeprefix("adlab.check."))
    if path.stem[0].isdigit():
        taught = {each.__name__ for each in check.CHAPTERS[int(path.stem[:2])]}
        assert taught and taught <= called


def test_the_check_of_detectors_is_called():
    assert any("# adlab.check.detector(" in path.read_text("utf-8") for path in PATHS)


def test_folds_leave_blank_lines_around_markdown(book):
    for cell in prose_cells(book):
        assert not re.findall(
            r"</summary>[ ]*\n[^\n]|[^\n]\n</details>", cell.source
        ), cell.source


def test_no_results_typed_by_hand(book):
    for cell in prose_cells(book):
        if not {"quoted", "caption"} & set(tags(cell)):
            assert not re.findall(RESULT, without(cell.source, NOT_PROSE)), cell.source


def test_displayed_formulas_are_between_dollars_where_they_get_their_numbers(book):
    for cell in prose_cells(book):
        rest = without(cell.source, [*CODE, stamp.FORMULA])
        assert "$$" not in rest and r"\begin{" not in rest, cell.source


@pytest.fixture(scope="session")
def numbers():
    """The numbers of all displayed formulas."""
    books = [nbformat.read(path, as_version=4) for path in PATHS]
    texts = [cell.source for book in books for cell in prose_cells(book)]
    return {number for text in texts for number in stamp.TAG.findall(text)}


def test_formulas_that_are_referred_to_exist(book, numbers):
    for cell in prose_cells(book):
        assert {*stamp.MENTION.findall(cell.source)} <= numbers, cell.source


def test_links_to_the_book_work_everywhere(book):
    """They name pages and drawings of the published book that there are; the site
    follows them to its own.
    """
    site = stamp.site(stamp.repository(ROOT)[0])
    for cell in prose_cells(book):
        for target in re.findall(r"\]\(([^)#\s]+)", without(cell.source, CODE)):
            assert re.match(r"\w+:", target), target
            page, ours, ending = target.removeprefix(f"{site}/").rpartition(".html")
            if target.startswith(f"{site}/_static/"):
                assert (ROOT / "book" / target.removeprefix(f"{site}/")).is_file()
            elif target.startswith(site):
                assert (ours, ending) == (".html", ""), target
                assert list(ROOT.glob(f"{page}.*")), target


def test_names_of_figures_are_unique_over_the_book():
    books = [nbformat.read(path, as_version=4) for path in PATHS]
    names = [
        cell.metadata.mystnb["figure"]["name"]
        for book in books
        for cell in figure_cells(book)
    ]
    assert len(set(names)) == len(names)
