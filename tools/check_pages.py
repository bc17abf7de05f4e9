"""Check the built book in a browser: every page is one that screen readers and keyboards
can use (axe-core finds nothing), in light and in dark colours; the first picture of a
chapter begins on the first screen; on a phone no page is wider than its screen; and no page
is too heavy.

Usage: python tools/check_pages.py [root] [page ...]

It needs Chromium or Chrome, and says so where there is none; PAGE is as "notebooks/07_padim".
"""

import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREEN = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}
HEAVIEST = 5_000_000  # bytes, with all that a page fetches
FIRST_PICTURE = "document.querySelector('article :is(figure, .cell_output img)')"
TYPESET = "() => window.MathJax?.startup?.promise.then(() => null)"
DARK = "document.documentElement.dataset.theme = 'dark'"
AT_ONCE = "* { transition: none !important }"  # no colours between two


def browser_here():
    """Return the program of a browser on this machine, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def built_pages(html):
    """Return the pages of a built book. The first address only leads to the welcome page,
    and the page of a wrong one finds its style sheets only where the book is published.
    """
    found = sorted([*html.glob("*.html"), *html.glob("[!_]*/*.html")])
    return [path for path in found if path.name not in ("404.html", "index.html")] + [
        html / "book" / "index.html"
    ]


def size(address):
    """Return the bytes of a file that a page fetched."""
    path = Path(unquote(urlsplit(address).path))
    return path.stat().st_size if path.is_file() else 0


def unusable(page, rules=None):
    """Complain of what axe-core finds, by all its rules or by some."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    for found in Axe().run(page, options=options).response["violations"]:
        places = "; ".join(node["html"][:120] for node in found["nodes"][:3])
        yield f"{found['id']}, {found['help']}: {places}"


def late(page):
    """Complain of a first picture below the first screen."""
    top = page.evaluate(f"{FIRST_PICTURE}?.getBoundingClientRect().top + scrollY")
    if top is None or not top < SCREEN["height"]:
        yield f"the first picture begins at {top}, below {SCREEN['height']} pixels"


def wide(page):
    """Complain of a page that a phone must scroll sideways."""
    page.set_viewport_size(PHONE)
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > PHONE["width"]:
        yield f"is {width} pixels wide on a phone of {PHONE['width']}"


def faults_of_page(browser, path):
    """Complain of one page."""
    page, fetched = browser.new_page(viewport=SCREEN), set()
    page.on("request", lambda request: fetched.add(request.url))
    page.goto(path.as_uri(), timeout=120_000)
    page.evaluate(TYPESET)
    yield from unusable(page)
    page.add_style_tag(content=AT_ONCE)
    page.evaluate(DARK)
    yield from (f"dark: {fault}" for fault in unusable(page, ["color-contrast"]))
    if path.parent.name == "notebooks":
        yield from late(page)
    yield from wide(page)
    if (weight := sum(map(size, fetched))) > HEAVIEST:
        yield f"weighs {weight / 1e6:.1f} MB, more than {HEAVIEST / 1e6:g}"
    page.close()


def check(root, executable, names=()):
    """Return all complaints about the book built under `root`, or about some pages."""
    from playwright.sync_api import sync_playwright

    html = root / "_build" / "html"
    pages = [html / f"{name}.html" for name in names] or built_pages(html)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"]
        )
        return [
            f"{path.relative_to(html)}: {fault}"
            for path in pages
            for fault in faults_of_page(browser, path)
        ]


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])
    if (executable := browser_here()) is None:
        print("The pages were not checked in a browser: no Chromium or Chrome is here.")
    elif faults := check(root.resolve(), executable, sys.argv[2:]):
        sys.exit("\n".join(["The pages have faults:", *faults]))
    else:
        print("The pages can be used: axe-core finds nothing, on no page.")
