"""Slides from a built book: for each chapter its question and answer, its figures, and what to take away.

A deck is one html file that needs no network: style and script are in it, and formulas are drawn by a script beside it.
The caption of a figure is the speaker's note. Without scripts, and in print, the slides follow one another.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion.book.notebooks import write
from companion.errors import InputError

GENERATOR = "companion slides"
MATHJAX = "tex-svg-full.js"
_ASSETS = ("slides.css", "slides.js")
_MATHJAX_SETTINGS = (
    '<script>window.MathJax = {options: {enableMenu: false, ignoreHtmlClass: "companion-deck", '
    'processHtmlClass: "math|note"}, svg: {fontCache: "local"}};</script>'
    f'<script defer src="{MATHJAX}"></script>'
)
_PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{generator}">
<title>{title}</title>
<style>
{style}
</style>
{scripts}
</head>
<body class="companion-deck">
<main>
{slides}
</main>
{controls}
</body>
</html>
"""
_CONTROLS = """<nav class="controls" aria-label="Slides" hidden>
<button type="button" data-step="-1">Previous</button>
<span role="status" class="count"></span>
<button type="button" data-step="1">Next</button>
<button type="button" class="notes" aria-pressed="false">Notes</button>
</nav>"""


@dataclass(frozen=True)
class Slide:
    """A slide: its heading as text, its content and the speaker's note as html."""

    heading: str
    content: str
    note: str = ""


def write_slides(built: Path, folder: Path) -> list[Path]:
    """Write a deck for every chapter of a built book that has figures, and a list of them; return the files.

    Parameters
    ----------
    built
        folder of the html, with `chapters/` and `_static/`.
    folder
        of the decks; made if missing. Decks of an earlier call are replaced.

    Raises
    ------
    InputError
        there is no built book, or a file would be replaced that is no deck.
    """
    pages = sorted((built / "chapters").glob("*.html"))
    missing = [name for name in _ASSETS if not (built / "_static" / name).is_file()]
    if not pages or missing:
        raise InputError(f"{built}: no built book there; run `companion book` first, or give its html with --html")
    style, script = ((built / "_static" / name).read_text(encoding="utf-8") for name in _ASSETS)
    texts: dict[Path, str] = {}
    listed = []
    for page in pages:
        slides = slides_of(page.read_text(encoding="utf-8"))
        if any("<figure" in slide.content for slide in slides):
            texts[folder / page.name] = deck(slides, f"{style}\n{_figure_style(page)}", script)
            listed.append(f'<li><a href="{page.name}">{html.escape(slides[0].heading)}</a></li>')
    links = Slide("Slides", f"<ul>{''.join(listed)}</ul>")
    texts[folder / "index.html"] = _page("Slides", style, "", _section(links, 1), "")
    for path in texts:
        if path.exists() and f'content="{GENERATOR}"' not in path.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{path}: not made by `companion slides`, so not replaced; give another --output")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write(path, text)
    mathjax = built / "_static" / "mathjax" / MATHJAX
    if mathjax.is_file():
        write(folder / MATHJAX, mathjax.read_text(encoding="utf-8"))
    return list(texts)


def slides_of(page: str) -> list[Slide]:
    """The slides of a chapter's page: title, one for each figure, what to take away."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "html.parser")
    article: Any = soup.select_one("article.bd-article") or soup.body or soup
    for link in article.select("a.headerlink"):
        link.decompose()
    for link in article.select("a[href]"):
        if not link["href"].startswith(("http:", "https:")):
            link.unwrap()  # a deck has no other pages
    title = article.find("h1")
    if title is None:
        return []
    slides = [Slide(_text(title), "".join(map(str, _opening(title))))]
    for figure in article.select("figure.companion-figure"):
        caption = figure.find("figcaption")
        note = caption.extract().decode_contents() if caption else ""
        for scrolled in figure.select("[tabindex]"):
            del scrolled["tabindex"]
        slides.append(Slide(_heading_of(figure) or slides[0].heading, str(figure), note))
    for heading in article.find_all("h2"):
        if "take away" in heading.get_text():
            kept = [str(node) for node in heading.find_next_siblings(["p", "ul", "ol"])]
            slides.append(Slide(_text(heading), "".join(kept)))
    return slides


def deck(slides: list[Slide], style: str, script: str) -> str:
    """The html of a deck."""
    body = "\n".join(_section(slide, number) for number, slide in enumerate(slides, 1))
    formulas = re.search(r'class="[^"]*\bmath\b|\\\(', body) is not None
    scripts = (_MATHJAX_SETTINGS if formulas else "") + f'<script type="module">\n{script}\n</script>'
    return _page(slides[0].heading, style, scripts, body, _CONTROLS)


def _page(title: str, style: str, scripts: str, slides: str, controls: str) -> str:
    parts = {"title": html.escape(title), "style": style, "scripts": scripts, "slides": slides, "controls": controls}
    return _PAGE.format(generator=GENERATOR, **parts)


def _section(slide: Slide, number: int) -> str:
    level = "h1" if number == 1 else "h2"
    note = f'<aside class="note" aria-label="Note">{slide.note}</aside>' if slide.note else ""
    return (
        f'<section class="slide" id="slide-{number}" tabindex="-1" aria-labelledby="heading-{number}">'
        f'<{level} id="heading-{number}">{html.escape(slide.heading)}</{level}>'
        f'<div class="content">{slide.content}</div>{note}</section>'
    )


def _opening(title: Any) -> Iterator[Any]:
    """What a chapter says between its title and its first cell, section or list of aims: question and answer."""
    for node in title.find_next_siblings(True):
        if node.name not in ("p", "ul", "ol") or node.get_text().strip().startswith("What you will learn"):
            return
        yield node


def _heading_of(node: Any) -> str:
    """The heading of the innermost section around a node, without its number."""
    for section in node.find_parents("section"):
        heading = section.find(["h2", "h3", "h4"], recursive=False)
        if heading is not None:
            return _text(heading)
    return ""


def _text(heading: Any) -> str:
    """A heading in one line; the number of a chapter stays, that of a section is left out."""
    text = " ".join(heading.get_text().split())
    return re.sub(r"^\d+(\.\d+)+\.?\s+", "", text)


def _figure_style(page: Path) -> str:
    """Styles of the page's own sheets that say how figures look."""
    links = re.findall(r'<link[^>]+href="(\.\./_static/[\w.-]+\.css)', page.read_text(encoding="utf-8"))
    sheets = [(page.parent / link).resolve() for link in dict.fromkeys(links)]
    texts = [sheet.read_text(encoding="utf-8") for sheet in sheets if sheet.is_file()]
    return "\n".join(text for text in texts if ".companion-figure" in text)
