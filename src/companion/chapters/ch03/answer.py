"""The top of the IsoFLOP chapter: optima and laws in one picture and one small table."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import optional
from companion.chapters.ch03.tables import Key, architectures_of
from companion.chapters.names import SYMBOLS, label
from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop
from companion.formatting import count, interval, power_of_ten
from companion.plotting import Html, show_table


def first_look(
    tables: Mapping[str, pd.DataFrame], budgets: Mapping[str, Sequence[float]]
) -> tuple[dict[Key, IsoflopFit], dict[Key, JointIsoflopFit]]:
    """Optima of all budgets, and joint laws of the main ones, for the figure and table at the top of the page.

    Returns
    -------
    tuple of dict
        two-step fits without a bootstrap, and joint fits, by architecture and x. What the runs do not determine is
        left out: the page says why where it makes the fit.
    """
    keys = [(name, x) for name in tables for x in SYMBOLS]
    fits = {(name, x): optional(fit_isoflop, tables[name], x, num_resamples=0) for name, x in keys}
    laws = {(name, x): optional(fit_isoflop_joint, tables[name], x, budgets=budgets[name]) for name, x in keys}
    return {k: fit for k, fit in fits.items() if fit}, {k: law for k, law in laws.items() if law}


def show_answer(
    fits: Mapping[Key, IsoflopFit],
    joint: Mapping[Key, JointIsoflopFit],
    budgets: Mapping[str, Sequence[float]],
    at_context: str,
) -> Html:
    """Optimum at the highest main budget, and exponents with intervals; arguments from `first_look`.

    Parameters
    ----------
    at_context
        end of the caption's first sentence that names the context length, or an empty text.
    """
    rows = []
    for name in architectures_of(fits):
        row: dict[str, object] = {"architecture": label(name)}
        for x, symbol in SYMBOLS.items():
            optima = {p.isoflop_budget: p.x_opt for p in fits[name, x].optima} if (name, x) in fits else {}
            inside = [budget for budget in optima if any(np.isclose(budget, main) for main in budgets[name])]
            row |= {"budget": power_of_ten(max(inside))} if inside and "budget" not in row else {}
            row[symbol] = count(optima[max(inside)]) if inside else "–"
        for letter, x in zip("ab", SYMBOLS, strict=True):
            law = joint.get((name, x))
            row[letter] = f"{law.law.exponent:.3f} {interval(law.interval())}" if law else "–"
        rows.append(row)
    return show_table(
        pd.DataFrame(rows, columns=["architecture", "budget", *SYMBOLS.values(), "a", "b"]),
        name="isoflop-answer",
        caption=f"Optimum at the highest main budget{at_context}. Exponents of the joint fit, with 95 % intervals.",
        labels={"budget": "budget (FLOP)", "D*": "D* (tokens)", "a": "exponent a of N*", "b": "exponent b of D*"},
    )
