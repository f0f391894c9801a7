"""Chapter 8: one runtime model for all sizes: its terms, its errors, and what limits a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.architectures import preset
from companion.chapters.ch08 import figures
from companion.chapters.ch08.common import NAMES, note_table
from companion.formatting import percent, power_of_ten
from companion.hardware import Hardware
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import against_roofline, changes, shares
from companion.inference.timings import COLUMNS, middle_context
from companion.plotting import Html, show, show_table
from companion.plotting.style import architecture_label

#: Runtime models by architecture and quantity.
Models = Mapping[tuple[str, str], RuntimeModel]
_KIND_WORDS = {"memory": "memory", "latency": "attention's latency", "fixed": "overheads"}


def terms_table(models: Models) -> Html | None:
    """Rates and shares of every term; None without a model."""
    if not models:
        return None
    parts = [
        model.table().assign(architecture=architecture_label(name), quantity=quantity)
        for (name, quantity), model in models.items()
    ]
    terms = pd.concat(parts, ignore_index=True)
    return show_table(
        terms.assign(text=terms.apply(_rate_text, axis=1))[
            ["architecture", "quantity", "term", "text", "unit", "share", "kind"]
        ],
        caption="Terms of the runtime models: units per second with 95 % intervals, and share of all fitted time. "
        "∞: the bootstrap cannot distinguish the coefficient from 0.",
        formats={"share": "{:.1%}"},
        labels={"text": "rate (units per second)", "kind": "scales with"},
    )


def residuals_figure(models: Models) -> Html | None:
    """Predicted over measured times; None without a model."""
    if not models:
        return None
    residuals = {
        key: pd.DataFrame({"measured": model.rows[COLUMNS[key[1]]], "ratio": np.exp(model.log_residuals)})
        for key, model in models.items()
    }
    widest = max(np.abs(model.log_residuals).max() for model in models.values())
    return show(
        figures.predicted_over_measured(residuals),
        name="inference-residuals",
        alt="Predicted over measured time against measured time; points scatter about one.",
        caption="One model per architecture and quantity, all sizes, batches and prompts. Largest error: a factor "
        f"{np.exp(widest):.2f}.",
    )


def times_figure(models: Models) -> Html | None:
    """Measured and predicted times of three sizes and two batches; None without a model."""
    if not models:
        return None
    return show(
        figures.times_over_context({key: _few_times(model) for key, model in models.items()}),
        name="inference-times",
        alt="Measured and predicted times over context, panels by quantity and architecture; lines follow the markers.",
        caption="Measured times (markers) and the model of all sizes (lines). The xLSTM's step time does not depend "
        "on the context.",
    )


def model_facts(models: Models, notes: Sequence[str], timings: pd.DataFrame, peaks: Hardware) -> dict[str, str]:
    """How well the models fit, and how far the timings lie above the roofline.

    Parameters
    ----------
    notes
        what could not be fitted, in words.
    """
    return {"c8_terms": fit_words(models, notes), "c8_roofline": roofline_words(models, timings, peaks)}


def fit_words(models: Models, notes: Sequence[str]) -> str:
    """Errors of the models, the rates of a prefill, what was left out, and where the largest error is."""
    if not models:
        return ". ".join(
            ["This table is too small for a model of all sizes", *([f"Left out: {'; '.join(notes)}"] if notes else [])]
        )
    errors = [
        f"{architecture_label(name)} {quantity}: {model.rms_log_error:.3f} over {len(model.rows)} timings"
        for (name, quantity), model in models.items()
    ]
    found = [f"The rms of ln(predicted/measured) is {'; '.join(errors)}"]
    if ("transformer", "ttft") in models:
        rates = models["transformer", "ttft"].table().set_index("term")["rate"] / 1e12
        found.append(
            f"In a prefill of the Transformer, matrix products run at {rates['product_flops']:.0f} TFLOP/s, "
            f"attention's core at {rates['attention_flops']:.0f}: with a rate of its own, no constant has to be "
            "negative"
        )
    if notes:
        found.append(f"Left out: {'; '.join(notes)}")
    name, quantity = max(models, key=lambda key: np.abs(models[key].log_residuals).max())
    model = models[name, quantity]
    row = model.rows.iloc[np.abs(model.log_residuals).argmax()]
    found.append(
        f"The largest error is at {architecture_label(name)} {quantity}, size {row['model_size']}, B = "
        f"{row['batch_size']}, prompt {row['prefill_length']}"
    )
    return ". ".join(found)


def roofline_words(models: Models, timings: pd.DataFrame, peaks: Hardware) -> str:
    """Measured times over the roofline, and how many lie below it."""
    found, faster = [], 0
    for name, quantity in models:
        ratio = against_roofline(timings, name, quantity, peaks).dropna()  # type: ignore[arg-type]
        faster += int((ratio < 1).sum())
        span = f"{ratio.min():.2f} to {ratio.max():.2g}, median {ratio.median():.2g}"
        found.append(f"{architecture_label(name)} {quantity} {span}")
    text = f"Measured time over the roofline of {peaks.label}: {'; '.join(found) or 'nothing to compare'}"
    if faster:
        text += f". {faster} timings are below 1: they moved fewer bytes than counted, or ran on something else"
    return text


def shares_figure(
    models: Models, example: Mapping[str, Any], batch_sizes: Sequence[int], model_size: str
) -> Html | None:
    """Shares of the kinds of terms over the context, or over the batch where context does not matter, or None."""
    if not _of_pair(models):
        return None
    grid, batches = np.geomspace(128, 32768, 60).round(), 2.0 ** np.arange(0, 10)
    panels, along = {}, []
    for (name, quantity), model in _of_pair(models).items():
        over_context = _depends_on_context(model, example[name])
        batch = batch_sizes[0] if quantity == "ttft" else batch_sizes[-1]
        fixed = f"B = {batch}" if over_context else "T = 2048"
        varied = (grid, batch) if over_context else (2048, batches)
        title = f"{architecture_label(name)}, {'TTFT' if quantity == 'ttft' else 'step'}, {fixed}"
        panels[title] = shares(model, example[name], *varied)
        along.append("context_length" if over_context else "batch_size")
    return show(
        figures.regime_shares(panels, along),
        name="inference-shares",
        alt="Stacked shares of compute, memory, latency and overhead over context or batch, a panel per quantity "
        "and architecture.",
        caption=f"Shares of the kinds of terms in the time of the {model_size} models.",
    )


def largest_shares_table(models: Models, model_size: str, batch_sizes: Sequence[int], longest: int) -> Html:
    """The kind of term with the largest share, and from which context on another one has it."""
    rows = []
    for (name, quantity), model in _of_pair(models).items():
        for size in ("160m", model_size):
            for batch in batch_sizes:
                table = shares(model, preset(name, size), _contexts(longest), batch)
                path = [table["largest"].iloc[0]]
                for change in changes(table, "context_length").to_dict("records"):
                    path.append(f"{change['after']} from {change['at']:,.0f}")
                row = {"quantity": quantity, "architecture": architecture_label(name), "size": size, "B": batch}
                rows.append(row | {"largest": ", ".join(path)})
    return show_table(
        pd.DataFrame(rows, columns=["quantity", "architecture", "size", "B", "largest"]).drop_duplicates(),
        caption="The largest share of the time over the context (tokens). fixed: overheads.",
        labels={"largest": "largest share"},
    )


def regime_words(
    models: Models, example: Mapping[str, Any], model_size: str, batch_sizes: Sequence[int], longest: int
) -> str:
    """What a step at 16k tokens is made of, and from which prompt on arithmetic leads in a prefill."""
    steps = []
    for (name, quantity), model in _of_pair(models).items():
        for batch in dict.fromkeys((batch_sizes[0], batch_sizes[-1])) if quantity == "step_time" else ():
            row = shares(model, example[name], 16384, batch).iloc[0]
            kinds = sorted((kind for kind in _KIND_WORDS if kind in row), key=lambda kind: -row[kind])
            parts = ", ".join(f"{percent(row[kind])} {_KIND_WORDS[kind]}" for kind in kinds)
            steps.append(f"{architecture_label(name)}, B = {batch}: {parts}")
    found = ["No step times to split up"]
    if steps:
        found = [f"What a step of the {model_size} models at 16k tokens is made of: {'; '.join(steps)}"]
    for (name, quantity), model in _of_pair(models).items():
        if quantity == "ttft":
            table = shares(model, example[name], _contexts(longest), 1)
            starts = [64.0, *changes(table, "context_length")["at"]]
            where = "not the largest part at long contexts"
            if table["largest"].iloc[-1] == "compute":
                where = f"the largest part from {starts[-1]:,.0f} tokens on"
            found.append(f"In a prefill ({architecture_label(name)}, B = 1) arithmetic is {where}")
    return ". ".join(found)


def left_out_table(left_out: Mapping[tuple[str, str], pd.DataFrame], models: Models) -> Html:
    """Solution of an exercise: every size predicted by the others, beside the fit to all.

    Parameters
    ----------
    left_out
        by architecture and quantity, from `companion.inference.terms.left_out_sizes`.
    """
    caption = (
        "Every size predicted by the others: rms and mean of ln(predicted/measured), beside the rms of the fit to all."
    )
    if not left_out:
        return note_table("no runtime model in this table", caption)
    parts = [
        table.assign(architecture=architecture_label(key[0]), quantity=key[1], inside=models[key].rms_log_error)
        for key, table in left_out.items()
    ]
    return show_table(
        pd.concat(parts)[["quantity", "architecture", "model_size", "rms_log_error", "bias", "inside"]],
        caption=caption,
        formats={"rms_log_error": "{:.3f}", "bias": "{:+.3f}", "inside": "{:.3f}"},
        labels={"inside": "rms, fit to all"},
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


def _of_pair(models: Models) -> dict[tuple[str, str], RuntimeModel]:
    """The models of the two architectures that the chapter compares."""
    return {key: model for key, model in models.items() if key[0] in NAMES}


def _depends_on_context(model: RuntimeModel, architecture: Any) -> bool:
    return bool(np.ptp(model.predict(architecture, np.array([2048.0, 4096.0]), 1)) > 0)


def _contexts(longest: int) -> Any:
    return np.geomspace(64, longest, 400).round()


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
