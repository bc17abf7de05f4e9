"""Sphinx extension: a folded cell is called by its `# @title`, as it is in Colab; and all code
before the first picture of a chapter is in one fold, so that the picture comes soon. Bars of
progress, which have gone when a page is read, are left out.
"""

import re

from docutils import nodes

TITLE = re.compile(r"# @title (.+)")
BAR = re.compile(r"(?:.*: )?\d+%\|.*\[.*\]")  # of tqdm


def name_folds(app, doctree):
    """Set what is shown in place of "Show code cell content"."""
    for cell in doctree.findall(nodes.container):
        code = (
            next(cell.findall(nodes.literal_block), None)
            if "hide_mode" in cell
            else None
        )
        title = TITLE.match(code.astext()) if code else None
        if title:
            cell["prompt_show"] = cell["prompt_hide"] = title[1]


def leave_out_bars(app, doctree):
    """Take the bars of progress out of a page, and outputs that are nothing else."""
    for text in list(doctree.findall(nodes.literal_block)):
        form = text.parent
        if form.get("mime_type") == "text/plain" and BAR.fullmatch(text.astext()):
            remove(form)


def remove(node):
    """Remove a node, and what is empty without it."""
    parent = node.parent
    parent.remove(node)
    if isinstance(parent, nodes.container) and not parent.children:
        remove(parent)


def fold_before_picture(app, doctree):
    """Fold the code of the picture that opens a chapter, and all code before it."""
    if not app.env.docname.startswith("notebooks/"):
        return
    top = next(doctree.findall(nodes.section), ())
    cells = [cell for cell in top if is_code(cell)]
    drawn = [n for n, cell in enumerate(cells) if any(cell.findall(nodes.image))]
    if drawn:
        *before, picture = cells[: drawn[0] + 1]
        if before:
            fold(gathered(before), "all", "Set-up, and what the first picture needs")
        fold(picture, "input", "Code of the first picture")


def gathered(cells):
    """Return the first of some cells, with what is in the others moved into it."""
    first, *others = cells
    for cell in others:
        first += cell.children
        cell.parent.remove(cell)
    return first


def is_code(node):
    """Whether a node is a cell with code."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def fold(cell, mode, name):
    """Fold a cell under a name."""
    cell["hide_mode"] = mode
    cell["prompt_show"] = cell["prompt_hide"] = name


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", leave_out_bars)
    app.connect("doctree-read", name_folds)
    app.connect("doctree-read", fold_before_picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
