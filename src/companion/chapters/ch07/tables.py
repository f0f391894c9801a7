"""Tables of the chapter on context length, within the contexts of the runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch07.words import count_text, value_text
from companion.chapters.ch07.worth import TokenWorth, worth_table
from companion.chapters.labels import SYMBOLS, label_of
from companion.fitting.context.prediction import FAMILY, INSIDE, NOTHING_MOVES, SAME_RUNS, Explanation
from companion.fitting.context.scaling import ContextFit
from companion.fitting.isoflop.select import settings_by_budget
from companion.formatting import count, interval, power_of_ten, span_text
from companion.ledger import LedgerRow, to_frame
from companion.plotting import Html, show_table

NO_BREAK = "\u00a0"
_PROFILE = ["architecture", "isoflop_budget", "context_length"]


def show_optima(fits: Mapping[str, ContextFit]) -> Html:
    """N\\* and D\\* of every budget and context, with 95 % intervals."""
    table = pd.concat([fit.optima_table().assign(architecture=label_of(name)) for name, fit in fits.items()])
    pairs = zip(table["x_opt"], table["x_opt_interval"], strict=True)
    table["optimum"] = [count_text(*pair) for pair in pairs]
    wide = table.pivot_table("optimum", [*_PROFILE, "num_runs"], "quantity", aggfunc="first", sort=False)
    return show_table(
        wide.rename_axis(columns=None).reset_index()[[*_PROFILE, "num_runs", *SYMBOLS]],
        name="context-optima",
        caption="Optima of every budget and context. Parameters and tokens with 95 % intervals from drawn parabolas.",
        formats={"isoflop_budget": power_of_ten},
        labels={"isoflop_budget": "budget (FLOP)", "context_length": "T (tokens)", "num_runs": "runs"}
        | {"num_params": "N* (parameters)", "num_tokens": "D* (tokens)"},
    )


def show_trends(fits: Mapping[str, ContextFit]) -> Html:
    """Power laws over T of every budget."""
    table = pd.concat([fit.trends_table().assign(architecture=label_of(name)) for name, fit in fits.items()])
    keys = ["architecture", "isoflop_budget", "num_contexts"]
    bounds = zip(table["exponent"], table["exponent_interval"], strict=True)
    table["p"] = [f"{value:+.3f} {interval(pair)}" for value, pair in bounds]
    table["at_one"] = [power_of_ten(value, 3) for value in table["prefactor"]]
    wide = table.pivot_table(["p", "at_one"], keys, "quantity", aggfunc="first", sort=False)
    wide.columns = wide.columns.map(" ".join)
    order = [f"{column} {quantity}" for quantity in SYMBOLS for column in ("p", "at_one")]
    wide = wide[[column for column in order if column in wide]].reset_index()
    labels = {f"p {quantity}": f"exponent p of {symbol}" for quantity, symbol in SYMBOLS.items()}
    labels |= {f"at_one {quantity}": f"{symbol} at T = 1" for quantity, symbol in SYMBOLS.items()}
    labels |= {"isoflop_budget": "budget (FLOP)", "num_contexts": "contexts"}
    return show_table(
        wide,
        name="context-trends",
        caption="Power laws over the context length, one per budget, with 95 % intervals from drawn parabolas. The "
        "values at T = 1 are the prefactors of the formulas, far from any run.",
        formats={"isoflop_budget": power_of_ten},
        labels={column: text for column, text in labels.items() if column in wide},
    )


def other_contexts(rows: list[LedgerRow]) -> pd.DataFrame:
    """Rows of the ledger about contexts other than 8192, with the context in the column `T`."""
    ledger = to_frame(rows)
    ledger["T"] = ledger["entry"].str.extract(r"T=(\d+)")[0].astype(int)
    return ledger[ledger["T"] != 8192]


def show_ledger(rows: list[LedgerRow]) -> Html:
    """Published exponents of N\\*(C) and optima at other contexts than 8192."""
    table = other_contexts(rows)
    entry = table["entry"]
    chosen = entry.str.contains(" N") & table["quantity"].eq("exponent") | table["quantity"].eq("x_opt")
    table = table[chosen]
    budget = table["entry"].str.extract(r"isoflop_budget=(\S+)")[0]
    symbol = table["entry"].str.extract(rf"({'|'.join(SYMBOLS)})$")[0].map(SYMBOLS)
    what = [
        "exponent of N*(C)" if pd.isna(flops) else f"{name} at {power_of_ten(float(flops))} FLOP"
        for name, flops in zip(symbol, budget, strict=True)
    ]
    shown = table.assign(
        quantity=what,
        architecture=table["entry"].str.partition(" ")[0].map(label_of),
        independent=table["independent"].map({True: "yes", False: "no"}),
    )
    return show_table(
        shown[["architecture", "T", "quantity", "published", "ours", "independent", "verdict"]],
        name="context-ledger",
        caption="Published values at other contexts. Exponents of N*(C) and optima at contexts other than 8192. All "
        "rows are on the page of the ledger.",
        formats={"published": _seven_digits, "ours": _seven_digits},
    )


def _seven_digits(value: float) -> str:
    return count(value, 7) if value >= 1000 else f"{value:.7g}"


def show_laws(explanations: Mapping[str, Explanation]) -> Html:
    """The laws of one context: their runs and exponents with 95 % intervals."""
    rows = []
    for name, each in explanations.items():
        law = each.law_fit.law
        row = {"architecture": label_of(name), "T": each.fit_context, "runs": each.law_fit.num_rows}
        for exponent, symbol in (("alpha", "α"), ("beta", "β")):
            row[symbol] = value_text(getattr(law, exponent), *each.bootstrap.interval(exponent), "{:.2f}".format)
        rows.append(row | {"γ": law.gamma})
    return show_table(
        pd.DataFrame(rows),
        name="context-laws",
        caption="Exponents of the laws of one context. They predict the optima of the others; with 95 % intervals.",
        formats={"γ": "{:.2f}"},
        labels={"T": "fitted at T (tokens)"},
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
        sizes = table[table["quantity"] == "num_params"].assign(architecture=label_of(name))
        parts.append(sizes.assign(start=sizes["context_length"] == starts[name]))
    rows = pd.concat(parts)
    rows = rows.assign(error=(rows["ratio"] - 1).abs(), agrees=rows["verdict"] == INSIDE)
    shown = pd.DataFrame()
    for start, where in ((False, "other T"), (True, "own T")):
        groups = rows[rows["start"] == start].groupby(["architecture", "method"], sort=False)
        shown[f"mean ratio, {where}"] = groups["ratio"].mean().map("{:.3f}".format)
        shown[f"largest error, {where}"] = 100 * groups["error"].max()
        shown[f"agree, {where}"] = groups["agrees"].agg(lambda agrees: f"{agrees.sum()} of {len(agrees)}")
    return show_table(
        shown.reset_index(),
        name="context-errors",
        caption="Measured N* over predicted N*, by way of prediction, at the other contexts and at the law's own. "
        "Errors in %. Optima agree where the 95 % interval of the ratio includes 1. An error at the law's own context "
        "comes from the law or the procedure, not from the explanation.",
        formats={column: "{:.1f}" for column in map(str, shown) if column.startswith("largest")},
        labels={"method": "way"},
    )


def show_pooled_shifts(pooled: Mapping[str, pd.DataFrame]) -> Html:
    """Measured shifts and their ratios to the predicted ones; by architecture tables of `Explanation.pooled_shifts`."""
    parts = []
    keys = ["architecture", "context_length", "symbol"]
    for name, table in pooled.items():
        part = table.assign(architecture=label_of(name), symbol=table["quantity"].map(SYMBOLS))
        for column in ("measured", "ratio"):
            bounds = zip(part[column], part[f"{column}_low"], part[f"{column}_high"], strict=True)
            part[column] = [value_text(*each) if np.isfinite(each[0]) else "undefined" for each in bounds]
        ratios = part.pivot_table("ratio", keys, "method", aggfunc="first", sort=False)
        parts.append(part.groupby(keys, sort=False)[["measured"]].first().join(ratios))
    wide = pd.concat(parts)[["measured", SAME_RUNS, FAMILY, NOTHING_MOVES]].reset_index()
    return show_table(
        wide,
        name="context-shifts",
        caption="Shifts from the context of the law, geometric means over the budgets, with 95 % intervals: measured, "
        "and measured over predicted in three ways. An interval that excludes 1 refutes that way.",
        labels={"context_length": "T (tokens)", "symbol": "of", "measured": "measured shift"}
        | {way: f"over {way}" for way in (SAME_RUNS, FAMILY)}
        | {NOTHING_MOVES: f"over “{NOTHING_MOVES}”"},
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
    wide = changes_by_convention(changes, explanations)
    return show_table(
        wide.reset_index(names="architecture").assign(architecture=wide.index.map(label_of)),
        name="context-conventions",
        caption="Change of N* by convention. N* at the longest context over N* at the context of the law: exact "
        "optimum of the law, mean over the budgets, and as measured.",
        formats=dict.fromkeys(map(str, wide), "{:.3f}"),
    )


def changes_by_convention(
    changes: Sequence[tuple[str, str, float]], explanations: Mapping[str, Explanation]
) -> pd.DataFrame:
    """The numbers of `show_changes_by_convention`: a row per architecture, a column per convention, and `measured`."""
    table = pd.DataFrame(changes, columns=["name", "convention", "change"])
    wide = table.pivot_table("change", "name", "convention", aggfunc=lambda v: np.exp(np.log(v).mean()), sort=False)
    measured = [
        each.measured.change("num_params", each.fit_context, each.measured.context_lengths[-1])[0]
        for each in (explanations[name] for name in wide.index)
    ]
    return wide.rename_axis(columns=None).assign(measured=measured)


def show_share_table(shares: Mapping[str, pd.DataFrame]) -> Html:
    """Shares of the core and of the whole mixer in C at every context; by architecture, from `shares_at_optima`."""
    rows = []
    for name, table in shares.items():
        for length, group in table.groupby("context_length"):
            texts = [span_text(group[column]) for column in ("core_share", "mixer_share")]
            rows.append((label_of(name), length, *texts))
    return show_table(
        pd.DataFrame(rows, columns=["architecture", "T", "core", "mixer"]),
        name="context-shares",
        caption="Shares of the compute by context. Core and whole mixer at the measured optima, lowest and highest "
        "over the budgets.",
        labels={"T": "T (tokens)", "core": "mixer core", "mixer": "core, projections, output gate"},
    )


def settings_by_context(fits: Mapping[str, ContextFit]) -> pd.DataFrame:
    """`settings_by_budget` of every architecture (as printed) and context, for the budgets of the optima."""
    parts = []
    for name, fit in fits.items():
        runs = fit.runs[fit.runs["isoflop_budget"].isin(fit.budgets)]
        for length in sorted(runs["context_length"].unique()):
            settings = settings_by_budget(runs[runs["context_length"] == length])
            parts.append(settings.assign(architecture=label_of(name), context_length=int(length)))
    return pd.concat(parts, ignore_index=True).sort_values(_PROFILE)


def show_training_settings(settings: pd.DataFrame) -> Html:
    """The table of `settings_by_context`, as far as it has the settings."""
    ranges = {"sizes N": ("smallest", "largest", count)}
    ranges |= {"learning rates": ("learning_rate_low", "learning_rate_high", "{:.4f}".format)}
    shown = settings[[*_PROFILE, "num_runs", *({"batch_tokens"} & set(settings))]].copy()
    for head, (low, high, style) in ranges.items():
        if low in settings:
            pairs = zip(settings[low], settings[high], strict=True)
            shown[head] = [span_text(pair, style).replace(" ", NO_BREAK) for pair in pairs]
    labels = {"isoflop_budget": "budget (FLOP)", "context_length": "T", "num_runs": "runs"}
    labels |= {"batch_tokens": "tokens per step"}
    return show_table(
        shown,
        name="context-settings",
        caption="Settings by budget and context. Every step has the same number of tokens, so fewer sequences at a "
        "longer context.",
        formats={"isoflop_budget": power_of_ten} | ({"batch_tokens": count} if "batch_tokens" in shown else {}),
        labels={column: text for column, text in labels.items() if column in shown},
    )


def show_worths(
    at_equal: Mapping[str, pd.DataFrame],
    worths: Mapping[str, Sequence[TokenWorth]],
    shape_only: Mapping[str, Sequence[TokenWorth]],
) -> Html:
    """Loss at equal N and D, and the worth of a token in two ways.

    Parameters
    ----------
    at_equal
        by architecture: tables of `loss_differences`.
    worths, shape_only
        by architecture: `token_worth` without and with a free floor.
    """
    parts = []
    for name, table in at_equal.items():
        whole, shape = worth_table(worths[name]), worth_table(shape_only[name])
        row = pd.DataFrame({"architecture": label_of(name), "context_length": whole["context_length"]})
        bounds = zip(table["difference"], table["difference_low"], table["difference_high"], strict=True)
        row["difference"] = [value_text(*each, "{:+.4f}".format) for each in bounds]
        for column, found in {"worth": whole, "shape": shape}.items():
            bounds = zip(found["worth"], found["worth_low"], found["worth_high"], strict=True)
            row[column] = [value_text(*each) for each in bounds]
        row["rms"] = [f"{a:.4f} → {b:.4f}" for a, b in zip(whole["rms_before"], whole["rms_after"], strict=True)]
        parts.append(row)
    return show_table(
        pd.concat(parts),
        name="context-worth",
        caption="Loss minus the law at equal N and D, and the worth w of a token, with 95 % intervals. The last column "
        "is the root mean square residual (nats/token) without and with w.",
        labels={"context_length": "T (tokens)", "difference": "loss − law (nats/token)", "worth": "w, level and shape"}
        | {"shape": "w, shape alone", "rms": "residual"},
    )


def show_worth_verdicts(worths: pd.DataFrame) -> Html:
    """Measured over predicted shift of N\\* without and with a worth of tokens; from `worth_verdicts`."""
    bounds = zip(worths["ratio"], worths["ratio_low"], worths["ratio_high"], strict=True)
    ratios = [value_text(*each) for each in bounds]
    shown = worths.assign(architecture=worths["architecture"].map(label_of), ratio=ratios)
    return show_table(
        shown[["architecture", "context_length", "kind", "ratio_before", "ratio", "verdict"]],
        name="context-worth-shifts",
        caption="Measured over predicted shift of N*, without and with w: inside if the 95 % interval includes 1.",
        formats={"ratio_before": "{:.3f}"},
        labels={"context_length": "T (tokens)", "kind": "w fitted", "ratio_before": "without w", "ratio": "with w"},
    )


def show_laws_of_other_contexts(rows: Sequence[tuple[str, int, pd.DataFrame]]) -> Html:
    """Shifts of N\\* by laws of every context: architecture, context of the law, `Explanation.pooled_shifts`."""
    parts = []
    for name, origin, pooled in rows:
        part = pooled[pooled["quantity"] == "num_params"]
        bounds = zip(part["ratio"], part["ratio_low"], part["ratio_high"], strict=True)
        parts.append(
            part.assign(architecture=label_of(name), origin=origin, found=[value_text(*each) for each in bounds])
        )
    return show_table(
        pd.concat(parts)[["architecture", "origin", "context_length", "found", "verdict"]],
        caption="Measured over predicted shift of N*, by laws of every context, with 95 % intervals.",
        labels={"origin": "law fitted at T", "context_length": "shift to T", "found": "measured / predicted"},
    )
