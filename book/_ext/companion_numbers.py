"""Sphinx extension: numbers of figures, tables and equations, by chapter, and references to them.

The package's figures and tables are raw html, which Sphinx does not number. Here each gets the number of its chapter
and its place on the page in front of its caption. The role {see}`fig-NAME` (or `tbl-NAME`) becomes a link that reads
"Figure 3.2", on the same page or another. Every displayed formula gets a number as well, labelled or not.

A chapter's number is that of its file; the reference pages (90 and up) have letters in the order of the contents; other
pages have none. Exercises, which Sphinx numbers by section, follow the same rule.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath
from string import ascii_uppercase
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole
from sphinx.util.matching import patmatch
from sphinx_external_toc.api import FileItem, GlobItem, SiteMap

#: What is numbered: how its html begins, up to the place of the number, and the word for it.
FIGURE = re.compile(r'(<figure class="companion-figure" id="(?P<id>fig-[a-z0-9-]+)">.*?<figcaption>)', re.DOTALL)
TABLE = re.compile(
    r'(<div class="companion-table-block"(?: id="(?P<id>tbl-[a-z0-9-]+)")?><p class="companion-caption">)'
)
KINDS = ((FIGURE, "Figure"), (TABLE, "Table"))
_REFERENCE_PAGES = 90


def pages_in_order(site_map: SiteMap, found: Collection[str]) -> Iterator[str]:
    """The pages of the contents that were found, in its order."""

    def below(docname: str) -> Iterator[str]:
        if docname in found:
            yield docname
        for tree in site_map[docname].subtrees if docname in site_map else ():
            for item in tree.items:
                if isinstance(item, GlobItem):
                    yield from sorted(page for page in found if patmatch(page, str(item)))
                elif isinstance(item, FileItem):
                    yield from below(str(item))

    yield from dict.fromkeys(below(site_map.root.docname))


def prefixes(pages: Iterable[str]) -> dict[str, str]:
    """What stands before the numbers of a page: `3` for chapters/03_isoflop, a letter for a page of reference."""
    made, letters = {}, iter(ascii_uppercase)
    for page in pages:
        if found := re.match(r"(\d+)_", PurePosixPath(page).name):
            made[page] = str(int(found[1])) if int(found[1]) < _REFERENCE_PAGES else next(letters)
    return made


def read_contents(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Remember the prefixes of all pages before the first is read."""
    pages = pages_in_order(app.config.external_site_map, env.found_docs)
    env.companion_prefixes = prefixes(pages)  # type: ignore[attr-defined]


def prefix_of(env: BuildEnvironment, docname: str) -> str:
    """The prefix with its point, or nothing."""
    prefix: str | None = env.companion_prefixes.get(docname)  # type: ignore[attr-defined]
    return f"{prefix}." if prefix else ""


def number_exercises(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Give exercises the prefix of their page, in place of the number that Sphinx gave its section."""
    for docname, prefix in env.companion_prefixes.items():  # type: ignore[attr-defined]
        exercises = env.toc_fignumbers.get(docname, {}).get("exercise", {})
        for count, label in enumerate(exercises, 1):
            exercises[label] = (prefix, count)
    return []


def number_outputs(markups: Iterable[str], prefix: str) -> tuple[list[str], dict[str, str]]:
    """Pieces of html in the order of the page, with numbers in the captions; and the numbers by anchor."""
    counts, anchors, numbered = {word: 0 for _, word in KINDS}, {}, []
    for markup in markups:
        for pattern, word in KINDS:

            def number(found: re.Match[str], word: str = word) -> str:
                counts[word] += 1
                text = f"{word} {prefix}{counts[word]}"
                if found["id"]:
                    anchors[found["id"]] = text
                return f'{found[1]}<span class="companion-number">{text}.</span> '

            markup = pattern.sub(number, markup)
        numbered.append(markup)
    return numbered, anchors


def number_page(app: Sphinx, doctree: nodes.document) -> None:
    """Number what a page shows, and remember the numbers that others may refer to."""
    docname = app.env.docname
    raw = [node for node in doctree.findall(nodes.raw) if "companion-" in node.astext()]
    texts, anchors = number_outputs([node.astext() for node in raw], prefix_of(app.env, docname))
    for node, text in zip(raw, texts, strict=True):
        node.children = [nodes.Text(text)]
        node.rawsource = text
    _numbers(app.env).update({anchor: (docname, text) for anchor, text in anchors.items()})
    _number_formulas(app.env, docname, doctree)


def _number_formulas(env: BuildEnvironment, docname: str, doctree: nodes.document) -> None:
    """Give every displayed formula a label and its number in the order of the page."""
    domain = env.get_domain("math")
    for count, node in enumerate(doctree.findall(nodes.math_block), 1):
        if not node.get("label"):
            node["label"] = f"{docname}:{count}"
        if not node["ids"]:
            node["ids"] = [nodes.make_id(f"equation-{PurePosixPath(docname).name}-{count}")]
        node["number"], node["docname"] = f"{prefix_of(env, docname)}{count}", docname
        domain.data["objects"][node["label"]] = (docname, node["number"])


class See(SphinxRole):
    """A reference to a numbered figure or table by its anchor."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """A mark that `resolve` replaces once all pages are read."""
        return [nodes.inline(self.text, self.text, classes=["companion-see"], anchor=self.text.strip())], []


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put links where the role stands.

    An anchor that is nowhere is text: a book on a reader's table leaves out what the table cannot answer. That the
    default book has them all is a test.
    """
    for node in list(doctree.findall(nodes.inline)):
        if (anchor := node.get("anchor")) is None:
            continue
        if anchor in _numbers(app.env):
            target, text = _numbers(app.env)[anchor]
            uri = app.builder.get_relative_uri(docname, target) if target != docname else ""
            link = nodes.reference("", text, internal=True, refuri=f"{uri}#{anchor}", classes=["companion-see"])
            node.replace_self(link)
        else:
            word = "a table" if anchor.startswith("tbl-") else "a figure"
            node.replace_self(nodes.inline("", f"{word} (left out)", classes=["companion-see-missing"]))


def _numbers(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    if not hasattr(env, "companion_numbers"):
        env.companion_numbers = {}  # type: ignore[attr-defined]
    return env.companion_numbers  # type: ignore[no-any-return]


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop the numbers of a page that is read anew."""
    kept = {anchor: found for anchor, found in _numbers(env).items() if found[0] != docname}
    env.companion_numbers = kept  # type: ignore[attr-defined]


def merge(app: Sphinx, env: BuildEnvironment, docnames: Any, other: BuildEnvironment) -> None:
    """Take over the numbers that another process read."""
    _numbers(env).update({a: found for a, found in _numbers(other).items() if found[0] in docnames})


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role and the hooks."""
    app.add_role("see", See())
    app.connect("env-before-read-docs", read_contents)
    app.connect("doctree-read", number_page, priority=100)
    app.connect("env-get-updated", number_exercises, priority=900)  # after Sphinx has numbered them
    app.connect("doctree-resolved", resolve, priority=100)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
