"""Sphinx extension: what the page for instructors says of the chapters is made of them.

    :::{prerequisites}        a picture: which chapter needs which
    :::

    :::{sections}             minutes to read and seconds to run, by section
    :::

    :::{exercises}            objectives, exercises that practise them, assignments
    :::

    :::{mistakes}             what the checks of each chapter say
    :::

    :::{plan}                 a table of sessions whose hours are computed
    Week 1 | chapter 1 | 30: the figures | 1.1; 1.3 | 1.2
    :::

A line of a plan has a session, what is read before it, what is shown in it, what is
exercised in it, and what is assigned after it. Each of these is a list, by semicolons:
`chapter 7` or `notebook your_own_product`, which takes as long as reading it; `7.2`, an
exercise, as long as its stars say; and `30: anything else`, so many minutes.
"""

import csv
import re
from html import escape
from pathlib import Path

import course
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from adlab import check

ROW, LEFT, WIDTH = 30, 80, 450  # of the picture, in units of its own
SCHEDULE = ("session", "read before", "shown", "exercises", "assigned")
HOURS = ("hours before", "in class", "after")
NOTHING = "–"


def table(columns, rows):
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def folded(summary, text):
    """Return text that is folded away under a line."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>\n"


def link(chapter, text):
    """Return a link to a chapter, in Markdown."""
    return f"{{doc}}`{text} </notebooks/{chapter.name}>`"


# -- which chapter needs which


def arc(start, end):
    """Return the arrow from one row of the picture to a later one."""
    top, bottom = ((row + 0.5) * ROW for row in (start, end))
    wide = min(LEFT - 14, 9 + 8 * (end - start))
    return (
        f'<path d="M{LEFT - 7} {top} C{LEFT - 7 - 1.3 * wide} {top}, '
        f'{LEFT - 7 - 1.3 * wide} {bottom}, {LEFT - 8} {bottom}" '
        'marker-end="url(#needed-by)"/>'
    )


def needs_in_words(found):
    """Return what the picture shows, for those who do not see it."""
    titles = {chapter.name: chapter.label for chapter in found}
    said = [
        f"{titles[name]} needs {' and '.join(titles[each] for each in needs)}"
        for name, needs in course.essential(found).items()
        if needs
    ]
    return "Which chapter needs which: " + "; ".join(said) + "."


def picture(found):
    """Return an SVG: a row for each chapter, an arrow from what it needs to it."""
    rows = {chapter.name: row for row, chapter in enumerate(found)}
    arcs = [
        arc(rows[each], rows[name])
        for name, needs in course.essential(found).items()
        for each in needs
    ]
    labels = [
        f'<circle cx="{LEFT}" cy="{(row + 0.5) * ROW}" r="5"/>'
        f'<text x="{LEFT + 14}" y="{(row + 0.5) * ROW + 5}">{escape(c.label)}</text>'
        for row, c in enumerate(found)
    ]
    return (
        f'<svg class="prerequisites" viewBox="0 0 {WIDTH} {ROW * len(found)}" role="img" '
        f'aria-label="{escape(needs_in_words(found))}"><defs><marker id="needed-by" '
        'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>'
        f"<g>{''.join(arcs)}</g>{''.join(labels)}</svg>"
    )


# -- how long a section takes


def measured(root):
    """Return the rows of the table of run times, as dictionaries."""
    file = Path(root, "book", "results", "sections.csv")
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def origin(rows):
    """Return where and when the run times were measured, a sentence."""
    places = sorted({(row["machine"], row["date"]) for row in rows})
    said = "; ".join(f"{machine}, on {day}" for machine, day in places)
    return f"Run times are of one run each: {said}." if said else ""


def seconds_of(chapter, rows):
    """Return how long each section of a chapter ran, by its title."""
    return {
        r["section"]: float(r["seconds"]) for r in rows if r["chapter"] == chapter.name
    }


def sections_of(chapter, rows):
    """Return the table of one chapter, folded."""
    ran = seconds_of(chapter, rows)
    cells = [
        (
            section.title,
            f"{section.minutes:.0f}",
            f"{ran[section.title]:.1f}" if section.title in ran else NOTHING,
            section.words,
            section.formulas,
            section.lines,
        )
        for section in chapter.sections
    ]
    run = f"{sum(ran.values()):.0f} s to run" if ran else "not yet timed"
    columns = ("section", "minutes", "seconds", "words", "formulas", "lines")
    summary = f"{chapter.label}: {chapter.minutes:.0f} minutes to read, {run}"
    return folded(summary, table(columns, cells))


def sections(root):
    """Return the tables of all chapters."""
    rows = measured(root)
    found = [sections_of(chapter, rows) for chapter in course.chapters(root)]
    return "\n".join([*found, origin(rows)])


# -- objectives, exercises, assignments


def matrix(chapter):
    """Return the table of a chapter: which exercise practises which objective."""
    columns = [f"{each.number} {'★' * each.stars}" for each in chapter.exercises]
    rows = [
        [
            f"{number}. {text}",
            *("●" if number in e.practises else NOTHING for e in chapter.exercises),
        ]
        for number, text in enumerate(chapter.objectives, 1)
    ]
    return table(["objective", *columns], rows)


def titles(chapter):
    """Return the exercises of a chapter, with their checks, as a list."""
    return "\n".join(
        f"{each.number}. {each.title} ({'★' * each.stars}): {checked(each)}"
        for each in chapter.exercises
    )


def checked(exercise):
    """Return what tries the answers to an exercise."""
    names = ", ".join(f"`adlab.check.{name}`" for name in exercise.checks)
    return names or f"check {NOTHING}"


def assigned(chapter, assignments):
    """Return the assignments that name a chapter, in a sentence."""
    links = [
        f"{{doc}}`{title} </book/assignments>`"
        for name, title, numbers in assignments
        if chapter.number in numbers
    ]
    return f"Assignments: {', '.join(links) or NOTHING}"


def exercises(root):
    """Return the tables of all chapters."""
    assignments = course.assignments(root)
    return "\n".join(
        folded(
            f"{c.label}: {len(c.objectives)} objectives, {len(c.exercises)} exercises",
            "\n\n".join([matrix(c), titles(c), assigned(c, assignments)]),
        )
        for c in course.chapters(root)
    )


# -- mistakes


def mistakes(root):
    """Return what the checks of each chapter say of wrong answers."""
    return "\n".join(
        folded(chapter.label, "\n".join(map(known, check.CHAPTERS[chapter.number])))
        for chapter in course.chapters(root)
        if chapter.number in check.CHAPTERS
    )


def known(each):
    """Return the mistakes that a check knows by name, as an entry of a list."""
    words = [f"  - {words}" for words in each.mistakes]
    none = (
        "  - no list: it asks for what every right answer has, and says what is missing"
    )
    return "\n".join(
        [f"- `adlab.check.{each.__name__}`: your answer", *(words or [none])]
    )


# -- plans


class Plan:
    """The chapters and exercises that the lines of a plan name."""

    def __init__(self, root):
        """Read them."""
        found = course.chapters(root)
        self.chapters = {c.name: c for c in found} | {str(c.number): c for c in found}

    def item(self, text):
        """Return what is written of an entry, in Markdown, and its minutes."""
        if named := re.fullmatch(r"(?:chapter|notebook) (\w+)", text):
            chapter = self.chapters[named[1]]
            return link(chapter, chapter.number or chapter.title), chapter.minutes
        if named := re.fullmatch(r"(\w+)\.(\d+)", text):
            chapter = self.chapters[named[1]]
            [asked] = [e for e in chapter.exercises if e.number == int(named[2])]
            words = f"{chapter.number}." if chapter.number else f"{chapter.title} "
            stars = "\N{NO-BREAK SPACE}" + "★" * asked.stars
            return f"{words}{asked.number}{stars}", asked.minutes
        if named := re.fullmatch(r"(\d+): (.+)", text):
            return f"{named[2]} ({named[1]} min)", int(named[1])
        raise ValueError(f"plan: expected `7.2`, `chapter 7` or `30: …`, got {text!r}")

    def cell(self, text):
        """Return the entries of a cell, and the minutes of all of them."""
        items = [self.item(each.strip()) for each in text.split(";") if each.strip()]
        return ", ".join(words for words, _ in items) or NOTHING, sum(
            m for _, m in items
        )

    def row(self, line):
        """Return the cells of a session, and its hours before, in and after class."""
        session, *rest = (each.strip() for each in line.split("|"))
        texts, (read, shown, exercised, after) = zip(*map(self.cell, rest), strict=True)
        hours = [round(m / 60, 1) for m in (read, shown + exercised, after)]
        return [session, *texts], hours

    def table(self, lines):
        """Return the sessions, and a last row with the sums of the hours above."""
        rows = [self.row(line) for line in lines]
        sums = [sum(hours) for hours in zip(*(hours for _, hours in rows), strict=True)]
        last = f"**all, {sum(sums):.1f} hours**", *[""] * (len(SCHEDULE) - 1)
        rows.append((last, sums))
        cells = [[*texts, *(f"{h:.1f}" for h in hours)] for texts, hours in rows]
        return table([*SCHEDULE, *HOURS], cells)


# -- directives


class OfCourse(SphinxDirective):
    """Markdown that is made of the chapters, in the place of the directive."""

    has_content = True

    def text(self):
        """Return the Markdown."""
        return type(self).make(self.env.srcdir)

    def run(self):
        """Return its nodes; they are made anew in every build."""
        self.env.note_reread()
        return self.parse_text_to_nodes(self.text())


class Schedule(OfCourse):
    """The table of a plan."""

    def text(self):
        """Return the Markdown."""
        return Plan(self.env.srcdir).table(self.content)


class Prerequisites(OfCourse):
    """The picture of what needs what."""

    def run(self):
        """Return the SVG, which takes its colours from the page."""
        self.env.note_reread()
        found = course.chapters(self.env.srcdir)
        return [nodes.raw("", picture(found), format="html")]


def setup(app):
    """Register with Sphinx."""
    app.add_directive("plan", Schedule)
    app.add_directive("prerequisites", Prerequisites)
    for make in (sections, exercises, mistakes):
        directive = type(make.__name__, (OfCourse,), {"make": staticmethod(make)})
        app.add_directive(make.__name__, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
