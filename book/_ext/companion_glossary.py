"""Sphinx extension: a link to a term of the glossary carries its definition, which `glossary.js` shows.

The definition is the first paragraph under the term, in plain words: it is shown as text, so a formula in it is
refused. It is an attribute of the link, which search does not index.
"""

from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

LOG = logging.getLogger(__name__)


class defined_term(nodes.Inline, nodes.TextElement):
    """A link to a term, with the definition."""


def note_definitions(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the definitions of a page's glossaries: by page, then by the term's anchor."""
    found = _definitions(app.env).setdefault(app.env.docname, {})
    found.clear()
    for glossary in doctree.findall(lambda node: "glossary" in getattr(node, "attributes", {}).get("classes", [])):
        for item in glossary.findall(nodes.definition_list_item):
            paragraph = item.next_node(nodes.paragraph)
            for term in item.findall(nodes.term):
                if paragraph is None or paragraph.next_node(nodes.math) is not None:
                    LOG.warning(
                        "glossary: %r needs a first paragraph in plain words", term.astext(), location=paragraph or term
                    )
                else:
                    found |= dict.fromkeys(term["ids"], " ".join(paragraph.astext().split()))


def define_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Wrap links to terms, once all pages are read."""
    if app.builder.format != "html":
        return
    by_address = {
        f"{app.builder.get_relative_uri(docname, page)}#{anchor}": text
        for page, terms in _definitions(app.env).items()
        for anchor, text in terms.items()
    }
    for link in list(doctree.findall(nodes.reference)):
        address = f"#{link['refid']}" if "refid" in link else link.get("refuri")
        if address in by_address and link.next_node(_is_term) is not None:
            term = defined_term("", "", definition=by_address[address])
            link.replace_self(term)
            term += link


def _is_term(node: nodes.Node) -> bool:
    return isinstance(node, nodes.inline) and "std-term" in node["classes"]


def _definitions(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    if not hasattr(env, "companion_definitions"):
        env.companion_definitions = {}  # type: ignore[attr-defined]
    return env.companion_definitions  # type: ignore[attr-defined,no-any-return]


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Forget a page that is read again."""
    _definitions(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    """Take over what another process read."""
    theirs = _definitions(other)
    _definitions(env).update({name: theirs[name] for name in docnames if name in theirs})


def visit_term(translator: Any, node: defined_term) -> None:
    """Open the link's wrapper."""
    translator.body.append(f'<span class="companion-term" data-definition="{escape(node["definition"])}">')


def depart_term(translator: Any, node: defined_term) -> None:
    """Close it."""
    translator.body.append("</span>")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the hooks, the node and the assets."""
    app.add_node(defined_term, html=(visit_term, depart_term))
    app.connect("doctree-read", note_definitions)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("doctree-resolved", define_terms)
    app.add_css_file("glossary.css")
    app.add_js_file("glossary.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
