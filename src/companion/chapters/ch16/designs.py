"""Chapter 16: the next runs of a table, chosen on the page."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.chapters.applicability import need_identified, need_runs, select_runs
from companion.chapters.ch16.looks import LOOKS
from companion.chapters.ch16.records import named
from companion.fitting.fit import Fit, fit
from companion.formatting import count, level_text, percent, power_of_ten, signed_percent, significant
from companion.laws import LossSurface
from companion.plotting import LABELS, Html, show, show_table, subplots
from companion.plotting.style import INK, architecture_label, count_ticks
from companion.study.next_runs import Advice, LossOf, largest_affordable, repeat_noise

#: The architecture whose runs are shown where a table has it.
USUAL = "xlstm"
#: Fewest runs of a table: a law of five free parameters and some scatter.
FEWEST = 8
#: Names of other laws in words.
_OTHER_LAWS = {"gamma free": "one with γ free", "gamma = 1": "one with γ = 1", "product": "a product of powers"}


def runs_to_extend(runs_file: str | Path | None = None, architecture: str | None = None) -> pd.DataFrame:
    """The runs of one architecture at one context, which determine the law with gamma = 1.

    Parameters
    ----------
    runs_file
        path of a run table; None for the paper's.
    architecture
        its name; None takes `USUAL` where the table has it, else the first one that can be used.

    Raises
    ------
    NotApplicable
        if no architecture of the table can be used.
    """

    def usable(runs: pd.DataFrame) -> None:
        need_runs(FEWEST, "a law with five parameters")(runs)
        need_identified({"the runs": fit(LossSurface, runs, gamma=1)})

    chosen = select_runs(runs_file, None if architecture is None else [architecture], usable=usable)
    name = USUAL if USUAL in chosen.tables else chosen.architectures[0]
    return chosen.tables[name]


def design_panel(runs: pd.DataFrame, chosen: Advice, broad: Advice, candidates: pd.DataFrame, budget: float) -> Figure:
    """The table's runs, what could be next, and what two criteria and the plainest rule choose, in the (N, D) plane."""
    figure, (ax,) = subplots(height=4.2)
    ax.plot(candidates["num_params"], candidates["num_tokens"], ".", color="#bbbbbb", markersize=2.5, label="possible")
    ax.plot(runs["num_params"], runs["num_tokens"], "x", color="#888888", markersize=4, label="trained")
    rest = largest_affordable(candidates, budget, len(chosen.runs))
    shapes = {"V-optimal": (chosen.runs, 9, "full"), "D-optimal": (broad.runs, 6, "full")}
    for name, (table, size, _) in (shapes | {"largest affordable": (rest, 11, "none")}).items():
        look = {"color": LOOKS[name]["color"], "marker": LOOKS[name]["marker"], "markersize": size, "linewidth": 0}
        fill = "none" if name == "largest affordable" else look["color"]
        ax.plot(table["num_params"], table["num_tokens"], **look, markerfacecolor=fill, label=name)
    if isinstance(chosen.quantity, LossOf):
        ax.plot(chosen.quantity.num_params, chosen.quantity.num_tokens, "*", color=INK, markersize=13, label="target")
    ax.set(xscale="log", yscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["num_tokens"])
    count_ticks(ax.xaxis, (1.0,))
    count_ticks(ax.yaxis, (1.0,))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def design_figure(runs: pd.DataFrame, chosen: Advice, broad: Advice, candidates: pd.DataFrame, budget: float) -> Html:
    """Where the next runs should lie."""
    name = architecture_label(str(runs["architecture"].iloc[0]))
    return show(
        design_panel(runs, chosen, broad, candidates, budget),
        name="lab-design",
        alt="Runs in the plane of parameters and tokens. Those chosen by V- and D-optimality lie at the edges of the "
        "region of possible runs, the largest affordable ones at its upper right end.",
        caption=f"{name}: {len(runs)} runs of the table (crosses) and runs that {power_of_ten(budget)} FLOP could add. "
        f"V-optimal: the {len(chosen.runs)} runs that shrink the interval of the {chosen.quantity.label} most. "
        "D-optimal: those that shrink all parameters' intervals together. Dots: all that could be trained.",
    )


def chosen_table(advice: Advice) -> Html:
    """The chosen runs in the order of their gain, and the interval that is expected after each."""
    runs = advice.runs
    rows = pd.DataFrame(
        {
            "run": range(1, len(runs) + 1),
            "size": runs["num_params"].map(count),
            "tokens": runs["num_tokens"].map(count),
            "ratio": runs["tokens_per_param"].map(significant),
            "flops": runs["train_flops"].map(power_of_ten),
            "after": [f"{value_text(advice, low)} to {value_text(advice, high)}" for low, high in _ends(runs)],
        }
    )
    return show_table(
        rows,
        name="lab-chosen",
        caption=f"What the V-optimal design asks for, most useful first, and the {level_text(advice.level)} interval "
        f"of the {advice.quantity.label} that it expects after each run.",
        labels={"size": "N", "tokens": "D", "ratio": "D/N", "flops": "FLOP", "after": "interval after it"},
    )


def _ends(runs: pd.DataFrame) -> list[tuple[float, float]]:
    return [(float(row["low"]), float(row["high"])) for row in runs.to_dict("records")]


def compared_table(advice: Advice) -> Html:
    """What designs of one budget promise, by the law's own account."""
    table = advice.compared
    rows = pd.DataFrame(
        {
            "design": table["design"].replace("chosen", "V-optimal"),
            "runs": table["num_runs"],
            "spent": table["spent"],
            "half": advice.linear.noise.quantile(advice.level) * table["standard_error"],
        }
    )
    unit = "%" if advice.quantity.in_logs else ""
    return show_table(
        rows,
        name="lab-compared",
        caption=f"Designs of one budget: half width of the {level_text(advice.level)} interval of the "
        f"{advice.quantity.label} that each promises, if the law holds.",
        formats={"spent": power_of_ten, "half": percent if unit else "{:.4f}"},
        labels={"runs": "new runs", "spent": "FLOP", "half": "half width"},
    )


def others_table(advice: Advice) -> Html:
    """What the same quantity is under other laws, and how far the assumed law would be off."""
    rows = []
    for row in advice.alternatives.to_dict("records"):
        known = np.isfinite(row["value"])
        shift = signed_percent(np.expm1(row["shift"]), 1) if advice.quantity.in_logs else f"{row['shift']:+.3f}"
        rows.append(
            {
                "law": _OTHER_LAWS.get(row["law"], row["law"]),
                "value": value_text(advice, row["value"]) if known else "–",
                "shift": shift if known else "–",
                "times": significant(abs(row["shift_in_half_widths"]), 2) if known else "–",
            }
        )
    return show_table(
        pd.DataFrame(rows),
        name="lab-others",
        caption=f"If another law is true: the {advice.quantity.label} by its fit today, and by how much the law with "
        "γ = 1 would miss it after the V-optimal runs, with exact losses. Over half width: the same in half widths of "
        "the promised interval. Above 1 the interval would be false.",
        labels={"law": "true law", "value": "by that law today", "shift": "γ = 1 off by", "times": "over half width"},
    )


def value_text(advice: Advice, value: float) -> str:
    """A value of the wanted quantity: parameters with letters, anything else with four digits."""
    return count(value) if value >= 1e6 else significant(value, 4)


def design_facts(runs: pd.DataFrame, law: Fit, advice: Advice, broad: Advice) -> dict[str, str]:
    """Values of the section on the next runs."""
    compared = named(advice.compared, "design")
    quantile = advice.linear.noise.quantile(advice.level)
    ratios = advice.runs["tokens_per_param"]
    usual = runs["num_tokens"].to_numpy(float) / runs["num_params"].to_numpy(float)
    return {
        "c16_design_name": architecture_label(str(runs["architecture"].iloc[0])),
        "c16_design_runs": f"{len(runs)}",
        "c16_design_quantity": advice.quantity.label,
        "c16_design_value": value_text(advice, advice.value),
        "c16_design_half": half_text(advice, quantile * advice.standard_error),
        "c16_design_half_after": half_text(advice, quantile * compared["chosen"]["standard_error"]),
        "c16_design_half_largest": half_text(advice, quantile * compared["largest affordable"]["standard_error"]),
        "c16_design_noise": percent(law_noise(advice)),
        "c16_design_number": f"{len(advice.runs)}",
        "c16_design_ratios": f"{significant(ratios.min(), 2)} to {significant(ratios.max(), 2)}",
        "c16_design_usual": f"{significant(float(np.median(usual)), 2)}",
        "c16_design_corners": corner_verdict(advice, broad),
        "c16_design_repeats": repeats_verdict(runs, advice),
        "c16_design_off": off_verdict(advice),
        "c16_design_status": law.status,
    }


def half_text(advice: Advice, half_width: float) -> str:
    """A half width of the wanted quantity: in percent for positive quantities."""
    return percent(half_width) if advice.quantity.in_logs else f"{half_width:.4f}"


def law_noise(advice: Advice) -> float:
    """The scatter of log L about the law: a share of the loss."""
    return advice.linear.noise.sd


def corner_verdict(advice: Advice, broad: Advice) -> str:
    """A verdict: how many of the chosen runs of both criteria lie at an end of the ratios or sizes on offer."""
    both = pd.concat([advice.runs, broad.runs])
    sizes, ratios = both["num_params"], both["tokens_per_param"]
    ends = np.isclose(sizes, sizes.min()) | np.isclose(sizes, sizes.max())
    ends |= np.isclose(ratios, ratios.min()) | np.isclose(ratios, ratios.max())
    share = float(ends.mean())
    words = "nearly all" if share > 0.9 else "most" if share > 0.5 else "some"
    return f"{words} of them ({percent(share)}) at the smallest or largest size or ratio of tokens to parameters"


def repeats_verdict(runs: pd.DataFrame, advice: Advice) -> str:
    """A verdict: whether repeated runs say that the scatter about the law is misfit."""
    repeated = repeat_noise(runs)
    if repeated is None:
        return "The table repeats too few runs to say how much of this scatter is chance"
    ratio = advice.linear.noise.sd / repeated.sd
    return f"That is {significant(ratio, 2)} times the scatter of repeated runs"


def off_verdict(advice: Advice) -> str:
    """A verdict: whether another law that fits the runs would make the promised interval false."""
    table = advice.alternatives.dropna(subset=["shift_in_half_widths"])
    if table.empty:
        return "No other law can be compared here"
    worst = max(table.to_dict("records"), key=lambda row: abs(float(row["shift_in_half_widths"])))
    times, name = abs(float(worst["shift_in_half_widths"])), _OTHER_LAWS.get(worst["law"], worst["law"])
    if times > 1:
        return f"If the true law is {name}, the prediction is off by {significant(times, 2)} half widths"
    return f"Even if the true law is {name}, the prediction stays within {significant(times, 2)} half widths"
