"""Sphinx extension: figures of lines and dots are drawn as SVG, sharp at any size.

Each figure is drawn in both forms when a chapter runs; the page shows the SVG where it has no
pixels in it and is small. The first picture stays as it is: the welcome page makes a small
copy of it.
"""

import os
from pathlib import Path

from docutils import nodes

SETTINGS = 'c.InlineBackend.figure_formats = {"png", "svg"}\n'
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


def choose(app, doctree):
    """Leave one form of each figure."""
    drawn = [forms for forms in outputs(doctree) if forms.keys() >= BOTH]
    for nth, forms in enumerate(drawn):
        [picture] = forms["image/svg+xml"].findall(nodes.image)
        sharp = nth > 0 and is_sharp(Path(app.srcdir, picture["uri"].lstrip("/")))
        left_out = forms["image/png" if sharp else "image/svg+xml"]
        left_out.parent.remove(left_out)


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
