"""Sphinx extension: the table of methods is made of their declarations.

    :::{methods}
    :::

It has a row for each `@method` of the package, in the order of the chapters.
"""

from importlib import import_module
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

from adlab._methods import methods
from adlab.bench.methods import make_detector
from adlab.detector import Localizer

COLUMNS = (
    "name",
    "method",
    "chapter",
    "class",
    "says where",
    "any size",
    "vectors",
    "labelled",
    "task",
)


def documented(cls):
    """Return the full name by which the page of the package knows a class."""
    package = cls.__module__.rpartition(".")[0]
    inside = package != "adlab" and hasattr(import_module(package), cls.__name__)
    return f"{package if inside else cls.__module__}.{cls.__name__}"


def abilities(method):
    """Return what a method's detector is, and can do; of another task there is none."""
    if method.task != "detection":
        return ["", "", "", ""]
    detector = make_detector(method.name, {})
    can = isinstance(detector, Localizer), detector.any_size, detector.takes_vectors
    link = f"{{py:class}}`~{documented(type(detector))}`"
    return [link, *("yes" if each else "" for each in can)]


def row(method, root):
    """Return the cells of a method, in Markdown."""
    [chapter] = Path(root, "notebooks").glob(f"{method.chapter:02}_*.ipynb")
    return [
        f"`{method.name}`",
        method.title,
        f"{{doc}}`{method.chapter} </notebooks/{chapter.stem}>`",
        *abilities(method),
        f"{100 * method.labelled:g} %" if method.labelled else "",
        method.task,
    ]


def table(root):
    """Return the table of all methods, in Markdown."""
    rows = [
        COLUMNS,
        ["---"] * len(COLUMNS),
        *(row(m, root) for m in methods().values()),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


class Methods(SphinxDirective):
    """The table, in the place of the directive."""

    def run(self):
        """Return its nodes; they are made anew in every build."""
        self.env.note_reread()
        return self.parse_text_to_nodes(table(self.env.srcdir))


def setup(app):
    """Register with Sphinx."""
    app.add_directive("methods", Methods)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
