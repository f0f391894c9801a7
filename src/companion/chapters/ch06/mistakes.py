"""What optimizer, rounding, repeated rows, metrics, errors and the form of the law do to a fit, on any run table.

Every function takes a fit or a table and returns a small table that shows one mistake beside the right way.
`companion.chapters.ch06.designs` does the same for the design of a study and its bookkeeping.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import huber

from companion.chapters.ch06.designs import size_exponent
from companion.fitting.fit import Fit, fit
from companion.fitting.isoflop.select import isoflop_runs
from companion.fitting.multistart import SETTINGS, Multistart, reference_multistart
from companion.fitting.overtraining.exponents import OvertrainingSlopes
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface, ProductLaw
from companion.laws.base import Law


@dataclass(frozen=True)
class Evaluation:
    """How a law fits the data of a fit: `objective`, and root mean square and mean of the log residuals."""

    objective: float
    rms: float
    mean: float


def evaluate(law: LossSurface, fit: Fit) -> Evaluation:
    """Any law on the runs, weights and Huber delta of a fit."""
    data = fit.data
    weights = data["weight"].to_numpy()
    predicted = law.predict(data["num_params"].to_numpy(), data["num_tokens"].to_numpy())
    residuals = np.log(data["val_loss"].to_numpy() / predicted)
    return Evaluation(
        objective=float(weights @ huber(fit.huber_delta, residuals)),
        rms=float(np.sqrt(np.average(residuals**2, weights=weights))),
        mean=float(np.average(residuals, weights=weights)),
    )


# ---- optimizer -----------------------------------------------------------------------------------


def stopping_early(
    fit: Fit, num_starts: int = 40, *, settings: Sequence[str] = tuple(SETTINGS), seed: int = 0
) -> dict[str, Multistart]:
    """The plain multi-start from the same starts under every setting of its tolerances."""
    return {name: reference_multistart(fit, num_starts, seed=seed, setting=name) for name in settings}


def compare_searches(fit: Fit, searches: Mapping[str, Multistart]) -> pd.DataFrame:
    """What every setting reaches.

    Returns
    -------
    DataFrame
        one row per setting: `setting`, `evaluations` (mean per start), `within_1e-6` and `within_1e-2` (shares of
        starts), `lowest_excess` and `median_excess` (relative to the objective of `fit`), `E` and `size_exponent` (a)
        of the lowest.
    """
    rows = []
    for name, search in searches.items():
        lowest, best = search.parameters, fit.objective
        rows.append(
            {
                "setting": name,
                "evaluations": float(search.evaluations.mean()),
                "within_1e-6": search.share_within(best, 1e-6),
                "within_1e-2": search.share_within(best, 1e-2),
                "lowest_excess": float(search.objective.min() / best - 1),
                "median_excess": float(np.median(search.objective) / best - 1),
                "E": lowest["E"],
                "size_exponent": lowest["beta"] / (lowest["alpha"] + lowest["beta"]),
            }
        )
    return pd.DataFrame(rows)


def ends_of_search(search: Multistart, highest: float) -> pd.DataFrame:
    """Laws where a search ended with an objective of at most `highest`: columns E, A, B, alpha, beta, gamma."""
    theta = search.theta[search.objective <= highest]
    names = ("A", "B", "E", "alpha", "beta", "gamma")
    return pd.DataFrame(np.column_stack([np.exp(theta[:, :3]), theta[:, 3:]]), columns=pd.Index(names))


def reached_by_start(fit: Fit, search: Multistart, tolerance: float = 1e-3) -> pd.DataFrame:
    """Share of starts that come within `tolerance` of the fit's objective, by the value they start from.

    Returns
    -------
    DataFrame
        `parameter` (`log A` to `gamma`), `value`, `starts`, `reached` (between 0 and 1).
    """
    reached = search.objective <= fit.objective * (1 + tolerance)
    rows = []
    for index, name in enumerate(("log A", "log B", "log E", "alpha", "beta", "gamma")[: fit.num_free]):
        for value in np.unique(search.starts[:, index]):
            chosen = search.starts[:, index] == value
            share = float(reached[chosen].mean())
            rows.append({"parameter": name, "value": value, "starts": int(chosen.sum()), "reached": share})
    return pd.DataFrame(rows)


# ---- rounding ------------------------------------------------------------------------------------


def rounded(law: LossSurface, decimals: int) -> LossSurface:
    """The law whose log A, log B, log E, alpha, beta and gamma are printed with this many decimals.

    Raises
    ------
    InputError
        if an exponent is rounded to zero.
    """
    logs = {name: math.exp(round(math.log(getattr(law, name)), decimals)) for name in ("E", "A", "B")}
    return LossSurface(**logs, **{name: round(getattr(law, name), decimals) for name in ("alpha", "beta", "gamma")})


def printed_laws(entry: Mapping[str, Any]) -> dict[str, LossSurface]:
    """The laws that a row of `parametric_fits` in `data/published.yaml` prints: by A, B, E and by their logarithms."""
    exponents = {name: float(entry[name]) for name in ("alpha", "beta", "gamma")}
    logs = {name: math.exp(float(entry[name.lower()])) for name in ("E", "A", "B")}
    plain = {name: float(entry[name]) for name in ("E", "A", "B")}
    return {
        "as printed, log A, log B": LossSurface(**logs, **exponents),
        "as printed, A, B": LossSurface(**plain, **exponents),
    }


def compare_laws(fit: Fit, laws: Mapping[str, LossSurface], train_flops: float) -> pd.DataFrame:
    """Laws on the data of a fit.

    Returns
    -------
    DataFrame
        `law`, `objective_ratio` (over the fit's), `rms` and `mean` (log residuals), `num_params` (N\\* at `train_flops`
        = 6·N·D), `size_exponent`.
    """
    rows = []
    for name, law in laws.items():
        found = evaluate(law, fit)
        rows.append(
            {
                "law": name,
                "objective_ratio": found.objective / fit.objective,
                "rms": found.rms,
                "mean": found.mean,
                "num_params": float(law.optimum(train_flops)[0]),
                "size_exponent": size_exponent(law),
            }
        )
    return pd.DataFrame(rows)


def rounded_laws(fit: Fit, train_flops: float, decimals: Sequence[int] = (2, 3, 4, 6)) -> pd.DataFrame:
    """`compare_laws` of a fit whose parameters are printed with fewer and fewer digits; first, with all."""
    laws = {"all digits": fit.law} | {f"{k} decimal{'s' if k != 1 else ''}": rounded(fit.law, k) for k in decimals}
    return compare_laws(fit, laws, train_flops)


# ---- repeated rows -------------------------------------------------------------------------------


#: The column that says how often the published fits count a run.
COUNTED = "multiplicity_in_published_fits"


@dataclass(frozen=True)
class Repeats:
    """IsoFLOP runs of the architecture `name`, and how many of them, `number`, the published fits count repeatedly."""

    name: str
    runs: pd.DataFrame
    number: int


def most_repeated(tables: Mapping[str, pd.DataFrame], preferred: str) -> Repeats:
    """The architecture whose published fits repeat the most runs; the preferred one where none repeats more.

    Parameters
    ----------
    tables
        runs by architecture; a table without the column `COUNTED` repeats none.
    """
    found = []
    for name, table in tables.items():
        runs = isoflop_runs(table, name)
        number = int((runs[COUNTED] > 1).sum()) if COUNTED in runs else 0
        found.append(Repeats(name, runs, number))
    return max(found, key=lambda each: (each.number, each.name == preferred))


def repeated_rows(
    runs: pd.DataFrame, multiplicity: str = COUNTED, num_resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """A table whose runs appear once, as often as `multiplicity` says, and all of them twice, taken at face value.

    Returns
    -------
    DataFrame
        `counted`, `num_rows`, `E`, `alpha`, `beta`, `gamma`, `size_exponent` (a), its 95 % bootstrap interval (`low`,
        `high`) and `width` (of the interval over that of the first row). Without the column `multiplicity`, or without
        repeats in it, that row is left out.
    """
    tables = {"every run once": runs}
    if multiplicity in runs and (runs[multiplicity] > 1).any():
        tables["as in the published fits"] = runs.loc[runs.index.repeat(runs[multiplicity].astype(int))]
    tables["every run twice"] = runs.loc[runs.index.repeat(2)]
    rows: list[dict[str, Any]] = []
    for name, table in tables.items():
        fitted = fit(LossSurface, table.reset_index(drop=True))
        low, high = exponent_interval(fitted.bootstrap(num_resamples, seed=seed))
        chosen = {key: fitted.parameters[key] for key in ("E", "alpha", "beta", "gamma")}
        row = {"counted": name, "num_rows": len(table), **chosen, "size_exponent": size_exponent(fitted.law)}
        width = (high - low) / (rows[0]["high"] - rows[0]["low"]) if rows else 1.0
        rows.append({**row, "low": low, "high": high, "width": width})
    return pd.DataFrame(rows)


def exponent_interval(bootstrap: Bootstrap, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a = beta/(alpha + beta); (NaN, NaN) where the bootstrap withholds intervals."""
    return bootstrap.interval_of(size_exponent, level)


# ---- a metric over all pairs -----------------------------------------------------------------------


def paired_metrics(observed: Any, predicted: Any) -> dict[str, float]:
    """`mse` and `r2` of predictions of shape (n,) or (n, 1), every run against its own prediction."""
    y, p = np.ravel(observed), np.ravel(predicted)
    mse = float(np.mean((y - p) ** 2))
    return {"mse": mse, "r2": 1 - mse / float(np.var(y))}


def all_pairs_metrics(observed: Any, predicted: Any) -> dict[str, float]:
    """The same as it comes out when (n,) meets (n, 1): every run against every prediction.

    The mean over all pairs is Var(observed) + Var(predicted) + (difference of the means)²: it cannot see which
    prediction belongs to which run, and grows with the spread of the predictions.
    """
    y, p = np.ravel(observed), np.reshape(predicted, (-1, 1))
    mse = float(np.mean((y - p) ** 2))
    return {"mse": mse, "r2": 1 - mse / float(np.var(y))}


def compare_metrics(observed: Any, predicted: Any, seed: int = 0) -> dict[str, tuple[dict[str, float], ...]]:
    """`paired_metrics` and `all_pairs_metrics` of predictions, of the same ones shuffled, and of a constant.

    Parameters
    ----------
    observed, predicted
        losses of shape (n,) and (n, 1), nats per token; the constant is the mean of the observed ones.
    """
    shuffled = np.random.default_rng(seed).permutation(predicted)
    constant = np.full_like(predicted, np.mean(observed))
    predictions = {"the fit": predicted, "the fit, shuffled": shuffled, "a constant": constant}
    metrics = paired_metrics, all_pairs_metrics
    return {name: tuple(metric(observed, each) for metric in metrics) for name, each in predictions.items()}


def judged(fit: Fit, samples: pd.DataFrame, within: float = 0.1) -> pd.DataFrame:
    """Laws that fit nearly as well as the best, with both metrics on the runs of the fit.

    Parameters
    ----------
    samples
        candidates, columns E, A, B, alpha, beta, gamma; rows that are not a law are left out.
    within
        largest excess of a candidate's objective over the fit's, relative.

    Returns
    -------
    DataFrame
        the fit first, then the candidates: `E` to `gamma`, `excess`, `size_exponent`, `mse_paired`, `r2_paired`,
        `mse_all_pairs`, `r2_all_pairs`.
    """
    data = fit.data
    names = list(fit.parameters)
    proper = samples[names].dropna()
    proper = proper[(proper[names[1:]] > 0).all(axis=1)]
    rows = []
    for law in [fit.law, *(LossSurface(**dict(zip(names, row, strict=True))) for row in proper.to_numpy().tolist())]:
        excess = evaluate(law, fit).objective / fit.objective - 1
        if excess > within:
            continue
        predicted = law.predict(data["num_params"].to_numpy(), data["num_tokens"].to_numpy())
        row = {name: getattr(law, name) for name in names} | {"excess": excess, "size_exponent": size_exponent(law)}
        for label, metrics in (("paired", paired_metrics), ("all_pairs", all_pairs_metrics)):
            row |= {f"{name}_{label}": value for name, value in metrics(data["val_loss"], predicted).items()}
        rows.append(row)
    return pd.DataFrame(rows)


# ---- a variance called a standard error ------------------------------------------------------------


def variance_as_error(slopes: OvertrainingSlopes) -> pd.DataFrame:
    """Slopes with their standard error and with the variance that was printed as one.

    Returns
    -------
    DataFrame
        one row per ratio: `tokens_per_param`, `eta`, `eta_standard_error`, `eta_variance`, and how many of each the
        slope lies from the common slope of all ratios (`errors_away`, `variances_away`).
    """
    table = slopes.table()[["tokens_per_param", "num_runs", "eta", "eta_standard_error"]]
    variance = table["eta_standard_error"] ** 2
    away = (table["eta"] - slopes.common_eta).abs()
    return table.assign(
        eta_variance=variance, errors_away=away / table["eta_standard_error"], variances_away=away / variance
    )


# ---- the form of the law ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A fitted form: `predict(N, D)`, number of free parameters, `rms` of the log residuals, floor E."""

    predict: Callable[[Any, Any], Any]
    num_free: int
    rms: float
    E: float


def fit_forms(runs: pd.DataFrame) -> dict[str, Form]:
    """Sum with gamma 1, sum with gamma free and product, all by least squares of log L."""
    forms = {}
    laws: tuple[tuple[str, type[Law], dict[str, float]], ...] = (
        ("sum, gamma 1", LossSurface, {"gamma": 1.0}),
        ("sum, gamma free", LossSurface, {}),
        ("product", ProductLaw, {}),
    )
    for name, law, fixed in laws:
        found = fit(law, runs, huber_delta=math.inf, **fixed)  # type: ignore[arg-type]
        forms[name] = Form(found.law.predict, found.num_free, evaluate(found.law, found).rms, found.law.E)
    return forms


def compare_forms(runs: pd.DataFrame, forms: Mapping[str, Form]) -> pd.DataFrame:
    """What forms say at two corners of a table and at its largest budget.

    Returns
    -------
    DataFrame
        one row per form: `form`, `num_free`, `rms`, `E`, `small_long` and `large_short` (loss at the smallest N with
        the largest D, and the other way round, nats per token), `optimum` (N\\* over the largest N of the table, along
        C = 6·N·D at the largest C of the table, searched over 8 decades; NaN where the loss falls to the end).
    """
    n, d = runs["num_params"].astype(float), runs["num_tokens"].astype(float)
    budget = float((6.0 * n * d).max())
    sizes = float(n.max()) * np.logspace(-4, 4, 4001)
    rows = []
    for name, form in forms.items():
        best = int(np.argmin(form.predict(sizes, budget / 6 / sizes)))
        inside = 0 < best < sizes.size - 1
        row = {"form": name, "num_free": form.num_free, "rms": form.rms, "E": form.E}
        row |= {"small_long": form.predict(n.min(), d.max()), "large_short": form.predict(n.max(), d.min())}
        rows.append(row | {"optimum": float(sizes[best] / n.max()) if inside else math.nan})
    return pd.DataFrame(rows)


# ---- delta and starts ------------------------------------------------------------------------------


def delta_path(
    runs: pd.DataFrame,
    deltas: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, math.inf),
    gamma: float | None = None,
) -> pd.DataFrame:
    """The fit for every Huber delta.

    Returns
    -------
    DataFrame
        `huber_delta`, `E`, `alpha`, `beta`, `gamma`, `size_exponent`, `linear` (share of the runs with a residual
        beyond delta), `rms` (log residuals), `status`.
    """
    rows = []
    for delta in deltas:
        fitted = fit(LossSurface, runs, gamma=gamma, huber_delta=delta)
        row: dict[str, Any] = {"huber_delta": delta}
        row |= {name: fitted.parameters[name] for name in ("E", "alpha", "beta", "gamma")}
        row |= {"size_exponent": size_exponent(fitted.law), "linear": float(np.mean(np.abs(fitted.residuals) > delta))}
        rows.append(row | {"rms": evaluate(fitted.law, fitted).rms, "status": fitted.status})
    return pd.DataFrame(rows)
