"""Chapter 14: the runtime model fitted to the authors' timings and to ours, side by side, and crossovers of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch14.labels import QUANTITY_NAMES, crossover_text, whose_peaks
from companion.chapters.ch14.measured import PARTS, Measured
from companion.chapters.timed_models import MODEL_LABELS
from companion.formatting import listed, percent, significant, span_text
from companion.hardware import Hardware, get_hardware
from companion.inference.compare import measured_crossovers
from companion.inference.runtime_model import RuntimeModel, fit_runtime_model
from companion.inference.terms import fit_all_models
from companion.inference.timings import Quantity
from companion.plotting import Html, show_table

#: Runtime models by model and quantity.
Models = Mapping[tuple[str, Quantity], RuntimeModel]
#: What tables call a term. The FLOPs of an xLSTM are those of matrix products but for a small part.
_TERMS = {
    "product_flops": "matrix products",
    "attention_flops": "attention's core",
    "token_layers": "elementwise work",
    "weight_bytes": "weights",
    "cache_bytes": "cache",
    "state_bytes": "state",
    "activation_bytes": "activations",
    "layers": "each layer",
    "batched_layers": "each layer, B > 1",
    "passes": "each pass",
}
#: Terms in one row of a table. The authors' cache counts by tokens and waves of heads, ours by bytes.
_ALIKE = {"flops": "product_flops", "cache_waves": "cache_bytes"}


def fit_ours(measured: Measured, *, num_resamples: int = 200) -> tuple[Models, list[str]]:
    """The runtime model of every timed model and quantity, and those that could not be fitted, in words.

    The kernels split a cache over the device, so the cache counts by its bytes.
    """
    models: dict[tuple[str, Quantity], RuntimeModel] = {}
    for name in measured.models:
        found, _ = fit_all_models(
            measured.timings(name), hardware=measured.peaks, num_resamples=num_resamples, split_cache=True
        )
        models |= {(name, quantity): model for (_, quantity), model in found.items()}  # type: ignore[misc]
    missing = [(name, quantity) for name in measured.models for quantity in PARTS if (name, quantity) not in models]
    return models, [f"{MODEL_LABELS[name]}, {QUANTITY_NAMES[quantity]}" for name, quantity in missing]


def coefficients(model: RuntimeModel, peaks: Hardware) -> pd.DataFrame:
    """Every term of a fitted model, as a share of the peak that limits it where one does.

    Returns
    -------
    DataFrame
        with `term`, `unit` (`%` of the peak, or `ns` per token and layer, `µs` per layer or pass), `value`, `low`,
        `high` in that unit, and `share` of all fitted time. A rate that the timings do not bound has an infinite
        end; NaN where the timings leave the term free.
    """
    peak = {"FLOP": peaks.peak_flops_per_s, "byte": peaks.peak_bytes_per_s}
    rows = []
    for row in model.table().to_dict("records"):
        ends = np.array([row["rate"], row["rate_low"], row["rate_high"]])
        if row["unit"] in peak:
            unit, values = "%", ends / peak[row["unit"]]
        else:
            unit, scale = ("ns", 1e9) if "token" in row["unit"] else ("µs", 1e6)
            values = scale / ends[[0, 2, 1]]
        rows.append({"term": row["term"], "unit": unit, "share": row["share"]})
        rows[-1] |= dict(zip(("value", "low", "high"), values, strict=True))
    return pd.DataFrame(rows)


def _text(row: Mapping[Any, Any]) -> str:
    """A coefficient with its interval: `76 [74, 78] %`, `38 [30, 44] µs`."""
    if np.isnan(row["value"]):
        return "–"

    def one(value: float) -> str:
        if not np.isfinite(value):
            return "∞"
        value *= 100 if row["unit"] == "%" else 1
        return f"{value:.0f}" if value >= 100 else significant(value, 2)

    return f"{one(row['value'])} [{one(row['low'])}, {one(row['high'])}] {row['unit']}"


def show_terms(
    ours: Models, theirs: Models, measured: Measured, their_peaks: Hardware, quantity: Quantity, names: Sequence[str]
) -> Html:
    """Coefficients of some models' times, the authors' beside ours: shares of peaks, or seconds.

    Parameters
    ----------
    ours, theirs
        runtime models; `theirs` may lack some of `names`.
    their_peaks
        of the authors' device, as the vendor states them.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    sources = {"theirs": (theirs, their_peaks), "ours": (ours, measured.datasheet), "reached": (ours, measured.peaks)}
    for name in names:
        for source, (models, peaks) in sources.items():
            if (name, quantity) not in models or peaks is None:
                continue
            for row in coefficients(models[name, quantity], peaks).to_dict("records"):
                if source != "reached" or row["unit"] == "%" or measured.datasheet is None:
                    rows.setdefault((name, _ALIKE.get(row["term"], row["term"])), {})[source] = _text(row)
    order = {term: number for number, term in enumerate(_TERMS)}
    table = pd.DataFrame(
        [
            {"model": MODEL_LABELS[name], "term": _TERMS[term]} | {source: cells.get(source, "–") for source in sources}
            for (name, term), cells in sorted(rows.items(), key=lambda row: (names.index(row[0][0]), order[row[0][1]]))
        ],
        columns=["model", "term", *sources],
    )
    headings = {"theirs": "authors", "ours": "ours, of stated peaks", "reached": "ours, of measured peaks"}
    shown = {source: words for source, words in headings.items() if (table[source] != "–").any()}
    caption = f"Coefficients of the runtime model, {QUANTITY_NAMES[quantity]}, with 95 % intervals. "
    caption += "%: of the peak FLOP/s or bytes/s. " + whose_peaks(
        measured.peaks, measured.datasheet, their_peaks if "theirs" in shown else None
    )
    waves = "The authors' cache is in ns per token, layer and wave of heads. " if quantity == "step_time" else ""
    return show_table(
        table[["model", "term", *shown]],
        name=f"measured-{'first' if quantity == 'ttft' else 'step'}-terms{'' if 'theirs' in shown else '-more'}",
        caption=f"{caption}{waves if 'theirs' in shown else ''}∞ % or 0 µs: the timings allow that it costs nothing.",
        labels=shown,
    )


def show_both_crossovers(measured: Measured, authors: pd.DataFrame) -> Html:
    """Context from which the xLSTM is faster at equal size: the authors' timings and ours, by size and batch."""
    rows = []
    for quantity in PARTS:
        theirs = measured_crossovers(authors, quantity)
        batches = sorted({*measured.batches} & {*theirs["batch_size"]})
        for size in [size for size in measured.sizes if size in set(theirs["model_size"])]:
            row = {"what": QUANTITY_NAMES[quantity], "size": size}
            for batch in batches:
                found = theirs[(theirs["model_size"] == size) & (theirs["batch_size"] == batch)]
                pair = None if found.empty else (float(found["crossover"].iloc[0]), float(found["longest"].iloc[0]))
                ours = measured.crossover(quantity, "xlstm", "transformer", size, batch)
                row[f"authors, B = {batch}"] = crossover_text(pair)
                row[f"ours, B = {batch}"] = crossover_text(ours)
            if any(text != "–" for name, text in row.items() if name not in ("what", "size")):
                rows.append(row)
    return show_table(
        pd.DataFrame(rows).fillna("–"),
        name="measured-crossovers",
        caption="Context in tokens from which the xLSTM is faster than the Transformer at equal size, in the authors' "
        "timings and in ours. always: at every context that was timed; >: not up to this one; –: not timed for both.",
    )


def fit_facts(
    ours: Models, theirs: Models, measured: Measured, their_peaks: Hardware, notes: Sequence[str]
) -> dict[str, object]:
    """How well the models fit, and how the authors' coefficients and ours differ once peaks are divided out."""
    errors = [model.rms_log_error for model in ours.values()]
    peaks = measured.datasheet or measured.peaks
    facts: dict[str, object] = {
        "c14_fit_errors": span_text(errors, lambda error: f"{error:.2f}") if errors else "–",
        "c14_fit_notes": f"Too few timings for a fit: {'; '.join(notes)}. The others can be fitted"
        if notes
        else "Every model and quantity can be fitted",
        "c14_their_device": their_peaks.label,
        "c14_whose_peaks": "that the vendors state"
        if measured.datasheet
        else "that the vendor states for their device, and that we measured on ours",
    }
    kinds = {
        "products": ("transformer", "ttft", "product_flops"),
        "core": ("transformer", "ttft", "attention_flops"),
        "xlstm": ("xlstm", "ttft", "flops"),
        "weights": ("transformer", "step_time", "weight_bytes"),
        "weights_xlstm": ("xlstm", "step_time", "weight_bytes"),
        "cache": ("transformer", "step_time", "cache_bytes"),
        "state": ("xlstm", "step_time", "state_bytes"),
        "layers": ("transformer", "step_time", "layers"),
        "layers_xlstm": ("xlstm", "step_time", "layers"),
    }
    for word, (name, quantity, term) in kinds.items():
        for whose, models, device in (("theirs", theirs, their_peaks), ("ours", ours, peaks)):
            facts[f"c14_{word}_{whose}"] = _one(models, (name, quantity), term, device)
    facts["c14_gain"] = gain_verdict(ours, theirs, peaks, their_peaks)
    facts["c14_overhead"] = overhead_verdict(ours, theirs, peaks)
    facts["c14_waves"] = waves_verdict(ours, measured)
    return facts


def waves_verdict(ours: Models, measured: Measured) -> str:
    """A verdict: whether bytes describe our steps of the Transformer better than the waves of the authors' kernel."""
    key: tuple[str, Quantity] = ("transformer", "step_time")
    if key not in ours or measured.datasheet is None:
        return "Whether bytes or waves describe them better cannot be said here"
    waves = fit_runtime_model(measured.timings(key[0]), *key, hardware=measured.peaks, num_resamples=0).rms_log_error
    by_bytes = ours[key].rms_log_error
    start = f"the error of our fit is {significant(by_bytes, 2)} with bytes and {significant(waves, 2)} with waves"
    return f"Indeed {start}" if by_bytes < waves else f"Yet {start}: bytes do not describe our steps better"


def overhead_verdict(ours: Models, theirs: Models, peaks: Hardware) -> str:
    """A verdict: whether our steps have less overhead per layer than the authors'."""
    ratios = []
    for name in ("transformer", "xlstm"):
        values = [_value(models, (name, "step_time"), "layers", peaks)[0] for models in (ours, theirs)]
        ratios += [values[0] / values[1]] if all(np.isfinite(values)) and values[1] > 0 else []
    if not ratios:
        return "The overhead of launching kernels cannot be compared"
    if max(ratios) <= 0.5:
        return "Kernels that are launched one by one keep the GPU waiting; our CUDA graphs avoid most of that"
    return "CUDA graphs do not avoid most of this overhead, so it is not the launching of kernels alone"


def _one(models: Models, key: tuple[str, Any], term: str, peaks: Hardware) -> str:
    """One coefficient for a sentence: a share in percent or a time; `not fitted` where there is none."""
    value, unit = _value(models, key, term, peaks)
    if np.isnan(value):
        return "not fitted"
    if unit == "%":
        return "no measurable time" if np.isinf(value) else percent(value)
    return f"{significant(value, 2) if value < 100 else f'{value:.0f}'} {unit}"


def _value(models: Models, key: tuple[str, Any], term: str, peaks: Hardware) -> tuple[float, str]:
    if key not in models:
        return float("nan"), ""
    found: Any = coefficients(models[key], peaks).set_index("term")
    return (
        (float(found.loc[term, "value"]), str(found.loc[term, "unit"])) if term in found.index else (float("nan"), "")
    )


def gain_verdict(ours: Models, theirs: Models, peaks: Hardware, their_peaks: Hardware) -> str:
    """A verdict: which parts of a prefill use more of the device in our timings than in the authors'."""
    parts = {
        "the Transformer's products": ("transformer", "product_flops"),
        "attention's core": ("transformer", "attention_flops"),
        "the xLSTM's FLOPs": ("xlstm", "flops"),
    }
    more: list[str] = []
    less: list[str] = []
    for words, (name, term) in parts.items():
        values = [_value(m, (name, "ttft"), term, p)[0] for m, p in ((ours, peaks), (theirs, their_peaks))]
        if not all(np.isfinite(values)):
            continue
        ratio = values[0] / values[1]
        (more if ratio >= 1 else less).append(f"{words} ({max(ratio, 1 / ratio):.1f} times)")
    found = [f"a larger share of the peak for {listed(more)}"] if more else []
    found += (
        [f"a smaller one for {listed(less)}" if more else f"a smaller share of the peak for {listed(less)}"]
        if less
        else []
    )
    return (
        "Compared with the authors' prefills, ours reach " + listed(found) if found else "Prefills cannot be compared"
    )


def their_models(authors: pd.DataFrame, peaks: Hardware | str, *, num_resamples: int = 200) -> Models:
    """The runtime models of the authors' timings."""
    return fit_all_models(authors, hardware=get_hardware(peaks), num_resamples=num_resamples)[0]  # type: ignore[return-value]
