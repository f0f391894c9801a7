"""The top of the IsoFLOP chapter: optima and laws in one picture and one small table."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import optional
from companion.chapters.ch03.tables import Key, architectures_of
from companion.chapters.labels import SYMBOLS, label_of
from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop
from companion.formatting import count, interval, listed, power_of_ten, significant
from companion.plotting import Html
from companion.plotting.embed import show_table


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
        sizes, tokens = (_optima(fits, budgets, name, x) for x in SYMBOLS)
        row: dict[str, object] = {"architecture": label_of(name)}
        highest = {x: max(found) for x, found in zip(SYMBOLS, (sizes, tokens), strict=True) if found}
        row["budget"] = power_of_ten(max(highest.values())) if highest else "–"
        for (x, symbol), found in zip(SYMBOLS.items(), (sizes, tokens), strict=True):
            row[symbol] = count(found[highest[x]]) if found else "–"
        both = max(set(sizes) & set(tokens), default=None)
        row["D*/N*"] = significant(tokens[both] / sizes[both], 2) if both else "–"
        for letter, x in zip("ab", SYMBOLS, strict=True):
            law = joint.get((name, x))
            row[letter] = f"{law.law.exponent:.3f} {interval(law.interval())}" if law else "–"
        rows.append(row)
    return show_table(
        pd.DataFrame(rows, columns=["architecture", "budget", *SYMBOLS.values(), "D*/N*", "a", "b"]),
        name="isoflop-answer",
        caption=f"Best size N* and best number of tokens D* at the highest budget of the laws{at_context}. Exponents "
        "with 95 % intervals, from one fit to all runs of these budgets.",
        labels={"budget": "budget (FLOP)", "D*": "D* (tokens)", "D*/N*": "tokens per parameter"}
        | {"a": "exponent a of N*", "b": "exponent b of D*"},
    )


def answer_facts(
    fits: Mapping[Key, IsoflopFit], joint: Mapping[Key, JointIsoflopFit], budgets: Mapping[str, Sequence[float]]
) -> dict[str, str]:
    """Best sizes, tokens and tokens per parameter at the highest budget of all laws, and the exponents of N\\*.

    A value that the runs of no architecture give, or not all of them at one budget, is left out. Arguments from
    `first_look`.
    """
    facts = {}
    exponents = {name: joint[name, "num_params"] for name in architectures_of(joint) if (name, "num_params") in joint}
    if exponents:
        facts["c3_answer_a"] = listed(
            [f"{law.law.exponent:.3f} {interval(law.interval())} ({label_of(name)})" for name, law in exponents.items()]
        )
    optima = {name: [_optima(fits, budgets, name, x) for x in SYMBOLS] for name in architectures_of(fits)}
    common = set.intersection(*[set(found) for pair in optima.values() for found in pair]) if optima else set()
    if not common:
        return facts
    at, best = max(common), {label_of(name): pair for name, pair in optima.items()}
    tokens = {name: count(pair[1][at]) for name, pair in best.items()}
    return facts | {
        "c3_answer_budget": power_of_ten(at),
        "c3_answer_sizes": " or ".join(f"{count(pair[0][at])} ({name})" for name, pair in best.items()),
        "c3_answer_tokens": " or ".join(tokens.values()),
        "c3_answer_per_param": " or ".join(significant(pair[1][at] / pair[0][at], 2) for pair in best.values()),
    }


def _optima(
    fits: Mapping[Key, IsoflopFit], budgets: Mapping[str, Sequence[float]], name: str, x: str
) -> dict[float, float]:
    """Optima over x of an architecture's main budgets, by budget (FLOP)."""
    found = fits[name, x].optima if (name, x) in fits else ()
    return {p.isoflop_budget: p.x_opt for p in found if any(np.isclose(p.isoflop_budget, b) for b in budgets[name])}
