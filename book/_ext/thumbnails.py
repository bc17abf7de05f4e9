"""Sphinx extension: each chapter in the table of the welcome page has its first picture.

It is made small of what the chapter drew in this very build.
"""

import posixpath
from pathlib import Path

from docutils import nodes
from PIL import Image

WIDTH, HEIGHT = 300, 200  # pixels, at most; shown at half of it


def shrink(source, target):
    """Write a small copy of a picture."""
    with Image.open(source) as picture:
        small = picture.convert("RGB")
    small.thumbnail((WIDTH, HEIGHT))
    target.parent.mkdir(exist_ok=True)
    small.save(target)


def chapter_of(row, env, docname):
    """Return the notebook that a row of a table links to, or None."""
    for link in row.findall(nodes.reference):
        path = posixpath.join(posixpath.dirname(docname), link.get("refuri", ""))
        page = posixpath.normpath(path).removesuffix(".html")
        if page in env.found_docs and page.startswith("notebooks/"):
            return page
    return None


def thumbnail(app, page, docname):
    """Return the node of a chapter's picture, or None if the chapter has none but
    drawings.
    """
    images = app.env.get_doctree(page).findall(nodes.image)
    picture = next((each for each in images if each["uri"][-4:] != ".svg"), None)
    if picture is None:
        return None
    path = Path(app.outdir).parent / "thumbnails" / f"{posixpath.basename(page)}.webp"
    shrink(Path(app.srcdir) / picture["uri"], path)
    uri = path.relative_to(app.srcdir).as_posix()
    app.env.images.add_file(docname, uri)
    words = f"First picture of the chapter {app.env.titles[page].astext()}"
    return nodes.image(uri=uri, alt=words, candidates={"*": uri}, classes=["thumbnail"])


def add_thumbnails(app, doctree, docname):
    """Put the picture of each chapter into the first cell of its row, on the root page."""
    if docname != app.config.root_doc:
        return
    for row in doctree.findall(nodes.row):
        page = chapter_of(row, app.env, docname)
        picture = thumbnail(app, page, docname) if page else None
        if picture:
            row[0] += picture


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-resolved", add_thumbnails)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
