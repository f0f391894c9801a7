"""Chapter 15: IsoFLOP profiles with their optima, exponents, and the two architectures run by run."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from companion.chapters.applicability import need
from companion.chapters.ch15.study import OwnStudy, the
from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.fitting.isoflop import IsoflopFit
from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.formatting import (
    count,
    interval,
    listed,
    number_word,
    plural,
    power_of_ten,
    share_in_words,
    signed,
    significant,
    span_text,
)
from companion.plotting import LABELS, Html, show, show_table
from companion.plotting.style import count_ticks, panels, subplots
from companion.study.claims import equal_compute_pairs

#: One marker for every budget; colors are those of architectures.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SHADES = (0.55, 0.7, 0.85, 1.0)
Profiles = Mapping[str, IsoflopFit]


def profiles_panels(study: OwnStudy, profiles: Profiles) -> Figure:
    """Loss over parameters, a panel for each architecture, a marker for each budget."""
    figure, axes = panels(len(profiles), height=3.6, sharey=True)
    budgets = sorted({each.isoflop_budget for fits in profiles.values() for each in fits.profiles})
    markers = {budget: _MARKERS[at % len(_MARKERS)] for at, budget in enumerate(budgets)}
    shades = {budget: _SHADES[min(at, len(_SHADES) - 1)] for at, budget in enumerate(budgets)}
    for ax, (name, fits) in zip(axes, profiles.items(), strict=True):
        color = study.looks[name]["color"]
        for profile in fits.profiles:
            look: dict[str, Any] = {"color": color, "alpha": shades[profile.isoflop_budget]}
            ax.plot(
                profile.x,
                profile.loss,
                linestyle="none",
                marker=markers[profile.isoflop_budget],
                markersize=5,
                label=power_of_ten(profile.isoflop_budget),
                **look,
            )
            if profile.fit is not None and profile.has_optimum:
                grid = np.geomspace(profile.x.min(), profile.x.max(), 60)
                ax.plot(grid, profile.fit.law.predict(grid), linewidth=1.2, **look)
                ax.plot(
                    profile.x_opt, profile.loss_opt, marker="*", color=color, markersize=11, markeredgecolor="white"
                )
        ax.set(xscale="log", xlabel=LABELS["num_params"], title=label_of(name))
        count_ticks(ax.xaxis, (1.0,))
    axes[0].set_ylabel(LABELS["val_loss"])
    axes[0].legend(title="C (FLOP)", fontsize=8, title_fontsize=8)
    return figure


def show_profiles(study: OwnStudy, profiles: Profiles) -> Html:
    """The profiles of all architectures at the context."""
    return show(
        profiles_panels(study, profiles),
        name="study-profiles",
        alt="Loss over parameters in a panel for each architecture: one valley for each budget that is trained whole, "
        "single points for the others.",
        caption=f"Final losses of the study at T = {study.context_length:,}, a marker for each budget. A star is the "
        "lowest point of a parabola. A budget needs three sizes for a parabola.",
    )


def show_optima(study: OwnStudy, profiles: Profiles) -> Html:
    """A row per architecture and budget: sizes, N* and its interval, the loss there."""
    rows = []
    for name, fits in profiles.items():
        for profile in fits.profiles:
            low_high = fits.interval("x_opt", profile=profile)
            text = f"{count(profile.x_opt)} [{count(low_high[0])}, {count(low_high[1])}]"
            rows.append(
                {
                    "architecture": label_of(name),
                    "budget": power_of_ten(profile.isoflop_budget),
                    "runs": profile.x.size,
                    "sizes": np.unique(profile.x).size,
                    "optimum": optimum_text(profile, low_high, text),
                    "tokens": _tokens(study.of(name), profile),
                    "loss": "–" if not profile.has_optimum else f"{profile.loss_opt:.3f}",
                }
            )
    return show_table(
        pd.DataFrame(rows),
        name="study-optima",
        caption="Optima of the profiles with 95 % intervals. D*/N* are tokens per parameter at the optimum. Where "
        "there is no optimum, the table says why.",
        labels={"budget": "C (FLOP)", "optimum": "N*", "tokens": "D*/N*", "loss": "loss (nats/token)"},
    )


def optimum_text(profile: IsoflopProfile, bounds: tuple[float, float], text: str) -> str:
    """N* with its interval, N* alone where there is none, or why there is no optimum."""
    if not profile.has_optimum:
        return profile.fault.partition(":")[0]
    return text if np.isfinite(bounds).all() else f"{count(profile.x_opt)}, no interval"


def _tokens(runs: pd.DataFrame, profile: IsoflopProfile) -> str:
    """Tokens per parameter at the optimum, between those of the runs on either side of it."""
    if not profile.has_optimum:
        return "–"
    own = runs[runs["isoflop_budget"] == profile.isoflop_budget].sort_values("num_params")
    log_ratio = np.log(own["num_tokens"] / own["num_params"])
    return significant(float(np.exp(np.interp(np.log(profile.x_opt), np.log(own["num_params"]), log_ratio))), 2)


def exponent_facts(profiles: Profiles) -> dict[str, object]:
    """Values of the section on profiles."""
    known = [f"{exponent_text(fits)} for {the(name)}" for name, fits in profiles.items() if fits.law_defined]
    missing = [the(name) for name, fits in profiles.items() if not fits.law_defined]
    none = [f"undefined for {listed(missing)}, where fewer than two budgets have an optimum"] if missing else []
    optima = sum(len(fits.optima) for fits in profiles.values())
    total = sum(len(fits.profiles) for fits in profiles.values())
    return {
        "c15_exponents": "; ".join([*known, *none]),
        "c15_num_optima": share_in_words(optima, total),
        "c15_grows": grows_verdict(profiles),
    }


def exponent_text(fits: IsoflopFit) -> str:
    """The exponent of N* with its interval, or why there is none."""
    value = f"{fits.power_law.law.exponent:.2f}"
    reason = fits.undefined("exponent")
    return f"{value} without an interval ({reason})" if reason else f"{value} {interval(fits.interval('exponent'), 2)}"


def grows_verdict(profiles: Profiles) -> str:
    """A verdict: whether the exponents of the architectures differ, and whether they have a value at all."""
    known = {name: fits.interval("exponent") for name, fits in profiles.items() if fits.law_defined}
    finite = {name: bounds for name, bounds in known.items() if np.isfinite(bounds).all()}
    if len(finite) < 2:
        return "Fewer than two architectures have an exponent with an interval, so there is nothing to compare yet"
    low, high = max(bounds[0] for bounds in finite.values()), min(bounds[1] for bounds in finite.values())
    if low > high:
        return "The intervals do not overlap: the architectures grow differently"
    return "The intervals overlap: these runs show no difference between the architectures"


# ---- pairs and seeds -----------------------------------------------------------------------------


def seed_scatter(runs: pd.DataFrame) -> pd.DataFrame:
    """Configurations that were trained from several seeds.

    Returns
    -------
    DataFrame
        one row each: `architecture`, `isoflop_budget`, `num_params`, `seeds`, `mean` and `deviation` (sample standard
        deviation) of the loss, nats per token.
    """
    keys = ["architecture", "isoflop_budget", "num_params", "num_tokens"]
    if "seed" not in runs or "isoflop_budget" not in runs:
        return pd.DataFrame(columns=[*keys, "seeds", "mean", "deviation"])
    groups = runs.dropna(subset=["isoflop_budget"]).groupby(keys, as_index=False)
    found = groups.agg(seeds=("seed", "nunique"), mean=("val_loss", "mean"), deviation=("val_loss", "std"))
    return found[found["seeds"] > 1].reset_index(drop=True)


def pooled(scatter: pd.DataFrame) -> float:
    """Standard deviation between seeds, over all configurations, nats per token; NaN without any."""
    freedom = scatter["seeds"] - 1
    if not len(scatter):
        return float("nan")
    return float(np.sqrt((freedom * scatter["deviation"] ** 2).sum() / freedom.sum()))


def pairs_of(study: OwnStudy) -> pd.DataFrame:
    """Runs of the pair at equal compute and nearly equal size; leaves out the section where there are none."""
    try:
        return equal_compute_pairs(study.at_context, *study.pair, context_length=study.context_length)
    except InputError:
        return pd.DataFrame(columns=["isoflop_budget", "num_params", "tokens_per_param", "size_ratio", "loss_gap"])


def budget_colors(number: int) -> list[tuple[float, float, float]]:
    """Colors of an ordered quantity, from dark to light; those of architectures mean something else."""
    return list(sns.color_palette("viridis", max(number, 1)))[:number]


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
            marker=_MARKERS[at % len(_MARKERS)],
            markersize=6,
            label=power_of_ten(float(str(budget))),
        )
    noise = np.sqrt(2) * pooled(scatter)
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


def show_seeds(scatter: pd.DataFrame) -> Html:
    """A row per configuration that was trained from several seeds; leaves out the section where there is none."""
    need(len(scatter), "no configuration was trained from two seeds")
    return show_table(
        scatter[["architecture", "isoflop_budget", "num_params", "seeds", "mean", "deviation"]].assign(
            architecture=scatter["architecture"].map(label_of)
        ),
        name="study-seeds",
        caption="Configurations that were trained from several seeds of the weights: mean loss and standard deviation "
        "between seeds. The batches are the same for all seeds.",
        formats={
            "isoflop_budget": power_of_ten,
            "num_params": count,
            "mean": "{:.4f}",
            "deviation": "{:.4f}",
        },
        labels={
            "isoflop_budget": "C (FLOP)",
            "num_params": "N",
            "mean": "mean loss (nats/token)",
            "deviation": "deviation (nats/token)",
        },
    )


def pair_facts(study: OwnStudy, pairs: pd.DataFrame) -> dict[str, object]:
    """Values of the section on pairs."""
    return {
        "c15_num_pairs": plural(len(pairs), "pair"),
        "c15_pair_signs": sign_verdict(pairs, the(study.pair[0])),
        "c15_pair_range": span_text(pairs["loss_gap"], partial(signed, decimals=3)),
    }


def seed_facts(pairs: pd.DataFrame, scatter: pd.DataFrame) -> dict[str, object]:
    """Values of the section on seeds, which is there if some configuration has two."""
    return {"c15_seeds": seed_text(scatter), "c15_pair_noise": noise_verdict(pairs, pooled(scatter))}


def seed_text(scatter: pd.DataFrame) -> str:
    """How far runs that differ only in their seed lie apart."""
    return (
        f"Between seeds the loss has a standard deviation of {pooled(scatter):.4f} nats/token "
        f"({plural(len(scatter), 'configuration')})"
    )


def sign_verdict(pairs: pd.DataFrame, first: str) -> str:
    """A verdict: in how many pairs the first architecture has the lower loss, and where it has not."""
    if not len(pairs):
        return "No two runs are a pair yet"
    lower = pairs["loss_gap"] > 0
    text = f"{first[0].upper()}{first[1:]} has the lower loss in {share_in_words(int(lower.sum()), len(pairs))} pairs"
    if lower.all():
        return text
    where = [
        f"N = {count(row['num_params'])} at {power_of_ten(row['isoflop_budget'])} FLOP"
        for row in pairs[~lower].to_dict("records")
    ]
    return f"{text}; not at {listed([*where[:3], *(['some others'] if len(where) > 3 else [])])}"


def noise_verdict(pairs: pd.DataFrame, noise: float) -> str:
    """A verdict: whether the differences between architectures exceed those between seeds."""
    if not len(pairs):
        return "There is no difference to compare it with"
    inside = int((pairs["loss_gap"].abs() <= 2 * np.sqrt(2) * noise).sum())
    if not inside:
        return "No difference is as small as two seeds alone would make it"
    are = "is" if inside == 1 else "are"
    return f"Of the differences {number_word(inside)} {are} so small that two seeds alone would make it"
