"""Chapter 16: designs judged on the paper's runs, and the answer of the page."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.chapters.ch16.looks import HALF_WIDTH, LAW_LABELS, LOOKS
from companion.chapters.ch16.records import (
    REPLAYED,
    RIGHT,
    SIMULATED,
    Records,
    Row,
    best_of_right,
    by_strategy,
    end_error,
    named,
    of_quantity,
    over_compute,
    setting,
    share_narrowest,
)
from companion.chapters.labels import label_of, the
from companion.formatting import listed, percent, share_in_words, significant
from companion.plotting import Html, show, show_table, subplots
from companion.plotting.style import INK, percent_ticks

#: Simulated setting and budget (over the start's) of the left panel of the answer.
SHOWN_SETTING, SHOWN_MULTIPLE = RIGHT[0], 10.0
#: Strategies of the figure over compute.
DRAWN = ("V-optimal", "largest affordable", "by budget", "random")
#: Quantile of the normal distribution that turns a standard error into a 95 % half width.
NORMAL_95 = 1.96


def answer_panels(records: Records) -> Figure:
    """Half widths of intervals and errors of every strategy: simulated under the right law, and on the paper's runs."""
    figure, (left, right) = subplots(1, 2, height=3.5, sharex=True)
    simulated = setting(records.simulated, *SHOWN_SETTING, SHOWN_MULTIPLE)
    _dots(left, SIMULATED, {name: (row["half_width"], NORMAL_95 * row["rmse"]) for name, row in simulated.items()})
    left.set_title("the right law (simulated)")
    replayed = named(by_strategy(records.replay))
    _dots(right, REPLAYED, {name: (row["half_width"], row["error_observed"]) for name, row in replayed.items()})
    right.set_title("the paper's runs")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _dots(ax: Axes, names: tuple[str, ...], values: Mapping[str, tuple[float, float]]) -> None:
    """A bar for the half width of the interval, a point for the error, strategies from top to bottom."""
    for place, name in enumerate(reversed(names)):
        color = LOOKS.get(name, {"color": "#ca9161"})["color"]
        width, error = values[name]
        ax.plot([1e-3, width], [place, place], color=color, linewidth=6, alpha=0.35, solid_capstyle="butt")
        ax.plot(error, place, "o", color=color, markersize=7, markeredgecolor=INK)
    ax.plot([], [], color="#888888", linewidth=6, alpha=0.35, label="as the 95 % interval says")
    ax.plot([], [], "o", color="#888888", markeredgecolor=INK, markersize=7, label="as it turns out")
    ax.set_yticks(range(len(names)), list(reversed(names)))
    ax.set(xscale="log", xlabel="error of the predicted loss (%)", xlim=(2e-3, 0.25))
    ax.set_xticks([0.003, 0.01, 0.03, 0.1])
    percent_ticks(ax.xaxis)
    ax.minorticks_off()


def answer_figure(records: Records) -> Html:
    """The answer of the page in two panels."""
    return show(
        answer_panels(records),
        name="lab-answer",
        alt="Bars of interval half widths and points of errors for six strategies. Under the right law points lie at "
        "the ends of the bars; on the paper's runs they lie far beyond them.",
        caption="How far off a predicted loss may be by its 95 % interval (bars: half widths), and how far off it is "
        "(points), by what chose the runs. A point beyond its bar means intervals that are too short. Left: simulated "
        f"studies; points are {NORMAL_95} times the root mean square error, so that a right bar ends near its point. "
        "Right: the paper's runs of both architectures and two laws; median error against the measured loss of the "
        "largest run.",
    )


def replay_panels(replay: pd.DataFrame, architecture: str) -> Figure:
    """Half widths and errors against the measured loss over spent compute, a column for each law."""
    laws = [law for law in LAW_LABELS if law in set(replay["law"])]
    figure, axes = subplots(2, len(laws), height=5.4, sharex=True, sharey="row")
    for column, law in enumerate(laws):
        rows = over_compute(replay, architecture, law)
        upper, lower = axes[column], axes[len(laws) + column]
        for name in DRAWN:
            own = rows[rows["strategy"] == name]
            look = LOOKS[name] | {"markersize": 4.5, "label": name}
            upper.plot(own["share_of_compute"], own["half_width"], **look)
            lower.plot(own["share_of_compute"], own["error_observed"], **look)
        lower.axhline(end_error(replay, architecture, law), color=INK, linewidth=1, label="fit of all runs")
        upper.set(title=f"fitted law: {LAW_LABELS[law]}", xscale="log", yscale="log")
        lower.set(xscale="log", yscale="log", xlabel="share of all compute spent (%)")
        for ax in (upper, lower):
            ax.set_yticks([0.01, 0.03, 0.1, 0.3])
            ax.minorticks_off()
            percent_ticks(ax.xaxis)
            percent_ticks(ax.yaxis)
    axes[0].set_ylabel(HALF_WIDTH)
    axes[len(laws)].set_ylabel("error against the measured loss (%)")
    axes[len(laws)].legend(loc="lower left", fontsize=8.5)
    return figure


def replay_figure(replay: pd.DataFrame, architecture: str) -> Html:
    """The replay of one architecture over spent compute."""
    return show(
        replay_panels(replay, architecture),
        name="lab-replay",
        alt="Upper row: half widths fall as compute is spent, those of V-optimal design among the lowest. Lower row: "
        "errors fall far less, and those of the largest affordable runs are the lowest for most of the way.",
        caption=f"Replay of the {label_of(architecture)} runs. Upper row: what the 95 % interval says of the loss of "
        "the largest run, which no strategy may ask for. Lower row: how far the prediction is from the measured loss. "
        "Where a line of the lower row lies above that of the upper row, the interval is too short. Random: median of "
        "eight orders.",
    )


def strategies_table(replay: pd.DataFrame) -> Html:
    """How each strategy fared, law by law: errors, half widths, and how often intervals held."""
    found = by_strategy(replay, by=("law",))
    found["place"] = [REPLAYED.index(name) for name in found["strategy"]]
    found = found.sort_values(["law", "place"])
    found["law"] = found["law"].map(LAW_LABELS)
    columns = ["law", "strategy", "half_width", "error_observed", "held_observed", "error", "held_reference"]
    return show_table(
        found[columns],
        name="lab-strategies",
        caption="Rounds between start and end of both architectures. Medians of half widths and absolute errors of the "
        "predicted loss, and how many 95 % intervals hold the measured loss, and the value of the fit of all runs.",
        formats=dict.fromkeys(columns[2:], percent),
        labels={
            "law": "fitted law",
            "half_width": "half width",
            "error_observed": "error, measured loss",
            "held_observed": "held it",
            "error": "error, fit of all runs",
            "held_reference": "held that",
        },
    )


def ends_table(replay: pd.DataFrame, architecture: str, law: str) -> Html:
    """Two ways to judge two strategies as they spend: against the fit of all runs, and against the measured loss."""
    rows = over_compute(replay, architecture, law)
    spent = rows.groupby("round")["share_of_compute"].max()
    shown = pd.DataFrame({"round": spent.index, "spent": spent.to_numpy()})
    for name in ("V-optimal", "largest affordable"):
        own = rows[rows["strategy"] == name].set_index("round")
        for column, words in (("error", "fit of all"), ("error_observed", "measured")):
            shown[f"{name}, {words}"] = shown["round"].map(own[column])
    return show_table(
        shown.drop(columns="round"),
        name="lab-ends",
        caption=f"Errors of the predicted loss of the largest {label_of(architecture)} run by the law with "
        f"{LAW_LABELS[law]}, as compute is spent: against the fit of all runs, and against the measured loss.",
        formats=dict.fromkeys(shown.columns[1:], percent),
        labels={"spent": "compute spent, at most"},
    )


def answer_facts(records: Records) -> dict[str, str]:
    """Values of the two sentences at the top."""
    found = named(by_strategy(records.replay))
    first, second = found["V-optimal"], found["largest affordable"]
    return {
        "c16_answer_right": right_verdict(records.simulated),
        "c16_held_all": percent(first["held_reference"]),
        "c16_error_v": percent(first["error_observed"]),
        "c16_error_largest": percent(second["error_observed"]),
        "c16_nearer": nearer_verdict(first["error_observed"], second["error_observed"]),
    }


def right_verdict(simulated: pd.DataFrame) -> str:
    """A verdict: whether V-optimal runs win where the fitted law holds the truth."""
    widths, errors = (best_of_right(simulated, column) for column in ("half_width", "rmse"))
    narrow, near = (sum(name == "V-optimal" for name in names) for names in (widths, errors))
    number = len(widths)
    if narrow == number and near == number:
        return "the narrowest intervals and the smallest errors"
    if 2 * narrow > number and 2 * near > number:
        return "the narrowest intervals and mostly the smallest errors"
    return "the narrowest intervals only" if 2 * narrow > number else "no better a prediction than other runs"


def nearer_verdict(first: float, second: float) -> str:
    """A verdict: which of two rules comes nearer to the measured loss."""
    if second < first:
        return "a plain rule, always the largest affordable run, comes nearer to it"
    return "a plain rule, always the largest affordable run, comes no nearer to it"


def replay_facts(replay: pd.DataFrame) -> dict[str, str]:
    """Values of the section on the replay."""
    found, exponent = named(by_strategy(replay)), named(by_strategy(replay, "size exponent"))
    by_law = by_strategy(replay, by=("law",))
    rows, narrowest = of_quantity(replay), share_narrowest(replay)
    facts = {
        "c16_rounds": f"{len(rows[rows['strategy'] == 'V-optimal'])}",
        "c16_narrowest": percent(narrowest.get("V-optimal", 0.0)),
        "c16_narrowest_next": next_narrowest(narrowest),
        "c16_bootstrap_v": bootstrap_held(rows, "V-optimal"),
        "c16_times_half": significant(found["V-optimal"]["error_observed"] / found["V-optimal"]["half_width"], 2),
        "c16_misfit_verdict": misfit_verdict(found["V-optimal"]["error_observed"], found["V-optimal"]["half_width"]),
        "c16_exponent_errors": exponent_verdict(exponent),
    }
    for tail, name in (("v", "V-optimal"), ("largest", "largest affordable")):
        own = found[name]
        facts |= {
            f"c16_width_{tail}": percent(own["half_width"]),
            f"c16_held_{tail}": percent(own["held_reference"]),
            f"c16_measured_{tail}": percent(own["held_observed"]),
            f"c16_exponent_{tail}": percent(exponent[name]["held_reference"]),
        }
        for law, word in (("gamma = 1", "one"), ("gamma free", "free")):
            of_law = named(by_law[by_law["law"] == law])
            facts[f"c16_{word}_{tail}"] = percent(of_law[name]["error_observed"])
    return facts


def misfit_verdict(error: float, half_width: float) -> str:
    """A verdict: whether what the law misses is larger than the chance that an interval holds."""
    if error > 2 * half_width:
        return "chance, which the interval holds, is the small part of it, and misfit the large one"
    return "chance, which the interval holds, is the larger part of it"


def next_narrowest(shares: Mapping[str, float]) -> str:
    """Who else has the narrowest interval, in words: `D-optimal in 32 %`."""
    others = [(name, share) for name, share in shares.items() if name != "V-optimal"]
    return listed(f"{name} in {percent(share)}" for name, share in others) or "no other strategy has it"


def bootstrap_held(rows: pd.DataFrame, strategy: str) -> str:
    """How many bootstrap intervals of a strategy hold the value of the fit of all runs, in words."""
    own = rows[(rows["strategy"] == strategy) & rows["bootstrap_low"].notna()]
    held = (own["bootstrap_low"] <= own["reference"]) & (own["reference"] <= own["bootstrap_high"])
    return share_in_words(int(held.sum()), len(own))


def exponent_verdict(found: Mapping[str, Row]) -> str:
    """A verdict: whether the largest affordable runs also have the smaller error of the exponent."""
    first, second = found["V-optimal"]["error"], found["largest affordable"]["error"]
    values = f"{first:.3f} for V-optimal runs and {second:.3f} for the largest affordable ones"
    return f"smaller as well: {values}" if second < first else f"not smaller: {values}"


def ends_facts(replay: pd.DataFrame, architecture: str, law: str) -> dict[str, str]:
    """Values of the pitfall: errors before the end, against both yardsticks."""
    rows = over_compute(replay, architecture, law)
    own = [row for row in rows.to_dict("records") if row["strategy"] == "V-optimal"]
    largest = [row for row in rows.to_dict("records") if row["strategy"] == "largest affordable"]
    before = max(own, key=lambda row: (row["round"] < rows["round"].max(), row["round"]))
    best = min((row for row in largest if row["error_observed"] >= 0), key=lambda row: float(row["error_observed"]))
    all_runs = end_error(replay, architecture, law)
    return {
        "c16_ends_the": the(architecture),
        "c16_ends_law": LAW_LABELS[law],
        "c16_ends_fit": percent(before["error"]),
        "c16_ends_measured": percent(before["error_observed"]),
        "c16_ends_all": percent(all_runs),
        "c16_ends_best": percent(best["error_observed"]),
        "c16_ends_spent": percent(best["share_of_compute"]),
        "c16_ends_verdict": ends_verdict(best["error_observed"], all_runs),
    }


def ends_verdict(best: float, all_runs: float) -> str:
    """A verdict: whether fewer, larger runs ever predict better than all runs do."""
    if best < all_runs:
        return (
            "nearer to it than the fit of all runs: cheap runs, added later, pull the law away from the measured loss"
        )
    return "no nearer to it than the fit of all runs"
