"""Figures and tables as HTML that the book's pages and a live notebook show alike.

A figure becomes inline SVG: sharp at any size, its ink the page's text color, so it reads on a light and on a dark
page. Captions are computed strings.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.formatting import page_text, true_minus
from companion.plotting.svg import narrow_svg, wide_svg

#: Text cells longer than this (characters) are sentences: they get a least width.
SENTENCE = 40

_NUMBER = ' class="number"'
_PLAIN = re.compile(r"[-−+]?[\d,]+(\.\d+)?")
#: Spaces at which a value must not break: inside brackets, before a unit sign, in "3 of 5".
_TOGETHER = re.compile(r"(?<=[\[(,])\s|(?<=±)\s|(?<=\d)\s(?=of\s\d)|(?<=\d\sof)\s(?=\d)|(?<=\d,)\s(?=[^\[]*\])")
_DIGIT_SPACE, _POINT_SPACE, _NO_BREAK = "\u2007", "\u2008", "\u00a0"


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
    _check_name("figure", name)
    text = html.escape(page_text(caption))
    return Html(
        f'<figure class="companion-figure" id="fig-{name}">{wide_svg(figure, name, page_text(alt))}'
        f"{narrow_svg(figure, name, page_text(alt))}<figcaption>{text}</figcaption></figure>"
    )


def show_table(
    table: pd.DataFrame,
    *,
    caption: str,
    name: str | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Html:
    """A table without its index; on a narrow page its rows become cards, where it does not fit otherwise.

    Decimals of a numeric column line up. In a cell such as `0.578 [0.554, 0.601]` the interval may stand below the
    value, so that the table stays narrow.

    Parameters
    ----------
    table
        rows to show; numbers are right-aligned, and a column named `verdict` becomes badges.
    caption
        what to see in it.
    name
        anchor on the page (`tbl-NAME`), unique within the book, for a table that the text refers to.
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
    if name is not None:
        _check_name("table", name)
    numeric = [pd.api.types.is_numeric_dtype(table[c]) for c in table.columns]
    head = "".join(
        _heading(shown(str(labels.get(c, c))), number) for c, number in zip(table.columns, numeric, strict=True)
    )
    columns = [
        _cells(str(c), list(table[c]), formats.get(str(c)), number)
        for c, number in zip(table.columns, numeric, strict=True)
    ]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    text = html.escape(page_text(caption))
    anchor = "" if name is None else f' id="tbl-{name}"'
    # the caption stands outside of what scrolls: on a phone it wraps instead of running along the table
    return Html(
        f'<div class="companion-table-block"{anchor}><p class="companion-caption">{text}</p>'
        f'<div class="companion-table" tabindex="0" role="region" aria-label="{text}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _heading(text: str, number: bool) -> str:
    # a heading without words is none to a screen reader
    return f'<th scope="col"{_NUMBER if number else ""}>{text}</th>' if text.strip() else "<td></td>"


def _cells(column: str, values: Sequence[Any], style: str | Callable[[Any], str] | None, number: bool) -> list[str]:
    """The cells of a column as HTML."""
    texts = [shown(_text(value, style)) for value in values]
    if column == "verdict":
        names = [str(value).replace(" ", "-") for value in values]
        return [
            f'<td><span class="companion-verdict companion-verdict-{name}">{text}</span></td>'
            for name, text in zip(names, texts, strict=True)
        ]
    if number:
        return [f"<td{_NUMBER}>{text}</td>" for text in _aligned(texts)]
    texts = [_TOGETHER.sub(_NO_BREAK, text) for text in texts]
    return [f'<td class="wrap">{text}</td>' if _is_sentence(text) else f"<td>{text}</td>" for text in texts]


#: Places at which a long name may break: behind an underscore, a slash or a point between parts of some letters.
_SEAM = re.compile(r"(?<=\w\w\w)_(?=[^\W_]{3})|(?<=\w\w\w)/(?=\w{3})|(?<=[^\W\d]{3})\.(?=[^\W\d]{2})")
_CHECKSUM = re.compile(r"\b[0-9a-f]{40,64}\b")


def breakable(text: str) -> str:
    """Escaped text in which long names may break between their parts, checksums after every eighth digit.

    >>> breakable("num_params, d_qk, 0.125, a.b, nats/token")
    'num_<wbr/>params, d_qk, 0.125, a.b, nats/<wbr/>token'
    """
    text = _SEAM.sub(r"\g<0><wbr/>", text)
    return _CHECKSUM.sub(lambda found: "<wbr/>".join(re.findall(".{1,8}", found[0])), text)


def _is_sentence(text: str) -> bool:
    return len(text.replace("<wbr/>", "")) > SENTENCE


def shown(text: str) -> str:
    """Plain text as HTML: escaped, typeset as on a page, with long names that can break."""
    return breakable(html.escape(page_text(text)))


def _text(value: Any, style: str | Callable[[Any], str] | None) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if style is None:
        return true_minus(str(value))
    return true_minus(style.format(value) if isinstance(style, str) else style(value))


def _aligned(texts: Sequence[str]) -> list[str]:
    """Numbers filled up on the right with spaces as wide as a digit, so that their decimal points line up."""
    places = [len(text.partition(".")[2]) if _PLAIN.fullmatch(text) else None for text in texts]
    most = max((n for n in places if n), default=0)
    return [
        text if n is None else text + ("" if n or not most else _POINT_SPACE) + _DIGIT_SPACE * (most - n)
        for text, n in zip(texts, places, strict=True)
    ]


def _check_name(what: str, name: str) -> None:
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"{what} name {name!r}: lower-case letters, digits and hyphens only")
