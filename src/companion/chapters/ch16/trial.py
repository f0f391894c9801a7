"""Chapter 16: the laboratory of the page in many worlds, with the second half of the budget spent by a design."""

import math

import numpy as np
import pandas as pd

from companion.chapters.ch16.playing import best_setting, sensible_ask
from companion.chapters.ch16.records import named
from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.formatting import percent, signed_percent
from companion.laws import LossSurface, optimum
from companion.plotting import Html, show_table
from companion.study.laboratory import Ask, Laboratory, Prediction, Rules, practice_laboratory
from companion.study.laboratory.chance import derived_key
from companion.study.next_runs import (
    LossOf,
    Pricing,
    advise,
    default_candidates,
    isoflop_grid,
    largest_affordable,
    linearize,
)

#: The sweep: size, tokens and stated rates. The grid: sizes and tokens per parameter.
SWEEP_SIZE, SWEEP_TOKENS, SWEEP_RATES = 2e7, 4e8, (1.5e-4, 4.5e-4, 1.35e-3, 4e-3)
GRID_SIZES, GRID_RATIOS = (1e7, 1.8e7, 3.3e7, 6e7), (10, 20, 40, 80)
#: Runs that a design may add, and the share of the rest of the budget that is planned with: steps are whole.
MORE_RUNS, PLANNED = 8, 0.999
DESIGNS = ("V-optimal", "largest affordable", "IsoFLOP grid")


def sweep_asks(rules: Rules) -> list[Ask]:
    """The sweep of learning rates, for every architecture."""
    return [
        sensible_ask(rules, name, SWEEP_SIZE, SWEEP_TOKENS, rate)
        for name in rules.architectures
        for rate in SWEEP_RATES
    ]


def grid_asks(rules: Rules, architecture: str, rate: float) -> list[Ask]:
    """The grid of sizes and tokens per parameter."""
    return [sensible_ask(rules, architecture, size, ratio * size, rate) for size in GRID_SIZES for ratio in GRID_RATIOS]


def fit_law(table: pd.DataFrame) -> Fit:
    """The law with gamma = 1 by least squares of the log loss."""
    return fit(LossSurface, table, gamma=1, huber_delta=math.inf)


def target_of(law: Fit, target_flops: float) -> LossOf:
    """The loss of the compute-optimal run, by a law."""
    best = optimum(law.law, 6.0, target_flops)
    return LossOf(float(best.num_params[0]), float(best.num_tokens[0]))


def further_runs(design: str, law: Fit, table: pd.DataFrame, target: LossOf, budget: float) -> pd.DataFrame:
    """num_params and num_tokens of runs for a budget in FLOP, by a design.

    Raises
    ------
    InputError
        for an unknown design.
    """
    pricing = Pricing()
    candidates = default_candidates(table, pricing, budget)
    sizes = float(candidates["num_params"].min()), float(candidates["num_params"].max())
    if design == "V-optimal":
        return advise(law, target, candidates, pricing, budget, max_runs=MORE_RUNS).runs
    if design == "largest affordable":
        return largest_affordable(candidates, budget, MORE_RUNS)
    if design == "IsoFLOP grid":
        return isoflop_grid(law.law, pricing, budget, num_budgets=2, num_sizes=MORE_RUNS // 2, sizes=sizes)
    raise InputError(f"design {design!r} is not one of {', '.join(DESIGNS)}")


def play(laboratory: Laboratory, design: str) -> dict[str, float]:
    """The page's way through a laboratory: half width, log_error, covered and total.

    The interval is Student's: the standard error of the law's loss and the scatter of one run, first order.
    """
    rules = laboratory.rules
    architecture, rate = best_setting(laboratory.ask(sweep_asks(rules)))
    asks = grid_asks(rules, architecture, rate)
    laboratory.ask(asks)
    law = fit_law(table_of(laboratory, asks))
    budget = PLANNED * laboratory.state().left
    chosen = further_runs(design, law, table_of(laboratory, asks), target_of(law, rules.target_flops), budget)
    places = chosen[["num_params", "num_tokens"]].to_numpy()
    asks += [sensible_ask(rules, architecture, size, tokens, rate, seed=1) for size, tokens in places]
    laboratory.ask(asks)
    table = table_of(laboratory, asks)
    law = fit_law(table)
    target, linear = target_of(law, rules.target_flops), linearize(law)
    error = linear.standard_error(linear.information(table["num_params"], table["num_tokens"]), target)
    half = linear.noise.quantile(rules.level) * math.hypot(error, linear.noise.sd)
    loss, ask = target.value(law.law), sensible_ask(rules, architecture, target.num_params, target.num_tokens, rate)
    laboratory.predict(Prediction(ask=ask, loss=loss, low=loss * math.exp(-half), high=loss * math.exp(half)))
    laboratory.reveal()
    score = laboratory.score()
    return {"half_width": half, "log_error": score.log_error, "covered": float(score.covered), "total": score.total}


def table_of(laboratory: Laboratory, asks: list[Ask]) -> pd.DataFrame:
    """The finished runs of some asks as a run table; asking again is free."""
    answers = [answer for answer in laboratory.ask(asks) if answer.outcome.val_loss is not None]
    rows = [
        {
            "num_params": answer.ask.num_params,
            "num_tokens": answer.ask.num_tokens,
            "train_flops": answer.ask.train_flops,
            "val_loss": answer.outcome.val_loss,
        }
        for answer in answers
    ]
    return pd.DataFrame(rows)


def designs_in_worlds(number: int, designs: tuple[str, ...] = DESIGNS, seed: int = 0) -> pd.DataFrame:
    """Rows of `play` for every design in the same practice worlds, with `world`, `design` and `fault`.

    A laboratory without a prediction, as no law is determined, has total 0, nothing covered, and the reason in `fault`.
    """
    rows = []
    for world in range(number):
        key = derived_key(f"{seed}", "chapter 16", str(world))
        for design in designs:
            row: dict[str, object] = {"world": world, "design": design, "fault": ""}
            row |= {"half_width": math.nan, "log_error": math.nan, "covered": 0.0, "total": 0.0}
            try:
                row |= play(practice_laboratory(key), design)
            except InputError as error:
                row["fault"] = str(error)
            rows.append(row)
    return pd.DataFrame(rows)


def designs_table(found: pd.DataFrame) -> Html:
    """How the designs fared in the same worlds."""
    table = found.groupby("design", sort=False).agg(
        half_width=("half_width", "median"),
        rms=("log_error", lambda errors: float(np.sqrt(np.nanmean(np.square(errors))))),
        median=("log_error", "median"),
        covered=("covered", "mean"),
        total=("total", "mean"),
    )
    return show_table(
        table.reset_index(),
        name="lab-designs",
        caption=f"Three ways to spend the second half of the budget, in the same {found['world'].nunique()} worlds: "
        "half width and error of the predicted loss, how many intervals hold the outcome, and the mean score.",
        formats={
            "half_width": percent,
            "rms": percent,
            "median": lambda value: signed_percent(value, 1),
            "covered": percent,
            "total": "{:.0f}",
        },
        labels={"half_width": "half width", "rms": "rms error", "median": "median error", "covered": "held"},
    )


def designs_verdict(found: pd.DataFrame) -> str:
    """A verdict: whether the narrowest intervals are the best ones in the laboratory, too."""
    groups = found.groupby("design")
    table = groups.agg(half=("half_width", "median"), held=("covered", "mean"), total=("total", "mean"))
    means = named(table.reset_index(), "design")
    narrowest = min(means, key=lambda name: float(means[name]["half"]))
    best = max(means, key=lambda name: float(means[name]["total"]))
    if narrowest == best:
        return f"Here {narrowest} has the narrowest intervals and the highest score"
    held = percent(means[narrowest]["held"])
    return f"{narrowest} has the narrowest intervals, and {held} of them hold the outcome; {best} scores highest"
