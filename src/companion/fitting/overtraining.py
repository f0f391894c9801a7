"""Loss over compute at a fixed ratio of tokens to parameters.

Source: arXiv 2510.02228, over-training section; the form is L(C) = lambda·C^-eta for every ratio M = D/N.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.power_law import PowerLawFit, fit_power_law

#: Tokens per parameter that the Token/Param runs aim at.
PRESET_RATIOS = (22.0, 44.0, 110.0, 220.0, 550.0, 1100.0, 2200.0)
#: A run belongs to a preset when its ratio is this close to it.
RATIO_TOLERANCE = 0.18


def token_param_preset(runs: pd.DataFrame, tolerance: float = RATIO_TOLERANCE) -> NDArray[np.float64]:
    """The preset ratio of every run of the Token/Param design; NaN where none is within 18 %.

    Parameters
    ----------
    runs
        a run table, n rows; where it has no column `experiment`, every run counts.
    tolerance
        relative distance from the preset, above 0.

    Returns
    -------
    array
        float64, shape (n,).
    """
    ratio = (runs["num_tokens"] / runs["num_params"]).to_numpy(dtype=float)
    presets = np.array(PRESET_RATIOS)
    nearest = presets[np.argmin(np.abs(np.log(ratio[:, None] / presets)), axis=1)]
    result = np.where(np.abs(ratio / nearest - 1) <= tolerance, nearest, np.nan)
    if "experiment" in runs:
        result[(runs["experiment"] != "tokenparam").to_numpy()] = np.nan
    return result


def fit_overtraining(runs: pd.DataFrame, ratio: float, train_flops: Any = None) -> PowerLawFit:
    """The power law of loss over compute at one preset ratio; its exponent is −eta.

    Parameters
    ----------
    runs
        a run table, n rows, of one architecture.
    ratio
        one of `PRESET_RATIOS`.
    train_flops
        FLOP by another count, shape (n,); the column of the table if not given.

    Raises
    ------
    InputError
        if fewer than two runs belong to the ratio.
    """
    flops = runs["train_flops"] if train_flops is None else train_flops
    chosen = token_param_preset(runs) == ratio
    return fit_power_law(np.asarray(flops, dtype=float)[chosen], runs["val_loss"].to_numpy(dtype=float)[chosen])


@dataclass(frozen=True, kw_only=True)
class OvertrainingSlopes:
    """Power laws of loss over compute by ratio, and a test whether they are parallel.

    `laws` maps the ratio to its fit (exponent −eta). `common_eta` is the slope of parallel lines with an intercept
    each. `f_statistic` compares own slopes with a common one on (`f_degrees[0]`, `f_degrees[1]`) degrees of freedom;
    `p_value` is small when the slopes differ by more than the scatter about the lines explains; NaN where the lines
    are exact. `data` holds the runs that were used: token_param_ratio, num_params, num_tokens, train_flops, val_loss
    and `residual` (log loss minus the run's own line).
    """

    laws: dict[float, PowerLawFit]
    common_eta: float
    common_eta_standard_error: float
    f_statistic: float
    f_degrees: tuple[int, int]
    p_value: float
    warnings: tuple[str, ...]
    data: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """One row per ratio: token_param_ratio, num_runs, eta, eta_standard_error, lambda."""
        return pd.DataFrame(
            [
                {
                    "token_param_ratio": ratio,
                    "num_runs": fit.residuals.size,
                    "eta": -fit.law.exponent,
                    "eta_standard_error": fit.exponent_standard_error,
                    "lambda": fit.law.prefactor,
                }
                for ratio, fit in self.laws.items()
            ]
        )


def ratio_groups(runs: pd.DataFrame, gap: float = 0.12) -> NDArray[np.float64]:
    """A ratio of tokens to parameters for every run of a table that aims at no known presets, shape (n,).

    Runs are sorted by log10 of D/N; a gap above `gap` (decades) starts a new group, named by the geometric mean of its
    ratios to two digits. Runs of the design `isoflop`, where the table says so, belong to none (NaN).

    Raises
    ------
    InputError
        if a group is wider than twice the gap: then the runs form no separate ratios.
    """
    log_ratio = np.log10((runs["num_tokens"] / runs["num_params"]).to_numpy(dtype=float))
    chosen = np.ones(len(runs), dtype=bool)
    if "experiment" in runs:
        chosen = (runs["experiment"] != "isoflop").to_numpy()
    result = np.full(len(runs), np.nan)
    at = np.flatnonzero(chosen)
    at = at[np.argsort(log_ratio[at], kind="stable")]
    for group in np.split(at, np.flatnonzero(np.diff(log_ratio[at]) > gap) + 1):
        if group.size:
            low, high = log_ratio[group[[0, -1]]]
            if high - low > 2 * gap:
                raise InputError(
                    f"over-training: tokens per parameter from {10**low:.3g} to {10**high:.3g} form no separate ratios "
                    f"(no gap above {gap:g} in log10)"
                )
            result[group] = float(f"{10 ** log_ratio[group].mean():.1e}")
    return result


def fit_overtraining_slopes(
    runs: pd.DataFrame,
    train_flops: Any = None,
    keep_left_out: bool = False,
    tolerance: float = RATIO_TOLERANCE,
) -> OvertrainingSlopes:
    """Slopes of all ratios with at least three runs, and the test of parallel lines (analysis of covariance).

    Parameters
    ----------
    runs
        a run table of one architecture. Where it has runs of the design `tokenparam` near the paper's presets, those
        are the groups; otherwise `ratio_groups` finds them.
    train_flops
        FLOP by another count, shape (n,).
    keep_left_out
        keep runs whose column `left_out_of_published_slopes` is 1; they are left out as published otherwise.
    tolerance
        as in `token_param_preset`.

    Raises
    ------
    InputError
        if no ratio has three runs of different compute.
    """
    if "architecture" in runs and len(names := sorted(runs["architecture"].dropna().unique())) > 1:
        raise InputError(f"runs of several architecture values are mixed ({', '.join(names)}): choose one")
    flops = np.asarray(runs["train_flops"] if train_flops is None else train_flops, dtype=float)
    presets = token_param_preset(runs, tolerance)
    known = "experiment" in runs and np.isfinite(presets).any()
    ratios = presets if known else ratio_groups(runs)
    notes: list[str] = []
    if "left_out_of_published_slopes" in runs and not keep_left_out:
        left_out = (runs["left_out_of_published_slopes"] == 1).to_numpy() & np.isfinite(ratios)
        ratios = np.where(left_out, np.nan, ratios)
        if left_out.any():
            notes.append(f"{left_out.sum()} run left out as published (column left_out_of_published_slopes)")
    data = runs[["num_params", "num_tokens", "val_loss"]].astype(float).assign(token_param_ratio=ratios)
    slopes = fit_slopes_by_ratio(data.assign(train_flops=flops).dropna(subset="token_param_ratio"))
    return replace(slopes, warnings=(*notes, *slopes.warnings))


def fit_slopes_by_ratio(data: pd.DataFrame) -> OvertrainingSlopes:
    """As `fit_overtraining_slopes`, for runs whose ratio is given.

    Parameters
    ----------
    data
        columns token_param_ratio, num_params, num_tokens, train_flops, val_loss.
    """
    laws: dict[float, PowerLawFit] = {}
    notes, parts = [], []
    for ratio, group in data.groupby("token_param_ratio"):
        if group["train_flops"].nunique() < 3:
            notes.append(f"ratio {ratio:g}: {len(group)} run{'s' * (len(group) > 1)}, fewer than 3, left out")
            continue
        part = group.sort_values("train_flops", kind="stable")
        fit = fit_power_law(part["train_flops"], part["val_loss"])
        laws[float(str(ratio))] = fit
        parts.append(part.assign(residual=fit.residuals))
    if not laws:
        raise InputError("; ".join(["over-training: no ratio of tokens to parameters has three runs", *notes]))
    own_squares = sum(float((part["residual"] ** 2).sum()) for part in parts)
    centred = [(_centred(part["train_flops"]), _centred(part["val_loss"])) for part in parts]
    spread = sum(float((x**2).sum()) for x, _ in centred)
    slope = sum(float((x * y).sum()) for x, y in centred) / spread
    common_squares = sum(float(((y - slope * x) ** 2).sum()) for x, y in centred)
    num_runs, num_laws = sum(x.size for x, _ in centred), len(laws)
    degrees = (num_laws - 1, num_runs - 2 * num_laws)
    f_statistic = float("nan")
    # below 1e-24 per run the lines are exact but for rounding: nothing to test against
    if degrees[0] > 0 and degrees[1] > 0 and own_squares > 1e-24 * num_runs:
        f_statistic = max(common_squares - own_squares, 0.0) / degrees[0] / (own_squares / degrees[1])
    columns = ["token_param_ratio", "num_params", "num_tokens", "train_flops", "val_loss", "residual"]
    return OvertrainingSlopes(
        laws=laws,
        common_eta=-slope,
        common_eta_standard_error=float(np.sqrt(common_squares / max(num_runs - num_laws - 1, 1) / spread)),
        f_statistic=f_statistic,
        f_degrees=degrees,
        p_value=float(stats.f.sf(f_statistic, *degrees)) if np.isfinite(f_statistic) else float("nan"),
        warnings=tuple(notes),
        data=pd.concat(parts, ignore_index=True)[columns],
    )


def _centred(values: pd.Series) -> NDArray[np.float64]:
    logs = np.log(values.to_numpy(dtype=float))
    return np.asarray(logs - logs.mean())
