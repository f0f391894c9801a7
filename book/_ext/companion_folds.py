"""Sphinx extension: every button that unfolds something has a name of its own.

A cell with the tag `hide-input` is folded under "Show the code" and, for screen readers, the caption of the figure or
table that the code makes; without one, the number of the cell and the section it is in.
"""

import re
from html import escape, unescape
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

_CAPTION = re.compile(r'<(figcaption|p class="companion-caption")[^>]*>(.*?)</', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
#: Characters of a caption that name a button.
LONGEST = 100
#: What is folded, by the class that myst-nb gives the fold.
_WHAT = {"above-input": "the code", "below-input": "the output", "above-output": "the output"}


def name_of(cell: nodes.Element) -> str:
    """What tells a cell's fold from all others of the page: a caption, else where the cell is."""
    for raw in cell.findall(nodes.raw):
        if found := _CAPTION.search(raw.astext()):
            return shortened(unescape(_TAG.sub("", found[2])))
    section: Any = cell
    while section is not None and not isinstance(section, nodes.section):
        section = section.parent
    title = section.next_node(nodes.title).astext() if section is not None else "this page"
    return f"cell {cell.get('cell_index', 0) + 1}, {title}"


def shortened(text: str) -> str:
    """The first sentence of a text, cut between words if it is long.

    >>> shortened("Loss over compute. More below."), shortened("word " * 30)[-10:]
    ('Loss over compute', 'word word…')
    """
    text = re.split(r"(?<=[^\W\d])[.:]\s", " ".join(text.split()), maxsplit=1)[0].rstrip(".")
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0] + "…"


class NameFolds(SphinxPostTransform):
    """Name the folds that myst-nb makes at priority 199."""

    default_priority = 200
    formats = ("html",)

    def run(self, **options: Any) -> None:
        """Note in every fold what it hides."""
        for cell in self.document.findall(nodes.container):
            for fold in (child for child in cell.children if isinstance(child, HideCodeCellNode)):
                what = next(words for name, words in _WHAT.items() if name in fold["classes"])
                fold["what"] = "the code and its output" if cell.get("hide_mode") == "all" else what
                fold["about"] = name_of(cell)


def visit_fold(translator: Any, node: HideCodeCellNode) -> None:
    """Write the opening of a fold."""
    about = f'<span class="visually-hidden">: {escape(node["about"])}</span>'
    translator.body.append(f'<details class="admonition hide {" ".join(node["classes"])}">\n<summary>')
    for state, word in (("collapsed", "Show"), ("expanded", "Hide")):
        translator.body.append(f'<p class="{state} admonition-title">{word} {node["what"]}{about}</p>\n')
    translator.body.append("</summary>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Name the folds; put our writer in the place of myst-nb's, which is loaded before."""
    app.setup_extension("myst_nb")
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_HideCellInput))
    app.add_post_transform(NameFolds)
    app.add_js_file("folds.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
