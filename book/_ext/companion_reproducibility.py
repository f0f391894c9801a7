"""Sphinx extension: the directive `build-record`, which shows a part of what the build left in `build_record.json`.

`companion book` writes that file beside the pages before it renders them. Where it is missing (Sphinx run by hand), the
page says so.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from companion.book.costs import INDEX, LARGEST, RENDERING

FILE = "build_record.json"
PARTS = ("versions", "commit", "data", "machine", "time", "ledger", "tests")


class BuildRecord(SphinxDirective):
    """A table or a sentence for one part of the record."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        part = directives.choice(self.arguments[0], PARTS)
        self.env.note_reread()  # the record changes while the page's source does not
        path = Path(self.env.srcdir) / FILE
        if not path.is_file():
            return [_sentence("Not recorded: these pages were not built by `companion book`.")]
        record = json.loads(path.read_text(encoding="utf-8"))
        return [globals()[f"show_{part}"](record)]


def show_versions(record: dict[str, Any]) -> nodes.Node:
    """Versions of Python and the packages."""
    rows = [(name, version or "not installed") for name, version in record["versions"].items()]
    return _table(("package", "version"), rows)


def show_commit(record: dict[str, Any]) -> nodes.Node:
    """The commit, or that there is none."""
    commit = str(record["commit"])
    if not commit.replace("+changes", "").isalnum():
        return _sentence(f"The sources are {commit}.")
    changed = ", with changes that are not committed" if commit.endswith("+changes") else ""
    return _sentence(f"Commit `{commit.removesuffix('+changes')}`{changed}.")


def show_data(record: dict[str, Any]) -> nodes.Node:
    """Names, sizes and checksums of the tables."""
    rows = [(f"`{each['file']}`", f"{each['bytes']:,}", f"`{each['sha256']}`") for each in record["data"]]
    return _table(("file", "bytes", "SHA-256"), rows)


def show_machine(record: dict[str, Any]) -> nodes.Node:
    """The machine."""
    return _table(("part", "this build"), list(record["machine"].items()))


def show_time(record: dict[str, Any]) -> nodes.Node:
    """Seconds of every notebook and of the rendering; sizes. `companion book` fills in what comes later."""
    rows = [(f"notebook {name}", f"{seconds:.1f} s") for name, seconds in record["seconds"].items()]
    rows += [("rendering of all pages", f"{RENDERING} s"), ("largest page", LARGEST), ("search index", INDEX)]
    return _table(("step", "this build"), rows)


def show_ledger(record: dict[str, Any]) -> nodes.Node:
    """Counts of the ledger."""
    return _sentence(f"{record['ledger']}." if record["ledger"] else "The ledger is not in this build.")


def show_tests(record: dict[str, Any]) -> nodes.Node:
    """What the last `make test` in this checkout found."""
    tests = record["tests"]
    if tests is None:
        return _sentence("The tests were not run in this checkout.")
    counts = f"{tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped"
    scope = "" if tests["whole"] else ", a part of the suite"
    where = "at this commit" if tests["commit"] == record["commit"] else f"at commit `{tests['commit'] or 'unknown'}`"
    return _sentence(f"The last run{scope}, {where}: {counts}.")


def _sentence(text: str) -> nodes.paragraph:
    """A paragraph; what is between backquotes is code."""
    made = nodes.paragraph()
    for number, piece in enumerate(text.split("`")):
        made += nodes.literal(piece, piece) if number % 2 else nodes.Text(piece)
    return made


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> nodes.table:
    """A table of text."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *[_row(row) for row in rows])
    return nodes.table("", group)


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", _sentence(cell)) for cell in cells])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("build-record", BuildRecord)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
