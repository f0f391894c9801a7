"""Sphinx extension: the API reference, one page a package.

* Types of NumPy are written by their names (`NDArray[float64]`, `ArrayLike`), not by what they stand for.
* The directive `command-help` shows the help of every command of `companion`, a section each.
* A long signature, which Sphinx writes as a list of definitions without terms, becomes lines.
* An address of the time when the reference was one page (`api.html#companion.laws.optimum`) leads to its page: the
  overview gets a list of modules and their pages, and `api.js` goes there.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import sphinx.ext.autodoc
import sphinx.util.inspect
import sphinx.util.typing
from docutils import nodes
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

#: The overview, whose address held the whole reference once.
OVERVIEW = "api"
HELP_WIDTH = 88

_PARAMETERS = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)
_NDARRAY = re.compile(r"(~?)(?:numpy\.)?ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], ~?(?:numpy\.)?dtype\[([^]]*)\]\]")


def with_short_names(stringify: Callable[..., str]) -> Callable[..., str]:
    """A `stringify_annotation` that writes NumPy's types by their names."""
    spelled_out = {mode: stringify(ArrayLike, mode) for mode in ("smart", "fully-qualified-except-typing")}

    def short(annotation: Any, mode: str = "fully-qualified-except-typing", *rest: Any, **more: Any) -> str:
        text = stringify(annotation, mode, *rest, **more)
        tilde = "~" if mode == "smart" else ""
        if long := spelled_out.get(mode):
            text = text.replace(long, f"{tilde}numpy.typing.ArrayLike")
        return _NDARRAY.sub(rf"{tilde}numpy.typing.NDArray[\2]", text)

    return short


def shorten_types() -> None:
    """Let autodoc and signatures use the short names; Sphinx offers no hook for the types of attributes."""
    short = with_short_names(sphinx.util.typing.stringify_annotation)
    sphinx.ext.autodoc.stringify_annotation = short
    sphinx.util.inspect.stringify_annotation = short


class CommandHelp(SphinxDirective):
    """A section for every command of `companion`, with its help."""

    def run(self) -> list[nodes.Node]:
        from companion.cli import command_help

        made: list[nodes.Node] = []
        with mock.patch.dict(os.environ, COLUMNS=str(HELP_WIDTH)):  # argparse wraps at the width of the terminal
            texts = command_help()
        for name, text in texts.items():
            section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
            block = nodes.literal_block(text, text, language="text")
            section += [nodes.title(name, "", nodes.literal(name, name)), block]
            made.append(section)
        return made


def lines_of_signatures(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write the parameters of a long signature as lines: a `dl` without `dt` is no list, and none may be in a `dt`."""
    if "body" in context:
        context["body"] = _PARAMETERS.sub(_as_lines, context["body"])


def _as_lines(found: re.Match[str]) -> str:
    return found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def list_modules(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the overview the pages of all modules, for addresses of the former single page."""
    if pagename != OVERVIEW:
        return
    modules = app.env.domaindata["py"]["modules"]
    pages = {name: app.builder.get_relative_uri(OVERVIEW, entry.docname) for name, entry in sorted(modules.items())}
    data = json.dumps(pages, sort_keys=True)
    context["body"] += f'\n<script type="application/json" id="companion-api-pages">{data}</script>\n'


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the hook."""
    shorten_types()
    app.add_directive("command-help", CommandHelp)
    app.connect("html-page-context", list_modules)
    app.connect("html-page-context", lines_of_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
