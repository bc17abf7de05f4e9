"""Sphinx extension: pages in Markdown get no button that opens them in Colab.

Colab opens notebooks only. A page whose results are computed when the book is built is a
notebook in the eyes of the theme as soon as it names a kernel.
"""


def forget_kernels(app, env):
    """Once they are executed, let pages in Markdown pass for plain ones."""
    for page, metadata in env.metadata.items():
        if env.doc2path(page).endswith(".md"):
            metadata.pop("kernelspec", None)


def setup(app):
    """Register with Sphinx."""
    app.connect("env-updated", forget_kernels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
