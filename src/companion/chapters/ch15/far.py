"""Chapter 15: two studies of known entropy, one near it and one far, and what it would take to see the far one."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch15.floor import FloorFit, floor_of, reducible_front
from companion.chapters.ch15.study import OwnStudy
from companion.fitting import Fit, fit
from companion.formatting import percent, plural, power_of_ten
from companion.laws import LossSurface
from companion.plotting import LABELS, Html, show, show_table
from companion.plotting.style import subplots

#: How often every run is trained in the simulated study that has more runs instead of more compute.
TIMES = 10


def show_two_floors(studies: Sequence[tuple[OwnStudy, Sequence[FloorFit]]]) -> Html:
    """A panel per study: losses over compute above the entropy, and at the right the intervals of the fitted E."""
    need(studies[0][0].ours, "it compares the two studies of this project")
    figure, panels = subplots(1, 2, height=3.6)
    for panel, (study, fits) in zip(panels, studies, strict=True):
        floor = floor_of(study)
        for name in study.pair:
            runs, look = study.of(name), dict(study.looks[name])
            panel.plot(
                runs["train_flops"], runs["val_loss"], look["marker"], color=look["color"], markersize=3, alpha=0.5
            )
            front = reducible_front(runs, floor)
            panel.plot(front.cost, np.array(front.loss) + floor, color=look["color"], label=look["label"])
        panel.axhline(floor, color="black", linestyle="--", linewidth=1, label="entropy")
        right = float(study.at_context["train_flops"].max())
        for number, each in enumerate(fits):
            color, at = study.looks[each.architecture]["color"], right * 2.0 * 1.35**number
            high = each.high if math.isfinite(each.high) else float(study.at_context["val_loss"].max())
            panel.plot([at, at], [each.low, high], color=color, linewidth=2)
            panel.plot(at, each.free.parameters["E"], "_", color=color, markersize=7)
        panel.set(xscale="log", xlabel=LABELS["train_flops"], ylim=(0, None), title=source_words(study))
    panels[0].set(ylabel=LABELS["val_loss"])
    panels[0].legend(loc="lower left")
    return show(
        figure,
        name="study-two-floors",
        alt="Losses over compute in two panels with the entropy as a dashed line: close above it on the left, far "
        "above it on the right. Vertical bars are intervals of the fitted E.",
        caption="Losses of two studies, the best of every third of a decade as lines, and the entropy of their "
        "sources. Bars at the right of each panel: 95 % profile intervals of E, two for each architecture (two "
        "objectives); the tick is the fitted E.",
    )


def source_words(study: OwnStudy) -> str:
    """What a panel calls the source of a study: its number of tokens."""
    return f"source of {int(study.runs['vocab_size'].iloc[0]):,} tokens"


def far_facts(study: OwnStudy, far: OwnStudy) -> dict[str, object]:
    """Values on the two studies."""
    return {
        "c15_near_source": source_words(study),
        "c15_far_source": source_words(far),
        "c15_far_runs": plural(len(far.runs), "run"),
    }


# ---- what would be needed ------------------------------------------------------------------------


def simulate_reach(
    study: OwnStudy, fits: Sequence[FloorFit], decades: Sequence[int], num_draws: int, seed: int = 0
) -> pd.DataFrame:
    """Simulated studies whose law goes to the known entropy: what fits of them say of E, by how far the study reaches.

    The truth is the law of the first architecture with E held. The study is the plan (the run table where there is no
    plan), the plan with every run `TIMES` times, and the plan with the same again at ten times the compute for each
    decade.

    Returns
    -------
    DataFrame
        one row per study: `decades`, `times` (each run), `num_runs`, `train_flops` (the most of one run), `identified`
        (share of draws), `low`, `median`, `high` (quantiles of E at 10, 50 and 90 %, nats per token).
    """
    truth = next(each for each in fits if each.objective == "least squares")
    sizes, tokens, most = _design(study, truth.architecture, study.of(truth.architecture))
    rng = np.random.default_rng(seed)
    rows = []
    for reach, times in [(0, TIMES), *((each, 1) for each in decades)]:
        factors = [10 ** (step / 2) for step in range(reach + 1)] * times
        size, token = (np.concatenate([factor * each for factor in factors]) for each in (sizes, tokens))
        found = _fits_of_draws(truth.held, size, token, num_draws, rng)
        low, median, high = np.quantile([each.parameters["E"] for each in found], [0.1, 0.5, 0.9])
        row = {"decades": reach, "times": times, "num_runs": len(size), "train_flops": most * 10.0**reach}
        share = float(np.mean([each.identified for each in found]))
        rows.append(row | {"identified": share, "low": low, "median": median, "high": high})
    return pd.DataFrame(rows).sort_values(["decades", "times"], ignore_index=True)


def _fits_of_draws(
    truth: Fit, size: np.ndarray, token: np.ndarray, num_draws: int, rng: np.random.Generator
) -> list[Fit]:
    """Fits with E free of tables that are drawn around a law with the scatter of its own residuals."""
    sigma, loss = float(np.std(truth.residuals)), truth.law.predict(size, token)
    runs = pd.DataFrame({"num_params": size, "num_tokens": token})
    drawn = [runs.assign(val_loss=loss * np.exp(rng.normal(0, sigma, len(size)))) for _ in range(num_draws)]
    return [fit(LossSurface, each, gamma=1, huber_delta=math.inf, num_starts=4) for each in drawn]


def _design(study: OwnStudy, name: str, runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, float]:
    """N and D of what an architecture is to be trained on, and the most compute of one run."""
    if study.plan is not None:
        plan = study.plan
        at = (plan["architecture"] == name) & (plan["context_length"] == study.context_length)
        runs = plan[at & (plan["experiment"] != "learning_rate")]
    columns = (runs[column].to_numpy(dtype=float) for column in ("num_params", "num_tokens"))
    sizes, tokens = columns
    return sizes, tokens, float(runs["train_flops"].max())


def show_reach(reach: pd.DataFrame, floor: float) -> Html:
    """A row per number of decades."""
    shown = reach.assign(
        study=[study_text(row["decades"], row["times"]) for row in reach.to_dict("records")],
        floor=[f"{row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})" for row in reach.to_dict("records")],
    )
    return show_table(
        shown[["study", "num_runs", "train_flops", "identified", "floor"]],
        name="study-reach",
        caption=f"Simulated studies whose losses really fall toward {floor:.3f} nats/token: the whole plan, "
        "more runs of it, and the plan continued by decades of compute. E fitted: median, and the span "
        "of four in five.",
        formats={"train_flops": power_of_ten, "identified": percent},
        labels={
            "num_runs": "runs",
            "train_flops": "largest run (FLOP)",
            "identified": "identified",
            "floor": "E fitted (nats/token)",
        },
    )


def study_text(decades: int, times: int) -> str:
    """What a simulated study is, in words."""
    if decades:
        return f"the plan and {decades} decade{'s' * (decades > 1)} more"
    return "the plan" if times == 1 else f"the plan, every run {times} times"


def reach_facts(reach: pd.DataFrame, floor: float) -> dict[str, object]:
    """Values of the simulation."""
    return {"c15_reach": reach_verdict(reach[reach["times"] == 1], floor), "c15_more_runs": more_verdict(reach)}


def more_verdict(reach: pd.DataFrame) -> str:
    """A verdict: whether many more runs at the same compute would do what more compute does."""
    spans = (reach["high"] - reach["low"]).where(reach["decades"] == 0)
    once, often = (float(spans[reach["times"] == times].iloc[0]) for times in (1, TIMES))
    start = f"With every run {TIMES} times, four of five fitted E still span {often:.2f} nats/token"
    return f"{start}, after {once:.2f} with every run once"


def reach_verdict(reach: pd.DataFrame, floor: float, within: float = 0.1) -> str:
    """A verdict: how many further decades of compute make a fit see the entropy within a share of it."""
    good = reach[(reach["low"] > floor * (1 - within)) & (reach["high"] < floor * (1 + within))]
    if good.empty:
        return (
            f"Even {reach['decades'].max()} further decades of compute do not bring four of five fitted E within "
            f"{percent(within)} of the entropy"
        )
    need_decades = int(good["decades"].iloc[0])
    if need_decades == 0:
        return (
            f"The plan, once it is trained whole, brings four of five fitted E within {percent(within)} of the entropy"
        )
    return (
        f"It takes {need_decades} further decade{'s' * (need_decades > 1)} of compute to bring four of five fitted E "
        f"within {percent(within)} of the entropy"
    )
