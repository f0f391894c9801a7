"""Sphinx extension: what must not be parted at the end of a line, in prose.

A number stays with its unit and a symbol with its value, as in captions (`companion.formatting.page_text`), and a
formula with the punctuation before and after it. Text that a cell computed gets the apostrophes that Sphinx gave the
rest. Code is left as it is, but a long name in it breaks between its parts (`companion.plotting.embed.breakable`).
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from companion.formatting import together, typographic
from companion.plotting.embed import breakable

#: Stands for a formula, a piece of code or an image among the text of a block.
_OTHER = "\N{OBJECT REPLACEMENT CHARACTER}"
_AFTER = re.compile(r"[^\w\s]+(?:s\b)?")
_CODE = re.compile(r"<code\b[^>]*\bliteral\b[^>]*>.*?</code>", re.DOTALL)
_BEFORE = re.compile(r"[(\[“]+$")


class KeepTogether(SphinxPostTransform):
    """Put spaces that do not break into the text of every block, once computed values stand in it."""

    default_priority = 800

    def run(self, **options: Any) -> None:
        """Change the page's text."""
        for block in list(self.document.findall(_is_block)):
            leaves = list(_leaves(block))
            texts = [leaf.astext() if isinstance(leaf, nodes.Text) else _OTHER for leaf in leaves]
            kept = typographic(together("".join(texts)))  # as long as before
            start = 0
            for leaf, text in zip(leaves, texts, strict=True):
                piece = kept[start : start + len(text)]
                start += len(text)
                if isinstance(leaf, nodes.Text) and piece != text:
                    leaf.parent.replace(leaf, nodes.Text(piece))
        for formula in list(self.document.findall(nodes.math)):
            keep_with_neighbors(formula)


def _is_block(node: nodes.Node) -> bool:
    """A paragraph, a title, an option of a quiz: text that lines are made of, and no code."""
    return isinstance(node, nodes.TextElement) and not isinstance(node, nodes.Inline | nodes.FixedTextElement)


def _leaves(node: nodes.Element) -> Iterator[nodes.Node]:
    """The text of a block in order; what is not prose counts as one leaf."""
    for child in node.children:
        if isinstance(child, nodes.Text | nodes.literal | nodes.math | nodes.raw | nodes.image):
            yield child
        elif child.children:
            yield from _leaves(child)


def keep_with_neighbors(formula: nodes.math) -> None:
    """Wrap a formula with the opening bracket before it and the punctuation right behind it."""
    parent, place = formula.parent, formula.parent.index(formula)
    before = parent[place - 1] if place else None
    after = parent[place + 1] if place + 1 < len(parent) else None
    opening = _BEFORE.search(before.astext()) if isinstance(before, nodes.Text) else None
    closing = _AFTER.match(after.astext()) if isinstance(after, nodes.Text) else None
    if opening is None and closing is None:
        return
    kept = nodes.inline("", "", classes=["companion-together"])
    formula.replace_self(kept)
    if opening is not None:
        kept += nodes.Text(opening[0])
        parent.replace(before, nodes.Text(before.astext()[: opening.start()]))
    kept += formula
    if closing is not None:
        kept += nodes.Text(closing[0])
        parent.replace(after, nodes.Text(after.astext()[closing.end() :]))


def break_names(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let long names in the code of the page's text break between their parts; search reads them whole."""
    body = str(context.get("body", ""))
    context["body"] = _CODE.sub(lambda code: re.sub(r"(?<=>)[^<]+", lambda text: breakable(text[0]), code[0]), body)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(KeepTogether)
    app.connect("html-page-context", break_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
