"""The first screen of chapter 4: the laws, the scatter of the runs, and the error at the most expensive run."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import optional
from companion.chapters.ch04.shown import Fits, Tables
from companion.chapters.ch04.words import off_by
from companion.chapters.labels import by_label, label_of
from companion.fitting.diagnostics import furthest_run_errors
from companion.fitting.extrapolation import Extrapolation, default_cutoffs, extrapolate
from companion.fitting.fit import Fit
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import interval, percent, power_of_ten, signed_percent
from companion.plotting import Html, show_table

_SHOWN = {"E": "E (nats/token)", "alpha": "α", "beta": "β", "gamma": "γ"}


def rms(fit: Fit) -> float:
    """Root mean square of the log residuals."""
    return float(np.sqrt(np.mean(fit.residuals**2)))


def cheaper_fits(tables: Tables, gamma: float | None, huber_delta: float) -> dict[str, pd.Series]:
    """The fit to the cheaper runs of every architecture, and its error at the run with the most compute.

    The cut-off is the middle one of `companion.fitting.extrapolation.default_cutoffs`.

    Returns
    -------
    dict
        by architecture, where the runs below the cut-off identify the law: a row of
        `companion.fitting.diagnostics.furthest_run_errors`.
    """
    found = {name: optional(_below_the_middle, table, gamma, huber_delta) for name, table in tables.items()}
    sound = {name: each for name, each in found.items() if each is not None and each[0].fit.identified}
    return {name: furthest_run_errors(each).iloc[0] for name, each in sound.items()}


def _below_the_middle(table: pd.DataFrame, gamma: float | None, huber_delta: float) -> Sequence[Extrapolation]:
    cutoffs = default_cutoffs(table)
    return extrapolate(table, [cutoffs[len(cutoffs) // 2]], gamma=gamma, huber_delta=huber_delta)


def size_resamples(fits: Fits, num_resamples: int, seed: int) -> dict[str, Bootstrap | None]:
    """Bootstrap over model sizes by architecture; None where the table has too few sizes."""
    return {
        name: optional(fitted.bootstrap, num_resamples, seed=seed, cluster="num_params")
        for name, fitted in fits.items()
    }


def answer_facts(fits: Fits, cheaper: Mapping[str, pd.Series]) -> dict[str, str]:
    """The largest scatter of the runs about their law, and how far fits to cheaper runs miss the most expensive one."""
    errors = [float(np.expm1(row["log_error"])) for row in cheaper.values()]
    beyond = "The cheaper runs alone do not determine it, so it cannot be tested on runs that it has not seen"
    if errors:
        beyond = f"Fitted to the cheaper runs only, it predicts the loss of the most expensive run {off_by(errors)}"
    return {
        "c4_answer_scatter": percent(max(rms(fitted) for fitted in fits.values())),
        "c4_answer_beyond": beyond,
    }


def answer_table(
    fits: Fits, by_sizes: Mapping[str, Bootstrap | None], cheaper: Mapping[str, pd.Series], context_length: int | None
) -> Html:
    """The law with its intervals, its scatter, and its error at the most expensive run; a column per architecture.

    Parameters
    ----------
    by_sizes
        of `size_resamples`.
    cheaper
        of `cheaper_fits`.
    """
    rows = [{"quantity": text} | _values(fits, by_sizes, key) for key, text in _SHOWN.items()]
    rows.append({"quantity": "scatter of the runs (rms)"} | {label_of(n): percent(rms(f)) for n, f in fits.items()})
    caption = (
        f"The law of each architecture from {sum(fit.num_rows for fit in fits.values())} runs"
        f"{f' at T = {context_length}' if context_length else ''}, with 95 % intervals (bootstrap over model sizes)."
    )
    if cheaper:
        errors = {label_of(name): signed_percent(np.expm1(row["log_error"]), 1) for name, row in cheaper.items()}
        rows.append({"quantity": "error beyond its runs"} | errors)
        cutoffs = {name: f"{power_of_ten(row['cutoff'])} FLOP" for name, row in cheaper.items()}
        caption += (
            " Error beyond its runs: error of the predicted loss of the run with the most compute, from the runs up to "
            f"{by_label(cutoffs)} only."
        )
    return show_table(pd.DataFrame(rows), name="surface-answer", caption=caption, labels={"quantity": "law"})


def _values(fits: Fits, by_sizes: Mapping[str, Bootstrap | None], key: str) -> dict[str, str]:
    """A parameter of every law, with its interval where there is one."""
    texts = {}
    for name, fitted in fits.items():
        drawn = by_sizes[name]
        ends = (float("nan"), float("nan")) if drawn is None else drawn.interval(key)
        shown = f" {interval(ends, 2)}" if np.isfinite(ends[0]) else ""
        texts[label_of(name)] = f"{fitted.parameters[key]:.2f}{shown}"
    return texts
