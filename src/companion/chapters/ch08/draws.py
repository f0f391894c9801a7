"""What one resample of the timings did to the published runtime models, and to what is concluded from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval
from companion.inference.one_size import PARAMETERS, InferenceFit
from companion.inference.published import fit_published, published_work
from companion.inference.timings import COLUMNS, measured

#: By architecture, quantity and size: the fit to the published resample, and the fit to every timing once.
DrawnFits = dict[tuple[str, str, str], tuple[InferenceFit, InferenceFit]]


def drawn_and_once(table: pd.DataFrame, *, num_resamples: int = 200, seed: int = 0) -> DrawnFits:
    """Every fit of a table by the published procedure, on its one resample and on every timing once.

    Further resamples belong to the second fit. Sizes without timings, and fits that determine no rate, are left out.
    """
    found: DrawnFits = {}
    for quantity in COLUMNS:
        for name, size in table[["architecture", "model_size"]].drop_duplicates().itertuples(index=False):
            where: Any = (table, name, size, quantity)
            try:
                once = fit_published(*where, every_row_once=True, num_resamples=num_resamples, seed=seed)
            except InputError:
                continue
            if np.isfinite(once.coefficients[0]):
                found[name, quantity, size] = (fit_published(*where, num_resamples=0), once)
    return found


def draw_effects(fits: DrawnFits, level: float = 0.95) -> pd.DataFrame:
    """How far the one resample moved every parameter, beside where resamples put it.

    Returns
    -------
    DataFrame with `architecture`, `quantity`, `model_size`, `parameter`; `drawn` and `once`: the value on the published
    resample and on every timing once; `low`, `high`: interval over resamples; `shift`: drawn / once − 1; `rank`: share
    of the resamples whose value lies below `drawn`.
    """
    rows = []
    for (name, quantity, size), (drawn, once) in fits.items():
        for column, parameter in enumerate(PARAMETERS[once.quantity]):
            low, high = once.interval(parameter, level)
            samples = once.resamples[:, column]
            below = float(np.mean(samples < drawn.coefficients[column])) if len(samples) else np.nan
            rank = below if column else 1 - below  # a rate is the inverse of its coefficient
            values = (drawn.parameters[parameter], once.parameters[parameter], low, high, rank)
            rows.append((name, quantity, size, parameter, *values))
    columns = ["architecture", "quantity", "model_size", "parameter", "drawn", "once", "low", "high", "rank"]
    effects = pd.DataFrame(rows, columns=columns)
    return effects.assign(shift=effects["drawn"] / effects["once"] - 1)


def prefill_ratios(
    table: pd.DataFrame,
    fits: DrawnFits,
    prefill_length: int,
    batch_size: int = 1,
    *,
    first: str = "xlstm",
    second: str = "transformer",
    level: float = 0.95,
) -> pd.DataFrame:
    """Time to first token of one architecture over another's at equal size, measured and by the published form.

    Returns
    -------
    DataFrame with `model_size`, `measured` (NaN where one of the two was not timed), `drawn`, `once`, and `low`, `high`
    over resamples, which are independent for the two.
    """
    rows = []
    for size in [size for name, quantity, size in fits if (name, quantity) == (first, "ttft")]:
        if (second, "ttft", size) not in fits:
            continue
        sides = [_seconds(table, fits[name, "ttft", size], prefill_length, batch_size) for name in (first, second)]
        ratio = {key: sides[0][key] / sides[1][key] for key in sides[0]}
        low, high = percentile_interval(ratio.pop("resamples"), level)
        rows.append(
            {"model_size": size, **{key: float(value) for key, value in ratio.items()}, "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=["model_size", "measured", "drawn", "once", "low", "high"])


def _seconds(
    table: pd.DataFrame, fits: tuple[InferenceFit, InferenceFit], prefill_length: int, batch_size: int
) -> Mapping[str, Any]:
    drawn, once = fits
    rows = measured(table, once.architecture, once.quantity, once.model_size)
    at = rows[(rows["prefill_length"] == prefill_length) & (rows["batch_size"] == batch_size)]
    one = rows.iloc[[0]].assign(prefill_length=prefill_length, batch_size=batch_size)
    terms = np.array([published_work(one, once.quantity)[0], 1.0])
    order = np.random.default_rng(len(once.architecture)).permutation(len(once.resamples))
    return {
        "measured": at[COLUMNS[once.quantity]].mean(),
        "drawn": drawn.coefficients @ terms,
        "once": once.coefficients @ terms,
        "resamples": once.resamples[order] @ terms,
    }
