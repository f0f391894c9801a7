"""Values of chapter 5's sentences, and the words of conclusions that a reader's own table can turn around.

A `..._facts` function returns values by the name under which they are glued, a `..._verdict` one sentence or several.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch05.analysis import Slopes, Tables
from companion.chapters.ch05.tables import MISREAD
from companion.chapters.labels import by_label, label_of, labels_of
from companion.fitting.fit import Fit
from companion.fitting.overtraining import OvertrainingSlopes
from companion.fitting.overtraining.cost import ComputeScale, best_model
from companion.fitting.overtraining.slope_tests import compare_slopes
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import count, interval, percent, power_of_ten, significant
from companion.laws import LossSurface

Facts = dict[str, str]
#: Counts of compute that the page compares with the paper's.
_OTHER_COUNTS = ("tfla", "chinchilla attention", "6ND")


def opening_facts(slopes: Slopes, tolerance: float) -> Facts:
    """How many runs have a line, the window, and what the fits warn of."""
    notes = [f"{label_of(name)}: {note}" for name, fits in slopes.items() for note in fits.warnings]
    return {
        "c5_num_runs": str(sum(len(fits.data) for fits in slopes.values())),
        "c5_tolerance": percent(tolerance),
        "c5_notes": "; ".join(notes) if notes else "Every ratio has its line",
        "c5_eta_typical": f"{pd.concat([fits.table() for fits in slopes.values()])['eta'].median():.3f}",
    }


def variance_verdict(slopes: Slopes, misread: Sequence[tuple[str, str, float, float, float, float]]) -> str:
    """What a reader would conclude who took the variance for the standard error."""
    errors = pd.concat([fits.table() for fits in slopes.values()])["eta_standard_error"]
    factor = power_of_ten((1 / errors).median(), 1)
    text = f"The variance is about {factor} times smaller than the standard error"
    table = pd.DataFrame(misread, columns=MISREAD)
    right, wrong = (table.loc[table["taken"].str.startswith(word), "p"] for word in ("standard", "variance"))
    if not len(right):
        return text
    words = f"p falls to {wrong.min():.1g}"
    if (wrong < 1e-6).all():
        words = "they look clearly different"
    agree = " and ".join(f"{p:.2g}" for p in right)
    return f"{text}. Read correctly, the test of equal exponents has p = {agree}; misread, {words}"


def _of_shape(tests: Tables, shape: str) -> dict[str, float]:
    """p of the test with one shape of the lines, by architecture."""
    return {name: float(table.set_index("shape")["p_value"].to_dict()[shape]) for name, table in tests.items()}


def parallel_facts(slopes: Slopes, tests: Tables, seen: pd.DataFrame, largest: float) -> Facts:
    """Whether the lines are parallel, and which difference would have been missed.

    Parameters
    ----------
    tests
        of `companion.fitting.overtraining.slope_tests.parallel_tests`, by architecture.
    seen
        of `companion.chapters.ch05.detectable`.
    largest
        the largest change that was simulated.
    """
    straight, sized = _of_shape(tests, "straight"), _of_shape(tests, "by size")
    each = [
        f"{label_of(name)} p = {significant(p, 2)} with straight lines and {significant(sized[name], 2)} by size"
        for name, p in straight.items()
    ]
    common = []
    for name, fits in slopes.items():
        eta = fits.table()["eta"]
        common.append(
            f"{label_of(name)} {eta.min():.4f} to {eta.max():.4f} for M = {min(fits.laws):g} to {max(fits.laws):g}, in "
            f"common {fits.common_eta:.4f} ± {fits.common_eta_standard_error:.4f}"
        )
    rejected = [label_of(name) for name, p in straight.items() if p < 0.05]
    verdict = "equal slopes are not rejected at 5 %"
    if rejected:
        verdict = f"equal slopes are rejected at 5 % for {', '.join(rejected)}"
    also = [label_of(name) for name, p in sized.items() if p < 0.05]
    more = f"; a sharper test that lets every size deviate rejects them for {', '.join(also)}" if also else ""
    missed = [
        f"{row['f_test']:.4f} ({row['share']:.0%} of η) for {label_of(row['architecture'])}"
        if np.isfinite(row["f_test"])
        else f"{largest:.4f} (the largest that was tried) for {label_of(row['architecture'])}"
        for row in seen[seen["shape"] == "straight"].to_dict("records")
    ]
    return {
        "c5_tests": "; ".join(each),
        "c5_exponents": "; ".join(common),
        "c5_parallel": verdict,
        "c5_parallel_p": " and ".join(f"{p:.2f}" for p in straight.values()),
        "c5_parallel_more": more,
        "c5_missed": " and ".join(missed),
    }


def choice_verdict(choices: Mapping[tuple[str, float, bool], OvertrainingSlopes], tolerance: float) -> str:
    """How far the choice of runs moves η; choices as in `companion.chapters.ch05.choices_table`."""
    ranges, moved = {}, []
    for name in dict.fromkeys(name for name, _, _ in choices):
        kept, out = choices[name, tolerance, True], choices[name, tolerance, False]
        for ratio in sorted(set(kept.laws) & set(out.laws)):
            a, b = -kept.laws[ratio].law.exponent, -out.laws[ratio].law.exponent
            if a != b:
                errors = abs(a - b) / out.laws[ratio].exponent_standard_error
                place = f"at M = {ratio:g} ({label_of(name)})"
                moved.append(f"{place} from {b:.4f} to {a:.4f}, {errors:.1f} standard errors")
        common = [fits.common_eta for key, fits in choices.items() if key[0] == name]
        ranges[name] = f"{min(common):.4f} and {max(common):.4f}"
    text = f"Over all these choices the common η lies between {by_label(ranges, '; between ')}"
    return f"{text}. Keeping the run that was left out moves η {'; '.join(moved)}" if moved else text


def convention_facts(slopes: Slopes, counted: Mapping[tuple[str, str], OvertrainingSlopes], missing: str) -> Facts:
    """How far the count of compute moves the exponents, and the difference of two architectures.

    Parameters
    ----------
    counted
        by architecture and convention; empty where the table cannot be counted again.
    missing
        why it cannot.
    """
    changes = []
    for name in dict.fromkeys(name for name, _ in counted):
        base = counted[name, "paper"].laws
        for other in _OTHER_COUNTS:
            laws = counted[name, other].laws
            change = max(abs(base[m].law.exponent - laws[m].law.exponent) for m in set(base) & set(laws))
            digit = (
                f"{power_of_ten(change, 1)} (digit {int(np.ceil(-np.log10(change)))} after the point)" if change else ""
            )
            changes.append(f"{label_of(name)}, {other}: {digit or 'none'}")
    text = f"This table cannot be counted again: {missing}"
    if changes:
        text = f"Largest change of an exponent against the paper's count: {'; '.join(changes)}"
    return {"c5_convention": text, "c5_difference": _difference(slopes, counted)}


def _difference(slopes: Slopes, counted: Mapping[tuple[str, str], OvertrainingSlopes]) -> str:
    """η of one of two architectures minus that of the other, and whether the count of compute turns its sign."""
    if len(slopes) != 2:
        return "With one architecture, or more than two, there is no pair to compare"
    own = compare_slopes(*slopes.values())
    text = (
        f"With the compute of the table, η of {' minus that of '.join(labels_of(slopes).values())} is "
        f"{own.value:+.4f} ± {own.standard_error:.4f} (p = {significant(own.p_value, 2)})"
    )
    if not counted:
        return text
    named = {
        convention: compare_slopes(*(counted[name, convention] for name in slopes)).value
        for convention in dict.fromkeys(convention for _, convention in counted)
    }
    least, most = min(named, key=lambda key: named[key]), max(named, key=lambda key: named[key])
    words = "the sign depends on the convention" if named[least] < 0 < named[most] else "the sign stays the same"
    ends = " to ".join(f"{named[key]:+.4f} ({key})" for key in (least, most))
    return f"{text}; by convention it ranges from {ends}, so {words}"


def bend_facts(
    slopes: Slopes,
    scales: Mapping[str, ComputeScale],
    bootstraps: Mapping[str, Bootstrap],
    bends: pd.DataFrame,
) -> Facts:
    """How the lines bend, the floor of the law, and line and law a hundred times beyond the last run."""
    bent, brief, beyond, floors = [], [], [], []
    for name, fits in slopes.items():
        rows = bends[bends["architecture"] == name].to_dict("records")
        seen = [
            f"{row['seen']:+.4f} (p = {significant(row['p'], 2)})" if np.isfinite(row["seen"]) else "nothing to fit"
            for row in rows
        ]
        by_law = [f"{row['law']:+.4f}" for row in rows if np.isfinite(row["law"])]
        bent.append(
            f"{label_of(name)}: {seen[0]} per decade of compute, without the smallest model {seen[1]}; the law says "
            f"{' and '.join(by_law) or 'nothing'}"
        )
        brief.append(f"{seen[0]} for {label_of(name)}, or {seen[1]} without its smallest model")
        drawn = bootstraps[name]
        floors.append(f"E = {drawn.fit.law.E:.2f} {interval(drawn.interval('E'), 2)} for {label_of(name)}")
        beyond.append(_beyond(name, fits, scales[name], drawn))
    if bends["seen"].isna().any():
        bent.append("Nothing to fit: no ratio has enough runs for its line and a bend")
    return {
        "c5_bend": ". ".join(bent),
        "c5_answer_bend": "; by ".join(brief),
        "c5_floor": " and ".join(floors),
        "c5_beyond": "; ".join(beyond),
        "c5_take_bend": _flattening(bends),
    }


def _beyond(name: str, fits: OvertrainingSlopes, scale: ComputeScale, bootstrap: Bootstrap) -> str:
    """Loss by the line and by the law at a hundred times the compute of the last run of the smallest ratio."""
    ratio, line = next(iter(fits.laws.items()))
    far = 100 * float(fits.data.loc[fits.data["tokens_per_param"] == ratio, "train_flops"].max())
    size = float(scale.num_params(far, ratio))
    low, high = bootstrap.confidence_band(size, ratio * size)
    return (
        f"{label_of(name)} at M = {ratio:g} and {power_of_ten(far)} FLOP, a hundred times the last run: line "
        f"{line.law.predict(far):.3f}, law {bootstrap.fit.law.predict(size, ratio * size):.3f} "
        f"[{low[0]:.3f}, {high[0]:.3f}] nats per token"
    )


def _flattening(bends: pd.DataFrame) -> str:
    """For which architectures a significant flattening shows, with all sizes and without the smallest."""
    words = []
    for which in ("all sizes", "without the smallest"):
        rows = bends[bends["runs"] == which]
        flat = rows[(rows["p"] < 0.05) & (rows["seen"] < 0)]["architecture"].map(label_of)
        none = "no architecture" if rows["seen"].notna().any() else "none (too few runs)"
        words.append(" and ".join(flat) or none)
    return f"for {words[0]} with all sizes and for {words[1]} without the smallest"


def front_verdict(excess: Tables, penalty: Tables) -> str:
    """How far the runs of the smallest and of the largest ratio lie above the front, and above the law's optimum."""
    texts = []
    for name, runs in excess.items():
        parts = []
        for ratio in (runs["tokens_per_param"].min(), runs["tokens_per_param"].max()):
            seen = runs.loc[runs["tokens_per_param"] == ratio, "excess"]
            law = penalty[name].loc[penalty[name]["tokens_per_param"] == ratio, "relative_penalty"]
            parts.append(
                f"M = {ratio:g} lies {seen.min():.1%} to {seen.max():.1%} above the front and, by the law, "
                f"{law.min():.1%} to {law.max():.1%} above the optimum"
            )
        texts.append(f"{label_of(name)}: {'; '.join(parts)}")
    return ". ".join(texts)


def cost_facts(
    costs: Tables,
    laws: Mapping[str, Fit],
    scales: Mapping[str, ComputeScale],
    train_flops: float,
    ratio: float,
) -> Facts:
    """What one ratio costs and buys, of `companion.chapters.ch05.costs` by architecture."""
    texts, brief = [], []
    for name, table in costs.items():
        [row] = table[table["tokens_per_param"] == ratio].to_dict("records")
        best = best_model(laws[name].law, scales[name], train_flops)
        text = (
            f"{label_of(name)}: the optimum is at M = {best.tokens_per_param[0]:.0f} and "
            f"N = {count(best.num_params[0])}; M = {ratio:g} "
            f"costs {row['relative_penalty']:.1%} of loss for a model {row['size_ratio']:.2f} times as large"
        )
        if np.isfinite(row["break_even_tokens"]):
            text += (
                f", or at equal loss {row['compute_factor']:.2f} times the compute for {row['size_at_equal_loss']:.2f} "
                f"of the size, paid back after {count(row['break_even_tokens'], 2)} served tokens"
            )
        texts.append(text)
        brief.append(
            f"{row['relative_penalty']:.1%} more loss for {row['size_ratio']:.2f} of the size ({label_of(name)})"
        )
    return {
        "c5_cost_flops": power_of_ten(train_flops),
        "c5_cost_flops_short": power_of_ten(train_flops, 1),
        "c5_cost_ratio": f"{ratio:g}",
        "c5_cost": "; ".join(texts),
        "c5_cost_brief": " and ".join(brief),
    }


def sensitivity_verdict(sensitivity: Tables, costs: Tables, ratio: float) -> str:
    """How far other laws move the price of a ratio, and how many stay inside the bootstrap interval."""
    texts = []
    for name, table in sensitivity.items():
        [row] = costs[name][costs[name]["tokens_per_param"] == ratio].to_dict("records")
        penalty, best = table["penalty"], table["optimal_ratio"]
        inside = penalty.dropna().between(row["relative_penalty_low"], row["relative_penalty_high"])
        texts.append(
            f"{label_of(name)}: penalty {penalty.min():.1%} to {penalty.max():.1%}, optimal M {best.min():.1f} to "
            f"{best.max():.1f}; {inside.sum()} of {len(table)} laws put the penalty inside the bootstrap interval of "
            "the table above"
        )
    return ". ".join(texts)


def windows_verdict(windows: Tables) -> str:
    """What stretches of three runs would have found, of `companion.chapters.ch05.short_windows` by architecture."""
    texts = []
    for name, table in windows.items():
        three, whole = table[table["num_runs"] == 3], table[table["whole"]]
        ends = [f"{part['eta'].min():.3f} to {part['eta'].max():.3f}" for part in (three, whole)]
        rank = three["middle_flops"].rank().corr(three["eta"].rank())
        texts.append(
            f"{label_of(name)}: stretches of three runs give η from {ends[0]}, all runs of a ratio {ends[1]}; the rank "
            f"correlation of η with the compute of the stretch is {rank:+.2f}"
        )
    return ". ".join(texts)


def exact_verdict(fits: Mapping[tuple[tuple[float, ...], float | None], Fit], truth: LossSurface) -> str:
    """What one, two and three ratios know of a law, from fits to its exact losses.

    Parameters
    ----------
    fits
        by the ratios of the design and the γ that was fixed (None: free); as many ratios as there are designs.
    """
    one, two, three = dict.fromkeys(ratios for ratios, _ in fits)
    narrow = [fit for (ratios, _), fit in fits.items() if ratios == one]
    text = (
        f"With one ratio the condition number is {power_of_ten(min(fit.conditioning for fit in narrow), 1)} or more, "
        f"status {' and '.join(sorted({fit.status for fit in narrow}))}, although the fit is perfect where there are "
        "runs. "
    )
    if abs(float(truth.gamma) - 1) > 1e-3:
        misfit = {ratios: np.sqrt(np.mean(fits[ratios, 1.0].residuals ** 2)) for ratios in (two, three)}
        far = fits[two, 1.0].law.predict(1e9, 5e12) / truth.predict(1e9, 5e12) - 1
        text += (
            f"Two ratios and γ = 1 fit to {misfit[two]:.0e} in ln L and are off by {far:+.1%} far away; with three "
            f"ratios the misfit is {misfit[three]:.0e}. "
        )
    return f"{text}Three ratios and γ free: condition number {power_of_ten(fits[three, None].conditioning, 1)}"


def single_verdict(fits: Mapping[tuple[str, str], Fit]) -> str:
    """How many fits to single ratios warn; fits by architecture and the runs they see."""
    alone = [fit for (_, which), fit in fits.items() if which != "all lines"]
    whole = " and ".join(significant(fit.conditioning, 2) for (_, which), fit in fits.items() if which == "all lines")
    warn = sum(fit.status != "converged" for fit in alone)
    return (
        f"Of {len(alone)} single ratios with enough runs, {warn} warn; all lines of an architecture together have "
        f"condition numbers of {whole}"
    )
