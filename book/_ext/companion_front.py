"""Sphinx extension: what the front page says of other pages, read from the executed chapters.

* The directive `{chapters}` lists the chapters: a link, the question that the chapter answers, and the minutes it takes
  to read. Words, figures and tables are counted in the executed notebooks, so that the list is never out of date.
* The role `` {of-chapter}`NAME key` `` gives a value that a chapter glues into its own prose.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from companion.book.reading import Reading, glued_value, measure
from companion.errors import InputError

_CHAPTER = re.compile(r"[0-8]\d_.*\.ipynb")  # from 90 on there is reference


class Chapters(SphinxDirective):
    """The list of chapters."""

    def run(self) -> list[nodes.Node]:
        """A list in a container of the class `companion-chapters`."""
        folder = Path(self.env.srcdir) / "chapters"
        lines = []
        for path in sorted(path for path in folder.glob("*.ipynb") if _CHAPTER.fullmatch(path.name)):
            self.env.note_dependency(str(path))
            lines += [entry(path.stem, measure(path)), ""]
        node = nodes.container(classes=["companion-chapters"])
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, node)
        return [node]


def entry(stem: str, found: Reading) -> str:
    """One item of the list, in Markdown."""
    question = found.question or "Not in this build of the book."
    return f"* {int(stem[:2])} [{found.title}](chapters/{stem}.ipynb): {question} *{found.minutes} min*"


class OfChapter(SphinxRole):
    """A value of another chapter."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The value as text; a warning where the chapter does not have it."""
        name, _, key = self.text.partition(" ")
        path = Path(self.env.srcdir) / "chapters" / f"{name}.ipynb"
        self.env.note_dependency(str(path))
        try:
            return [nodes.Text(glued_value(path, key))], []
        except InputError as error:
            message = self.inliner.reporter.warning(str(error), line=self.lineno)
            return [nodes.Text("–")], [message]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the role."""
    app.add_directive("chapters", Chapters)
    app.add_role("of-chapter", OfChapter())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
