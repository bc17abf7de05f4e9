"""Sphinx extension: the page of the package is made of its docstrings.

These are written to be read as they stand, in a terminal and in the chapters: `code`
has single backticks, and * and | mean themselves. Here they become what Sphinx expects,
and each name is told by which chapters it is used, as found in their code.
"""

import ast
import json
import re
from collections import defaultdict
from functools import cache
from importlib import import_module
from pathlib import Path

MARKUP = re.compile(
    r"(?P<role>:\w+:`[^`]+`)|``?(?P<code>[^`]+)``?"
    r"|(?P<special>\||(?<!  )(?<!  \*)\*|(?<=\w)_(?!\w))"
)
MAGIC = re.compile(r"^(\s*)[%!].*", re.MULTILINE)


def as_rst(text):
    """Return a docstring with its code in double backticks, and with a backslash before
    what reStructuredText would take for markup; an entry `**options:` stays as it is.
    """

    def rewrite(match):
        role, code, special = match.groups()
        return role or (f"``{code}``" if code else f"\\{special}")

    return MARKUP.sub(rewrite, text)


def dotted(node):
    """Return the parts of a name like `adlab.metrics.pro`; none of anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def find(name):
    """Return what a full name of adlab stands for."""
    path, *parts = name.split(".")
    found = import_module(path)
    for part in parts:
        path = f"{path}.{part}"
        found = getattr(found, part, None) or import_module(path)
    return found


def used(code):
    """Yield what of adlab a piece of code names, and the functions behind the data sets
    that it loads.
    """
    tree, known = ast.parse(code), {"adlab": "adlab"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "")[:5] == "adlab":
            for each in node.names:
                known[each.asname or each.name] = f"{node.module}.{each.name}"
    for node in ast.walk(tree):
        first, *rest = dotted(node) or [""]
        if first in known:
            yield find(".".join([known[first], *rest]))
        if (
            isinstance(node, ast.Call)
            and dotted(node.func) == ["adlab", "data", "load"]
            and isinstance(node.args[0], ast.Constant)
        ):
            yield find("adlab.data.loader")(node.args[0].value)


def identity(thing):
    """Return the module and the name that a class or function was defined by."""
    return getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)


def as_title(stem):
    """Return the title of a notebook that is no chapter, by the name of its file."""
    return stem.replace("_", " ").capitalize()


@cache
def chapters(root):
    """Return the chapters that use each class and function, as links."""
    found = defaultdict(list)
    for path in sorted(Path(root, "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        number = path.stem.partition("_")[0]
        name = number.lstrip("0") if number.isdigit() else as_title(path.stem)
        for thing in {identity(t) for t in used(MAGIC.sub(r"\1pass", "\n".join(code)))}:
            found[thing].append(f":doc:`{name} </notebooks/{path.stem}>`")
    return found


def tell(app, what, name, thing, options, lines):
    """Rewrite a docstring; say where else the name stands, and who uses it."""
    text = "\n".join(lines)
    if what == "module":  # what is indented there is drawn, or typed
        text = re.sub(
            r"\n\n(    .*(?:\n    .*)*)", r"\n\n.. code-block:: text\n\n\1\n", text
        )
    lines[:] = as_rst(text).split("\n")
    if what not in ("class", "exception", "function"):
        return
    short = name.rpartition(".")[2]
    at_top = getattr(import_module("adlab"), short, None) is thing
    links = chapters(app.srcdir)[identity(thing)]
    said = [f"Also ``adlab.{short}``."] if at_top else []
    if links:
        said.append(f"Used in chapter{'s' * (len(links) > 1)} {', '.join(links)}.")
    lines += ["", " ".join(said), ""]


def skip(app, what, name, thing, skipped, options):
    """Leave out the fields of named tuples: their class says what they are."""
    return "Alias for field" in (getattr(thing, "__doc__", None) or "") or None


def setup(app):
    """Register with Sphinx; before napoleon, which reads the sections of docstrings."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", tell, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
