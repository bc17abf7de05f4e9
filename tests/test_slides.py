"""Slides of a small notebook: what they show, and that they fetch nothing."""

import re

import nbformat
import pytest

from tools import check_book, slides

pytest.importorskip("nbconvert")
pytest.importorskip("sphinx_revealjs", reason="needs the extra slides")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def prose(text, *tags):
    return nbformat.v4.new_markdown_cell(text, metadata={"tags": list(tags)})


def drawing(caption, *tags):
    words = {"figure": {"caption": caption}, "image": {"alt": 'A "small" dot'}}
    picture = nbformat.v4.new_output("display_data", {"image/png": PNG})
    metadata = {"mystnb": words, "tags": list(tags)}
    return nbformat.v4.new_code_cell("draw()", metadata=metadata, outputs=[picture])


FORMULA = """\
### Two laws

Nobody has to read all of this paragraph, which is much longer than what belongs on a slide,
goes on for a while, says one thing and then another, comes to no end where it should, and
repeats itself. Enough. In short, after all that was said about it, so much at length, [the
law](02_x.ipynb) is

$$a = b,$$

where $b$ is given. Not this.

### Two laws

$$x = y$$

Without more.

- One.
- Then

$$c = d$$

and

$$e = f.$$
"""
CELLS = [
    prose("# A small chapter\n\nWhat it is about."),
    nbformat.v4.new_code_cell("import this", metadata={"tags": ["setup"]}),
    drawing("The first figure, of $x$."),
    prose(
        "## You will learn\n\nAfter it you can\n\n1. count;\n2. stop.\n\nYou need time."
    ),
    prose("## Laws\n\nMuch that is only read."),
    prose(FORMULA),
    nbformat.v4.new_code_cell("print('only read')"),
    drawing("Left out.", "skip-slide"),
    prose("A claim.", "slide"),
    prose("$$left = out$$", "skip-slide"),
    prose("## Exercises\n\n### Exercise 1: go on ★\n\nHow?"),
    drawing("A solution.", "solution"),
    prose("## Summary\n\n- " + "One. " * 140 + "\n- " + "Two. " * 140),
]


@pytest.fixture(autouse=True)
def in_reach(monkeypatch):
    monkeypatch.syspath_prepend(slides.ROOT / "book" / "_ext")


@pytest.fixture
def deck():
    return slides.deck(nbformat.v4.new_notebook(cells=CELLS))


def test_what_is_shown_and_in_which_order(deck):
    texts = [re.sub(r"<img.*?>", "PICTURE", cell.source) for cell in deck.cells]
    law = (
        "## Two laws\n\nIn short, after all that was said about it, so much at length, the"
        "\nlaw is\n\n$$a = b,$$\n\nwhere $b$ is given."
    )
    assert texts[:7] == [
        "# A small chapter\n\nWhat it is about.",
        "## A small chapter\n\nPICTURE\n\nThe first figure, of $x$.",
        "## You will learn\n\n1. count;\n2. stop.\n",
        law,
        "## Two laws\n\n\n\n$$x = y$$\n\nWithout more.",
        "## Two laws\n\nThen\n\n$$c = d$$\n\nand\n\n$$e = f.$$",
        "A claim.",
    ]
    assert texts[7] == "## Exercises\n\n1. go on ★"
    assert [text.split()[3] for text in texts[8:]] == ["One.", "Two."]


def test_a_picture_keeps_its_words(deck):
    [picture] = re.findall("<img.*?>", deck.cells[1].source)
    assert 'alt="A &quot;small&quot; dot"' in picture
    assert f"base64,{PNG}" in picture


def test_of_pictures_behind_a_slider_the_still_one_is_shown():
    cell = drawing("Several steps.")
    cell.outputs[0].data["text/html"] = '<img src="data:,"><input type="range">'
    [slide] = slides.figure("Steps", cell)
    assert f"base64,{PNG}" in slide.source
    assert "<input" not in slide.source


def test_the_page_fetches_only_what_lies_beside_it(deck, tmp_path):
    slides.copy_scripts(tmp_path)
    page = tmp_path / "01.html"
    page.write_text(slides.render(deck), encoding="utf-8")
    assert page.read_text().count("<section") == 2 * len(deck.cells)  # one in another
    assert "<title>A small chapter slides</title>" in page.read_text()
    fetched = check_book.Page(page.read_text(encoding="utf-8")).fetched
    assert {"reveal/dist/reveal.js", "mathjax/tex-svg-full.js"} <= set(fetched)
    assert list(check_book.faults_of_page(page, tmp_path)) == []
    assert list(check_book.faults_of_styles(tmp_path)) == []
    assert "import " not in re.sub(r"data:\S+", "", page.read_text(encoding="utf-8"))


def test_a_chapter_is_run_once(monkeypatch, tmp_path):
    """The second time what the cache of the book holds is shown."""
    pytest.importorskip("jupyter_cache")
    monkeypatch.setattr(slides, "ROOT", tmp_path)
    path, runs = tmp_path / "01_a.ipynb", []
    bare = nbformat.v4.new_notebook(cells=CELLS)
    bare.cells = [nbformat.from_dict({**c, "outputs": []}) for c in bare.cells[:3]]
    bare.cells = [c if c.cell_type == "code" else CELLS[0] for c in bare.cells]
    nbformat.write(bare, path)

    def execute(given):
        runs.append(given)
        book = nbformat.read(given, as_version=4)
        book.cells[2].outputs = CELLS[2].outputs
        book.cells[2].metadata["execution"] = {"iopub.status.busy": "some time"}
        return book

    monkeypatch.setattr(slides.timings, "execute", execute)
    shown = [slides.executed(path).cells[2].outputs for _ in range(2)]
    assert shown[0] == shown[1] == CELLS[2].outputs
    assert runs == [path]
    assert slides.write(path, tmp_path) == tmp_path / "01.html"
