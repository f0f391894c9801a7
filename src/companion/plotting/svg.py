"""A figure as SVG text for a page: wide as drawn, and narrow for a phone with its panels below each other.

Both are small: ids that nothing refers to are gone, coordinates have two decimals, and text stays text, in the font
that the layout was made with.
"""

import contextlib
import html
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine, LayoutEngine
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import Bbox

from companion.formatting import typographic
from companion.plotting.style import FONT, INK, MUTED, RC_PARAMS

#: Width of the narrow form, and least height of a panel in it (inches). A phone of 390 px shows it at its own size.
NARROW_WIDTH, NARROW_PANEL = 3.7, 2.5
#: Room above and below a panel of the narrow form (inches).
_PANEL_PAD = 0.09
#: Below this width of its column (CSS pixels) a page shows the narrow form: `companion.css` says the same.
NARROW_BELOW = 640
_MARKERS = re.compile(r'<use [^>]*? style="([^"]*)"/>\n(?:<use [^>]*? style="\1"/>\n)+')
_SAVED: tuple[Literal["svg.fonttype", "svg.hashsalt"], ...] = ("svg.fonttype", "svg.hashsalt")


def wide_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as one `<svg>` as it was drawn; its ids start with `name`, its ink is the page's text color."""
    width = figure.get_figwidth() * 96
    return _svg(figure, name, label, f"width:100%;max-width:{width:.0f}px;min-width:{min(width, 520):.0f}px", "wide")


def narrow_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as one `<svg>` for a narrow column: panels below each other, legends and titles broken into lines.

    It is hidden unless the page's style shows it. The figure itself is as before afterwards.
    """
    with _stacked(figure):
        return _svg(figure, f"{name}-n", label, "display:none;width:100%;max-width:30rem", "narrow")


def _svg(figure: Figure, name: str, label: str, style: str, form: str) -> str:
    text = _drawn(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # it would reach the whole page
    # several figures share a page: their ids must not meet
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    ids = {old: f"{name}-{number}" for number, old in enumerate(used)}
    text = re.sub(r'\sid="([^"]+)"', lambda found: f' id="{ids[found[1]]}"' if found[1] in ids else "", text)
    text = re.sub(r'xlink:href="#([^"]+)"', lambda found: f'href="#{ids[found[1]]}"', text)
    text = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", text)
    text = re.sub(r"font-family: [^;\"]*;\s?", "", text)
    text = re.sub(r'\stransform="rotate\(-0 [^"]*\)"', "", text)
    # coordinates only: a label such as "a = 0.001" keeps its digits
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _short, tag[0]), text)
    text = re.sub(r"(?<=>)[^<>]+(?=</)", lambda words: typographic(words[0]), text)
    text = text.replace(INK, "currentColor").replace(MUTED, "var(--companion-grid, #8884)")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib's svg has a viewBox"
    opening = (
        f'<svg role="img" class="companion-figure-{form}" aria-label="{html.escape(label, quote=True)}" {box[0]} '
        f'xmlns="http://www.w3.org/2000/svg" font-family="\'{FONT}\', sans-serif" stroke-linejoin="round" '
        f'style="{style}">'
    )
    text = re.sub(r"^<svg[^>]*>", opening, text)
    return _MARKERS.sub(_share_style, re.sub(r"\s*\n\s*", "\n", text)).strip()


def _drawn(figure: Figure) -> str:
    """The figure as matplotlib writes it. `Figure.savefig` would lay out and draw it twice."""
    buffer, canvas, ground = io.StringIO(), figure.canvas, figure.get_facecolor()
    figure.set_facecolor("none")
    try:
        with mpl.rc_context({key: RC_PARAMS[key] for key in _SAVED}):
            FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    finally:
        figure.set_facecolor(ground)
        figure.set_canvas(canvas)
    return buffer.getvalue()


def _share_style(run: re.Match[str]) -> str:
    """Markers in a row that look alike say so once."""
    return f'<g style="{run[1]}">\n' + re.sub(r' style="[^"]*"', "", run[0]) + "</g>\n"


def _short(number: re.Match[str]) -> str:
    return (
        f"{float(number[0]):.2f}".rstrip("0").rstrip(".").replace("-0", "-0" if float(number[0]) < -0.005 else "0", 1)
    )


@contextlib.contextmanager
def _stacked(figure: Figure) -> Iterator[None]:
    """The figure laid out for a narrow column while the block runs."""
    undo: list[Callable[[], object]] = []
    size = figure.get_size_inches().copy()
    undo.append(lambda: figure.set_size_inches(*size))
    try:
        count, panel = _stack_panels(figure, undo)
        figure.set_size_inches(NARROW_WIDTH, count * max(panel, NARROW_PANEL))
        for ax in figure.axes:
            _break_titles(ax, undo)
        rows = sum(_fold_legend(figure, legend, undo) for legend in list(figure.legends))
        figure.set_size_inches(NARROW_WIDTH, figure.get_figheight() + 0.2 * rows)
        if (engine := figure.get_layout_engine()) is not None:
            _part_panels(engine, undo)
            engine.execute(figure)  # where the tick labels stand: no drawing is needed for that
        for ax in figure.axes:
            _thin_ticks(ax, undo)
        yield
    finally:
        for step in reversed(undo):
            step()


def _stack_panels(figure: Figure, undo: list[Callable[[], object]]) -> tuple[int, float]:
    """Put the panels of a grid below each other, each with its own labels; their number and the height of one."""
    cells: dict[tuple[int, int], list[Axes]] = {}
    for ax in figure.axes:
        if (place := ax.get_subplotspec()) is not None:
            cells.setdefault((place.rowspan.start, place.colspan.start), []).append(ax)
    rows = len({row for row, _ in cells}) or 1
    panel = figure.get_figheight() / rows
    if len({column for _, column in cells}) < 2:
        return rows, panel
    grid = GridSpec(len(cells), 1, figure=figure)
    for index, (row, column) in enumerate(sorted(cells)):
        for ax in cells[row, column]:
            place = ax.get_subplotspec()
            undo.append(lambda ax=ax, place=place: ax.set_subplotspec(place))  # type: ignore[misc]
            ax.set_subplotspec(grid[index])
            _label_alone(ax, [a for (r, _), found in cells.items() if r == row for a in found], "y", undo)
            above = [a for (_, c), found in cells.items() if c == column for a in found]
            _label_alone(ax, above, "x", undo)
            if ax is cells[row, column][0]:  # a twin axis has none
                _title_alone(ax, above, undo)
    return len(cells), panel


def _part_panels(engine: LayoutEngine, undo: list[Callable[[], object]]) -> None:
    """Keep a panel's title off the axis label of the panel above it."""
    if isinstance(engine, ConstrainedLayoutEngine):
        before = engine.get()["h_pad"]
        undo.append(lambda: engine.set(h_pad=before))
        engine.set(h_pad=_PANEL_PAD)


def _title_alone(ax: Axes, mates: list[Axes], undo: list[Callable[[], object]]) -> None:
    """Give a panel the title that stood above its column."""
    if not ax.get_title() and ax.get_visible():
        undo.append(lambda: ax.set_title(""))
        ax.set_title(next((title for mate in mates if (title := mate.get_title())), ""))


def _label_alone(ax: Axes, mates: list[Axes], which: Literal["x", "y"], undo: list[Callable[[], object]]) -> None:
    """Give a panel the tick labels and the axis label that it shared with others of its row or column."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    side = "labelbottom" if which == "x" else "labelleft"
    if not axis.get_visible() or axis.get_label_position() in {"right", "top"}:
        return
    ticks = axis.get_tick_params(which="major")
    if not ticks.get(side, True) and len(axis.get_major_locator()()):
        undo.append(lambda: ax.tick_params(axis=which, **{side: False}))
        ax.tick_params(axis=which, **{side: True})
    if not axis.label.get_text() or not axis.label.get_visible():
        others = [(m.xaxis if which == "x" else m.yaxis).label.get_text() for m in mates]
        old, visible = axis.label.get_text(), axis.label.get_visible()
        undo.append(lambda: axis.label.set(text=old, visible=visible))
        axis.label.set_text(next((text for text in others if text), ""))
        axis.label.set_visible(True)


def _break_titles(ax: Axes, undo: list[Callable[[], object]]) -> None:
    """Break a panel's title and axis labels into lines that fit (half an em a character, on average)."""
    height = ax.get_window_extent().height / ax.figure.dpi
    long = (
        (ax.title, NARROW_WIDTH - 0.5),
        (ax.xaxis.label, NARROW_WIDTH - 0.6),
        (ax.yaxis.label, max(height, NARROW_PANEL - 0.5)),
    )
    for text, inches in long:
        old = text.get_text()
        room = int(inches * 72 / (0.53 * float(text.get_fontsize())))
        if len(old) > room and "$" not in old:
            undo.append(lambda text=text, old=old: text.set_text(old))  # type: ignore[misc]
            text.set_text("\n".join(textwrap.wrap(old.replace("\n", " "), room)))


def _fold_legend(figure: Figure, legend: Legend, undo: list[Callable[[], object]]) -> int:
    """Put a figure's legend again below it, in as many columns as fit; the number of rows that it grew by."""
    texts, columns = [text.get_text() for text in legend.get_texts()], int(vars(legend)["_ncols"])
    before, places = -(-len(texts) // columns), list(figure.legends)
    undo.append(lambda: figure.legends.__setitem__(slice(None), places))
    look: dict[str, Any] = {key: getattr(legend, key) for key in ("columnspacing", "handlelength", "handletextpad")}
    look["title"] = legend.get_title().get_text() or None
    for number in range(min(columns, len(texts)) or 1, 0, -1):
        figure.legends.remove(legend)
        handles = [handle for handle in legend.legend_handles if handle is not None]
        legend = figure.legend(handles, texts, loc="outside lower center", ncols=number, **look)
        if legend.get_window_extent().width <= figure.bbox.width:
            break
    return -(-len(texts) // number) - before


def _thin_ticks(ax: Axes, undo: list[Callable[[], object]]) -> None:
    """Hide tick labels of the x axis that would run into others; names of categories are turned instead."""
    major, minor = (
        sorted(
            (
                (tick.label1, tick.label1.get_window_extent())
                for tick in ticks
                if tick.label1.get_visible() and tick.label1.get_text() and tick.label1.get_window_extent().width > 0
            ),
            key=lambda pair: pair[1].x0,
        )
        for ticks in (ax.xaxis.get_major_ticks(), ax.xaxis.get_minor_ticks())
    )
    shown: list[Bbox] = []
    crowded = []
    for label, box in [*major, *minor]:  # a label of a minor tick gives way to any other
        if any(box.x0 < other.x1 + 3 and other.x0 < box.x1 + 3 for other in shown):
            crowded.append(label)
        else:
            shown.append(box)
    if crowded and isinstance(ax.xaxis.get_major_locator(), FixedLocator):
        for label, _ in major:
            look = [label.get_rotation(), label.get_horizontalalignment(), label.get_rotation_mode()]
            undo.append(lambda label=label, look=look: _turn(label, *look))  # type: ignore[misc]
            _turn(label, 40, "right", "anchor")
        return
    for label in crowded:
        undo.append(lambda label=label: label.set_visible(True))  # type: ignore[misc]
        label.set_visible(False)


def _turn(label: Text, angle: float, alignment: Any, mode: Any) -> None:
    label.set(rotation=angle, horizontalalignment=alignment, rotation_mode=mode)
