"""What the page for instructors says of the chapters: read from small notebooks, and true
of those of the book.
"""

import csv
import importlib
import re
from pathlib import Path

import nbformat
import pytest

from adlab import check
from tools import timings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
PLANS = re.findall(r":::\{plan\}\n(.*?)\n:::", PAGE, re.DOTALL)
EXTENSIONS = str(ROOT / "book" / "_ext")


@pytest.fixture(scope="module")
def course():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXTENSIONS)
        yield importlib.import_module("course")


@pytest.fixture(scope="module")
def lecturer(course):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXTENSIONS)
        yield importlib.import_module("lecturer")


def prose(text):
    return nbformat.v4.new_markdown_cell(text)


def code(text, *tags, seconds=None, **metadata):
    cell = nbformat.v4.new_code_cell(text, metadata={"tags": list(tags), **metadata})
    if seconds is not None:
        cell.metadata["execution"] = {
            "iopub.status.busy": "2026-01-01T00:00:01.000000Z",
            "iopub.status.idle": f"2026-01-01T00:00:{1 + seconds:09.6f}Z",
        }
    return cell


NUMBERED = [
    prose("# Second\n\nSix words stand in this paragraph."),
    code("import this", "setup", seconds=9),
    code("unread = 1"),
    code("unread = 2", mystnb={"figure": {"caption": "Drawn first."}}),
    code("read = 3"),
    prose(
        "## You will learn\n\n1. one;\n2. two.\n\nNeeded: [chapter 1](01_first.ipynb) for"
        " much. [Chapter 9](09_ninth.ipynb) is another matter.\n\n## A section"
        "\n\nFour words, $x$ one.\n\n$$a\n=b$$"
    ),
    code("a = 1\n\nb = 2", seconds=1.5, mystnb={"figure": {"caption": "Two words."}}),
    code("hidden = 3", "hide-cell", seconds=2),
    prose(
        "## Exercises\n\n### Exercise 1: count ★★\n\nHow?\n\n*Practises: 1, 2.*\n\n"
        "<details><summary>Hint</summary>\n\nA hint.\n\n</details>"
    ),
    code("# adlab.check.auroc(mine)", "answer"),
    prose("#### Solution to exercise 1"),
    code("adlab.check.auroc(mine)", "solution"),
    prose("### Exercise 2: think ★ (open)\n\nWhat?"),
    prose("## Summary\n\n- Short."),
]
BARE = [
    prose("# First"),
    prose("## You will learn\n\n- all.\n\nYou need nothing.\n\n## Exercises\n\n"),
    prose("### Exercise 1: go ★★★\n\nGo.\n\n### Exercise 2: stop ★\n\n## Summary"),
]
FRONT = "# A project\n\nFor chapters 1, 2 and 12.\n\n## Parts\n\nUnlike chapter 5."


@pytest.fixture
def house(tmp_path):
    folder = tmp_path / "notebooks" / "assignments"
    folder.mkdir(parents=True)
    for name, cells in {
        "01_first": BARE,
        "02_second": NUMBERED,
        "assignments/a": [prose(FRONT)],
    }.items():
        book = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(book, tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


# What is read


def test_a_chapter_is_read(course, house):
    first, second = course.chapters(house)
    assert (first.number, first.label, first.needs) == (1, "1 First", ())
    assert first.objectives == ("all.",)
    assert second.objectives == ("one;", "two.")
    assert second.needs == ("01_first",)
    assert [e.practises for e in first.exercises] == [(), ()]
    count, think = second.exercises
    assert count == course.Exercise(1, "count", 2, (1, 2), ("auroc",))
    assert think == course.Exercise(2, "think", 1, (), ())


def test_what_is_read_is_counted(course, house):
    opening = course.chapters(house)[1].sections[0]
    assert (opening.words, opening.lines) == (
        7 + 2,
        1,
    )  # up to its picture it is folded
    section = course.chapters(house)[1].sections[2]
    assert section == course.Section(
        "A section", 6 + 2, 1, 2
    )  # its heading, its caption
    assert section.minutes == pytest.approx(8 / 200 + 1 / 2 + 2 / 10)


@pytest.mark.parametrize(
    ("sentence", "needed"),
    [
        (
            "You need [chapter 1](01_a.ipynb) and [chapter 2](../notebooks/02_b.ipynb).",
            "ab",
        ),
        (
            "Needed: this ([chapter 1](01_a.ipynb)); that ([chapter 2](02_b.ipynb)).",
            "ab",
        ),
        ("You need [1](01_a.ipynb); [chapter 2](02_b.ipynb) says more.", "a"),
        ("You need time, and [symbols](../book/notation.md).", ""),
        ("Nothing.", ""),
    ],
)
def test_needs_are_what_their_sentence_links(course, sentence, needed):
    found = course.needs([prose(f"## You will learn\n\n- all.\n\n{sentence}")])
    assert [name[-1] for name in found] == list(needed)


def test_assignments_name_chapters_before_their_parts(course, house):
    assert course.assignments(house) == (("a", "A project", {1, 2, 12}),)


# What is shown


def test_objectives_beside_exercises(lecturer, house):
    first, second = lecturer.exercises(house).split("</details>\n")[:2]
    assert "| 1. all. | – | – |" in first
    assert "| objective | 1 ★★ | 2 ★ |" in second
    assert "| 2. two. | ● | – |" in second
    assert "1. count (★★): `adlab.check.auroc`" in second
    assert "2. think (★): check –" in second
    assert "Assignments: {doc}`A project </book/assignments>`" in second


def test_seconds_are_summed_by_section(lecturer, house, monkeypatch):
    monkeypatch.setattr(timings, "TABLE", house / "book" / "results" / "sections.csv")
    timings.TABLE.parent.mkdir(parents=True)
    assert "not yet timed" in lecturer.sections(house)
    for _ in range(2):  # the second run takes the place of the first
        rows = timings.section_rows(
            "02_second", nbformat.v4.new_notebook(cells=NUMBERED)
        )
        timings.write_sections("02_second", rows)
    with timings.TABLE.open() as lines:
        table = {row["section"]: row["seconds"] for row in csv.DictReader(lines)}
    assert table["Beginning"] == "9.0"
    assert table["A section"] == "3.5"
    shown = lecturer.sections(house)
    assert "2 Second: 1 minutes to read, 12 s to run" in shown
    assert "| A section | 1 | 3.5 | 8 | 1 | 2 |" in shown
    assert rows[0][-1] in shown  # the day


def test_hours_of_a_plan_add_up(lecturer, house):
    plan = lecturer.Plan(house)
    text = plan.table(
        ["A | chapter 1 | 30: talk | 1.1; 2.1 | 2.2", "B | | 60: more | |"]
    )
    cells = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()
    ]
    _, _, a, b, total = cells
    a = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in a]
    assert a[1:5] == [
        "{doc}`1 </notebooks/01_first>`",
        "talk (30 min)",
        "1.1 ★★★, 2.1 ★★",
        "2.2 ★",
    ]
    assert [float(each) for each in a[5:]] == [0.0, round((30 + 120 + 45) / 60, 1), 0.2]
    assert [float(each) for each in total[5:]] == pytest.approx(
        [float(x) + float(y) for x, y in zip(a[5:], b[5:], strict=True)]
    )


@pytest.mark.parametrize("wrong", ["talk", "1.9", "chapter 7"])
def test_a_plan_of_what_is_not_there_is_refused(lecturer, house, wrong):
    with pytest.raises((ValueError, KeyError)):
        lecturer.Plan(house).table([f"A | {wrong} | | |"])


def test_the_picture_says_in_words_what_it_shows(lecturer, house):
    svg = lecturer.picture(lecturer.course.chapters(house))
    assert 'aria-label="Which chapter needs which: 2 Second needs 1 First."' in svg
    assert svg.count('marker-end="url(#needed-by)"') == 1
    assert "color" not in svg  # it takes those of the page


# The book


def test_no_chapter_needs_a_later_one(course):
    """So the graph has no circle."""
    names = [chapter.name for chapter in course.chapters(ROOT)]
    for chapter in course.chapters(ROOT):
        assert set(chapter.needs) <= set(names[: names.index(chapter.name)]), (
            chapter.name
        )
        assert chapter.needs or chapter.number == 1
        assert chapter.objectives and chapter.exercises and len(chapter.sections) > 5


def test_arrows_that_follow_from_others_are_left_out(course):
    chapters = [
        course.Chapter(name, i, name, (), tuple(needs), (), ())
        for i, (name, needs) in enumerate(
            {"a": "", "b": "a", "c": "ab", "d": "ca"}.items()
        )
    ]
    assert course.essential(chapters) == {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}


@pytest.mark.parametrize("plan", PLANS)
def test_plans_name_what_there_is(lecturer, plan):
    lines = lecturer.Plan(ROOT).table(plan.splitlines()).splitlines()
    hours = [[float(cell) for cell in line.split("|")[-4:-1]] for line in lines[2:]]
    assert [sum(each) for each in zip(*hours[:-1], strict=True)] == pytest.approx(
        hours[-1]
    )
    assert max(in_class for _, in_class, _ in hours[:-1]) <= 3


def test_the_long_plan_and_that_of_later_systems_read_every_chapter(course):
    numbers = re.findall(r"chapter (\d+) \|", "".join(PLANS[-2:]))
    assert list(map(int, numbers)) == [
        c.number for c in course.chapters(ROOT) if c.number
    ]


def test_the_page_states_its_rates(course):
    words = re.sub(r"\s+", " ", PAGE)
    stars = course.STARS
    assert f"{course.WORDS} words, {course.FORMULAS} displayed formulas" in words
    assert f"or {course.LINES} lines of code are read in a minute" in words
    assert f"{stars[1]} minutes for ★, {stars[2]} for ★★, {stars[3]} for ★★★" in words
    assert "No class has tried them yet" in words


def test_the_page_has_every_directive(lecturer):
    assert len(PLANS) == 4
    for name in ("prerequisites", "sections", "exercises", "mistakes"):
        assert f":::{{{name}}}\n:::" in PAGE


def test_sections_that_were_timed_are_of_chapters(course):
    """Sections may have been renamed since; `tools/timings.py --sections` writes them anew."""
    with (ROOT / "book" / "results" / "sections.csv").open(encoding="utf-8") as lines:
        timed = {row["chapter"] for row in csv.DictReader(lines)}
    assert timed == {chapter.name for chapter in course.chapters(ROOT)}


def test_every_check_is_of_one_chapter(lecturer):
    found = [each.__name__ for checks in check.CHAPTERS.values() for each in checks]
    assert sorted(found) == sorted(set(check.__all__) - {"CheckError", "detector"})
    shown = lecturer.mistakes(ROOT)
    for name in found:
        assert all(f"  - {words}\n" in shown for words in getattr(check, name).mistakes)
