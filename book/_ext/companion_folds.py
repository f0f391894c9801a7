"""Sphinx extension: every button that unfolds something has a name of its own.

A cell with the tag `hide-input` is folded under "Show the code" and, for screen readers, the caption of the figure or
table that the code makes; without one, the number of the cell and the section it is in. A cell with the tag `hide-cell`
hides its output as well: a figure or table in it is what the button names, for all readers. The cell of parameters is
named as such.
"""

import re
from html import escape, unescape
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from companion.formatting import page_text

_CAPTION = re.compile(r'<(figcaption|p class="companion-caption")[^>]*>(.*?)</(?:figcaption|p)>', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
#: Characters of a caption that name a button, for screen readers alone and for all.
LONGEST, LONGEST_LABEL = 100, 48
#: What is folded, by the class that myst-nb gives the fold.
_WHAT = {"above-input": "the code", "below-input": "the output", "above-output": "the output"}


def caption_of(cell: nodes.Element) -> str | None:
    """The caption of a cell's first figure or table as plain text, its number first; None without one."""
    for raw in cell.findall(nodes.raw):
        if found := _CAPTION.search(raw.astext()):
            return unescape(_TAG.sub("", found[2]))
    return None


def place_of(cell: nodes.Element) -> str:
    """Where a cell is: its number and the section."""
    section: Any = cell
    while section is not None and not isinstance(section, nodes.section):
        section = section.parent
    title = section.next_node(nodes.title).astext() if section is not None else "this page"
    return f"cell {cell.get('cell_index', 0) + 1}, {title}"


def shortened(text: str, longest: int) -> str:
    """The first sentence of a text; if it has more characters, cut at a comma or colon, or between words.

    >>> shortened("Table 3.1. Loss over compute. More below.", 100), shortened("word " * 30, 20)
    ('Table 3.1. Loss over compute', 'word word word word…')
    >>> shortened("Exponents of N*, one optimum left out at a time", 30)
    'Exponents of N*…'
    """
    text = re.split(r"(?<=[^\W\d])\.\s", " ".join(text.split()), maxsplit=1)[0].rstrip(".")
    if len(text) <= longest:
        return text
    piece = text[: longest + 1]
    stop = max(piece.rfind(mark) for mark in ",;:")
    return (piece[:stop] if stop > longest // 3 else piece.rpartition(" ")[0]) + "…"


class NameFolds(SphinxPostTransform):
    """Name the folds that myst-nb makes at priority 199."""

    default_priority = 200
    formats = ("html",)

    def run(self, **options: Any) -> None:
        """Note in every fold what it hides."""
        for cell in self.document.findall(nodes.container):
            for fold in (child for child in cell.children if isinstance(child, HideCodeCellNode)):
                what = next(words for name, words in _WHAT.items() if name in fold["classes"])
                caption, whole = caption_of(cell), cell.get("hide_mode") == "all"
                hides_output = whole or what != "the code"
                fold["label"] = f" {'the code and its output' if whole else what}"
                if caption and hides_output:
                    fold["label"], fold["with_code"] = f": {shortened(caption, LONGEST_LABEL)}", whole
                elif "tag_parameters" in cell["classes"]:
                    fold["label"] = " the parameters of this chapter"
                else:
                    fold["about"] = shortened(caption, LONGEST) if caption else place_of(cell)


def visit_fold(translator: Any, node: HideCodeCellNode) -> None:
    """Write the opening of a fold."""
    about = f'<span class="visually-hidden">: {escape(page_text(node["about"]))}</span>' if "about" in node else ""
    beside = '<span class="companion-with-code"> (with the code)</span>' if node.get("with_code") else ""
    translator.body.append(f'<details class="admonition hide {" ".join(node["classes"])}">\n<summary>')
    for state, word in (("collapsed", "Show"), ("expanded", "Hide")):
        name = f"{word}{escape(page_text(node['label']))}{beside}{about}"
        translator.body.append(f'<p class="{state} admonition-title">{name}</p>\n')
    translator.body.append("</summary>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Name the folds; put our writer in the place of myst-nb's, which is loaded before."""
    app.setup_extension("myst_nb")
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_HideCellInput))
    app.add_post_transform(NameFolds)
    app.add_css_file("folds.css")
    app.add_js_file("folds.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
