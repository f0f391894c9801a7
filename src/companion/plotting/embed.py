"""Figures and tables as HTML that the book's pages and a live notebook show alike.

A figure becomes inline SVG: sharp at any size, its ink the page's text color, so it reads on a light and on a dark
page. Captions are computed strings.
"""

import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from companion.plotting.style import INK, MUTED, RC_PARAMS

#: Text cells longer than this (characters) may break into lines.
SENTENCE = 40


class Html:
    """A piece of HTML that a notebook shows as its output."""

    def __init__(self, markup: str) -> None:
        self.markup = markup

    def _repr_html_(self) -> str:
        return self.markup


def show(figure: Figure, *, name: str, alt: str, caption: str) -> Html:
    """The figure with its caption, as inline SVG.

    Parameters
    ----------
    figure
        drawn on axes from `companion.plotting.style.subplots`.
    name
        anchor on the page (`fig-NAME`), unique within the book: letters, digits and hyphens.
    alt
        what a reader who cannot see the figure should know of it.
    caption
        what to see in it; plain text, with computed numbers.

    Examples
    --------
    >>> from companion.plotting import subplots
    >>> show(subplots()[0], name="empty", alt="Empty axes.", caption="Nothing yet.").markup[:33]
    '<figure class="companion-figure" '
    """
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"figure name {name!r}: lower-case letters, digits and hyphens only")
    return Html(
        f'<figure class="companion-figure" id="fig-{name}">'
        f'<div class="companion-figure-scroll" tabindex="0" role="group" aria-label="figure, scrolls sideways">'
        f"{_svg(figure, name, alt)}</div><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def show_table(
    table: pd.DataFrame,
    *,
    caption: str,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Html:
    """A table without its index, in a container that scrolls sideways on a narrow page.

    Parameters
    ----------
    table
        rows to show; numbers are right-aligned, and a column named `verdict` becomes badges.
    caption
        what to see in it.
    formats
        by column: a format string such as `"{:.3f}"`, or a function to text.
    labels
        by column: its heading, with the unit.

    Examples
    --------
    >>> table = pd.DataFrame({"num_params": [1.3e9]})
    >>> "1.30" in show_table(table, caption="N in billions.", formats={"num_params": lambda n: f"{n / 1e9:.2f}"}).markup
    True
    """
    formats, labels = formats or {}, labels or {}
    if unknown := (set(formats) | set(labels)) - set(table.columns):
        raise ValueError(f"table: no column {', '.join(sorted(map(str, unknown)))}")
    head = "".join(f'<th scope="col">{html.escape(str(labels.get(c, c)))}</th>' for c in table.columns)
    numeric = {c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])}
    body = "".join(
        "<tr>" + "".join(_cell(c, value, formats.get(str(c)), c in numeric) for c, value in row.items()) + "</tr>"
        for row in table.to_dict("records")
    )
    text = html.escape(caption)
    # the caption stands outside of what scrolls: on a phone it wraps instead of running along the table
    return Html(
        f'<div class="companion-table-block"><p class="companion-caption">{text}</p>'
        f'<div class="companion-table" tabindex="0" role="region" aria-label="{text}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _cell(column: Any, value: Any, style: str | Callable[[Any], str] | None, numeric: bool) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        text = "–"
    elif style is None:
        text = str(value)
    else:
        text = style.format(value) if isinstance(style, str) else style(value)
    text = html.escape(text)
    if column == "verdict":
        text = f'<span class="companion-verdict companion-verdict-{str(value).replace(" ", "-")}">{text}</span>'
    if numeric:
        return f'<td class="number">{text}</td>'
    # a sentence in a cell breaks into lines; names and numbers do not
    return f'<td class="wrap">{text}</td>' if len(text) > SENTENCE and column != "verdict" else f"<td>{text}</td>"


def _svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as one `<svg>` element whose ids start with its name and whose ink is the page's."""
    buffer = io.StringIO()
    with mpl.rc_context({key: RC_PARAMS[key] for key in ("svg.fonttype", "svg.hashsalt", "savefig.facecolor")}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # several figures share a page: their ids must not meet
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = text.replace("*{stroke-", f"#fig-{name} *{{stroke-")  # matplotlib's rule would reach the whole page
    text = text.replace(INK, "currentColor").replace(MUTED, "var(--companion-grid, #8884)")
    width = figure.get_figwidth() * 96
    label = html.escape(alt, quote=True)
    size = f"width:100%;max-width:{width:.0f}px;min-width:{min(width, 520):.0f}px"
    opening = f'<svg role="img" aria-label="{label}" style="{size}"'
    text = re.sub(r'^<svg([^>]*?)\swidth="[^"]*"', r"<svg\1", text)
    text = re.sub(r'^<svg([^>]*?)\sheight="[^"]*"', r"<svg\1", text)
    return re.sub(r"\n\s*", "\n", text.replace("<svg", opening, 1)).strip()
