"""Values and short texts for the prose of the IsoFLOP chapter, by the names that it glues."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from companion.chapters.applicability import Selection
from companion.chapters.ch03.rebuilt import rebuilt_verdict
from companion.chapters.ch03.tables import Key, architectures_of, rebuilt_runs
from companion.chapters.ch03.words import p_value
from companion.chapters.labels import label_of, the
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.formatting import (
    count,
    interval,
    listed,
    number_word,
    percent,
    power_of_ten,
    share_in_words,
    signed_percent,
    significant,
)
from companion.ledger import LedgerRow, to_frame

Facts = dict[str, str]
#: A test at 5 % finds something where p lies below.
SIGNIFICANT = 0.05


def run_facts(selection: Selection, tables: Mapping[str, pd.DataFrame], window: float) -> Facts:
    """How many runs, at which context length (empty where the table names none), and the width of the window.

    `c3_chosen` says which runs of the table these are, `c3_rebuilt` which losses are no independent record.
    """
    used, length = sum(map(len, tables.values())), selection.context_length
    at_context = f" at T = {length}" if length else ""
    others = len(selection.at_context) - used
    chosen = selection.note[0].upper() + selection.note[1:]
    if selection.of_paper:
        chosen = f"The other {others} runs{at_context} keep D/N fixed" if others else "No run is left out"
    per_budget = [n for table in tables.values() for n in table["isoflop_budget"].value_counts()]
    return {
        "c3_num_runs": str(used),
        "c3_at_context": at_context,
        "c3_window": f"{window:g}",
        "c3_chosen": chosen,
        "c3_rebuilt": rebuilt_verdict(selection, tables),
        "c3_per_budget": " to ".join(dict.fromkeys((str(min(per_budget)), str(max(per_budget))))),
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
    """The degrees of freedom of the joint laws of N\\*."""
    laws = {label_of(name): joint[name, "num_params"] for name in architectures_of(joint)}
    return {"c3_joint_dof": listed([f"{fit.degrees_of_freedom} ({name})" for name, fit in laws.items()])}


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
        where = f"At T = {row['T']} the" if row["T"] != "–" else "The"
        return (
            f"{where} {row['architecture']}'s standard error is {row['published']:.4f} by the published procedure and "
            f"{row['joint']:.4f} by the joint fit; {percent(row['nearer'])} of such optima would lie nearer to a line"
        )
    return "Two optima leave no standard error at all"


def budget_facts(
    every: Mapping[Key, IsoflopFit],
    budgets: Mapping[str, Sequence[float]],
    scatter: pd.DataFrame,
    of_paper: bool,
) -> Facts:
    """Which budgets are outside of the main laws, and whether a power law through the main or all budgets is rejected.

    Parameters
    ----------
    scatter
        from `scatter_of_optima`.
    of_paper
        whether the runs and their main budgets are the paper's.
    """
    outside, verdicts = [], []
    for name in architectures_of(every):
        rest = [p for p in every[name, "num_params"].profiles if p.isoflop_budget not in budgets[name]]
        outside += [f"{power_of_ten(p.isoflop_budget)} FLOP ({label_of(name)}, {len(p.x)} runs)" for p in rest]
        tests = scatter[(scatter["architecture"] == label_of(name)) & (scatter["sizes"] == "all")]
        found = {key: _rejection(p) for key, p in zip(tests["budgets"], tests["p"], strict=True)}
        tested = [f"through {'all' if key == 'all' else 'the main'} budgets is {p}" for key, p in found.items()]
        if tested:
            verdicts.append(f"For {the(name)} a power law {'; one '.join(tested)}")
        if "all" in found:
            verdicts.append(_effect_of_all_budgets(tests.set_index("budgets")))
    left_out = f"The main laws leave out {listed(outside)}" if outside else "The main laws use all budgets"
    left_out += ", as the paper's laws do" if outside and of_paper else ""
    return {"c3_left_out": left_out, "c3_all_budgets": ". ".join(verdicts) or "Two optima cannot test a power law"}


def _rejection(p: float) -> str:
    return f"{'rejected' if p < SIGNIFICANT else 'not rejected'} (p = {p_value(p)})"


def _effect_of_all_budgets(tests: pd.DataFrame) -> str:
    main, every = tests.loc["main"], tests.loc["all"]
    return (
        f"With all budgets the exponent of N* goes from {main['two steps']:.3f} to {every['two steps']:.3f} by the two "
        f"steps and from {main['joint']:.3f} to {every['joint']:.3f} by the joint fit"
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
            notes += _settings_outside(settings[settings["architecture"] == label_of(name)], budgets[name])
        choice = choices[name, "num_params"].set_index("choice")
        if "joint, runs repeated" in choice.index and weights is not None:
            twice, once = choice.loc["joint, runs repeated"], choice.loc["joint"]
            repeats.append(
                f"The published fits count {(table[weights] > 1).sum()} of {len(table)} runs of {the(name)} more "
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
        f"For the {row['architecture']} a + b is {row['a + b']:.3f}, and κ* goes from {row['first']:.2f} to "
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
    by_context: list[str] = []
    gaps: list[float] = []
    gap_errors: list[float] = []
    for length in errors["T"].astype(str).unique():
        rows = errors[errors["T"].astype(str) == length].set_index("architecture")
        if {label_of(first), label_of(second)} <= set(rows.index):
            ours, theirs = rows.loc[label_of(first)], rows.loc[label_of(second)]
            gap, error = ours["exponent"] - theirs["exponent"], np.hypot(ours["joint"], theirs["joint"])
            by_context.append(f"{gap:+.3f} ± {error:.3f}" + (f" at T = {length}" if length != "–" else ""))
            gaps, gap_errors = [*gaps, gap], [*gap_errors, error]
    return {
        "c3_difference": f"{joint['difference']:+.3f} {interval((joint['low'], joint['high']))}",
        "c3_difference_p": p_value(joint["p_value"]),
        "c3_difference_bootstrap_p": p_value(bootstrap["p_value"]),
        "c3_choices_size": found["num_params"],
        "c3_choices_tokens": found["num_tokens"],
        "c3_difference_contexts": listed(by_context) if by_context else "not known at any other context",
        "c3_contexts_verdict": contexts_verdict(gaps, gap_errors),
        "c3_exponents_verdict": exponents_verdict(sizes["p_value"]),
    }


def contexts_verdict(values: Sequence[float], errors: Sequence[float]) -> str:
    """Whether values with standard errors agree, by a chi-square test of one common value."""
    if len(values) < 2:
        return "There is nothing to compare it with"
    found, weights = np.array(values), np.array(errors) ** -2.0
    chi_square = float(np.sum(weights * (found - np.average(found, weights=weights)) ** 2))
    p = float(stats.chi2.sf(chi_square, len(found) - 1))
    agree = f"Given these errors the {number_word(len(found))} agree"
    return f"{agree if p >= SIGNIFICANT else 'They differ by more than these errors explain'} (p = {p_value(p)})"


def exponents_verdict(p_values: pd.Series) -> str:
    """Whether two exponents differ under all choices, under none, or under some only."""
    apart = (p_values < SIGNIFICANT).mean()
    if apart in (0, 1):
        return f"The exponents {'differ' if apart else 'do not differ measurably'} under every choice we tried"
    ends = f"{p_value(p_values.min())} to {p_value(p_values.max())}"
    return f"Whether the exponents differ is not settled: p is {ends}, depending on the procedure"


def ratio_facts(
    ratios: Mapping[str, pd.DataFrame], first: str, second: str, tables: Mapping[str, pd.DataFrame]
) -> Facts:
    """Ratios of two architectures' optima over the budgets, from tables of `optimum_ratio` by x.

    `c3_ratio_typical` is the geometric mean of the sizes' ratios; `c3_tokens_verdict` says whether any interval of the
    tokens' ratios excludes one.
    """
    sizes, tokens = ratios["num_params"], ratios["num_tokens"]
    apart, tokens_apart = (((table["low"] > 1) | (table["high"] < 1)).sum() for table in (sizes, tokens))
    rebuilt = {budget for name in (first, second) for budget in rebuilt_runs(tables)[name]}
    marked = share_in_words(sum(budget in rebuilt for budget in sizes["isoflop_budget"]), len(sizes))
    mean, mean_tokens = (significant(np.exp(np.log(table["ratio"]).mean()), 2) for table in (sizes, tokens))
    return {
        "c3_first": label_of(first),
        "c3_second": label_of(second),
        "c3_ratio": f"{sizes['ratio'].min():.2f} to {sizes['ratio'].max():.2f}",
        "c3_ratio_typical": mean,
        "c3_ratio_rebuilt": marked[0].upper() + marked[1:],
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
    ranges = [f"from {row['min']:.3f} to {row['max']:.3f} for the {name}" for name, row in by_model.iterrows()]
    return {"c3_convention": f"Over these conventions the joint exponent of N* goes {listed(ranges)}"}


def one_sided_facts(sided: pd.DataFrame, budgets: Mapping[str, Sequence[float]]) -> Facts:
    """How far one side of the grid moves the optimum, also at the highest main budget, and how often the fit warns.

    `sided` from `one_sided_table`.
    """
    warned = sided["warning"] != ""
    silent = sided.loc[~warned, "moved"].abs().max()
    moved = f"even without a warning, the optimum moves by up to {percent(silent)}"
    return {
        "c3_sided": f"{signed_percent(sided['moved'].min())} and {signed_percent(sided['moved'].max())}",
        "c3_sided_top": _at_the_top(sided, budgets),
        "c3_sided_warned": share_in_words(int(warned.sum()), len(sided)),
        "c3_sided_silent": moved if np.isfinite(silent) else "none of them passes without a warning",
    }


def _at_the_top(sided: pd.DataFrame, budgets: Mapping[str, Sequence[float]]) -> str:
    """How far each side moves the optimum at every architecture's highest main budget."""
    parts = []
    for name, own in budgets.items():
        rows = sided[(sided["architecture"] == label_of(name)) & sided["isoflop_budget"].isin(own)]
        top = rows[rows["isoflop_budget"] == rows["isoflop_budget"].max()].dropna(subset="moved")
        moves = [signed_percent(move) for move in top["moved"]]
        parts += [f"by {listed(moves)} for {the(name)}"] if moves else []
    return listed(parts) or "by an amount that these sizes cannot determine"


def shape_facts(skews: pd.DataFrame, budgets: Mapping[str, Sequence[float]]) -> Facts:
    """Where a cubic term is significant at an architecture's highest main budget, and where it puts the optimum.

    `skews` from `skew_table`.
    """
    parts = []
    for name, own in budgets.items():
        rows = skews[(skews["architecture"] == label_of(name)) & skews["isoflop_budget"].isin(own)]
        top = rows[(rows["isoflop_budget"] == rows["isoflop_budget"].max()) & (rows["p_value"] < SIGNIFICANT)]
        parts += [
            f"the valley of {the(name)} at {power_of_ten(row['isoflop_budget'])} FLOP is not a parabola: a cubic puts "
            f"its optimum at {count(row['x_opt'])}"
            for row in top.to_dict("records")
        ]
    text = listed(parts) or "no valley at these budgets has a significant cubic term"
    return {"c3_answer_shape": text[0].upper() + text[1:]}


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
            texts.append(f"{move:+.3f} for {the(name)} (standard error {error:.3f})")
    return {"c3_window_shift": listed(texts) if texts else "an amount that these runs cannot determine"}


def cubic_ratio_facts(skews: pd.DataFrame, first: str, second: str) -> Facts:
    """Range of the ratio of two architectures' optima by cubics; from `skew_table`."""
    by_budget = [
        skews[skews["architecture"] == label_of(n)].set_index("isoflop_budget")["x_opt"] for n in (first, second)
    ]
    ratio = (by_budget[0] / by_budget[1]).dropna()
    span = f"the ratio is {ratio.min():.2f} to {ratio.max():.2f}" if len(ratio) else "no ratio can be formed"
    return {"c3_cubic_ratio": span}


def trained_size_facts(bias: pd.DataFrame) -> Facts:
    """Errors of the exponent without noise, beside the standard errors; from `bias_of_trained_sizes`."""
    off, error = bias["num_params"], bias["error"]
    return {
        "c3_real_grid": f"{off.min():+.4f} and {off.max():+.4f}",
        "c3_real_errors": f"{error.min():.4f} to {error.max():.4f}",
    }
