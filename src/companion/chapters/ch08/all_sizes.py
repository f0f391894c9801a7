"""Chapter 8: one runtime model for all sizes: its terms, its errors, and what limits a time."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.architectures import preset
from companion.chapters.ch08 import figures
from companion.chapters.ch08.common import NAMES, QUANTITY_NAMES
from companion.formatting import listed, percent, power_of_ten, significant
from companion.hardware import Hardware
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import against_roofline, changes, shares
from companion.inference.timings import COLUMNS, middle_context
from companion.plotting import Html, show
from companion.plotting.embed import show_table
from companion.plotting.style import architecture_label

#: Runtime models by architecture and quantity.
Models = Mapping[tuple[str, str], RuntimeModel]
#: Context (tokens) at which a step is split into its parts.
_AT = 16384
_KIND_WORDS = {"compute": "arithmetic", "memory": "memory", "latency": "attention's latency", "fixed": "overheads"}


def models_table(models: Models, timings: pd.DataFrame, peaks: Hardware) -> Html:
    """How many timings each model is fitted to, how well it fits, and how far the times lie above the roofline."""
    rows = []
    for (name, quantity), model in models.items():
        times = 1e3 * model.rows[COLUMNS[quantity]]
        ratio = against_roofline(timings, name, quantity, peaks).dropna()  # type: ignore[arg-type]
        row = {"architecture": architecture_label(name), "what": QUANTITY_NAMES[quantity], "timings": len(model.rows)}
        row |= {"ms": f"{significant(times.min())} to {significant(times.max())}", "rms": model.rms_log_error}
        rows.append(row | {"over": f"{ratio.median():.2g} ({ratio.min():.2f} to {ratio.max():.2g})"})
    return show_table(
        pd.DataFrame(rows),
        name="inference-models",
        caption="The models of all sizes: the timings behind them, their error (rms of ln(predicted/measured)), and "
        f"the measured times over the roofline of {peaks.label} (median, least to largest).",
        formats={"rms": "{:.3f}"},
        labels={"ms": "times (ms)", "rms": "rms error", "over": "times the roofline"},
    )


def terms_table(models: Models) -> Html:
    """Rates and shares of every term."""
    parts = [
        model.table().assign(architecture=architecture_label(name), quantity=QUANTITY_NAMES[quantity])
        for (name, quantity), model in models.items()
    ]
    terms = pd.concat(parts, ignore_index=True)
    terms["term"] = terms["term"].str.replace("_", " ")
    terms["text"] = terms.apply(_rate_text, axis=1)
    return show_table(
        terms[["architecture", "quantity", "term", "text", "unit", "share", "kind"]],
        name="inference-terms",
        caption="Terms of the models of all sizes: units per second with 95 % intervals, and their share of all fitted "
        "time. ∞: the bootstrap cannot distinguish the coefficient from 0.",
        formats={"share": partial(percent, decimals=1)},
        labels={"quantity": "what", "text": "rate (units/s)", "kind": "scales with"},
    )


def times_figure(models: Models) -> Html:
    """Measured and predicted times of three sizes and two batches."""
    widest = max(np.abs(model.log_residuals).max() for model in models.values())
    return show(
        figures.times_over_context({key: _few_times(model) for key, model in models.items()}),
        name="inference-times",
        alt="Measured and predicted times over context, panels by quantity and architecture; lines follow the markers.",
        caption="Measured times (markers) and the models of all sizes (lines). Our model of the xLSTM's step "
        f"has no context in it. The largest error of any timing is a factor of {np.exp(widest):.2f}.",
    )


def model_facts(models: Models, notes: Sequence[str], timings: pd.DataFrame, peaks: Hardware) -> dict[str, str]:
    """Where the largest error is, the rates of a Transformer's prefill, what was not fitted, what beats the roofline.

    Parameters
    ----------
    notes
        what could not be fitted, in words.
    """
    name, quantity = max(models, key=lambda key: np.abs(models[key].log_residuals).max())
    row = models[name, quantity].rows.iloc[np.abs(models[name, quantity].log_residuals).argmax()]
    ratios = [against_roofline(timings, *key, peaks).dropna() for key in models]  # type: ignore[arg-type]
    below = int((pd.concat(ratios) < 1).sum())
    errors = sorted(model.rms_log_error for model in models.values())
    facts = {
        "c8_rms": " to ".join(dict.fromkeys(f"{error:.3f}" for error in (errors[0], errors[-1]))),
        "c8_largest_error": f"{QUANTITY_NAMES[quantity]} of the {architecture_label(name)} {row['model_size']}, "
        f"B = {row['batch_size']}, after a prompt of {row['prefill_length']} tokens",
        "c8_unfitted": f"Not fitted: {'; '.join(notes)}" if notes else "Every architecture and quantity can be fitted",
        "c8_below_roofline": "No timing lies below the roofline",
        "c8_product_rate": "–",
        "c8_core_rate": "–",
    }
    if below:
        facts["c8_below_roofline"] = (
            f"{below} timings lie below the roofline: they moved fewer bytes than counted, or ran on another device"
        )
    if ("transformer", "ttft") in models:
        rates = models["transformer", "ttft"].table().set_index("term")["rate"] / 1e12
        facts |= {"c8_product_rate": f"{rates['product_flops']:.0f}", "c8_core_rate": f"{rates['attention_flops']:.0f}"}
    return facts


def shares_figure(models: Models, example: Mapping[str, Any], batch_sizes: Sequence[int], model_size: str) -> Html:
    """Shares of the kinds of terms over the context, or over the batch where context does not matter."""
    grid, batches = np.geomspace(128, 32768, 60).round(), 2.0 ** np.arange(0, 10)
    panels, along = {}, []
    for (name, quantity), model in _of_pair(models).items():
        over_context = _depends_on_context(model, example[name])
        batch = batch_sizes[0] if quantity == "ttft" else batch_sizes[-1]
        fixed = f"B = {batch}" if over_context else "T = 2048"
        varied = (grid, batch) if over_context else (2048, batches)
        title = f"{architecture_label(name)}, {QUANTITY_NAMES[quantity]}, {fixed}"
        panels[title] = shares(model, example[name], *varied)
        along.append("context_length" if over_context else "batch_size")
    return show(
        figures.regime_shares(panels, along),
        name="inference-shares",
        alt="Stacked shares of compute, memory, latency and overhead over context or batch, a panel per quantity "
        "and architecture.",
        caption=f"What the times of the {model_size} models consist of, by kind of term. The model of the xLSTM's step "
        "has no context in it; its panel runs over the batch.",
    )


def regime_facts(
    models: Models, example: Mapping[str, Any], model_size: str, batch_sizes: Sequence[int]
) -> dict[str, str]:
    """What a step is made of at a long context. Needs the models of both architectures' steps."""
    facts = {"c8_steps_at": figures.tokens_text(_AT), "c8_model_size": model_size}
    for name in NAMES:
        for which, batch in (("few", batch_sizes[0]), ("many", batch_sizes[-1])):
            row = shares(models[name, "step_time"], example[name], _AT, batch).iloc[0]
            kinds = sorted((kind for kind in _KIND_WORDS if kind in row), key=lambda kind: -row[kind])
            facts[f"c8_step_parts_{name}_{which}"] = listed(
                [f"{percent(row[kind])} {_KIND_WORDS[kind]}" for kind in kinds if row[kind] > 0]
            )
    few, many = (facts.pop(f"c8_step_parts_xlstm_{which}") for which in ("few", "many"))
    also = f" (at B = {batch_sizes[0]}: {few})" if few != many else ", at either batch"
    facts["c8_step_parts_xlstm"] = many + also
    return facts


def leaders_table(models: Models, example: Mapping[str, Any], model_size: str, longest: int) -> Html:
    """The largest part of every time of one sequence at long contexts, and from where on, for two sizes.

    Needs the models of both architectures and quantities. `longest`: context, tokens.
    """
    sizes = {model_size: example, "160m": {name: preset(name, "160m") for name in NAMES}}
    rows = [
        {"what": QUANTITY_NAMES[quantity], "size": size}
        | {architecture_label(name): _leader(models[name, quantity], shown[name], longest) for name in NAMES}
        for quantity in ("ttft", "step_time")
        for size, shown in sizes.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="inference-leaders",
        caption="The largest part of a time of one sequence, and the context from which on it is the largest.",
    )


def left_out_table(left_out: Mapping[tuple[str, str], pd.DataFrame], models: Models) -> Html:
    """Solution of an exercise: every size predicted by the others, above the fit to all; a column per model.

    Parameters
    ----------
    left_out
        by architecture and quantity, from `companion.inference.terms.left_out_sizes`.
    """
    columns = {}
    for key, table in left_out.items():
        cells = {row["model_size"]: _with_sign(row["rms_log_error"], row["bias"]) for _, row in table.iterrows()}
        title = f"{architecture_label(key[0])}, {QUANTITY_NAMES[key[1]]}"
        columns[title] = cells | {"fit to all": f"{models[key].rms_log_error:.3f}"}
    table = pd.DataFrame(columns).rename_axis("left out").reset_index()
    return show_table(
        table,
        caption="Every size predicted by the others: rms of ln(predicted/measured), and its mean in brackets; last "
        "row: the rms of the fit to all.",
    )


def split_table(rows: Sequence[Mapping[str, Any]], model_size: str, bandwidth: float) -> Html:
    """Solution of an exercise: ratios of step times as timed, and with a cache that is read at a bandwidth (bytes/s).

    Parameters
    ----------
    rows
        each with `T` (tokens), `B`, and the ratios `as timed` and `split`.
    """
    return show_table(
        pd.DataFrame([{**row, "T": figures.tokens_text(row["T"])} for row in rows]),
        caption=f"Step of the Transformer over that of the xLSTM, {model_size}: with the timed kernel, and if the "
        f"cache were read at {bandwidth / 1e12:.2f} TB/s.",
        formats={"as timed": "{:.2f}", "split": "{:.2f}"},
    )


def _with_sign(rms: float, mean: float) -> str:
    return f"{rms:.3f} ({mean:+.3f})"


def _leader(model: RuntimeModel, architecture: Any, longest: int) -> str:
    """The kind of term with the largest share at long contexts, and from where on: "memory from 2,113 tokens on"."""
    table = shares(model, architecture, np.geomspace(64, longest, 400).round(), 1)
    starts = changes(table, "context_length")["at"]
    since = f"from {starts.iloc[-1]:,.0f} tokens on" if len(starts) else "at every context"
    return f"{_KIND_WORDS[table['largest'].iloc[-1]]}, {since}"


def _of_pair(models: Models) -> dict[tuple[str, str], RuntimeModel]:
    """The models of the two architectures that the chapter compares."""
    return {key: model for key, model in models.items() if key[0] in NAMES}


def _depends_on_context(model: RuntimeModel, architecture: Any) -> bool:
    return bool(np.ptp(model.predict(architecture, np.array([2048.0, 4096.0]), 1)) > 0)


def _rate_text(row: pd.Series) -> str:
    if not np.isfinite(row["rate"]):
        return "none found"
    high = power_of_ten(row["rate_high"]) if np.isfinite(row["rate_high"]) else "∞"
    return f"{power_of_ten(row['rate'])} [{power_of_ten(row['rate_low'])}, {high}]"


def _few_times(model: RuntimeModel) -> pd.DataFrame:
    """Measured and predicted times (s) of the smallest, the middle and the largest size, for two batches."""
    context = model.rows["prefill_length"] if model.quantity == "ttft" else middle_context(model.rows)
    column = COLUMNS[model.quantity]
    rows = model.rows.assign(context_length=context, predicted=model.rows[column] * np.exp(model.log_residuals))
    sizes = rows.groupby("model_size")["num_params"].first().sort_values().index
    few = rows[rows["model_size"].isin([sizes[0], sizes[len(sizes) // 2], sizes[-1]])]
    few = few[few["batch_size"].isin([few["batch_size"].min(), 8])].rename(columns={column: "measured"})
    columns = ["model_size", "batch_size", "context_length", "predicted", "measured"]
    return few.sort_values(["num_params", "batch_size", "context_length"])[columns]
