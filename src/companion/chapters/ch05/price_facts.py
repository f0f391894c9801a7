"""Values and words of chapter 5's sentences on the bend, on what over-training costs, and on what few runs know."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from companion.chapters.ch05.analysis import Slopes, Tables
from companion.chapters.ch05.facts import Facts
from companion.chapters.ch05.words import LEVEL, each, span
from companion.chapters.labels import label_of, the
from companion.fitting.fit import Fit
from companion.fitting.overtraining.cost import ComputeScale, best_model
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import (
    count,
    interval,
    listed,
    percent,
    power_of_ten,
    share_in_words,
    signed,
    signed_percent,
    significant,
    span_text,
)
from companion.laws import LossSurface

_SIZES = {"all sizes": "With all sizes", "without the smallest": "Without the smallest"}


def bend_facts(bootstraps: Mapping[str, Bootstrap], bends: pd.DataFrame, beyond: pd.DataFrame) -> Facts:
    """For which lines a bend shows, the floor of the law, and how far line and law part beyond the runs."""
    floors = {
        name: f"E = {drawn.fit.law.E:.2f} {interval(drawn.interval('E'), 2)}" for name, drawn in bootstraps.items()
    }
    apart = {row["architecture"]: signed(row["law"] - row["line"], 3) for row in beyond.to_dict("records")}
    law = bends["law"].dropna()
    fall = f"The law predicts a flattening in {share_in_words(int((law < 0).sum()), len(law))} rows"
    return {
        "c5_bend": ". ".join(_flattening(bends, which) for which in _SIZES),
        "c5_bend_law": fall if len(law) else "The runs are too few to compare their bend with that of the law",
        "c5_floor": each(floors),
        "c5_apart": each(apart),
    }


def _flattening(bends: pd.DataFrame, which: str) -> str:
    """For which architectures the lines flatten significantly, with all sizes or without the smallest."""
    rows = bends[(bends["runs"] == which) & bends["seen"].notna()]
    if rows.empty:
        return f"{_SIZES[which]}, the runs are too few to show a bend"
    significant_ones = rows[rows["p"] < LEVEL]
    flat, steep = (
        [the(name) for name in significant_ones.loc[chosen, "architecture"]]
        for chosen in (significant_ones["seen"] < 0, significant_ones["seen"] > 0)
    )
    texts = [f"the lines of {listed(flat)} flatten" if flat else "no lines flatten"]
    texts += [f"those of {listed(steep)} become steeper"] if steep else []
    return f"{_SIZES[which]}, {', and '.join(texts)}"


def implied_facts(slopes: Slopes, implied: Slopes) -> Facts:
    """How far the exponents of lines and those that the law implies for the same runs differ at most."""
    apart = {
        name: max(abs(line.law.exponent - implied[name].laws[ratio].law.exponent) for ratio, line in fits.laws.items())
        for name, fits in slopes.items()
    }
    return {"c5_implied_apart": each({name: f"{value:.4f}" for name, value in apart.items()})}


def front_facts(excess: Tables, penalty: Tables) -> Facts:
    """How far the runs of the largest ratio lie above the front, and above the optimum of the law.

    Parameters
    ----------
    excess, penalty
        by architecture: `excess` and `relative_penalty` by `tokens_per_param`.
    """
    by_front, by_law = {}, {}
    for name, runs in excess.items():
        ratio = runs["tokens_per_param"].max()
        found = runs.loc[runs["tokens_per_param"] == ratio, "excess"]
        said = penalty[name].loc[penalty[name]["tokens_per_param"] == ratio, "relative_penalty"]
        by_front[name] = f"{span(100 * found, '{:.1f}', ' %')} ({label_of(name)}, M = {ratio:g})"
        by_law[name] = span(100 * said, "{:.1f}", " %")
    return {"c5_front_runs": listed(by_front.values()), "c5_front_law": each(by_law)}


def cost_facts(
    costs: Tables,
    laws: Mapping[str, Fit],
    scales: Mapping[str, ComputeScale],
    train_flops: float,
    ratio: float,
) -> Facts:
    """What one ratio costs and buys, of `companion.chapters.ch05.costs` by architecture."""
    rows = {name: table[table["tokens_per_param"] == ratio].to_dict("records")[0] for name, table in costs.items()}
    optima, brief, equal, back = {}, {}, {}, {}
    for name, row in rows.items():
        best = best_model(laws[name].law, scales[name], train_flops)
        optima[name] = f"M = {best.tokens_per_param[0]:.0f} with {count(best.num_params[0])} parameters"
        brief[name] = f"{percent(row['relative_penalty'], decimals=1)} more loss at {row['size_ratio']:.2f} of the size"
        if np.isfinite(row["break_even_tokens"]):
            size = row["size_at_equal_loss"]
            equal[name] = f"{row['compute_factor']:.2f} times the compute for {size:.2f} of the size"
            back[name] = count(row["break_even_tokens"], 2)
    paid = "At equal loss it buys no smaller model"
    if equal:
        paid = f"At equal loss it takes {each(equal)}, and pays back after {each(back)} served tokens"
    return {
        "c5_cost_flops": power_of_ten(train_flops),
        "c5_cost_ratio": f"{ratio:g}",
        "c5_cost_optima": each(optima),
        "c5_cost_brief": each(brief),
        "c5_cost_equal": paid,
    }


def sensitivity_facts(sensitivity: Tables, costs: Tables, ratio: float) -> Facts:
    """How far other laws move the price of a ratio, and how many stay inside the bootstrap interval."""
    ranges, best, within = {}, {}, {}
    for name, table in sensitivity.items():
        [row] = costs[name][costs[name]["tokens_per_param"] == ratio].to_dict("records")
        inside = table["penalty"].dropna().between(row["relative_penalty_low"], row["relative_penalty_high"])
        ranges[name] = span_text(table["penalty"], partial(percent, decimals=1))
        best[name] = span(table["optimal_ratio"], "{:.1f}")
        within[name] = share_in_words(int(inside.sum()), len(table))
    return {
        "c5_sensitivity": f"Depending on the law, the cost of M = {ratio:g} is {each(ranges)}, and the optimal M is "
        f"{each(best)}. The cost lies inside the bootstrap interval for {each(within)} laws"
    }


def windows_verdict(windows: Tables) -> str:
    """What stretches of three runs would have found, of `companion.chapters.ch05.short_windows` by architecture."""
    three, whole, ranks = {}, {}, {}
    for name, table in windows.items():
        short = table[table["num_runs"] == 3]
        three[name] = span(short["eta"], "{:.3f}")
        whole[name] = span(table.loc[table["whole"], "eta"], "{:.3f}")
        ranks[name] = signed(short["middle_flops"].rank().corr(short["eta"].rank()), 2)
    return (
        f"Stretches of three runs give an η of {each(three)}; all runs of a ratio give {each(whole)}. The rank "
        f"correlation of η with the compute of the stretch is {each(ranks)}"
    )


def exact_facts(name: str, fits: Mapping[tuple[tuple[float, ...], float | None], Fit], truth: LossSurface) -> Facts:
    """What one, two and three ratios know of a law, from fits to its exact losses.

    Parameters
    ----------
    name
        the architecture of the law.
    fits
        by the ratios of the design and the γ that was fixed (None: free); as many ratios as there are designs.
    """
    one, two, three = dict.fromkeys(ratios for ratios, _ in fits)
    narrow = [fit for (ratios, _), fit in fits.items() if ratios == one]
    text = (
        "With one ratio the fit is perfect where there are runs, yet the condition number is at least "
        f"{power_of_ten(min(fit.conditioning for fit in narrow), 1)} and the status is "
        f"“{listed(sorted({fit.status for fit in narrow}))}”. "
    )
    if abs(float(truth.gamma) - 1) > 1e-3:
        rms = {ratios: float(np.sqrt(np.mean(fits[ratios, 1.0].residuals ** 2))) for ratios in (two, three)}
        far = fits[two, 1.0].law.predict(1e9, 5e12) / truth.predict(1e9, 5e12) - 1
        text += (
            f"With two ratios the wrong form γ = 1 fits to {power_of_ten(rms[two], 1)} in ln L, and is off by "
            f"{signed_percent(far, 1)} far away. With three ratios its misfit is {power_of_ten(rms[three], 1)}. "
        )
    best = power_of_ten(fits[three, None].conditioning, 1)
    text += f"With three ratios and a free γ the condition number is {best}"
    return {"c5_first": the(name), "c5_exact": text}


def single_verdict(fits: Mapping[tuple[str, str], Fit]) -> str:
    """How many fits to single ratios warn; fits by architecture and the runs they see."""
    alone = [fit for (_, which), fit in fits.items() if which != "all lines"]
    whole = {name: significant(fit.conditioning, 2) for (name, which), fit in fits.items() if which == "all lines"}
    together = f"All lines of an architecture together have a condition number of {each(whole)}"
    if not alone:
        return f"No single ratio has enough runs. {together}"
    warn = sum(fit.status != "converged" for fit in alone)
    if len(alone) == 1:
        return f"The one fit to a single ratio {'comes with a warning' if warn else 'converges'}. {together}"
    return f"Of the fits to single ratios, {share_in_words(warn, len(alone))} come with a warning. {together}"
