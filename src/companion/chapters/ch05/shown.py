"""The figures of chapter 5 as the page shows them: with names, alternative texts and captions."""

from collections.abc import Mapping

import pandas as pd

from companion.chapters.ch05 import figures
from companion.chapters.ch05.analysis import Slopes, Tables, local_exponents, runs_in_no_line
from companion.fitting.overtraining.cost import ComputeScale
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import power_of_ten
from companion.ledger import build_ledger, to_frame
from companion.plotting import Html, show


def lines_figure(slopes: Slopes, tables: Tables) -> Html:
    """The lines and their runs, with the runs in no line."""
    return show(
        figures.overtraining_lines(
            slopes, {name: runs_in_no_line(tables[name], fits) for name, fits in slopes.items()}
        ),
        name="overtraining-lines",
        alt="Loss over compute on logarithmic axes: a straight line through the runs of every ratio, one above the "
        "other.",
        caption="Loss over compute on logarithmic axes, a line per ratio M of tokens to parameters. The height of a "
        "line says what its ratio costs, its slope how fast the loss falls. Crosses: runs of the design that belong "
        "to no line.",
    )


def tilts_figure(slopes: Slopes) -> Html:
    """The same runs and lines over the power law with the common exponent."""
    return show(
        figures.tilted_lines(slopes),
        name="overtraining-tilts",
        alt="Loss relative to the common power law over compute: a line per ratio, parallel lines are level.",
        caption="The same runs and lines, divided by the power law with the common exponent. A level line has just "
        "that exponent, a rising one a smaller exponent. Runs that leave their line on the same side at both ends "
        "mean that a straight line does not fit.",
    )


def bending_figure(slopes: Slopes, scales: Mapping[str, ComputeScale], bootstraps: Mapping[str, Bootstrap]) -> Html:
    """Local exponents of the parametric law, and those of the straight lines."""
    curves = {name: local_exponents(fits, scales[name], bootstraps[name]) for name, fits in slopes.items()}
    return show(
        figures.bending_lines(slopes, curves),
        name="overtraining-bending",
        alt="Local exponent of the law over compute for the smallest and the largest ratio, crossed by the level "
        "bars of the straight lines.",
        caption="Local exponent of the parametric law along the smallest and the largest M, to ten times the compute "
        "of the runs. Bars: exponents of the straight lines over the compute that their runs span, with one standard "
        "error. Where the law falls, a straight line reports the middle of its range.",
    )


def published_exponents(ledger: pd.DataFrame) -> pd.DataFrame:
    """Exponents of the paper's table, from rows of the ledger; adds the columns `name` and `M`."""
    printed = ledger[ledger["entry"].str.contains("table_of_the_paper")].copy()
    printed["M"] = printed["entry"].str.extract(r"token_param_ratio=(\S+)")[0].astype(float)
    return printed.assign(name=printed["quantity"].str.removeprefix("eta_"))


def exponents_figure(slopes: Slopes, implied: Slopes, of_paper: bool) -> Html:
    """Exponents by ratio, what the law implies for the same runs and, for the paper's runs, the published values."""
    published: dict[str, dict[float, float]] = {}
    if of_paper:
        printed = published_exponents(to_frame(build_ledger(sections=["overtraining_slopes"])))
        for name, part in printed.groupby("name"):
            published[str(name)] = dict(zip(part["M"], part["published"], strict=True))
    return show(
        figures.slopes_by_ratio(slopes, published, implied),
        name="overtraining-slopes",
        alt="Exponent over tokens per parameter with intervals, published values and a dashed line of what the law "
        "implies.",
        caption="Exponents by ratio. Shaded: the common exponent, ± two standard errors. Dashed: exponents of straight "
        "lines through the losses that the parametric law predicts for the same runs. The distance of a marker from "
        "the dashed line is scatter, or a fault of the law.",
    )


def front_figure(slopes: Slopes, excess: Tables, penalty: Tables) -> Html:
    """Loss of over-trained runs above the front, and above the optimum of the law."""
    return show(
        figures.above_the_front(slopes, excess, penalty),
        name="overtraining-front",
        alt="Relative distance of over-trained runs from the front over compute, by ratio, with the law's curves.",
        caption="Loss above the front of all runs at the same compute (markers), and above the optimum of the "
        "parametric law (lines). Runs at 0 are on the front. Where few runs were trained, the front is too high and "
        "the distance too small.",
    )


def cost_figure(costs: Tables, train_flops: float) -> Html:
    """What over-training costs and what it buys."""
    return show(
        figures.cost_and_gain(costs),
        name="overtraining-cost",
        alt="Three panels over tokens per parameter: loss above the optimum, size over the optimal size, and served "
        "tokens to break even.",
        caption=f"What over-training costs and what it buys at {power_of_ten(train_flops)} FLOP of training. Cost "
        "and gain at equal compute; at equal loss, the tokens that pay it back. Shaded: 95 % bootstrap "
        "intervals. N over the optimal N* is also the ratio of FLOP per served token.",
    )


def windows_figure(windows: Tables, slopes: Slopes) -> Html:
    """Exponents from few runs, of `companion.chapters.ch05.short_windows` by architecture."""
    return show(
        figures.window_slopes(windows, {name: fits.common_eta for name, fits in slopes.items()}),
        name="overtraining-windows",
        alt="Exponents from few runs over the compute that they span, with standard errors, and the common exponent.",
        caption="Exponents from neighboring runs of one ratio over the compute that they span. Filled: all runs of "
        "the ratio. Gray line: the common exponent. Bars: one standard error, from as little as one degree of freedom.",
    )
