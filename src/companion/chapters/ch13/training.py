"""The training step: its figure, tables and sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch13 import figures
from companion.chapters.ch13.records import Suite
from companion.chapters.ch13.steps import FIRST, LAUNCHES, SECOND, Steps, crossing, launch_costs
from companion.chapters.timed_models import MODEL_LABELS
from companion.formatting import listed, number_word, percent, plural, signed_percent, significant, span_text
from companion.plotting import Html, show, show_table


def steps_figure(steps: Steps) -> Html:
    """Time of a step over the context length: the decisive figure."""
    hidden = len(steps.sizes) - min(len(steps.curves), figures.MOST_PANELS)
    return show(
        figures.step_times(steps, MODEL_LABELS),
        name="model-training",
        alt="Time of a training step over the context length: nearly level for the xLSTM, rising for the Transformer.",
        caption=f"Time of a training step of {steps.num_tokens:,} tokens over the context length, "
        f"{steps.suite.device}, fastest launch of each. Dotted line: from here on the xLSTM is faster."
        + (f" {plural(hidden, 'more size')}: in the table." if hidden else ""),
    )


def steps_table(steps: Steps) -> Html:
    """By size: the crossing, ratios of times at some contexts, and the utilization of both."""
    lengths = [T for T in (2048, 8192, 32768) if np.isfinite([steps.ratio_at(s, T) for s in steps.sizes]).any()]
    rows = []
    for size in steps.sizes:
        row: dict[str, Any] = {"size": size.upper(), "crossing": crossing(steps.ratios(size)).text}
        row |= {f"T = {T}": factor_text(steps.ratio_at(size, T)) for T in lengths}
        for model in (FIRST, SECOND):
            row[model] = percent(_share(steps, size, model))
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="model-training",
        caption=f"Training steps of {steps.num_tokens:,} tokens on {steps.suite.device}. Crossing: the context from "
        "which on the xLSTM is faster. By context: time of the Transformer over that of the xLSTM. Utilization: "
        f"FLOP/s over those of a product of matrices, at T = {steps.context_length}.",
        labels={"crossing": "crossing (tokens)"}
        | {model: f"utilization, {MODEL_LABELS[model]}" for model in (FIRST, SECOND)},
    )


def factor_text(value: float) -> str:
    """A ratio of times, a dash where one was not timed."""
    return significant(value) if np.isfinite(value) else "–"


def _share(steps: Steps, size: str, model: str) -> float:
    return float(steps.of(model, size)["share_of_matmul_peak"].get(steps.context_length, np.nan))


def answer_verdict(steps: Steps) -> str:
    """From which context on the xLSTM trains faster at every size, and how much faster at the longest."""
    found = {size: crossing(steps.ratios(size)) for size in steps.sizes}
    longest = min(each.most for each in found.values())
    ends = span_text([steps.ratio_at(size, longest) for size in steps.sizes], lambda v: significant(v, 2))
    subject = f"On {steps.suite.device} the xLSTM's training step"
    if any(np.isinf(each.at) for each in found.values()):
        slower = [size.upper() for size, each in found.items() if np.isinf(each.at)]
        return f"{subject} is faster than the Transformer's at some sizes only: not at {listed(slower)}"
    last = max(each.at for each in found.values())
    where = every_size(steps.sizes, [size for size in steps.sizes if last and found[size].least > last])
    if last == 0:
        since = f"is faster than the Transformer's {where}, and at every context that was timed"
    else:
        worst = max(found.values(), key=lambda each: each.at)
        since = f"is faster than the Transformer's from a context of {worst.text} tokens on, {where}"
    return f"{subject} {since}; at {longest} tokens it is {ends} times as fast"


def every_size(sizes: Sequence[str], longer_only: Sequence[str] = ()) -> str:
    """In a sentence: `at every size`, or `at 15M, the only size timed for both`.

    `longer_only` are those of the sizes that were timed at longer contexts than the sentence is about.
    """
    if len(sizes) == 1:
        return f"at {sizes[0].upper()}, the only size timed for both"
    if not longer_only:
        return "at every size"
    return f"at every size ({listed([size.upper() for size in longer_only])}: timed at longer contexts only)"


def training_facts(steps: Steps) -> dict[str, object]:
    """Ratios by context, utilization, memory, checks and what was left out."""
    T = steps.context_length
    crossings = {size: crossing(steps.ratios(size)) for size in steps.sizes}
    rises = {model: [_growth(steps, size, model) for size in steps.curves] for model in (FIRST, SECOND)}
    shares = {m: [_share(steps, size, m) for size in steps.sizes] for m in (FIRST, SECOND)}
    return {
        "c13_sizes": listed([size.upper() for size in steps.sizes]),
        "c13_crossings": listed([f"{each.text} ({size.upper()})" for size, each in crossings.items()]),
        "c13_ratio_here": span_text([steps.ratio_at(size, T) for size in steps.sizes], lambda v: significant(v, 2)),
        "c13_growth_first": span_text(rises[FIRST], signed_percent),
        "c13_growth_second": span_text(rises[SECOND], lambda v: f"{significant(1 + v, 2)}"),
        "c13_used_first": span_text(shares[FIRST]),
        "c13_used_second": span_text(shares[SECOND]),
        "c13_measured": f"{steps.suite.device} ({steps.suite.measured})",
        "c13_checks": checks_verdict(steps.suite),
        "c13_skipped": skipped_verdict(steps.suite),
    }


def _growth(steps: Steps, size: str, model: str) -> float:
    """Time of a step at the longest context over that at the shortest, minus 1."""
    times = steps.of(model, size)["seconds_median"]
    return float(times.iloc[-1] / times.iloc[0] - 1)


def checks_verdict(suite: Suite) -> str:
    """A verdict: how many comparisons with plain torch passed."""
    if suite.checks.empty:
        return "These records hold no comparison with a reference"
    passed = int((suite.checks["verdict"] == "pass").sum())
    total = len(suite.checks)
    return f"All {total} comparisons passed" if passed == total else f"{passed} of {total} comparisons passed"


def skipped_verdict(suite: Suite) -> str:
    """A verdict: what did not fit."""
    rows = suite.skipped
    if rows.empty:
        return "Everything that was asked for fits in memory"
    names = {f"{MODEL_LABELS.get(row['model'], row['model'])} {row['size'].upper()}" for row in rows.to_dict("records")}
    first = rows.iloc[0]["skipped"]
    return f"{plural(len(rows), 'cell')} did not fit, of {listed(sorted(names))} (the first {first})"


def launches_figure(steps: Steps) -> Html:
    """Time of a step by launch, of both architectures."""
    costs = launch_costs(steps)
    costs = costs[costs["model"].isin((FIRST, SECOND))]
    lengths = span_text(costs["context_length"], lambda v: f"{v:.0f}")
    return show(
        figures.launches(costs, MODEL_LABELS, [name for name in LAUNCHES if name in costs]),
        name="model-launches",
        alt="Bars of the time of a training step: eager, compiled, and compiled in one CUDA graph.",
        caption=f"Time of a training step by how it is launched, T = {lengths}, {steps.suite.device}. "
        "Eager: the host launches every kernel. Compiled: fewer kernels. Graph: all kernels by one launch. More sizes "
        "and models: in the table.",
    )


def launches_table(steps: Steps) -> Html:
    """The same as numbers."""
    costs = launch_costs(steps)
    names = [name for name in LAUNCHES if name in costs]
    shown = costs.assign(size=costs["size"].str.upper(), model=costs["model"].map(MODEL_LABELS))
    shown["beyond"] = [signed_percent(value, 1) if np.isfinite(value) else "–" for value in costs["beyond"]]
    return show_table(
        shown.astype({"context_length": int})[["size", "model", "context_length", *names, "beyond"]],
        name="model-launches",
        caption="Milliseconds of a training step by launch. Last column: compiled over graph.",
        formats=dict.fromkeys(names, lambda v: significant(1e3 * v) if np.isfinite(v) else "–"),
        labels={"context_length": "T", "beyond": "without graph", "compiled graph": "graph"},
    )


def launch_facts(steps: Steps) -> dict[str, object]:
    """What eager launches and a compiled step without a graph cost."""
    costs = launch_costs(steps).reindex(columns=["size", "beyond", *LAUNCHES])
    eager, beyond = (costs["eager"] / costs["compiled graph"]).dropna(), costs.dropna(subset="beyond")
    compared = [size for size in steps.sizes if size in set(beyond["size"])]
    close = [size for size in compared if (beyond.loc[beyond["size"] == size, "beyond"] <= 0.1).all()]
    return {
        "c13_eager": span_text(eager, lambda v: significant(v, 2)),
        "c13_beyond": span_text(beyond["beyond"], signed_percent),
        "c13_close": close_verdict(close, compared),
        "c13_other_vocabulary": vocabulary_verdict(steps),
    }


def vocabulary_verdict(steps: Steps) -> str:
    """A verdict: ratios of times, and what a missing graph costs the xLSTM, with the smallest other vocabulary."""
    if not steps.others:
        return "No other vocabulary was timed"
    other, size = steps.others[0], steps.others[0].sizes[0]
    ratios = other.ratios(size)
    times = other.by_launch(size, FIRST).reindex(columns=list(LAUNCHES))
    beyond = (times["compiled"] / times["compiled graph"] - 1).dropna()
    found = (
        f"With a vocabulary of {other.vocabulary:,} ({size.upper()}) the Transformer's step takes "
        f"{listed([significant(ratio) for ratio in ratios])} times as long as the xLSTM's, at contexts of "
        f"{listed([str(int(length)) for length in ratios.index])} tokens"
    )
    if beyond.empty:
        return found
    return f"{found}; and without a graph the xLSTM's compiled step takes {span_text(beyond)} longer"


def close_verdict(close: list[str], sizes: list[str]) -> str:
    """A verdict: at which of the sizes that were timed in both ways a compiled step is within a tenth of its graph."""
    if not sizes:
        return "No step was timed in both ways"
    if len(close) == len(sizes):
        return f"At {listed([size.upper() for size in sizes])} a compiled step is within a tenth of its graph"
    if not close:
        return "At no size is a compiled step within a tenth of its graph"
    if close == sizes[len(sizes) - len(close) :]:
        return f"From {close[0].upper()} on, a compiled step is within a tenth of its graph"
    return f"At {number_word(len(close))} of {len(sizes)} sizes a compiled step is within a tenth of its graph"
