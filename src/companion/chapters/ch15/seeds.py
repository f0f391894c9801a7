"""Chapter 15: what the seed of the weights alone does to a loss, and when in a run it does it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch15.profiles import budget_colors
from companion.chapters.ch15.study import OwnStudy, the
from companion.chapters.labels import label_of
from companion.formatting import count, listed, number_word, percent, plural, power_of_ten
from companion.plotting import Html, show, show_table
from companion.plotting.style import panels
from companion.training.curves import on_common_axis

#: What tells one configuration from another: runs that share these differ in their seed only.
KEYS = ["architecture", "isoflop_budget", "num_params", "num_tokens"]
#: Fractions of a run at which curves of seeds are compared.
_FRACTIONS = np.arange(5, 101) / 100
#: A fall is looked for in stretches of this share of a run, past the first fifth, in which every run falls.
_STRETCH, _FROM = 10, 0.2
#: A fall is sudden if it is this many times that of the slowest seed over the same stretch.
_SUDDEN = 3.0


def seed_scatter(runs: pd.DataFrame) -> pd.DataFrame:
    """Configurations that were trained from several seeds.

    Returns
    -------
    DataFrame
        one row each: `KEYS`, `seeds`, `mean` and `deviation` (sample standard deviation) of the loss, nats per token.
    """
    if "seed" not in runs or "isoflop_budget" not in runs:
        return pd.DataFrame(columns=[*KEYS, "seeds", "mean", "deviation"])
    groups = runs.dropna(subset=["isoflop_budget"]).groupby(KEYS, as_index=False)
    found = groups.agg(seeds=("seed", "nunique"), mean=("val_loss", "mean"), deviation=("val_loss", "std"))
    return found[found["seeds"] > 1].reset_index(drop=True)


def pooled(scatter: pd.DataFrame) -> float:
    """Standard deviation between seeds, over the configurations given, nats per token; NaN without any."""
    freedom = scatter["seeds"] - 1
    if not len(scatter):
        return float("nan")
    return float(np.sqrt((freedom * scatter["deviation"] ** 2).sum() / freedom.sum()))


def difference_noise(scatter: pd.DataFrame, pair: Sequence[str]) -> float:
    """Standard deviation of the difference of two runs, one of each architecture, nats per token; NaN if unknown."""
    return math.hypot(*(pooled(scatter[scatter["architecture"] == name]) for name in pair))


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


def seed_curves(study: OwnStudy, scatter: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Training losses of the configuration of each architecture whose seeds lie farthest apart.

    Returns
    -------
    dict
        by what a page calls the configuration (architecture and size): a row for each seed, a column for each fraction
        of the run, nats per token. Leaves out the figure where there are no curves.
    """
    need(study.curves is not None and study.logs is not None, "no curves are given (curves_file, logs_file)")
    need(len(scatter), "no configuration was trained from two seeds")
    need("run" in study.runs, "the table does not name its runs (run)")
    assert study.curves is not None
    assert study.logs is not None
    runs_with_seed = study.at_context.dropna(subset=["seed"])
    found = {}
    for name in (name for name in study.pair if name in set(scatter["architecture"])):
        own = scatter[scatter["architecture"] == name]
        chosen = own.sort_values("deviation").iloc[-1][KEYS]
        runs = runs_with_seed[(runs_with_seed[KEYS] == chosen).all(axis=1)].set_index("run")
        logs = study.logs[study.logs["run"].isin(runs.index)]
        if len(logs) > 1:
            lines = on_common_axis(study.curves, logs, fractions=_FRACTIONS).interpolate(axis=1)
            lines.index = runs.loc[lines.index, "seed"].to_numpy(int)
            found[f"{label_of(name)}, N = {count(chosen['num_params'], 2)}"] = lines.sort_index()
    need(found, "no configuration has curves of two seeds")
    return found


def show_seed_curves(curves: dict[str, pd.DataFrame]) -> Html:
    """Training loss over the fraction of the run, a panel for each architecture and a line for each seed."""
    figure, axes = panels(len(curves), height=3.2, sharey=True)
    for ax, (title, lines) in zip(axes, curves.items(), strict=True):
        looks = zip(budget_colors(len(lines)), ("-", "--", ":", "-.") * len(lines), strict=False)
        for (seed, line), (color, style) in zip(lines.iterrows(), looks, strict=True):
            ax.plot(line.index, line, color=color, linestyle=style, linewidth=1.4, label=f"{seed}")
        ax.set(xlabel="share of the run", title=title)
        ax.xaxis.set_major_formatter(lambda value, _: percent(value))
        ax.legend(title="seed")
    axes[0].set_ylabel("training loss (nats/token)")
    return show(
        figure,
        name="study-seed-curves",
        alt="Training loss over the share of the run, a line for each seed.",
        caption="Training loss of the configuration of each architecture whose seeds lie farthest apart, a line for "
        "each seed.",
    )


def sudden_fall(lines: pd.DataFrame) -> tuple[float, float, float]:
    """The fall of one seed that exceeds that of the slowest by most: where it begins (share of the run), both falls."""
    at, losses = lines.columns.to_numpy(float), lines.to_numpy(float)
    losses, at = losses[:, at >= _FROM], at[at >= _FROM]
    falls = losses[:, :-_STRETCH] - losses[:, _STRETCH:]
    known = np.isfinite(falls).all(axis=0)  # a curve may begin late
    if not known.any():
        return math.nan, math.nan, math.nan
    most, least = falls.max(axis=0), falls.min(axis=0)
    where = int(np.argmax(np.where(known, most - least, -math.inf)))
    return float(at[where]), float(most[where]), float(least[where])


def fall_verdict(curves: dict[str, pd.DataFrame]) -> str:
    """A verdict: whether seeds part because one of them falls all at once."""
    texts = []
    for title, lines in curves.items():
        begin, most, least = sudden_fall(lines)
        if most > _SUDDEN * max(least, 0.0):
            between = f"Between {percent(begin)} and {percent(begin + _STRETCH / 100)} of the run"
            texts.append(f"{between}, one seed ({title}) falls by {most:.3f} nats/token and another by {least:.3f}")
    if not texts:
        return "The curves of the seeds part slowly: none falls all at once"
    return (
        f"{'. '.join(texts)}. Such a run has found at once what others find late or never, and when that happens is "
        "chance. Losses that part like this are no bell around a mean: a standard deviation of few seeds says little"
    )


def seed_facts(study: OwnStudy, pairs: pd.DataFrame, scatter: pd.DataFrame) -> dict[str, object]:
    """Values of the section on seeds, which is there if some configuration has two."""
    return {
        "c15_seeds": seed_text(scatter),
        "c15_seed_span": span_verdict(scatter),
        "c15_pair_noise": noise_verdict(pairs, difference_noise(scatter, study.pair)),
    }


def seed_text(scatter: pd.DataFrame) -> str:
    """How far runs that differ only in their seed lie apart, by architecture."""
    texts = [
        f"{pooled(own):.4f} for {the(str(name))} ({plural(len(own), 'configuration')})"
        for name, own in scatter.groupby("architecture")
    ]
    return f"Between seeds the loss has a standard deviation, in nats/token, of {listed(texts)}"


def span_verdict(scatter: pd.DataFrame) -> str:
    """A verdict: between which configurations the scatter is least and most."""
    if len(scatter) < 2:
        return "One configuration says nothing of others"
    rows = scatter.sort_values("deviation").to_dict("records")
    texts = [
        f"{word} for {the(row['architecture'])} of {count(row['num_params'], 2)} ({row['deviation']:.4f})"
        for word, row in (("least", rows[0]), ("most", rows[-1]))
    ]
    return f"It is {listed(texts)}"


def noise_verdict(pairs: pd.DataFrame, noise: float) -> str:
    """A verdict: whether the differences between architectures exceed those between seeds."""
    if not len(pairs):
        return "There is no difference to compare it with"
    if not np.isfinite(noise):
        return "Only one of the two architectures was trained from several seeds, so no difference can be judged by it"
    inside = int((pairs["loss_gap"].abs() <= 2 * noise).sum())
    if not inside:
        return "No difference is as small as two seeds alone would make it"
    are, them = ("is", "it") if inside == 1 else ("are", "them")
    return f"Of the differences {number_word(inside)} {are} so small that two seeds alone would make {them}"
