"""Values and short texts for the prose of the IsoFLOP chapter, by the names that it glues."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch03.tables import Key, architectures_of
from companion.chapters.names import SYMBOLS, label
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.formatting import count, interval, percent, power_of_ten, significant
from companion.ledger import LedgerRow, to_frame

Facts = dict[str, str]
#: A test at 5 % finds something where p lies below.
SIGNIFICANT = 0.05


def run_facts(tables: Mapping[str, pd.DataFrame], context_length: int | None, window: float) -> Facts:
    """How many runs, at which context length (empty where the table names none), and the width of the window."""
    return {
        "c3_num_runs": str(sum(map(len, tables.values()))),
        "c3_at_context": f" at T = {context_length}" if context_length else "",
        "c3_window": f"{window:g}",
    }


def optimum_facts(main: Mapping[Key, IsoflopFit]) -> Facts:
    """N\\* and D\\* at the highest main budget of every architecture."""
    texts = []
    for name in architectures_of(main):
        size, tokens = (main[name, x].optima[-1] for x in SYMBOLS)
        budget = power_of_ten(size.isoflop_budget)
        best = f"N* = {count(size.x_opt)} and D* = {count(tokens.x_opt)} tokens"
        texts.append(f"{best} for {label(name)} ({budget} FLOP)")
    return {"c3_answer_optima": ", ".join(texts)}


def ledger_facts(rows: list[LedgerRow]) -> Facts:
    """How many published numbers come out again, at which contexts, and how many are not independent."""
    ledger = to_frame(rows)
    laws = ledger.loc[ledger["section"] == "isoflop_power_laws", "entry"]
    contexts = sorted(laws.str.extract(r"T=(\d+)")[0].astype(int).unique())
    return {
        "c3_ledger_reproduced": f"{(ledger['verdict'] == 'reproduced').sum()} of {len(ledger)}",
        "c3_ledger_contexts": "T = " + " and ".join(map(str, contexts)),
        "c3_ledger_dependent": f"{(~ledger['independent']).sum()} of the {len(ledger)}",
    }


def law_facts(joint: Mapping[Key, JointIsoflopFit]) -> Facts:
    """Exponents of the joint laws with their intervals, and the degrees of freedom of each."""
    exponents = {key: f"{fit.law.exponent:.3f} {interval(fit.interval())}" for key, fit in joint.items()}
    names = architectures_of(joint)
    laws = [f"a = {exponents[n, 'num_params']} and b = {exponents[n, 'num_tokens']} for {label(n)}" for n in names]
    freedom = [f"{joint[n, 'num_params'].degrees_of_freedom} ({label(n)})" for n in names]
    return {"c3_answer_laws": ", ".join(laws), "c3_joint_dof": " and ".join(freedom)}


def error_facts(errors: pd.DataFrame) -> Facts:
    """Extremes of the published over the joint standard error, and how far the procedures agree.

    Parameters
    ----------
    errors
        from `errors_by_context`.
    """
    ratios = errors.assign(ratio=errors["published"] / errors["joint"]).dropna(subset="ratio").sort_values("ratio")
    factors = {key: np.exp(np.abs(np.log(errors[key] / errors["joint"]))).max() for key in ("bootstrap", "published")}
    widest = (errors["half_published"] / errors["half_joint"]).max()
    return {
        "c3_smallest": _pair_of_errors(ratios.iloc[:1]),
        "c3_largest": _pair_of_errors(ratios.iloc[-1:]),
        "c3_factor_joint": significant(factors["bootstrap"], 2),
        "c3_factor_published": significant(factors["published"], 2),
        "c3_widest": significant(widest, 2),
    }


def _pair_of_errors(rows: pd.DataFrame) -> str:
    """Both standard errors of the one row, or that there are none."""
    for row in rows.to_dict("records"):
        where = row["architecture"] + (f" at T = {row['T']}" if row["T"] != "–" else "")
        pair = f"{row['published']:.4f} by the published procedure against {row['joint']:.4f} by the joint fit"
        return f"{pair} ({where}; chance of optima this near to a line, or nearer: {percent(row['nearer'])})"
    return "no standard error at all (two optima leave none)"


def budget_facts(
    every: Mapping[Key, IsoflopFit],
    budgets: Mapping[str, Sequence[float]],
    scatter: pd.DataFrame,
    choices: Mapping[Key, pd.DataFrame],
) -> Facts:
    """Which budgets are outside of the main laws, and whether a power law through the main or all budgets is rejected.

    Parameters
    ----------
    scatter
        from `scatter_of_optima`.
    choices
        tables of `exponent_choices`.
    """
    outside, verdicts = [], []
    for name in architectures_of(every):
        rest = [p for p in every[name, "num_params"].profiles if p.isoflop_budget not in budgets[name]]
        outside += [f"{power_of_ten(p.isoflop_budget)} FLOP ({label(name)}, {len(p.x)} runs)" for p in rest]
        tests = scatter[(scatter["architecture"] == label(name)) & (scatter["sizes"] == "all")]
        found = {key: _rejection(p) for key, p in zip(tests["budgets"], tests["p"], strict=True)}
        if "main" in found:
            verdicts.append(f"{label(name)}: a power law through the main budgets is {found['main']}")
        if "all" in found:
            moved = _effect_of_all_budgets(choices[name, "num_params"].set_index("choice")["exponent"])
            verdicts.append(f"{label(name)}: one through all budgets is {found['all']}, and {moved}")
    left_out = f"Outside the main laws: {', '.join(outside)}" if outside else "The main laws use all budgets"
    return {"c3_left_out": left_out, "c3_all_budgets": ". ".join(verdicts) or "Two optima cannot test a power law"}


def _rejection(p: float) -> str:
    return f"{'rejected' if p < SIGNIFICANT else 'not rejected'} (p = {p:.2g})"


def _effect_of_all_budgets(exponents: pd.Series) -> str:
    return (
        f"using all moves the exponent of N* from {exponents['published']:.3f} to "
        f"{exponents['published, all budgets']:.3f} under the published procedure, "
        f"from {exponents['joint']:.3f} to {exponents['joint, all budgets']:.3f} in the joint fit"
    )


def settings_facts(
    settings: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    budgets: Mapping[str, Sequence[float]],
    choices: Mapping[Key, pd.DataFrame],
    weights: str | None,
) -> Facts:
    """How training differs between budgets, and what counting runs twice does to the joint fit.

    Parameters
    ----------
    settings
        from `settings_by_architecture`.
    weights
        column that says how often a run was counted, or None.
    """
    notes, repeats = [], []
    for name, table in tables.items():
        if {"batch_tokens", "learning_rate_low"} <= set(settings):
            notes += _settings_outside(settings[settings["architecture"] == label(name)], budgets[name])
        choice = choices[name, "num_params"].set_index("choice")
        if "joint, runs repeated" in choice.index and weights is not None:
            twice, once = choice.loc["joint, runs repeated"], choice.loc["joint"]
            repeats.append(
                f"{(table[weights] > 1).sum()} of {len(table)} runs of {label(name)}; in the joint fit this moves the "
                f"exponent of N* by {twice['exponent'] - once['exponent']:+.4f} and its standard error from "
                f"{once['standard_error']:.4f} to {twice['standard_error']:.4f}"
            )
    return {
        "c3_settings": ". ".join(notes) or "The settings are in the first table",
        "c3_twice": "; ".join(repeats) or "none of these",
    }


def _settings_outside(settings: pd.DataFrame, budgets: Sequence[float]) -> list[str]:
    """One sentence for every budget that is not among the main ones."""
    inner = settings[settings["isoflop_budget"].isin(budgets)]
    return [
        f"At {power_of_ten(row['isoflop_budget'])} FLOP a batch has {count(row['batch_tokens'], 2)} tokens "
        f"({count(inner['batch_tokens'].mean(), 2)} at the main budgets) and learning rates go from "
        f"{row['learning_rate_low']:.4f} to {row['learning_rate_high']:.4f} "
        f"({inner['learning_rate_low'].min():.4f} to {inner['learning_rate_high'].max():.4f})"
        for row in settings[~settings["isoflop_budget"].isin(budgets)].to_dict("records")
    ]


def sum_facts(sums: pd.DataFrame) -> Facts:
    """a + b and kappa of every architecture, from `exponent_sums`."""
    texts = [
        f"{row['architecture']} has a + b = {row['a + b']:.3f} and κ* from {row['first']:.2f} to {row['last']:.2f}"
        for row in sums.to_dict("records")
    ]
    return {"c3_sum": "; ".join(texts)}


def difference_facts(differences: Mapping[str, pd.DataFrame], first: str, second: str, errors: pd.DataFrame) -> Facts:
    """Difference of the exponents of two architectures by the joint fit, by choice and by context length.

    Parameters
    ----------
    differences
        by x: tables of `exponent_differences`, first less second.
    errors
        from `errors_by_context`.
    """
    sizes = differences["num_params"]
    [joint] = sizes[sizes["choice"] == "joint"].to_dict("records")
    bootstrap = sizes[sizes["choice"].str.endswith("bootstrap")].iloc[0]
    found = {x: f"{(table['p_value'] < SIGNIFICANT).sum()} of {len(table)}" for x, table in differences.items()}
    by_context = []
    for length in errors["T"].astype(str).unique():
        rows = errors[errors["T"].astype(str) == length].set_index("architecture")
        if {label(first), label(second)} <= set(rows.index):
            ours, theirs = rows.loc[label(first)], rows.loc[label(second)]
            gap, error = ours["exponent"] - theirs["exponent"], np.hypot(ours["joint"], theirs["joint"])
            by_context.append(f"{gap:+.3f} ± {error:.3f}" + (f" at T = {length}" if length != "–" else ""))
    return {
        "c3_difference": f"{joint['difference']:+.3f} {interval((joint['low'], joint['high']))}",
        "c3_difference_p": f"{joint['p_value']:.2g}",
        "c3_difference_bootstrap_p": f"{bootstrap['p_value']:.2g}",
        "c3_choices_size": found["num_params"],
        "c3_choices_tokens": found["num_tokens"],
        "c3_difference_contexts": ", ".join(by_context),
        "c3_least_p": f"{sizes['p_value'].min():.1g}",
        "c3_most_p": f"{sizes['p_value'].max():.1g}",
    }


def ratio_facts(ratios: Mapping[str, pd.DataFrame], first: str, second: str) -> Facts:
    """Ranges of the ratios of two architectures' optima over the budgets, from tables of `optimum_ratio` by x."""
    sizes, tokens = ratios["num_params"], ratios["num_tokens"]
    apart = ((sizes["low"] > 1) | (sizes["high"] < 1)).sum()
    return {
        "c3_first": label(first),
        "c3_second": label(second),
        "c3_ratio": f"{sizes['ratio'].min():.2f} to {sizes['ratio'].max():.2f}",
        "c3_ratio_tokens": f"{tokens['ratio'].min():.2f} to {tokens['ratio'].max():.2f}",
        "c3_ratio_apart": f"{apart} of {len(sizes)}",
    }


def convention_facts(exponents: pd.DataFrame) -> Facts:
    """Range of the joint exponent over the conventions; a table without rows could not be counted again."""
    if exponents.empty:
        return {"c3_convention": "No other count is possible here"}
    by_model = exponents.groupby("model")["a_joint"].agg(["min", "max"])
    ranges = [f"from {row['min']:.3f} to {row['max']:.3f} for {name}" for name, row in by_model.iterrows()]
    return {"c3_convention": f"Over these conventions the joint exponent of N* goes {' and '.join(ranges)}"}


def one_sided_facts(sided: pd.DataFrame) -> Facts:
    """How far one side of the grid moves the optimum, and how often the fit warns; from `one_sided_table`."""
    warned = sided["warning"] != ""
    silent = sided.loc[~warned, "moved"].abs().max()
    return {
        "c3_sided": f"{sided['moved'].min():+.0%} to {sided['moved'].max():+.0%}",
        "c3_sided_warned": f"{warned.sum()} of these {len(sided)}",
        "c3_sided_silent": f"moves by up to {silent:.0%}" if np.isfinite(silent) else "never occurs here",
    }


def skew_facts(skews: pd.DataFrame) -> Facts:
    """How often the cubic term is significant, and how far it moves an optimum; from `skew_table`."""
    return {
        "c3_skewed": f"{(skews['p_value'] < SIGNIFICANT).sum()} of {len(skews)}",
        "c3_skew_most": f"{skews['moved'].abs().max():.0%}",
    }


def window_facts(choices: Mapping[Key, pd.DataFrame]) -> Facts:
    """How far keeping the innermost sizes moves the joint exponent; from tables of `exponent_choices`."""
    texts = []
    for name in architectures_of(choices):
        choice = choices[name, "num_params"].set_index("choice")
        for inner in choice.loc[choice.index.str.contains("within"), "exponent"]:
            joint = choice.loc["joint"]
            move, error = inner - joint["exponent"], joint["standard_error"]
            texts.append(f"{move:+.3f} for {label(name)} (standard error {error:.3f})")
    return {"c3_window_shift": " and ".join(texts) or "by an amount that cannot be fitted here"}


def cubic_ratio_facts(skews: pd.DataFrame, first: str, second: str) -> Facts:
    """Range of the ratio of two architectures' optima by cubics; from `skew_table`."""
    by_budget = [skews[skews["architecture"] == label(n)].set_index("isoflop_budget")["x_opt"] for n in (first, second)]
    ratio = (by_budget[0] / by_budget[1]).dropna()
    span = f"would be {ratio.min():.2f} to {ratio.max():.2f}" if len(ratio) else "cannot be formed"
    return {"c3_cubic_ratio": span}


def trained_size_facts(bias: pd.DataFrame) -> Facts:
    """Errors of the exponent without noise, beside the standard errors; from `bias_of_trained_sizes`."""
    off, error = bias["num_params"], bias["error"]
    return {
        "c3_real_grid": f"{off.min():+.3f} to {off.max():+.3f}",
        "c3_real_errors": f"{error.min():.3f} to {error.max():.3f}",
    }
