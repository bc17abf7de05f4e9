"""Check the built book: every page and every figure is there, it reads without a network, no link leads
to the published book in its place, and every picture has words.

Usage: python tools/check_book.py [root]
"""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

# The attributes by which a page makes a browser fetch something, by tag.
FETCHED = {
    "audio": ["src"],
    "embed": ["src"],
    "iframe": ["src"],
    "img": ["src", "srcset"],
    "input": ["src"],
    "link": ["href"],
    "object": ["data"],
    "script": ["src"],
    "source": ["src", "srcset"],
    "track": ["src"],
    "video": ["src", "poster"],
}
# Links that are only a remark about the page: a browser does not follow them.
REMARKS = {
    "alternate",
    "author",
    "canonical",
    "help",
    "index",
    "license",
    "next",
    "prev",
    "search",
}
EXTERNAL = re.compile(r"^([a-z]+:)?//", re.IGNORECASE)
EXTERNAL_IN_STYLE = re.compile(
    r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE
)
SHORTEST_ALT = 20
HEAVIEST = 1_000_000  # characters of pictures that stand in a page itself


class Page(HTMLParser):
    """What one page fetches and links to, where it is published, and the text alternatives
    of the pictures in its article.
    """

    def __init__(self, text):
        super().__init__()
        self.fetched, self.alts, self.styles, self.links = [], [], [], []
        self.published = None
        self.in_article = self.in_style = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note what the tag fetches."""
        attrs = {name: value or "" for name, value in attrs}
        self.in_article |= tag == "article"
        self.in_style = tag == "style"
        self.styles.append(attrs.get("style", ""))
        if tag == "img" and self.in_article:
            self.alts.append((attrs.get("src", ""), attrs.get("alt", "")))
        if tag == "a":
            self.links.append(attrs.get("href", ""))
        if tag == "link" and attrs.get("rel") == "canonical":
            self.published = attrs.get("href")
        if tag == "link" and set(attrs.get("rel", "").split()) <= REMARKS:
            return
        values = [attrs[name] for name in FETCHED.get(tag, []) if attrs.get(name)]
        self.fetched += [
            part.split()[0] for value in values for part in self.parts(value)
        ]

    def handle_endtag(self, tag):
        """Note that a style sheet or the article ends."""
        self.in_style &= tag != "style"
        self.in_article &= tag != "article"

    def handle_data(self, data):
        """Keep the text of style sheets inside the page."""
        if self.in_style:
            self.styles.append(data)

    @staticmethod
    def parts(value):
        """Split a srcset into its addresses; leave data: addresses, which hold commas,
        alone.
        """
        return (
            [value]
            if value.startswith("data:")
            else [part for part in value.split(",") if part.strip()]
        )


def pages_of(toc):
    """Yield the pages that a table of contents names, in reading order."""
    for key in ("root", "file"):
        if key in toc:
            yield toc[key]
    for key in ("parts", "chapters", "sections", "subtrees", "entries"):
        for child in toc.get(key, []):
            yield from pages_of(child)


def missing_pages(root, html):
    """Complain of pages in `_toc.yml` that were not built."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    for name in pages_of(toc):
        path = html / f"{re.sub(r'[.](md|ipynb)$', '', name)}.html"
        if not path.is_file() or "<article" not in path.read_text(encoding="utf-8"):
            yield f"{name}: named in _toc.yml, but {path.relative_to(root)} was not built"


def missing_figures(root, html):
    """Complain of figures of a chapter that are not on its page: as of a cell that draws,
    but whose last line is not the figure.
    """
    for path in sorted(root.glob("notebooks/*.ipynb")):
        page = html / "notebooks" / f"{path.stem}.html"
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            if name and f'id="{name}"' not in text:
                yield f"{path.relative_to(root)}: its figure {name} is not on the page"


def faults_of_page(path, html):
    """Complain of what a page fetches from elsewhere or does not find, of links to the
    published book, and of pictures without words.
    """
    page, name = Page(path.read_text(encoding="utf-8")), path.relative_to(html)
    home = (page.published or "").removesuffix(name.as_posix())
    site = urlsplit(home).path  # the page of a wrong address names files from there
    for address in page.fetched:
        local = unquote(urlsplit(address).path)
        folder = path.parent
        if site and local.startswith(site):
            folder, local = html, local.removeprefix(site)
        if EXTERNAL.match(address):
            yield f"{name}: fetches {address} from the network"
        elif (
            local and not address.startswith("data:") and not (folder / local).is_file()
        ):
            yield f"{name}: fetches {address}, which was not built"
    yield from faults_of_weight(page, name)
    for address in page.links:
        if home and address.startswith(home):
            yield f"{name}: links to {address}, not to the page beside it"
    for found in EXTERNAL_IN_STYLE.findall(" ".join(page.styles)):
        yield f"{name}: a style fetches {found} from the network"
    for source, alt in page.alts:
        if len(alt) < SHORTEST_ALT or alt.endswith((".png", ".svg", ".jpg")):
            yield f"{name}: {source} has the text alternative {alt!r}, too short to replace the picture"


def faults_of_weight(page, name):
    """Complain of a page that holds too much of pictures itself."""
    within = sum(len(each) for each in page.fetched if each.startswith("data:"))
    if within > HEAVIEST:
        yield f"{name}: holds {within} characters of pictures, more than {HEAVIEST}"


def faults_of_styles(html):
    """Complain of style sheets that fetch fonts or pictures from elsewhere."""
    for path in sorted(html.glob("**/*.css")):
        for found in EXTERNAL_IN_STYLE.findall(
            path.read_text(encoding="utf-8", errors="replace")
        ):
            yield f"{path.relative_to(html)}: fetches {found} from the network"


def check(root):
    """Return all complaints about the book built under `root`."""
    html = root / "_build" / "html"
    pages = sorted(html.glob("**/*.html"))
    pages = [path for path in pages if "_static" not in path.relative_to(html).parts]
    faults = [
        *missing_pages(root, html),
        *missing_figures(root, html),
        *faults_of_styles(html),
    ]
    return faults + [fault for path in pages for fault in faults_of_page(path, html)]


if __name__ == "__main__":
    root = Path(
        sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]
    ).resolve()
    if faults := check(root):
        sys.exit("\n".join(["The built book has faults:", *faults]))
    print(
        "The built book is whole: every page is there, and none fetches anything from the network."
    )
