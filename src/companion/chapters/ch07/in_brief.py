"""What folded tables of the chapter on context length say, in a few numbers for the prose."""

from collections.abc import Mapping, Sequence

import pandas as pd

from companion.chapters.ch07.tables import changes_by_convention
from companion.chapters.ch07.tables_beyond import factors_of_runs
from companion.chapters.ch07.worth import TokenWorth
from companion.chapters.labels import the
from companion.fitting.context.prediction import Explanation
from companion.fitting.context.scaling import ContextFit
from companion.formatting import listed, significant, span_text, true_minus

Facts = dict[str, str]


def exponent_facts(fits: Mapping[str, ContextFit]) -> Facts:
    """Between which exponents the power laws N\\*(T) of the budgets lie."""
    texts = []
    for name, fit in fits.items():
        exponents = [trend.exponent for trend in fit.trends if trend.quantity == "num_params"]
        if exponents:
            texts.append(f"{span_text(exponents, lambda p: true_minus(f'{p:+.3f}'))} for {the(name)}")
    return {"c7_exponents": listed(texts) or "unknown"}


def share_facts(shares: Mapping[str, pd.DataFrame]) -> Facts:
    """The core's share of C at the shortest and the longest context; by architecture, from `shares_at_optima`."""
    texts = []
    for name, table in shares.items():
        groups = table.groupby("context_length")["core_share"]
        ends = dict.fromkeys((table["context_length"].min(), table["context_length"].max()))
        found = [f"{span_text(groups.get_group(length))} at T = {length}" for length in ends]
        texts.append(f"{listed(found)} for {the(name)}")
    return {"c7_shares": "; ".join(texts)}


def law_facts(explanations: Mapping[str, Explanation]) -> Facts:
    """Exponents of the laws of one context."""
    texts = []
    for name, each in explanations.items():
        law = each.law_fit.law
        texts.append(f"α = {law.alpha:.2f}, β = {law.beta:.2f} and γ = {law.gamma:.2f} for {the(name)}")
    return {"c7_laws": "; ".join(texts)}


def convention_facts(changes: Sequence[tuple[str, str, float]], explanations: Mapping[str, Explanation]) -> Facts:
    """Predicted factors on N\\* by convention, and the measured one; arguments as of `show_changes_by_convention`."""
    texts = []
    for name, row in changes_by_convention(changes, explanations).iterrows():
        measured = f"{row['measured']:.3f}"
        factors = {str(kind): f"{value:.3f}" for kind, value in row.drop("measured").items()}
        found = listed(f"{value} ({kind})" for kind, value in factors.items())
        if len(set(factors.values())) == 1:
            found = f"{next(iter(factors.values()))} under every convention"
        texts.append(f"{found} for {the(str(name))}, where {measured} was measured")
    return {"c7_conventions": "; ".join(texts)}


def w_facts(worths: Mapping[str, Sequence[TokenWorth]], explanations: Mapping[str, Explanation]) -> Facts:
    """The worth of a token at the contexts other than that of the law; by architecture, from `token_worth`."""
    texts = []
    for name, found in worths.items():
        others = [each for each in found if each.context_length != explanations[name].fit_context]
        values = [f"{significant(each.worth)} at T = {each.context_length}" for each in others]
        texts.append(f"{listed(values)} for {the(name)}")
    return {"c7_w": "; ".join(texts)}


def front_facts(runs: pd.DataFrame) -> Facts:
    """Compute of the Transformer over that of xLSTM at equal loss, by the runs alone."""
    found = [f"{factor:.2f} at T = {length}" for length, factor in factors_of_runs(runs).items()]
    return {"c7_within": listed(found) or "nothing, as no loss is reached by both"}
