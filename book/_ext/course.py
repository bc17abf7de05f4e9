"""What the notebooks say of themselves: their sections, objectives, needs and exercises.

Everything is read from the notebooks as they are committed; nothing is executed.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat

WORDS, FORMULAS, LINES = 200, 2, 10  # read in a minute
STARS = {1: 15, 2: 45, 3: 120}  # minutes that an exercise is given

HIDDEN = {"setup", "solution", "answer", "hide-cell", "hide-input", "remove-cell"}
FORMULA = re.compile(r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
NOT_READ = re.compile(r"<details>.*?</details>|\]\([^)]*\)", re.DOTALL)
# Up to the end of the sentence; a clause that begins with a link is a remark.
NEEDS = re.compile(r"^(?:Needed:|You need)(.*?)(?:\.\s|; \[|\.?$)", re.MULTILINE)
CHAPTER = re.compile(r"\]\((?:[^)]*/)?([^)/]+)\.(?:ipynb|html)\)")
EXERCISE = re.compile(r"^### Exercise (\d+): (.*?) (★+)(.*)$", re.MULTILINE)
PRACTISES = re.compile(r"^\*Practises: ([\d, ]+)\.\*", re.MULTILINE)
CHECK = re.compile(r"\bcheck\.([a-z_]+)\(")


@dataclass(frozen=True)
class Exercise:
    """What is asked, the numbers of the objectives that it says it practises, and the
    checks that try what is written.
    """

    number: int
    title: str
    stars: int
    practises: tuple[int, ...]
    checks: tuple[str, ...]

    @property
    def minutes(self):
        """How long it is given, by its stars."""
        return STARS[self.stars]


@dataclass(frozen=True)
class Section:
    """How much there is to read."""

    title: str
    words: int
    formulas: int
    lines: int

    @property
    def minutes(self):
        """How long reading takes, at the rates above."""
        return self.words / WORDS + self.formulas / FORMULAS + self.lines / LINES


@dataclass(frozen=True)
class Chapter:
    """A notebook; its needs are names of others, its number is none if it is no chapter."""

    name: str
    number: int | None
    title: str
    objectives: tuple[str, ...]
    needs: tuple[str, ...]
    exercises: tuple[Exercise, ...]
    sections: tuple[Section, ...]

    @property
    def label(self):
        """What it is called in a list."""
        return f"{self.number} {self.title}" if self.number else self.title

    @property
    def minutes(self):
        """How long it takes to read, its exercises left out but for their questions."""
        return sum(section.minutes for section in self.sections)


def parts(cell):
    """Return a cell, cut where a section begins within it."""
    if cell.cell_type != "markdown":
        return [cell]
    texts = re.split(r"(?m)^(?=## )", cell.source)
    return [nbformat.from_dict({**cell, "source": t}) for t in texts if t.strip()]


def sections(cells):
    """Return (title, cells) of each section; the first is what comes before them."""
    found = [("Beginning", [])]
    for part in (part for cell in cells for part in parts(cell)):
        heading = re.match(r"## (.+)", part.source)
        if heading and part.cell_type == "markdown":
            found.append((heading[1], []))
        found[-1][1].append(part)
    return found


def section_text(cells, title):
    """Return the text of one section, code included; "" if there is none."""
    found = dict(sections(cells)).get(title, [])
    return "\n\n".join(cell.source for cell in found)


def objectives(cells):
    """Return what one can do after a chapter, in order."""
    text = section_text(cells, "You will learn")
    return tuple(re.findall(r"^(?:-|\d+\.) (.+)", text, re.MULTILINE))


def needs(cells):
    """Return the names of the notebooks that the sentence of what is needed links."""
    sentence = NEEDS.search(section_text(cells, "You will learn"))
    return tuple(CHAPTER.findall(sentence[1])) if sentence else ()


def exercises(cells):
    """Return the exercises of a chapter."""
    text = section_text(cells, "Exercises")
    found = list(EXERCISE.finditer(text))
    ends = [each.start() for each in found[1:]] + [len(text)]
    return tuple(
        exercise(match, text[match.end() : end])
        for match, end in zip(found, ends, strict=True)
    )


def exercise(heading, text):
    """Return one exercise, of its heading and of all that follows."""
    practises = PRACTISES.search(text)
    numbers = re.findall(r"\d+", practises[1]) if practises else []
    return Exercise(
        int(heading[1]),
        heading[2],
        len(heading[3]),
        tuple(map(int, numbers)),
        tuple(dict.fromkeys(CHECK.findall(text))),
    )


def fold_before_picture(cells):
    """Tag the code that the book folds: of the picture that opens a chapter, and all code
    before it.
    """
    code = [cell for cell in sections(cells)[0][1] if cell.cell_type == "code"]
    drawn = [
        n for n, cell in enumerate(code) if "figure" in cell.metadata.get("mystnb", {})
    ]
    for cell in code[: drawn[0] + 1] if drawn else []:
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]


def amount(title, cells):
    """Return how much of a section is read: prose and captions, formulas, and lines of
    code that are shown.
    """
    shown = [c for c in cells if not HIDDEN & set(c.metadata.get("tags", []))]
    text = " ".join(c.source for c in shown if c.cell_type == "markdown")
    code = "\n".join(c.source for c in shown if c.cell_type == "code")
    captions = [
        cell.metadata["mystnb"]["figure"]["caption"]
        for cell in cells
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    prose = NOT_READ.sub(" ", FORMULA.sub(" ", text))
    words = re.findall(r"\w\S*|\$\S", " ".join([prose, *captions]))
    lines = [line for line in code.splitlines() if line.strip()]
    return Section(title, len(words), len(FORMULA.findall(text)), len(lines))


def read(path):
    """Return what a notebook says of itself."""
    cells = nbformat.read(path, as_version=4).cells
    fold_before_picture(cells)
    number = re.match(r"\d+", path.stem)
    return Chapter(
        path.stem,
        int(number[0]) if number else None,
        re.match("# (.+)", cells[0].source)[1],
        objectives(cells),
        needs(cells),
        exercises(cells),
        tuple(amount(*section) for section in sections(cells)),
    )


@cache
def chapters(root):
    """Return all chapters, and after them the notebooks that are none."""
    return tuple(read(path) for path in sorted(Path(root, "notebooks").glob("*.ipynb")))


@cache
def assignments(root):
    """Return (name, title, numbers of chapters) of each assignment: those that it names,
    or links, before its first section.
    """
    paths = sorted(Path(root, "notebooks", "assignments").glob("*.ipynb"))
    return tuple((path.stem, *named(path)) for path in paths)


def named(path):
    """Return the title of an assignment and the numbers of the chapters that it names."""
    cells = nbformat.read(path, as_version=4).cells
    front = "\n".join(
        cell.source for cell in sections(cells)[0][1] if cell.cell_type == "markdown"
    )
    title = re.search("^# (.+)", front, re.MULTILINE)[1]
    plain = front.replace("*", "")
    linked = re.findall(r"\b(\d\d)_\w+\.(?:ipynb|html)", plain)
    said = re.findall(r"(?i)\bchapters?:? ((?:\d+(?:, | and |, and )?)+)", plain)
    numbers = {int(n) for n in linked + re.findall(r"\d+", " ".join(said))}
    for first, last in re.findall(r"(?i)\bchapters: (\d+) to (\d+)", plain):
        numbers |= set(range(int(first), int(last) + 1))
    return title, frozenset(numbers)


def ancestors(name, needed):
    """Return all that a chapter needs, directly or not; `needed` has each one's needs."""
    direct = needed[name]
    return set(direct).union(*(ancestors(each, needed) for each in direct))


def essential(found):
    """Return name -> needs, less those that another of the needs needs anyway."""
    needed = {chapter.name: chapter.needs for chapter in found}
    return {
        name: [
            each
            for each in direct
            if not any(each in ancestors(o, needed) for o in direct)
        ]
        for name, direct in needed.items()
    }
