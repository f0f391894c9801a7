"""Sphinx extension: how to cite the book, and where to say what is wrong with it.

* `cite-this KEY` shows BibTeX of the companion, made from its title, year and version, and the entry KEY of
  `references.bib` as it is there.
* `feedback` links to the issues of the repository that `_config.yml` names, and says nothing where none is named.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from companion import __version__

REFERENCES = "references.bib"
COMPANION = """\
@software{{xlstm_scaling_companion,
  title = {{{title}}},
  author = {{{{{author}}}}},
  year = {{{year}}},
  version = {{{version}}}
}}"""


def entry_of(text: str, key: str) -> str:
    """An entry of a BibTeX file as it is written there, from its `@` to the brace that closes it.

    Raises
    ------
    KeyError
        there is no such entry.
    """
    found = re.search(rf"^@\w+\{{{re.escape(key)},.*?^\}}", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(key)
    return found[0]


class CiteThis(SphinxDirective):
    """BibTeX of the companion and of the paper."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = (Path(self.env.srcdir) / REFERENCES).read_text(encoding="utf-8")
        try:
            paper = entry_of(text, self.arguments[0])
        except KeyError:
            raise self.error(f"{REFERENCES} has no entry {self.arguments[0]!r}") from None
        config = self.config
        year = re.sub(r"\D", "", str(config.copyright))[:4]
        own = COMPANION.format(title=config.html_title, author=config.author, year=year, version=__version__)
        content = f"{own}\n\n{paper}"
        return [nodes.literal_block(content, content, language="bibtex")]


class Feedback(SphinxDirective):
    """A paragraph with the address for mistakes and questions; nothing without one."""

    def run(self) -> list[nodes.Node]:
        address = str(self.config.html_theme_options.get("repository_url") or "").rstrip("/")
        if not address:
            return []
        link = nodes.reference("", "open an issue", refuri=f"{address}/issues", internal=False)
        return [nodes.paragraph("", "", nodes.Text("A mistake or a question? Please "), link, nodes.Text("."))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("cite-this", CiteThis)
    app.add_directive("feedback", Feedback)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
