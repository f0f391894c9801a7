"""Sphinx extension: the page of search results gets a script that keeps excerpts readable."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def add_script(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load `search.js` on the page of results alone, after Sphinx's own scripts."""
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer", priority=900)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hook."""
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
