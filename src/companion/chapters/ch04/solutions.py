"""Tables of the solutions of chapter 4's exercises."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch04.analysis import fit_row
from companion.chapters.ch04.shown import Fits, Tables
from companion.chapters.ch04.tables import last_residual
from companion.chapters.labels import design_name, label_of
from companion.fitting.fit import Fit
from companion.formatting import signed_percent
from companion.laws import LossSurface
from companion.plotting import Html, show_table


def limits_table(fits: Fits) -> Html:
    """By which factor the reducible loss shrinks when one resource is doubled and the other is unlimited."""
    return show_table(
        pd.DataFrame(
            {
                "architecture": label_of(name),
                "tokens": 2 ** -(fit.law.beta * fit.law.gamma),
                "parameters": 2 ** -(fit.law.alpha * fit.law.gamma),
            }
            for name, fit in fits.items()
        ),
        name="surface-limits",
        caption="Factor on the reducible loss L − E when tokens or parameters are doubled, the other unlimited.",
        formats={"tokens": "{:.3f}", "parameters": "{:.3f}"},
        labels={"tokens": "D doubled", "parameters": "N doubled"},
    )


def weights_table(fits: Mapping[tuple[str, str], Fit], tables: Tables) -> Html:
    """Fits by architecture and weighting, and the residual of the run of most compute."""
    rows = []
    for (name, weights), fit in fits.items():
        row = {"architecture": label_of(name), "weights": weights, "last": last_residual(fit, tables[name])}
        rows.append(row | {key: fit.parameters[key] for key in ("E", "alpha", "beta", "gamma")})
    return show_table(
        pd.DataFrame(rows),
        name="surface-weights",
        caption="Two weightings: the residual (observed over fitted − 1) of the run with the most compute, and the "
        "law.",
        formats={"last": partial(signed_percent, decimals=1)}
        | dict.fromkeys(("E", "alpha", "beta", "gamma"), "{:.3f}"),
        labels={"last": "residual", "alpha": "α", "beta": "β", "gamma": "γ"},
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
        name="surface-gammas",
        caption="Fits at fixed γ; the objective relative to that of the chapter's fit.",
        formats=dict.fromkeys(("E", "alpha_gamma", "beta_gamma"), "{:.3f}") | {"objective": "×{:.2f}"},
        labels={"gamma": "γ", "alpha_gamma": "αγ", "beta_gamma": "βγ"},
    )


def redrawn_table(laws: Mapping[str, Sequence[LossSurface]], parts: Tables, truth: LossSurface) -> Html:
    """Laws fitted to losses drawn from a known one, by design."""
    rows = []
    for design, drawn in laws.items():
        row: dict[str, Any] = {"runs": design_name(design), "number": len(parts[design])}
        for key, symbol in {"E": "E", "alpha": "α", "gamma": "γ"}.items():
            values = [getattr(law, key) for law in drawn]
            row[symbol] = f"{np.mean(values):.3f} ± {np.std(values):.3f}"
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="surface-redrawn",
        caption=f"Mean and standard deviation of {len(next(iter(laws.values())))} refits; truth: E = {truth.E:.3f}, "
        f"α = {truth.alpha:.3f}, γ = {truth.gamma:.3f}.",
    )
