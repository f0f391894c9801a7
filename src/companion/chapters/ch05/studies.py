"""What chapter 5 compares: slopes by choice and by count, a column read in two ways, studies of a known law."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from companion.accounting import Convention
from companion.chapters.ch05.analysis import Slopes, Tables
from companion.fitting.overtraining import OvertrainingSlopes, fit_overtraining_slopes
from companion.fitting.pareto import ParetoFront
from companion.laws import LossSurface
from companion.runs.recount import missing_for_recount, recount


def slopes_by_choice(tables: Tables, widths: Iterable[float]) -> dict[tuple[str, float, bool], OvertrainingSlopes]:
    """The lines by architecture, width of the window about a ratio, and whether the left-out run is kept.

    Parameters
    ----------
    tables
        runs by architecture.
    widths
        how far D/N may lie from a preset ratio, relative.
    """
    return {
        (name, width, keep): fit_overtraining_slopes(table, keep_left_out=keep, tolerance=width)
        for name, table in tables.items()
        for width in widths
        for keep in (False, True)
    }


def slopes_by_convention(
    tables: Tables, conventions: Sequence[Convention], *, keep_left_out: bool, tolerance: float
) -> tuple[dict[tuple[str, str], OvertrainingSlopes], str]:
    """The lines by architecture and convention, and what keeps the runs from being counted again.

    Parameters
    ----------
    tables
        runs by architecture.
    keep_left_out, tolerance
        of `companion.fitting.overtraining.fit_overtraining_slopes`.

    Returns
    -------
    The lines by architecture and the convention's name, none where a table cannot be counted; the reasons, empty if
    all tables can.
    """
    lacks = dict.fromkeys(map(missing_for_recount, tables.values()))
    if missing := "; ".join(filter(None, lacks)):
        return {}, missing
    counted = {
        (name, convention.name): fit_overtraining_slopes(
            table, recount(table, convention), keep_left_out=keep_left_out, tolerance=tolerance
        )
        for name, table in tables.items()
        for convention in conventions
    }
    return counted, ""


def readings(slopes: Slopes) -> list[tuple[str, str, pd.Series, pd.Series]]:
    """The exponents of every architecture with their standard errors, and with the squares taken for such.

    Returns
    -------
    Rows of architecture, what the column is read as (standard error, variance), the exponents by ratio, and the column.
    An architecture with a single line is left out: there is nothing to compare.
    """
    rows = []
    for name, fits in slopes.items():
        lines = fits.table()
        eta, error = lines["eta"], lines["eta_standard_error"]
        if len(eta) > 1:
            rows += [(name, "standard error", eta, error), (name, "variance", eta, error**2)]
    return rows


def above_front(runs: pd.DataFrame, front: ParetoFront) -> pd.DataFrame:
    """Runs with a column `excess`: their loss above a front at the same compute, relative."""
    return runs.assign(excess=runs["val_loss"] / front.loss_at(runs["train_flops"]) - 1)


def exact_runs(truth: LossSurface, ratios: Sequence[float]) -> pd.DataFrame:
    """Twelve sizes from 150M to 7B parameters at each ratio, with exactly the losses of a law.

    Returns
    -------
    DataFrame with `num_params`, `num_tokens` and `val_loss` (nats per token).
    """
    n, m = (grid.ravel() for grid in np.meshgrid(np.geomspace(1.5e8, 7e9, 12), ratios))
    return pd.DataFrame({"num_params": n, "num_tokens": m * n, "val_loss": truth.predict(n, m * n)})


def cheapest(scan: pd.DataFrame, served: float) -> tuple[float, float, float]:
    """The ratio of least FLOP for training and serving together, among models of equal loss.

    Parameters
    ----------
    scan
        of `companion.fitting.overtraining.cost.cost_at_equal_loss`.
    served
        tokens, at 2N FLOP each.

    Returns
    -------
    M, N, and the share of all FLOP that the model saves against the compute-optimal one.
    """
    total = scan["train_flops"] + 2 * scan["num_params"] * served
    best = scan.iloc[int(total.argmin())]
    optimal = best["train_flops"] / best["compute_factor"] + 2 * best["num_params"] / best["size_ratio"] * served
    return float(best["tokens_per_param"]), float(best["num_params"]), 1 - float(total.min()) / float(optimal)
