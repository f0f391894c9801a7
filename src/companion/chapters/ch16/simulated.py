"""Chapter 16: simulated studies under right and wrong laws, designs side by side."""

import pandas as pd
from matplotlib.figure import Figure

from companion.chapters.ch16.looks import LAW_LABELS, LOOKS
from companion.chapters.ch16.records import RIGHT, WRONG, Row, best_of_right, multiples_of, setting
from companion.formatting import listed, percent, share_in_words, signed_percent, span_text
from companion.plotting import Html, show, show_table, subplots
from companion.plotting.style import INK, percent_ticks

#: Strategies of the figure and the table.
SHOWN = ("V-optimal", "largest affordable", "IsoFLOP grid")
#: Below this share of identified tables a mean would be that of a selection.
FEW = 0.5


def pair_label(truth: str, law: str, line: str = ",\n") -> str:
    """A simulated setting: where losses come from, and the law that is fitted to them."""
    return f"truth {LAW_LABELS[truth]}{line}fitted {LAW_LABELS[law]}"


def bias_panels(simulated: pd.DataFrame) -> Figure:
    """Mean errors with the half width of one interval, by setting and strategy; a panel for each budget."""
    multiples = multiples_of(simulated)
    figure, axes = subplots(1, len(multiples), height=5.2, sharex=True, sharey=True)
    pairs = [*RIGHT, *WRONG]
    for ax, multiple in zip(axes, multiples, strict=True):
        for place, pair in enumerate(reversed(pairs)):
            rows = setting(simulated, *pair, multiple)
            for number, name in enumerate(SHOWN):
                row, look = rows[name], LOOKS[name]
                if not row["identified"] > FEW:
                    continue
                at = place + 0.25 * (1 - number)
                style = {"color": look["color"], "marker": look["marker"], "markersize": 5, "linewidth": 1.4}
                ax.errorbar(row["bias"], at, xerr=row["half_width"], capsize=2.5, **style)
        ax.axvline(0, color=INK, linewidth=0.9)
        ax.axhline(len(WRONG) - 0.5, color=INK, linewidth=0.8, linestyle=":")
        ax.set_title(f"{multiple:g} × the start's compute")
        ax.set_xlabel("error of the loss (%)")
        percent_ticks(ax.xaxis)
    for name in SHOWN:
        look = {key: LOOKS[name][key] for key in ("color", "marker")}
        axes[0].plot([], [], label=name, markersize=5, linewidth=1.4, **look)
    axes[0].set_yticks(range(len(pairs)), [pair_label(*pair) for pair in reversed(pairs)], fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SHOWN))
    return figure


def bias_figure(simulated: pd.DataFrame) -> Html:
    """Bias and intervals under right and wrong laws."""
    return show(
        bias_panels(simulated),
        name="lab-bias",
        alt="Mean errors with intervals for seven pairs of true and fitted law. Above the dotted line all lie about "
        "zero; below it some lie far from zero, most of all for designs without large runs.",
        caption="Simulated studies, by the true law and the fitted one: mean error of the predicted loss (points) with "
        "the half width of a 95 % interval (bars). A bar that does not reach zero is false in most studies. Above the "
        "dotted line the fitted law holds the truth. A design is left out where most of its tables do not determine "
        "the law.",
    )


def bias_table(simulated: pd.DataFrame) -> Html:
    """Bias and coverage by setting, budget and strategy."""
    rows = []
    for multiple in multiples_of(simulated):
        for pair in (*RIGHT, *WRONG):
            found = setting(simulated, *pair, multiple)
            row = {"compute": f"{multiple:g} ×", "truth": LAW_LABELS[pair[0]], "law": LAW_LABELS[pair[1]]}
            rows.append(row | {name: _cell(found[name]) for name in SHOWN})
    return show_table(
        pd.DataFrame(rows),
        name="lab-bias-coverage",
        caption="The same in numbers: mean error, and in brackets how many of the 95 % intervals hold the truth. "
        f"{int(simulated['tables'].max())} simulated studies a row; of those that determine the law.",
        labels={"compute": "further compute", "law": "fitted law"},
    )


def _cell(row: Row) -> str:
    if not row["identified"] > FEW:
        return "not determined"
    return f"{signed_percent(row['bias'], 1)} [{percent(row['coverage'])}]"


def simulated_facts(simulated: pd.DataFrame) -> dict[str, str]:
    """Values of the section on simulated studies."""
    widths, errors = (best_of_right(simulated, column) for column in ("half_width", "rmse"))
    multiples = multiples_of(simulated)
    right = [setting(simulated, *pair, each) for pair in RIGHT for each in multiples]
    wrong = setting(simulated, "gamma free", "gamma = 1", multiples[0])
    product = setting(simulated, "product", "gamma = 1", multiples[0])
    times = [rows["IsoFLOP grid"]["rmse"] / rows["V-optimal"]["rmse"] for rows in right]
    few = [name for name, row in product.items() if row["identified"] <= FEW]
    first, second = wrong["V-optimal"], wrong["largest affordable"]
    return {
        "c16_sim_tables": f"{int(simulated['tables'].max())}",
        "c16_sim_low": f"{multiples[0]:g}",
        "c16_sim_high": f"{multiples[-1]:g}",
        "c16_sim_narrow": share_in_words(widths.count("V-optimal"), len(widths)),
        "c16_sim_near": share_in_words(errors.count("V-optimal"), len(errors)),
        "c16_sim_times": span_text(times, lambda value: f"{value:.1f}"),
        "c16_sim_right_coverage": span_text(rows["V-optimal"]["coverage"] for rows in right),
        "c16_wrong_v": signed_percent(first["bias"], 1),
        "c16_wrong_v_held": percent(first["coverage"]),
        "c16_wrong_largest": signed_percent(second["bias"], 1),
        "c16_wrong_largest_held": percent(second["coverage"]),
        "c16_wrong_verdict": wrong_verdict(first["bias"], second["bias"]),
        "c16_product_v": signed_percent(product["V-optimal"]["bias"], 1),
        "c16_product_v_held": percent(product["V-optimal"]["coverage"]),
        "c16_product_few_start": few_verdict(few),
        "c16_product_found": percent(product["V-optimal"]["identified"]),
        "c16_product_largest": percent(product["largest affordable"]["identified"]),
        "c16_further": further_verdict(simulated, multiples),
    }


def wrong_verdict(first: float, second: float) -> str:
    """A verdict: whether the largest affordable runs are less biased than V-optimal ones under a wrong law."""
    return (
        "the same order as on the paper's runs"
        if abs(second) < abs(first)
        else "another order than on the paper's runs"
    )


def few_verdict(names: list[str]) -> str:
    """A verdict: designs of which most tables do not determine the law."""
    return f"Most tables of {listed(names)} do not determine the law" if names else "Every design determines the law"


def further_verdict(simulated: pd.DataFrame, multiples: list[float]) -> str:
    """A verdict: whether every wrong law does harm: a further term of two percent of the loss."""
    rows = [setting(simulated, "further term", law, each) for law in ("gamma free", "gamma = 1") for each in multiples]
    least = min(float(table["V-optimal"]["coverage"]) for table in rows)
    if least >= 0.9:
        return f"does no harm: V-optimal intervals hold the truth in at least {percent(least)} of the studies"
    return f"does harm: at worst V-optimal intervals hold the truth in {percent(least)} of the studies"
