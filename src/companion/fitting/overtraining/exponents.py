"""Loss over compute at a fixed ratio of tokens to parameters.

Source: arXiv 2510.02228, over-training section; the form is L(C) = lambda·C^-eta for every ratio M = D/N.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.errors import InputError, NotApplicable
from companion.fitting.overtraining.groups import (
    MIN_RUNS,
    PRESET_RATIOS,
    RATIO_TOLERANCE,
    RatioGroups,
    distinct_computes,
    group_by_ratio,
    ratio_groups,
    tokens_per_param_preset,
)
from companion.fitting.power_law import PowerLawFit, fit_power_law
from companion.fitting.results import Result, check_name

__all__ = [
    "PRESET_RATIOS",
    "RATIO_TOLERANCE",
    "OvertrainingSlopes",
    "RatioGroups",
    "fit_overtraining",
    "fit_overtraining_slopes",
    "fit_slopes_by_ratio",
    "group_by_ratio",
    "ratio_groups",
    "tokens_per_param_preset",
]

#: More ratios without a line than this are listed in one sentence.
_LISTED = 8
#: Squared residuals of log loss per run below which a line is exact but for rounding.
_NO_SCATTER = 1e-24


def fit_overtraining(runs: pd.DataFrame, ratio: float, train_flops: ArrayLike | None = None) -> PowerLawFit:
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

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> line = fit_overtraining(subset(load_paper_runs(), "xlstm"), 220.0)
    >>> print(f"eta = {-line.law.exponent:.4f}")
    eta = 0.0467
    """
    flops = runs["train_flops"] if train_flops is None else train_flops
    chosen = tokens_per_param_preset(runs) == ratio
    return fit_power_law(np.asarray(flops, dtype=float)[chosen], runs["val_loss"].to_numpy(dtype=float)[chosen])


@dataclass(frozen=True, kw_only=True)
class OvertrainingSlopes(Result):
    """Power laws of loss over compute by ratio, and a test whether they are parallel.

    `laws` maps the ratio to its fit (exponent −eta). `common_eta` is the slope of parallel lines with an intercept
    each. `f_statistic` compares own slopes with a common one on (`f_degrees[0]`, `f_degrees[1]`) degrees of freedom;
    `p_value` is small when the slopes differ by more than the scatter about the lines explains; NaN where the lines
    are exact. `data` holds the runs that were used: tokens_per_param, num_params, num_tokens, train_flops, val_loss
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

    def interval(self, name: str = "common_eta", level: float = 0.95) -> tuple[float, float]:
        """Student-t interval of `common_eta`; that of one line is `laws[ratio].interval("exponent")`."""
        check_name(name, ("common_eta",), "a set of slopes")
        degrees = len(self.data) - len(self.laws) - 1
        half = stats.t.ppf((1 + level) / 2, degrees) * self.common_eta_standard_error if degrees > 0 else np.nan
        return (float(self.common_eta - half), float(self.common_eta + half))

    def table(self) -> pd.DataFrame:
        """One row per ratio: tokens_per_param, num_runs, eta, eta_standard_error, lambda."""
        return pd.DataFrame(
            [
                {
                    "tokens_per_param": ratio,
                    "num_runs": fit.residuals.size,
                    "eta": -fit.law.exponent,
                    "eta_standard_error": fit.exponent_standard_error,
                    "lambda": fit.law.prefactor,
                }
                for ratio, fit in self.laws.items()
            ]
        )


def fit_overtraining_slopes(
    runs: pd.DataFrame,
    train_flops: ArrayLike | None = None,
    keep_left_out: bool = False,
    tolerance: float = RATIO_TOLERANCE,
) -> OvertrainingSlopes:
    """Slopes of all ratios with at least three runs, and the test of parallel lines (analysis of covariance).

    Parameters
    ----------
    runs
        a run table of one architecture. Runs of the design `tokenparam` about the paper's presets carry their names;
        any other table keeps the ratios that it has (`companion.fitting.overtraining.groups`).
    train_flops
        FLOP by another count, shape (n,).
    keep_left_out
        keep runs whose column `left_out_of_published_slopes` is 1; they are left out as published otherwise.
    tolerance
        as in `tokens_per_param_preset`.

    Raises
    ------
    NotApplicable
        if no ratio has three runs of different compute.
    InputError
        if runs of several architectures are mixed.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> slopes = fit_overtraining_slopes(subset(load_paper_runs(), "xlstm"))
    >>> print(f"common eta = {slopes.common_eta:.4f}")
    common eta = 0.0465
    """
    if "architecture" in runs and len(names := sorted(runs["architecture"].dropna().unique())) > 1:
        raise InputError(f"runs of several architecture values are mixed ({', '.join(names)}): choose one")
    flops = np.asarray(runs["train_flops"] if train_flops is None else train_flops, dtype=float)
    groups = group_by_ratio(runs, tolerance)
    ratios, notes = groups.ratios, list(groups.warnings)
    if "left_out_of_published_slopes" in runs and not keep_left_out:
        left_out = (runs["left_out_of_published_slopes"] == 1).to_numpy() & np.isfinite(ratios)
        ratios = np.where(left_out, np.nan, ratios)
        if left_out.any():
            notes.append(f"{left_out.sum()} run left out as published (column left_out_of_published_slopes)")
    used = np.isfinite(ratios)
    if "context_length" in runs and len(contexts := np.unique(runs.loc[used, "context_length"].dropna())) > 1:
        notes.append(f"one line for several context_length values: {', '.join(f'{value:g}' for value in contexts)}")
    data = runs[["num_params", "num_tokens", "val_loss"]].astype(float).assign(tokens_per_param=ratios)
    try:
        slopes = fit_slopes_by_ratio(data.assign(train_flops=flops)[used])
    except NotApplicable as error:
        raise NotApplicable("; ".join([str(error), *notes])) from error
    return replace(slopes, warnings=(*notes, *slopes.warnings))


def fit_slopes_by_ratio(data: pd.DataFrame) -> OvertrainingSlopes:
    """As `fit_overtraining_slopes`, for runs whose ratio is given.

    Parameters
    ----------
    data
        columns tokens_per_param, num_params, num_tokens, train_flops, val_loss.

    Raises
    ------
    NotApplicable
        if no ratio has three runs of different compute.

    Examples
    --------
    >>> import numpy as np
    >>> flops = np.geomspace(1e18, 1e20, 4)
    >>> runs = pd.DataFrame({"num_params": 1e8, "num_tokens": 2e9, "train_flops": flops, "val_loss": 30 * flops**-0.05})
    >>> print(f"{fit_slopes_by_ratio(runs.assign(tokens_per_param=20.0)).common_eta:.3f}")
    0.050
    """
    laws: dict[float, PowerLawFit] = {}
    short: dict[float, str] = {}
    parts = []
    for ratio, group in data.groupby("tokens_per_param"):
        if (computes := distinct_computes(group["train_flops"])) < MIN_RUNS:
            number = f"{len(group)} run{'s' * (len(group) > 1)}"
            equal = f" of {computes} different compute{'s' * (computes > 1)}" if len(group) >= MIN_RUNS else ""
            short[float(str(ratio))] = f"{number}{equal}, fewer than 3, left out"
            continue
        part = group.sort_values("train_flops", kind="stable")
        fit = fit_power_law(part["train_flops"], part["val_loss"])
        laws[float(str(ratio))] = fit
        parts.append(part.assign(residual=fit.residuals))
    notes = _without_a_line(short)
    if not laws:
        raise NotApplicable("; ".join(["over-training: no ratio of tokens to parameters has three runs", *notes]))
    own_squares = sum(float((part["residual"] ** 2).sum()) for part in parts)
    centered = [(_centered(part["train_flops"]), _centered(part["val_loss"])) for part in parts]
    spread = sum(float((x**2).sum()) for x, _ in centered)
    slope = sum(float((x * y).sum()) for x, y in centered) / spread
    common_squares = sum(float(((y - slope * x) ** 2).sum()) for x, y in centered)
    num_runs, num_laws = sum(x.size for x, _ in centered), len(laws)
    degrees = (num_laws - 1, num_runs - 2 * num_laws)
    f_statistic = float("nan")
    exact = own_squares <= _NO_SCATTER * num_runs
    if exact:
        notes.append("the lines go through all runs exactly: no scatter to judge them by")
    elif degrees[0] == 0:
        notes.append("one ratio only: there is nothing to compare its slope with")
    elif degrees[1] == 0:
        notes.append("as many runs as the lines have parameters: no scatter to compare slopes by")
    if degrees[0] > 0 and degrees[1] > 0 and not exact:
        f_statistic = max(common_squares - own_squares, 0.0) / degrees[0] / (own_squares / degrees[1])
    columns = ["tokens_per_param", "num_params", "num_tokens", "train_flops", "val_loss", "residual"]
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


def _without_a_line(short: dict[float, str]) -> list[str]:
    """A sentence per ratio with too few runs, or one for all of them where they are many."""
    if len(short) <= _LISTED:
        return [f"ratio {ratio:g}: {reason}" for ratio, reason in short.items()]
    numbers = ", ".join(f"{ratio:g}" for ratio in list(short)[:_LISTED])
    return [f"{len(short)} ratios have fewer than 3 runs of different compute, left out: {numbers}, ..."]


def _centered(values: pd.Series) -> NDArray[np.float64]:
    logs = np.log(values.to_numpy(dtype=float))
    return np.asarray(logs - logs.mean())
