"""Sphinx extension: the book never shows stale results.

The cache of executed notebooks knows the notebooks' own cells only. Whatever else
decides what a chapter shows is summed up here in one digest, and each digest has a
cache of its own: a change anywhere in the package gives an empty cache, a new
configuration in the eyes of Sphinx, and so a fresh run of every chapter.
"""

import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path

LIBRARIES = [
    "matplotlib",
    "numpy",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
]
FILES = ["adlab/**/*", "book/results/**/*", "book/_ext/sharp.py"]


def digest(root):
    """Return the digest of the package, the committed results, the settings of figures
    and the versions of libraries.
    """
    state = hashlib.sha256(" ".join(version(name) for name in LIBRARIES).encode())
    for path in sorted(path for pattern in FILES for path in root.glob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            state.update(
                path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes()
            )
    return state.hexdigest()[:16]


def choose_cache(app, config):
    """Point the notebooks' cache to the folder of today's digest, and remove the
    others.
    """
    caches, today = Path(app.outdir).parent / ".jupyter_cache", digest(Path(app.srcdir))
    for old in caches.glob("*"):
        if old.name != today:
            shutil.rmtree(old, ignore_errors=True)
    config.nb_execution_cache_path = str(caches / today)


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", choose_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
