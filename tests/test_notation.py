"""The page of notation: each letter of a displayed formula has one meaning in its chapter."""

import re
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest

from tools import stamp

ROOT = Path(__file__).parents[1]
CHAPTERS = {int(p.name[:2]): p for p in ROOT.glob("notebooks/[0-9]*.ipynb")}
INDICES = set("ijklmnr")  # of sums and of vectors, where no row says something else

# What is no letter: words, the number e, transposition, and an index that is a name.
NO_LETTERS = re.compile(
    r"\\(?:text|mathrm|operatorname\*?|tag|begin|end)\{[^}]*\}|\[1ex\]"
    r"|(?<![\\A-Za-z])e(?=\^)|\^\{?\\?T\b|(?<=_)(?:[A-Za-hs-z]\b|\{[a-z]{2,}\})"
)
GREEK = (
    r"\\(?:alpha|beta|gamma|delta|varepsilon|eta|theta|lambda|mu|nu|xi|pi|rho|sigma|tau"
    r"|phi|varphi|psi|Gamma|Lambda|Sigma|Phi|Omega|digamma|ell)(?![A-Za-z])"
)
ACCENTED = r"\\(?:hat|bar|tilde|mathcal|mathbb)\s*\{?\\?[A-Za-z]+\}?"
SYMBOL = re.compile(rf"({ACCENTED}|{GREEK}|TR|[A-Za-z])(_?)|\\[A-Za-z]+")


def symbols(formula):
    """Return the letters of a formula in order, with `_` behind those with an index."""
    found = SYMBOL.findall(NO_LETTERS.sub("", formula))
    return [re.sub(r"[{}\s]", "", base) + index for base, index in found if base]


def used(chapter):
    """Return the symbols in the displayed formulas of a chapter."""
    cells = nbformat.read(CHAPTERS[chapter], as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    formulas = [found for text in texts for found in stamp.FORMULA.findall(text)]
    return {symbol for formula in formulas for symbol in symbols(formula)}


def chapters(text):
    """Return the chapters that a row of the table is about: 3, 7; all; all but 3, 7."""
    named = {int(n) for n in re.findall(r"\d+", text)}
    return {*CHAPTERS} - named if text.startswith("all") else named


@pytest.fixture(scope="session")
def meanings():
    """Chapter -> symbol -> its rows in the table; a piece of maths explains its first."""
    found = {chapter: defaultdict(set) for chapter in CHAPTERS}
    page = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
    for row in re.findall(r"(?m)^\| (\$.*) \|$", page):
        maths, *_, where = row.split(" | ")
        for chapter in chapters(where):
            for piece in re.findall(r"\$(.+?)\$", maths):
                for symbol in symbols(piece)[:1]:
                    found[chapter][symbol].add(maths)
    return found


@pytest.mark.parametrize("chapter", sorted(CHAPTERS))
def test_the_letters_of_formulas_have_a_meaning(chapter, meanings):
    assert sorted(used(chapter) - INDICES - {*meanings[chapter]}) == []


@pytest.mark.parametrize("chapter", sorted(CHAPTERS))
def test_no_letter_has_two_meanings_in_a_chapter(chapter, meanings):
    rows = meanings[chapter].items()
    assert {symbol: said for symbol, said in rows if len(said) > 1} == {}


def test_symbols_are_letters_with_or_without_an_index():
    formula = r"\hat s_n = \mathcal{D}(x^T) + \lambda_P \frac{\mathrm{KL}}{TR} e^{-\pi}"
    assert symbols(formula) == [
        *(r"\hats_", "n", r"\mathcalD", "x", r"\lambda_", "TR", r"\pi")
    ]
