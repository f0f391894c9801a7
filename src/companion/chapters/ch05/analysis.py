"""What chapter 5 computes on top of the library: shorter studies, bends, local exponents, the price by ratio."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.fitting.overtraining import OvertrainingSlopes
from companion.fitting.overtraining.cost import (
    ComputeScale,
    bootstrap_table,
    cost_at_equal_compute,
    cost_at_equal_loss,
    local_slope,
)
from companion.fitting.overtraining.slope_tests import bending_if_possible, detectable_change
from companion.fitting.power_law import fit_power_law
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface

Slopes = Mapping[str, OvertrainingSlopes]
Tables = Mapping[str, pd.DataFrame]


def short_windows(slopes: OvertrainingSlopes, min_runs: int = 3) -> pd.DataFrame:
    """eta from every stretch of neighboring runs of one ratio: what a study with fewer sizes would have found.

    Returns
    -------
    DataFrame with `tokens_per_param`, `num_runs`, `decades` (log10 of largest over smallest compute),
    `middle_flops` (FLOP, geometric mean), `eta`, `eta_standard_error`, and `whole` (all runs of the ratio).
    """
    rows = []
    for ratio, group in slopes.data.groupby("tokens_per_param"):
        flops, loss = group["train_flops"].to_numpy(), group["val_loss"].to_numpy()
        for start in range(len(group)):
            for stop in range(start + min_runs, len(group) + 1):
                c = flops[start:stop]
                if np.unique(c).size < 2:
                    continue
                fit = fit_power_law(c, loss[start:stop])
                rows.append(
                    {
                        "tokens_per_param": ratio,
                        "num_runs": stop - start,
                        "decades": float(np.log10(c[-1] / c[0])),
                        "middle_flops": float(np.exp(np.log(c).mean())),
                        "eta": -fit.law.exponent,
                        "eta_standard_error": fit.exponent_standard_error,
                        "whole": stop - start == len(group),
                    }
                )
    return pd.DataFrame(rows)


def runs_in_no_line(runs: pd.DataFrame, fits: OvertrainingSlopes) -> pd.DataFrame:
    """Runs of the over-training design (all runs where the table names none) that the lines do not use."""
    design = runs[runs["experiment"] == "tokenparam"] if "experiment" in runs else runs
    used = set(zip(fits.data["num_params"], fits.data["num_tokens"], strict=True))
    return design[[key not in used for key in zip(design["num_params"], design["num_tokens"], strict=True)]]


def detectable(power: Mapping[tuple[str, str], pd.DataFrame], slopes: Slopes) -> pd.DataFrame:
    """Changes of η that the tests find in 80 % of simulations.

    Parameters
    ----------
    power
        by architecture and shape, of `companion.fitting.overtraining.slope_tests.slope_power`.

    Returns
    -------
    DataFrame with `architecture` (name), `shape`, `false alarms` (share of p < 0.05 without a change), `f_test`,
    `trend_test` (changes; NaN where even the largest is not found) and `share` (that of the F-test over η).
    """
    rows = []
    for (name, shape), table in power.items():
        row: dict[str, Any] = {"architecture": name, "shape": shape, "false alarms": table["f_test"].iloc[0]}
        row |= {test: detectable_change(table, test) for test in ("f_test", "trend_test")}
        rows.append(row | {"share": row["f_test"] / slopes[name].common_eta})
    return pd.DataFrame(rows)


def bends(slopes: Slopes, implied: Slopes) -> pd.DataFrame:
    """How η changes per decade of compute, in the runs and by the law, with all sizes and without the smallest.

    Parameters
    ----------
    implied
        of `companion.fitting.overtraining.cost.implied_slopes`, by architecture.

    Returns
    -------
    DataFrame with `architecture` (name), `runs` (which sizes), `seen`, `low`, `high` (95 % interval), `p`, and `law`.
    NaN where the runs are too few.
    """
    rows = []
    for name, fits in slopes.items():
        smallest = fits.data["num_params"].min()
        for which in ("all sizes", "without the smallest"):
            seen, law = (
                bending_if_possible(data if which == "all sizes" else data[data["num_params"] > smallest])
                for data in (fits.data, implied[name].data)
            )
            low, high = seen.interval()
            row = {"architecture": name, "runs": which, "seen": seen.value, "low": low, "high": high}
            rows.append(row | {"p": seen.p_value, "law": law.value})
    return pd.DataFrame(rows)


def beyond(
    slopes: Slopes, scales: Mapping[str, ComputeScale], bootstraps: Mapping[str, Bootstrap], factor: float = 100.0
) -> pd.DataFrame:
    """Loss by the line of the smallest ratio and by the law, far beyond the last run of that ratio.

    Returns
    -------
    DataFrame with `architecture` (name), `M`, `flops` (FLOP; `factor` times that of the last run), `line`, `law` and
    the law's 95 % confidence band `low`, `high` (nats per token).
    """
    rows = []
    for name, fits in slopes.items():
        ratio, line = next(iter(fits.laws.items()))
        flops = factor * float(fits.data.loc[fits.data["tokens_per_param"] == ratio, "train_flops"].max())
        size = float(scales[name].num_params(flops, ratio))
        low, high = bootstraps[name].confidence_band(size, ratio * size)
        row = {"architecture": name, "M": ratio, "flops": flops, "line": float(line.law.predict(flops))}
        row |= {"law": float(bootstraps[name].fit.law.predict(size, ratio * size))}
        rows.append(row | {"low": float(low[0]), "high": float(high[0])})
    return pd.DataFrame(rows)


def local_exponents(fits: OvertrainingSlopes, scale: ComputeScale, bootstrap: Bootstrap) -> pd.DataFrame:
    """Local exponents of a law along the smallest and the largest ratio, to ten times the compute of the runs.

    Returns
    -------
    DataFrame with `tokens_per_param`, `train_flops`, `eta`, `low` and `high` (95 % bootstrap interval).
    """
    flops = fits.data["train_flops"]
    grid = np.geomspace(flops.min(), flops.max() * 10, 40)
    ratios = list(fits.laws)
    parts = []
    for ratio in dict.fromkeys((ratios[0], ratios[-1])):

        def curve(law: LossSurface, ratio: float = ratio) -> pd.DataFrame:
            return pd.DataFrame({"eta": local_slope(law, scale, grid, ratio)})

        band = bootstrap_table(bootstrap, curve, ["eta"]).set_axis(["low", "high"], axis=1)
        parts.append(curve(bootstrap.fit.law).join(band).assign(tokens_per_param=ratio, train_flops=grid))
    return pd.concat(parts)


def penalties(fits: OvertrainingSlopes, law: LossSurface, scale: ComputeScale) -> pd.DataFrame:
    """`cost_at_equal_compute` at each ratio, over the compute that its runs span, with a column `train_flops`."""
    points = []
    for ratio, group in fits.data.groupby("tokens_per_param"):
        for flops in np.geomspace(group["train_flops"].min(), group["train_flops"].max(), 12):
            cost = cost_at_equal_compute(law, scale, flops, [float(str(ratio))])
            points.append(cost.assign(train_flops=flops))
    return pd.concat(points)


def costs(bootstrap: Bootstrap, scale: ComputeScale, train_flops: float, ratios: Sequence[float]) -> pd.DataFrame:
    """What every ratio costs at equal compute, and at equal loss, by a law, with 95 % bootstrap intervals.

    Returns
    -------
    DataFrame with `tokens_per_param`, `num_params`, `relative_penalty`, `size_ratio`, `compute_factor`,
    `break_even_tokens` (the last four also with `_low` and `_high`) and `size_at_equal_loss` (N over N*).
    """

    def at_equal_compute(law: LossSurface) -> pd.DataFrame:
        return cost_at_equal_compute(law, scale, train_flops, ratios)

    def at_equal_loss(law: LossSurface) -> pd.DataFrame:
        return cost_at_equal_loss(law, scale, train_flops, ratios)

    law = bootstrap.fit.law
    table = at_equal_compute(law)[["tokens_per_param", "num_params", "relative_penalty", "size_ratio"]]
    equal_loss = at_equal_loss(law)
    table = table.join(equal_loss[["compute_factor", "break_even_tokens"]])
    table["size_at_equal_loss"] = equal_loss["size_ratio"]
    table = table.join(bootstrap_table(bootstrap, at_equal_compute, ["relative_penalty", "size_ratio"]))
    return table.join(bootstrap_table(bootstrap, at_equal_loss, ["compute_factor", "break_even_tokens"]))
