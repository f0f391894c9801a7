"""The explorer as HTML: controls, places for the plots, a table with the opening numbers, and data for the scripts.

The page works from a file: scripts and plotly lie in its `_static`. Without scripts the table still holds the numbers
of the opening setting.
"""

import html
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from companion.explorer import CONTROLS, Control, Explorer, Setting
from companion.formatting import count, level_text, percent, power_of_ten, significant, together
from companion.hardware import known_hardware
from companion.plotting.embed import Html
from companion.plotting.style import architecture_look

#: matplotlib's marker symbols in plotly's words.
SYMBOLS = {"s": "square", "o": "circle", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"}
#: The same as text.
SIGNS = {"s": "■", "o": "●", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
_SCRIPTS = (
    "explorer_format.js",
    "explorer_counts.js",
    "explorer_hours.js",
    "explorer_model.js",
    "explorer_plots.js",
    "explorer.js",
    "plotly/plotly.min.js",
)


def duration(seconds: float) -> str:
    """Milliseconds below a second, hours from one on: 8.31 ms, 2.50 s, 1.20 h."""
    if seconds < 0.9995:  # from there on three digits say 1.00 s
        return f"{significant(1e3 * seconds)} ms"
    return f"{significant(seconds)} s" if seconds < 3600 else f"{significant(seconds / 3600)} h"


def gibibytes(size: float) -> str:
    """Bytes in GiB: 26.6 GiB."""
    return f"{significant(size / 2**30)} GiB"


def between(low: str, high: str) -> str:
    """An interval in words, a shared unit said once: 21.3 to 31.0 ms."""
    number, _, unit = low.partition(" ")
    return f"{number if unit and high.endswith(f' {unit}') else low} to {high}"


#: How a number of the table is written; the script has the same functions by the same names.
FORMATS: dict[str, Callable[[float], str]] = {
    "count": count,
    "loss": "{:.3f}".format,
    "ratio": significant,
    "share": percent,
    "duration": duration,
    "flops": lambda value: power_of_ten(value, 3),
    "bytes": gibibytes,
}


@dataclass(frozen=True)
class Row:
    """A row of the table: key of the number, label, format, and the data that it is compared with.

    `of` has what `outside` may say of the number, words separated by a space.
    """

    key: str
    label: str
    format: str
    of: str = ""

    def extrapolated(self, result: Mapping[str, Any]) -> bool:
        """Whether the number of a result of `Explorer.evaluate` lies outside of its data."""
        return any(each["of"] in self.of.split() for each in result["outside"])


#: By the title of a part of the table; `{first}` stands for the first architecture.
ROWS: dict[str, tuple[Row, ...]] = {
    "The model: budget C at M tokens per parameter": (
        Row("num_params", "parameters N", "count"),
        Row("num_tokens", "training tokens D", "count"),
        Row("tokens_per_param", "tokens per parameter M", "ratio"),
        Row("loss", "loss (nats/token)", "loss", "loss"),
        Row("excess_loss", "… above the optimum", "loss", "loss"),
        Row("utilization", "utilization in training", "share", "utilization"),
        Row("train_gpu_hours", "GPU-hours of training", "count", "utilization"),
    ),
    "Serving this model": (
        Row("ttft_s", "time to first token", "duration", "ttft"),
        Row("ttft_roofline_s", "… at least (roofline)", "duration"),
        Row("step_time_s", "step time", "duration", "step_time"),
        Row("step_time_roofline_s", "… at least (roofline)", "duration"),
        Row("memory_bytes", "memory held", "bytes"),
        Row("weight_bytes", "… weights", "bytes"),
        Row("cache_bytes", "… cache or state", "bytes"),
    ),
    "The compute-optimal model at the same budget": (
        Row("optimal_num_params", "parameters N*", "count", "optimum"),
        Row("optimal_num_tokens", "training tokens D*", "count", "optimum"),
        Row("optimal_tokens_per_param", "tokens per parameter M*", "ratio", "optimum"),
        Row("optimal_flops_per_token", "training FLOP per token", "flops", "optimum"),
        Row("optimal_loss", "loss (nats/token)", "loss", "optimum"),
    ),
    "The cheapest training that reaches the loss of the {first} above": (
        Row("target_loss", "loss to reach (nats/token)", "loss"),
        Row("target_num_params", "parameters N", "count", "target"),
        Row("target_train_flops", "training compute C (FLOP)", "flops", "target"),
        Row("target_gpu_hours", "GPU-hours of training", "count", "target target_logs"),
        Row("target_gpu_hours_ratio", "… over those of the {first}", "ratio", "ratio"),
    ),
}

#: Rows of the table of architectures that can only be counted.
COUNT_ROWS: tuple[Row, ...] = (
    Row("num_params", "parameters N", "count"),
    Row("num_tokens", "training tokens D", "count"),
    Row("ttft_roofline_s", "time to first token, at least (roofline)", "duration"),
    Row("step_time_roofline_s", "step time, at least (roofline)", "duration"),
    Row("memory_bytes", "memory held", "bytes"),
    Row("weight_bytes", "… weights", "bytes"),
    Row("cache_bytes", "… cache or state", "bytes"),
)

#: Plots: name and caption.
PLOTS = {
    "loss": "Loss over model size at this budget",
    "hours": "Best loss over GPU-hours of training",
    "ttft": "Time to first token over the prompt",
    "step": "Step time over the context",
    "memory": "Memory over the context",
}


def explorer_page(explorer: Explorer, static: str = "../_static") -> Html:
    """Everything of the explorer: controls, plots, table, data, scripts.

    Parameters
    ----------
    explorer
        what is known, and the setting to open with.
    static
        folder of the scripts, relative to the page.
    """
    names = list(explorer.known)
    look = architecture_look(names)
    data = explorer.model() | {
        "look": {
            name: {"label": entry["label"], "color": entry["color"], "symbol": SYMBOLS[entry["marker"]]}
            for name, entry in look.items()
        },
        "rows": [{"key": row.key, "format": row.format, "of": row.of} for rows in ROWS.values() for row in rows],
        "count_rows": [vars(row) for row in COUNT_ROWS],
    }
    signs = " ".join(
        f'<span><span style="color:{entry["color"]}" aria-hidden="true">{SIGNS[entry["marker"]]}</span> '
        f"{html.escape(entry['label'])}</span>"
        for entry in look.values()
    )
    logged = any(knowledge.utilization for knowledge in explorer.known.values())
    plots = "".join(_plot(name, caption) for name, caption in PLOTS.items() if name != "hours" or logged)
    return Html(
        '<section class="companion-explorer" id="explorer" aria-label="Explorer" tabindex="-1">'
        f"{_form(explorer.default)}"
        '<p class="companion-explorer-problem" role="status" hidden></p>'
        f'<p class="companion-explorer-legend">{signs} <span>filled: the model</span> <span>open: the optimum</span> '
        "<span>dashed: outside of the data</span></p>"
        f'<div class="companion-explorer-plots">{plots}</div>'
        '<div class="companion-explorer-notes"></div>'
        f"{_table(explorer, {name: entry['label'] for name, entry in look.items()})}"
        f"{_count_table(explorer)}"
        '<p class="companion-explorer-live" aria-live="polite"></p>'
        "<noscript><p>The controls and plots need JavaScript. The table shows the opening setting.</p></noscript>"
        "</section>" + data_script("explorer-model", data) + scripts(static, _SCRIPTS)
    )


def data_script(identity: str, data: Mapping[str, Any]) -> str:
    """An element that holds data for a script of the page."""
    # "</" would end the script element
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return f'<script type="application/json" id="{identity}">{text}</script>'


def scripts(static: str, names: Iterable[str]) -> str:
    """Elements that load scripts of the folder `static`, in this order, once the page is read."""
    return "".join(f'<script defer src="{static}/{name}"></script>' for name in names)


def setting_links(links: Iterable[tuple[Setting, str, str]]) -> Html:
    """A list of settings to look at: setting, words of the link, what to see there.

    The address of a link is set by the script: without it there is nothing to set.
    """
    items = "".join(
        f'<li><a href="#explorer" data-setting="{html.escape(setting.link)}">{html.escape(words)}</a>: '
        f"{html.escape(see)}</li>"
        for setting, words, see in links
    )
    return Html(f'<ul class="companion-explorer-links">{items}</ul>')


def _form(setting: Setting) -> str:
    optimal = (
        '<label class="companion-explorer-check" for="explorer-optimal">'
        f'<input type="checkbox" id="explorer-optimal"{" checked" if setting.tokens_per_param is None else ""}> '
        "compute-optimal M</label>"
    )
    more = {"tokens_per_param": optimal}
    sliders = "".join(
        slider(control, getattr(setting, control.name), more=more.get(control.name, "")) for control in CONTROLS
    )
    options = "".join(
        f'<option value="{entry.name}"{" selected" if entry.name == setting.hardware else ""}>'
        f"{html.escape(entry.label)}</option>"
        for entry in known_hardware().values()
    )
    return (
        f'<form class="companion-explorer-controls" aria-label="Setting" autocomplete="off">{sliders}'
        '<div class="companion-explorer-control"><label for="explorer-hardware">hardware</label>'
        f'<select id="explorer-hardware" name="hardware">{options}</select></div>'
        '<div class="companion-explorer-buttons">'
        '<button type="button" id="explorer-copy">Copy link</button>'
        '<button type="button" id="explorer-reset">Reset</button>'
        '<span id="explorer-copied" role="status"></span></div></form>'
    )


def slider(control: Control, value: float | None, page: str = "explorer", more: str = "") -> str:
    """A labeled slider with the text of its value.

    Parameters
    ----------
    value
        a step of the control; None for the compute-optimal one.
    page
        how the ids begin: `PAGE-KEY`, `PAGE-KEY-value`.
    more
        markup below the slider.
    """
    at = control.steps.index(22.0 if value is None else float(value))
    shown = "compute-optimal" if value is None else control.text(value)
    identity = f"{page}-{control.key}"
    # aria-live off: the slider says its value itself
    return (
        f'<div class="companion-explorer-control"><label for="{identity}">{control.label}</label>'
        f'<output for="{identity}" id="{identity}-value" aria-live="off">{html.escape(shown)}</output>'
        f'<input type="range" id="{identity}" name="{control.key}" min="0" max="{len(control.steps) - 1}" step="1" '
        f'value="{at}" aria-valuetext="{html.escape(shown)}">{more}</div>'
    )


def _plot(name: str, caption: str) -> str:
    return (
        f'<figure class="companion-explorer-plot"><figcaption>{caption}</figcaption>'
        f'<div class="companion-explorer-drawing" id="explorer-plot-{name}" role="img" '
        f'aria-label="{caption}, a line for each architecture. The table has the numbers."></div></figure>'
    )


def _table(explorer: Explorer, labels: dict[str, str]) -> str:
    shown = explorer.evaluate()
    head = "".join(f'<th scope="col" class="number">{html.escape(label)}</th>' for label in labels.values())
    first, body = html.escape(next(iter(labels.values()))), ""
    for title, rows in ROWS.items():
        body += f'<tbody><tr><th scope="rowgroup" colspan="{len(labels) + 1}">{title.format(first=first)}</th></tr>'
        for row in rows:
            cells = "".join(_cell(row, name, result) for name, result in shown.items())
            body += f'<tr><th scope="row">{row.label.format(first=first)}</th>{cells}</tr>'
        body += "</tbody>"
    level = together(level_text(explorer.level))
    caption = f"Numbers of the setting. Below a number: its {level} interval, and a note where it is outside the data."
    return (
        f'<div class="companion-table-block"><p class="companion-caption">{caption}</p>'
        '<div class="companion-table companion-explorer-table" tabindex="0" role="region" '
        'aria-label="Numbers of the setting"><table><thead><tr><th scope="col">quantity</th>'
        f"{head}</tr></thead>{body}</table></div></div>"
    )


def _count_table(explorer: Explorer) -> str:
    """What can be counted of architectures without a law; empty if there are none."""
    if not explorer.counted:
        return ""
    labels = {name: entry["label"] for name, entry in architecture_look(explorer.counted).items()}
    shown = explorer.count()
    head = "".join(f'<th scope="col" class="number">{html.escape(label)}</th>' for label in labels.values())
    body = "".join(
        f'<tr><th scope="row">{row.label}</th>'
        + "".join(
            f'<td class="number" data-count="{row.key}" data-architecture="{name}">'
            f"{FORMATS[row.format](one[row.key])}</td>"
            for name, one in shown.items()
        )
        + "</tr>"
        for row in COUNT_ROWS
    )
    why = (
        "The paper has no loss law and no times of these architectures, so only what can be counted is here: the size "
        "that the budget pays for at M tokens per parameter, memory, and the least times of the hardware."
    )
    return (
        '<details class="companion-explorer-counted"><summary>Other architectures: cost alone</summary>'
        f'<div class="companion-table-block"><p class="companion-caption">{why}</p>'
        '<div class="companion-table companion-explorer-table" tabindex="0" role="region" '
        'aria-label="Other architectures"><table><thead><tr><th scope="col">quantity</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div></div></details>"
    )


def _cell(row: Row, name: str, result: dict[str, Any]) -> str:
    write = FORMATS[row.format]
    bounds = result["intervals"].get(row.key)
    small = between(write(bounds[0]), write(bounds[1])) if bounds else ""
    flag = result["missing"].get(row.key, "extrapolated" if row.extrapolated(result) else "")
    return (
        f'<td class="number" data-key="{row.key}" data-architecture="{name}"><b>{cell_text(row, result)}</b>'
        f"<small>{small}</small><small>{flag}</small></td>"
    )


def cell_text(row: Row, result: Mapping[str, Any]) -> str:
    """A number of a result of `Explorer.evaluate` as the table writes it; a dash where it is missing."""
    value = result["numbers"][row.key]
    return "–" if value is None else FORMATS[row.format](value)
