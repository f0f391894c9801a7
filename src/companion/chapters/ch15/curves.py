"""Chapter 15: training curves of one budget."""

import numpy as np
import pandas as pd
import seaborn as sns

from companion.chapters.applicability import need
from companion.chapters.ch15.study import OwnStudy
from companion.chapters.labels import label_of
from companion.formatting import count, percent, plural, power_of_ten, signed
from companion.plotting import LABELS, Html, show
from companion.plotting.style import panels
from companion.training.curves import on_common_axis

#: Fractions of a run at which curves are drawn: dense at the start, where losses fall.
_FRACTIONS = np.unique(np.round(np.geomspace(0.05, 1, 40), 3))


def curve_runs(study: OwnStudy) -> tuple[float, pd.DataFrame]:
    """The budget with most IsoFLOP runs of the pair, and these runs, one per size."""
    need(study.curves is not None and study.logs is not None, "no curves are given (curves_file, logs_file)")
    runs = study.at_context
    need("run" in runs and "isoflop_budget" in runs, "the table does not name its runs (run)")
    runs = runs[runs["architecture"].isin(study.pair) & runs["isoflop_budget"].notna()]
    need(len(runs), "no IsoFLOP run has a curve")
    sizes = runs.groupby("isoflop_budget")["num_params"].nunique()
    budget = float(str(sizes.idxmax()))
    chosen = runs[runs["isoflop_budget"] == budget]
    return budget, chosen.drop_duplicates(["architecture", "num_params"])


def show_curves(study: OwnStudy) -> Html:
    """Training loss over tokens of one budget, a panel for each architecture and a line for each size."""
    budget, runs = curve_runs(study)
    assert study.curves is not None
    assert study.logs is not None
    logs = study.logs[study.logs["run"].isin(runs["run"])]
    lines = on_common_axis(study.curves, logs, fractions=_FRACTIONS)
    figure, axes = panels(len(study.pair), height=3.5, sharey=True)
    for ax, name in zip(axes, study.pair, strict=True):
        own = runs[runs["architecture"] == name].sort_values("num_params")
        for color, (_, run) in zip(sns.color_palette("viridis", max(len(own), 1)), own.iterrows(), strict=True):
            line = lines.loc[run["run"]]
            ax.plot(line.index * run["num_tokens"], line, color=color, linewidth=1.3, label=count(run["num_params"], 2))
        ax.set(xscale="log", xlabel=LABELS["num_tokens"], title=label_of(name))
        ax.legend(title="N", fontsize=8)
    axes[0].set_ylabel("training loss (nats/token)")
    return show(
        figure,
        name="study-curves",
        alt="Training loss over tokens of the runs of one budget, a line for each size: large models end early, small "
        "models late.",
        caption=f"Training loss of the runs of {power_of_ten(budget)} FLOP over the tokens that they have seen, from 5 "
        "% of each run on. All runs of a panel cost the same: a large model sees few tokens.",
    )


def curve_facts(study: OwnStudy) -> dict[str, object]:
    """Values of the section on curves."""
    budget, runs = curve_runs(study)
    gap = study.runs["val_loss"] - study.runs["train_loss"] if "train_loss" in study.runs else pd.Series(dtype=float)
    facts: dict[str, object] = {
        "c15_curve_budget": power_of_ten(budget),
        "c15_curve_runs": plural(len(runs), "run"),
        "c15_overfit": "unknown",
    }
    if len(gap):
        facts["c15_overfit"] = f"{signed(gap.min(), 3)} to {signed(gap.max(), 3)}"
    assert study.logs is not None
    return facts | {"c15_warm_up": warm_up_text(study.logs)}


def warm_up_text(logs: pd.DataFrame) -> str:
    """The share of a run that its warm-up takes, in the median."""
    if "warmup_steps" not in logs:
        return "unknown"
    return percent(float((logs["warmup_steps"] / logs["train_steps"]).median()))
