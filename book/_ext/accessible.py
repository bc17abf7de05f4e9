"""Sphinx extension: pages are as screen readers and keyboards need them.

What Sphinx and pandas write is mended: a corner of a table without words is no header, a fold
is called by its title, and the list of references has no roles that its parts do not fit. That
formulas are no stops of the tab key is in `_config.yml`: they have no menu.
"""

import re

EMPTY_HEADER = re.compile(r"<th\b([^>]*)>(?:\s|&nbsp;|&#160;|<p>\s*</p>)*</th>")
UNFIT = re.compile(
    r' (?:role="(?:doc-biblioentry|list)"|aria-label="Toggle hidden content")'
)


def mend(app, pagename, templatename, context, doctree):
    """Mend the text of a page; a page without a title of its own has that of its tab."""
    context.setdefault("pagetitle", context.get("title"))
    context["pagetitle"] = context["pagetitle"] or context.get("title")
    body = EMPTY_HEADER.sub(r"<td\1></td>", context.get("body") or "")
    context["body"] = UNFIT.sub("", body)


def setup(app):
    """Register with Sphinx; after the theme, which sets the title."""
    app.connect("html-page-context", mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
