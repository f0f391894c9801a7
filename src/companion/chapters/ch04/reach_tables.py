"""Tables of chapter 4 about what the law says away from its runs, and about the published values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch04.shown import Fits, Tables, target_text
from companion.chapters.ch04.tables import labeled
from companion.chapters.ch04.words import power
from companion.chapters.labels import design_name, label_of
from companion.errors import NotApplicable
from companion.fitting.diagnostics import cross_errors
from companion.fitting.extrapolation import Extrapolation
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import count, interval, percent, power_of_ten, signed_percent
from companion.laws import LossSurface
from companion.plotting import Html, show_table


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
        labeled(predicted).assign(**{"fitted to": predicted["fitted to"].map(design_name)}),
        name="surface-predictions",
        caption=f"Loss at {target_text(target)}, in nats per token, from fits that have not seen it, with 95 % "
        "intervals of the law and of a single run, and the observed loss where there is one.",
        formats={"law": "{:.3f}", "observed": "{:.3f}", "confidence": interval, "prediction": interval},
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
    shown = labeled(both)[["architecture", "isoflop_budget"]]
    for column in ("num_params", "num_tokens", "tokens_per_param"):
        ends = zip(both[column], both[f"{column}_low"], both[f"{column}_high"], strict=True)
        shown[column] = [f"{count(value)} [{count(low)}, {count(high)}]" for value, low, high in ends]
    lost = max(table["lost"].max() for table in implied.values())
    return show_table(
        shown.assign(ratio=both["ratio"]),
        name="surface-optima",
        caption="Optima of the law by budget, along its runs, with 95 % intervals. Difference: N* of the law "
        f"against the parabola's. {lost_words(lost)}",
        formats={"isoflop_budget": power_of_ten, "ratio": signed_percent},
        labels={"isoflop_budget": "budget (FLOP)", "num_params": "N*", "num_tokens": "D* (tokens)"}
        | {"tokens_per_param": "M* = D*/N*", "ratio": "difference"},
    )


def lost_words(lost: float) -> str:
    """How many resamples have an optimum, from the largest share without one."""
    if lost < 0.005:
        return f"{'Every' if lost == 0 else 'Nearly every'} resample had an optimum among the sampled sizes."
    return f"Up to {percent(lost, decimals=0)} of the resamples had no optimum among the sampled sizes."


def _size_exponent(law: LossSurface) -> float:
    return float(law.beta / (law.alpha + law.beta))


def exponents(by_design: Mapping[str, Fits], by_sizes: Mapping[str, Bootstrap], iso: Tables) -> pd.DataFrame:
    """Exponent of N* by the law of every design, and by the joint fit to the profiles.

    Parameters
    ----------
    by_design
        by architecture and design; `all` gets an interval.
    by_sizes
        resamples of the fit to all runs, by architecture.
    iso
        IsoFLOP runs by architecture.

    Returns
    -------
    DataFrame with `architecture` (name), `from` (design, or `joint`), `exponent` and `interval` (95 %, as text; NaN
    without one).
    """
    rows: list[dict[str, Any]] = []
    for name, fits in by_design.items():
        for design, fit in fits.items():
            row = {"architecture": name, "from": design, "exponent": _size_exponent(fit.law)}
            ends = {"interval": interval(by_sizes[name].interval_of(_size_exponent))} if design == "all" else {}
            rows.append(row | ends)
        joint = fit_isoflop_joint(iso[name])
        row = {"architecture": name, "from": "joint", "exponent": joint.law.exponent}
        rows.append(row | {"interval": interval(joint.interval())})
    return pd.DataFrame(rows)


def exponents_table(found: pd.DataFrame) -> Html:
    """`exponents` as a table."""
    sources = ["IsoFLOP, joint fit" if each == "joint" else f"law, {design_name(each)}" for each in found["from"]]
    return show_table(
        labeled(found).assign(**{"from": sources}),
        name="surface-exponents",
        caption="Exponent of N* over compute: β/(α + β) of the law (for C = κND), and the joint IsoFLOP fit to all "
        "budgets.",
        formats={"exponent": "{:.3f}"},
        labels={"interval": "95 % interval"},
    )


# ---- beyond the runs -----------------------------------------------------------------------------


def extrapolation_table(
    beyond: Mapping[tuple[str, str], Sequence[Extrapolation]], furthest: Mapping[tuple[str, str], pd.DataFrame]
) -> Html:
    """Errors of fits below a cut-off, a row per architecture and cut-off, a column per form of the law."""
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for (name, form), results in beyond.items():
        for result, last in zip(results, furthest[name, form].to_dict("records"), strict=True):
            found = result.summary()
            row = {"architecture": label_of(name), "cutoff": result.cutoff}
            row |= {"runs": f"{found['num_fitted']}, {found['num_predicted']}", "decades": last["decades"]}
            star = "" if result.fit.status == "converged" else "*"
            text = f"{signed_percent(np.expm1(last['log_error']), 1)}{star} ({percent(float(found['rms_log_error']))})"
            rows.setdefault((name, result.cutoff), row)[form] = text
    return show_table(
        pd.DataFrame(rows.values()),
        name="surface-extrapolation",
        caption="Fits below a cut-off, for both forms of the law: error of the predicted loss of the run with the most "
        "compute and, in brackets, the rms log error of all withheld runs. Decades: from the cut-off to that run. "
        "* The runs below the cut-off do not identify the law.",
        formats={"cutoff": power_of_ten, "decades": "{:.1f}"},
        labels={"cutoff": "cut-off (FLOP)", "runs": "fitted, withheld"},
    )


def withheld_table(withheld: Tables) -> Html:
    """Optima of withheld budgets, of `companion.fitting.extrapolation.compare_optima` by architecture."""
    both = pd.concat(table.assign(architecture=label_of(name)) for name, table in withheld.items())
    shown = both[["architecture", "highest_fitted_budget", "isoflop_budget", "measured"]].copy()
    for method in ("parabola", "parametric"):
        ends = zip(both[method], both[method] / both["measured"] - 1, strict=True)
        shown[method] = [f"{count(size)} ({signed_percent(error)})" for size, error in ends]
    return show_table(
        shown,
        name="surface-withheld",
        caption="Optimal size at a withheld budget: measured by its own parabola, and predicted from the lower budgets "
        "by parabolas and by the law. Budgets in FLOP.",
        formats={"highest_fitted_budget": power_of_ten, "isoflop_budget": power_of_ten, "measured": count},
        labels={"highest_fitted_budget": "fitted up to", "isoflop_budget": "withheld", "measured": "N* measured"}
        | {"parabola": "by parabolas", "parametric": "by the law"},
    )


def crossed_table(by_design: Mapping[str, Fits], parts: Mapping[str, Tables]) -> Html:
    """Errors of the fit to one design on the runs of another."""
    crossed = pd.concat(
        cross_errors(fits, parts[name]).assign(architecture=label_of(name)) for name, fits in by_design.items()
    )
    names = [column for column in crossed.columns if column not in ("architecture", "fitted_to")]
    crossed["fitted_to"] = crossed["fitted_to"].map(design_name)
    return show_table(
        crossed[["architecture", "fitted_to", *names]],
        name="surface-crossed",
        caption="Errors of the fits by design: root mean square of log(predicted / observed), fitted to the runs of "
        "the row and applied to the runs of the column.",
        formats=dict.fromkeys(names, percent),
        labels={"fitted_to": "fitted to"} | {name: design_name(name) for name in names},
    )


def ledger_table(ledger: pd.DataFrame) -> Html:
    """E and objective of the published fits that print one, and every row that differs."""
    shown = shown_of_ledger(ledger)
    shorter = {"T=8192 ": "", "transformer": "Transformer", "xlstm": "xLSTM", "isoflop": "IsoFLOP"}
    shorter |= {"tokenparam": "Token/Param", "huber_delta": "δ", "fit_gamma=True": "γ free", "fit_gamma=False": "γ = 1"}
    for long, short in shorter.items():
        shown = shown.assign(entry=shown["entry"].str.replace(long, short))
    return show_table(
        shown[["entry", "quantity", "published", "ours", "tolerance", "verdict"]],
        name="surface-ledger",
        caption="Published fits and ours: E and objective of the fits whose objective is published, and every row that "
        "differs.",
        formats={"published": power, "ours": power, "tolerance": lambda value: power(value, 1)},
    )


def shown_of_ledger(ledger: pd.DataFrame) -> pd.DataFrame:
    """The rows of `ledger_table`."""
    with_objective = ledger["entry"].isin(ledger.loc[ledger["quantity"] == "objective", "entry"])
    return ledger[(with_objective & ledger["quantity"].isin(["E", "objective"])) | (ledger["verdict"] == "differs")]
