"""Sphinx extension: the directive `{data-files}`, a list of the project's tables, each to download.

The build copies `data/*.csv`, `data/*.csv.gz` and `data/README.md` beside the pages. The README says what each table
is; rows, columns and sizes are counted here.
"""

import csv
import gzip
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

_DESCRIBED = re.compile(r"^\| `([\w.]+\.csv(?:\.gz)?)` \| (.+?) \|", re.MULTILINE)


class DataFiles(SphinxDirective):
    """One item a table: the file to download, what it is, rows, columns (a link to their description), size."""

    def run(self) -> list[nodes.Node]:
        """The list; it is written as Markdown, which this page is."""
        folder = Path(self.env.srcdir) / "data"
        described = dict(_DESCRIBED.findall((folder / "README.md").read_text(encoding="utf-8")))
        lines = []
        for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")]):
            if path.name not in described:
                raise ExtensionError(f"data/README.md does not say what {path.name} is")
            self.env.note_dependency(str(path))
            rows, columns = shape(path)
            anchor = nodes.make_id(path.name)
            lines.append(
                f"* {{download}}`{path.name} <data/{path.name}>`: {described[path.name]}. {rows:,} rows, "
                f'<a class="reference internal" href="#{anchor}">{columns} columns</a>, {kilobytes(path)}.'
            )
        node = nodes.container()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, node)
        return node.children


def shape(path: Path) -> tuple[int, int]:
    """Rows without the header, and columns."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return len(rows) - 1, len(rows[0])


def kilobytes(path: Path) -> str:
    """The size of a file in words: 1 kB is 1000 bytes."""
    return f"{max(1, round(path.stat().st_size / 1000)):,} kB"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("data-files", DataFiles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
