"""Sphinx extension: what a chapter refers to is made in the build, from plain notebooks.

Displayed formulas are numbered, and "formula (7.1)" is a link to it. The first mention of a
term of the glossary is a link to it, and shows its definition; a link to a paper of the list
of references shows its entry.
"""

import re
from functools import cache

from docutils import nodes

GLOSSARY = "book/glossary"
# As in tools/stamp.py, which writes the numbers for those who read the notebook.
TAG = re.compile(r"\s*\\tag\{([\d.]+)\}")
MENTION = re.compile(
    r"(?:(?<=ormula )|(?<=ormulas )|(?<=\d\) and )|(?<=\d\) to ))\((\d+\.\d+)\)"
)
COMMAND = re.compile(r"\\(?:math\w+|operatorname)\{(\w+)\}|\\([A-Za-z]+)|[{}$]")


def is_chapter(docname):
    """Whether a page is made of a notebook."""
    return docname.startswith("notebooks/")


def is_prose(text):
    """Whether a piece of text is running text of a paragraph, and no part of a link."""
    node = text.parent
    while isinstance(node, nodes.emphasis | nodes.strong):
        node = node.parent
    return isinstance(node, nodes.paragraph)


def replace_each(text, pattern, linked):
    """Replace pieces of a text that a pattern finds by the links made of them, if any."""
    parts, end = [], 0
    for found in pattern.finditer(text):
        if link := linked(found):
            parts += [nodes.Text(text[end : found.start()]), link]
            end = found.end()
    if parts:
        text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def link_all(doctree, pattern, linked):
    """Make links of what a pattern finds in the running text of a page."""
    for text in list(filter(is_prose, doctree.findall(nodes.Text))):
        replace_each(text, pattern, linked)


# -- formulas


def number_formulas(app, doctree):
    """Give each displayed formula of a chapter a number, and an address of its own."""
    docname, domain = app.env.docname, app.env.get_domain("math")
    if not is_chapter(docname):
        return
    for n, formula in enumerate(doctree.findall(nodes.math_block), 1):
        if not formula.get("label"):
            label = f"{docname}-{n}"
            domain.note_equation(docname, label, location=formula)
            number = domain.get_equation_number_for(label)
            formula.update_basic_atts({"ids": [f"formula-{n}"]})
            formula.attributes |= {"label": label, "number": number, "docname": docname}
            formula[:] = [nodes.Text(TAG.sub("", formula.astext()))]


@cache
def formulas(env):
    """Return "(7.1)" -> (the page, the anchor), of all displayed formulas."""
    return {
        f"({'.'.join(map(str, number))})": (docname, anchor)
        for docname, kinds in env.toc_fignumbers.items()
        for anchor, number in kinds.get("displaymath", {}).items()
    }


def link_formulas(app, doctree, docname):
    """Make the number of a formula in the text of a chapter a link to it."""

    def linked(found):
        page, anchor = formulas(app.env)[found[0]]
        uri = app.builder.get_relative_uri(docname, page)
        return nodes.reference("", found[0], refuri=f"{uri}#{anchor}", internal=True)

    if is_chapter(docname):
        link_all(doctree, MENTION, linked)


# -- terms


def as_title(text):
    """Return a text as a browser shows it beside a link: formulas as plain letters."""
    plain = COMMAND.sub(lambda found: found[1] or found[2] or "", text)
    return " ".join(plain.split())


@cache
def glossary(env):
    """Return term -> (its anchor, its definition)."""
    found = {}
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        definition = as_title(item[-1].astext())
        for term in item.findall(nodes.term):
            found[term.astext().lower()] = term["ids"][0], definition
    return found


@cache
def pattern(env):
    """Return what finds a term, the longest first, in the singular or the plural."""
    words = "|".join(map(re.escape, sorted(glossary(env), key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])({words})s?(?![\w-])", re.IGNORECASE)


def link_terms(app, doctree, docname):
    """Link the first mention of each term of the glossary on the page of a chapter."""
    seen = set()

    def linked(found):
        term = found[1].lower()
        if term in seen:
            return None
        seen.add(term)
        anchor, definition = glossary(app.env)[term]
        uri = app.builder.get_relative_uri(docname, GLOSSARY)
        link = nodes.reference("", found[0], refuri=f"{uri}#{anchor}", internal=True)
        link["reftitle"], link["classes"] = definition, ["glossary-term"]
        return link

    if is_chapter(docname):
        link_all(doctree, pattern(app.env), linked)


# -- papers


def entry(work):
    """Return a work of the list of references in a line: authors, year, title, place."""
    names = [" ".join(p.last_names) for p in work.persons.get("author", [])]
    authors = f"{names[0]} et al." if len(names) > 3 else ", ".join(names)
    fields = work.fields
    place = fields.get("journal") or fields.get("booktitle") or fields.get("publisher")
    said = [f"{authors} ({fields.get('year', '')})", fields.get("title", ""), place]
    return as_title(". ".join(filter(None, said)) + ".")


def addresses(work):
    """Yield the addresses that a work is found at."""
    fields = work.fields
    if "doi" in fields:
        yield f"https://doi.org/{fields['doi']}"
    if "eprint" in fields:
        yield f"https://arxiv.org/abs/{fields['eprint']}"
    if "url" in fields:
        yield fields["url"]


@cache
def works(env):
    """Return address -> entry, of the works in the list of references."""
    found = env.get_domain("cite").bibdata.data.entries.values()
    return {a.lower(): entry(work) for work in found for a in addresses(work)}


def tell_papers(app, doctree, docname):
    """Show the entry of a paper beside each link to it."""
    for link in doctree.findall(nodes.reference):
        said = works(app.env).get(link.get("refuri", "").lower())
        if said and is_chapter(docname):
            link["reftitle"] = said


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", number_formulas)
    app.connect("doctree-resolved", link_formulas)
    app.connect("doctree-resolved", link_terms)
    app.connect("doctree-resolved", tell_papers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
