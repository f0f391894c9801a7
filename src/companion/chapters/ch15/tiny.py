"""Chapter 15: a study of seconds for the CPU, from its design to the tables."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.formatting import count, plural, power_of_ten
from companion.plotting import LABELS, Html, show
from companion.plotting.style import architecture_look, count_ticks, panels
from companion.runs import load_runs
from companion.study.sweep.design import example_design


def example_folder(budgets: Sequence[float]) -> Path:
    """A new folder with `design.toml`: the example of the package with budgets of one's own.

    Parameters
    ----------
    budgets
        FLOP, from small to large.

    Raises
    ------
    InputError
        for no budget, or one that is not positive.
    """
    if not len(budgets) or not all(budget > 0 for budget in budgets):
        raise InputError("example_budgets: give one or more budgets above 0 FLOP")
    folder = Path(tempfile.mkdtemp(prefix="companion-study-"))
    given = ", ".join(f"{budget:g}" for budget in budgets)
    example = example_design().read_text(encoding="utf-8")
    text = re.sub(r"^budgets = .*$", f"budgets = [{given}]", example, flags=re.MULTILINE)
    (folder / "design.toml").write_text(text, encoding="utf-8")
    return folder


def show_example(runs_file: Path) -> Html:
    """Final losses of the example over parameters, a panel for each architecture and a line for each budget."""
    runs = load_runs(runs_file)
    names = list(dict.fromkeys(runs["architecture"]))
    figure, axes = panels(len(names), height=3.0, sharey=True)
    looks = architecture_look(sorted(names))
    for ax, name in zip(axes, sorted(names), strict=True):
        own = runs[runs["architecture"] == name].sort_values("num_params")
        for dashes, (budget, group) in zip(("-", "--", ":", "-."), own.groupby("isoflop_budget"), strict=False):
            look = {"color": looks[name]["color"], "marker": looks[name]["marker"], "linestyle": dashes}
            ax.plot(
                group["num_params"], group["val_loss"], label=power_of_ten(float(str(budget))), markersize=4, **look
            )
        if "loss_floor" in own:
            ax.axhline(own["loss_floor"].iloc[0], color="#888888", linestyle=":", linewidth=1.2)
        ax.set(xscale="log", xlabel=LABELS["num_params"], title=label_of(name))
        count_ticks(ax.xaxis, (1.0, 2.0))
    axes[0].set_ylabel(LABELS["val_loss"])
    axes[0].legend(title="C (FLOP)", fontsize=8)
    return show(
        figure,
        name="study-example",
        alt="Final losses of a tiny study over parameters, a line for each budget, all above a dotted line.",
        caption="The study that has just been trained. Dotted: the entropy of its source. Budgets this "
        "small are spent before a model of these sizes has learned much.",
    )


def example_facts(runs_file: Path) -> dict[str, object]:
    """Values of the example: how many runs, over what sizes and budgets, and whether a profile has an optimum."""
    runs = load_runs(runs_file)
    losses = runs["val_loss"]
    return {
        "c15_example_runs": plural(len(runs), "run"),
        "c15_example_flops": power_of_ten(runs["train_flops"].sum()),
        "c15_example_sizes": f"{count(runs['num_params'].min(), 2)} to {count(runs['num_params'].max(), 2)}",
        "c15_example_losses": f"{losses.min():.2f} to {losses.max():.2f}",
        "c15_example_floor": f"{runs['loss_floor'].iloc[0]:.2f}" if "loss_floor" in runs else "unknown",
        "c15_example_shape": shape_verdict(runs),
    }


def shape_verdict(runs: pd.DataFrame) -> str:
    """A verdict: at how many of the profiles the smallest size is the best."""
    groups = [group for _, group in runs.groupby(["architecture", "isoflop_budget"])]
    smallest = [int(g["val_loss"].argmin()) == int(g["num_params"].argmin()) for g in groups]
    if all(smallest):
        return "In every profile the smallest model is the best: the budgets are too small for these sizes"
    return f"In {sum(smallest)} of {len(smallest)} profiles the smallest model is the best"
