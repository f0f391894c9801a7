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
        alt="Loss over compute in log-log axes, a nearly straight line per ratio, the lines about parallel and stacked "
        "by ratio.",
        caption="A line per ratio of tokens to parameters M. More tokens per parameter: a higher loss at the same "
        "compute. Crosses: runs of the design that belong to no line.",
    )


def bending_figure(slopes: Slopes, scales: Mapping[str, ComputeScale], bootstraps: Mapping[str, Bootstrap]) -> Html:
    """Local exponents of the parametric law, and those of the straight lines."""
    curves = {name: local_exponents(fits, scales[name], bootstraps[name]) for name, fits in slopes.items()}
    return show(
        figures.bending_lines(slopes, curves),
        name="overtraining-bending",
        alt="The law's local exponent falls with compute; horizontal bars of the straight-line exponents cross it.",
        caption="Local exponent of the parametric law along constant M, to ten times the compute of the runs. Marks: "
        "exponents of the straight lines (one standard error), over the compute that their runs span. A line reports "
        "the middle of its range.",
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
        caption="Exponents by ratio. Shaded: the common slope, ± two standard errors. Dashed: straight lines through "
        "the losses that the parametric law gives the same runs, so what is left is scatter or a fault of the law.",
    )


def front_figure(excess: Tables, penalty: Tables) -> Html:
    """Loss of over-trained runs above the front, and above the optimum of the law."""
    return show(
        figures.above_the_front(excess, penalty),
        name="overtraining-front",
        alt="Relative distance of over-trained runs from the front by ratio; distances are nearly constant over "
        "compute.",
        caption="Loss above the front of all runs at the same compute (markers) and above the optimum of the "
        "parametric law (lines). Runs at 0 are on the front. Where few runs were trained the front is too high, and "
        "the distance too small.",
    )


def cost_figure(costs: Tables, train_flops: float) -> Html:
    """What over-training costs and what it buys."""
    return show(
        figures.cost_and_gain(costs),
        name="overtraining-cost",
        alt="Three panels over tokens per parameter: the loss penalty rises, the size falls, the break-even number of "
        "tokens rises.",
        caption=f"Training compute {power_of_ten(train_flops)} FLOP; shaded: 95 % bootstrap intervals. Size N over the "
        "optimal N* is also the ratio of FLOP per served token.",
    )


def windows_figure(windows: Tables, slopes: Slopes) -> Html:
    """Exponents from few runs, of `companion.chapters.ch05.short_windows` by architecture."""
    return show(
        figures.window_slopes(windows, {name: fits.common_eta for name, fits in slopes.items()}),
        name="overtraining-windows",
        alt="Exponents from few runs over the compute they span: a wide scatter on the left, narrowing to the right.",
        caption="Exponents from neighboring runs of one ratio over the compute they span; filled: all runs of the "
        "ratio; gray line: the common slope. Bars: one standard error, from as little as one degree of freedom.",
    )
