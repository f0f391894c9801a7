"""Values and short texts for the prose of the IsoFLOP chapter, by the names that it glues."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch03.tables import Key, architectures_of
from companion.chapters.ch03.words import p_value
from companion.chapters.names import label
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.formatting import count, interval, listed, percent, power_of_ten, share_in_words, significant
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


def ledger_facts(rows: list[LedgerRow]) -> Facts:
    """How many published numbers come out again, at which contexts, and how many of these are independent or not."""
    ledger = to_frame(rows)
    laws = ledger.loc[ledger["section"] == "isoflop_power_laws", "entry"]
    contexts = sorted(laws.str.extract(r"T=(\d+)")[0].astype(int).unique())
    done = ledger[ledger["verdict"] == "reproduced"]
    return {
        "c3_ledger_reproduced": share_in_words(len(done), len(ledger)),
        "c3_ledger_contexts": "T = " + listed([str(length) for length in contexts]),
        "c3_ledger_independent": str(int(done["independent"].sum())),
        "c3_ledger_dependent": str(int((~done["independent"]).sum())),
    }


def law_facts(joint: Mapping[Key, JointIsoflopFit]) -> Facts:
    """Exponents of N\\* by the joint laws, and the degrees of freedom of each."""
    laws = {label(name): joint[name, "num_params"] for name in architectures_of(joint)}
    return {
        "c3_answer_a": listed([f"{fit.law.exponent:.3f} ({name})" for name, fit in laws.items()]),
        "c3_joint_dof": listed([f"{fit.degrees_of_freedom} ({name})" for name, fit in laws.items()]),
    }


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
    """Both standard errors of the one row in a sentence, or that there are none."""
    for row in rows.to_dict("records"):
        where = row["architecture"] + (f" at T = {row['T']}" if row["T"] != "–" else "")
        return (
            f"For {where} the published procedure has a standard error of {row['published']:.4f}, the joint fit one of "
            f"{row['joint']:.4f}; the chance of optima this near to a line is {percent(row['nearer'])}"
        )
    return "Two optima leave no standard error at all"


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
        tested = [f"through {'all' if key == 'all' else 'the main'} budgets is {p}" for key, p in found.items()]
        if tested:
            verdicts.append(f"For {label(name)} a power law {'; one '.join(tested)}")
        if "all" in found:
            verdicts.append(_effect_of_all_budgets(choices[name, "num_params"].set_index("choice")["exponent"]))
    left_out = f"The main laws leave out {listed(outside)}" if outside else "The main laws use all budgets"
    return {"c3_left_out": left_out, "c3_all_budgets": ". ".join(verdicts) or "Two optima cannot test a power law"}


def _rejection(p: float) -> str:
    return f"{'rejected' if p < SIGNIFICANT else 'not rejected'} (p = {p_value(p)})"


def _effect_of_all_budgets(exponents: pd.Series) -> str:
    return (
        f"With all budgets the exponent of N* goes from {exponents['published']:.3f} to "
        f"{exponents['published, all budgets']:.3f} by the published procedure and "
        f"from {exponents['joint']:.3f} to {exponents['joint, all budgets']:.3f} by the joint fit"
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
                f"The published fits count {(table[weights] > 1).sum()} of {len(table)} runs of {label(name)} more "
                f"than once. Repeating them in the joint fit moves the exponent of N* by "
                f"{twice['exponent'] - once['exponent']:+.4f} and its standard error from "
                f"{once['standard_error']:.4f} to {twice['standard_error']:.4f}"
            )
    return {
        "c3_settings": ". ".join(notes) or "The table of runs shows the settings of each",
        "c3_twice": ". ".join(repeats) or "No run of the main budgets counts more than once here",
    }


def _settings_outside(settings: pd.DataFrame, budgets: Sequence[float]) -> list[str]:
    """One sentence for every budget that is not among the main ones."""
    inner = settings[settings["isoflop_budget"].isin(budgets)]
    return [
        f"At {power_of_ten(row['isoflop_budget'])} FLOP a batch has {count(row['batch_tokens'], 2)} tokens, against "
        f"{count(inner['batch_tokens'].mean(), 2)} at the main budgets, and learning rates are "
        f"{row['learning_rate_low']:.4f} to {row['learning_rate_high']:.4f}, against "
        f"{inner['learning_rate_low'].min():.4f} to {inner['learning_rate_high'].max():.4f}"
        for row in settings[~settings["isoflop_budget"].isin(budgets)].to_dict("records")
    ]


def sum_facts(sums: pd.DataFrame) -> Facts:
    """a + b and kappa of every architecture, from `exponent_sums`."""
    texts = [
        f"For {row['architecture']} a + b is {row['a + b']:.3f}, and κ* goes from {row['first']:.2f} to "
        f"{row['last']:.2f}"
        for row in sums.to_dict("records")
    ]
    return {"c3_sum": ". ".join(texts)}


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
    found = {
        x: share_in_words(int((table["p_value"] < SIGNIFICANT).sum()), len(table)) for x, table in differences.items()
    }
    by_context = []
    for length in errors["T"].astype(str).unique():
        rows = errors[errors["T"].astype(str) == length].set_index("architecture")
        if {label(first), label(second)} <= set(rows.index):
            ours, theirs = rows.loc[label(first)], rows.loc[label(second)]
            gap, error = ours["exponent"] - theirs["exponent"], np.hypot(ours["joint"], theirs["joint"])
            by_context.append(f"{gap:+.3f} ± {error:.3f}" + (f" at T = {length}" if length != "–" else ""))
    return {
        "c3_difference": f"{joint['difference']:+.3f} {interval((joint['low'], joint['high']))}",
        "c3_difference_p": p_value(joint["p_value"]),
        "c3_difference_bootstrap_p": p_value(bootstrap["p_value"]),
        "c3_choices_size": found["num_params"],
        "c3_choices_tokens": found["num_tokens"],
        "c3_difference_contexts": listed(by_context) if by_context else "not known at any other context",
        "c3_least_p": f"{sizes['p_value'].min():.1g}",
        "c3_most_p": f"{sizes['p_value'].max():.1g}",
    }


def ratio_facts(ratios: Mapping[str, pd.DataFrame], first: str, second: str) -> Facts:
    """Ratios of two architectures' optima over the budgets, from tables of `optimum_ratio` by x.

    `c3_ratio_typical` is the geometric mean of the sizes' ratios; `c3_tokens_verdict` says whether any interval of the
    tokens' ratios excludes one.
    """
    sizes, tokens = ratios["num_params"], ratios["num_tokens"]
    apart, tokens_apart = (((table["low"] > 1) | (table["high"] < 1)).sum() for table in (sizes, tokens))
    mean, mean_tokens = (significant(np.exp(np.log(table["ratio"]).mean()), 2) for table in (sizes, tokens))
    return {
        "c3_first": label(first),
        "c3_second": label(second),
        "c3_ratio": f"{sizes['ratio'].min():.2f} to {sizes['ratio'].max():.2f}",
        "c3_ratio_typical": mean,
        "c3_ratio_tokens": f"{tokens['ratio'].min():.2f} to {tokens['ratio'].max():.2f}",
        "c3_ratio_apart": share_in_words(int(apart), len(sizes)),
        "c3_tokens_apart": share_in_words(int(tokens_apart), len(tokens)),
        "c3_tokens_verdict": f"about {mean_tokens} times as many" if tokens_apart else "about as many",
    }


def convention_facts(exponents: pd.DataFrame) -> Facts:
    """Range of the joint exponent over the conventions; a table without rows could not be counted again."""
    if exponents.empty:
        return {"c3_convention": "No other count is possible here"}
    by_model = exponents.groupby("model")["a_joint"].agg(["min", "max"])
    ranges = [f"from {row['min']:.3f} to {row['max']:.3f} for {name}" for name, row in by_model.iterrows()]
    return {"c3_convention": f"Over these conventions the joint exponent of N* goes {listed(ranges)}"}


def one_sided_facts(sided: pd.DataFrame) -> Facts:
    """How far one side of the grid moves the optimum, and how often the fit warns; from `one_sided_table`."""
    warned = sided["warning"] != ""
    silent = sided.loc[~warned, "moved"].abs().max()
    moved = f"even without a warning, the optimum moves by up to {percent(silent)}"
    return {
        "c3_sided": f"{sided['moved'].min():+.0%} and {sided['moved'].max():+.0%}",
        "c3_sided_warned": share_in_words(int(warned.sum()), len(sided)),
        "c3_sided_silent": moved if np.isfinite(silent) else "none of them passes without a warning",
    }


def skew_facts(skews: pd.DataFrame) -> Facts:
    """How often the cubic term is significant, and how far it moves an optimum; from `skew_table`."""
    return {
        "c3_skewed": share_in_words(int((skews["p_value"] < SIGNIFICANT).sum()), len(skews)),
        "c3_skew_most": percent(skews["moved"].abs().max()),
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
    return {"c3_window_shift": listed(texts) if texts else "an amount that these runs cannot determine"}


def cubic_ratio_facts(skews: pd.DataFrame, first: str, second: str) -> Facts:
    """Range of the ratio of two architectures' optima by cubics; from `skew_table`."""
    by_budget = [skews[skews["architecture"] == label(n)].set_index("isoflop_budget")["x_opt"] for n in (first, second)]
    ratio = (by_budget[0] / by_budget[1]).dropna()
    span = f"the ratio is {ratio.min():.2f} to {ratio.max():.2f}" if len(ratio) else "no ratio can be formed"
    return {"c3_cubic_ratio": span}


def trained_size_facts(bias: pd.DataFrame) -> Facts:
    """Errors of the exponent without noise, beside the standard errors; from `bias_of_trained_sizes`."""
    off, error = bias["num_params"], bias["error"]
    return {
        "c3_real_grid": f"{off.min():+.3f} and {off.max():+.3f}",
        "c3_real_errors": f"{error.min():.3f} to {error.max():.3f}",
    }
