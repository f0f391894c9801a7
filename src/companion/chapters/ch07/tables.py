"""Tables of the chapter on context length."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch07.verdicts import shifts_with_worth
from companion.chapters.ch07.words import interval_text, named_contexts, start_text, value_text
from companion.chapters.ch07.worth import TokenWorth, losses_at_optima, worth_table
from companion.chapters.names import SYMBOLS, label
from companion.chapters.settings import show_settings
from companion.fitting.context.prediction import OWN_SHAPES, Explanation
from companion.fitting.context.scaling import ContextFit
from companion.fitting.isoflop.select import settings_by_budget
from companion.formatting import count, interval, percent, power_of_ten
from companion.ledger import LedgerRow, to_frame
from companion.plotting import Html, show_table

_PROFILE = ["architecture", "isoflop_budget", "context_length"]


def show_optima(fits: Mapping[str, ContextFit]) -> Html:
    """N\\* and D\\* of every budget and context, with 95 % intervals."""
    table = pd.concat([fit.optima_table().assign(architecture=label(name)) for name, fit in fits.items()])
    wide = table.pivot_table("x_opt", _PROFILE, "quantity", sort=False)
    wide = wide.rename_axis(columns=None).reset_index()
    keys = pd.MultiIndex.from_frame(wide[_PROFILE])
    sizes, tokens = (table[table["quantity"] == x].set_index(_PROFILE) for x in SYMBOLS)
    wide["interval N"] = [interval_text(pair) for pair in sizes.loc[keys, "x_opt_interval"]]
    wide["interval D"] = [interval_text(pair) for pair in tokens.loc[keys, "x_opt_interval"]]
    wide["runs"] = sizes.loc[keys, "num_runs"].to_numpy()
    return show_table(
        wide[[*_PROFILE, "runs", "num_params", "interval N", "num_tokens", "interval D"]],
        caption="Optimal parameters and tokens; 95 % intervals from drawn parabolas.",
        formats={"isoflop_budget": power_of_ten, "num_params": count, "num_tokens": count},
        labels={"isoflop_budget": "budget (FLOP)", "context_length": "T", "num_params": "N*"}
        | {"num_tokens": "D* (tokens)", "interval N": "95 % of N*", "interval D": "95 % of D*"},
    )


def show_trends(fits: Mapping[str, ContextFit]) -> Html:
    """Power laws over T of every budget."""
    table = pd.concat([fit.trends_table().assign(architecture=label(name)) for name, fit in fits.items()])
    table["symbol"] = table["quantity"].map(SYMBOLS)
    table["interval"] = table["exponent_interval"].map(interval)
    return show_table(
        table[["architecture", "isoflop_budget", "symbol", "exponent", "interval", "prefactor", "num_contexts"]],
        caption="Power laws over the context length, one per budget; intervals from drawn parabolas. The prefactor is "
        "the "
        "value at T = 1, far from any run: it belongs to the formula.",
        formats={"isoflop_budget": power_of_ten, "exponent": "{:+.3f}", "prefactor": lambda v: power_of_ten(v, 3)},
        labels={"isoflop_budget": "budget (FLOP)", "symbol": "of", "interval": "95 % interval"}
        | {"num_contexts": "contexts"},
    )


def other_contexts(rows: list[LedgerRow]) -> pd.DataFrame:
    """Rows of the ledger about contexts other than 8192, with the context in the column `T`."""
    ledger = to_frame(rows)
    ledger["T"] = ledger["entry"].str.extract(r"T=(\d+)")[0].astype(int)
    return ledger[ledger["T"] != 8192]


def show_ledger(rows: list[LedgerRow]) -> Html:
    """Published exponents of N\\* and optima at other contexts than 8192."""
    table = other_contexts(rows)
    entry = table["entry"]
    chosen = entry.str.contains(" N") & table["quantity"].eq("exponent") | table["quantity"].eq("x_opt")
    table = table.assign(entry=entry.str.replace(r" = \S+ \* C\*\*\w", "", regex=True))
    table["independent"] = table["independent"].map({True: "yes", False: "no"})
    return show_table(
        table.loc[chosen, ["entry", "quantity", "published", "ours", "independent", "verdict"]],
        caption="Published exponents of N*(C) and optima at contexts other than 8192; all rows are on the page of the "
        "ledger.",
        formats={"published": "{:.7g}", "ours": "{:.7g}"},
    )


def show_prediction_errors(levels: Mapping[str, pd.DataFrame], starts: Mapping[str, int]) -> Html:
    """How close each method comes to the measured N\\*, at the context of the law and elsewhere.

    Parameters
    ----------
    levels
        by architecture: `Explanation.levels`.
    starts
        by architecture: context of the law, tokens.
    """
    parts = []
    for name, table in levels.items():
        sizes = table[table["quantity"] == "num_params"].assign(architecture=label(name))
        at_start = sizes["context_length"] == starts[name]
        parts.append(sizes.assign(where=np.where(at_start, "at the law's context", "elsewhere")))
    rows = pd.concat(parts)
    rows = rows.assign(error=(rows["ratio"] - 1).abs(), agrees=rows["verdict"] == "inside")
    groups = rows.groupby(["architecture", "method", "where"], sort=False)
    summary = groups.agg(
        optima=("error", "size"), mean=("ratio", "mean"), worst=("error", "max"), agree=("agrees", "sum")
    )
    return show_table(
        summary.reset_index(),
        caption="Measured N* over predicted N*, by way of prediction. Agree: optima whose 95 % interval of the ratio "
        "holds "
        "1. An error at the law's own context is one of the law or the procedure, not of the explanation.",
        formats={"mean": "{:.3f}", "worst": "{:.1%}"},
        labels={"mean": "mean ratio", "worst": "largest error"},
    )


def show_pooled_shifts(pooled: Mapping[str, pd.DataFrame]) -> Html:
    """Measured and predicted shifts with their ratio; by architecture tables of `Explanation.pooled_shifts`."""
    parts = []
    for name, table in pooled.items():
        part = table.assign(architecture=label(name), symbol=table["quantity"].map(SYMBOLS))
        for column in ("measured", "predicted", "ratio"):
            bounds = zip(part[column], part[f"{column}_low"], part[f"{column}_high"], strict=True)
            part[column] = [value_text(*each) if np.isfinite(each[0]) else "undefined" for each in bounds]
        parts.append(part[part["method"] != OWN_SHAPES])
    columns = ["architecture", "context_length", "symbol", "method", "measured", "predicted", "ratio", "verdict"]
    return show_table(
        pd.concat(parts)[columns],
        caption="Shifts from the context of the law, geometric means over the budgets, with 95 % intervals.",
        labels={"context_length": "T", "symbol": "of"},
    )


def show_changes_by_convention(
    changes: Sequence[tuple[str, str, float]], explanations: Mapping[str, Explanation]
) -> Html:
    """N\\* at the longest context over N\\* at that of the law, by convention and as measured.

    Parameters
    ----------
    changes
        architecture, convention and factor, one for every budget; shown is their geometric mean.
    """
    table = pd.DataFrame(changes, columns=["name", "convention", "change"])
    conventions = list(table["convention"].unique())
    wide = table.pivot_table("change", "name", "convention", aggfunc=lambda v: np.exp(np.log(v).mean()), sort=False)
    wide = wide.rename_axis(columns=None).reset_index()
    measured = [
        each.measured.change("num_params", each.fit_context, each.measured.context_lengths[-1])[0]
        for each in (explanations[name] for name in wide["name"])
    ]
    wide = wide.assign(name=wide["name"].map(label), measured=measured).rename(columns={"name": "architecture"})
    return show_table(
        wide,
        caption="N* at the longest context over N* at the context of the law, by convention (exact optimum of the law, "
        "mean over budgets), and as measured.",
        formats=dict.fromkeys([*conventions, "measured"], "{:.3f}"),
    )


def settings_by_context(fits: Mapping[str, ContextFit]) -> pd.DataFrame:
    """`settings_by_budget` of every architecture (as printed) and context, for the budgets of the optima."""
    parts = []
    for name, fit in fits.items():
        runs = fit.runs[fit.runs["isoflop_budget"].isin(fit.budgets)]
        for length in sorted(runs["context_length"].unique()):
            settings = settings_by_budget(runs[runs["context_length"] == length])
            parts.append(settings.assign(architecture=label(name), context_length=int(length)))
    return pd.concat(parts, ignore_index=True).sort_values(_PROFILE)


def show_training_settings(settings: pd.DataFrame) -> Html:
    """The table of `settings_by_context`."""
    return show_settings(
        settings,
        [*_PROFILE, "num_runs", "batch_tokens", "smallest", "largest", "learning_rate_low", "learning_rate_high"],
        "Settings by budget and context. A step has the same number of tokens, so fewer sequences at a longer context.",
        batch="tokens per step",
        batch_digits=3,
    )


def show_worths(
    explanations: Mapping[str, Explanation],
    at_equal: Mapping[str, pd.DataFrame],
    worths: Mapping[str, Sequence[TokenWorth]],
    shape_only: Mapping[str, Sequence[TokenWorth]],
) -> Html:
    """Loss at equal N and D, the worth of a token in two ways, and the shift of N\\* with it.

    Parameters
    ----------
    at_equal
        by architecture: tables of `loss_differences`.
    worths, shape_only
        by architecture: `token_worth` without and with a free floor.
    """
    parts = []
    for name, explanation in explanations.items():
        whole, shape = worth_table(worths[name]), worth_table(shape_only[name])
        row = pd.DataFrame({"architecture": label(name), "context_length": whole["context_length"]})
        row["difference"] = at_equal[name]["difference"]
        for column, table in {"worth": whole, "shape": shape}.items():
            bounds = zip(table["worth"], table["worth_low"], table["worth_high"], strict=True)
            row[column] = [value_text(*each) for each in bounds]
        row["rms"] = [f"{a:.4f} → {b:.4f}" for a, b in zip(whole["rms_before"], whole["rms_after"], strict=True)]
        later = shifts_with_worth(explanation, worths[name]).reindex(whole["context_length"])
        ratios = later[["ratio", "ratio_low", "ratio_high"]].itertuples(index=False)
        row["shift"] = [value_text(*each) if np.isfinite(each[0]) else "–" for each in ratios]
        parts.append(row)
    return show_table(
        pd.concat(parts),
        caption="Loss against the law at equal N and D, the worth of a token, and whether it explains the shift of N* "
        "that "
        "was left.",
        formats={"difference": "{:+.4f}"},
        labels={"context_length": "T", "difference": "loss − law (nats/token)", "worth": "w"}
        | {"shape": "w, level free", "rms": "rms misfit", "shift": "measured / predicted shift with w"},
    )


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
        row = pd.DataFrame({"architecture": label(name), "context_length": table["context_length"]})
        for column, style in (("num_params", count), ("num_tokens", count), ("core_share", lambda v: percent(v, 3))):
            bounds = zip(table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True)
            row[column] = [value_text(*each, style) for each in bounds]
        flags = table[["beyond_contexts", "beyond_sizes", "beyond_compute"]].to_numpy()
        words = np.array(["context", "size", "compute"])
        row["beyond"] = [", ".join(words[each]) or "–" for each in flags]
        same = np.ptp(np.log(table["num_params"])) < 1e-6
        parts.append(row.iloc[[0, -1]] if same else row)
    return show_table(
        pd.concat(parts),
        caption=f"Optima of the law at {power_of_ten(train_flops)} FLOP with 95 % intervals. Last column: in what "
        "they lie "
        "beyond the runs. Where the context changes no price, the first and last row say all.",
        labels={"context_length": "T", "num_params": "N*", "num_tokens": "D* (tokens)"}
        | {"core_share": "core's share of C"},
    )


def plan_table(rows: Sequence[tuple[str, int, float, float, float, float]]) -> pd.DataFrame:
    """Plans by 6ND against exact counts.

    Parameters
    ----------
    rows
        architecture, context length, N of the plan, its true C over the budget, N\\* at its true C, and the loss given
        away by the difference (nats per token).

    Returns
    -------
    DataFrame
        `architecture`, `context_length`, `N`, `overspent`, `best`, `lost`.
    """
    return pd.DataFrame(rows, columns=["architecture", "context_length", "N", "overspent", "best", "lost"])


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
    return show_table(
        plans[plans["context_length"].isin(lengths)].assign(architecture=plans["architecture"].map(label)),
        caption=f"A 6ND plan for {power_of_ten(train_flops)} FLOP: its size, its true compute over the budget, the "
        "size "
        "that this compute would best be spent on, and the loss given away by the difference (nats per token, by the "
        "law).",
        formats={"N": count, "overspent": "{:.2f}", "best": count, "lost": "{:.4f}"},
        labels={"context_length": "T", "N": "N of the plan", "overspent": "true C / budget", "best": "best N at true C"}
        | {"lost": "loss given away"},
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
        row = pd.DataFrame({"architecture": label(name), "isoflop_budget": losses.index})
        row["short"], row["long"] = losses["measured"][low].to_numpy(), losses["measured"][high].to_numpy()
        row["rise"], row["price"] = row["long"] - row["short"], (losses["law"][high] - losses["law"][low]).to_numpy()
        parts.append(row.assign(rest=row["rise"] - row["price"]))
    return pd.concat(parts, ignore_index=True)


def show_loss_rises(rises: pd.DataFrame, first: int, last: int) -> Html:
    """The table of `loss_rises`; shortest and longest context of all architectures for its head."""
    return show_table(
        rises,
        caption="Loss at the optimum (nats per token) at the shortest and longest context, its rise, and the part of "
        "the "
        "rise that the law predicts because compute buys fewer tokens.",
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
        table.assign(architecture=table["architecture"].map(label)),
        caption=f"From T = {start_text(explanations)}: factor on the price of the old optimum, and on N*. Elasticity: "
        "d ln F / d ln N at "
        "the "
        "new optimum.",
        formats={"dearer": "{:.2f}", "exact": "{:.3f}", "price alone": "{:.3f}", "elasticity": "{:.2f}"},
        labels={"dearer": "price factor", "exact": "N* factor, exact", "price alone": "N* factor, price alone"},
    )


def show_laws_of_other_contexts(rows: Sequence[tuple[str, int, pd.DataFrame]]) -> Html:
    """Shifts of N\\* by laws of every context: architecture, context of the law, `Explanation.pooled_shifts`."""
    parts = []
    for name, origin, pooled in rows:
        part = pooled[pooled["quantity"] == "num_params"]
        bounds = zip(part["ratio_low"], part["ratio_high"], strict=True)
        parts.append(part.assign(architecture=label(name), origin=origin, interval=[interval(pair) for pair in bounds]))
    return show_table(
        pd.concat(parts)[["architecture", "origin", "context_length", "ratio", "interval", "verdict"]],
        caption="Measured over predicted shift of N*, for laws of every context.",
        formats={"ratio": "{:.3f}"},
        labels={"origin": "law fitted at T", "context_length": "T", "interval": "95 % interval"},
    )


def show_half_of_compute(
    rows: Sequence[tuple[str, float, float, float, float]], explanations: Mapping[str, Explanation]
) -> Html:
    """Where the core takes half of C: architecture, budget, N\\*, T of the fixed model, T of the optimal model."""
    table = pd.DataFrame(rows, columns=["architecture", "budget", "N", "fixed", "optimal"])
    start = start_text(explanations)
    return show_table(
        table.assign(architecture=table["architecture"].map(label)),
        caption=f"Context at which the core takes half of C. Fixed: the model that is optimal at T = {start}.",
        formats={"budget": power_of_ten, "N": count, "fixed": "{:,.0f}", "optimal": "{:,.0f}"},
        labels={"budget": "budget (FLOP)", "N": f"N* at T = {start}", "fixed": "T, fixed model"}
        | {"optimal": "T, optimal model"},
    )
