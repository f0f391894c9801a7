"""The first screen of the chapter: how the optima move with the context, and what the FLOPs of a token predict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER, Convention
from companion.chapters.applicability import optional
from companion.chapters.ch07.figures import context_ticks, handle
from companion.chapters.ch07.words import change_text, context_range, start_text, value_text
from companion.chapters.labels import SYMBOLS, label_of
from companion.fitting.context.costs import shares_at_optima
from companion.fitting.context.prediction import NOTHING_MOVES, SAME_RUNS, Explanation, explain
from companion.fitting.context.scaling import ContextFit
from companion.formatting import span_text
from companion.plotting import Html, show, show_table
from companion.plotting.style import INK, LABELS, architecture_look, subplots

#: How the answer speaks of a change of N* and of D*.
WORDS = {"num_params": ("larger", "smaller"), "num_tokens": ("more", "fewer")}
_DODGE = 1.05
_NOTHING = "–"


def first_look(
    fits: Mapping[str, ContextFit],
    starts: Mapping[str, int],
    gamma: float | None = None,
    convention: str | Convention = PAPER,
) -> dict[str, Explanation]:
    """Predictions for the same runs by the law of one context, and what would be if nothing moved.

    Parameters
    ----------
    fits, starts
        by architecture: the measured optima, and the context of the law (tokens).
    gamma, convention
        as in `explain`.

    Returns
    -------
    dict
        by architecture, as far as its runs determine the law.
    """
    looks = {}
    for name, fit in fits.items():
        methods = [SAME_RUNS, NOTHING_MOVES]
        each = optional(explain, fit, fit_context=starts[name], gamma=gamma, convention=convention, methods=methods)
        if each is not None and each.law_fit.identified:
            looks[name] = each
    return looks


def measured_shifts(fit: ContextFit, start: int, quantity: str) -> pd.DataFrame:
    """x\\*(T) / x\\*(T0), the mean over the budgets that have both.

    Returns
    -------
    DataFrame
        `context_length`, `measured` with `_low` and `_high` (95 %); 1 without an interval at `start`.
    """
    rows = []
    for length in fit.context_lengths:
        values = (1.0, np.nan, np.nan) if length == start else optional(fit.change, quantity, start, length)
        if values is not None:  # some budget has both
            rows.append((length, *values))
    return pd.DataFrame(rows, columns=["context_length", "measured", "measured_low", "measured_high"])


def show_answer_figure(
    fits: Mapping[str, ContextFit], starts: Mapping[str, int], looks: Mapping[str, Explanation]
) -> Html:
    """Measured and predicted shifts of both optima; looks from `first_look`."""
    figure, axes = subplots(1, 2, height=2.9, sharey=True)
    names = architecture_look(fits)
    for ax, (quantity, symbol) in zip(axes, SYMBOLS.items(), strict=True):
        ax.axhline(1.0, color=INK, linewidth=0.8)
        for place, (name, look) in enumerate(names.items()):
            dodge = _DODGE ** (2 * place - len(names) + 1)
            seen = measured_shifts(fits[name], starts[name], quantity)
            value = seen["measured"]
            bars = np.nan_to_num(np.stack([value - seen["measured_low"], seen["measured_high"] - value]))
            ax.errorbar(
                seen["context_length"] * dodge, value, yerr=np.maximum(bars, 0), color=look["color"],
                marker=look["marker"], markersize=6, linewidth=0, elinewidth=1.4,
            )  # fmt: skip
            if name in looks:
                said = _predicted(looks[name], quantity)
                dashes = "--" if place % 2 == 0 else ":"
                ax.plot(said["context_length"] * dodge, said["predicted"], dashes, color=look["color"], linewidth=1.6)
        ax.set(xscale="log", xlabel=LABELS["context_length"], title=f"best {_NOUNS[quantity]} {symbol}")
        context_ticks(ax.xaxis, sorted({length for fit in fits.values() for length in fit.context_lengths}))
    axes[0].set_ylabel(f"relative to T = {_start(starts)}")
    handles = [handle(look["label"], marker=look["marker"], color=look["color"]) for look in names.values()]
    handles += [
        handle(f"{look['label']}, predicted", dashes="--" if place % 2 == 0 else ":", color=look["color"])
        for place, (name, look) in enumerate(names.items())
        if name in looks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    return show(
        figure,
        name="context-answer",
        alt="Best size and best number of tokens over the context, relative to the context of the law: measured and "
        "predicted.",
        caption=f"The optima at equal compute, relative to those at T = {_start(starts)} (mean over the budgets, 95 % "
        "intervals). Lines: what the law of that one context predicts from the FLOPs per token. Where points leave "
        "their line, the FLOPs do not explain the shift.",
    )


_NOUNS = {"num_params": "size", "num_tokens": "number of tokens"}


def _start(starts: Mapping[str, int]) -> str:
    return " and ".join(map(str, sorted(set(starts.values()))))


def _predicted(look: Explanation, quantity: str) -> pd.DataFrame:
    """Predicted shifts for the same runs, ascending contexts, 1 at the context of the law."""
    pooled = look.pooled_shifts()
    rows = pooled[(pooled["method"] == SAME_RUNS) & (pooled["quantity"] == quantity)]
    start = pd.DataFrame({"context_length": [look.fit_context], "predicted": [1.0]})
    return pd.concat([rows[["context_length", "predicted"]], start]).sort_values("context_length")


def show_answer(
    fits: Mapping[str, ContextFit], looks: Mapping[str, Explanation], convention: str | Convention = PAPER
) -> Html:
    """The answer in numbers: a row per fact, a column per architecture; looks from `first_look`."""
    first, last = context_range(fits.values())
    columns = {name: _answers(fit, looks.get(name), convention) for name, fit in fits.items()}
    start = start_text(looks) if looks else ""
    heads = [
        f"best size N*, T = {first} to {last}",
        f"best number of tokens D*, T = {first} to {last}",
        f"share of attention or mLSTM core in compute, T = {first}",
        f"the same share, T = {last}",
        f"shift of N* from T = {start} to {last}: measured / predicted",
        "the same if prices stayed as they are",
    ]
    table = pd.DataFrame({"at equal compute": heads} | {label_of(name): texts for name, texts in columns.items()})
    return show_table(
        table if looks else table.iloc[:2],
        name="context-answer",
        caption="The answer in numbers, with 95 % intervals: means over the budgets, for shares the range over them.",
    )


def _answers(fit: ContextFit, look: Explanation | None, convention: str | Convention) -> list[str]:
    """The cells of one architecture."""
    lengths = fit.context_lengths
    texts = []
    for quantity, words in WORDS.items():
        change = optional(fit.change, quantity, lengths[0], lengths[-1])
        if change is None:
            texts.append(_NOTHING)
        else:
            factor, low, high = change
            texts.append(change_text(factor, low, high, words))
    if look is None:
        return texts + [_NOTHING] * 4
    shares = shares_at_optima(fit, look.family, convention)
    for length in (lengths[0], lengths[-1]):
        texts.append(span_text(shares.loc[shares["context_length"] == length, "core_share"]))
    pooled = look.pooled_shifts()
    chosen = (pooled["quantity"] == "num_params") & (pooled["context_length"] == lengths[-1])
    for method in (SAME_RUNS, NOTHING_MOVES):
        rows = pooled[chosen & (pooled["method"] == method)].to_dict("records")
        texts.append(_ratio(rows[0]) if rows else _NOTHING)
    return texts


def _ratio(row: Mapping[Any, Any]) -> str:
    return value_text(row["ratio"], row["ratio_low"], row["ratio_high"], "{:.2f}".format)
