"""The tables of chapter 5 on what over-training costs, on single ratios, and those of the solutions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch05.analysis import Tables
from companion.chapters.ch05.tables import labeled
from companion.chapters.ch05.words import p_text
from companion.chapters.labels import design_name, label_of
from companion.fitting.fit import Fit
from companion.formatting import count, percent, power_of_ten, signed, signed_percent, span_text
from companion.laws import LossSurface
from companion.plotting import Html, show_table

_LABELS = {"tokens_per_param": "M", "num_params": "N", "relative_penalty": "loss above optimum"}
_LABELS |= {"size_ratio": "N / N*", "compute_factor": "C / C*", "size_at_equal_loss": "N / N*"}
_LABELS |= {"break_even_tokens": "served tokens to break even"}
_STYLES: dict[str, Callable[[float], str]] = {
    "relative_penalty": partial(percent, decimals=1),
    "break_even_tokens": lambda value: count(value, 2),
}


def _with_interval(table: pd.DataFrame, column: str) -> list[str]:
    """Values with their intervals; a dash where there is none."""
    style = _STYLES.get(column, "{:.2f}".format)
    ends = zip(table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True)
    return [
        f"{style(value)} [{style(low).removesuffix(' %')}, {style(high)}]" if np.isfinite(value) else "–"
        for value, low, high in ends
    ]


def _cost_columns(costs: Tables, columns: Sequence[str], name: str, caption: str) -> Html:
    parts = []
    for architecture, table in costs.items():
        texts = {c: _with_interval(table, c) for c in columns if f"{c}_low" in table}
        parts.append(table.assign(architecture=label_of(architecture), **texts))
    chosen = ["architecture", "tokens_per_param", *columns]
    formats: dict[str, str | Callable[[Any], str]]
    formats = {"tokens_per_param": "{:g}", "num_params": count, "size_at_equal_loss": "{:.2f}"}
    return show_table(
        pd.concat(parts, ignore_index=True)[chosen],
        name=name,
        caption=caption,
        formats={column: style for column, style in formats.items() if column in chosen},
        labels={column: text for column, text in _LABELS.items() if column in chosen},
    )


def compute_table(costs: Tables, train_flops: float) -> Html:
    """What a ratio costs and buys at equal compute, of `companion.chapters.ch05.costs` by architecture."""
    return _cost_columns(
        costs,
        ["num_params", "relative_penalty", "size_ratio"],
        "overtraining-cost-compute",
        f"Over-training at equal compute, {power_of_ten(train_flops)} FLOP: a higher loss, and a smaller model. 95 % "
        "bootstrap intervals in brackets. N*: size of the compute-optimal model.",
    )


def loss_table(costs: Tables, train_flops: float) -> Html:
    """What a ratio costs and buys at equal loss, of `companion.chapters.ch05.costs` by architecture."""
    return _cost_columns(
        costs,
        ["compute_factor", "size_at_equal_loss", "break_even_tokens"],
        "overtraining-cost-loss",
        f"Over-training at equal loss: that of the compute-optimal model of {power_of_ten(train_flops)} FLOP (N*, C*). "
        "95 % bootstrap intervals in brackets. A dash: the ratio is at or below the optimum and buys no smaller model.",
    )


def sensitivity_table(sensitivity: Tables, train_flops: float, ratio: float) -> Html:
    """The price of one ratio by other laws, of `companion.fitting.overtraining.cost.penalty_by_law` by architecture."""
    every = pd.concat([table.assign(architecture=label_of(name)) for name, table in sensitivity.items()])
    every["form"] = [
        f"{gamma:.2f}" if free else "1 (fixed)" for gamma, free in zip(every["gamma"], every["gamma_free"], strict=True)
    ]
    every["fitted to"] = [
        f"{design_name(runs)} ({number})" for runs, number in zip(every["runs"], every["num_runs"], strict=True)
    ]
    return show_table(
        every[["architecture", "fitted to", "form", "E", "optimal_ratio", "penalty", "rms"]],
        name="overtraining-laws",
        caption=f"Cost by other laws: that of M = {ratio:g} at {power_of_ten(train_flops)} FLOP, with the number of "
        "runs behind each law. A dash: the runs do not identify the law, or it has no optimum.",
        formats={"E": "{:.2f}", "optimal_ratio": "{:.1f}", "penalty": partial(percent, decimals=1), "rms": "{:.4f}"},
        labels={"form": "γ", "optimal_ratio": "optimal M", "penalty": "loss above optimum", "rms": "rms of ln L"},
    )


def exact_table(fits: Mapping[tuple[tuple[float, ...], float | None], Fit], truth: LossSurface) -> Html:
    """Fits to exact losses of a known law, by the ratios of the design and the γ that was fixed (None: free)."""
    far, rows = (1e9, 5e12), []
    for (ratios, gamma), fit in fits.items():
        row: dict[str, Any] = {"ratios": ", ".join(map(str, ratios)), "γ": "free" if gamma is None else "1"}
        row |= {"status": fit.status, "conditioning": fit.conditioning, "rms": np.sqrt(np.mean(fit.residuals**2))}
        row |= {"α, β": f"{fit.law.alpha:.3f}, {fit.law.beta:.3f}"}
        rows.append(row | {"far": fit.law.predict(*far) / truth.predict(*far) - 1})
    return show_table(
        pd.DataFrame(rows),
        name="overtraining-exact",
        caption="Fits to exact losses of a known law, at fixed ratios M. The law has "
        f"α = {truth.alpha:.3f}, β = {truth.beta:.3f} and γ = {truth.gamma:.3f}. Error far away: of the loss "
        "predicted for 1B parameters and 5T tokens (M = 5000).",
        formats={"conditioning": power_of_ten, "rms": _short_power, "far": partial(signed_percent, decimals=2)},
        labels={"conditioning": "condition number", "rms": "rms of ln L", "far": "error far away"},
    )


def _short_power(value: float) -> str:
    return power_of_ten(value, 1)


def single_table(fits: Mapping[tuple[str, str], Fit]) -> Html:
    """Fits with γ = 1 by architecture and the runs they see."""
    rows = []
    for (name, which), fit in fits.items():
        row: dict[str, Any] = {"architecture": label_of(name), "M": which.removeprefix("M = ").removesuffix(" lines")}
        row |= {"runs": len(fit.data)}
        row |= {"conditioning": fit.conditioning, "α": fit.law.alpha, "β": fit.law.beta}
        rows.append(row | {"status": f"{fit.status}: {fit.status_detail}" if fit.status_detail else fit.status})
    return show_table(
        pd.DataFrame(rows),
        name="overtraining-single",
        caption="Fits to single ratios: the law with γ = 1, fitted to the runs of each ratio and to those of all "
        "lines.",
        formats={"conditioning": power_of_ten, "α": "{:.3f}", "β": "{:.3f}"},
        labels={"conditioning": "condition number"},
    )


def front_table(excess: Tables, penalty: Tables) -> Html:
    """How far the runs of every ratio lie above the front, and above the optimum of the law.

    Parameters
    ----------
    excess, penalty
        by architecture: `excess` and `relative_penalty` by `tokens_per_param`.
    """
    rows = []
    for name, runs in excess.items():
        for ratio, group in runs.groupby("tokens_per_param"):
            said = penalty[name].loc[penalty[name]["tokens_per_param"] == ratio, "relative_penalty"]
            row = {"architecture": label_of(name), "M": ratio, "runs": len(group)}
            ranges = [span_text(values, partial(percent, decimals=1)) for values in (group["excess"], said)]
            rows.append(row | {"front": ranges[0], "law": ranges[1]})
    return show_table(
        pd.DataFrame(rows),
        name="overtraining-front",
        caption="Distances of the over-trained runs, least and largest of each ratio: above the front of all runs, and "
        "by the law above its optimum.",
        formats={"M": "{:g}"},
        labels={"front": "above the front", "law": "above the optimum, by the law"},
    )


# ---- solutions of the exercises ------------------------------------------------------------------


def floors_table(rows: Sequence[tuple[str, float, float, float, float]]) -> Html:
    """Lines after subtracting a floor; rows of architecture, floor, common η, its change per decade, and p of that."""
    return show_table(
        labeled(pd.DataFrame(rows, columns=["architecture", "floor", "η", "bend", "p"])),
        caption="Common exponent, and its change per decade of compute, after a floor is subtracted from every loss.",
        formats={"floor": "{:.2f}", "η": "{:.4f}", "bend": signed, "p": p_text},
        labels={"floor": "floor (nats/token)", "bend": "Δη"},
    )


def serving_table(rows: Sequence[tuple[str, float, float, float, float]]) -> Html:
    """Cheapest ratios; rows of architecture, tokens served, ratio, size, share of all FLOP saved."""
    return show_table(
        labeled(pd.DataFrame(rows, columns=["architecture", "served", "M", "N", "saved"])),
        caption="Cheapest ratio at equal loss, and what it saves against the compute-optimal model.",
        formats={"served": count, "M": "{:.0f}", "N": count, "saved": partial(percent, decimals=1)},
        labels={"served": "tokens served", "saved": "total FLOP saved"},
    )


def sizes_table(rows: Sequence[tuple[str, float, int, float, float, float, float]]) -> Html:
    """Lines without one size; rows of architecture, size, runs, common η, p of parallel lines, bend, and its p."""
    return show_table(
        labeled(pd.DataFrame(rows, columns=["architecture", "without", "runs", "η", "parallel", "bend", "p"])),
        caption="Common exponent, test of parallel lines and change of η per decade of compute, each without one size.",
        formats={"without": count, "η": "{:.4f}", "bend": signed, "parallel": p_text, "p": p_text},
        labels={"without": "without N", "parallel": "p, parallel", "bend": "Δη", "p": "p of Δη"},
    )
