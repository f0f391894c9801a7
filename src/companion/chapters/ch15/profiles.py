"""Chapter 15: IsoFLOP profiles with their optima and exponents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from companion.chapters.ch15.study import OwnStudy, the
from companion.chapters.labels import label_of
from companion.fitting.isoflop import IsoflopFit
from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.formatting import (
    count,
    interval,
    listed,
    power_of_ten,
    share_in_words,
    significant,
)
from companion.plotting import LABELS, Html, show, show_table
from companion.plotting.style import count_ticks, panels

#: One marker for every budget; colors are those of architectures.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SHADES = (0.55, 0.7, 0.85, 1.0)
Profiles = Mapping[str, IsoflopFit]


def profiles_panels(study: OwnStudy, profiles: Profiles) -> Figure:
    """Loss over parameters, a panel for each architecture, a marker for each budget."""
    figure, axes = panels(len(profiles), height=3.6, sharey=True)
    budgets = sorted({each.isoflop_budget for fits in profiles.values() for each in fits.profiles})
    markers = {budget: MARKERS[at % len(MARKERS)] for at, budget in enumerate(budgets)}
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


def budget_colors(number: int) -> list[tuple[float, float, float]]:
    """Colors of an ordered quantity, from dark to light; those of architectures mean something else."""
    return list(sns.color_palette("viridis", max(number, 1)))[:number]
