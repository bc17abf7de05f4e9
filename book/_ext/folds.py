"""Sphinx extension: a folded cell is called by its `# @title`, as it is in Colab."""

import re

from docutils import nodes

TITLE = re.compile(r"# @title (.+)")


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


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", name_folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
