"""The tables of chapter 4. Their rows are fits, by architecture, design, form of the law or δ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch04.analysis import fit_row, term_ranges
from companion.chapters.ch04.shown import Fits, Tables, target_text
from companion.chapters.labels import label_of
from companion.errors import NotApplicable
from companion.fitting.diagnostics import cross_errors
from companion.fitting.extrapolation import Extrapolation
from companion.fitting.fit import Fit
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.likelihood import Profile
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import count, interval, percent, power_of_ten, significant
from companion.laws import LossSurface
from companion.plotting import Html, show_table

Resamples = Mapping[str, Mapping[str, Bootstrap]]
#: Parameters as the page writes them.
SYMBOLS = {"E": "E", "A": "A", "B": "B", "alpha": "α", "beta": "β", "gamma": "γ"}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
_PRODUCTS = {"alpha_gamma": "αγ", "beta_gamma": "βγ"}


def delta_table(fits: Mapping[tuple[str, float], Fit], tables: Tables, target: Mapping[str, float]) -> Html:
    """The law under different Huber deltas; fits by architecture and delta."""
    rows = []
    for (name, delta), fit in fits.items():
        row = {"architecture": label_of(name), "delta": f"{delta:g}".replace("inf", "∞")} | fit_row(fit)
        rows.append(row | {"last": _last_residual(fit, tables[name]), "loss": float(fit.law.predict(**target))})
    return show_table(
        pd.DataFrame(rows)[["architecture", "delta", "E", "alpha", "beta", "gamma", "rms", "last", "loss"]],
        caption="The same runs under different δ: parameters, root mean square of the residuals, residual of the run "
        f"with the most compute, and the loss at {target_text(target)}.",
        formats=dict.fromkeys(("E", "alpha", "beta", "gamma", "loss"), "{:.3f}") | {"rms": percent, "last": "{:+.1%}"},
        labels={"delta": "δ", "E": "E (nats/token)", "rms": "rms residual", "last": "run of most compute"}
        | {"loss": "loss at the target"}
        | _GREEK,
    )


def _last_residual(fit: Fit, table: pd.DataFrame) -> float:
    """Observed over fitted loss − 1 of the run with the most compute."""
    return float(np.expm1(fit.residuals[table["train_flops"].to_numpy().argmax()]))


# ---- designs and forms ---------------------------------------------------------------------------


def _forms(fits: Mapping[tuple[str, str, str], Fit]) -> pd.DataFrame:
    return pd.DataFrame(
        {"architecture": label_of(name), "runs": design, "gamma is": form.removeprefix("γ ").removeprefix("= ")}
        | fit_row(fit)
        for (name, design, form), fit in fits.items()
    )


def forms_table(fits: Mapping[tuple[str, str, str], Fit]) -> Html:
    """Parameters of fits by architecture, design and form (`γ free` or `γ = 1`)."""
    shown = ["E", "alpha", "beta", "gamma", "alpha_gamma", "beta_gamma"]
    return show_table(
        _forms(fits)[["architecture", "runs", "gamma is", *shown]],
        caption="Fits by design and form of the law.",
        formats=dict.fromkeys(shown, "{:.3f}"),
        labels={"gamma is": "γ is", "E": "E (nats/token)"} | _GREEK | _PRODUCTS,
    )


def endings_table(fits: Mapping[tuple[str, str, str], Fit]) -> Html:
    """How the fits of `forms_table` ended."""
    shown = ["architecture", "runs", "gamma is", "num_rows", "objective", "rms", "share", "conditioning", "status"]
    return show_table(
        _forms(fits)[shown],
        caption="How these fits ended. Share: starts that end at the optimum. Conditioning (of the design, parameters "
        "scaled): how many times better the best-known combination of parameters is known than the worst.",
        formats={"objective": "{:.3e}", "rms": percent, "share": "{:.0%}", "conditioning": "{:.0f}"},
        labels={"num_rows": "number", "gamma is": "γ is", "rms": "rms residual"},
    )


def scatter(fits: Fits, tables: Tables, parts: Mapping[str, Tables]) -> pd.DataFrame:
    """What the fits to all runs do not explain in the runs of each design.

    Returns
    -------
    DataFrame with `architecture` (name), `runs` (design), `number`, and of the log residuals `rms`, `median`, `mean`
    and `top` (mean of the five runs of most compute).
    """
    rows = []
    for name, table in tables.items():
        left = pd.Series(fits[name].residuals, index=table.index)
        for design, part in parts[name].items():
            own = left[part.index]
            row = {"architecture": name, "runs": design, "number": len(own), "rms": np.sqrt(np.mean(own**2))}
            top = own[part["train_flops"].nlargest(5).index]
            rows.append(row | {"median": own.median(), "mean": own.mean(), "top": top.mean()})
    return pd.DataFrame(rows)


def scatter_table(scattered: pd.DataFrame) -> Html:
    """`scatter` as a table."""
    return show_table(
        _labeled(scattered),
        caption="Log residuals (observed over fitted) of the fit to all runs, by design; last: mean of the five runs "
        "of most compute.",
        formats={"rms": percent} | dict.fromkeys(("median", "mean", "top"), "{:+.2%}"),
        labels={"rms": "root mean square", "top": "top five"},
    )


def _labeled(table: pd.DataFrame) -> pd.DataFrame:
    """The same with the labels of the architectures for their names."""
    return table.assign(architecture=table["architecture"].map(label_of))


# ---- intervals -----------------------------------------------------------------------------------


def intervals_table(fits: Fits, resamples: Resamples, curves: Mapping[str, Mapping[str, Profile]]) -> Html:
    """Intervals of all parameters by every bootstrap and by the profiles, where there is one."""
    rows = []
    for name, fit in fits.items():
        for parameter, symbol in SYMBOLS.items():
            text = power_of_ten if parameter in ("A", "B") else significant
            row = {"architecture": label_of(name), "parameter": symbol, "value": text(fit.parameters[parameter], 3)}
            for kind, drawn in resamples.items():
                low, high = drawn[name].interval(parameter)
                row[kind] = f"{text(low)} to {text(high)}" if np.isfinite(low) else "fixed"
            row["profile"] = interval(curves[parameter][name].interval()) if parameter in curves else "–"
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        caption="95 % intervals of the fit to all runs.",
        labels={"profile": "profile likelihood"},
    )


def terms(resamples: Mapping[str, Bootstrap]) -> pd.DataFrame:
    """`term_ranges` by architecture (a column of names)."""
    return pd.DataFrame({"architecture": name} | term_ranges(drawn) for name, drawn in resamples.items())


def terms_table(ranges: pd.DataFrame) -> Html:
    """`terms` as a table."""
    return show_table(
        _labeled(ranges),
        caption="Upper over lower end of the 95 % interval (bootstrap over sizes): prefactors, and the terms "
        "(A·N^−α)^γ and (B·D^−β)^γ at the mean size and tokens of the runs.",
        formats=dict.fromkeys(("A", "B", "A_term", "B_term"), lambda value: f"×{significant(value)}"),
        labels={"A_term": "term in N", "B_term": "term in D"},
    )


def predictions(
    resamples: Mapping[tuple[str, str], Bootstrap], hidden: Tables, target: Mapping[str, float]
) -> pd.DataFrame:
    """The loss of the target by fits that have not seen it.

    Parameters
    ----------
    resamples
        by architecture and design.
    hidden
        by architecture: the runs at the target, none or more.

    Returns
    -------
    DataFrame with `architecture` (name), `fitted to`, `law`, `confidence` and `prediction` (pairs), `observed` (mean of
    the hidden runs; NaN without one), all in nats per token.
    """
    rows = []
    for (name, design), drawn in resamples.items():
        row = {"architecture": name, "fitted to": design, "law": float(drawn.fit.law.predict(**target))}
        for kind, band in {"confidence": drawn.confidence_band, "prediction": drawn.prediction_band}.items():
            row[kind] = tuple(float(end[0]) for end in band(**target))
        rows.append(row | {"observed": hidden[name]["val_loss"].mean() if len(hidden[name]) else np.nan})
    return pd.DataFrame(rows)


def predictions_table(predicted: pd.DataFrame, target: Mapping[str, float]) -> Html:
    """`predictions` as a table."""
    return show_table(
        _labeled(predicted),
        caption=f"Loss at {target_text(target)}, in nats per token, from fits that have not seen it, and the observed "
        "loss where there is one.",
        formats={"law": "{:.3f}", "observed": "{:.3f}", "confidence": interval, "prediction": interval},
        labels={"confidence": "95 % confidence", "prediction": "95 % prediction"},
    )


# ---- optima --------------------------------------------------------------------------------------


def compared_optima(implied: Tables, measured: Tables) -> pd.DataFrame:
    """Optima of the law beside those of parabolas, at budgets that have both.

    Returns
    -------
    DataFrame with `architecture` (name), the columns of `companion.fitting.diagnostics.optima_by_budget`, those of
    the parabolas with `_parabola`, and `ratio` (N* of the law over the parabola's, minus 1).

    Raises
    ------
    NotApplicable
        if no budget has both.
    """
    both = pd.concat(
        table.merge(measured[name], on="isoflop_budget", suffixes=("", "_parabola")).assign(architecture=name)
        for name, table in implied.items()
    )
    if both.empty:
        raise NotApplicable("no budget has an optimum both by its parabola and by the law")
    return both.assign(ratio=both["num_params"] / both["num_params_parabola"] - 1).reset_index(drop=True)


def optima_table(implied: Tables, measured: Tables) -> Html:
    """Optima of the law by budget, against the parabolas."""
    both = compared_optima(implied, measured)
    shown = _labeled(both)[["architecture", "isoflop_budget"]]
    for column in ("num_params", "num_tokens", "tokens_per_param"):
        ends = zip(both[column], both[f"{column}_low"], both[f"{column}_high"], strict=True)
        shown[column] = [f"{count(value)} [{count(low)}, {count(high)}]" for value, low, high in ends]
    lost = max(table["lost"].max() for table in implied.values())
    return show_table(
        shown.assign(ratio=both["ratio"]),
        caption="Optima of the law along the runs of each budget, with 95 % intervals, and its N* against the "
        f"parabola's. At most {lost:.0%} of the resamples had no optimum among the sampled sizes.",
        formats={"isoflop_budget": power_of_ten, "ratio": "{:+.0%}"},
        labels={"isoflop_budget": "budget (FLOP)", "num_params": "N*", "num_tokens": "D* (tokens)"}
        | {"tokens_per_param": "M*", "ratio": "against parabola"},
    )


def _size_exponent(law: LossSurface) -> float:
    return float(law.beta / (law.alpha + law.beta))


def exponents_table(by_design: Mapping[str, Fits], by_sizes: Mapping[str, Bootstrap], iso: Tables) -> Html:
    """Exponent a of N* by the law of every design, and by the joint fit to the profiles.

    Parameters
    ----------
    by_design
        by architecture and design; `all` gets an interval.
    by_sizes
        resamples of the fit to all runs, by architecture.
    iso
        IsoFLOP runs by architecture.
    """
    rows: list[dict[str, Any]] = []
    for name, fits in by_design.items():
        for design, fit in fits.items():
            row = {"architecture": label_of(name), "from": f"law, {design}", "exponent": _size_exponent(fit.law)}
            ends = {"interval": interval(by_sizes[name].interval_of(_size_exponent))} if design == "all" else {}
            rows.append(row | ends)
        joint = fit_isoflop_joint(iso[name])
        row = {"architecture": label_of(name), "from": "IsoFLOP, joint fit", "exponent": joint.law.exponent}
        rows.append(row | {"interval": interval(joint.interval())})
    return show_table(
        pd.DataFrame(rows),
        caption="Exponent a of N* ∝ C^a: β/(α + β) of the law (for C = κND) and the joint IsoFLOP fit to all budgets.",
        formats={"exponent": "{:.3f}"},
        labels={"interval": "95 % interval"},
    )


# ---- beyond the runs -----------------------------------------------------------------------------


def extrapolation_table(
    beyond: Mapping[tuple[str, str], Sequence[Extrapolation]], furthest: Mapping[tuple[str, str], pd.DataFrame]
) -> Html:
    """Fits below a cut-off, by architecture and form of the law, and their errors above it."""
    rows = []
    for (name, form), results in beyond.items():
        for result, last in zip(results, furthest[name, form].to_dict("records"), strict=True):
            found = result.summary()
            row = {"architecture": label_of(name), "law": form, "cutoff": result.cutoff, "fitted": found["num_fitted"]}
            row |= {"predicted": found["num_predicted"], "rms": found["rms_log_error"], "decades": last["decades"]}
            rows.append(row | {"error": np.expm1(last["log_error"]), "status": result.fit.status})
    return show_table(
        pd.DataFrame(rows),
        caption="Fits below a cut-off: rms log error of all withheld runs, and error of the loss of the furthest run.",
        formats={"cutoff": power_of_ten, "rms": percent, "decades": "{:.1f}", "error": "{:+.1%}"},
        labels={"cutoff": "cut-off (FLOP)", "fitted": "fitted", "predicted": "withheld", "rms": "rms error"}
        | {"decades": "decades to the furthest", "error": "its error"},
    )


def withheld_table(withheld: Tables) -> Html:
    """Optima of withheld budgets, of `companion.fitting.extrapolation.compare_optima` by architecture."""
    both = pd.concat(table.assign(architecture=label_of(name)) for name, table in withheld.items())
    shown = both[["architecture", "highest_fitted_budget", "isoflop_budget", "measured"]].copy()
    for method in ("parabola", "parametric"):
        ends = zip(both[method], both[method] / both["measured"] - 1, strict=True)
        shown[method] = [f"{count(size)} ({error:+.0%})" for size, error in ends]
    return show_table(
        shown,
        caption="Optimal size at a withheld budget: measured by its own parabola, and predicted from the lower "
        "budgets.",
        formats={"highest_fitted_budget": power_of_ten, "isoflop_budget": power_of_ten, "measured": count},
        labels={"highest_fitted_budget": "fitted up to (FLOP)", "isoflop_budget": "withheld (FLOP)"}
        | {"measured": "N* measured", "parabola": "by parabolas", "parametric": "by the law"},
    )


def crossed_table(by_design: Mapping[str, Fits], parts: Mapping[str, Tables]) -> Html:
    """Errors of the fit to one design on the runs of another."""
    crossed = pd.concat(
        cross_errors(fits, parts[name]).assign(architecture=label_of(name)) for name, fits in by_design.items()
    )
    names = [column for column in crossed.columns if column not in ("architecture", "fitted_to")]
    return show_table(
        crossed[["architecture", "fitted_to", *names]],
        caption="Root mean square of log(predicted / observed): fitted to the runs of the row, applied to the runs of "
        "the column.",
        formats=dict.fromkeys(names, percent),
        labels={"fitted_to": "fitted to"},
    )


def ledger_table(ledger: pd.DataFrame) -> Html:
    """E and objective of the published fits that print one, and every row that differs."""
    shown = shown_of_ledger(ledger)
    shorter = {"T=8192 ": "", "huber_delta": "δ", "fit_gamma=True": "γ free", "fit_gamma=False": "γ = 1"}
    for long, short in shorter.items():
        shown = shown.assign(entry=shown["entry"].str.replace(long, short))
    return show_table(
        shown[["entry", "quantity", "published", "ours", "tolerance", "verdict"]],
        caption="E and objective of the fits whose objective is published, and every row that differs.",
        formats={"published": "{:.6g}", "ours": "{:.6g}", "tolerance": "{:.1g}"},
    )


def shown_of_ledger(ledger: pd.DataFrame) -> pd.DataFrame:
    """The rows of `ledger_table`."""
    with_objective = ledger["entry"].isin(ledger.loc[ledger["quantity"] == "objective", "entry"])
    return ledger[(with_objective & ledger["quantity"].isin(["E", "objective"])) | (ledger["verdict"] == "differs")]


# ---- solutions of the exercises ------------------------------------------------------------------


def weights_table(fits: Mapping[tuple[str, str], Fit], tables: Tables) -> Html:
    """Fits by architecture and weighting, and the residual of the run of most compute."""
    rows = []
    for (name, weights), fit in fits.items():
        row = {"architecture": label_of(name), "weights": weights, "last": _last_residual(fit, tables[name])}
        rows.append(row | {key: fit.parameters[key] for key in ("E", "alpha", "beta", "gamma")})
    return show_table(
        pd.DataFrame(rows),
        caption="The run of most compute under two weightings.",
        formats={"last": "{:+.1%}"} | dict.fromkeys(("E", "alpha", "beta", "gamma"), "{:.3f}"),
        labels={"last": "observed over fitted − 1"} | _GREEK,
    )


def gamma_table(fits: Mapping[tuple[str, float], Fit], main: Fits) -> Html:
    """Fits by architecture and fixed γ, their objective over that of the chapter's fit."""
    rows = []
    for (name, gamma), fit in fits.items():
        row = {key: fit_row(fit)[key] for key in ("E", "alpha_gamma", "beta_gamma")} | {"status": fit.status}
        row |= {"objective": fit.objective / main[name].objective}
        rows.append({"architecture": label_of(name), "gamma": gamma} | row)
    return show_table(
        pd.DataFrame(rows),
        caption="Fits at fixed γ; the objective against that of the chapter's fit.",
        formats=dict.fromkeys(("E", "alpha_gamma", "beta_gamma"), "{:.3f}") | {"objective": "×{:.2f}"},
        labels={"gamma": "γ"} | _PRODUCTS,
    )


def redrawn_table(laws: Mapping[str, Sequence[LossSurface]], parts: Tables, truth: LossSurface) -> Html:
    """Laws fitted to losses drawn from a known one, by design."""
    rows = []
    for design, drawn in laws.items():
        row: dict[str, Any] = {"runs": design, "number": len(parts[design])}
        for key in ("E", "alpha", "gamma"):
            values = [getattr(law, key) for law in drawn]
            row |= {key: np.mean(values), f"± {key}": np.std(values)}
        rows.append(row)
    num_draws = len(next(iter(laws.values())))
    return show_table(
        pd.DataFrame(rows),
        caption=f"Mean and standard deviation of {num_draws} refits; truth: E = {truth.E:.3f}, α = {truth.alpha:.3f}, "
        f"γ = {truth.gamma:.3f}.",
        formats={key: "{:.3f}" for key in rows[0] if key not in ("runs", "number")},
        labels={"alpha": "α", "± alpha": "± α", "gamma": "γ", "± gamma": "± γ"},
    )
