"""Chapter 15: two architectures run by run, at equal compute and of nearly equal size."""

from functools import partial

import numpy as np
import pandas as pd

from companion.chapters.ch15.profiles import MARKERS, budget_colors
from companion.chapters.ch15.seeds import difference_noise
from companion.chapters.ch15.study import OwnStudy, the
from companion.errors import InputError
from companion.formatting import listed, plural, power_of_ten, share_in_words, signed, span_text
from companion.plotting import LABELS, Html, show
from companion.plotting.style import count_ticks, subplots
from companion.study.claims import equal_compute_pairs


def pairs_of(study: OwnStudy) -> pd.DataFrame:
    """Runs of the pair at equal compute and nearly equal size; no rows where there are none."""
    try:
        return equal_compute_pairs(study.at_context, *study.pair, context_length=study.context_length)
    except InputError:
        return pd.DataFrame(columns=["isoflop_budget", "num_params", "tokens_per_param", "size_ratio", "loss_gap"])


def show_pairs(study: OwnStudy, pairs: pd.DataFrame, scatter: pd.DataFrame) -> Html:
    """Loss of the second architecture less that of the first over size, a marker for each budget."""
    figure, (ax,) = subplots(height=3.4)
    groups = list(pairs.groupby("isoflop_budget"))
    for at, (color, (budget, group)) in enumerate(zip(budget_colors(len(groups)), groups, strict=True)):
        ax.plot(
            group["num_params"],
            group["loss_gap"],
            color=color,
            linestyle="none",
            marker=MARKERS[at % len(MARKERS)],
            markersize=6,
            label=power_of_ten(float(str(budget))),
        )
    noise = difference_noise(scatter, study.pair)
    band = "The grey band holds differences that two seeds alone would make (two standard deviations)."
    if np.isfinite(noise):
        ax.axhspan(-2 * noise, 2 * noise, color="#888888", alpha=0.25, linewidth=0)
    ax.axhline(0, color="#888888", linewidth=1)
    ax.set(
        xscale="log",
        xlabel=LABELS["num_params"],
        ylabel="{1} less\n{0} (nats/token)".format(*study.labels),
    )
    count_ticks(ax.xaxis)
    ax.legend(title="C (FLOP)")
    return show(
        figure,
        name="study-pairs",
        alt="Loss of one architecture less that of the other over the size, points for every budget"
        + (", with a grey band around zero." if np.isfinite(noise) else "."),
        caption=f"Runs of equal compute and nearly equal size: above zero, {the(study.pair[0])} has the lower loss."
        + (f" {band}" if np.isfinite(noise) else ""),
    )


def pair_facts(study: OwnStudy, pairs: pd.DataFrame) -> dict[str, object]:
    """Values of the section on pairs."""
    return {
        "c15_num_pairs": plural(len(pairs), "pair"),
        "c15_pair_signs": sign_verdict(pairs, the(study.pair[0])),
        "c15_pair_range": span_text(pairs["loss_gap"], partial(signed, decimals=3)),
    }


def sign_verdict(pairs: pd.DataFrame, first: str) -> str:
    """A verdict: in how many pairs the first architecture has the lower loss, in all and at each budget."""
    if not len(pairs):
        return "No two runs are a pair yet"
    lower = pairs["loss_gap"] > 0
    text = f"{first[0].upper()}{first[1:]} has the lower loss in {share_in_words(int(lower.sum()), len(pairs))} pairs"
    if lower.all() or not lower.any() or pairs["isoflop_budget"].nunique() < 2:
        return text
    by_budget = [
        f"{int(group.sum())} of {len(group)} at {power_of_ten(float(str(budget)))} FLOP"
        for budget, group in lower.groupby(pairs["isoflop_budget"])
    ]
    return f"{text}: {listed(by_budget)}"
