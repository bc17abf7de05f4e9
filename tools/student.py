"""Make student editions of the chapters: as they are, but without solutions.

Usage: python tools/student.py [FOLDER]

A solution begins at its heading, "#### Solution to exercise k", or at its first code cell,
which is tagged, and ends at the next heading of a question or a section. The link to
Colab goes, too, since it opens the chapter with its solutions. Where a later cell needs
a name that only a solution defines, a line says so.
"""

import ast
import builtins
import copy
import re
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parent))
import stamp

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "_build" / "student"
BEGINS = re.compile(r"(?m)^#### Solution to exercise ")
ENDS = re.compile(r"(?m)^#{1,3} \S")


def parts(book):
    """Yield each cell, or what of it is question or solution, and which it is."""
    inside = False
    for cell in book.cells:
        inside = inside or "solution" in cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            yield cell, inside
            continue
        pieces = sections(cell.source, inside)
        for number, (text, solved) in enumerate(pieces):
            if text.strip():
                own = {"source": text, "id": f"{cell.id}-{number}"[-64:]}
                yield nbformat.from_dict(cell | own), solved
        inside = pieces[-1][1]


def sections(source, inside):
    """Cut a text where solutions begin and end; there may be several."""
    found = []
    while match := (ENDS if inside else BEGINS).search(source):
        found.append((source[: match.start()].rstrip("\n"), inside))
        source, inside = source[match.start() :], not inside
    return [*found, (source, inside)]


def edition(book):
    """Return a chapter without solutions."""
    result = copy.deepcopy(book)
    kept = [cell for cell, inside in parts(book) if not inside]
    result.cells = [copy.deepcopy(cell) for cell in kept if not stamp.is_badge(cell)]
    return result


def names(cell):
    """Return the names that a code cell defines, and those that it reads."""
    tree = ast.parse(cell.source)
    defined, read = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
    return defined, read - set(dir(builtins))


def missing(book):
    """Return the names that a cell reads and only a solution before it defines."""
    known, solved, found = set(), set(), set()
    for cell, inside in parts(book):
        if cell.cell_type == "code":
            defined, read = names(cell)
            if inside:
                solved |= defined
            else:
                found |= (read & solved) - known - defined
                known |= defined
    return sorted(found)


def main(out):
    """Write the student edition of every chapter."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        book = nbformat.read(path, as_version=4)
        nbformat.write(edition(book), out / path.name)
        if needed := missing(book):
            print(f"{path.name}: a later cell needs {', '.join(needed)} of a solution")
    print(f"student editions: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT)
