"""Make slides of the chapters, which need no network.

What is shown follows from a chapter's form: its title, what one learns, every figure with
its caption, every displayed formula with its sentence, the titles of the exercises, and
the summary. The tag `slide` shows a cell as it stands, `skip-slide` leaves it out.

Outputs are those that the book was built with, or else the chapter is run.

Usage: python -m tools.slides [notebook ...]
"""

import importlib.util
import re
import shutil
import sys
from html import escape
from pathlib import Path

import nbformat

from adlab.detector import write_whole
from tools import timings

ROOT = timings.ROOT
LISTS = ("You will learn", "Summary")  # sections that are shown whole
WORDS = 150  # on a slide
LEAD = 15  # words before a formula, at least, in whole sentences
DISPLAYED = re.compile(r"\s*(\$\$.*?\$\$)\s*", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
REVEAL = (  # of its files, those that are used; other themes fetch fonts
    "dist/reveal.css",
    "dist/reveal.js",
    "dist/theme/white.css",
    "dist/theme/fonts/source-sans-pro",
    "plugin/notes/notes.js",
)
INNER_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:)[^)]*\)")


# -- what is shown


def deck(book):
    """Return a notebook of slides, made of an executed one."""
    import course

    (_, (first_cell, *top)), *rest = course.sections(book.cells)
    title = re.match("# (.+)", first_cell.source)[1]
    slides = [opening(first_cell), *body(title, top)]
    for heading, cells in rest:
        slides += section(heading, cells)
    return nbformat.v4.new_notebook(
        cells=list(map(as_slide, slides)), metadata={"title": title}
    )


def as_slide(cell):
    """Return a cell that begins a slide."""
    shown = nbformat.from_dict(cell)
    shown.metadata["slideshow"] = {"slide_type": "slide"}
    return shown


def text_slide(heading, text):
    """Return a slide of Markdown; links to other files of the book become their text."""
    return nbformat.v4.new_markdown_cell(
        INNER_LINK.sub(r"\1", f"## {heading}\n\n{text}")
    )


def opening(cell):
    """Return the first slide: the title, and what the chapter is about."""
    return nbformat.v4.new_markdown_cell(INNER_LINK.sub(r"\1", cell.source))


def section(heading, cells):
    """Return the slides of a section."""
    if heading in LISTS:
        text = re.sub(r"^## .*", "", "\n\n".join(each.source for each in cells))
        return [text_slide(heading, page) for page in pages(text)]
    if heading == "Exercises":
        return [text_slide(heading, titles(cells))]
    return body(heading, cells)


def pages(text):
    """Return the list of a section, in pages of about the same length; what stands around
    the list is left out.
    """
    items = re.findall(r"^(?:-|\d+\.) .+", text, re.MULTILINE)
    lengths = [len(item.split()) for item in items]
    n_pages = -(-sum(lengths) // WORDS)
    found, before = [""] * n_pages, 0
    for item, length in zip(items, lengths, strict=True):
        middle = (before + length / 2) / sum(lengths)
        found[int(middle * n_pages)] += f"{item}\n"
        before += length
    return [page for page in found if page]


def titles(cells):
    """Return the exercises of a chapter, as a list."""
    text = "\n".join(each.source for each in cells)
    return "\n".join(
        f"{number}. {title}"
        for number, title in re.findall(
            r"^### Exercise (\d+): (.+)", text, re.MULTILINE
        )
    )


def body(heading, cells):
    """Return the slides of a section that is not shown whole."""
    slides = []
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if "slide" in tags:
            slides.append(cell)
        elif cell.cell_type == "markdown":
            heading, found = formulas(heading, cell.source)
            slides += [] if "skip-slide" in tags else found
        elif "skip-slide" not in tags:
            slides += figure(heading, cell)
    return slides


def figure(heading, cell):
    """Return the slide of a figure, in a list; an empty one if the cell draws none."""
    words = cell.metadata.get("mystnb", {})
    pictures = [
        output.data["image/png"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    if "figure" not in words or not pictures:
        return []
    alt, source = escape(words["image"]["alt"]), pictures[-1].replace("\n", "")
    picture = f'<img alt="{alt}" src="data:image/png;base64,{source}">'
    return [text_slide(heading, f"{picture}\n\n{words['figure']['caption']}")]


def formulas(heading, text):
    """Return the last heading of a text, and a slide for each formula that is displayed:
    its sentence, formulas that continue it included.
    """
    blocks = re.split(r"\n{2,}", DISPLAYED.sub(r"\n\n\1\n\n", text).strip())
    slides, place = [], 0
    while place < len(blocks):
        if found := re.match(r"##+ (.+)", blocks[place]):
            heading = found[1]
        if blocks[place].startswith("$$"):
            before = lead(blocks[place - 1]) if place else ""
            end = end_of_sentence(blocks, place, led=before != "")
            shown = [before, *blocks[place : end - 1], first(blocks, end - 1)]
            slides.append(text_slide(heading, "\n\n".join(shown)))
            place = end - 1
        place += 1
    return heading, slides


def end_of_sentence(blocks, place, led):
    """Return where the sentence ends that goes on after the formula at a place; where
    nothing leads to the formula, what follows is of it.
    """
    end = place + 1
    while end < len(blocks) and (
        blocks[end][0].islower() or not (led or at_mark(blocks[end]))
    ):
        led, end = True, end + 1
        if end < len(blocks) and blocks[end].startswith("$$"):
            end += 1
    return end


def at_mark(block):
    """Tell whether a block is no prose: a heading, a quotation, a table, HTML, a formula."""
    return re.match(r"[#>|<$]", block) is not None


def lead(block):
    """Return what leads to a formula: the last sentences of a paragraph, or of the last
    entry of a list.
    """
    if at_mark(block):
        return ""
    sentences = SENTENCE.split(re.split(r"(?m)^(?:- |\d+\. )", block)[-1])
    text = sentences.pop()
    while sentences and len(text.split()) < LEAD:
        text = f"{sentences.pop()} {text}"
    return text


def first(blocks, place):
    """Return a block; of prose, its first sentence."""
    text = blocks[place]
    return text if text.startswith("$$") else SENTENCE.split(text)[0]


# -- how it is written


def executed(path):
    """Return a notebook with outputs: those of the book, if they are of today's notebook
    and package; else it is run, and they are kept for the book.
    """
    import fresh
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    cache = get_cache(str(ROOT / "_build" / ".jupyter_cache" / fresh.digest(ROOT)))
    book = nbformat.read(path, as_version=4)
    try:
        return cache.merge_match_into_notebook(book)[1]
    except KeyError:
        ran = timings.execute(path)
        for cell in ran.cells:
            cell.metadata.pop("execution", None)  # times would hide it from the cache
        bundle = CacheBundleIn(ran, str(path))
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        return ran


def render(slides):
    """Return the page of a notebook of slides."""
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(
        template_name="slides_template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        reveal_url_prefix="reveal",
        reveal_theme="white",
        reveal_width="1280",
        reveal_height="720",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    return exporter.from_notebook_node(slides)[0]


def installed(name, *inside):
    """Return a folder of an installed package; it need not be importable."""
    found = importlib.util.find_spec(name)
    return Path(found.submodule_search_locations[0], *inside)


def copy_scripts(folder):
    """Put reveal.js and MathJax beside the slides."""
    reveal = installed("sphinx_revealjs", "_static", "revealjs")
    for part in REVEAL:
        target = folder / "reveal" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (reveal / part).is_dir():
            shutil.copytree(reveal / part, target, dirs_exist_ok=True)
        else:
            shutil.copy(reveal / part, target)
    mathjax = installed("sphinx-mathjax-offline", "static", "mathjax")
    (folder / "mathjax").mkdir(exist_ok=True)
    shutil.copy(mathjax / "tex-svg-full.js", folder / "mathjax")


def write(path, folder):
    """Write the slides of one chapter; return their file."""
    book = executed(path)
    number = re.match(r"\d+", path.stem)
    file = folder / f"{number[0] if number else path.stem}.html"
    write_whole(file, render(deck(book)).encode())
    return file


def main(paths):
    """Write the slides of all chapters."""
    folder = ROOT / "_build" / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    copy_scripts(folder)
    for path in paths:
        print(write(path, folder).relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main(list(map(Path, sys.argv[1:])) or sorted(ROOT.glob("notebooks/*.ipynb")))
