"""Sphinx extension: figures are sharp on every screen.

Each figure is drawn in two forms when a chapter runs: as SVG, and in pixels, two for each
one that it takes on the page. The page shows the SVG where it has no pixels in it and is
small, and else the pixels, packed again without loss. The first picture is always of pixels:
the welcome page makes a small copy of it.
"""

import os
from pathlib import Path

from docutils import nodes
from PIL import Image

SETTINGS = 'c.InlineBackend.figure_formats = {"retina", "svg"}\n'
BOTH = {"image/png", "image/svg+xml"}
LARGEST = 150_000  # bytes


def ask_for_both(app, config):
    """Tell the kernels that run the chapters, through the settings of IPython."""
    home = Path(app.outdir).parent / ".ipython"
    (home / "profile_default").mkdir(parents=True, exist_ok=True)
    file = home / "profile_default" / "ipython_kernel_config.py"
    file.write_text(SETTINGS, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(home)


def is_sharp(path):
    """Whether an SVG is all lines, and small."""
    return path.stat().st_size < LARGEST and b"<image" not in path.read_bytes()


def pack(picture, srcdir):
    """Put a smaller file in the place of a picture's PNG. Of the size that it is shown at
    the width is left, which a column may limit.
    """
    path = Path(srcdir, picture["uri"].lstrip("/"))
    with Image.open(path) as pixels:
        pixels.save(path.with_suffix(".webp"), lossless=True)
    picture["uri"] = picture["uri"].removesuffix(".png") + ".webp"
    picture.attributes.pop("height", None)


def choose(app, doctree):
    """Leave one form of each figure."""
    drawn = [forms for forms in outputs(doctree) if forms.keys() >= BOTH]
    for nth, forms in enumerate(drawn):
        png, svg = forms["image/png"], forms["image/svg+xml"]
        lines, pixels = (form.next_node(nodes.image) for form in (svg, png))
        if nth > 0 and is_sharp(Path(app.srcdir, lines["uri"].lstrip("/"))):
            png.parent.remove(png)
        else:
            svg.parent.remove(svg)
            pack(pixels, app.srcdir)


def outputs(doctree):
    """Yield MIME type -> node, of the forms of each output of a notebook."""
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "mime_bundle":
            yield {form["mime_type"]: form for form in node}


def setup(app):
    """Register with Sphinx; before pictures are collected."""
    app.connect("config-inited", ask_for_both)
    app.connect("doctree-read", choose, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
