"""Sphinx extension: links to the published book stay inside the one that is built. What
others fetch from it, cards of links and the page of a wrong address, knows where it is.

Notebooks name pages of the book by their published addresses, which Jupyter and Colab can
follow. Before a page is read these become links to its neighbours, so the built book needs
no network, and a link to a page that does not exist is a warning.
"""

import posixpath
import re
from functools import partial
from urllib.parse import urlsplit


def neighbour(link, env, docname):
    """Return a link to a published page as one to its file; of a page that does not exist
    the file cannot be found either, of which MyST warns.
    """
    here = posixpath.dirname(env.doc2path(docname, base=False))
    return f"]({posixpath.relpath(env.doc2path(link[1], base=False), here or '.')}"


def drawing(link, env, docname):
    """Return a link to a published drawing as one to its file."""
    here = posixpath.dirname(env.doc2path(docname, base=False))
    return f"]({posixpath.relpath(f'book/{link[1]}', here or '.')}"


def keep_inside(app, docname, source):
    """Replace published addresses in the text of a page."""
    home = rf"\]\({re.escape(app.config.html_baseurl)}"
    for address, inside in [
        (rf"{home}([\w/.-]+)\.html", neighbour),
        (rf"{home}(_static/[\w/.-]+\.svg)", drawing),
    ]:
        replace = partial(inside, env=app.env, docname=docname)
        source[0] = re.sub(address, replace, source[0])


def tell_address(app, config):
    """Give other extensions the address that the book is published at."""
    config.ogp_site_url = config.html_baseurl
    config.ogp_site_name = config.html_title
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", tell_address)
    app.connect("source-read", keep_inside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
