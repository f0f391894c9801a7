"""The figures of chapter 6 as the page shows them: with names, alternative texts and captions."""

import html
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from companion.chapters.ch06 import figures
from companion.chapters.ch06.mistakes import Form
from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.fitting.fit import Fit
from companion.fitting.multistart import Multistart
from companion.formatting import interval, power_of_ten
from companion.plotting import Html, show
from companion.plotting.style import architecture_look

#: Settings of the plain search as the page calls them.
SETTINGS = {
    "published": "published tolerances",
    "scipy default": "SciPy's defaults",
    "scipy default, mean": "SciPy's defaults, mean",
}
#: Parameters as the page prints them.
SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "size_exponent": "a"}
_EXPERIMENTS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param"}


def named(experiment: str) -> str:
    """An experiment or a design as the page prints it; a name that the book does not know stays as it is."""
    return _EXPERIMENTS.get(experiment, experiment)


def delta_text(delta: float) -> str:
    """A Huber delta as the page prints it: 0.001, 10⁻⁵, ∞."""
    if math.isinf(delta):
        return "∞"
    return f"{delta:g}" if delta >= 1e-3 else power_of_ten(delta).removeprefix("1×")


def tried(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a function returns and no reason, or None and the reason where it refuses the runs (`InputError`)."""
    try:
        return function(*arguments), ""
    except InputError as error:
        return None, str(error)


def not_here(reason: str) -> Html:
    """The paragraph in the place of a figure or table that a run table cannot give."""
    return Html(f"<p>Not on this table: {html.escape(reason)}.</p>")


def condition_figure(curve: pd.DataFrame, designs: pd.DataFrame) -> Html:
    """Condition numbers of simulated designs, and of those in the table."""
    return show(
        figures.condition_over_spread(curve, designs.assign(design=designs["design"].map(named))),
        name="pitfalls-condition",
        alt="Condition number over the spread of tokens per parameter, falling steeply and then flat; designs as "
        "markers.",
        caption="A narrow spread of M costs orders of magnitude. Lines: simulated designs of six sizes with seven "
        "ratios each. Markers: the designs in the table, γ free.",
    )


def searches_figure(searches: Mapping[str, Multistart], fit: Fit) -> Html:
    """Where the starts of the plain search end."""
    return show(
        figures.end_objectives(searches, fit.objective, SETTINGS),
        name="pitfalls-starts",
        alt="Sorted objectives of all starts over the best one, three settings of the tolerances, log scale.",
        caption="Where the starts end, sorted by the relative excess of their objective over that of the exact fit. "
        "Plateaus are other local optima, or places where the search gave up.",
    )


def candidates_figure(candidates: pd.DataFrame) -> Html:
    """Nearly optimal fits by both metrics."""
    return show(
        figures.metric_scatter(candidates),
        name="pitfalls-metric",
        alt="Mean square error over all pairs against that over runs for many nearly optimal fits; three choices "
        "marked.",
        caption="Nearly optimal fits by both metrics. The metric over pairs prefers the fits whose predictions vary "
        "little, and these are worse over runs.",
    )


def forms_figure(iso: pd.DataFrame, forms: Mapping[str, Form], architecture: str) -> Html:
    """The runs of the middle budget and the three forms."""
    budgets = sorted(iso["isoflop_budget"].unique())
    runs = iso[iso["isoflop_budget"] == budgets[len(budgets) // 2]]
    return show(
        figures.forms_along_budget(runs, forms, architecture_look([architecture])[architecture]["color"]),
        name="pitfalls-forms",
        alt="Loss over parameters at one budget: runs and sums form a valley, the product is a monotonic curve.",
        caption="The runs of one budget form a valley. Both sums follow it; the product cannot. All three are fitted "
        "to all IsoFLOP runs by least squares of log L. Shaded: the sizes that were trained.",
    )


def embedding_figure(definitions: pd.DataFrame | None, missing: str) -> Html:
    """Optimal size under three definitions of size and compute, or why the table has none."""
    if definitions is None:
        return not_here(missing)
    return show(
        figures.embedding_optima(definitions),
        name="pitfalls-embedding",
        alt="Optimal size over compute in log-log axes for three definitions of size and compute, with different "
        "slopes.",
        caption="Optimal size by parabolas, from the same runs, under three definitions of N and C. Lines: power laws "
        "through the optima, with their slope a.",
    )


def delta_figure(paths: Mapping[str, pd.DataFrame], huber_delta: float) -> Html:
    """Parameters over δ."""
    return show(
        figures.delta_parameters(paths, huber_delta),
        name="pitfalls-delta",
        alt="Parameters over the Huber delta, relative to the headline delta; flat at both ends and a step between.",
        caption="Parameters of the fit over δ, relative to those at the headline δ (gray line). They are flat at both "
        "ends and step where δ passes the size of the residuals.",
    )


def shifts_figure(
    shifts: Mapping[str, float], a: float, bounds: tuple[float, float], num_runs: int, architecture: str
) -> Html:
    """How far every mistake moves the exponent a, with its 95 % interval."""
    low, high = bounds
    return show(
        figures.exponent_shifts(shifts, (low - a, high - a)),
        name="pitfalls-shifts",
        alt="Shift of the exponent a by each mistake, sorted, with the 95 % interval of the fit as a gray band.",
        caption=f"Shift of the exponent a by each mistake that moves it. The right fit has a = {a:.3f}; gray: its 95 % "
        f"interval {interval(bounds)}, from {num_runs} IsoFLOP runs ({label_of(architecture)}).",
    )
