"""Drawings of the chapters: they are what the tool writes, small, and have words."""

import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from tools import drawings

ROOT = Path(__file__).parents[1]
INCLUDED = re.compile(r"!\[([^\]]*)\]\([^)]*/_static/drawings/(\w+)\.svg\)")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=drawings.DRAWINGS, ids=lambda drawing: drawing.__name__)
def drawing(request):
    return request.param


def included():
    """Each picture that a chapter includes: (name of the drawing, its words)."""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            yield from ((name, alt) for alt, name in INCLUDED.findall(cell.source))


def test_the_files_are_those_of_the_tool(tmp_path):
    drawings.write(tmp_path)
    committed = {f.name: f.read_bytes() for f in drawings.FOLDER.iterdir()}
    written = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    assert written == committed, "run tools/drawings.py"


def test_a_drawing_is_small_and_fetches_nothing(drawing):
    text = drawings.svg(drawing)
    assert len(text.encode()) <= 15_000
    assert "http" not in text.replace(SVG[1:-1], "")


def test_a_drawing_has_words(drawing):
    title = ElementTree.fromstring(drawings.svg(drawing)).find(f"{SVG}title")
    assert title.text == drawings.alternative(drawing)
    assert len(title.text) > 80


def test_everything_is_on_the_page(drawing):
    """A letter is about 0.55 of its size wide."""
    page = ElementTree.fromstring(drawings.svg(drawing))
    height = int(page.get("height"))
    for text in page.iter(f"{SVG}text"):
        half = 0.55 * 14 * len("".join(text.itertext())) / 2
        assert half <= int(text.get("x")) <= drawings.WIDTH - half, text.text
        assert 14 <= int(text.get("y")) <= height
    for shape in page.iter(f"{SVG}rect"):
        x, y, width, tall = (
            int(shape.get(key, 0)) for key in ("x", "y", "width", "height")
        )
        assert min(x, y) >= 0 and x + width <= drawings.WIDTH and y + tall <= height


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a", ["a"]), ("z_n: b", ["z", "n", ": b"]), ("x_1<y_2", ["x", "1", "<y", "2"])],
)
def test_indices_are_lowered_and_what_follows_is_not(text, parts):
    line = ElementTree.fromstring(f"<text>{drawings.lowered(text)}</text>")
    assert list(line.itertext()) == parts
    assert sum(int(each.get("dy")) for each in line) == 4 * (parts[-1] in "2")


def test_chapters_show_drawings_with_their_words():
    words = {each.__name__: drawings.alternative(each) for each in drawings.DRAWINGS}
    found = list(included())
    assert len(found) >= 11
    assert [alt for _, alt in found] == [words[name] for name, _ in found]
    assert len({name for name, _ in found}) == len(found)
