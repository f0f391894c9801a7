"""Chapter 15: learning rates and context lengths, the two settings that the design varies beside size and tokens."""

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from companion.chapters.applicability import need, optional
from companion.chapters.ch15.profiles import budget_colors
from companion.chapters.ch15.seeds import pooled, seed_scatter
from companion.chapters.ch15.study import LEARNING_RATE, OwnStudy, has_optimum, the
from companion.chapters.labels import label_of
from companion.fitting.isoflop import IsoflopFit, fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.formatting import count, listed, power_of_ten, signed, significant
from companion.plotting import LABELS, Html, show, show_table
from companion.plotting.style import count_ticks, panels, subplots

#: Losses further above the best than this leave the figure, nats per token.
SHOWN_EXCESS = 0.1
#: A rate whose loss is within this of the best one tried, nats per token, is as good for any purpose of the chapter.
AS_GOOD = 0.01


def rate_sweep(study: OwnStudy) -> pd.DataFrame:
    """Runs that differ in nothing but the learning rate, from three rates on.

    Returns
    -------
    DataFrame
        `architecture`, `num_params`, `learning_rate`, `factor` (of the usual rate: that of the IsoFLOP run), `val_loss`
        and `excess` (above the best of its group, nats per token).
    """
    runs = study.runs
    need("learning_rate" in runs and "experiment" in runs, "the table has no learning rates")
    keys = [name for name in ("architecture", "context_length", "num_params", "num_tokens", "seed") if name in runs]
    found = []
    for _, group in runs.groupby(keys):
        usual = group.loc[group["experiment"] != LEARNING_RATE, "learning_rate"]
        if group["learning_rate"].nunique() >= 3 and len(usual):
            best = group["val_loss"].min()
            part = group[["architecture", "num_params", "learning_rate", "val_loss"]]
            found.append(part.assign(factor=group["learning_rate"] / usual.iloc[0], excess=group["val_loss"] - best))
    need(found, "no size was trained at three learning rates")
    return pd.concat(found).sort_values(["architecture", "num_params", "factor"], ignore_index=True)


def show_rates(study: OwnStudy, sweep: pd.DataFrame) -> Html:
    """Excess loss over the factor on the usual rate, a panel for each architecture and a line for each size."""
    names = [name for name in study.architectures if name in set(sweep["architecture"])]
    figure, axes = panels(len(names), height=3.2, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        part = sweep[sweep["architecture"] == name]
        groups = list(part.groupby("num_params"))
        for marker, color, (size, group) in zip("osDv^", budget_colors(len(groups)), groups, strict=False):
            label = count(float(str(size)), 2)
            ax.plot(group["factor"], group["excess"], marker=marker, color=color, markersize=5, label=label)
        ax.axvline(1, color="#888888", linestyle=":", linewidth=1)
        ax.set_xscale("log", base=2)
        ticks = sorted(part["factor"].round(3).unique())
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set(xlabel="learning rate over the usual one", title=label_of(name), ylim=(-0.004, SHOWN_EXCESS))
    axes[0].set_ylabel("loss above the best rate\n(nats/token)")
    axes[-1].legend(title="N", loc="upper left")
    return show(
        figure,
        name="study-rates",
        alt="Loss above that of the best rate over the learning rate, a panel for each architecture: valleys around or "
        "beside the usual rate, steep on the right for the largest size.",
        caption="Loss above the best of the rates tried, over the rate as a multiple of the usual one (dotted). Lines "
        "that leave the top end far above.",
    )


def best_rates(sweep: pd.DataFrame) -> pd.DataFrame:
    """By architecture and size: the best factor, and what the usual rate (factor 1) costs beside it, nats per token."""
    rows = []
    for (name, size), group in sweep.groupby(["architecture", "num_params"]):
        usual = group.loc[np.isclose(group["factor"], 1), "excess"]
        best = group.sort_values("val_loss", kind="stable").iloc[0]
        rows.append(
            {
                "architecture": name,
                "num_params": size,
                "best": float(best["factor"]),
                "cost": float(usual.iloc[0]),
                "usual_loss": float(best["val_loss"]) + float(usual.iloc[0]),
                "best_loss": float(best["val_loss"]),
            }
        )
    return pd.DataFrame(rows)


def show_best_rates(sweep: pd.DataFrame) -> Html:
    """A row per architecture and size."""
    rates = best_rates(sweep)
    return show_table(
        rates.assign(architecture=rates["architecture"].map(label_of)),
        name="study-rates",
        caption="The best of the rates tried, as a multiple of the usual one, and what the usual rate costs.",
        formats={
            "num_params": count,
            "best": "{:g}",
            "cost": "{:.4f}",
            "usual_loss": "{:.4f}",
            "best_loss": "{:.4f}",
        },
        labels={
            "num_params": "N",
            "best": "best factor",
            "cost": "cost of the usual rate (nats/token)",
            "usual_loss": "loss at the usual rate",
            "best_loss": "loss at the best rate",
        },
    )


def rate_facts(study: OwnStudy, sweep: pd.DataFrame) -> dict[str, object]:
    """Values of the section on learning rates."""
    rates = best_rates(sweep)
    cost = rates.groupby("architecture")["cost"].max()
    texts = [f"{cost[name]:.3f} for {the(name)}" for name in study.pair if name in cost]
    gaps = rate_gaps(study, rates)
    return {
        "c15_rate_cost": listed(texts),
        "c15_rate_rule": rate_verdict(rates, seed_scatter(study.at_context)),
        "c15_rate_gap_usual": listed(f"{gap:.3f}" for gap in gaps["usual"]),
        "c15_rate_gap_best": listed(f"{gap:.3f}" for gap in gaps["best"]),
        "c15_rate_changes": gap_verdict(gaps),
        "c15_rate_steep": steep_verdict(study, sweep),
    }


def rate_gaps(study: OwnStudy, rates: pd.DataFrame) -> pd.DataFrame:
    """Loss of the second architecture less that of the first, size by size: `usual` rates, and each at its `best`."""
    first, second = (
        rates[rates["architecture"] == name].sort_values("num_params").reset_index(drop=True) for name in study.pair
    )
    number = min(len(first), len(second))
    return pd.DataFrame(
        {column: (second[f"{column}_loss"] - first[f"{column}_loss"])[:number] for column in ("usual", "best")}
    )


def rate_verdict(rates: pd.DataFrame, scatter: pd.DataFrame) -> str:
    """A verdict: whether the usual rate is as good as the best one tried, and whether seeds alone differ by as much."""
    worse = rates[rates["cost"] > AS_GOOD].to_dict("records")
    if not worse:
        return f"At every size the usual rate is within {AS_GOOD:g} nats/token of the best one tried"
    names = {f"{the(row['architecture'])} of {count(row['num_params'], 2)}": row for row in worse}
    text = f"The usual rate costs more than {AS_GOOD:g} nats/token for {listed(names)}"
    same = [name for name, row in names.items() if row["cost"] <= 2 * np.sqrt(2) * _seeds_of(row, scatter)]
    if not same:
        return text
    whose = "its" if len(names) == 1 else "their"
    seeds = f"two of {whose} seeds" if len(same) == len(names) else f"two seeds of {listed(same)}"
    return f"{text}; {seeds} may differ by as much"


def _seeds_of(row: Mapping[Hashable, Any], scatter: pd.DataFrame) -> float:
    """Standard deviation between seeds of this architecture and size; NaN if unknown."""
    own = (scatter["architecture"] == row["architecture"]) & (scatter["num_params"] == row["num_params"])
    return pooled(scatter[own])


def steep_verdict(study: OwnStudy, sweep: pd.DataFrame) -> str:
    """A verdict: what the highest and the lowest rate tried cost the largest size of each architecture."""
    texts = []
    for name in (name for name in study.pair if name in set(sweep["architecture"])):
        own = sweep[sweep["architecture"] == name]
        largest = own[own["num_params"] == own["num_params"].max()].sort_values("factor")
        lowest, highest = largest.iloc[0], largest.iloc[-1]
        texts.append(
            f"{the(name)} of {count(highest['num_params'], 2)} loses {highest['excess']:.3f} nats/token at "
            f"{highest['factor']:g} times the usual rate, and {lowest['excess']:.3f} at {lowest['factor']:g} times"
        )
    text = "; ".join(texts)
    return f"{text[:1].upper()}{text[1:]}"


def gap_verdict(gaps: pd.DataFrame) -> str:
    """A verdict: whether the order of the architectures depends on the rate."""
    if gaps.empty:
        return "There is no size at which both were tried"
    if (np.sign(gaps["usual"]) == np.sign(gaps["best"])).all():
        return "The order of the architectures is the same with either"
    return "The order of the architectures changes when each takes its best rate"


# ---- contexts ------------------------------------------------------------------------------------


def context_profiles(study: OwnStudy, num_resamples: int, seed: int = 0) -> dict[str, dict[int, IsoflopFit]]:
    """Profiles of the pair by context length; leaves out the section where there are fewer than two contexts."""
    need(len(study.contexts) > 1, "the table has one context length")
    found: dict[str, dict[int, IsoflopFit]] = {name: {} for name in study.pair}
    for number, length in enumerate(study.contexts):
        for at, name in enumerate(study.pair):
            iso = optional(isoflop_runs, study.runs, name, length)
            if iso is not None and has_optimum(iso):
                draws = seed + 10 * number + at
                found[name][length] = fit_isoflop(iso, num_resamples=num_resamples, seed=draws)
    need(budgets_of(found), "no architecture has optima at two context lengths of one budget")
    return found


def budgets_of(profiles: Mapping[str, Mapping[int, IsoflopFit]]) -> list[float]:
    """Budgets at which an architecture has optima at several contexts, ascending."""
    each = [Counter(p.isoflop_budget for fits in by.values() for p in fits.optima) for by in profiles.values()]
    return sorted({budget for contexts in each for budget, number in contexts.items() if number > 1})


def show_contexts(study: OwnStudy, profiles: Mapping[str, Mapping[int, IsoflopFit]]) -> Html:
    """N* over the context, a line for each architecture and budget."""
    figure, (ax,) = subplots(height=3.4)
    budgets = budgets_of(profiles)
    for name, by_context in profiles.items():
        for at, budget in enumerate(budgets):
            _optima_over_contexts(ax, study, name, by_context, budget, at)
    ax.set_xscale("log", base=2)
    ax.set_xticks(study.contexts, [f"{length:,}" for length in study.contexts])
    ax.set(yscale="log", xlabel=LABELS["context_length"], ylabel="optimal parameters N*")
    count_ticks(ax.yaxis)
    low, high = ax.get_ylim()
    ax.set_ylim(low / (high / low) ** 0.5, high)  # room for the legend
    ax.legend(loc="lower left", fontsize=8)
    return show(
        figure,
        name="study-contexts",
        alt="Optimal parameters over the context length with intervals, a line for each architecture and budget.",
        caption="Optimal parameters N* over the context, with 95 % intervals where the runs give one.",
    )


def _optima_over_contexts(
    ax: Axes, study: OwnStudy, name: str, by_context: Mapping[int, IsoflopFit], budget: float, at: int
) -> None:
    points = [
        (length, profile.x_opt, *fits.interval("x_opt", profile=profile))
        for length, fits in by_context.items()
        for profile in fits.optima
        if np.isclose(profile.isoflop_budget, budget)
    ]
    if not points:
        return
    lengths, sizes, low, high = np.array(points, dtype=float).T
    shift = 1 + 0.06 * (study.pair.index(name) - 0.5)  # intervals beside each other
    look = study.looks[name]
    errors = np.nan_to_num([sizes - low, high - sizes])
    ax.errorbar(
        lengths * shift,
        sizes,
        yerr=np.maximum(errors, 0),
        color=look["color"],
        marker=look["marker"],
        linestyle=("-", "--", ":", "-.")[at % 4],
        capsize=3,
        markersize=5,
        label=f"{look['label']}, {power_of_ten(budget)} FLOP",
    )


def show_context_losses(study: OwnStudy) -> Html:
    """By context: the lowest loss there can be, the lowest of each architecture, and the price of a token."""
    rows = []
    for length in study.contexts:
        runs = study.runs[study.runs["context_length"] == length]
        row: dict[str, str] = {"context": f"{length:,}", "floor": "–"}
        if "loss_floor" in runs:
            row["floor"] = f"{runs['loss_floor'].iloc[0]:.3f}"
        for name in study.pair:
            own = runs[runs["architecture"] == name]
            row[label_of(name)] = f"{own['val_loss'].min():.3f}" if len(own) else "–"
            row[f"{label_of(name)}, price"] = " to ".join(significant(each, 2) for each in prices(own)) or "–"
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="study-contexts",
        caption="Losses in nats/token: the lowest that there can be at each context, and the lowest of each "
        "architecture in the study. Price: training FLOPs of a token over 6N, largest and smallest model.",
        labels={"context": "context T", "floor": "loss floor"},
    )


def prices(runs: pd.DataFrame) -> list[float]:
    """C/(6 N D) of the largest and of the smallest model; empty without runs."""
    if runs.empty:
        return []
    price = runs["train_flops"] / (6.0 * runs["num_params"]) / runs["num_tokens"]
    return [float(price.iloc[int(runs["num_params"].argmax())]), float(price.iloc[int(runs["num_params"].argmin())])]


def context_facts(study: OwnStudy) -> dict[str, object]:
    """Values of the section on contexts."""
    runs, (shortest, *_, longest) = study.runs, study.contexts
    facts: dict[str, object] = {"c15_longest": f"{longest:,}"}
    for name, label in zip(study.pair, ("first", "second"), strict=True):
        own = runs[(runs["architecture"] == name) & (runs["context_length"] == longest)]
        facts[f"c15_price_{label}"] = " to ".join(significant(each, 2) for each in prices(own)) or "unknown"
    floors = runs.groupby("context_length")["loss_floor"].first() if "loss_floor" in runs else pd.Series(dtype=float)
    facts["c15_floor_fall"] = fall_verdict(floors, shortest, longest)
    return facts


def fall_verdict(floors: pd.Series, shortest: int, longest: int) -> str:
    """A verdict: how much more a longer context says of the next token."""
    if not {shortest, longest} <= set(floors.dropna().index):
        return "How much more, only a source of known entropy says"
    change = float(floors[longest] - floors[shortest])
    span = f"From T = {shortest:,} to {longest:,}"
    return f"{span} the entropy of the source itself changes by {signed(change, 3)} nats/token"
