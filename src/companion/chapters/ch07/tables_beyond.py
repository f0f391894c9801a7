"""Tables of the chapter on context length: contexts beyond the runs, pitfalls and exercises."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.accounting import Convention
from companion.chapters.ch07.words import named_contexts, start_text, value_text
from companion.chapters.ch07.worth import losses_at_optima
from companion.chapters.labels import label_of
from companion.fitting.context.costs import optimum_by_context
from companion.fitting.context.prediction import Explanation
from companion.fitting.equal_loss import compute_factors
from companion.formatting import count, percent, power_of_ten, significant
from companion.plotting import Html, show_table


def show_far_optima(far: Mapping[str, pd.DataFrame], train_flops: float) -> Html:
    """Optima of the law over the contexts, with what lies beyond the runs.

    Parameters
    ----------
    far
        by architecture: tables of `optimum_by_context`. Where N\\* is the same throughout, only the first and last row
        are shown.
    train_flops
        the budget, FLOP.
    """
    parts = []
    for name, table in far.items():
        row = pd.DataFrame({"architecture": label_of(name), "context_length": table["context_length"]})
        for column, style in (("num_params", count), ("num_tokens", count), ("core_share", lambda v: percent(v, 3))):
            bounds = zip(table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True)
            row[column] = [value_text(*each, style) for each in bounds]
        flags = table[["beyond_contexts", "beyond_sizes", "beyond_compute"]].to_numpy()
        words = np.array(["context", "size", "compute"])
        row["beyond"] = [", ".join(words[each]) or "–" for each in flags]
        parts.append(_ends_if_same(row, table["num_params"]))
    return show_table(
        pd.concat(parts),
        name="context-far",
        caption=f"Optima of the law at {power_of_ten(train_flops)} FLOP, with 95 % intervals. The last column names "
        "what no run covers. Where the context changes no price, only the first and the last row are shown.",
        labels={"context_length": "T (tokens)", "num_params": "N*", "num_tokens": "D* (tokens)"}
        | {"core_share": "core's share of C", "beyond": "beyond the runs"},
    )


def _ends_if_same(rows: pd.DataFrame, sizes: pd.Series) -> pd.DataFrame:
    """The first and last row if the sizes are the same throughout, else all rows."""
    return rows.iloc[[0, -1]] if np.ptp(np.log(sizes)) < 1e-6 else rows


def show_factors(factors: pd.DataFrame, runs: pd.DataFrame, explanations: Mapping[str, Explanation]) -> Html:
    """Compute of the Transformer over that of xLSTM at equal loss: by the laws, and by the fronts of the runs.

    Parameters
    ----------
    factors
        from `equal_loss_by_context`.
    runs
        the run table.
    """
    seen = factors_of_runs(runs)
    shown = {length for each in explanations.values() for length in each.measured.context_lengths}
    shown |= set(named_contexts(factors["context_length"].tolist()))
    rows = factors[factors["context_length"].isin(shown)]
    bounds = zip(rows["factor"], rows["factor_low"], rows["factor_high"], strict=True)
    table = pd.DataFrame(
        {
            "T": rows["context_length"],
            "laws": [value_text(*each, lambda value: significant(value, 2)) for each in bounds],
            "runs": [seen.get(length, np.nan) for length in rows["context_length"]],
        }
    )
    return show_table(
        table,
        name="context-factors",
        caption="Compute factors at equal loss. Transformer compute over xLSTM compute: by the two laws with 95 % "
        "intervals, and within the data by the runs themselves (median over the losses that both reach).",
        formats={"runs": "{:.2f}"},
        labels={"T": "T (tokens)", "laws": "by the laws", "runs": "by the runs"},
    )


def factors_of_runs(runs: pd.DataFrame) -> dict[int, float]:
    """Compute of the Transformer over that of xLSTM at equal loss, by context: the median over the losses of both."""
    fronts = compute_factors(runs, {"table": runs["train_flops"]}, "xlstm", "transformer")
    if "context_length" not in fronts:
        return {}
    return {int(T): float(factor) for T, factor in fronts[["context_length", "flops_factor"]].itertuples(index=False)}


def plan_table(
    plans: Mapping[str, pd.DataFrame],
    explanations: Mapping[str, Explanation],
    train_flops: float,
    convention: str | Convention,
) -> pd.DataFrame:
    """Plans by another count, such as 6ND, against exact counts.

    Parameters
    ----------
    plans
        by architecture: tables of `optimum_by_context`, under the other count.
    train_flops
        the budget of the plans, FLOP.
    convention
        that counts the true C of a plan.

    Returns
    -------
    DataFrame
        `architecture`, `context_length`, `N` of the plan, `overspent` (its true C over the budget), `best` (N\\* at its
        true C) and `lost` (loss given away by the difference, nats per token).
    """
    rows = []
    for name, plan in plans.items():
        explanation = explanations[name]
        for row in plan.to_dict("records"):
            size, length = row["num_params"], row["context_length"]
            width = explanation.family.width_of(size)
            spent = float(explanation.family.flops_per_token(width, length, convention)) * row["num_tokens"]
            best = optimum_by_context(explanation, spent, [length]).iloc[0]
            row_of_plan = {"architecture": name, "context_length": length, "N": size, "overspent": spent / train_flops}
            rows.append(row_of_plan | {"best": best["num_params"], "lost": row["loss"] - best["loss"]})
    return pd.DataFrame(rows)


def show_plans(plans: pd.DataFrame, train_flops: float, explanations: Mapping[str, Explanation]) -> Html:
    """Plans by 6ND at the contexts of the runs and at those that the text names.

    Parameters
    ----------
    plans
        from `plan_table`, at all contexts.
    train_flops
        the budget, FLOP.
    """
    lengths = {length for each in explanations.values() for length in each.measured.context_lengths}
    lengths |= set(named_contexts(plans["context_length"].unique().tolist()))
    chosen = plans[plans["context_length"].isin(lengths)]
    shown = pd.concat([_ends_if_same(own, own["best"]) for _, own in chosen.groupby("architecture", sort=False)])
    return show_table(
        shown.assign(architecture=shown["architecture"].map(label_of)),
        name="context-plans",
        caption=f"A 6ND plan for {power_of_ten(train_flops)} FLOP: its size, its true compute over the budget, the "
        "size that this compute is best spent on, and the loss (by the law) that the plan gives away.",
        formats={"N": count, "overspent": "{:.2f}", "best": count, "lost": "{:.4f}"},
        labels={"context_length": "T (tokens)", "N": "N of the plan", "overspent": "true C / budget"}
        | {"best": "best N at true C", "lost": "loss given away (nats/token)"},
    )


def loss_rises(explanations: Mapping[str, Explanation]) -> pd.DataFrame:
    """Loss at the optimum at the shortest and longest context, and how much of its rise comes from prices.

    Returns
    -------
    DataFrame
        `architecture` (as printed), `isoflop_budget`, `short`, `long`, `rise`, `price` (the rise of the law for the
        same runs), `rest`, all in nats per token.
    """
    parts = []
    for name, explanation in explanations.items():
        losses = losses_at_optima(explanation).pivot_table(["measured", "law"], "isoflop_budget", "context_length")
        low, high = explanation.measured.context_lengths[0], explanation.measured.context_lengths[-1]
        row = pd.DataFrame({"architecture": label_of(name), "isoflop_budget": losses.index})
        row["short"], row["long"] = losses["measured"][low].to_numpy(), losses["measured"][high].to_numpy()
        row["rise"], row["price"] = row["long"] - row["short"], (losses["law"][high] - losses["law"][low]).to_numpy()
        parts.append(row.assign(rest=row["rise"] - row["price"]))
    return pd.concat(parts, ignore_index=True)


def show_loss_rises(rises: pd.DataFrame, first: int, last: int) -> Html:
    """The table of `loss_rises`; shortest and longest context of all architectures for its head."""
    return show_table(
        rises,
        name="context-rises",
        caption="Loss at the optimum and its rise. In nats per token at the shortest and the longest context, and the "
        "part of the rise that the law predicts because compute buys fewer tokens.",
        formats={"isoflop_budget": power_of_ten}
        | dict.fromkeys(("short", "long"), "{:.3f}")
        | dict.fromkeys(("rise", "price", "rest"), "{:+.3f}"),
        labels={"isoflop_budget": "budget (FLOP)", "short": f"T = {first}", "long": f"T = {last}"}
        | {"price": "from the price"},
    )


def show_two_forces(
    rows: Sequence[tuple[str, int, float, float, float, float]], explanations: Mapping[str, Explanation]
) -> Html:
    """Both forces on N\\*.

    Parameters
    ----------
    rows
        architecture, T, factor on the price of the old optimum, factor on N\\*, that by the price alone, and the
        elasticity d ln F / d ln N at the new optimum.
    """
    columns = ["architecture", "T", "dearer", "exact", "price alone", "elasticity"]
    table = pd.DataFrame(rows, columns=columns)
    return show_table(
        table.assign(architecture=table["architecture"].map(label_of)),
        caption=f"From T = {start_text(explanations)} to another T: factors on the price of the old optimum and on N*, "
        "and the elasticity d ln F / d ln N at the new optimum.",
        formats={"dearer": "{:.2f}", "exact": "{:.3f}", "price alone": "{:.3f}", "elasticity": "{:.2f}"},
        labels={"dearer": "price factor", "exact": "N* factor, exact", "price alone": "N* factor, price alone"}
        | {"T": "T (tokens)"},
    )


def show_half_of_compute(
    rows: Sequence[tuple[str, float, float, float, float]], explanations: Mapping[str, Explanation]
) -> Html:
    """Where the core takes half of C: architecture, budget, N\\*, T of the fixed model, T of the optimal model."""
    table = pd.DataFrame(rows, columns=["architecture", "budget", "N", "fixed", "optimal"])
    start = start_text(explanations)
    return show_table(
        table.assign(architecture=table["architecture"].map(label_of)),
        caption=f"Context at which the core takes half of C: for the model that is optimal at T = {start}, and for "
        "one that is optimal at each T.",
        formats={"budget": power_of_ten, "N": count, "fixed": "{:.0f}", "optimal": "{:.0f}"},
        labels={"budget": "budget (FLOP)", "N": f"N* at T = {start}", "fixed": "T for the fixed model"}
        | {"optimal": "T for the optimal model"},
    )
