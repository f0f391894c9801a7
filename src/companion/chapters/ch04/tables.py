"""Tables of chapter 4 about the fits. Their rows are fits, by architecture, design, form of the law or δ."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch04.analysis import fit_row, term_ranges
from companion.chapters.ch04.shown import Fits, Tables, target_text
from companion.chapters.labels import design_name, label_of
from companion.fitting.fit import Fit
from companion.fitting.likelihood import Profile
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import interval, percent, power_of_ten, signed_percent, significant
from companion.plotting import Html, show_table

Resamples = Mapping[str, Mapping[str, Bootstrap]]
#: Parameters as the page writes them.
SYMBOLS = {"E": "E", "A": "A", "B": "B", "alpha": "α", "beta": "β", "gamma": "γ"}


def delta_table(fits: Mapping[tuple[str, float], Fit], tables: Tables, target: Mapping[str, float]) -> Html:
    """The law under different Huber deltas; fits by architecture and delta."""
    rows = []
    for (name, delta), fit in fits.items():
        law = fit.law
        row: dict[str, Any] = {"architecture": label_of(name), "delta": f"{delta:g}".replace("inf", "∞"), "E": law.E}
        row |= {"exponents": f"{law.alpha:.3f}, {law.beta:.3f}, {law.gamma:.3f}", "rms": fit_row(fit)["rms"]}
        rows.append(row | {"last": last_residual(fit, tables[name]), "loss": float(law.predict(**target))})
    return show_table(
        pd.DataFrame(rows),
        name="surface-deltas",
        caption="The same runs under different δ: parameters, root mean square of the residuals, residual of the run "
        f"with the most compute, and the predicted loss of the target ({target_text(target)}). E and losses in nats "
        "per token.",
        formats={"E": "{:.3f}", "loss": "{:.3f}", "rms": percent, "last": partial(signed_percent, decimals=1)},
        labels={"delta": "δ", "exponents": "α, β, γ", "rms": "rms residual", "last": "most compute"}
        | {"loss": "target loss"},
    )


def last_residual(fit: Fit, table: pd.DataFrame) -> float:
    """Observed over fitted loss − 1 of the run with the most compute."""
    return float(np.expm1(fit.residuals[table["train_flops"].to_numpy().argmax()]))


# ---- designs and forms ---------------------------------------------------------------------------


def _forms(fits: Mapping[tuple[str, str, str], Fit]) -> pd.DataFrame:
    return pd.DataFrame(
        {"runs": f"{label_of(name)}, {design_name(design)}", "form": "free" if form == "γ free" else "1"} | fit_row(fit)
        for (name, design, form), fit in fits.items()
    )


def forms_table(fits: Mapping[tuple[str, str, str], Fit]) -> Html:
    """Parameters of fits by architecture, design and form (`γ free` or `γ = 1`)."""
    shown = ["E", "alpha", "beta", "alpha_gamma", "beta_gamma"]
    table = _forms(fits)
    gammas = [f"{row['gamma']:.3f}" if row["form"] == "free" else "1, fixed" for row in table.to_dict("records")]
    return show_table(
        table.assign(gamma=gammas)[["runs", "gamma", *shown]],
        name="surface-forms",
        caption="Fits by design and form of the law; E in nats per token.",
        formats=dict.fromkeys(shown, "{:.3f}"),
        labels={"gamma": "γ", "alpha": "α", "beta": "β", "alpha_gamma": "αγ", "beta_gamma": "βγ"},
    )


def endings_table(fits: Mapping[tuple[str, str, str], Fit]) -> Html:
    """How the fits of `forms_table` ended; without the column `status` where all converged."""
    shown, table = ["runs", "form", "num_rows", "objective", "rms", "share", "conditioning"], _forms(fits)
    all_well = bool((table["status"] == "converged").all())
    return show_table(
        table[shown if all_well else [*shown, "status"]],
        name="surface-endings",
        caption=f"How these fits ended.{' All converged.' if all_well else ''} Starts: the share that end at the "
        "optimum. Condition: how many times better the best-known combination of (scaled) parameters is known than "
        "the worst.",
        formats={
            "objective": lambda value: power_of_ten(value, 4),
            "rms": percent,
            "share": partial(percent, decimals=0),
            "conditioning": "{:.0f}",
        },
        labels={"num_rows": "number", "form": "γ", "rms": "rms residual", "share": "starts"}
        | {"conditioning": "condition"},
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
        labeled(scattered).assign(runs=scattered["runs"].map(design_name)),
        name="surface-scatter",
        caption="Residuals by design: log residuals (observed over fitted) of the fit to all runs. Top five: mean of "
        "the five runs with the most compute.",
        formats={"rms": percent} | dict.fromkeys(("median", "mean", "top"), partial(signed_percent, decimals=2)),
        labels={"top": "top five"},
    )


def labeled(table: pd.DataFrame) -> pd.DataFrame:
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
                row[kind] = f"[{text(low)}, {text(high)}]" if np.isfinite(low) else "fixed"
            row["profile"] = interval(curves[parameter][name].interval()) if parameter in curves else "–"
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="surface-intervals",
        caption="95 % intervals of the fit to all runs, from the bootstrap over runs, the bootstrap over sizes, and "
        "the profile.",
        labels={kind: kind.removeprefix("bootstrap, ") for kind in resamples} | {"parameter": ""},
    )


def terms(resamples: Mapping[str, Bootstrap]) -> pd.DataFrame:
    """`term_ranges` by architecture (a column of names)."""
    return pd.DataFrame({"architecture": name} | term_ranges(drawn) for name, drawn in resamples.items())


def terms_table(ranges: pd.DataFrame) -> Html:
    """`terms` as a table."""
    return show_table(
        labeled(ranges),
        name="surface-terms",
        caption="Upper over lower end of the 95 % interval (bootstrap over sizes): of the prefactors, and of the "
        "whole terms of the law in N and in D, at the mean size and tokens of the runs.",
        formats=dict.fromkeys(("A", "B", "A_term", "B_term"), lambda value: f"×{significant(value)}"),
        labels={"A_term": "term in N", "B_term": "term in D"},
    )
