"""Small explorers for chapters: one or two sliders, a few numbers and one plot, behind the formula that they show.

Data, functions and scripts are those of the explorer's own page. Without scripts, in print and in a notebook a table
of some settings stands in their place.
"""

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from companion.explorer import CONTROLS, Explorer, Setting, link_value, training_model
from companion.formatting import level_text, together
from companion.hardware import get_hardware
from companion.plotting.embed import Html, show_table
from companion.plotting.explorer_page import FORMATS, SIGNS, SYMBOLS, Row, cell_text, data_script, scripts, slider
from companion.plotting.style import architecture_look

_SCRIPTS = ("explorer_format.js", "explorer_counts.js", "explorer_hours.js", "explorer_model.js", "explorer_widget.js")
_CONTROLS = {control.name: control for control in CONTROLS}


@dataclass(frozen=True, kw_only=True)
class Widget:
    """A small explorer: what it is called, its sliders (the first is the plot's axis), its numbers, what is plotted.

    `spoken` are the numbers that a screen reader says after a change, `still` the values of the first slider in the
    table without scripts, `opening` values of the setting that it opens with.
    """

    title: str
    controls: tuple[str, str]
    rows: tuple[Row, ...]
    plotted: str
    spoken: tuple[str, ...]
    still: tuple[float, ...]
    opening: Mapping[str, Any] = field(default_factory=dict)


_BEST_SIZE = Row("optimal_num_params", "best size N*", "count", "optimum")
_BEST_TOKENS = Row("optimal_num_tokens", "training tokens D*", "count", "optimum")
_BEST_LOSS = Row("optimal_loss", "loss (nats/token)", "loss", "optimum")
_HOURS = "train_gpu_hours"

WIDGETS: dict[str, Widget] = {
    "context": Widget(
        title="The compute-optimal model at a context length",
        controls=("context_length", "train_flops"),
        rows=(
            _BEST_SIZE,
            _BEST_TOKENS,
            Row("optimal_flops_per_token", "training FLOP per token", "flops", "optimum"),
            _BEST_LOSS,
        ),
        plotted="optimal_num_params",
        spoken=("optimal_num_params", "optimal_num_tokens"),
        still=(2048, 8192, 32768, 131072),
        opening={"tokens_per_param": None},
    ),
    "ratio": Widget(
        title="A model at M tokens per parameter",
        controls=("tokens_per_param", "train_flops"),
        rows=(
            Row("num_params", "size N", "count", "loss"),
            Row("loss", "loss (nats/token)", "loss", "loss"),
            Row("excess_loss", "loss above the optimum", "loss", "loss"),
            _BEST_SIZE,
            Row("optimal_tokens_per_param", "best M*", "ratio", "optimum"),
        ),
        plotted="loss",
        spoken=("num_params", "excess_loss"),
        still=(22, 110, 550, 2200),
        opening={"tokens_per_param": 220.0},
    ),
    "budget": Widget(
        title="The compute-optimal model for a budget",
        controls=("train_flops", "context_length"),
        rows=(
            _BEST_SIZE,
            _BEST_TOKENS,
            Row("optimal_tokens_per_param", "tokens per parameter M*", "ratio", "optimum"),
            _BEST_LOSS,
            Row(_HOURS, "GPU-hours of training", "count", "utilization"),
        ),
        plotted="optimal_loss",
        spoken=("optimal_num_params", "optimal_loss"),
        still=(1e19, 1e20, 1e21, 1e22, 1e23),
        opening={"tokens_per_param": None},
    ),
}


def explorer_widget(name: str, explorer: Explorer, static: str = "../_static", **opening: float | None) -> Html:
    """A small explorer.

    Parameters
    ----------
    name
        of `WIDGETS`; unique on a page.
    explorer
        what is known.
    static
        folder of the scripts, relative to the page.
    opening
        fields of a `Setting` to open with, moved to the nearest step of their sliders; None leaves the explorer's own.

    Examples
    --------
    >>> explorer_widget("context", Explorer.of(num_resamples=2)).markup[:42]
    '<section class="companion-widget" id="expl'
    """
    widget = WIDGETS[name]
    setting = _opening(widget, explorer.default, opening)
    look = architecture_look(explorer.known)
    identity = f"explorer-{name}"
    drawn = next(row for row in widget.rows if row.key == widget.plotted)
    timed = any(row.key == _HOURS for row in widget.rows)
    data = training_model(explorer, setting, widget.controls, gpu_hours=timed) | {
        "look": {
            key: {"label": entry["label"], "color": entry["color"], "symbol": SYMBOLS[entry["marker"]]}
            for key, entry in look.items()
        },
        "rows": [vars(row) for row in widget.rows],
        "spoken": widget.spoken,
        "plotted": widget.plotted,
        "axis": widget.controls[0],
        "link": {c.key: link_value(getattr(setting, c.name)) for c in CONTROLS} | {"hardware": setting.hardware},
    }
    caption = f"{_capital(drawn.label)} over {_CONTROLS[widget.controls[0]].label}; dashed: outside of the data"
    sliders = "".join(slider(_CONTROLS[key], getattr(setting, key), page=identity) for key in widget.controls)
    device = html.escape(get_hardware(setting.hardware).label)
    source = f'GPU-hours: {device}, utilization of <a href="11_training_cost.html">training logs</a>. '
    return Html(
        f'<section class="companion-widget" id="{identity}" aria-label="{widget.title}">'
        '<div class="companion-widget-live" hidden>'
        f'<form class="companion-explorer-controls" aria-label="Setting" autocomplete="off">{sliders}</form>'
        f'<div class="companion-widget-shown">{_numbers(widget, look)}'
        f'<figure class="companion-widget-plot"><figcaption>{caption}</figcaption>'
        f'<div class="companion-widget-drawing" role="img" aria-label="{caption}. The table has the numbers."></div>'
        "</figure></div>"
        f'<p class="companion-widget-more">{_level(explorer)} intervals below the numbers. {source if timed else ""}'
        '<a class="companion-widget-link" href="91_explorer.html">The full explorer</a> opens at the same setting.</p>'
        '<p class="companion-explorer-live" aria-live="polite"></p></div>'
        f"{still_table(widget, explorer, setting)}{data_script(f'{identity}-model', data)}</section>"
        f"{scripts(static, _SCRIPTS)}"
    )


def still_table(widget: Widget, explorer: Explorer, setting: Setting) -> str:
    """The numbers at some values of the first slider, as a table without scripts."""
    axis, other = (_CONTROLS[name] for name in widget.controls)
    rows = [
        {axis.name: axis.text(value), "architecture": entry["label"]} | _cells(widget, result[name])
        for value in widget.still
        for result in [explorer.evaluate(replace(setting, **{axis.name: type(getattr(setting, axis.name))(value)}))]
        for name, entry in architecture_look(explorer.known).items()
    ]
    labels = {axis.name: axis.label} | {row.key: row.label for row in widget.rows}
    caption = f"{widget.title}: {other.label} is {other.text(getattr(setting, other.name))}; {_level(explorer)} "
    caption += "intervals in brackets; data: whether inside of their range."
    markup = show_table(pd.DataFrame(rows), caption=caption, labels=labels).markup
    # one more class: pages number no table that a screen hides
    opening = 'class="companion-table-block'
    return markup.replace(opening, f"{opening} companion-widget-still", 1)


def _cells(widget: Widget, result: Mapping[str, Any]) -> dict[str, str]:
    cells = {}
    for row in widget.rows:
        text, bounds = cell_text(row, result), result["intervals"].get(row.key)
        cells[row.key] = f"{text} [{', '.join(map(FORMATS[row.format], bounds))}]" if bounds else text
    left = any(row.extrapolated(result) for row in widget.rows)
    return cells | {"data": "outside" if left else "inside"}


def _opening(widget: Widget, default: Setting, opening: Mapping[str, float | None]) -> Setting:
    found: dict[str, Any] = asdict(default) | dict(widget.opening)
    for name, value in opening.items():
        if value is not None:
            found[name] = type(found[name])(_CONTROLS[name].nearest(value))
    return Setting(**found)


def _numbers(widget: Widget, look: Mapping[str, Mapping[str, Any]]) -> str:
    """The table that the script fills."""
    head = "".join(
        f'<th scope="col"><span style="color:{entry["color"]}" aria-hidden="true">{SIGNS[entry["marker"]]}</span> '
        f"{html.escape(entry['label'])}</th>"
        for entry in look.values()
    )
    cell = '<td data-key="{}" data-architecture="{}"><b></b><small></small><small></small></td>'
    body = "".join(
        f'<tr><th scope="row">{row.label}</th>{"".join(cell.format(row.key, name) for name in look)}</tr>'
        for row in widget.rows
    )
    return (
        f'<table class="companion-widget-numbers"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _level(explorer: Explorer) -> str:
    return together(level_text(explorer.level))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
